//! DHCP client mode (RFC 2131 4.4): from DISCOVER to renewal, rebinding and release.

use std::{net::Ipv4Addr, time::Duration};

use tr111_common::dhcp4::{MessageType, option};

use super::{Address, GatewayInfo, Input, Output, station::Station};
use crate::{
    dhcp::{Builder, Lease as LeaseTime, Message},
    time::BootTime,
};

/// Times to wait for a reply without an address; the last one repeats (RFC 2131 4.1).
const BACK_OFF: [Duration; 5] = [
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
    Duration::from_secs(64),
];
/// REQUESTs for an offer, after which DISCOVER is sent again.
const REQUESTS: usize = 4;
/// REQUESTs to confirm a lease after the link returned, after which the lease is used unconfirmed (RFC 2131 3.2).
const REBOOTS: usize = 2;
/// Shortest time between two renewal messages (RFC 2131 4.4.5).
const RENEWAL_PAUSE: Duration = Duration::from_mins(1);
/// Pause after a NAK, so that a server that always refuses is not asked continuously.
const NAK_PAUSE: Duration = Duration::from_secs(2);

/// Number of ARP Probes for an address before it is used, and the silence after each of them. RFC 5227 requires three
/// probes, one to two seconds apart, and two seconds of silence. That is too long for a starting device; stations
/// answer within milliseconds, so one second in total is used.
const PROBES: usize = 2;
const PROBE_PAUSE: Duration = Duration::from_millis(500);
/// Pause after a DECLINE (RFC 2131 3.1 step 5).
const DECLINE_PAUSE: Duration = Duration::from_secs(10);

/// Codes of lease options (RFC 2132) that only this module uses.
mod code {
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const RENEWAL_TIME: u8 = 58;
    pub(super) const REBINDING_TIME: u8 = 59;
}

/// The DHCP client.
#[derive(Debug)]
pub(super) struct Client {
    phase: Phase,
    lease: Option<Lease>,
    /// Whether the interface has been configured with the address of the lease.
    is_configured: bool,
    xid: u32,
    /// Messages sent in this phase.
    sent: usize,
    /// Time at which the last REQUEST was first sent; the lease counts from there (RFC 2131 4.4.1).
    requested: BootTime,
    deadline: BootTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no link.
    Down,
    /// DISCOVER: looks for a server.
    Selecting,
    /// REQUEST to the server of the first offer.
    Requesting(Offer),
    /// REQUEST to confirm the lease after the link returned.
    Rebooting,
    /// Probes the acknowledged address for conflicts (RFC 2131 3.1 step 5).
    Checking(Lease, GatewayInfo),
    /// Has a valid lease.
    Bound,
    /// REQUEST to the server of the lease, after T1.
    Renewing,
    /// REQUEST to all servers, after T2.
    Rebinding,
    /// Has released its lease.
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    address: Ipv4Addr,
    server: Ipv4Addr,
    /// Gateway identity in the OFFER; the one in the ACK replaces it (T-3).
    info: Option<GatewayInfo>,
}

/// A DHCP lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The leased address.
    pub address: Address,
    /// Server identifier.
    pub server: Ipv4Addr,
    /// Ethernet source of the ACK: the server, or the next hop to it.
    pub station: [u8; 6],
    /// T1: time at which renewal starts.
    pub renew: BootTime,
    /// T2: time at which rebinding starts.
    pub rebind: BootTime,
    /// Time at which the lease expires.
    pub end: BootTime,
}

impl Client {
    /// A client without a link. A lease of an earlier start is confirmed first (RFC 2131 3.2).
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
                    // Without a lease, the known gateway identity is from another interface or mode.
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

    /// Starts a phase and sends its first message.
    fn enter(&mut self, now: BootTime, phase: Phase, station: &mut Station) {
        // A REQUEST for an offer uses the offer's transaction identifier; all other messages start a new transaction.
        if !matches!(phase, Phase::Requesting(_) | Phase::Checking(..)) {
            self.xid = station.new_xid();
        }
        self.phase = phase;
        self.sent = 0;
        self.requested = now;
        self.ask(now, station);
    }

    /// Sends the message of this phase.
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
                // The lease was not confirmed and not refused, so it is used until it expires.
                self.deadline = lease.renew;
                self.phase = Phase::Bound;
                self.configure(lease.address, station);
            }
            (Phase::Selecting | Phase::Requesting(_) | Phase::Checking(..), _) | (Phase::Rebooting, Some(_)) => {
                self.ask(now, station);
            }
            // Each renewal message is a transaction of its own, so that a reply can be attributed to it.
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

    /// Starts the conflict check for the address of an ACK. An ACK without address, lease time or server is ignored.
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

    /// Configures the interface with the address of the lease, unless that is done.
    fn configure(&mut self, address: Address, station: &mut Station) {
        if !std::mem::replace(&mut self.is_configured, true) {
            station.outputs.push_back(Output::Configure(address));
        }
    }

    /// Declines an address that another station uses.
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

    /// DEV-9: the loss of the lease clears the gateway identity that came with it.
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
                // T1 and T2 in the wrong order are replaced by the defaults of RFC 2131 4.4.5.
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

/// The lease time of a reply; a lease time of 0 counts as none.
fn lease_time(reply: &Message<'_>) -> Option<LeaseTime> {
    reply.lease().filter(|lease| *lease != LeaseTime::For(Duration::ZERO))
}

/// Half of the time until `end`, but at least one minute, and at most all of it (RFC 2131 4.4.5).
fn pause(now: BootTime, end: BootTime) -> Duration {
    let left = end.since(now).unwrap_or_default();
    (left / 2).max(RENEWAL_PAUSE).min(left)
}
