//! STUN Binding Requests from the LAN, at TC ingress (TR-111 2.2.1.3, footnote 10).
//!
//! # Theory of operation
//!
//! A Binding Request with CONNECTION-REQUEST-BINDING shows that its UDP flow has to stay open for Connection Requests.
//! The program sets a packet mark on it, so that an nftables rule of the agent gives the flow a longer NAT timeout. The
//! flow is kept in the map `FLOWS`; the agent receives an event if the flow is new or has changed, and every 30 s
//! otherwise.
//!
//! Each such request takes a token from the event budget of its host. Without a token it is neither marked nor
//! recorded, so that a host cannot fill the connection table with flows of long timeouts.

use crate::{
    emit,
    maps::{self, Scratch},
    police, seen,
};
use tr111_common::{
    classify,
    config::Config,
    counter::{Class, Counter, Hook},
    frame::{Octets as _, first_bytes},
    headers::{ETHERNET_SOURCE, Udp},
};
use tr111_ebpf::frame::{KernelLoop, Packet as _, SkbFrame};

/// Counts the frame. Marks a Binding Request with CONNECTION-REQUEST-BINDING, and sends an event about its flow.
#[inline(always)]
pub fn observe(packet: &SkbFrame<'_>) {
    let Some(config) = maps::config() else { return };
    let class = match classify::find_stun(packet, packet.metadata_tag(), config) {
        Ok(udp) => on_stun(packet, udp, config),
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::LanBinding, class));
}

#[inline(always)]
fn on_stun(packet: &SkbFrame<'_>, udp: Udp, config: &Config) -> Class {
    let Some(scratch) = maps::scratch() else { return Class::OtherStun };
    let (Ok(class) | Err(class)) = seen::look(packet, udp, scratch).and_then(|()| binding(packet, scratch, config));
    class
}

#[inline(always)]
fn binding(packet: &SkbFrame<'_>, scratch: &mut Scratch, config: &Config) -> Result<Class, Class> {
    let Scratch { frame, seen, demands, .. } = scratch;
    let signals = classify::judge_stun(frame, &seen.udp, demands, KernelLoop)?;
    // Without this limit, a host could fill the connection table with invented flows that have long timeouts.
    let host = first_bytes(frame.be64(ETHERNET_SOURCE), 6);
    if !police::may_tell(host, seen.time, config) {
        return Err(Class::OverBudget);
    }
    packet.mark(config.mark, config.mark_mask);
    let key = classify::flow_key(frame, seen.segment, &seen.udp);
    if !maps::refresh_flow(&key, seen.time, signals.binding_change) {
        return Ok(classify::binding_class(signals, false));
    }
    let class = classify::binding_class(signals, true);
    emit::lan(scratch, Hook::LanBinding, class);
    Ok(class)
}
