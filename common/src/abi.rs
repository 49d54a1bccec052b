//! The binary interface between the kernel programs, their pinned maps and the agent: map names, program names, map
//! sizes and the layout of keys and values.
//!
//! Times are `CLOCK_BOOTTIME` in nanoseconds (`bpf_ktime_get_boot_ns`). Ports and lengths are in host byte order,
//! addresses in network byte order.

use crate::{
    config::{Config, Rate},
    event::Header,
    frame::PlainLoop,
    headers::Segment,
    insert::GatewayOption,
    stun::{USERNAME_MAXIMUM, username_hash},
    words::Words,
};

/// Version of this interface. Increase it with every change to a map's layout, to [`crate::event`], to
/// [`crate::config`] or to [`crate::counter`].
pub const ABI: u32 = 7;

/// Size of the ring `EVENTS_LAN` in bytes: about 2,500 DHCP messages. The agent maps the ring twice, and both mappings
/// count as resident memory.
pub const LAN_RING_BYTES: u32 = 1 << 20;
/// Capacity of `EXCHANGES`. The least recently used exchange is evicted first.
pub const EXCHANGES_MAXIMUM: u32 = 65_536;
/// Capacity of `STICKY`, the clients that have a row in the table. The agent fills the map; nothing is evicted.
pub const STICKY_MAXIMUM: u32 = 131_072;
/// Capacity of `NEWCOMERS`, the clients that identified themselves and have no row yet.
pub const NEWCOMERS_MAXIMUM: u32 = 4_096;
/// Capacity of `LAST_ACK`. The least recently used client is evicted first.
pub const LAST_ACKS_MAXIMUM: u32 = 131_072;
/// Capacity of `NEIGHBOURS`, the stations whose liveness is tracked.
pub const NEIGHBOURS_MAXIMUM: u32 = 131_072;
/// Capacity of `FLOWS`. The least recently used flow is evicted first.
pub const FLOWS_MAXIMUM: u32 = 65_536;
/// Capacity of `REPLIES`, `FOREIGN_REPLIES` and `MERGED`, in interfaces. The least recently used one is evicted first.
pub const REPLIES_MAXIMUM: u32 = 256;
/// Capacity of `BRIDGE_PORTS`: four LAN bridges with the kernel's maximum of ports each (`BR_MAX_PORTS`).
pub const BRIDGE_PORTS_MAXIMUM: u32 = 4_096;
/// Capacity of `WAN_BUDGETS`, in IPv4 source addresses.
pub const WAN_BUDGETS_MAXIMUM: u32 = 16_384;
/// Capacity of `BUDGETS`, `SOURCE_BUDGETS` and `DHCP_BUDGETS` each.
pub const BUDGETS_MAXIMUM: u32 = 16_384;
/// Capacity of `LISTENERS`: combinations of interface, address and port at which the line-rate path answers.
pub const LISTENERS_MAXIMUM: u32 = 1_024;
/// Capacity of `OWN_ADDRESSES`: this machine's addresses and the broadcast addresses of its networks.
pub const OWN_ADDRESSES_MAXIMUM: u32 = 4_096;
/// Capacity of `BINDINGS`. Keep-alives of further bindings are left to the socket.
pub const BINDINGS_MAXIMUM: u32 = 1 << 20;

/// Names of the maps in the object file.
pub mod map {
    /// Ring buffer: events from LAN interfaces.
    pub const EVENTS_LAN: &str = "EVENTS_LAN";
    /// Per-CPU array: counters, indexed by [`crate::counter::Counter::slot`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of one [`crate::config::Config`].
    pub const CONFIG: &str = "CONFIG";
    /// LRU hash: [`super::ExchangeKey`] to [`super::Mark`].
    pub const EXCHANGES: &str = "EXCHANGES";
    /// Hash: [`super::ClientKey`] to the constant 1.
    pub const STICKY: &str = "STICKY";
    /// Array of newcomers, indexed by a hash over their [`super::ClientKey`], each with the boot time of its last
    /// message.
    pub const NEWCOMERS: &str = "NEWCOMERS";
    /// LRU hash: [`super::ClientKey`] to [`super::LastAck`].
    pub const LAST_ACK: &str = "LAST_ACK";
    /// Hash: [`super::NeighbourKey`] to [`super::Neighbour`].
    pub const NEIGHBOURS: &str = "NEIGHBOURS";
    /// Array of two [`crate::insert::GatewayOption`]. [`crate::config::Config::gateway_slot`] selects the current one.
    pub const GATEWAY: &str = "GATEWAY";
    /// LRU hash: hash over Ethernet source and hardware address of a DHCP client to [`super::Budget`]. Limits the
    /// events that the agent receives.
    pub const BUDGETS: &str = "BUDGETS";
    /// LRU hash: Ethernet source to [`super::Budget`]. Limits the events that the agent receives.
    pub const SOURCE_BUDGETS: &str = "SOURCE_BUDGETS";
    /// LRU hash: Ethernet source to [`super::Budget`]. Limits forwarded DHCP messages where DHCP is policed.
    pub const DHCP_BUDGETS: &str = "DHCP_BUDGETS";
    /// LRU hash: IPv4 source to [`super::Budget`]. Limits forwarded Connection Requests where these are policed.
    pub const WAN_BUDGETS: &str = "WAN_BUDGETS";
    /// LRU hash: [`super::FlowKey`] to [`super::Flow`].
    pub const FLOWS: &str = "FLOWS";
    /// LRU hash: interface index to the boot time of the last reply of a marked exchange.
    pub const REPLIES: &str = "REPLIES";
    /// LRU hash: interface index of a LAN bridge to the boot time of the last reply that the bridge forwarded from
    /// another DHCP server while such replies are not accepted.
    pub const FOREIGN_REPLIES: &str = "FOREIGN_REPLIES";
    /// LRU hash: interface index to the boot time of the last merged (GRO) DHCP datagrams that could not be separated.
    pub const MERGED: &str = "MERGED";
    /// Program array: [`super::program::LAN_MERGED`], for tail calls.
    pub const TURNS: &str = "TURNS";
    /// Hash: interface index of a port to the interface index of its LAN bridge.
    pub const BRIDGE_PORTS: &str = "BRIDGE_PORTS";
    /// Hash: [`super::ListenerKey`] to the [`super::Endpoint`] that the server reports as CHANGED-ADDRESS.
    pub const LISTENERS: &str = "LISTENERS";
    /// Hash: IPv4 addresses that no other machine uses as a source (this machine's own and broadcast addresses) to the
    /// constant 1.
    pub const OWN_ADDRESSES: &str = "OWN_ADDRESSES";
    /// Hash: [`super::BindingKey`] to the boot time of the last keep-alive.
    pub const BINDINGS: &str = "BINDINGS";
}

/// Names of the programs in the object file.
pub mod program {
    /// XDP on LAN interfaces, ingress: DHCP requests and ARP.
    pub const LAN_INGRESS: &str = "lan_ingress";
    /// TC on LAN interfaces, ingress: the same classifier, for interfaces that do not take XDP.
    pub const LAN_INGRESS_TC: &str = "lan_ingress_tc";
    /// TC on LAN interfaces, ingress: merged (GRO) datagrams. Reached by a tail call from [`LAN_INGRESS_TC`].
    pub const LAN_MERGED: &str = "lan_merged";
    /// TC on LAN interfaces, egress: DHCP replies.
    pub const LAN_EGRESS: &str = "lan_egress";
    /// TC on ports of a LAN bridge, egress: DHCP messages that the bridge forwards from another port.
    pub const LAN_PORT: &str = "lan_port";
    /// TC on LAN interfaces, ingress: STUN Binding Requests.
    pub const LAN_BINDING: &str = "lan_binding";
    /// XDP on WAN interfaces, ingress: Connection Requests and STUN responses.
    pub const WAN_INGRESS: &str = "wan_ingress";
    /// TC on WAN interfaces, ingress: the same classifier, for interfaces that do not take XDP.
    pub const WAN_INGRESS_TC: &str = "wan_ingress_tc";
    /// XDP on an ACS's interfaces: the line-rate path of the STUN server.
    pub const ACS_STUN: &str = "acs_stun";
}

/// Identifies a DHCP exchange. Request and reply give the same key; option 61 is not part of it, because servers do not
/// echo that option (RFC 2131 4.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeKey {
    /// Interface and VLANs of the exchange.
    pub segment: Segment,
    /// Client hardware address, zero-padded.
    pub chaddr: Words<2>,
    /// Transaction identifier, as on the wire.
    pub xid: u32,
    /// Hardware type, as on the wire.
    pub htype: u8,
    /// Always 0.
    pub reserved: [u8; 3],
}

/// Identifies a DHCP client on a segment: its hardware address together with its client identifier, if it sends one
/// (RFC 2131 4.2). Neither is unique alone: devices with the same firmware image may share a client identifier, and one
/// device may use several.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// Interface and VLANs of the client.
    pub segment: Segment,
    /// [`crate::dhcp4::Hash`] over client identifier and hardware address.
    pub hash: u64,
    /// Length of the client identifier in bytes; 0 if the client sent none.
    pub client_id_length: u16,
    /// Hardware type, as on the wire.
    pub htype: u8,
    /// Always 0.
    pub reserved: [u8; 5],
}

/// The record of a marked exchange: what the programs know about its request when the reply arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Boot time of the request.
    pub time: u64,
    /// 1 if the client gave an identity, in this request or before. 0 if the request could not be parsed here (a
    /// fragment): then only the agent can tell.
    pub identified: u8,
    /// Length of `identity` in bytes; 0 if the request's identity could not be stored.
    pub identity_length: u8,
    /// Largest DHCP message that the client accepts, in bytes (option 57); 0 if the client did not say.
    pub maximum_size: u16,
    /// DHCP message type of the request.
    pub message_type: u8,
    /// DHCP message types of the replies that a port of the bridge has already forwarded, one bit each. A bridge floods
    /// a reply to several ports, and only the first copy counts.
    pub answered: u8,
    /// Always 0.
    pub reserved: [u8; 2],
    /// The client that sent the request.
    pub client: ClientKey,
    /// Ethernet source address of the request.
    pub source: [u8; 6],
    /// Always 0.
    pub reserved_too: [u8; 2],
    /// Value of the request's option 125; bytes beyond `identity_length` are undefined.
    pub identity: Words<IDENTITY_WORDS>,
}

/// Words reserved for option 125 in a [`Mark`] and a [`LastAck`]; the longest Device Identity has 145 bytes.
pub const IDENTITY_WORDS: usize = 19;

/// The last DHCPACK of a client, and whether its lease has ended since. The agent reads it to rebuild its table after a
/// restart or after the ring lost events (T-29).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastAck {
    /// Boot time of the ACK, or of the message that ended the lease.
    pub time: u64,
    /// Lease time in seconds, as in the ACK; 0 without option 51.
    pub lease: u32,
    /// The client's address: `yiaddr`, or `ciaddr` in the reply to an INFORM.
    pub address: [u8; 4],
    /// Server identifier; 0.0.0.0 without option 54.
    pub server: [u8; 4],
    /// Address of the relay agent; 0.0.0.0 if the exchange was not relayed.
    pub giaddr: [u8; 4],
    /// Client hardware address, zero-padded.
    pub chaddr: Words<2>,
    /// Hardware type, as on the wire.
    pub htype: u8,
    /// Hardware address length in bytes.
    pub hlen: u8,
    /// DHCP message type of the request that the ACK answers.
    pub message_type: u8,
    /// Length of `identity` in bytes.
    pub identity_length: u8,
    /// Ethernet source address of the request.
    pub source: [u8; 6],
    /// DHCP message type of the RELEASE or DECLINE that ended the lease; 0 while no such message was seen.
    pub ended_by: u8,
    /// Always 0.
    pub reserved: [u8; 5],
    /// Value of the request's option 125; bytes beyond `identity_length` are undefined.
    pub identity: Words<IDENTITY_WORDS>,
}

/// An IPv4 address on a segment whose ARP messages are recorded (T-6).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourKey {
    /// Interface and VLANs of the station.
    pub segment: Segment,
    /// Sender protocol address of the ARP messages.
    pub address: [u8; 4],
}

/// The last ARP message from a recorded address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// Boot time of the message.
    pub seen: u64,
    /// Sender hardware address of the message; the address of a repeater if the station is behind one. All zero before
    /// the first message.
    pub mac: [u8; 6],
    /// Always 0.
    pub reserved: [u8; 2],
}

/// A UDP flow from a LAN host to a STUN server, with the addresses before source NAT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Interface and VLANs of the host.
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

/// State of a flow that carries CONNECTION-REQUEST-BINDING (TR-111 2.2.1.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Boot time of the last Binding Request.
    pub seen: u64,
    /// Boot time of the last event about this flow.
    pub told: u64,
}

/// Interval at which the agent receives an event about an unchanged flow: 30 s.
pub const FLOW_SAMPLE_NANOSECONDS: u64 = 30_000_000_000;

/// State of a token bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Boot time at which `left` was computed.
    pub time: u64,
    /// Messages that the sender may still send.
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
    /// The port, in host byte order.
    pub port: u16,
    /// Always 0.
    pub reserved: u16,
}

impl Endpoint {
    /// The endpoint of `address` and `port`.
    #[inline(always)]
    pub const fn new(address: [u8; 4], port: u16) -> Self {
        Self { address, port, reserved: 0 }
    }
}

/// Identifies a place at which the STUN server listens, by every field of a frame that says whom the frame is for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// Kernel index of the ingress interface.
    pub ifindex: u32,
    /// Ethernet destination address, which is the address of that interface.
    pub mac: [u8; 6],
    /// UDP destination port, in host byte order.
    pub port: u16,
    /// IPv4 destination address.
    pub address: [u8; 4],
}

/// A registered binding: USERNAME, source and destination of a CPE's Binding Requests.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BindingKey {
    /// [`crate::stun::username_hash`] over the padded USERNAME.
    pub username: u64,
    /// Source of the requests, as this server sees it.
    pub source: Endpoint,
    /// Destination of the requests. Connection Requests have to be sent from this endpoint (UCR-20).
    pub server: Endpoint,
}

impl BindingKey {
    /// The key for the CPE with the username `name`. Requests carry the name padded with spaces to a multiple of four
    /// bytes (T-37). `None` if `name` is longer than the longest STUNUsername.
    pub fn new(name: &[u8], source: Endpoint, server: Endpoint, seed: u64) -> Option<Self> {
        let mut padded = [b' '; USERNAME_MAXIMUM as usize];
        padded.get_mut(..name.len())?.copy_from_slice(name);
        let length = name.len().next_multiple_of(4) as u32;
        Some(Self { username: username_hash(padded.as_slice(), 0, length, seed, PlainLoop), source, server })
    }
}

/// Asserts the size, the alignment and the field offsets of a type at compile time. The compilers of the kernel
/// programs and of all hosts have to agree on them.
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
