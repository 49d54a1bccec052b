use std::net::Ipv4Addr;

use tr111_common::{
    abi::{ClientKey, LastAck, NeighbourKey},
    dhcp4::MessageType,
    headers::Segment,
};

use crate::{dhcp::HardwareAddress, identity::DeviceIdentity, short::Short, time::BootTime};

/// The message whose ACK made a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// DHCPREQUEST: the address is leased.
    Request,
    /// DHCPINFORM: the address is the device's own (GW-17).
    Inform,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 2] = [Self::Request, Self::Inform];

    /// The word for it in JSON and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Inform => "inform",
        }
    }
}

/// The bit that tells the numbers of [`RemovalReason`] from those of DHCP messages.
const BY_AGENT: u8 = 0x80;

/// Why a binding went, and with the last one its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RemovalReason {
    /// RELEASE (GW-10).
    Released,
    /// The lease ran out (GW-9), or the server gave the address to another client.
    Expired,
    /// DECLINE (T-7).
    Declined,
    /// NAK, and no ACK within the grace (T-8).
    Refused,
    /// The device left the LAN (GW-11).
    Disconnected,
    /// The client has another identity now (T-11).
    IdentityChanged,
    /// The operator denies it a row (GW-16).
    Denied,
}

impl RemovalReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Released,
        Self::Expired,
        Self::Declined,
        Self::Refused,
        Self::Disconnected,
        Self::IdentityChanged,
        Self::Denied,
    ];

    /// Its number in [`LastAck::ended_by`], apart from those of DHCP messages.
    pub const fn number(self) -> u8 {
        self as u8 | BY_AGENT
    }

    /// Why the lease of `ack` ended; `None` while it runs.
    pub fn of(ack: &LastAck) -> Option<Self> {
        match ack.ended_by {
            0 => None,
            number if number == MessageType::Decline as u8 => Some(Self::Declined),
            number if number & BY_AGENT != 0 => Self::ALL.get(usize::from(number ^ BY_AGENT)).copied(),
            _ => Some(Self::Released),
        }
    }

    /// Whether a client can make its binding go for this reason whenever it likes.
    pub(super) const fn is_up_to_client(self) -> bool {
        matches!(self, Self::Released | Self::Declined | Self::Refused | Self::IdentityChanged)
    }

    /// The word for it in JSON and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Declined => "declined",
            Self::Refused => "refused",
            Self::Disconnected => "disconnected",
            Self::IdentityChanged => "identity_changed",
            Self::Denied => "denied",
        }
    }
}

/// A DHCP client by which a device is on the LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The client, by its identifier, else its hardware address; on one segment.
    pub client: ClientKey,
    /// The client's hardware address.
    pub mac: HardwareAddress,
    /// The client's identifier (option 61), if it gives one.
    pub client_id: Option<Short>,
    /// Ethernet source of its last acknowledged request: its own address, or that of a repeater or relay. `None` where a
    /// restart forgot it.
    pub sender: Option<[u8; 6]>,
    /// The client's address.
    pub ip: Ipv4Addr,
    /// What made the binding.
    pub source: Source,
    /// When the lease runs out; `None` where it never does, or where there is no lease.
    pub lease_expires: Option<BootTime>,
    /// The server that granted the lease, where it said so.
    pub server: Option<Ipv4Addr>,
    /// The client is behind a relay (`giaddr` not 0): nothing but its lease tells that it is there.
    pub relayed: bool,
    /// The last ACK.
    pub last_seen: BootTime,
}

impl Binding {
    /// Whether nothing but times differs, and who sent the request.
    pub(super) fn differs_in_time_only(&self, other: &Self) -> bool {
        let Self { client, mac, client_id, sender: _, ip, source, lease_expires: _, server, relayed, last_seen: _ } =
            self;
        (*client, *mac, client_id, *ip) == (other.client, other.mac, &other.client_id, other.ip)
            && (*source, *server, *relayed) == (other.source, other.server, other.relayed)
    }

    /// Where the client is.
    pub fn segment(&self) -> Segment {
        self.client.segment
    }

    /// The client's hardware address, where ARP reaches it: not behind a relay, and Ethernet only.
    pub(super) fn station(&self) -> Option<[u8; 6]> {
        self.mac.as_bytes().try_into().ok().filter(|_| !self.relayed)
    }

    /// The address by whose ARP messages its liveness is known; `None` where ARP does not reach the client.
    pub fn neighbour(&self) -> Option<NeighbourKey> {
        self.station()?;
        Some(NeighbourKey { segment: self.segment(), address: self.ip.octets() })
    }
}

/// A row as a store keeps it (T-30).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Instance number.
    pub instance: u32,
    /// The row's key.
    pub identity: DeviceIdentity,
    /// The ACK that made the row.
    pub first_seen: BootTime,
    /// The last sign of life of any of its bindings.
    pub last_seen: BootTime,
    /// Its bindings, at least one, the oldest first.
    pub bindings: Vec<Binding>,
}

/// A row of the ManageableDevice table.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// Instance number: grows, and is never given out twice (T-32).
    pub instance: u32,
    /// The row's key.
    pub identity: &'a DeviceIdentity,
    /// The ACK that made the row.
    pub first_seen: BootTime,
    /// The last sign of life of any of its bindings: an ACK, or what the kernel heard of its station.
    pub last_seen: BootTime,
    /// Its bindings, at least one, the oldest first.
    pub bindings: super::table::Bindings<'a>,
}
