//! Frames from the WAN: Connection Requests (TR-111 2.2.2.3) and STUN responses.
//!
//! # Theory of operation
//!
//! The program classifies every UDP datagram by its first bytes, STUN responses also by their source port, and counts
//! it. If the operator set a rate, Connection Requests above it are dropped per source address (T-62), before they
//! reach the stack. Nothing is sent to the agent.

use crate::{maps, police};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use tr111_common::{
    classify,
    config::Config,
    counter::{Class, Counter, Hook},
    headers::{self, Udp, Wanted},
};
use tr111_ebpf::frame::Packet;

/// Counts the frame. Returns `false` if the frame has to be dropped, because its source sends more Connection Requests
/// than the operator allows (T-62).
#[inline(always)]
pub fn ingress<P: Packet>(packet: &P) -> bool {
    let Some(config) = maps::config() else { return true };
    let class = match headers::find_udp(packet, packet.metadata_tag(), Wanted::Any) {
        Ok(udp) => judge(packet, &udp, config),
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::WanIngress, class));
    // `Policed` is the only class with the outcome `Dropped`. Comparing the class saves a table look-up per frame.
    !matches!(class, Class::Policed)
}

#[inline(always)]
fn judge<P: Packet>(packet: &P, udp: &Udp, config: &Config) -> Class {
    let class = classify::judge_wan(packet, udp, config);
    if !matches!(class, Class::ConnectionRequest) {
        return class;
    }
    let Some(source) = packet.load::<4>(udp.ip as usize + headers::IPV4_ADDRESSES) else { return class };
    // SAFETY: the helper has no arguments and reads a clock.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if police::may_pass_connection_request(source, now, config) { class } else { Class::Policed }
}
