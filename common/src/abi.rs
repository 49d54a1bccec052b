//! What the programs, their pinned maps and the agent must agree on.

use crate::{
    config::{Config, Rate},
    event::Header,
    frame::PlainLoop,
    headers::Segment,
    insert::GatewayOption,
    stun::{USERNAME_MAXIMUM, username_hash},
    words::Words,
};

/// Changes with every change of a map's layout, of [`crate::event`], [`crate::config`] or [`crate::counter`].
pub const ABI: u32 = 7;

/// Bytes of the ring `EVENTS_LAN`: some 2,500 messages. The agent maps it twice, and all of it counts as resident.
pub const LAN_RING_BYTES: u32 = 1 << 20;
/// Exchanges that egress can find; the least recently used goes first.
pub const EXCHANGES_MAXIMUM: u32 = 65_536;
/// Clients with rows; the agent fills the map and never evicts.
pub const STICKY_MAXIMUM: u32 = 131_072;
/// Clients that identified themselves and have no row yet.
pub const NEWCOMERS_MAXIMUM: u32 = 4_096;
/// Clients whose last ACK is kept; the least recently used goes first.
pub const LAST_ACKS_MAXIMUM: u32 = 131_072;
/// Stations whose liveness is watched.
pub const NEIGHBOURS_MAXIMUM: u32 = 131_072;
/// Flows of Binding Requests that are known; the least recently used goes first.
pub const FLOWS_MAXIMUM: u32 = 65_536;
/// Interfaces whose last reply is noted; the least recently used goes first.
pub const REPLIES_MAXIMUM: u32 = 256;
/// Ports of LAN bridges: four bridges that are full (`BR_MAX_PORTS`).
pub const BRIDGE_PORTS_MAXIMUM: u32 = 4_096;
/// Sources of Connection Requests on the WAN whose budget is kept.
pub const WAN_BUDGETS_MAXIMUM: u32 = 16_384;
/// Hardware addresses, and Ethernet sources, whose budget is kept.
pub const BUDGETS_MAXIMUM: u32 = 16_384;
/// Places at which the line-rate path answers: interfaces by addresses by ports.
pub const LISTENERS_MAXIMUM: u32 = 1_024;
/// Addresses of this machine, and broadcast addresses of its networks, that the line-rate path knows.
pub const OWN_ADDRESSES_MAXIMUM: u32 = 4_096;
/// Bindings whose keep-alives the line-rate path answers; those beyond are left to the socket.
pub const BINDINGS_MAXIMUM: u32 = 1 << 20;

/// Names of maps, as the object file has them.
pub mod map {
    /// Ring of LAN events.
    pub const EVENTS_LAN: &str = "EVENTS_LAN";
    /// Per-CPU counters, by [`crate::counter::Counter::slot`].
    pub const COUNTERS: &str = "COUNTERS";
    /// One [`crate::config::Config`].
    pub const CONFIG: &str = "CONFIG";
    /// [`super::ExchangeKey`] to [`super::Mark`].
    pub const EXCHANGES: &str = "EXCHANGES";
    /// [`super::ClientKey`] to 1.
    pub const STICKY: &str = "STICKY";
    /// [`super::ClientKey`] to boot time.
    pub const NEWCOMERS: &str = "NEWCOMERS";
    /// [`super::ClientKey`] to [`super::LastAck`].
    pub const LAST_ACK: &str = "LAST_ACK";
    /// [`super::NeighbourKey`] to [`super::Neighbour`].
    pub const NEIGHBOURS: &str = "NEIGHBOURS";
    /// Two [`crate::insert::GatewayOption`], of which [`crate::config::Config::gateway_slot`] names the right one.
    pub const GATEWAY: &str = "GATEWAY";
    /// Hash over Ethernet source and hardware address of a DHCP client to [`super::Budget`]: what the agent is told.
    pub const BUDGETS: &str = "BUDGETS";
    /// Ethernet source to [`super::Budget`]: what the agent is told.
    pub const SOURCE_BUDGETS: &str = "SOURCE_BUDGETS";
    /// Ethernet source to [`super::Budget`]: what passes, where DHCP is policed.
    pub const DHCP_BUDGETS: &str = "DHCP_BUDGETS";
    /// IPv4 address to [`super::Budget`]: what passes, where Connection Requests are policed.
    pub const WAN_BUDGETS: &str = "WAN_BUDGETS";
    /// [`super::FlowKey`] to [`super::Flow`].
    pub const FLOWS: &str = "FLOWS";
    /// Kernel index of an interface to boot time in nanoseconds: the last reply of a marked exchange.
    pub const REPLIES: &str = "REPLIES";
    /// The same of a reply that a LAN bridge forwards from another server, where those do not count.
    pub const FOREIGN_REPLIES: &str = "FOREIGN_REPLIES";
    /// Kernel index of an interface to boot time in nanoseconds: the last DHCP datagrams that were merged and not told apart.
    pub const MERGED: &str = "MERGED";
    /// The program [`super::program::LAN_MERGED`].
    pub const TURNS: &str = "TURNS";
    /// Kernel index of a port of a LAN bridge to that of the bridge.
    pub const BRIDGE_PORTS: &str = "BRIDGE_PORTS";
    /// [`super::ListenerKey`] to the [`super::Endpoint`] that is its CHANGED-ADDRESS.
    pub const LISTENERS: &str = "LISTENERS";
    /// IPv4 addresses from which nobody else sends, this machine's own and broadcast addresses, to 1.
    pub const OWN_ADDRESSES: &str = "OWN_ADDRESSES";
    /// [`super::BindingKey`] to boot time in nanoseconds.
    pub const BINDINGS: &str = "BINDINGS";
}

/// Names of programs, as the object file has them.
pub mod program {
    /// XDP, LAN ingress.
    pub const LAN_INGRESS: &str = "lan_ingress";
    /// TC, LAN ingress: the same classifier where XDP cannot attach.
    pub const LAN_INGRESS_TC: &str = "lan_ingress_tc";
    /// TC, LAN ingress: merged datagrams. A tail call of [`LAN_INGRESS_TC`] leads to it.
    pub const LAN_MERGED: &str = "lan_merged";
    /// TC, LAN egress.
    pub const LAN_EGRESS: &str = "lan_egress";
    /// TC, egress of a port of a LAN bridge: what comes from another port.
    pub const LAN_PORT: &str = "lan_port";
    /// TC, LAN ingress: Binding Requests.
    pub const LAN_BINDING: &str = "lan_binding";
    /// XDP, WAN ingress.
    pub const WAN_INGRESS: &str = "wan_ingress";
    /// TC, WAN ingress: the same where XDP cannot attach.
    pub const WAN_INGRESS_TC: &str = "wan_ingress_tc";
    /// XDP, ACS: the line-rate path of the STUN server.
    pub const ACS_STUN: &str = "acs_stun";
}

/// One DHCP exchange, as requests and replies share it (RFC 2131 4.1: servers do not echo option 61).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeKey {
    /// Where it was seen.
    pub segment: Segment,
    /// Hardware address, zero behind its length.
    pub chaddr: Words<2>,
    /// Transaction.
    pub xid: u32,
    /// Hardware type.
    pub htype: u8,
    /// Always 0.
    pub reserved: [u8; 3],
}

/// A DHCP client on a segment: its hardware address with its client identifier, if it has one (RFC 2131 4.2). Neither alone
/// will do: boxes of one image may share an identifier, and one box may have several.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// Where it was seen.
    pub segment: Segment,
    /// [`crate::dhcp4::Hash`] over the client identifier and the hardware address.
    pub hash: u64,
    /// Bytes of the client identifier; 0 without one.
    pub client_id_length: u16,
    /// Hardware type.
    pub htype: u8,
    /// Always 0.
    pub reserved: [u8; 5],
}

/// Why an exchange is marked.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When the request was seen, boot time in nanoseconds.
    pub time: u64,
    /// The client gave an identity, now or before; else the message was undetermined and only the agent knows.
    pub identified: u8,
    /// Bytes of `identity`; 0 where the request's identity could not be kept.
    pub identity_length: u8,
    /// Largest message that the client takes (option 57), 0 if it did not say.
    pub maximum_size: u16,
    /// DHCP message type of the request.
    pub message_type: u8,
    /// DHCP message types of the replies to it that a port of the bridge forwarded, one bit each: a bridge floods a reply
    /// to several ports.
    pub answered: u8,
    /// Always 0.
    pub reserved: [u8; 2],
    /// The client.
    pub client: ClientKey,
    /// Ethernet source of the request.
    pub source: [u8; 6],
    /// Always 0.
    pub reserved_too: [u8; 2],
    /// The value of the request's option 125; what is behind its length has no meaning.
    pub identity: Words<IDENTITY_WORDS>,
}

/// Words of option 125 that a [`Mark`] and a [`LastAck`] keep: the longest Device Identity has 145 bytes.
pub const IDENTITY_WORDS: usize = 19;

/// How the last exchange of a client ended, so that the agent can reconcile after a ring loss or a restart (T-29).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAck {
    /// When the ACK, or what ended the lease, was seen, boot time in nanoseconds.
    pub time: u64,
    /// Lease in seconds as it stands; 0 without option 51.
    pub lease: u32,
    /// The address: `yiaddr`, or `ciaddr` in the answer to INFORM.
    pub address: [u8; 4],
    /// Server identifier, 0 without option 54.
    pub server: [u8; 4],
    /// The relay's address, 0 without a relay.
    pub giaddr: [u8; 4],
    /// Hardware address.
    pub chaddr: Words<2>,
    /// Hardware type.
    pub htype: u8,
    /// Hardware address length.
    pub hlen: u8,
    /// DHCP message type of the request.
    pub message_type: u8,
    /// Bytes of `identity`.
    pub identity_length: u8,
    /// Ethernet source of the request.
    pub source: [u8; 6],
    /// DHCP message type of the RELEASE or DECLINE that ended the lease; 0 while it runs.
    pub ended_by: u8,
    /// Always 0.
    pub reserved: [u8; 5],
    /// The value of the request's option 125; what is behind its length has no meaning.
    pub identity: Words<IDENTITY_WORDS>,
}

/// An IPv4 address on a segment from which ARP messages are noted (T-6).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourKey {
    /// Where it was seen.
    pub segment: Segment,
    /// Sender protocol address.
    pub address: [u8; 4],
}

/// The last ARP message from an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// When it was seen, boot time in nanoseconds.
    pub seen: u64,
    /// Its sender hardware address, which is a repeater's where the station is behind one; 0 before the first message.
    pub mac: [u8; 6],
    /// Always 0.
    pub reserved: [u8; 2],
}

/// A UDP flow from a LAN host to a STUN server, as it comes in on the LAN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Where it was seen.
    pub segment: Segment,
    /// Address of the host.
    pub source: [u8; 4],
    /// Address of the server.
    pub destination: [u8; 4],
    /// Port of the host.
    pub source_port: u16,
    /// Port of the server.
    pub destination_port: u16,
}

/// What is known of a flow that carries CONNECTION-REQUEST-BINDING (TR-111 2.2.1.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// When its last Binding Request was seen, boot time in nanoseconds.
    pub seen: u64,
    /// When the agent was last told, boot time in nanoseconds.
    pub told: u64,
}

/// How often the agent is told of a flow that goes on as it was: every 30 s.
pub const FLOW_SAMPLE_NANOSECONDS: u64 = 30_000_000_000;

/// What a sender may still send: a token bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Boot time in nanoseconds at which `left` was right.
    pub time: u64,
    /// Messages left.
    pub left: u32,
    /// Always 0.
    pub reserved: u32,
}

/// An IPv4 address with a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: [u8; 4],
    /// The port, in the order of this machine.
    pub port: u16,
    /// Always 0.
    pub reserved: u16,
}

impl Endpoint {
    /// `address` with `port`.
    #[inline(always)]
    pub const fn new(address: [u8; 4], port: u16) -> Self {
        Self { address, port, reserved: 0 }
    }
}

/// A frame that is for the STUN server, by all that says whom a frame is for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// Kernel index of the interface that it came in by.
    pub ifindex: u32,
    /// Its Ethernet destination, the address of that interface.
    pub mac: [u8; 6],
    /// Its destination port.
    pub port: u16,
    /// Its destination address.
    pub address: [u8; 4],
}

/// A registered binding: the name in a CPE's Binding Requests, their source, and where they go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BindingKey {
    /// [`crate::stun::username_hash`] over USERNAME.
    pub username: u64,
    /// Source of the requests.
    pub source: Endpoint,
    /// Their destination, from where Connection Requests have to come (UCR-20).
    pub server: Endpoint,
}

impl BindingKey {
    /// The key of the CPE with this name: requests have it padded with spaces to a multiple of four bytes (T-37). `None`
    /// where the name is longer than any STUNUsername.
    pub fn new(name: &[u8], source: Endpoint, server: Endpoint, seed: u64) -> Option<Self> {
        let mut padded = [b' '; USERNAME_MAXIMUM as usize];
        padded.get_mut(..name.len())?.copy_from_slice(name);
        let length = name.len().next_multiple_of(4) as u32;
        Some(Self { username: username_hash(padded.as_slice(), 0, length, seed, PlainLoop), source, server })
    }
}

/// Asserts where each field of a type lies, how large the type is and how it is aligned: the compilers of the kernel
/// programs and of every host have to agree.
macro_rules! layout {
    ($($name:ident { $($field:ident $offset:literal,)* } $size:literal aligned $alignment:literal;)*) => {
        const _: () = {
            $(
                $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
                assert!(size_of::<$name>() == $size && align_of::<$name>() == $alignment);
            )*
        };
    };
}

layout! {
    Segment { ifindex 0, vlan 4, } 8 aligned 4;
    ExchangeKey { segment 0, chaddr 8, xid 24, htype 28, reserved 29, } 32 aligned 8;
    ClientKey { segment 0, hash 8, client_id_length 16, htype 18, reserved 19, } 24 aligned 8;
    Mark {
        time 0, identified 8, identity_length 9, maximum_size 10, message_type 12, answered 13, reserved 14, client 16,
        source 40,
        reserved_too 46, identity 48,
    } 200 aligned 8;
    LastAck {
        time 0, lease 8, address 12, server 16, giaddr 20, chaddr 24, htype 40, hlen 41, message_type 42,
        identity_length 43, source 44, ended_by 50, reserved 51, identity 56,
    } 208 aligned 8;
    NeighbourKey { segment 0, address 8, } 12 aligned 4;
    Neighbour { seen 0, mac 8, reserved 14, } 16 aligned 8;
    FlowKey { segment 0, source 8, destination 12, source_port 16, destination_port 18, } 20 aligned 4;
    Flow { seen 0, told 8, } 16 aligned 8;
    Budget { time 0, left 8, reserved 12, } 16 aligned 8;
    Endpoint { address 0, port 4, reserved 6, } 8 aligned 2;
    ListenerKey { ifindex 0, mac 4, port 10, address 12, } 16 aligned 4;
    BindingKey { username 0, source 8, server 16, } 24 aligned 8;
    Config {
        seed 0, budget 8, dialect 24, lenient_oui 25, gateway_slot 26, accept_foreign_server 27, reserved 28, enterprises 32, stun_ports 48,
        mark 64, mark_mask 68, wan_connreq_interval 72, lan_dhcp_interval 80, relay_budget 88,
    } 104 aligned 8;
    Rate { interval 0, burst 8, reserved 12, } 16 aligned 8;
    GatewayOption { option 0, length 152, reserved 156, } 160 aligned 8;
    Header { time 0, segment 8, captured 16, metadata_tag 20, class 24, hook 25, reserved 26, } 32 aligned 8;
}
