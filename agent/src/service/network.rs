//! Changes of this machine's addresses and interfaces, from netlink. The scope is the agent's network namespace.

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

/// A change of addresses or interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// All IPv4 addresses of this machine.
    Addresses(Vec<Address>),
    /// All interfaces of this machine.
    Links(Vec<Link>),
    /// The new state of an interface.
    Link(Link),
    /// An interface was removed.
    LinkGone {
        /// Kernel index of the removed interface.
        ifindex: u32,
    },
}

/// State of a configured interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceState {
    /// The programs are attached and the interface has a carrier.
    Up,
    /// The programs are attached and the interface has no carrier.
    Down,
    /// The interface exists and the programs are not attached.
    Detached,
    /// The interface was removed.
    Gone,
    /// The interface has not existed since the start.
    Missing,
}

impl InterfaceState {
    /// The name in output, JSON and labels.
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

/// Starts to watch. The first message contains the addresses, the second the interfaces.
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
                Err(error) => tracing::warn!(%error, "cannot read the addresses of this machine"),
            }
            match netlink.links().await {
                Ok(now) => {
                    if changes.send(NetworkChange::Links(now)).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot read the interfaces of this machine"),
            }
            loop {
                let change = match notices.next().await {
                    Some(Notice::Link(link)) => NetworkChange::Link(link),
                    Some(Notice::LinkGone { ifindex }) => NetworkChange::LinkGone { ifindex },
                    Some(Notice::Other) => break,
                    None => {
                        tracing::warn!("netlink closed: changes of addresses and interfaces are no longer detected");
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
