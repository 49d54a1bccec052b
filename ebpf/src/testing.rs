//! Programs of the tests and of `cargo xtask bench`: an object of its own, which the agent does not have.
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

/// Lets the next program of the chain, or the stack, have the frame (`TCX_NEXT`; `TC_ACT_UNSPEC` before Linux 6.6).
const NEXT: i32 = -1;

/// Words of the longest request of the load.
const REQUEST_WORDS: usize = 16;

/// The load on the STUN server in `cargo xtask bench`: what is sent, and where to. Written as bytes, by
/// `tests/src/bench/generator.rs` only.
#[repr(C)]
#[derive(Clone, Copy)]
struct Load {
    /// Kernel index of the interface.
    ifindex: u32,
    /// Bytes of `request`.
    length: u32,
    /// Source ports that take turns.
    sources: u32,
    reserved: u32,
    /// An untagged frame with a Binding Request.
    request: Words<REQUEST_WORDS>,
}

#[map]
static BENCH_LOAD: Array<Load> = Array::with_max_entries(1, 0);

/// Frames that were made, and frames that came back.
#[map]
static BENCH_FRAMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// The program that does nothing: the baseline of `cargo xtask bench`.
#[xdp(frags)]
pub fn bench_empty(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The same at TC.
#[classifier]
pub fn bench_empty_tc(_: TcContext) -> i32 {
    NEXT
}

/// Turns each frame into the next request and sends it out, for the generator of `cargo xtask bench`.
#[xdp]
pub fn bench_generate(ctx: XdpContext) -> u32 {
    generate(&XdpFrame::new(&ctx)).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Ends what comes back, and counts it.
#[xdp]
pub fn bench_sink(_: XdpContext) -> u32 {
    count(1);
    xdp_action::XDP_DROP
}

/// Ends the chain for every frame, as most programs of others do (`TC_ACT_OK`): for tests, which attach it in front of ours.
#[classifier]
pub fn test_accept(_: TcContext) -> i32 {
    0
}

/// Puts VLAN 5 into the metadata of every frame, as a VLAN device or a network card does: for tests, which attach it in
/// front of ours.
#[classifier]
pub fn test_push_vlan(ctx: TcContext) -> i32 {
    SkbFrame::new(&ctx).push_tag(5);
    NEXT
}

/// Writes the next request over the frame, with a transaction of its own and from one of the source ports, and redirects
/// it to the interface of the load.
///
/// The frame has one byte too many. Frames come back from the pool as the server left them, of another length: that this
/// one's bounds change each time makes the kernel (Linux 6.18) take the length from here.
#[inline(always)]
fn generate(frame: &XdpFrame<'_>) -> Option<u32> {
    // Ethernet, IPv4 and UDP headers have 42 bytes, and a transaction starts 4 bytes behind them.
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
    // SAFETY: the helper takes numbers.
    Some(unsafe { aya_ebpf::helpers::generated::bpf_redirect(load.ifindex, 0).cast_unsigned() as u32 })
}

/// Adds one to an entry of `BENCH_FRAMES`; the sum.
#[inline(always)]
fn count(entry: u32) -> Option<u64> {
    let frames = BENCH_FRAMES.get_ptr_mut(entry)?;
    // SAFETY: the map gave a live pointer to this CPU's value.
    unsafe {
        *frames += 1;
        Some(*frames)
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
