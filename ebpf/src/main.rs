//! The kernel programs of tr111: entry points only.
//!
//! # Theory of operation
//!
//! A program finds the UDP datagram of a frame by direct packet access (`frame.rs`, `tr111_common::headers`), which is
//! all that other traffic ever costs. A DHCP message is copied once into a per-CPU scratch buffer; options are walked
//! there with `bpf_loop`, because an open-coded loop over packet pointers has too many paths for the verifier.
//!
//! `lan_ingress` decides which exchanges belong to clients that identified themselves and marks them in `EXCHANGES`
//! before the server sees the request, so the reply, at `lan_egress`, finds the mark however fast it comes.
//! There the Gateway Identity goes into OFFER and ACK, in the kernel, so it works beside any DHCP server.
//! What matters goes to the agent through `EVENTS_LAN` with its frame. Every frame is counted once per hook, and every
//! frame passes: an error in here is a counter, never a drop.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the entry points' macros call with the context by value")]
#![expect(missing_docs, reason = "the entry points' macros expand to public functions without their docs")]

mod emit;
mod frame;
mod insert;
mod lan;
mod maps;
mod police;

use aya_ebpf::{
    bindings::xdp_action,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// Lets the next program of the chain, or the stack, have the frame (`TCX_NEXT`; `TC_ACT_UNSPEC` before Linux 6.6).
const NEXT: i32 = -1;

/// LAN ingress: DHCP messages of clients.
#[xdp(frags)]
pub fn lan_ingress(ctx: XdpContext) -> u32 {
    lan::ingress(&frame::XdpFrame::new(&ctx));
    xdp_action::XDP_PASS
}

/// LAN ingress where XDP cannot attach.
#[classifier]
pub fn lan_ingress_tc(ctx: TcContext) -> i32 {
    lan::ingress(&frame::SkbFrame::new(&ctx));
    NEXT
}

/// LAN egress: replies of DHCP servers on this machine, or behind its relay.
#[classifier]
pub fn lan_egress(ctx: TcContext) -> i32 {
    lan::egress(&frame::SkbFrame::new(&ctx));
    NEXT
}

/// The program that does nothing: the baseline of `cargo xtask bench`, never attached.
#[xdp(frags)]
pub fn bench_empty(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The same at TC.
#[classifier]
pub fn bench_empty_tc(_: TcContext) -> i32 {
    NEXT
}

/// Puts VLAN 5 into the metadata of every frame, as a VLAN device or a network card does: for tests, which attach it in
/// front of ours.
#[classifier]
pub fn test_push_vlan(ctx: TcContext) -> i32 {
    frame::SkbFrame::new(&ctx).push_tag(5);
    NEXT
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
