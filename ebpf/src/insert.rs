//! Adding the Gateway Identity to a reply at TC egress. `tr111_common::insert` says where; this does it.
//!
//! Everything that can be refused is refused before the first byte changes, so a frame leaves whole either way.

use crate::{
    frame::{KernelLoop, Packet as _, SkbFrame},
    maps::{self, Scratch, TAIL_CAPACITY},
};
use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_check_mtu, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_store_bytes,
    },
};
use core::{ffi::c_void, hint::black_box};
use tr111_common::{
    config::Config,
    frame::{FRAME_CAPACITY, Frame as _, Octets, Repeat as _, Step},
    headers::Udp,
    insert::{self, Insertion, OPTION_BYTES, Patch, Plan, Shape, Sum},
};

/// Offsets of the length and checksum fields in their headers.
const IP_LENGTH: u32 = 2;
const IP_CHECKSUM: u32 = 10;
const UDP_HEADER: u32 = 8;
const UDP_LENGTH: u32 = 4;
const UDP_CHECKSUM: u32 = 6;

/// Longest part of a reply that moves; with the longest option it fits the tail buffer.
const TAIL_MAXIMUM: u64 = (TAIL_CAPACITY - 256) as u64;

/// Adds the Gateway Identity to the reply in `packet`, of which `scratch` holds the copy and the walk.
#[inline(always)]
pub fn gateway_identity(
    packet: &SkbFrame<'_>,
    scratch: &mut Scratch,
    udp: &Udp,
    maximum_size: u16,
    config: &Config,
) -> Insertion {
    let Some(gateway) = maps::gateway(config) else { return Insertion::Unconfigured };
    let plan = match insert::plan(&scratch.frame, udp, &scratch.walk, gateway.length, maximum_size) {
        Ok(plan) => plan,
        Err(reason) => return reason,
    };
    let ip_length = u32::from(scratch.frame.be16(udp.ip + IP_LENGTH));
    if udp.ip + ip_length != udp.end {
        return Insertion::Damaged;
    }
    match plan.shape {
        Shape::Option => copy::<0>(&gateway.bytes, &mut scratch.tail),
        Shape::Element => copy::<{ Shape::Element as usize }>(&gateway.bytes, &mut scratch.tail),
        Shape::SubOptions => copy::<{ Shape::SubOptions as usize }>(&gateway.bytes, &mut scratch.tail),
    }
    // These bounds are for the verifier. Opaque, so that the compiler checks the very register that it passes on:
    // of a copy or a truncation the verifier (Linux 6.18) learns nothing.
    let added = black_box(u64::from(plan.length));
    let moved = black_box(u64::from(plan.tail_end).wrapping_sub(u64::from(plan.at)));
    if added > OPTION_BYTES as u64 || moved == 0 || moved > TAIL_MAXIMUM {
        return Insertion::NoRoom;
    }
    // SAFETY: `added` is at most 152 and `moved` at most 1792, together within the buffer.
    let behind = unsafe { scratch.tail.as_mut_ptr().add(added as usize) };
    if !packet.read(plan.at, behind, moved as u32) {
        return Insertion::Failed;
    }
    let Some(sum) = difference(scratch, udp, &plan, moved as u32) else { return Insertion::Damaged };
    if plan.growth != 0 {
        if !fits_interface(packet, plan.growth) {
            return Insertion::NoRoom;
        }
        let frame_length = (packet.len() as u32).max(udp.end + plan.growth);
        // SAFETY: the context is the one the kernel gave.
        if unsafe { bpf_skb_change_tail(packet.skb(), frame_length, 0) } != 0 {
            return Insertion::Failed;
        }
    }
    if write(packet, scratch, udp, &plan, black_box(added + moved), ip_length, sum) {
        Insertion::Inserted
    } else {
        Insertion::Failed
    }
}

/// Whether the interface takes the frame with `growth` more bytes.
#[inline(always)]
fn fits_interface(packet: &SkbFrame<'_>, growth: u32) -> bool {
    let mut mtu = 0u32;
    // SAFETY: interface 0 means the frame's own; `mtu` outlives the call (Linux 5.12).
    unsafe { bpf_check_mtu(packet.skb().cast::<c_void>(), 0, &raw mut mtu, growth.cast_signed(), 0) == 0 }
}

/// Writes the new bytes, then the lengths, then the checksums.
#[inline(always)]
fn write(
    packet: &SkbFrame<'_>,
    scratch: &mut Scratch,
    udp: &Udp,
    plan: &Plan,
    length: u64,
    ip_length: u32,
    sum: Sum,
) -> bool {
    let skb = packet.skb();
    let udp_start = udp.payload - UDP_HEADER;
    if length == 0 || length > TAIL_CAPACITY as u64 {
        return false;
    }
    // SAFETY: `length` bytes of the tail buffer were written above.
    let mut failed = unsafe { bpf_skb_store_bytes(skb, plan.at, scratch.tail.as_ptr().cast(), length as u32, 0) };
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
            failed |= bpf_skb_store_bytes(skb, udp.ip + IP_LENGTH, (&raw const new_ip).cast(), 2, 0);
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

/// What the checksum gains; `None` where the bytes behind END are not padding.
#[inline(always)]
fn difference(scratch: &mut Scratch, udp: &Udp, plan: &Plan, moved: u32) -> Option<Sum> {
    let even = udp.payload & 1;
    let mut sum = Sum::default();
    let mut old = OldBytes { sum: &mut sum, frame: &scratch.frame, at: plan.at, end: plan.tail_end, even };
    KernelLoop.repeat(moved.div_ceil(8), &mut old);
    let length = plan.length + moved;
    let mut new = NewBytes { sum: &mut sum, tail: &scratch.tail, length, even: (plan.at ^ even) & 1 };
    KernelLoop.repeat(length.div_ceil(8), &mut new);
    for Patch { at, old, new } in plan.patches {
        if at != 0 {
            sum.remove(old, (at ^ even) & 1 != 0);
            sum.add(new, (at ^ even) & 1 != 0);
        }
    }
    let mut padding = Padding { frame: &scratch.frame, at: plan.tail_end, end: udp.end, other: false };
    KernelLoop.repeat(udp.end.saturating_sub(plan.tail_end).div_ceil(8), &mut padding);
    if padding.other { None } else { Some(sum) }
}

/// Takes the bytes that move out of the sum.
struct OldBytes<'a> {
    sum: &'a mut Sum,
    frame: &'a [u8; FRAME_CAPACITY],
    at: u32,
    end: u32,
    even: u32,
}

impl Step for OldBytes<'_> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        for offset in 0..8 {
            let at = self.at + index * 8 + offset;
            if at < self.end {
                self.sum.remove(self.frame.octet(at), (at ^ self.even) & 1 != 0);
            }
        }
        true
    }
}

/// Puts the rewritten bytes into the sum.
struct NewBytes<'a> {
    sum: &'a mut Sum,
    tail: &'a [u8; TAIL_CAPACITY],
    length: u32,
    even: u32,
}

impl Step for NewBytes<'_> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        for offset in 0..8 {
            let at = index * 8 + offset;
            if at < self.length {
                let byte = self.tail[at as usize & (TAIL_CAPACITY - 1)];
                self.sum.add(byte, (at ^ self.even) & 1 != 0);
            }
        }
        true
    }
}

/// Looks for anything but padding.
struct Padding<'a> {
    frame: &'a [u8; FRAME_CAPACITY],
    at: u32,
    end: u32,
    other: bool,
}

impl Step for Padding<'_> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        for offset in 0..8 {
            let at = self.at + index * 8 + offset;
            self.other |= at < self.end && self.frame.octet(at) != 0;
        }
        !self.other
    }
}

/// Copies the option without its first `SKIP` bytes.
#[inline(always)]
fn copy<const SKIP: usize>(from: &[u8; OPTION_BYTES], to: &mut [u8; TAIL_CAPACITY]) {
    to[..OPTION_BYTES - SKIP].copy_from_slice(&from[SKIP..]);
}
