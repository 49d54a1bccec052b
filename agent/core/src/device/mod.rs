//! The device's side of TR-111 Part 1: sends the Device Identity by DHCP, and learns the Gateway Identity (TR-111
//! 1.2.2).
//!
//! There are two modes ([`Mode`]): INFORM, beside another DHCP client that obtains the address, and a complete DHCP
//! client (RFC 2131 4.4). Both send the Device Identity in every DISCOVER, REQUEST and INFORM, and take the Gateway
//! Identity from the reply that completes an exchange: [`GatewayInfo`] changes at most once per exchange (T-3).
//!
//! The owner passes inputs and the time to [`Device`], and performs its [`Output`]s.

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

/// How the device uses DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// INFORM, with an address that another DHCP client obtains (DEV-10).
    Inform {
        /// Time between a reply and the next INFORM.
        interval: Duration,
    },
    /// A complete DHCP client, which obtains the address.
    Dhcp,
}

/// Settings of the device.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ethernet address of the interface.
    pub mac: [u8; 6],
    /// Identity of the device.
    pub identity: DeviceIdentity,
    /// How the device uses DHCP.
    pub mode: Mode,
    /// Seed of transaction identifiers and delays. It should differ between devices and between starts.
    pub seed: u64,
}

/// State that is stored across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Ethernet address of the interface to which the state belongs.
    pub mac: [u8; 6],
    /// The known gateway identity.
    pub info: GatewayInfo,
    /// The lease, in [`Mode::Dhcp`].
    pub lease: Option<Lease>,
}

/// Inputs of the device.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Whether the interface has a link. `false` at first.
    Link(bool),
    /// IPv4 address of the interface, for [`Mode::Inform`]. `None` at first.
    Address(Option<Ipv4Addr>),
    /// An Ethernet frame was received.
    Frame(&'a [u8]),
    /// Time has passed.
    Tick,
    /// The device stops, and releases its lease.
    Release,
}

/// Outputs of the device, in the order in which they have to be performed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send an Ethernet frame.
    Transmit(Vec<u8>),
    /// Send an Ethernet frame with an ARP message, and pass in received ARP messages while [`Device::is_checking`].
    Arp(Vec<u8>),
    /// Another station uses the leased address, which was declined.
    Declined(Ipv4Addr),
    /// Store this state across restarts.
    Keep(State),
    /// Configure the interface with this address.
    Configure(Address),
    /// Remove this address from the interface.
    Deconfigure(Address),
    /// `GatewayInfo` changed; at most once per exchange.
    GatewayInfoChanged {
        /// The previous value.
        old: GatewayInfo,
        /// The new value.
        new: GatewayInfo,
    },
}

/// An address with its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The IPv4 address.
    pub address: Ipv4Addr,
    /// Length of the subnet prefix in bits.
    pub prefix_length: u8,
    /// The first router of the subnet; `None` if the server sent none.
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
    /// A device without a link, with a stored state. A lease of another interface is discarded.
    pub fn new(settings: &Settings, state: State) -> Self {
        let State { mac, info, lease } = state;
        let way = match settings.mode {
            Mode::Inform { interval } => Way::Inform(Inform::new(interval)),
            Mode::Dhcp => Way::Dhcp(Client::new(lease.filter(|_| mac == settings.mac))),
        };
        Self { mac: settings.mac, station: Station::new(settings, info), way }
    }

    /// Handles an input at `now`.
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

    /// The state that has to be stored across restarts.
    pub fn state(&self) -> State {
        let lease = match &self.way {
            Way::Inform(_) => None,
            Way::Dhcp(client) => client.lease().cloned(),
        };
        State { mac: self.mac, info: self.station.info.clone(), lease }
    }

    /// Whether an address is being checked for conflicts, so that ARP messages have to be passed in (RFC 2131 3.1 step
    /// 5).
    pub fn is_checking(&self) -> bool {
        matches!(&self.way, Way::Dhcp(client) if client.is_checking())
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.station.outputs.pop_front()
    }

    /// Time at which [`Input::Tick`] has to be passed.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let deadline = match &self.way {
            Way::Inform(inform) => inform.deadline(),
            Way::Dhcp(client) => client.deadline(),
        };
        Some(deadline).filter(|deadline| *deadline != BootTime::NEVER)
    }

    /// The known gateway identity (DM-12 to DM-14).
    pub fn gateway_info(&self) -> &GatewayInfo {
        &self.station.info
    }

    /// The address that the device has leased itself.
    pub fn lease(&self) -> Option<Address> {
        match &self.way {
            Way::Inform(_) => None,
            Way::Dhcp(client) => client.lease().map(|lease| lease.address),
        }
    }
}

type Outputs = VecDeque<Output>;
