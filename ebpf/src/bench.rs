//! The load on the STUN server in `cargo xtask bench`: never attached by the agent.

use crate::frame::XdpFrame;
use aya_ebpf::{
    bindings::xdp_action,
    macros::map,
    maps::{Array, PerCpuArray},
};

/// What is sent, and where to. Written as bytes, by `tests/src/bench/generator.rs` only.
#[repr(C)]
#[derive(Clone, Copy)]
struct Load {
    /// Kernel index of the interface.
    ifindex: u32,
    /// Bytes of `request`.
    length: u32,
    /// Source ports that take turns.
    sources: u32,
    /// An untagged frame with a Binding Request.
    request: [u8; 128],
}

#[map]
static BENCH_LOAD: Array<Load> = Array::with_max_entries(1, 0);

/// Frames that were made, and frames that came back.
#[map]
static BENCH_FRAMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// Writes the next request over the frame, which has one byte too many, and redirects it to the interface of the load.
///
/// Frames come back from the pool as the server left them, of another length: that this one's bounds change each time
/// makes the kernel (Linux 6.18) take the length from here.
#[inline(always)]
pub fn generate(frame: &XdpFrame<'_>) -> u32 {
    let Some(load) = BENCH_LOAD.get(0) else { return xdp_action::XDP_ABORTED };
    let Some(made) = BENCH_FRAMES.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the map gave a live pointer to this CPU's value.
    let number = unsafe {
        *made += 1;
        *made
    };
    if !frame.replace(&load.request, load.length, number as u32, load.sources) {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the helper takes numbers.
    unsafe { aya_ebpf::helpers::generated::bpf_redirect(load.ifindex, 0).cast_unsigned() as u32 }
}

/// Counts a frame that came back.
#[inline(always)]
pub fn count() {
    if let Some(received) = BENCH_FRAMES.get_ptr_mut(1) {
        // SAFETY: as above.
        unsafe { *received += 1 };
    }
}
