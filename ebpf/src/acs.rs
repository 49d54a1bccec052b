//! The line-rate path of the STUN server, attached to the ACS's interfaces at XDP.
//!
//! # Theory of operation
//!
//! 1. `tr111_common::acs::find` parses the headers of a datagram to a STUN port. The map `LISTENERS` says whether the
//!    server listens at that interface, MAC address, IP address and port.
//!
//! 2. The request is copied to the scratch buffer, its checksums are verified, and its attributes are classified.
//!
//! 3. A request for the mapped address only is answered. A keep-alive is answered if its binding (USERNAME, source and
//!    destination) is in the map `BINDINGS`, which the agent fills; the entry's time is updated.
//!
//! 4. The frame is rewritten in place into the Binding Response and sent back (`XDP_TX`).
//!
//! Every other frame passes to the stack. In particular, requests with MESSAGE-INTEGRITY, BINDING-CHANGE or an unknown
//! binding reach the server's socket, which gives the same answers to the requests above.
//!
//! There is no rate limit per source. An answer is at most 2.8 times as long as its request
//! (`tr111_common::stun::ANSWER`), so forged sources gain little; looking up a source's budget would cost as much as
//! the answer; and forged sources would fill the table of budgets. Datagrams that the stack would not deliver to the
//! socket are not answered here either: wrong checksums, and sources that only this machine can have.

use crate::maps::{self, Scratch};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use tr111_common::{
    acs::{self, Question, REQUEST_MAXIMUM, Route},
    config::Config,
    counter::{Class, Counter, Hook},
    headers::Udp,
    words::WORD,
};
use tr111_ebpf::frame::{Copied, KernelLoop, Length, Packet as _, XdpFrame};

/// Words of the longest request that this path reads.
const REQUEST_WORDS: usize = REQUEST_MAXIMUM / WORD;

/// Counts the frame and answers it if possible. Returns `true` if the frame holds the answer and has to be sent back.
#[inline(always)]
pub fn answer(packet: &XdpFrame<'_>) -> bool {
    let Some(config) = maps::config() else { return false };
    let class = match acs::find(packet, packet.ifindex(), config) {
        Ok((udp, route)) => on_stun(packet, &udp, &route, config),
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::AcsStun, class));
    matches!(class, Class::Plain | Class::KeepAlive | Class::NulKeepAlive)
}

#[inline(always)]
fn on_stun(packet: &XdpFrame<'_>, udp: &Udp, route: &Route, config: &Config) -> Class {
    let (Ok(class) | Err(class)) = respond(packet, udp, route, config);
    class
}

#[inline(always)]
fn respond(packet: &XdpFrame<'_>, udp: &Udp, route: &Route, config: &Config) -> Result<Class, Class> {
    let changed = *maps::listener(&route.listener).ok_or(Class::OtherAddress)?;
    if !route.is_answerable() || maps::is_own_address(route.source.address) {
        return Err(Class::BadSource);
    }
    let Scratch { frame: Copied { words: request, .. }, demands, .. } = maps::scratch().ok_or(Class::NoRoom)?;
    let length = Length::<REQUEST_WORDS>::new(udp.end.wrapping_sub(udp.payload)).ok_or(Class::OtherStun)?;
    if !packet.read(udp.payload, length, request) {
        return Err(Class::OtherStun);
    }
    if !acs::is_intact(packet, udp, request, KernelLoop) {
        return Err(Class::BadChecksum);
    }
    let class = match acs::judge(request, length.bytes(), demands, KernelLoop)? {
        Question::Plain => Class::Plain,
        Question::KeepAlive => {
            let key = acs::binding_key(request, demands, route, config, KernelLoop);
            // SAFETY: the helper has no arguments and reads a clock.
            let now = unsafe { bpf_ktime_get_boot_ns() };
            if !maps::refresh_binding(&key, now) {
                return Err(Class::UnregisteredBinding);
            }
            acs::keep_alive_class(demands)
        }
    };
    let datagram = acs::answer(request, route, changed).datagram();
    if packet.send_back(udp.ip as usize, &datagram) { Ok(class) } else { Err(Class::NoRoom) }
}
