//! Adding the Gateway Identity to a reply at TC egress. `tr111_common::insert` says where; this does it.
//!
//! Everything that can be refused is refused before the first byte changes, so a frame leaves whole either way.

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

/// Words of the rewritten part of a reply: the option at most 32 words from its start, and what moves behind it.
pub const TAIL_WORDS: usize = MOVED_WORDS + 32;
/// Words of the part that moves, and of that part with what is new in it.
const MOVED_WORDS: usize = 256;

/// A change to a reply.
#[derive(Clone, Copy)]
pub struct Change {
    plan: Plan,
    /// The Gateway Identity as an option, and behind it what moves.
    tail: Words<TAIL_WORDS>,
    /// Bytes of `tail` that are written, from the first new one on.
    length: Length<MOVED_WORDS>,
    /// What the checksum gains.
    sum: Sum,
}

/// Offsets of the length and checksum fields in their headers.
const IP_CHECKSUM: u32 = 10;
const UDP_HEADER: u32 = 8;
const UDP_LENGTH: u32 = 4;
const UDP_CHECKSUM: u32 = 6;

/// Adds the Gateway Identity to the reply in `packet`, of which `scratch` holds the copy and the walk.
///
/// Its steps are functions of their own, and what one leaves for the next lies in the map: the verifier walks them one
/// after the other, not each way through one for each way through the other (Linux 6.1: 859,000 instructions).
#[inline(never)]
pub fn gateway_identity(packet: &SkbFrame<'_>, scratch: &mut Scratch) -> Insertion {
    let steps = plan(scratch).and_then(|()| compose(packet, scratch)).and_then(|()| write(packet, scratch));
    match steps {
        Ok(()) => Insertion::Inserted,
        Err(reason) => reason,
    }
}

/// Finds the place for it.
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

/// Writes down what the reply is to be from the place on, and what its checksum gains.
#[inline(never)]
fn compose(packet: &SkbFrame<'_>, scratch: &mut Scratch) -> Result<(), Insertion> {
    let Scratch { frame, seen, change: Change { plan, tail, length, sum }, .. } = scratch;
    let gateway = maps::gateway().ok_or(Insertion::Unconfigured)?;
    // What is new begins within the gateway's option and ends with it; what moves comes behind.
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
    // Bytes behind END mean nothing (RFC 2132 3.2), so the new ones take their place, whatever they are.
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

/// Makes room, writes the new bytes, and what follows from them: the lengths around them, then the checksums.
#[inline(never)]
fn write(packet: &SkbFrame<'_>, scratch: &mut Scratch) -> Result<(), Insertion> {
    let Scratch { seen, change: Change { plan, tail, length, sum }, .. } = scratch;
    if plan.growth != 0 {
        if !fits_interface(packet, plan.growth) {
            return Err(Insertion::NoRoom);
        }
        let frame_length = (packet.len() as u32).max(seen.udp.end + plan.growth);
        // SAFETY: the context is the one the kernel gave.
        if unsafe { bpf_skb_change_tail(packet.skb(), frame_length, 0) } != 0 {
            return Err(Insertion::Failed);
        }
    }
    let is_written = packet.write(plan.at, *length, tail, Place::<1>::new(plan.shape as u32))
        && adjust(packet, &seen.udp, plan, *sum);
    if is_written { Ok(()) } else { Err(Insertion::Failed) }
}

/// Whether the interface takes the frame with `growth` more bytes.
#[inline(always)]
fn fits_interface(packet: &SkbFrame<'_>, growth: u32) -> bool {
    let mut mtu = 0u32;
    // SAFETY: interface 0 means the frame's own; `mtu` outlives the call (Linux 5.12).
    unsafe { bpf_check_mtu(packet.skb().cast::<c_void>(), 0, &raw mut mtu, growth.cast_signed(), 0) == 0 }
}

/// Writes the lengths around the new bytes, and the checksums.
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
        // SAFETY: offsets lie inside the frame, or the helpers fail; values are on the stack.
        unsafe {
            failed |= bpf_l3_csum_replace(skb, udp.ip + IP_CHECKSUM, u64::from(old_ip), u64::from(new_ip), 2);
            failed |= bpf_skb_store_bytes(skb, udp.ip + IPV4_LENGTH, (&raw const new_ip).cast(), 2, 0);
            failed |= bpf_skb_store_bytes(skb, udp_start + UDP_LENGTH, (&raw const new_udp).cast(), 2, 0);
            // The UDP length counts twice: in the pseudo-header, which is all that a partial sum holds, and in the
            // header. A sum that was 0 stays 0.
            let checksum = udp_start + UDP_CHECKSUM;
            let mangled = u64::from(BPF_F_MARK_MANGLED_0);
            let pseudo = u64::from(BPF_F_PSEUDO_HDR);
            failed |= bpf_l4_csum_replace(skb, checksum, u64::from(old_udp), u64::from(new_udp), mangled | pseudo | 2);
            failed |= bpf_l4_csum_replace(skb, checksum, u64::from(old_udp), u64::from(new_udp), mangled | 2);
        }
    }
    // The options' own difference; a partial sum does not hold it, and the helper knows.
    let difference = u64::from(sum.fold().to_be());
    // SAFETY: as above.
    failed |=
        unsafe { bpf_l4_csum_replace(skb, udp_start + UDP_CHECKSUM, 0, difference, u64::from(BPF_F_MARK_MANGLED_0)) };
    failed == 0
}

/// Adds the bytes from `at` to `end`.
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
