//! What the connection tracker knows of a flow, by ctnetlink.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use futures_util::StreamExt as _;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
};
use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    proto::{ConnectionHandle, new_connection},
    sys::{SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER},
};
use tokio::time::timeout;
use tr111_common::abi::FlowKey;

/// How long the kernel may take to answer: an answer that its socket had no room for never comes.
const ANSWER: Duration = Duration::from_secs(1);

/// A flow in the connection tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where answers go to: the address and port that the NAT gave the flow.
    pub mapped: SocketAddrV4,
    /// When it ends unless a packet comes.
    pub left: Duration,
}

/// Asks the connection tracker of this network namespace.
#[derive(Debug)]
pub struct Conntrack {
    handle: ConnectionHandle<NetfilterMessage>,
}

impl Conntrack {
    /// Opens a socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel has no ctnetlink, or privileges are missing.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = new_connection(NETLINK_NETFILTER)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The entry of a UDP flow, as it came from the LAN; `None` where there is none, or it cannot be asked for.
    pub async fn find(&self, flow: &FlowKey) -> Option<Entry> {
        let tuple = vec![
            Tuple::Ip(vec![
                IPTuple::SourceAddress(IpAddr::V4(Ipv4Addr::from(flow.source))),
                IPTuple::DestinationAddress(IpAddr::V4(Ipv4Addr::from(flow.destination))),
            ]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(Protocol::Udp),
                ProtoTuple::SourcePort(flow.source_port),
                ProtoTuple::DestinationPort(flow.destination_port),
            ]),
        ];
        let get = ConntrackMessage::Get(vec![ConntrackAttribute::CtaTupleOrig(tuple)]);
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let mut message = NetlinkMessage::from(NetfilterMessage::new(header, get));
        message.header.flags = NLM_F_REQUEST;
        let mut answers = Box::pin(self.handle.request(message, NetlinkAddress::new(0, 0)).ok()?);
        while let Some(answer) = timeout(ANSWER, answers.next()).await.ok().flatten() {
            if let NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                ..
            }) = answer.payload
            {
                return entry(&attributes);
            }
        }
        None
    }
}

fn entry(attributes: &[ConntrackAttribute]) -> Option<Entry> {
    let mut left = None;
    let (mut address, mut port) = (None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTimeout(seconds) => left = Some(Duration::from_secs((*seconds).into())),
            ConntrackAttribute::CtaTupleReply(tuples) => {
                for tuple in tuples {
                    match tuple {
                        Tuple::Ip(parts) => {
                            address = parts.iter().find_map(|part| match part {
                                IPTuple::DestinationAddress(IpAddr::V4(address)) => Some(*address),
                                _ => None,
                            });
                        }
                        Tuple::Proto(parts) => {
                            port = parts.iter().find_map(|part| match part {
                                ProtoTuple::DestinationPort(port) => Some(*port),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Entry { mapped: SocketAddrV4::new(address?, port?), left: left? })
}
