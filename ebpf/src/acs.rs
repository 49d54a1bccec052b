//! The line-rate path of the STUN server: requests that ask for nothing but their address are answered where they come in.
//!
//! There is no limit per source here. An answer is at most 2.8 times its request (`tr111_common::stun::ANSWER`), so nobody
//! gains by forged sources; it costs no more than finding a source's budget would, and a table of sources is what forged
//! ones would fill. What the stack would not give to the socket is not answered here: wrong checksums, and sources that
//! nobody but this machine has.

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

/// Words of the longest request that is read here.
const REQUEST_WORDS: usize = REQUEST_MAXIMUM / WORD;

/// Counts the frame, and turns it into its answer where that is known here. `true`: it is to be sent back.
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
            // SAFETY: the helper takes nothing and reads a clock.
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
