//! What changes around the agent: its own addresses, and interfaces that go. By netlink, which follows the network
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
    packet_route::{RouteNetlinkMessage, address::AddressAttribute},
};
use tokio::sync::mpsc;

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// All IPv4 addresses that this machine has now.
    Addresses(Vec<Ipv4Addr>),
    /// An interface is gone.
    LinkGone {
        /// Its kernel index.
        ifindex: u32,
    },
}

/// Starts to watch. The first message holds the addresses of this moment.
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
            // Whatever says that addresses changed, or that messages were lost: they are read again, all.
            loop {
                let Some((message, _)) = messages.next().await else {
                    tracing::warn!("netlink ended: changes of addresses and interfaces are not seen any more");
                    return;
                };
                match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                        let gone = NetworkChange::LinkGone { ifindex: link.header.index };
                        if changes.send(gone).await.is_err() {
                            return;
                        }
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(_)) => {}
                    _ => break,
                }
            }
        }
    });
    Ok(receiver)
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
    async fn the_first_message_holds_the_loopback_address() {
        let mut changes = watch().expect("netlink");
        let first = tokio::time::timeout(std::time::Duration::from_secs(10), changes.recv()).await.expect("in time");
        let Some(NetworkChange::Addresses(addresses)) = first else { panic!("{first:?}") };
        assert!(addresses.contains(&Ipv4Addr::LOCALHOST), "{addresses:?}");
    }
}
