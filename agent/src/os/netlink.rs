//! Netlink: interfaces, addresses and routes (`NETLINK_ROUTE`, rtnetlink(7)), and tracked flows (`NETLINK_NETFILTER`).
//!
//! The crate `netlink-proto` implements the protocol. A message is a header and attributes; this module reads only the
//! attributes that the agent needs. The crates that model every message and attribute would add a tenth to the size of
//! a small binary.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Nla, NlasIterator,
};
use netlink_proto::{
    ConnectionHandle, new_connection,
    sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols},
};
use tokio::time::timeout;

use crate::essential;

/// How long the kernel may take over an answer: one that its socket had no room for never comes.
const ANSWER: Duration = Duration::from_secs(5);

/// Message types (linux/rtnetlink.h).
mod rtm {
    pub(super) const NEWLINK: u16 = 16;
    pub(super) const DELLINK: u16 = 17;
    pub(super) const GETLINK: u16 = 18;
    pub(super) const NEWADDR: u16 = 20;
    pub(super) const DELADDR: u16 = 21;
    pub(super) const GETADDR: u16 = 22;
    pub(super) const NEWROUTE: u16 = 24;
    pub(super) const GETROUTE: u16 = 26;
    pub(super) const NEWNEIGH: u16 = 28;
    pub(super) const GETNEIGH: u16 = 30;
    pub(super) const NEWTFILTER: u16 = 44;
    pub(super) const GETTFILTER: u16 = 46;
}

/// States of neighbour entries (`linux/neighbour.h`) with a hardware address that was confirmed once. Incomplete and
/// failed entries have a confirmation time too, but it is not a real one.
const NUD_CONFIRMED: u16 = 0x02 | 0x04 | 0x08 | 0x10;
/// Unit of the times of neighbour entries, `USER_HZ`: 100 per second on all architectures in use.
const TICK: Duration = Duration::from_millis(10);

/// Attributes of links, addresses, routes, neighbours and filters (`linux/if_link.h`, `linux/if_addr.h`,
/// `linux/rtnetlink.h`, `linux/neighbour.h`, `linux/pkt_cls.h`).
mod attribute {
    pub(super) const IFLA_ADDRESS: u16 = 1;
    pub(super) const IFLA_IFNAME: u16 = 3;
    pub(super) const IFLA_MASTER: u16 = 10;
    pub(super) const IFLA_LINKINFO: u16 = 18;
    pub(super) const IFLA_INFO_KIND: u16 = 1;
    pub(super) const IFLA_XDP: u16 = 43;
    pub(super) const IFLA_XDP_ATTACHED: u16 = 2;
    pub(super) const IFLA_XDP_PROG_ID: u16 = 4;
    pub(super) const IFA_ADDRESS: u16 = 1;
    pub(super) const IFA_LOCAL: u16 = 2;
    pub(super) const RTA_OIF: u16 = 4;
    pub(super) const RTA_GATEWAY: u16 = 5;
    pub(super) const RTA_PRIORITY: u16 = 6;
    pub(super) const RTA_PREFSRC: u16 = 7;
    pub(super) const TCA_KIND: u16 = 1;
    pub(super) const TCA_OPTIONS: u16 = 2;
    pub(super) const TCA_BPF_NAME: u16 = 7;
    pub(super) const NDA_DST: u16 = 1;
    pub(super) const NDA_CACHEINFO: u16 = 3;
    /// Flag of an attribute that contains attributes.
    pub(super) const NESTED: u16 = 1 << 15;
    pub(super) const TYPE: u16 = 0x3fff;
}

/// Message type and attributes of the connection tracker (`linux/netfilter/nfnetlink_conntrack.h`).
mod conntrack {
    /// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`
    pub(super) const GET: u16 = 0x101;
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const TIMEOUT: u16 = 7;
    pub(super) const COUNTERS_ORIG: u16 = 9;
    pub(super) const FILTER: u16 = 25;
    pub(super) const COUNTERS_PACKETS: u16 = 1;
    pub(super) const FILTER_ORIG_FLAGS: u16 = 1;
    /// Bit of `FILTER_ORIG_FLAGS` for `IP_V4_SRC`.
    pub(super) const FILTER_IP_SRC: u32 = 1;
    pub(super) const TUPLE_IP: u16 = 1;
    pub(super) const TUPLE_PROTO: u16 = 2;
    pub(super) const IP_V4_SRC: u16 = 1;
    pub(super) const IP_V4_DST: u16 = 2;
    pub(super) const PROTO_NUM: u16 = 1;
    pub(super) const PROTO_SRC_PORT: u16 = 2;
    pub(super) const PROTO_DST_PORT: u16 = 3;
}

const AF_UNSPEC: u8 = libc::AF_UNSPEC as u8;
const AF_INET: u8 = libc::AF_INET as u8;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` of `linux/pkt_sched.h`.
const CLSACT_INGRESS: u32 = 0xffff_fff2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)`
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// Multicast groups of rtnetlink.
const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ADDRESS: u32 = 5;
const GROUP_IPV4_ROUTE: u32 = 7;
const ROUTE_TABLE_MAIN: u8 = 254;
const ROUTE_PROTOCOL_DHCP: u8 = 16;
const ROUTE_UNICAST: u8 = 1;
const SCOPE_UNIVERSE: u8 = 0;

/// A message: its type, the header of that type, and its attributes.
#[derive(Clone, Debug)]
struct Message {
    kind: u16,
    header: Vec<u8>,
    attributes: Vec<DefaultNla>,
}

impl Message {
    fn new(kind: u16, header: impl Into<Vec<u8>>) -> Self {
        Self { kind, header: header.into(), attributes: Vec::new() }
    }

    fn with(mut self, kind: u16, value: impl Into<Vec<u8>>) -> Self {
        self.attributes.push(DefaultNla::new(kind, value.into()));
        self
    }

    fn value(&self, kind: u16) -> Option<Vec<u8>> {
        let mut attributes = self.attributes.iter();
        attributes.find(|attribute| attribute.kind() & attribute::TYPE == kind).map(value_of)
    }

    fn number(&self, kind: u16) -> Option<u32> {
        self.value(kind).and_then(|value| Some(u32::from_ne_bytes(value.try_into().ok()?)))
    }

    fn address(&self, kind: u16) -> Option<Ipv4Addr> {
        self.value(kind).and_then(|value| Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)))
    }

    /// A number in the header, in host byte order.
    fn header_number(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.header.get(at..)?.first_chunk()?))
    }
}

fn value_of(attribute: &DefaultNla) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}

/// The attributes that the value of an attribute contains.
fn nested(value: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(value).flatten().map(|attribute| {
        let length = attribute.value_length();
        (attribute.kind() & attribute::TYPE, attribute.into_inner().get(4..4 + length).unwrap_or_default())
    })
}

/// The value of one of the attributes that the value of an attribute contains.
fn nested_value(value: &[u8], kind: u16) -> Option<&[u8]> {
    nested(value).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Encodes attributes as the value of an attribute.
fn nest(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let attributes: Vec<_> = attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.to_vec())).collect();
    let mut value = vec![0; attributes.as_slice().buffer_len()];
    attributes.as_slice().emit(&mut value);
    value
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.header.len() + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(self.header.len());
        header.copy_from_slice(&self.header);
        self.attributes.as_slice().emit(attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let kind = header.message_type;
        // sizeof(struct ifinfomsg), ifaddrmsg, rtmsg, ndmsg, tcmsg, nfgenmsg.
        let length = match kind {
            rtm::NEWLINK..=19 => 16,
            rtm::NEWADDR..=23 => 8,
            rtm::NEWROUTE..=27 | rtm::NEWNEIGH..=31 => 12,
            rtm::NEWTFILTER..=47 => 20,
            _ => 4,
        };
        let (header, attributes) = payload.split_at(length.min(payload.len()));
        let attributes = NlasIterator::new(attributes).map(|attribute| {
            let attribute = attribute?;
            Ok(DefaultNla::new(attribute.kind(), attribute.value().to_vec()))
        });
        Ok(Self { kind, header: header.to_vec(), attributes: attributes.collect::<Result<_, DecodeError>>()? })
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; `None` if the interface has none.
    pub mac: Option<[u8; 6]>,
    /// Whether the interface is up and has a carrier.
    pub is_up: bool,
    /// Whether the interface is a Linux bridge.
    pub is_bridge: bool,
    /// Kernel index of the bridge, bond or other device that the interface belongs to.
    pub master: Option<u32>,
    /// The attached XDP program.
    pub xdp: Option<AttachedXdp>,
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// `driver`, `generic`, `hardware`, or `multi` for several at once.
    pub mode: &'static str,
    /// Kernel id of the program; `None` if there are several.
    pub program: Option<u32>,
}

impl Link {
    fn read(message: &Message) -> Option<Self> {
        let name = message.value(attribute::IFLA_IFNAME)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let flags = message.header_number(8)?;
        let needed = (libc::IFF_UP | libc::IFF_LOWER_UP).cast_unsigned();
        Some(Self {
            ifindex: message.header_number(4)?,
            name: String::from_utf8_lossy(name).into_owned(),
            mac: message.value(attribute::IFLA_ADDRESS).and_then(|address| address.try_into().ok()),
            is_up: flags & needed == needed,
            is_bridge: message.value(attribute::IFLA_LINKINFO).is_some_and(|info| {
                nested_value(&info, attribute::IFLA_INFO_KIND).is_some_and(|kind| kind.starts_with(b"bridge\0"))
            }),
            master: message.number(attribute::IFLA_MASTER),
            xdp: message.value(attribute::IFLA_XDP).and_then(|value| AttachedXdp::read(&value)),
        })
    }
}

impl AttachedXdp {
    fn read(value: &[u8]) -> Option<Self> {
        let mode = match nested_value(value, attribute::IFLA_XDP_ATTACHED)? {
            [1] => "driver",
            [2] => "generic",
            [3] => "hardware",
            [4] => "multi",
            _ => return None,
        };
        let program = nested_value(value, attribute::IFLA_XDP_PROG_ID);
        Some(Self { mode, program: program.and_then(|id| Some(u32::from_ne_bytes(id.try_into().ok()?))) })
    }
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the network prefix in bits.
    pub prefix_length: u8,
    /// Whether the address has global scope.
    pub is_global: bool,
}

impl Address {
    fn read(message: &Message) -> Option<Self> {
        let scope = *message.header.get(3)?;
        // On a point-to-point link IFA_ADDRESS is the peer's address and IFA_LOCAL the local one.
        let address = message.address(attribute::IFA_LOCAL)?;
        let prefix_length = *message.header.get(1)?;
        Some(Self { ifindex: message.header_number(4)?, address, prefix_length, is_global: scope == SCOPE_UNIVERSE })
    }

    /// The two broadcast addresses of the network: all host bits zero and all host bits one (RFC 1122 3.2.1.3). `None`
    /// for prefixes of 31 and 32 bits, which have none.
    pub fn broadcasts(&self) -> Option<[Ipv4Addr; 2]> {
        let hosts = u32::MAX.checked_shr(self.prefix_length.into()).filter(|hosts| *hosts > 1)?;
        let address = u32::from(self.address);
        Some([address & !hosts, address | hosts].map(Ipv4Addr::from))
    }
}

/// A filter of an interface's `clsact` qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Handle.
    pub handle: u32,
    /// Name of the BPF program; for other filters, their kind.
    pub name: String,
}

impl Filter {
    /// Returns `None` for entries that are not filters: the head of a priority, with handle 0, and hash tables of the
    /// kind `u32`.
    fn read(message: &Message) -> Option<Self> {
        const IN_TABLE: u32 = 0xf_ffff;
        let handle = message.header_number(8).filter(|handle| *handle != 0)?;
        let kind = message.value(attribute::TCA_KIND)?;
        if kind.starts_with(b"u32\0") && handle & IN_TABLE == 0 {
            return None;
        }
        let options = message.value(attribute::TCA_OPTIONS).unwrap_or_default();
        let program = nested_value(&options, attribute::TCA_BPF_NAME).filter(|_| kind.starts_with(b"bpf\0"));
        let name = program.unwrap_or(&kind);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Self { handle, name: String::from_utf8_lossy(name).into_owned() })
    }
}

/// A change that the kernel announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The new state of an interface.
    Link(Link),
    /// An interface was removed.
    LinkGone {
        /// Kernel index of the removed interface.
        ifindex: u32,
    },
    /// Another change, or messages were lost. Everything must be read again.
    Other,
}

impl Notice {
    /// Returns `None` for messages of a bridge about its ports: a port that leaves the bridge is not removed.
    fn read(message: NetlinkMessage<Message>) -> Option<Self> {
        let NetlinkPayload::InnerMessage(message) = message.payload else { return Some(Self::Other) };
        match message.kind {
            rtm::NEWLINK | rtm::DELLINK if message.header.first() != Some(&AF_UNSPEC) => None,
            rtm::DELLINK => Some(Self::LinkGone { ifindex: message.header_number(4)? }),
            rtm::NEWLINK => Link::read(&message).map(Self::Link),
            _ => Some(Self::Other),
        }
    }
}

/// A tracked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Destination of replies: the address and port that the NAT assigned to the flow.
    pub mapped: SocketAddrV4,
    /// Time until the flow expires if no packet arrives.
    pub left: Duration,
}

impl Flow {
    fn read(message: &Message) -> Option<Self> {
        let reply = message.value(conntrack::TUPLE_REPLY)?;
        let address = nested_value(nested_value(&reply, conntrack::TUPLE_IP)?, conntrack::IP_V4_DST)?;
        let port = nested_value(nested_value(&reply, conntrack::TUPLE_PROTO)?, conntrack::PROTO_DST_PORT)?;
        let left = message.value(conntrack::TIMEOUT)?;
        let mapped = SocketAddrV4::new(
            <[u8; 4]>::try_from(address).ok()?.into(),
            u16::from_be_bytes(<[u8; 2]>::try_from(port).ok()?),
        );
        Some(Self { mapped, left: Duration::from_secs(u32::from_be_bytes(left.try_into().ok()?).into()) })
    }
}

/// A netlink socket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: ConnectionHandle<Message>,
}

impl Netlink {
    /// Opens a socket for interfaces, addresses and routes. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn route() -> io::Result<Self> {
        let (connection, handle, _) = new_connection::<Message>(protocols::NETLINK_ROUTE)?;
        essential::task("netlink", connection);
        Ok(Self { handle })
    }

    /// Opens a socket like [`Self::route`], with a stream of changes of interfaces and IPv4 addresses, and with
    /// `routes` also of IPv4 routes. The stream ends when the socket is closed.
    ///
    /// # Errors
    /// The socket cannot be opened, or cannot join a multicast group.
    pub fn watch(routes: bool) -> io::Result<(Self, impl Stream<Item = Notice> + Unpin + Send + 'static)> {
        let (mut connection, handle, messages) = new_connection::<Message>(protocols::NETLINK_ROUTE)?;
        let socket = connection.socket_mut().socket_mut();
        socket.bind(&SocketAddr::new(0, 0))?;
        let groups = [GROUP_LINK, GROUP_IPV4_ADDRESS].into_iter().chain(routes.then_some(GROUP_IPV4_ROUTE));
        for group in groups {
            socket.add_membership(group)?;
        }
        essential::task("netlink", connection);
        let notices = messages.filter_map(|(message, _)| std::future::ready(Notice::read(message)));
        Ok((Self { handle }, notices))
    }

    /// Opens a socket for tracked flows. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be opened, or the kernel has no netfilter.
    pub fn netfilter() -> io::Result<Self> {
        let (connection, handle, _) = new_connection::<Message>(protocols::NETLINK_NETFILTER)?;
        essential::task("netlink", connection);
        Ok(Self { handle })
    }

    /// Lists all interfaces.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn links(&self) -> io::Result<Vec<Link>> {
        let answers = self.ask(Message::new(rtm::GETLINK, [0; 16]), NLM_F_DUMP).await?;
        Ok(answers.iter().filter_map(Link::read).collect())
    }

    /// Returns the interface with this name; `None` if there is none.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn link_by_name(&self, name: &str) -> io::Result<Option<Link>> {
        let name = [name.as_bytes(), &[0]].concat();
        self.link(Message::new(rtm::GETLINK, [0; 16]).with(attribute::IFLA_IFNAME, name)).await
    }

    /// Returns the interface with this index; `None` if there is none.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn link_by_index(&self, ifindex: u32) -> io::Result<Option<Link>> {
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        self.link(Message::new(rtm::GETLINK, header)).await
    }

    async fn link(&self, message: Message) -> io::Result<Option<Link>> {
        match self.ask(message, 0).await {
            Ok(answers) => Ok(answers.iter().find_map(Link::read)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists all IPv4 addresses.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn addresses(&self) -> io::Result<Vec<Address>> {
        let answers = self.ask(Message::new(rtm::GETADDR, [AF_INET, 0, 0, 0, 0, 0, 0, 0]), NLM_F_DUMP).await?;
        Ok(answers.iter().filter_map(Address::read).collect())
    }

    /// Adds an address to an interface, or changes the prefix length of an existing one.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn add_address(&self, ifindex: u32, address: Ipv4Addr, prefix_length: u8) -> io::Result<()> {
        let message = address_message(rtm::NEWADDR, ifindex, address, prefix_length);
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).await.map(drop)
    }

    /// Removes an address from an interface.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn remove_address(&self, ifindex: u32, address: Ipv4Addr, prefix_length: u8) -> io::Result<()> {
        self.ask(address_message(rtm::DELADDR, ifindex, address, prefix_length), NLM_F_ACK).await.map(drop)
    }

    /// Adds a default route, or replaces the one with this metric. The kernel removes the route together with `source`.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn add_default_route(
        &self,
        ifindex: u32,
        router: Ipv4Addr,
        source: Ipv4Addr,
        metric: u32,
    ) -> io::Result<()> {
        let header =
            [AF_INET, 0, 0, 0, ROUTE_TABLE_MAIN, ROUTE_PROTOCOL_DHCP, SCOPE_UNIVERSE, ROUTE_UNICAST, 0, 0, 0, 0];
        let message = Message::new(rtm::NEWROUTE, header)
            .with(attribute::RTA_GATEWAY, router.octets())
            .with(attribute::RTA_OIF, ifindex.to_ne_bytes())
            .with(attribute::RTA_PREFSRC, source.octets())
            .with(attribute::RTA_PRIORITY, metric.to_ne_bytes());
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).await.map(drop)
    }

    /// Returns the interface of the default route with the lowest metric.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn default_route(&self) -> io::Result<Option<u32>> {
        let routes =
            self.ask(Message::new(rtm::GETROUTE, [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), NLM_F_DUMP).await?;
        let defaults = routes.iter().filter(|route| {
            // The length of the destination prefix and the table are in the header.
            route.header.get(1) == Some(&0) && route.header.get(4) == Some(&ROUTE_TABLE_MAIN)
        });
        let candidates = defaults.filter_map(|route| {
            Some((route.number(attribute::RTA_PRIORITY).unwrap_or(0), route.number(attribute::RTA_OIF)?))
        });
        Ok(candidates.min_by_key(|(metric, _)| *metric).map(|(_, ifindex)| ifindex))
    }

    /// Lists the filters in one direction of an interface's `clsact` qdisc, in the order in which they run; empty
    /// without that qdisc.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn filters(&self, ifindex: u32, is_egress: bool) -> io::Result<Vec<Filter>> {
        let parent = if is_egress { CLSACT_EGRESS } else { CLSACT_INGRESS };
        let mut header = [0; 20];
        header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        header[12..16].copy_from_slice(&parent.to_ne_bytes());
        let answers = match self.ask(Message::new(rtm::GETTFILTER, header), NLM_F_DUMP).await {
            // The interface was removed, or has no such qdisc.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL | libc::ENOENT)) => {
                Vec::new()
            }
            answers => answers?,
        };
        Ok(answers.iter().filter_map(Filter::read).collect())
    }

    /// Returns the tracked UDP flow whose first packet was sent from `source` to `destination`; `None` if there is
    /// none.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn udp_flow(&self, source: SocketAddrV4, destination: SocketAddrV4) -> io::Result<Option<Flow>> {
        let ip =
            nest(&[(conntrack::IP_V4_SRC, &source.ip().octets()), (conntrack::IP_V4_DST, &destination.ip().octets())]);
        let protocol = nest(&[
            (conntrack::PROTO_NUM, &[libc::IPPROTO_UDP as u8]),
            (conntrack::PROTO_SRC_PORT, &source.port().to_be_bytes()),
            (conntrack::PROTO_DST_PORT, &destination.port().to_be_bytes()),
        ]);
        let tuple = nest(&[
            (conntrack::TUPLE_IP | attribute::NESTED, &ip),
            (conntrack::TUPLE_PROTO | attribute::NESTED, &protocol),
        ]);
        let message =
            Message::new(conntrack::GET, [AF_INET, 0, 0, 0]).with(conntrack::TUPLE_ORIG | attribute::NESTED, tuple);
        match self.ask(message, 0).await {
            Ok(answers) => Ok(answers.iter().find_map(Flow::read)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns how long ago the neighbour entry of an address was confirmed, by an ARP reply or by progress of a
    /// connection. `None` if there is no entry, or if it was never confirmed.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn neighbour_confirmed(&self, ifindex: u32, address: Ipv4Addr) -> io::Result<Option<Duration>> {
        let [a, b, c, d] = ifindex.to_ne_bytes();
        let message = Message::new(rtm::GETNEIGH, [AF_INET, 0, 0, 0, a, b, c, d, 0, 0, 0, 0])
            .with(attribute::NDA_DST, address.octets());
        match self.ask(message, 0).await {
            Ok(answers) => Ok(answers.iter().find_map(confirmed)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the tracked flows that `source` started, by key, with the number of packets from `source`. Flows without
    /// a packet count (`nf_conntrack_acct`) are left out. The kernel walks through its whole table.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub async fn packets_from(&self, source: Ipv4Addr) -> io::Result<HashMap<Vec<u8>, u64>> {
        let ip = nest(&[(conntrack::IP_V4_SRC, &source.octets())]);
        let tuple = nest(&[(conntrack::TUPLE_IP | attribute::NESTED, &ip)]);
        let filter = nest(&[(conntrack::FILTER_ORIG_FLAGS, &conntrack::FILTER_IP_SRC.to_ne_bytes())]);
        let message = Message::new(conntrack::GET, [AF_INET, 0, 0, 0])
            .with(conntrack::TUPLE_ORIG | attribute::NESTED, tuple)
            .with(conntrack::FILTER | attribute::NESTED, filter);
        let answers = self.ask(message, NLM_F_DUMP).await?;
        Ok(answers.iter().filter_map(|flow| packets(flow, source)).collect())
    }

    async fn ask(&self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let closed = |_| io::Error::other("the netlink socket is closed");
        let mut answers = Box::pin(self.handle.request(message, SocketAddr::new(0, 0)).map_err(closed)?);
        let mut found = Vec::new();
        let is_many = flags & NLM_F_DUMP == NLM_F_DUMP;
        while let Some(answer) = timeout(ANSWER, answers.next()).await? {
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => {
                    found.push(message);
                    // A request that is neither a dump nor acknowledged has one reply and no end marker.
                    if !is_many {
                        break;
                    }
                }
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn confirmed(neighbour: &Message) -> Option<Duration> {
    let state = u16::from_ne_bytes(*neighbour.header.get(8..)?.first_chunk()?);
    let dates = neighbour.value(attribute::NDA_CACHEINFO)?;
    let ticks = u32::from_ne_bytes(*dates.first_chunk()?);
    (state & NUD_CONFIRMED != 0).then(|| TICK * ticks)
}

/// The key of a flow that `source` started, and the number of packets from `source`.
fn packets(flow: &Message, source: Ipv4Addr) -> Option<(Vec<u8>, u64)> {
    let key = flow.value(conntrack::TUPLE_ORIG)?;
    let from = nested_value(nested_value(&key, conntrack::TUPLE_IP)?, conntrack::IP_V4_SRC)?;
    if from != source.octets() {
        return None;
    }
    let counters = flow.value(conntrack::COUNTERS_ORIG)?;
    let packets = nested_value(&counters, conntrack::COUNTERS_PACKETS)?;
    let packets = u64::from_be_bytes(packets.try_into().ok()?);
    Some((key, packets))
}

fn address_message(kind: u16, ifindex: u32, address: Ipv4Addr, prefix_length: u8) -> Message {
    let [a, b, c, d] = ifindex.to_ne_bytes();
    Message::new(kind, [AF_INET, prefix_length, 0, SCOPE_UNIVERSE, a, b, c, d])
        .with(attribute::IFA_LOCAL, address.octets())
        .with(attribute::IFA_ADDRESS, address.octets())
}

/// A socket that receives notifications of changes of nft rulesets.
pub struct RulesetChanges(TokioSocket);

impl RulesetChanges {
    /// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
    const GROUP: u32 = 7;

    /// Opens the socket. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be opened, or the kernel has no netfilter.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocols::NETLINK_NETFILTER)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(Self::GROUP)?;
        Ok(Self(socket))
    }

    /// Waits for the next message about a change.
    ///
    /// # Errors
    /// Messages were lost, or the socket failed.
    pub async fn next(&mut self) -> io::Result<()> {
        use netlink_proto::sys::AsyncSocketExt as _;
        self.0.recv_from_full().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loopback_interface_has_its_name_index_and_address() {
        let netlink = Netlink::route().expect("netlink");
        let lo = netlink.link_by_name("lo").await.expect("an answer").expect("lo");
        let expected = Link {
            ifindex: 1,
            name: "lo".to_owned(),
            mac: Some([0; 6]),
            is_up: true,
            is_bridge: false,
            master: None,
            xdp: None,
        };
        assert_eq!(lo, expected);
        assert_eq!(netlink.link_by_index(1).await.expect("an answer").as_ref(), Some(&expected));
        assert!(netlink.links().await.expect("a dump").contains(&expected));
        let address = Address { ifindex: 1, address: Ipv4Addr::LOCALHOST, prefix_length: 8, is_global: false };
        let broadcasts = [Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(127, 255, 255, 255)];
        assert_eq!(address.broadcasts(), Some(broadcasts));
        for (prefix_length, has_room) in [(0, true), (30, true), (31, false), (32, false)] {
            assert_eq!(Address { prefix_length, ..address }.broadcasts().is_some(), has_room, "/{prefix_length}");
        }

        assert!(netlink.addresses().await.expect("a dump").contains(&address));
    }

    #[tokio::test]
    async fn what_does_not_exist_is_no_error() {
        let netlink = Netlink::route().expect("netlink");
        assert_eq!(netlink.link_by_name("nosuchlink").await.expect("an answer"), None);
        assert_eq!(netlink.link_by_index(1 << 30).await.expect("an answer"), None);
    }

    #[test]
    fn nested_attributes_are_read_as_they_are_written() {
        let value = nest(&[(1, &[7]), (2, &[1, 2, 3, 4, 5]), (3, &[])]);
        assert_eq!(value.len() % 4, 0);
        let read: Vec<_> = nested(&value).collect();
        assert_eq!(read, [(1, &[7][..]), (2, &[1, 2, 3, 4, 5]), (3, &[])]);
        assert_eq!(nested_value(&value, 2), Some(&[1, 2, 3, 4, 5][..]));
        // The length of the attribute exceeds the value.
        assert_eq!(nested(&value[..value.len() - 10]).count(), 1);
    }
}
