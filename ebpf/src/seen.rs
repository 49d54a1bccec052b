//! A frame that a hook takes a closer look at.

use crate::maps::Scratch;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use tr111_common::{
    counter::Class,
    frame::FRAME_WORDS,
    headers::{Segment, Udp},
};
use tr111_ebpf::frame::{Length, Packet};

/// What is known of a frame that was copied into the scratch buffer.
#[derive(Clone, Copy)]
pub struct Seen {
    /// Boot time in nanoseconds.
    pub time: u64,
    /// The datagram.
    pub udp: Udp,
    /// Where it was seen.
    pub segment: Segment,
    /// VLAN tag that the kernel took out of the frame, as the header of an event has it: the unused half of an option
    /// would be a register that nobody wrote.
    pub metadata_tag: u32,
    /// Bytes of the frame in the scratch buffer.
    pub captured: Length<FRAME_WORDS>,
}

/// Notes the frame of `udp` in `scratch`, and copies it there.
#[inline(always)]
pub fn look<P: Packet>(packet: &P, udp: Udp, scratch: &mut Scratch) -> Result<(), Class> {
    let captured = Length::new(packet.len() as u32).ok_or(Class::Oversize)?;
    if !packet.read(0, captured, &mut scratch.frame) {
        return Err(Class::Oversize);
    }
    scratch.seen = seen(packet, udp, captured);
    Ok(())
}

#[inline(always)]
fn seen<P: Packet>(packet: &P, udp: Udp, captured: Length<FRAME_WORDS>) -> Seen {
    Seen {
        // SAFETY: the helper takes nothing and reads a clock.
        time: unsafe { bpf_ktime_get_boot_ns() },
        segment: Segment { ifindex: packet.ifindex(), vlan: udp.vlan },
        udp,
        metadata_tag: packet.metadata_tag().map_or(0, |tag| 0x1_0000 | u32::from(tag)),
        captured,
    }
}
