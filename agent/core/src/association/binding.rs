use std::net::Ipv4Addr;

use tr111_common::{
    abi::{ClientKey, LastAck, NeighbourKey},
    dhcp4::MessageType,
    headers::Segment,
};

use crate::{dhcp::HardwareAddress, identity::DeviceIdentity, short::Short, time::BootTime};

/// The type of the request whose ACK created a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// DHCPREQUEST: the address is leased.
    Request,
    /// DHCPINFORM: the device configured its address itself (GW-17).
    Inform,
}

impl Source {
    /// All sources.
    pub const ALL: [Self; 2] = [Self::Request, Self::Inform];

    /// Name in JSON and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Inform => "inform",
        }
    }
}

/// Bit that distinguishes the numbers of [`RemovalReason`] from DHCP message types.
const BY_AGENT: u8 = 0x80;

/// Reason for the removal of a binding; the row is removed with its last binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RemovalReason {
    /// The client sent RELEASE (GW-10).
    Released,
    /// The lease expired (GW-9), or the server assigned the address to another client.
    Expired,
    /// The client sent DECLINE (T-7).
    Declined,
    /// The server sent NAK, and no ACK within the grace period (T-8).
    Refused,
    /// The device left the LAN (GW-11).
    Disconnected,
    /// The client has another identity now (T-11).
    IdentityChanged,
    /// The operator excluded the device from the table (GW-16).
    Denied,
}

impl RemovalReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Released,
        Self::Expired,
        Self::Declined,
        Self::Refused,
        Self::Disconnected,
        Self::IdentityChanged,
        Self::Denied,
    ];

    /// Value for [`LastAck::ended_by`], distinct from DHCP message types.
    pub const fn number(self) -> u8 {
        self as u8 | BY_AGENT
    }

    /// The reason for which the lease of `ack` ended; `None` while it is valid.
    pub fn of(ack: &LastAck) -> Option<Self> {
        match ack.ended_by {
            0 => None,
            number if number == MessageType::Decline as u8 => Some(Self::Declined),
            number if number & BY_AGENT != 0 => Self::ALL.get(usize::from(number ^ BY_AGENT)).copied(),
            _ => Some(Self::Released),
        }
    }

    /// Whether a client can cause a removal for this reason at any time.
    pub(super) const fn is_up_to_client(self) -> bool {
        matches!(self, Self::Released | Self::Declined | Self::Refused | Self::IdentityChanged)
    }

    /// Name in JSON and metrics.
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

/// A DHCP client of a device on the LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The client: its client identifier or hardware address, on one segment.
    pub client: ClientKey,
    /// The client's hardware address.
    pub mac: HardwareAddress,
    /// The client identifier (option 61); `None` if the client sends none.
    pub client_id: Option<Short>,
    /// Ethernet source of the last acknowledged request: the client's address, or that of a repeater or relay agent.
    /// `None` if it is unknown since a restart.
    pub sender: Option<[u8; 6]>,
    /// The client's IPv4 address.
    pub ip: Ipv4Addr,
    /// The type of the request that created the binding.
    pub source: Source,
    /// Time at which the lease expires; `None` for an infinite lease, or without a lease.
    pub lease_expires: Option<BootTime>,
    /// Server identifier of the lease, if the server sent it.
    pub server: Option<Ipv4Addr>,
    /// Whether the client is behind a relay agent (`giaddr` not 0). Only its lease shows whether it is present.
    pub relayed: bool,
    /// Time of the last ACK.
    pub last_seen: BootTime,
}

impl Binding {
    /// Whether the bindings differ only in times and in the Ethernet source of the request.
    pub(super) fn differs_in_time_only(&self, other: &Self) -> bool {
        let Self { client, mac, client_id, sender: _, ip, source, lease_expires: _, server, relayed, last_seen: _ } =
            self;
        (*client, *mac, client_id, *ip) == (other.client, other.mac, &other.client_id, other.ip)
            && (*source, *server, *relayed) == (other.source, other.server, other.relayed)
    }

    /// Interface and VLANs of the client.
    pub fn segment(&self) -> Segment {
        self.client.segment
    }

    /// The client's hardware address, if it can be reached by ARP: on Ethernet and not behind a relay agent.
    pub(super) fn station(&self) -> Option<[u8; 6]> {
        self.mac.as_bytes().try_into().ok().filter(|_| !self.relayed)
    }

    /// Whether the Ethernet source `sender` is that of the client's last acknowledged request. The hardware address in a
    /// DHCP message can be forged. Behind a relay agent the source is that of the relay, and any counts.
    pub(super) fn is_sent_by(&self, sender: [u8; 6]) -> bool {
        self.relayed || self.sender.map_or(self.mac == sender.into(), |known| known == sender)
    }

    /// The address whose ARP messages show that the client is present; `None` if ARP does not reach the client.
    pub fn neighbour(&self) -> Option<NeighbourKey> {
        self.station()?;
        Some(NeighbourKey { segment: self.segment(), address: self.ip.octets() })
    }
}

/// A row in the store (T-30).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Instance number.
    pub instance: u32,
    /// Identity of the device.
    pub identity: DeviceIdentity,
    /// Time of the ACK that created the row.
    pub first_seen: BootTime,
    /// Time of the last sign of life of any binding.
    pub last_seen: BootTime,
    /// The bindings, at least one, oldest first.
    pub bindings: Vec<Binding>,
}

/// A row of the ManageableDevice table.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// Instance number: increasing and never reused (T-32).
    pub instance: u32,
    /// Identity of the device.
    pub identity: &'a DeviceIdentity,
    /// Time of the ACK that created the row.
    pub first_seen: BootTime,
    /// Time of the last sign of life of any binding: an ACK, or a message of its station that the kernel recorded.
    pub last_seen: BootTime,
    /// The bindings, at least one, oldest first.
    pub bindings: super::table::Bindings<'a>,
}
