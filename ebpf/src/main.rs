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
//! What matters goes to the agent through `EVENTS_LAN` with its frame.
//!
//! What a LAN bridge forwards from port to port passes neither of the two. `lan_port`, at the egress of each port, does for
//! such replies what `lan_egress` does, and for unicast requests what `lan_ingress` does; broadcasts reach the bridge itself.
//!
//! `lan_binding` sets the packet mark of flows that carry CONNECTION-REQUEST-BINDING, so that a rule of the agent's can
//! give them a longer NAT timeout. `wan_ingress` counts what comes back: Connection Requests and STUN answers.
//!
//! `acs_stun` is the other end: it answers STUN requests that ask for nothing but their address where they come in, and
//! leaves all others to the server's socket.
//!
//! Every frame is counted once per hook, and passes: an error in here is a counter, never a drop. Only where the
//! operator set a rate are frames above it dropped.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the entry points' macros call with the context by value")]
#![expect(missing_docs, reason = "the entry points' macros expand to public functions without their docs")]

mod acs;
mod binding;
mod emit;
mod insert;
mod lan;
mod maps;
mod police;
mod seen;
mod wan;

use aya_ebpf::{
    bindings::xdp_action,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use tr111_ebpf::frame;

/// Lets the next program of the chain, or the stack, have the frame (`TCX_NEXT`; `TC_ACT_UNSPEC` before Linux 6.6).
const NEXT: i32 = -1;
/// Ends the frame (`TC_ACT_SHOT`, `TCX_DROP`).
const DROP: i32 = 2;

/// LAN ingress: DHCP messages of clients.
#[xdp(frags)]
pub fn lan_ingress(ctx: XdpContext) -> u32 {
    at_xdp(lan::ingress(&frame::XdpFrame::new(&ctx)))
}

/// LAN ingress where XDP cannot attach.
#[classifier]
pub fn lan_ingress_tc(ctx: TcContext) -> i32 {
    at_tc(lan::ingress_at_tc(&frame::SkbFrame::new(&ctx)))
}

/// LAN ingress at TC: datagrams that the kernel merged, behind `lan_ingress_tc` by a tail call.
#[classifier]
pub fn lan_merged(ctx: TcContext) -> i32 {
    at_tc(lan::merged(&frame::SkbFrame::new(&ctx)))
}

/// LAN egress: replies of DHCP servers on this machine, or behind its relay.
#[classifier]
pub fn lan_egress(ctx: TcContext) -> i32 {
    lan::egress(&frame::SkbFrame::new(&ctx));
    NEXT
}

/// Egress of a port of a LAN bridge: replies of DHCP servers behind other ports, and unicast requests to them.
#[classifier]
pub fn lan_port(ctx: TcContext) -> i32 {
    at_tc(lan::forwarded(&frame::SkbFrame::new(&ctx)))
}

/// LAN ingress: Binding Requests of devices. At TC, because XDP cannot set a mark.
#[classifier]
pub fn lan_binding(ctx: TcContext) -> i32 {
    binding::observe(&frame::SkbFrame::new(&ctx));
    NEXT
}

/// WAN ingress: Connection Requests, and answers of STUN servers.
#[xdp(frags)]
pub fn wan_ingress(ctx: XdpContext) -> u32 {
    at_xdp(wan::ingress(&frame::XdpFrame::new(&ctx)))
}

/// WAN ingress where XDP cannot attach.
#[classifier]
pub fn wan_ingress_tc(ctx: TcContext) -> i32 {
    at_tc(wan::ingress(&frame::SkbFrame::new(&ctx)))
}

/// The ACS's interfaces: requests to its STUN server.
#[xdp(frags)]
pub fn acs_stun(ctx: XdpContext) -> u32 {
    if acs::answer(&frame::XdpFrame::new(&ctx)) { xdp_action::XDP_TX } else { xdp_action::XDP_PASS }
}

#[inline(always)]
fn at_xdp(passes: bool) -> u32 {
    if passes { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

#[inline(always)]
fn at_tc(passes: bool) -> i32 {
    if passes { NEXT } else { DROP }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
