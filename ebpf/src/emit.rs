//! Sends events to the agent through a ring buffer.
//!
//! # Theory of operation
//!
//! A record is a header followed by the frame. Both are adjacent in the scratch buffer, so one `bpf_ringbuf_output`
//! copies them. If the ring is full, the event is lost and counted; the agent then rebuilds its state from the map
//! `LAST_ACK`.

use crate::maps::{self, EVENTS_LAN, Scratch};
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use tr111_common::{
    counter::{Class, Counter, Hook, Ring},
    event::HEADER_BYTES,
};

/// Sends the frame in the scratch buffer to the LAN ring, and counts the event as taken or lost.
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
    // SAFETY: header and frame are adjacent in the map value, and `length` does not exceed both.
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
