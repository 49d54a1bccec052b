//! One interface: its link and address by netlink, and addresses that the agent gives it.

use std::{io, net::Ipv4Addr};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tr111_core::device::Address;

use crate::{essential, os::netlink::Netlink};

/// Of the default route that comes with a lease. One that the box has from elsewhere goes first, and stays.
const METRIC: u32 = 1_024;

/// What an interface is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its name.
    pub name: String,
    /// Its kernel index.
    pub ifindex: u32,
    /// It is up and has a carrier.
    pub up: bool,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its first IPv4 address that is good beyond the link.
    pub address: Option<Ipv4Addr>,
}

/// Why an interface cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No interface of that name in this network namespace.
    #[error("there is no interface {0} here; `ip link` lists them")]
    NoInterface(String),
    /// Not an Ethernet interface.
    #[error("interface {0} has no Ethernet address")]
    NoEthernet(String),
    /// Netlink refuses.
    #[error("netlink: {0}")]
    Netlink(#[from] io::Error),
}

/// An interface that is watched.
#[derive(Debug)]
pub struct Link {
    netlink: Netlink,
    /// How it is at the start; `None` where there is no default route yet.
    pub first: Option<LinkState>,
    /// How it is after each change; `None` while it is not there.
    pub changes: mpsc::Receiver<Option<LinkState>>,
}

/// Which interface it is.
#[derive(Debug)]
enum Which {
    Named(String),
    /// That of the default route, or the last that had it (T-35).
    DefaultRoute {
        ifindex: Option<u32>,
    },
}

impl Link {
    /// Starts to watch the interface `name`; without a name that of the default route, whichever it is (T-35).
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
                        tracing::debug!(%error, interface = ?which, "the interface could not be read");
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
            tracing::warn!("netlink ended: changes of addresses and interfaces are not seen any more");
        });
        Ok(Self { netlink, first, changes })
    }

    /// Gives the interface an address, and the box a default route over the router that came with it.
    pub async fn configure(&self, ifindex: u32, address: Address) -> io::Result<()> {
        let Address { address, prefix_length, router } = address;
        self.netlink.add_address(ifindex, address, prefix_length).await?;
        match router {
            Some(router) => self.netlink.add_default_route(ifindex, router, address, METRIC).await,
            None => Ok(()),
        }
    }

    /// Takes an address from the interface.
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
