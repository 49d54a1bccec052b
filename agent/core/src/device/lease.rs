//! A full DHCP client (RFC 2131 4.4): DISCOVER to renewal, rebinding and release.

use std::{net::Ipv4Addr, time::Duration};

use tr111_common::dhcp4::{MessageType, option};

use super::{Address, GatewayInfo, Input, Output, station::Station};
use crate::{
    dhcp::{Builder, Lease as LeaseTime, Message},
    time::BootTime,
};

/// Waits for an answer while there is no address, the last one for all that follow (RFC 2131 4.1).
const BACK_OFF: [Duration; 5] = [
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
    Duration::from_secs(64),
];
/// REQUESTs for an offer before another one is looked for.
const REQUESTS: usize = 4;
/// REQUESTs for a lease after the link came back before it is used as it is (RFC 2131 3.2).
const REBOOTS: usize = 2;
/// Between repetitions of a renewal (RFC 2131 4.4.5).
const RENEWAL_PAUSE: Duration = Duration::from_mins(1);
/// Before the search starts again after a NAK, so that a server that always refuses is not asked all the time.
const NAK_PAUSE: Duration = Duration::from_secs(2);

/// ARP Probes for an address before it is used, and the silence that has to follow each. RFC 5227 has three of them, one
/// to two seconds apart, and two seconds of silence; a second in all is what a box that starts can wait, and
/// stations answer within milliseconds.
const PROBES: usize = 2;
const PROBE_PAUSE: Duration = Duration::from_millis(500);
/// After a DECLINE (RFC 2131 3.1 step 5).
const DECLINE_PAUSE: Duration = Duration::from_secs(10);

/// Options of a lease (RFC 2132) that nothing else here needs.
mod code {
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RENEWAL_TIME: u8 = 58;
    pub(super) const REBINDING_TIME: u8 = 59;
}

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    phase: Phase,
    lease: Option<Lease>,
    /// The interface was given the address of the lease, since the device started.
    is_configured: bool,
    xid: u32,
    /// Messages of this phase.
    sent: usize,
    /// When the last REQUEST was sent first: a lease counts from there (RFC 2131 4.4.1).
    requested: BootTime,
    deadline: BootTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// No link.
    Down,
    /// Looks for a server.
    Selecting,
    /// Took the first offer, and asks its server for it.
    Requesting(Offer),
    /// The link came back: asks whether the lease still holds.
    Rebooting,
    /// Has an acknowledgement, and asks whether somebody else has the address (RFC 2131 3.1 step 5).
    Checking(Lease, GatewayInfo),
    /// Has an address.
    Bound,
    /// Asks the server that gave it (T1).
    Renewing,
    /// Asks every server (T2).
    Rebinding,
    /// Has given it back, for good.
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
    /// Provisional: the ACK decides (T-3).
    info: Option<GatewayInfo>,
}

/// An address for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Address,
    /// The server that gave it.
    pub server: Ipv4Addr,
    /// The station that brought the ACK: the server, or the way to it.
    pub station: [u8; 6],
    /// T1: the server is asked for more time.
    pub renew: BootTime,
    /// T2: every server is.
    pub rebind: BootTime,
    /// The address is not the device's any more.
    pub end: BootTime,
}

impl Client {
    /// Without a link, and with the lease of an earlier start, which is confirmed first (RFC 2131 3.2).
    pub(super) fn new(lease: Option<Lease>) -> Self {
        Self {
            phase: Phase::Down,
            lease,
            is_configured: false,
            xid: 0,
            sent: 0,
            requested: BootTime::NEVER,
            deadline: BootTime::NEVER,
        }
    }

    pub(super) fn deadline(&self) -> BootTime {
        self.deadline.min(self.lease_end())
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    pub(super) fn is_checking(&self) -> bool {
        matches!(self.phase, Phase::Checking(..))
    }

    pub(super) fn handle(&mut self, now: BootTime, input: Input<'_>, station: &mut Station) {
        match input {
            _ if self.phase == Phase::Released => {}
            Input::Link(true) if self.phase == Phase::Down => {
                if now >= self.lease_end() {
                    self.lose_lease(station);
                }
                if self.lease.is_some() {
                    self.enter(now, Phase::Rebooting, station);
                } else {
                    // What is known of a gateway without a lease is from another interface, or another mode.
                    station.set_info(GatewayInfo::default());
                    self.enter(now, Phase::Selecting, station);
                }
            }
            Input::Link(false) => {
                self.phase = Phase::Down;
                self.deadline = BootTime::NEVER;
            }
            Input::Frame(frame) => self.receive(now, frame, station),
            Input::Tick => self.tick(now, station),
            Input::Release => self.release(station),
            // The address comes from the lease.
            Input::Link(true) | Input::Address(_) => {}
        }
    }

    fn lease_end(&self) -> BootTime {
        self.lease.as_ref().map_or(BootTime::NEVER, |lease| lease.end)
    }

    /// Begins a phase with its first message.
    fn enter(&mut self, now: BootTime, phase: Phase, station: &mut Station) {
        // A REQUEST for an offer belongs to the offer's transaction; everything else that is sent begins one.
        if !matches!(phase, Phase::Requesting(_) | Phase::Checking(..)) {
            self.xid = station.new_xid();
        }
        self.phase = phase;
        self.sent = 0;
        self.requested = now;
        self.ask(now, station);
    }

    /// Sends the message of this phase, once more.
    fn ask(&mut self, now: BootTime, station: &mut Station) {
        if let Phase::Checking(lease, _) = &self.phase {
            station.probe(lease.address.address);
            self.sent += 1;
            self.deadline = now + PROBE_PAUSE;
            return;
        }
        let request = |station: &Station, xid| station.identified(MessageType::Request, xid);
        let (message, wait): (Builder, _) = match (&self.phase, &self.lease) {
            (Phase::Selecting, _) => (station.identified(MessageType::Discover, self.xid), self.back_off(station)),
            (Phase::Requesting(offer), _) => {
                let message = request(station, self.xid)
                    .address(option::REQUESTED_IP, offer.address)
                    .address(option::SERVER_ID, offer.server);
                (message, self.back_off(station))
            }
            (Phase::Rebooting, Some(lease)) => {
                let message = request(station, self.xid).address(option::REQUESTED_IP, lease.address.address);
                (message, self.back_off(station))
            }
            (Phase::Renewing, Some(lease)) => {
                let message = request(station, self.xid).ciaddr(lease.address.address).to(lease.station, lease.server);
                (message, pause(now, lease.rebind))
            }
            (Phase::Rebinding, Some(lease)) => {
                (request(station, self.xid).ciaddr(lease.address.address), pause(now, lease.end))
            }
            _ => return,
        };
        station.transmit(message);
        self.sent += 1;
        self.deadline = now + wait;
    }

    fn back_off(&self, station: &mut Station) -> Duration {
        station.jittered(BACK_OFF[self.sent.min(BACK_OFF.len() - 1)])
    }

    fn tick(&mut self, now: BootTime, station: &mut Station) {
        if now >= self.lease_end() {
            self.lose_lease(station);
            if self.phase != Phase::Down {
                self.enter(now, Phase::Selecting, station);
            }
            return;
        }
        if now < self.deadline {
            return;
        }
        match (&self.phase, &self.lease) {
            (Phase::Checking(lease, info), _) if self.sent >= PROBES => {
                let (lease, info) = (lease.clone(), info.clone());
                station.announce(lease.address.address);
                self.bind(lease, info, station);
            }
            (Phase::Requesting(_), _) if self.sent >= REQUESTS => self.enter(now, Phase::Selecting, station),
            (Phase::Rebooting, Some(lease)) if self.sent >= REBOOTS => {
                let lease = lease.clone();
                // Nobody says that it ended, so it is used as long as it lasts.
                self.deadline = lease.renew;
                self.phase = Phase::Bound;
                self.configure(lease.address, station);
            }
            (Phase::Selecting | Phase::Requesting(_) | Phase::Checking(..), _) | (Phase::Rebooting, Some(_)) => {
                self.ask(now, station);
            }
            // An answer has to say which of several renewals it is for, so each is a transaction.
            (Phase::Bound | Phase::Renewing, Some(lease)) if now < lease.rebind => {
                self.enter(now, Phase::Renewing, station);
            }
            (Phase::Bound | Phase::Renewing | Phase::Rebinding, Some(_)) => {
                self.enter(now, Phase::Rebinding, station);
            }
            (Phase::Down | Phase::Released, _) | (_, None) => self.deadline = BootTime::NEVER,
        }
    }

    fn receive(&mut self, now: BootTime, frame: &[u8], station: &mut Station) {
        if let Phase::Checking(lease, _) = &self.phase {
            if station.is_claimed(frame, lease.address.address) {
                let lease = lease.clone();
                self.decline(now, &lease, station);
            }
            return;
        }
        let Some(reply) = station.reply(frame, self.xid) else { return };
        match (&self.phase, reply.message_type) {
            (Phase::Selecting, MessageType::Offer) => {
                let (address, Some(server), Some(_)) = (reply.yiaddr(), reply.server_id(), lease_time(&reply)) else {
                    return;
                };
                if !address.is_unspecified() {
                    let info = station.gateway_in(&reply);
                    self.enter(now, Phase::Requesting(Offer { address, server, info }), station);
                }
            }
            (Phase::Requesting(offer), MessageType::Ack) if reply.server_id() == Some(offer.server) => {
                let info = station.gateway_in(&reply).or_else(|| offer.info.clone()).unwrap_or_default();
                self.check(now, &reply, info, station);
            }
            (Phase::Rebooting, MessageType::Ack) => {
                let info = station.gateway_in(&reply).unwrap_or_default();
                self.check(now, &reply, info, station);
            }
            (Phase::Renewing | Phase::Rebinding, MessageType::Ack) => {
                let info = station.gateway_in(&reply).unwrap_or_default();
                if let Some(lease) = Lease::of(&reply, self.requested) {
                    self.bind(lease, info, station);
                }
            }
            (Phase::Requesting(offer), MessageType::Nak)
                if reply.server_id().is_none_or(|server| server == offer.server) =>
            {
                self.refused(now, station);
            }
            (Phase::Rebooting | Phase::Renewing | Phase::Rebinding, MessageType::Nak) => self.refused(now, station),
            _ => {}
        }
    }

    /// Takes the lease of an ACK, once nobody else turns out to have its address. One without address, lease or server
    /// is none.
    fn check(&mut self, now: BootTime, ack: &Message<'_>, info: GatewayInfo, station: &mut Station) {
        if let Some(lease) = Lease::of(ack, self.requested) {
            self.enter(now, Phase::Checking(lease, info), station);
        }
    }

    fn bind(&mut self, lease: Lease, info: GatewayInfo, station: &mut Station) {
        let old = self.lease.as_ref().map(|lease| lease.address);
        if old != Some(lease.address) {
            station.outputs.extend(old.map(Output::Deconfigure));
            self.is_configured = false;
        }
        self.configure(lease.address, station);
        self.phase = Phase::Bound;
        self.deadline = lease.renew;
        self.lease = Some(lease);
        station.set_info(info);
    }

    /// Gives the interface the address of the lease, unless it has it.
    fn configure(&mut self, address: Address, station: &mut Station) {
        if !std::mem::replace(&mut self.is_configured, true) {
            station.outputs.push_back(Output::Configure(address));
        }
    }

    /// Somebody else has the address: the server is to know, and to give another one.
    fn decline(&mut self, now: BootTime, lease: &Lease, station: &mut Station) {
        let xid = station.new_xid();
        let address = lease.address.address;
        let message = station
            .plain(MessageType::Decline, xid)
            .address(option::REQUESTED_IP, address)
            .address(option::SERVER_ID, lease.server);
        station.transmit(message);
        station.outputs.push_back(Output::Declined(address));
        self.search_after(now, DECLINE_PAUSE, station);
    }

    /// A server says that the address is not for this device.
    fn refused(&mut self, now: BootTime, station: &mut Station) {
        let pause = station.jittered(NAK_PAUSE);
        self.search_after(now, pause, station);
    }

    fn search_after(&mut self, now: BootTime, pause: Duration, station: &mut Station) {
        self.lose_lease(station);
        self.phase = Phase::Selecting;
        self.xid = station.new_xid();
        self.sent = 0;
        self.deadline = now + pause;
    }

    /// DEV-9: what was learned with a lease goes with it.
    fn lose_lease(&mut self, station: &mut Station) {
        self.is_configured = false;
        if let Some(lease) = self.lease.take() {
            station.outputs.push_back(Output::Deconfigure(lease.address));
            station.set_info(GatewayInfo::default());
        }
    }

    fn release(&mut self, station: &mut Station) {
        if let Some(lease) = self.lease.as_ref().filter(|_| self.phase != Phase::Down) {
            let xid = station.new_xid();
            let message = station
                .plain(MessageType::Release, xid)
                .address(option::SERVER_ID, lease.server)
                .ciaddr(lease.address.address)
                .to(lease.station, lease.server);
            station.transmit(message);
        }
        self.lose_lease(station);
        self.phase = Phase::Released;
        self.deadline = BootTime::NEVER;
    }
}

impl Lease {
    fn of(ack: &Message<'_>, requested: BootTime) -> Option<Self> {
        let (server, lease) = (ack.server_id()?, lease_time(ack)?);
        if ack.yiaddr().is_unspecified() {
            return None;
        }
        let four = |code| ack.option(code)?.first_chunk::<4>().copied();
        let seconds = |code| four(code).map(|value| Duration::from_secs(u32::from_be_bytes(value).into()));
        let (renew, rebind, end) = match lease {
            LeaseTime::Infinite => (BootTime::NEVER, BootTime::NEVER, BootTime::NEVER),
            LeaseTime::For(lease) => {
                // Times that are out of order are the server's mistake; RFC 2131 4.4.5 has the presets.
                let rebind = seconds(code::REBINDING_TIME).filter(|time| *time < lease).unwrap_or(lease / 8 * 7);
                let renew = seconds(code::RENEWAL_TIME).filter(|time| *time < rebind).unwrap_or(rebind.min(lease / 2));
                (requested + renew, requested + rebind, requested + lease)
            }
        };
        let mask = four(code::SUBNET_MASK).map_or(u32::MAX, u32::from_be_bytes);
        let address = Address {
            address: ack.yiaddr(),
            prefix_length: mask.leading_ones() as u8,
            router: four(code::ROUTER).map(Ipv4Addr::from),
        };
        Some(Self { address, server, station: ack.ethernet_source, renew, rebind, end })
    }
}

/// A lease of no time is none.
fn lease_time(reply: &Message<'_>) -> Option<LeaseTime> {
    reply.lease().filter(|lease| *lease != LeaseTime::For(Duration::ZERO))
}

/// Half of the time that is left until `end`, at least a minute and never beyond (RFC 2131 4.4.5).
fn pause(now: BootTime, end: BootTime) -> Duration {
    let left = end.since(now).unwrap_or_default();
    (left / 2).max(RENEWAL_PAUSE).min(left)
}
