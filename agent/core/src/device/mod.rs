//! The device's side of TR-111 Part 1: it tells the gateway who it is, and learns who the gateway is (TR-111 1.2.2).
//!
//! Two ways ([`Mode`]): INFORM, beside whatever DHCP client gives the box its address, and a full exchange of its own
//! (RFC 2131 4.4). Both put the Device Identity into every DISCOVER, REQUEST and INFORM, and take the Gateway Identity
//! from the reply that ends an exchange: [`GatewayInfo`] changes once for an exchange, or not at all (T-3).
//!
//! The owner hands [`Device`] what happens, together with the time, and carries out its [`Output`]s.

pub mod attributes;
mod info;
mod inform;
mod lease;
mod station;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, net::Ipv4Addr, time::Duration};

pub use info::{GatewayInfo, GatewayParameter};
pub use lease::Lease;

use self::{inform::Inform, lease::Client, station::Station};
use crate::{identity::DeviceIdentity, time::BootTime};

/// How the device speaks DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// INFORM, for an address that comes from elsewhere (DEV-10).
    Inform {
        /// Time from an answer to the next INFORM.
        interval: Duration,
    },
    /// A full exchange, which brings the address.
    Dhcp,
}

/// What the device works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ethernet address of the interface.
    pub mac: [u8; 6],
    /// Who the device is.
    pub identity: DeviceIdentity,
    /// How it speaks DHCP.
    pub mode: Mode,
    /// Transactions and delays are drawn from it; it should differ between devices and starts.
    pub seed: u64,
}

/// What is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Ethernet address of the interface that the lease is for.
    pub mac: [u8; 6],
    /// What was known of the gateway.
    pub info: GatewayInfo,
    /// The lease, in [`Mode::Dhcp`].
    pub lease: Option<Lease>,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The interface can send (`true`) or not. At first it cannot.
    Link(bool),
    /// The address of the interface, for [`Mode::Inform`]. At first there is none.
    Address(Option<Ipv4Addr>),
    /// An Ethernet frame came in.
    Frame(&'a [u8]),
    /// Time went by.
    Tick,
    /// The device stops: a lease is given back.
    Release,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this Ethernet frame.
    Transmit(Vec<u8>),
    /// Send this Ethernet frame, an ARP message, and hand in those that come while [`Device::is_checking`].
    Arp(Vec<u8>),
    /// Somebody else has the address of a lease, which was declined.
    Declined(Ipv4Addr),
    /// Keep this over a restart.
    Keep(State),
    /// Give the interface this address.
    Configure(Address),
    /// Take this address from the interface.
    Deconfigure(Address),
    /// `GatewayInfo` changed. At most once for an exchange.
    GatewayInfoChanged {
        /// What it was.
        old: GatewayInfo,
        /// What it is.
        new: GatewayInfo,
    },
}

/// An address with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of its subnet mask.
    pub prefix_length: u8,
    /// The first router of the subnet.
    pub router: Option<Ipv4Addr>,
}

/// One device on one interface.
#[derive(Debug)]
pub struct Device {
    mac: [u8; 6],
    station: Station,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Inform(Inform),
    Dhcp(Client),
}

impl Device {
    /// A device whose link is down, as it was when `state` was kept. A lease for another interface is none.
    pub fn new(settings: &Settings, state: State) -> Self {
        let State { mac, info, lease } = state;
        let way = match settings.mode {
            Mode::Inform { interval } => Way::Inform(Inform::new(interval)),
            Mode::Dhcp => Way::Dhcp(Client::new(lease.filter(|_| mac == settings.mac))),
        };
        Self { mac: settings.mac, station: Station::new(settings, info), way }
    }

    /// Takes what happened at `now`.
    pub fn handle(&mut self, now: BootTime, input: Input<'_>) {
        let before = self.state();
        match &mut self.way {
            Way::Inform(inform) => inform.handle(now, input, &mut self.station),
            Way::Dhcp(client) => client.handle(now, input, &mut self.station),
        }
        let state = self.state();
        if state != before {
            self.station.outputs.push_back(Output::Keep(state));
        }
    }

    /// What to keep over a restart.
    pub fn state(&self) -> State {
        let lease = match &self.way {
            Way::Inform(_) => None,
            Way::Dhcp(client) => client.lease().cloned(),
        };
        State { mac: self.mac, info: self.station.info.clone(), lease }
    }

    /// Whether ARP messages are to be handed in: an address is checked before it is used (RFC 2131 3.1 step 5).
    pub fn is_checking(&self) -> bool {
        matches!(&self.way, Way::Dhcp(client) if client.is_checking())
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.station.outputs.pop_front()
    }

    /// When a [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let deadline = match &self.way {
            Way::Inform(inform) => inform.deadline(),
            Way::Dhcp(client) => client.deadline(),
        };
        Some(deadline).filter(|deadline| *deadline != BootTime::NEVER)
    }

    /// What is known of the gateway (DM-12 to DM-14).
    pub fn gateway_info(&self) -> &GatewayInfo {
        &self.station.info
    }

    /// The address that the device holds by a lease of its own.
    pub fn lease(&self) -> Option<Address> {
        match &self.way {
            Way::Inform(_) => None,
            Way::Dhcp(client) => client.lease().map(|lease| lease.address),
        }
    }
}

/// Outputs that wait to be polled.
type Outputs = VecDeque<Output>;
