//! The STUN server: its name, its addresses, and when the name is resolved again.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use super::{Alarm, Output, context::Context, settings::literal};
use crate::time::BootTime;

/// First pause after a failed look-up. It doubles up to the operator's maximum.
const PAUSE: Duration = Duration::from_secs(5);
/// Time after which an unanswered look-up is considered lost.
const LOST: Duration = Duration::from_secs(30);

/// The server that the parameters name.
#[derive(Debug)]
pub(super) struct Server {
    host: String,
    port: u16,
    address: Option<Ipv4Addr>,
    /// Whether the address does not answer, so that another one is preferred.
    is_doubted: bool,
    failures: u32,
    look_up: BootTime,
}

impl Server {
    pub(super) fn new(now: BootTime, host: &str, port: u16) -> Self {
        let address = literal(host);
        let look_up = if address.is_some() { BootTime::NEVER } else { now };
        Self { host: host.to_owned(), port, address, is_doubted: false, failures: 0, look_up }
    }

    pub(super) fn is(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port == port
    }

    pub(super) fn address(&self) -> Option<SocketAddrV4> {
        self.address.map(|address| SocketAddrV4::new(address, self.port))
    }

    /// Whether the first look-up is running.
    pub(super) fn is_expected(&self) -> bool {
        self.address.is_none() && self.failures == 0
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.look_up
    }

    pub(super) fn tick(&mut self, now: BootTime, context: &mut Context) {
        if now >= self.look_up {
            self.look_up = now + LOST;
            context.outputs.push_back(Output::Resolve { host: self.host.clone() });
        }
    }

    /// Records that the address does not answer: the name may have another one.
    pub(super) fn doubt(&mut self, now: BootTime) {
        if literal(&self.host).is_none() {
            self.is_doubted = true;
            self.look_up = self.look_up.min(now);
        }
    }

    /// Records that the address answers.
    pub(super) fn trust(&mut self) {
        self.is_doubted = false;
    }

    pub(super) fn resolved(&mut self, now: BootTime, host: &str, addresses: &[Ipv4Addr], context: &mut Context) {
        if host != self.host || literal(&self.host).is_some() {
            return;
        }
        let usable =
            |address: &&Ipv4Addr| !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast();
        let addresses: Vec<Ipv4Addr> = addresses.iter().filter(usable).copied().collect();
        let known = self.address.and_then(|known| addresses.iter().position(|address| *address == known));
        let chosen = match known {
            Some(position) if self.is_doubted => addresses.get((position + 1) % addresses.len()),
            Some(position) => addresses.get(position),
            None => addresses.first(),
        };
        if let Some(address) = chosen {
            self.address = Some(*address);
            self.failures = 0;
            self.is_doubted = false;
            self.look_up = BootTime::NEVER;
            context.clear(Alarm::Unresolved);
        } else {
            let pause = PAUSE.saturating_mul(1 << self.failures.min(16)).min(context.settings.longest_pause);
            self.failures += 1;
            self.look_up = now + context.jittered(pause);
            context.raise(Alarm::Unresolved);
        }
    }
}
