//! Adds the Gateway Identity to a DHCP reply at TC egress (TR-111 1.2.1).
//!
//! # Theory of operation
//!
//! `tr111_common::insert` plans the change: where the new bytes go, which length bytes change, and by how much the
//! datagram grows. This module composes the new tail of the message in a map value (new bytes, then the bytes that
//! move), grows the frame, writes the tail, and updates the lengths and the checksums incrementally.
//!
//! All checks are made before the first byte changes, so the frame that leaves is either complete or unchanged.

use crate::maps::{self, Scratch};
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_check_mtu, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_store_bytes,
    },
};
use core::ffi::c_void;
use tr111_common::{
    frame::{Frame as _, Octets, Repeat as _, Step, first_bytes},
    headers::{IPV4_LENGTH, Udp},
    insert::{self, Insertion, OPTION_WORDS, Patch, Plan, Sum},
    words::Words,
};
use tr111_ebpf::frame::{KernelLoop, Length, Packet as _, Place, SkbFrame};

/// Words of the buffer for the rewritten tail: the gateway's option in 32 words, then the bytes that move.
pub const TAIL_WORDS: usize = MOVED_WORDS + 32;
/// Words of the longest tail that is written: the new bytes and the bytes that move.
const MOVED_WORDS: usize = 256;

/// A change to a reply.
#[derive(Clone, Copy)]
pub struct Change {
    plan: Plan,
    /// The Gateway Identity as an option, followed by the bytes that move.
    tail: Words<TAIL_WORDS>,
    /// Number of bytes of `tail` that are written, from the first new one on.
    length: Length<MOVED_WORDS>,
    /// Difference that is added to the UDP checksum.
    sum: Sum,
}

/// Offsets of the checksum and length fields in their headers, and the length of the UDP header, in bytes.
const IP_CHECKSUM: u32 = 10;
const UDP_HEADER: u32 = 8;
const UDP_LENGTH: u32 = 4;
const UDP_CHECKSUM: u32 = 6;

/// Adds the Gateway Identity to the reply in `packet`; `scratch` has the copy of the frame and the walk over its
/// options.
///
/// The steps are separate functions and pass their results in a map value. The verifier then verifies one after the
/// other, instead of each path through one for each path through the previous one (Linux 6.1: 859,000 instructions).
#[inline(never)]
pub fn gateway_identity(packet: &SkbFrame<'_>, scratch: &mut Scratch) -> Insertion {
    let steps = plan(scratch).and_then(|()| compose(packet, scratch)).and_then(|()| write(packet, scratch));
    match steps {
        Ok(()) => Insertion::Inserted,
        Err(reason) => reason,
    }
}

/// Plans the insertion.
#[inline(never)]
fn plan(scratch: &mut Scratch) -> Result<(), Insertion> {
    let Scratch { frame, seen, walk, mark, change, .. } = scratch;
    let udp = &seen.udp;
    let length = maps::gateway().ok_or(Insertion::Unconfigured)?.length;
    change.plan = insert::plan(frame, udp, walk, length, mark.maximum_size)?;
    if udp.ip + u32::from(frame.be16(udp.ip + IPV4_LENGTH)) != udp.end {
        return Err(Insertion::Damaged);
    }
    Ok(())
}

/// Composes the new tail of the message, and computes the difference of the checksum.
#[inline(never)]
fn compose(packet: &SkbFrame<'_>, scratch: &mut Scratch) -> Result<(), Insertion> {
    let Scratch { frame, seen, change: Change { plan, tail, length, sum }, .. } = scratch;
    let gateway = maps::gateway().ok_or(Insertion::Unconfigured)?;
    // The new bytes are the end of the gateway's option; the bytes that move follow them.
    if let Some(option) = tail.0.first_chunk_mut::<OPTION_WORDS>() {
        *option = gateway.option.0;
    }
    let moved = Length::<MOVED_WORDS>::new(plan.tail_end.wrapping_sub(plan.at)).ok_or(Insertion::NoRoom)?;
    *length = Length::new(plan.length + moved.bytes()).ok_or(Insertion::NoRoom)?;
    if !packet.read_to(plan.at, moved, tail, Place::<32>::new(gateway.length)) {
        return Err(Insertion::Failed);
    }
    let skipped = plan.shape as u32;
    let (mut old, mut new) = (Sum::default(), Sum::default());
    // Bytes after END have no meaning (RFC 2132 3.2), so the new bytes overwrite them.
    add(&mut old, &frame.words, plan.at, (plan.at + length.bytes()).min(seen.udp.end));
    add(&mut new, tail, skipped, skipped + length.bytes());
    *sum = new.without(old);
    let is_odd = |at| (at ^ seen.udp.payload) & 1 != 0;
    if is_odd(plan.at) {
        *sum = sum.shifted();
    }
    for Patch { at, old, new } in plan.patches {
        if at != 0 {
            let mut before = Sum::default();
            before.add_byte(old, is_odd(at));
            sum.add_byte(new, is_odd(at));
            *sum = sum.without(before);
        }
    }
    Ok(())
}

/// Grows the frame, writes the tail, then the lengths and the checksums.
#[inline(never)]
fn write(packet: &SkbFrame<'_>, scratch: &mut Scratch) -> Result<(), Insertion> {
    let Scratch { seen, change: Change { plan, tail, length, sum }, .. } = scratch;
    if plan.growth != 0 {
        if !fits_interface(packet, plan.growth) {
            return Err(Insertion::NoRoom);
        }
        let frame_length = (packet.len() as u32).max(seen.udp.end + plan.growth);
        // SAFETY: the kernel provided the context.
        if unsafe { bpf_skb_change_tail(packet.skb(), frame_length, 0) } != 0 {
            return Err(Insertion::Failed);
        }
    }
    let is_written = packet.write(plan.at, *length, tail, Place::<1>::new(plan.shape as u32))
        && adjust(packet, &seen.udp, plan, *sum);
    if is_written { Ok(()) } else { Err(Insertion::Failed) }
}

/// Whether the interface's MTU allows `growth` more bytes.
#[inline(always)]
fn fits_interface(packet: &SkbFrame<'_>, growth: u32) -> bool {
    let mut mtu = 0u32;
    // SAFETY: interface 0 means the frame's own; `mtu` outlives the call (Linux 5.12).
    unsafe { bpf_check_mtu(packet.skb().cast::<c_void>(), 0, &raw mut mtu, growth.cast_signed(), 0) == 0 }
}

/// Writes the lengths that contain the new bytes, and the checksums.
#[inline(always)]
fn adjust(packet: &SkbFrame<'_>, udp: &Udp, plan: &Plan, sum: Sum) -> bool {
    let skb = packet.skb();
    let udp_start = udp.payload - UDP_HEADER;
    let ip_length = udp.end - udp.ip;
    let mut failed = 0;
    for Patch { at, new, .. } in plan.patches {
        if at != 0 {
            // SAFETY: one byte from the stack.
            failed |= unsafe { bpf_skb_store_bytes(skb, at, (&raw const new).cast(), 1, 0) };
        }
    }
    if plan.growth != 0 {
        let old_ip = (ip_length as u16).to_be();
        let new_ip = ((ip_length + plan.growth) as u16).to_be();
        let udp_length = udp.end - udp_start;
        let old_udp = (udp_length as u16).to_be();
        let new_udp = ((udp_length + plan.growth) as u16).to_be();
        // SAFETY: the helpers fail if an offset is outside the frame; the values are on the stack.
        unsafe {
            failed |= bpf_l3_csum_replace(skb, udp.ip + IP_CHECKSUM, u64::from(old_ip), u64::from(new_ip), 2);
            failed |= bpf_skb_store_bytes(skb, udp.ip + IPV4_LENGTH, (&raw const new_ip).cast(), 2, 0);
            failed |= bpf_skb_store_bytes(skb, udp_start + UDP_LENGTH, (&raw const new_udp).cast(), 2, 0);
            // The UDP length counts twice: in the pseudo-header, which is all that a partial checksum covers, and in
            // the header. A checksum of 0 stays 0.
            let checksum = udp_start + UDP_CHECKSUM;
            let mangled = u64::from(BPF_F_MARK_MANGLED_0);
            let pseudo = u64::from(BPF_F_PSEUDO_HDR);
            failed |= bpf_l4_csum_replace(skb, checksum, u64::from(old_udp), u64::from(new_udp), mangled | pseudo | 2);
            failed |= bpf_l4_csum_replace(skb, checksum, u64::from(old_udp), u64::from(new_udp), mangled | 2);
        }
    }
    // The difference of the options. A partial checksum does not cover it, which the helper takes into account.
    let difference = u64::from(sum.fold().to_be());
    // SAFETY: as above.
    failed |=
        unsafe { bpf_l4_csum_replace(skb, udp_start + UDP_CHECKSUM, 0, difference, u64::from(BPF_F_MARK_MANGLED_0)) };
    failed == 0
}

/// Adds the bytes from `at` to `end` to the sum.
#[inline(always)]
fn add<const N: usize>(sum: &mut Sum, words: &Words<N>, at: u32, end: u32) {
    let length = end.saturating_sub(at);
    KernelLoop.repeat(length.div_ceil(8), &mut SumStep { sum, words, at, length });
}

struct SumStep<'a, const N: usize> {
    sum: &'a mut Sum,
    words: &'a Words<N>,
    at: u32,
    length: u32,
}

impl<const N: usize> Step for SumStep<'_, N> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        let word = self.words.be64(self.at + index * 8);
        self.sum.add(first_bytes(word, self.length - index * 8));
        true
    }
}
