//! Programs of the tests and of `cargo xtask bench`. They are a separate object and not part of the agent.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the entry points' macros call with the context by value")]
#![expect(missing_docs, reason = "the entry points' macros expand to public functions without their docs")]

use aya_ebpf::{
    bindings::xdp_action,
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray},
    programs::{TcContext, XdpContext},
};
use tr111_common::{frame::Octets as _, words::Words};
use tr111_ebpf::frame::{Length, SkbFrame, XdpFrame};

/// Passes the frame to the next program of the chain or to the stack (`TCX_NEXT`; `TC_ACT_UNSPEC` before Linux 6.6).
const NEXT: i32 = -1;

/// Words of the longest generated request.
const REQUEST_WORDS: usize = 16;

/// Parameters of the load generator of `cargo xtask bench`. Only `tests/src/bench/generator.rs` writes them, as bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Load {
    /// Kernel index of the egress interface.
    ifindex: u32,
    /// Length of `request` in bytes.
    length: u32,
    /// Number of source ports, which are used in turn.
    sources: u32,
    reserved: u32,
    /// An untagged frame with a Binding Request.
    request: Words<REQUEST_WORDS>,
}

#[map]
static BENCH_LOAD: Array<Load> = Array::with_max_entries(1, 0);

/// Number of generated frames (entry 0) and of received answers (entry 1).
#[map]
static BENCH_FRAMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// A program that does nothing: the baseline of `cargo xtask bench`.
#[xdp(frags)]
pub fn bench_empty(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The baseline at TC.
#[classifier]
pub fn bench_empty_tc(_: TcContext) -> i32 {
    NEXT
}

/// Turns each frame into the next request and sends it, for the load generator of `cargo xtask bench`.
#[xdp]
pub fn bench_generate(ctx: XdpContext) -> u32 {
    generate(&XdpFrame::new(&ctx)).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Counts and drops the answers.
#[xdp]
pub fn bench_sink(_: XdpContext) -> u32 {
    count(1);
    xdp_action::XDP_DROP
}

/// Ends the chain for every frame, as most programs of other software do (`TC_ACT_OK`). The tests attach it before the
/// programs of tr111.
#[classifier]
pub fn test_accept(_: TcContext) -> i32 {
    0
}

/// Puts VLAN 5 into the metadata of every frame, as a VLAN device or a network card does. The tests attach it before
/// the programs of tr111.
#[classifier]
pub fn test_push_vlan(ctx: TcContext) -> i32 {
    SkbFrame::new(&ctx).push_tag(5);
    NEXT
}

/// Writes the next request over the frame, with its own transaction identifier and source port, and redirects it to the
/// interface of the load.
///
/// The frame is one byte longer than the request. Frames return from the pool with the length that the server gave
/// them; changing the bounds of each frame makes the kernel (Linux 6.18) use the length that is set here.
#[inline(always)]
fn generate(frame: &XdpFrame<'_>) -> Option<u32> {
    // Ethernet, IPv4 and UDP headers have 42 bytes, and the transaction identifier starts 4 bytes after them.
    const SOURCE_PORT: usize = 34;
    const TRANSACTION: usize = 46;

    let load = BENCH_LOAD.get(0)?;
    let number = count(0)? as u32;
    let length = Length::<REQUEST_WORDS>::new(load.length)?;
    let port = load.request.be16(SOURCE_PORT as u32).wrapping_add((number % load.sources.max(1)) as u16);
    let is_written = frame.adjust_tail(-1)
        && frame.write(0, length, &load.request)
        && frame.store(SOURCE_PORT, &port.to_be_bytes())
        && frame.store(TRANSACTION, &number.to_be_bytes());
    if !is_written {
        return None;
    }
    // SAFETY: the arguments of the helper are numbers.
    Some(unsafe { aya_ebpf::helpers::generated::bpf_redirect(load.ifindex, 0).cast_unsigned() as u32 })
}

/// Increments an entry of `BENCH_FRAMES` on this CPU, and returns the new value.
#[inline(always)]
fn count(entry: u32) -> Option<u64> {
    let frames = BENCH_FRAMES.get_ptr_mut(entry)?;
    // SAFETY: the map returned a live pointer to this CPU's value.
    unsafe {
        *frames += 1;
        Some(*frames)
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
