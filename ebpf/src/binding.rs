//! What happens to a Binding Request from the LAN (TR-111 2.2.1.3, footnote 10).

use crate::{
    frame::{KernelLoop, Packet, SkbFrame},
    maps::{self, Scratch},
    police,
    seen::Seen,
};
use tr111_common::{
    classify,
    config::Config,
    counter::{Class, Counter, Hook},
    frame::Frame as _,
    headers::Udp,
};

/// Counts the frame. A Binding Request with CONNECTION-REQUEST-BINDING gets the mark, and the agent hears of its flow.
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
    let (Ok(class) | Err(class)) =
        Seen::look(packet, udp, scratch).and_then(|seen| binding(packet, scratch, &seen, config));
    class
}

#[inline(always)]
fn binding(packet: &SkbFrame<'_>, scratch: &mut Scratch, seen: &Seen, config: &Config) -> Result<Class, Class> {
    let signals = classify::judge_stun(&scratch.frame, &seen.udp, KernelLoop)?;
    // A host that invents flows must not fill the connection table with long timeouts.
    let mac = packet.load::<6>(6).ok_or(Class::Truncated)?;
    let host = u64::from_be_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]);
    if !police::may_tell(host, seen.time, config) {
        return Err(Class::OverBudget);
    }
    packet.mark(config.mark, config.mark_mask);
    let key = classify::flow_key(packet, seen.segment, &seen.udp).ok_or(Class::Truncated)?;
    if !maps::refresh_flow(&key, seen.time, signals.binding_change) {
        return Ok(Class::BindingRefresh);
    }
    seen.tell(scratch, Hook::LanBinding, Class::Binding);
    Ok(Class::Binding)
}
