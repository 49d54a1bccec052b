//! Handing events to the agent.

use crate::maps::{self, EVENTS_LAN, Scratch};
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use tr111_common::{
    counter::{Class, Counter, Hook, Ring},
    event::{HEADER_BYTES, Header},
    frame::FRAME_CAPACITY,
    headers::Segment,
};

/// What an event says besides its frame.
pub struct Facts {
    /// Boot time in nanoseconds.
    pub time: u64,
    /// Where the frame was seen.
    pub segment: Segment,
    /// VLAN tag that the kernel took out of the frame.
    pub metadata_tag: Option<u16>,
    /// The hook.
    pub hook: Hook,
    /// What the frame is taken for.
    pub class: Class,
    /// Bytes of the frame in the scratch buffer.
    pub captured: u32,
}

/// Puts the frame in the scratch buffer into the LAN ring, and counts whether the ring took it.
#[inline(always)]
pub fn lan(scratch: &mut Scratch, facts: &Facts) {
    scratch.header = Header {
        time: facts.time,
        segment: facts.segment,
        captured: facts.captured,
        metadata_tag: facts.metadata_tag.map_or(0, |tag| 0x1_0000 | u32::from(tag)),
        class: facts.class as u8,
        hook: facts.hook as u8,
        reserved: [0; 6],
    };
    let length = u64::from(facts.captured) + HEADER_BYTES as u64;
    if length > (HEADER_BYTES + FRAME_CAPACITY) as u64 {
        return;
    }
    // SAFETY: header and frame lie next to each other in the map value, and `length` is within both.
    let result = unsafe {
        bpf_ringbuf_output(
            core::ptr::addr_of!(EVENTS_LAN).cast_mut().cast(),
            core::ptr::from_mut(&mut scratch.header).cast(),
            length,
            0,
        )
    };
    maps::count(if result == 0 { Counter::RingEvents(Ring::Lan) } else { Counter::RingLost(Ring::Lan) });
}
