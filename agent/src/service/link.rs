//! One interface: its link and address by netlink, and addresses that the agent gives it.

use std::{io, net::IpAddr, net::Ipv4Addr};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    AddressMessageBuilder, Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    packet_route::{
        address::{AddressAttribute, AddressScope},
        link::{LinkAttribute, LinkFlags},
        route::{RouteAttribute, RouteHeader},
    },
};
use tokio::sync::mpsc;
use tr111_core::device::Address;

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
    Netlink(#[from] rtnetlink::Error),
    /// No netlink at all.
    #[error("cannot open netlink: {0}")]
    System(#[from] io::Error),
}

/// An interface that is watched.
#[derive(Debug)]
pub struct Link {
    handle: Handle,
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
        let mut groups = vec![MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr];
        let mut which = name.map_or(Which::DefaultRoute { ifindex: None }, |name| Which::Named(name.to_owned()));
        if matches!(which, Which::DefaultRoute { .. }) {
            groups.push(MulticastGroup::Ipv4Route);
        }
        let (connection, handle, mut messages) = new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        let first = read(&handle, &mut which).await?;
        if let (Which::Named(name), None) = (&which, &first) {
            return Err(LinkError::NoInterface(name.clone()));
        }
        let (told, changes) = mpsc::channel(16);
        let (mut known, asked) = (first.clone(), handle.clone());
        tokio::spawn(async move {
            // Whatever a message says, or that messages were lost: all is read again.
            while messages.next().await.is_some() {
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
        Ok(Self { handle, first, changes })
    }

    /// Gives the interface an address, and the box a default route over the router that came with it.
    pub async fn configure(&self, ifindex: u32, address: Address) -> Result<(), rtnetlink::Error> {
        let Address { address, prefix_length, router } = address;
        self.handle.address().add(ifindex, IpAddr::V4(address), prefix_length).replace().execute().await?;
        if let Some(router) = router {
            // It goes with the address that it prefers.
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(router)
                .output_interface(ifindex)
                .pref_source(address)
                .priority(METRIC)
                .build();
            self.handle.route().add(route).replace().execute().await?;
        }
        Ok(())
    }

    /// Takes an address from the interface.
    pub async fn deconfigure(&self, ifindex: u32, address: Address) -> Result<(), rtnetlink::Error> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(ifindex)
            .address(address.address, address.prefix_length)
            .build();
        self.handle.address().del(message).execute().await
    }
}

/// The interface of the default route that goes first.
async fn default_route(handle: &Handle) -> Result<Option<u32>, LinkError> {
    let mut best = None;
    let mut routes = Box::pin(handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute());
    while let Some(route) = routes.try_next().await? {
        if route.header.destination_prefix_length > 0 || route.header.table != RouteHeader::RT_TABLE_MAIN {
            continue;
        }
        let (mut ifindex, mut metric) = (None, 0);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
        if let Some(ifindex) = ifindex.filter(|_| best.is_none_or(|(_, least)| metric < least)) {
            best = Some((ifindex, metric));
        }
    }
    Ok(best.map(|(ifindex, _)| ifindex))
}

async fn read(handle: &Handle, which: &mut Which) -> Result<Option<LinkState>, LinkError> {
    let request = match which {
        Which::Named(name) => handle.link().get().match_name(name.clone()),
        Which::DefaultRoute { ifindex } => {
            *ifindex = default_route(handle).await?.or(*ifindex);
            let Some(ifindex) = *ifindex else { return Ok(None) };
            handle.link().get().match_index(ifindex)
        }
    };
    let link = match request.execute().try_next().await {
        Ok(Some(link)) => link,
        Ok(None) => return Ok(None),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let ifindex = link.header.index;
    let up = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    });
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    let name = name.unwrap_or_default();
    let Some(mac) = mac else { return Err(LinkError::NoEthernet(name)) };
    let mut address = None;
    let mut messages = Box::pin(handle.address().get().set_link_index_filter(ifindex).execute());
    while let Some(message) = messages.try_next().await? {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
            _ => None,
        });
        let useful = message.header.index == ifindex && message.header.scope == AddressScope::Universe;
        address = address.or(local.filter(|_| useful));
    }
    Ok(Some(LinkState { name, ifindex, up, mac, address }))
}
