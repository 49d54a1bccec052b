//! A frame that a hook takes a closer look at.

use crate::maps::Scratch;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use tr111_common::{
    counter::Class,
    frame::FRAME_WORDS,
    headers::{self, Segment, Udp},
};
use tr111_ebpf::frame::{Length, Packet, Place, SkbFrame};

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

/// How far the walk over the datagrams of a merged frame is.
#[derive(Clone, Copy)]
pub struct Parts {
    /// What all of them together look like. It lies in a map, because on the stack each value is a walk of its own for the
    /// verifier.
    pub udp: Udp,
    /// Bytes of the merged payload in front of the next datagram's.
    pub next: u32,
    /// One of them is above the rate that the operator set.
    pub is_one_policed: bool,
}

/// Words of the longest headers in front of a payload, and of the longest payload of a merged datagram, as powers of two.
const HEADER_WORDS: usize = 16;
const PART_WORDS: usize = 1024;

/// Notes the next datagram of a merged frame in `scratch`, and copies it there with the lengths that it has alone. `None`
/// behind the last one.
///
/// # Errors
/// It is larger than any datagram is.
// A function of its own has a stack frame of its own, which is gone before the walk over the options needs one.
#[inline(never)]
pub fn look_at_part(packet: &SkbFrame<'_>, scratch: &mut Scratch) -> Option<Result<(), Class>> {
    let Parts { udp, next, .. } = &mut scratch.parts;
    let (shift, merged) = (*next, udp.end.wrapping_sub(udp.payload));
    if shift >= merged {
        return None;
    }
    let length = (merged - shift).min(packet.stride());
    *next = shift + length;
    Some(copy_part(packet, shift, length, scratch).ok_or(Class::Merged))
}

#[inline(always)]
fn copy_part(packet: &SkbFrame<'_>, shift: u32, length: u32, scratch: &mut Scratch) -> Option<()> {
    let Scratch { frame, seen, parts: Parts { udp, .. }, .. } = scratch;
    let headers = Length::<HEADER_WORDS>::new(udp.payload)?;
    let part = Length::<PART_WORDS>::new(length)?;
    let captured = Length::new(udp.payload + length)?;
    let is_copied = packet.read(0, headers, &mut frame.words)
        && packet.read_to(udp.payload + shift, part, &mut frame.words, Place::<HEADER_WORDS>::new(udp.payload));
    if !is_copied {
        return None;
    }
    let end = captured.bytes();
    for (at, length) in [(udp.ip + headers::IPV4_LENGTH, end - udp.ip), (udp.payload - 4, length + 8)] {
        let [high, low] = (length as u16).to_be_bytes();
        frame.words.put(at, high);
        frame.words.put(at + 1, low);
    }
    frame.shift = shift;
    *seen = self::seen(packet, *udp, captured);
    seen.udp.end = end;
    Some(())
}

/// Notes the frame of `udp` in `scratch`, and copies it there.
#[inline(always)]
pub fn look<P: Packet>(packet: &P, udp: Udp, scratch: &mut Scratch) -> Result<(), Class> {
    let captured = Length::new(packet.len() as u32).ok_or(Class::Oversize)?;
    if !packet.read(0, captured, &mut scratch.frame.words) {
        return Err(Class::Oversize);
    }
    scratch.frame.shift = 0;
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
