//! What changes around the agent: its own addresses, and interfaces. By netlink, which follows the network
//! namespace.

use std::{collections::BTreeSet, io};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

pub use crate::os::netlink::{Address, Link};
use crate::{
    control::message,
    dataplane::{Attachment, ProgramMode},
    essential,
    os::netlink::{Netlink, Notice},
};

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// All IPv4 addresses that this machine has now.
    Addresses(Vec<Address>),
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
            in_front: Vec::new(),
            behind: Vec::new(),
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
    let (netlink, mut notices) = Netlink::watch(false)?;
    let (changes, receiver) = mpsc::channel(16);
    essential::task("network", async move {
        let mut known = None;
        loop {
            match addresses(&netlink).await {
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
            match netlink.links().await {
                Ok(now) => {
                    if changes.send(NetworkChange::Links(now)).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "the interfaces of this machine could not be read"),
            }
            loop {
                let change = match notices.next().await {
                    Some(Notice::Link(link)) => NetworkChange::Link(link),
                    Some(Notice::LinkGone { ifindex }) => NetworkChange::LinkGone { ifindex },
                    Some(Notice::Other) => break,
                    None => {
                        tracing::warn!("netlink ended: changes of addresses and interfaces are not seen any more");
                        return;
                    }
                };
                if changes.send(change).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

async fn addresses(netlink: &Netlink) -> io::Result<BTreeSet<Address>> {
    Ok(netlink.addresses().await?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_messages_hold_the_loopback_address_and_its_interface() {
        let mut changes = watch().expect("netlink");
        let first = tokio::time::timeout(std::time::Duration::from_secs(10), changes.recv()).await.expect("in time");
        let Some(NetworkChange::Addresses(addresses)) = first else { panic!("{first:?}") };
        assert!(addresses.iter().any(|own| own.address.is_loopback() && own.ifindex == 1), "{addresses:?}");
        let second = tokio::time::timeout(std::time::Duration::from_secs(10), changes.recv()).await.expect("in time");
        let Some(NetworkChange::Links(links)) = second else { panic!("{second:?}") };
        assert!(links.iter().any(|link| link.ifindex == 1 && link.name == "lo" && link.is_up), "{links:?}");
    }
}
