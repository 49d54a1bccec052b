//! The entry points of the kernel programs.
//!
//! # Theory of operation
//!
//! A program finds the UDP datagram of a frame by direct packet access (`frame.rs`, `tr111_common::headers`); other
//! traffic costs no more than that. A DHCP message is copied once into a per-CPU scratch buffer, and its options are
//! walked there with `bpf_loop`, because an open-coded loop over packet pointers has too many paths for the verifier.
//!
//! `lan_ingress` decides which exchanges belong to clients that identified themselves. It marks them in the map
//! `EXCHANGES` before the DHCP server receives the request, so `lan_egress` finds the mark however fast the reply
//! follows. `lan_egress` adds the Gateway Identity to OFFER and ACK in the kernel, which works with any DHCP server.
//! Events about these messages are sent to the agent through the ring `EVENTS_LAN`, together with the frame.
//!
//! Frames that a LAN bridge forwards from port to port pass neither of these hooks. `lan_port`, at the egress of each
//! port, processes such replies like `lan_egress` and such unicast requests like `lan_ingress`. Broadcast requests
//! reach the bridge itself.
//!
//! `lan_binding` sets the packet mark of flows that carry CONNECTION-REQUEST-BINDING, so that an nftables rule of the
//! agent can give them a longer NAT timeout. `wan_ingress` counts Connection Requests and STUN responses, and polices
//! Connection Requests.
//!
//! `acs_stun` runs on an ACS. It answers STUN requests for the mapped address and keep-alives of registered bindings in
//! place, and leaves all other requests to the server's socket.
//!
//! Every frame is counted once per hook, and passes: an error in a program leads to a counter, never to a drop. Frames
//! are dropped only above a rate that the operator set.
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

/// Passes the frame to the next program of the chain or to the stack (`TCX_NEXT`; `TC_ACT_UNSPEC` before Linux 6.6).
const NEXT: i32 = -1;
/// Drops the frame (`TC_ACT_SHOT`, `TCX_DROP`).
const DROP: i32 = 2;

/// LAN ingress at XDP: DHCP requests and ARP.
#[xdp(frags)]
pub fn lan_ingress(ctx: XdpContext) -> u32 {
    at_xdp(lan::ingress(&frame::XdpFrame::new(&ctx)))
}

/// LAN ingress at TC, for interfaces that do not take XDP.
#[classifier]
pub fn lan_ingress_tc(ctx: TcContext) -> i32 {
    at_tc(lan::ingress_at_tc(&frame::SkbFrame::new(&ctx)))
}

/// LAN ingress at TC: datagrams that the kernel merged. Reached from `lan_ingress_tc` by a tail call.
#[classifier]
pub fn lan_merged(ctx: TcContext) -> i32 {
    at_tc(lan::merged(&frame::SkbFrame::new(&ctx)))
}

/// LAN egress: DHCP replies of servers on this machine or behind its relay agent.
#[classifier]
pub fn lan_egress(ctx: TcContext) -> i32 {
    lan::egress(&frame::SkbFrame::new(&ctx));
    NEXT
}

/// Egress of a LAN bridge port: replies of DHCP servers behind other ports, and unicast requests to them.
#[classifier]
pub fn lan_port(ctx: TcContext) -> i32 {
    at_tc(lan::forwarded(&frame::SkbFrame::new(&ctx)))
}

/// LAN ingress: Binding Requests of devices. At TC, because an XDP program cannot set a packet mark.
#[classifier]
pub fn lan_binding(ctx: TcContext) -> i32 {
    binding::observe(&frame::SkbFrame::new(&ctx));
    NEXT
}

/// WAN ingress at XDP: Connection Requests and STUN responses.
#[xdp(frags)]
pub fn wan_ingress(ctx: XdpContext) -> u32 {
    at_xdp(wan::ingress(&frame::XdpFrame::new(&ctx)))
}

/// WAN ingress at TC, for interfaces that do not take XDP.
#[classifier]
pub fn wan_ingress_tc(ctx: TcContext) -> i32 {
    at_tc(wan::ingress(&frame::SkbFrame::new(&ctx)))
}

/// Ingress of an ACS's interfaces at XDP: requests to its STUN server.
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
