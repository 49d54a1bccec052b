//! Handing events to the agent.

use crate::maps::{self, EVENTS_LAN, Scratch};
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use tr111_common::{
    counter::{Class, Counter, Hook, Ring},
    event::HEADER_BYTES,
};

/// Puts the frame in the scratch buffer into the LAN ring, and counts whether the ring took it.
#[inline(always)]
pub fn lan(scratch: &mut Scratch, hook: Hook, class: Class) {
    let Scratch { seen, header, .. } = scratch;
    header.time = seen.time;
    header.segment = seen.segment;
    header.captured = seen.captured.bytes();
    header.metadata_tag = seen.metadata_tag;
    header.class = class as u8;
    header.hook = hook as u8;
    let length = u64::from(seen.captured.argument()) + HEADER_BYTES as u64;
    // SAFETY: header and frame lie next to each other in the map value, and `length` is within both.
    let result = unsafe {
        bpf_ringbuf_output(
            core::ptr::addr_of!(EVENTS_LAN).cast_mut().cast(),
            core::ptr::from_mut(header).cast(),
            length,
            0,
        )
    };
    maps::count(if result == 0 { Counter::RingEvents(Ring::Lan) } else { Counter::RingLost(Ring::Lan) });
}
