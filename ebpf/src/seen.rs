//! Copies a frame that a hook inspects further into the scratch buffer, with its metadata.
//!
//! # Theory of operation
//!
//! [`look`] copies a whole frame. [`look_at_part`] copies one datagram of a merged frame (GRO): the headers, then the
//! payload of that datagram, with the IP and UDP lengths that it would have alone. The rest of the program then sees an
//! ordinary frame, except that [`Copied::shift`](tr111_ebpf::frame::Copied::shift) tells where the payload is in the
//! merged frame.

use crate::maps::Scratch;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use tr111_common::{
    counter::Class,
    frame::FRAME_WORDS,
    headers::{self, Segment, Udp},
};
use tr111_ebpf::frame::{Length, Packet, Place, SkbFrame};

/// Metadata of a frame in the scratch buffer.
#[derive(Clone, Copy)]
pub struct Seen {
    /// Boot time in nanoseconds at which the program saw the frame.
    pub time: u64,
    /// The UDP datagram.
    pub udp: Udp,
    /// Interface and VLANs of the frame.
    pub segment: Segment,
    /// VLAN tag that the kernel removed from the frame, in the encoding of the event header. It is not an `Option`,
    /// because the verifier would reject the uninitialised half of one.
    pub metadata_tag: u32,
    /// Length of the copy in bytes.
    pub captured: Length<FRAME_WORDS>,
}

/// Progress in a merged frame.
#[derive(Clone, Copy)]
pub struct Parts {
    /// Headers of the merged frame. They are in a map value, because the verifier would verify each value of a stack
    /// variable separately.
    pub udp: Udp,
    /// Offset of the next datagram in the merged payload, in bytes.
    pub next: u32,
    /// Whether a datagram of the frame exceeded the rate that the operator set.
    pub is_one_policed: bool,
}

/// Words of the longest headers before a payload, and of the longest payload of a merged datagram. Powers of two.
const HEADER_WORDS: usize = 16;
const PART_WORDS: usize = 1024;

/// Copies the next datagram of a merged frame to `scratch`, with the lengths that it has alone. `None` after the last
/// datagram.
///
/// # Errors
/// The datagram is larger than [`PART_WORDS`].
// A separate function has a stack frame of its own, which is free again when the walk over the options needs one.
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

/// Copies the frame of `udp` to `scratch`.
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
        // SAFETY: the helper has no arguments and reads a clock.
        time: unsafe { bpf_ktime_get_boot_ns() },
        segment: Segment { ifindex: packet.ifindex(), vlan: udp.vlan },
        udp,
        metadata_tag: packet.metadata_tag().map_or(0, |tag| 0x1_0000 | u32::from(tag)),
        captured,
    }
}
