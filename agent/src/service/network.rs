//! What changes around the agent: its own addresses, and interfaces. By netlink, which follows the network
//! namespace.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::NetlinkPayload,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags, LinkMessage},
    },
};
use tokio::sync::mpsc;

use crate::{
    control::message,
    dataplane::{Attachment, ProgramMode},
};

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// All IPv4 addresses that this machine has now.
    Addresses(Vec<Ipv4Addr>),
    /// All interfaces that this machine has now.
    Links(Vec<Link>),
    /// An interface as it is now.
    Link(Link),
    /// An interface is gone.
    LinkGone {
        /// Its kernel index.
        ifindex: u32,
    },
}

/// An interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its kernel index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// It is up and has a carrier.
    pub is_up: bool,
}

/// How an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceState {
    /// It has programs and a carrier.
    Up,
    /// It has programs and no carrier.
    Down,
    /// It is there, and the programs are not on it.
    Detached,
    /// There is no interface of its name any more.
    Gone,
    /// There has been no interface of its name since the start.
    Missing,
}

impl InterfaceState {
    /// The word for people and for JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Detached => "detached",
            Self::Gone => "gone",
            Self::Missing => "missing",
        }
    }
}

impl From<Attachment> for message::Interface {
    fn from(attachment: Attachment) -> Self {
        let hook = |program: ProgramMode| message::Hook {
            program: program.program.to_owned(),
            mode: program.mode.label().to_owned(),
        };
        Self {
            name: attachment.interface,
            side: attachment.side.label().to_owned(),
            state: InterfaceState::Up.label().to_owned(),
            hooks: attachment.programs.into_iter().map(hook).collect(),
        }
    }
}

/// Starts to watch. The first message holds the addresses of this moment, the second the interfaces.
pub fn watch() -> io::Result<mpsc::Receiver<NetworkChange>> {
    let (connection, handle, mut messages) =
        new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr])?;
    tokio::spawn(connection);
    let (changes, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut known = None;
        loop {
            match addresses(&handle).await {
                Ok(now) if known.as_ref() != Some(&now) => {
                    known = Some(now.clone());
                    let now = now.into_iter().collect();
                    if changes.send(NetworkChange::Addresses(now)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the addresses of this machine could not be read"),
            }
            match links(&handle).await {
                Ok(now) => {
                    if changes.send(NetworkChange::Links(now)).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "the interfaces of this machine could not be read"),
            }
            // Whatever says that addresses changed, or that messages were lost: everything is read again.
            loop {
                let Some((message, _)) = messages.next().await else {
                    tracing::warn!("netlink ended: changes of addresses and interfaces are not seen any more");
                    return;
                };
                let change = match message.payload {
                    // A bridge tells of its ports in messages of its own: a port that leaves it is not gone.
                    NetlinkPayload::InnerMessage(
                        RouteNetlinkMessage::DelLink(link) | RouteNetlinkMessage::NewLink(link),
                    ) if link.header.interface_family != AddressFamily::Unspec => continue,
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                        NetworkChange::LinkGone { ifindex: link.header.index }
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => match Link::read(&link) {
                        Some(link) => NetworkChange::Link(link),
                        None => continue,
                    },
                    _ => break,
                };
                if changes.send(change).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

impl Link {
    fn read(message: &LinkMessage) -> Option<Self> {
        let name = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
            _ => None,
        });
        let is_up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        Some(Self { ifindex: message.header.index, name: name?, mac, is_up })
    }
}

async fn links(handle: &Handle) -> Result<Vec<Link>, rtnetlink::Error> {
    let found = handle.link().get().execute().try_filter_map(async |message| Ok(Link::read(&message)));
    found.try_collect().await
}

async fn addresses(handle: &Handle) -> Result<BTreeSet<Ipv4Addr>, rtnetlink::Error> {
    let mut found = BTreeSet::new();
    let mut messages = Box::pin(handle.address().get().execute());
    while let Some(message) = messages.try_next().await? {
        for attribute in message.attributes {
            // On a point-to-point link, `Address` is the peer and `Local` is this machine.
            if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                found.insert(address);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_messages_hold_the_loopback_address_and_its_interface() {
        let mut changes = watch().expect("netlink");
        let first = tokio::time::timeout(std::time::Duration::from_secs(10), changes.recv()).await.expect("in time");
        let Some(NetworkChange::Addresses(addresses)) = first else { panic!("{first:?}") };
        assert!(addresses.contains(&Ipv4Addr::LOCALHOST), "{addresses:?}");
        let second = tokio::time::timeout(std::time::Duration::from_secs(10), changes.recv()).await.expect("in time");
        let Some(NetworkChange::Links(links)) = second else { panic!("{second:?}") };
        assert!(
            links.contains(&Link { ifindex: 1, name: "lo".to_owned(), mac: Some([0; 6]), is_up: true }),
            "{links:?}"
        );
    }
}
