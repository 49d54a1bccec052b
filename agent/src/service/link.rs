//! The interface of a device: its link and addresses by netlink, and the addresses and routes that the agent
//! configures.

use std::{io, net::Ipv4Addr};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tr111_core::device::Address;

use crate::{essential, os::netlink::Netlink};

/// Metric of the default route that comes with a lease. A default route from another source has a lower metric and is
/// preferred.
const METRIC: u32 = 1_024;

/// The state of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// Ethernet address.
    pub mac: [u8; 6],
    /// The first IPv4 address of global scope.
    pub address: Option<Ipv4Addr>,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No interface has this name in the agent's network namespace.
    #[error("there is no interface {0} here; `ip link` lists those that exist")]
    NoInterface(String),
    /// The interface has no Ethernet address.
    #[error("interface {0} has no Ethernet address; name an Ethernet interface")]
    NoEthernet(String),
    /// A netlink request failed.
    #[error("netlink request failed: {0}")]
    Netlink(#[from] io::Error),
}

/// A watched interface.
#[derive(Debug)]
pub struct Link {
    netlink: Netlink,
    /// The state at the start; `None` if there is no default route yet.
    pub first: Option<LinkState>,
    /// The state after each change; `None` while the interface does not exist.
    pub changes: mpsc::Receiver<Option<LinkState>>,
}

/// How the interface is chosen.
#[derive(Debug)]
enum Which {
    Named(String),
    /// The interface of the default route, or the last one that had it (T-35).
    DefaultRoute {
        ifindex: Option<u32>,
    },
}

impl Link {
    /// Starts to watch the interface `name`, or the interface of the default route if there is no name (T-35).
    pub async fn watch(name: Option<&str>) -> Result<Self, LinkError> {
        let mut which = name.map_or(Which::DefaultRoute { ifindex: None }, |name| Which::Named(name.to_owned()));
        let (netlink, mut notices) = Netlink::watch(matches!(which, Which::DefaultRoute { .. }))?;
        let first = read(&netlink, &mut which).await?;
        if let (Which::Named(name), None) = (&which, &first) {
            return Err(LinkError::NoInterface(name.clone()));
        }
        let (told, changes) = mpsc::channel(16);
        let (mut known, asked) = (first.clone(), netlink.clone());
        essential::task("link", async move {
            // Whatever a message says, or that messages were lost: all is read again.
            while notices.next().await.is_some() {
                let now = match read(&asked, &mut which).await {
                    Ok(now) => now,
                    Err(error) => {
                        tracing::debug!(%error, interface = ?which, "cannot read the state of the interface");
                        None
                    }
                };
                if now != known {
                    known.clone_from(&now);
                    if told.send(now).await.is_err() {
                        return;
                    }
                }
            }
            tracing::warn!("netlink closed: changes of addresses and interfaces are no longer detected");
        });
        Ok(Self { netlink, first, changes })
    }

    /// Adds the address to the interface, and a default route through the router of the lease.
    pub async fn configure(&self, ifindex: u32, address: Address) -> io::Result<()> {
        let Address { address, prefix_length, router } = address;
        self.netlink.add_address(ifindex, address, prefix_length).await?;
        match router {
            Some(router) => self.netlink.add_default_route(ifindex, router, address, METRIC).await,
            None => Ok(()),
        }
    }

    /// Removes the address from the interface.
    pub async fn deconfigure(&self, ifindex: u32, address: Address) -> io::Result<()> {
        self.netlink.remove_address(ifindex, address.address, address.prefix_length).await
    }
}

async fn read(netlink: &Netlink, which: &mut Which) -> Result<Option<LinkState>, LinkError> {
    let link = match which {
        Which::Named(name) => netlink.link_by_name(name).await?,
        Which::DefaultRoute { ifindex } => {
            *ifindex = netlink.default_route().await?.or(*ifindex);
            let Some(ifindex) = *ifindex else { return Ok(None) };
            netlink.link_by_index(ifindex).await?
        }
    };
    let Some(link) = link else { return Ok(None) };
    let Some(mac) = link.mac else { return Err(LinkError::NoEthernet(link.name)) };
    let addresses = netlink.addresses().await?;
    let own = addresses.iter().find(|address| address.ifindex == link.ifindex && address.is_global);
    let address = own.map(|own| own.address);
    Ok(Some(LinkState { name: link.name, ifindex: link.ifindex, up: link.is_up, mac, address }))
}
