//! A frame that a hook takes a closer look at.

use crate::maps::Scratch;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use tr111_common::{
    counter::Class,
    frame::{FRAME_WORDS, Frame as _},
    headers::{self, Segment, Udp},
};
use tr111_ebpf::frame::{Length, Merged, Packet};

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

/// Notes a merged datagram of `udp` in `scratch`, and copies it there with the lengths that it has alone.
// A function of its own has a stack frame of its own, which is gone before the walk over the options needs one.
#[inline(never)]
pub fn look_at_part(part: &Merged<'_>, udp: &Udp, scratch: &mut Scratch) -> Result<(), Class> {
    let mut udp = *udp;
    let captured = Length::new(part.len() as u32).ok_or(Class::Merged)?;
    if !part.copy_to(&mut scratch.frame) {
        return Err(Class::Merged);
    }
    udp.end = captured.bytes();
    let lengths = [(udp.ip + headers::IPV4_LENGTH, udp.end - udp.ip), (udp.payload - 4, udp.end - udp.payload + 8)];
    for (at, length) in lengths {
        let [high, low] = (length as u16).to_be_bytes();
        scratch.frame.put(at, high);
        scratch.frame.put(at + 1, low);
    }
    scratch.seen = seen(part, udp, captured);
    Ok(())
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
