//! One interface: its link and address by netlink, and addresses that the agent gives it.

use std::{io, net::IpAddr, net::Ipv4Addr};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    AddressMessageBuilder, Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    packet_route::{
        address::{AddressAttribute, AddressScope},
        link::{LinkAttribute, LinkFlags},
    },
};
use tokio::sync::mpsc;
use tr111_core::device::Address;

/// What an interface is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
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
    /// How it is at the start.
    pub first: LinkState,
    /// How it is after each change; `None` while it is not there.
    pub changes: mpsc::Receiver<Option<LinkState>>,
}

impl Link {
    /// Starts to watch the interface `name`.
    pub async fn watch(name: &str) -> Result<Self, LinkError> {
        let (connection, handle, mut messages) =
            new_multicast_connection(&[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr])?;
        tokio::spawn(connection);
        let first = read(&handle, name).await?.ok_or_else(|| LinkError::NoInterface(name.to_owned()))?;
        let (told, changes) = mpsc::channel(16);
        let (watched, asked) = (name.to_owned(), handle.clone());
        tokio::spawn(async move {
            let mut known = Some(first);
            // Whatever a message says, or that messages were lost: all is read again.
            while messages.next().await.is_some() {
                let now = match read(&asked, &watched).await {
                    Ok(now) => now,
                    Err(error) => {
                        tracing::debug!(%error, interface = watched, "the interface could not be read");
                        None
                    }
                };
                if now != known {
                    known = now;
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

async fn read(handle: &Handle, name: &str) -> Result<Option<LinkState>, LinkError> {
    let link = match handle.link().get().match_name(name).execute().try_next().await {
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
    let mac = mac.ok_or_else(|| LinkError::NoEthernet(name.to_owned()))?;
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
    Ok(Some(LinkState { ifindex, up, mac, address }))
}
