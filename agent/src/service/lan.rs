//! Keeps the programs on the LAN interfaces, which may go and come back: a bridge that is made anew, a USB adapter, a
//! driver that is loaded again. The name is what lasts; the kernel index is another one each time.

use std::collections::BTreeMap;

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::{
    Clock,
    network::{InterfaceState, Link, NetworkChange},
};
use crate::{
    dataplane::{Attachment, Bridges, Dataplane, Direction, Filters, ORDER_INTERVAL, Port, Side, Standing},
    os::netlink::Netlink,
};

/// What the owner of the table has to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanChange {
    /// All IPv4 addresses that this machine has now.
    Addresses(Vec<std::net::Ipv4Addr>),
    /// A LAN interface is another way than before.
    Interface {
        /// Its name.
        name: String,
        /// How it is.
        state: InterfaceState,
        /// What was attached to it just now.
        attached: Option<Attachment>,
    },
    /// A port of a LAN bridge is watched, or not any more.
    Port {
        /// Its name.
        name: String,
        /// What is attached to it.
        attached: Option<Attachment>,
    },
    /// Others are around the TC programs of an interface, or not any more.
    Standing(Standing),
}

/// A LAN interface as it is known.
#[derive(Debug)]
struct Known {
    name: String,
    /// Where the programs are.
    ifindex: Option<u32>,
    state: InterfaceState,
    /// Why they are not, as it was told.
    complaint: String,
}

/// The LAN interfaces and what is attached to them.
#[derive(Debug)]
pub struct Lan {
    dataplane: Dataplane,
    interfaces: Vec<Known>,
    bridges: Bridges,
    /// The ports that are watched.
    ports: Vec<Port>,
    /// Why a port is not, as it was told, by kernel index.
    complaints: BTreeMap<u32, String>,
}

impl Lan {
    /// As [`Dataplane::start`] left them, with the `bridges` that it was told of.
    pub fn new(dataplane: Dataplane, bridges: Bridges) -> Self {
        let known = |one: &Attachment| Known {
            name: one.interface.clone(),
            ifindex: Some(one.ifindex),
            state: InterfaceState::Up,
            complaint: String::new(),
        };
        let missing = |(name, _): &(String, _)| Known {
            name: name.clone(),
            ifindex: None,
            state: InterfaceState::Missing,
            complaint: String::new(),
        };
        let (ports, attached): (Vec<_>, Vec<_>) =
            dataplane.attachments().iter().partition(|attachment| attachment.side == Side::Port);
        let named = attached.iter().map(|attachment| attachment.interface.as_str());
        let mut watched = bridges.ports(named);
        watched.retain(|port| ports.iter().any(|attachment| attachment.ifindex == port.ifindex));
        let interfaces = attached.into_iter().map(known).chain(dataplane.missing().iter().map(missing)).collect();
        Self { interfaces, bridges, ports: watched, complaints: BTreeMap::new(), dataplane }
    }

    /// Works until nobody listens any more, and gives the programs back.
    pub async fn keep(
        mut self,
        mut network: mpsc::Receiver<NetworkChange>,
        told: mpsc::Sender<LanChange>,
    ) -> Dataplane {
        let netlink =
            Netlink::route().inspect_err(|error| warn!(%error, "filters at TC are not seen: no netlink")).ok();
        let mut looks = interval(ORDER_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changes = tokio::select! {
                change = network.recv() => change.map(|change| self.follow(change)),
                _ = looks.tick() => Some(self.look(netlink.as_ref()).await),
                () = told.closed() => None,
            };
            let Some(changes) = changes else { return self.dataplane };
            for change in changes {
                // Whoever does not listen any more has ended.
                let _ = told.send(change).await;
            }
        }
    }

    /// Looks at who else is in the chains of TC programs.
    async fn look(&mut self, netlink: Option<&Netlink>) -> Vec<LanChange> {
        let mut filters = Filters::new();
        for (ifindex, direction) in self.dataplane.chains() {
            let Some(netlink) = netlink else { continue };
            match netlink.filters(ifindex, direction == Direction::Egress).await {
                Ok(found) => drop(filters.insert((ifindex, direction), found)),
                Err(error) => tracing::debug!(%error, ifindex, "filters were not read"),
            }
        }
        self.dataplane.keep_order(Clock::now(), &filters).into_iter().map(LanChange::Standing).collect()
    }

    fn follow(&mut self, change: NetworkChange) -> Vec<LanChange> {
        match change {
            NetworkChange::Addresses(own) => vec![LanChange::Addresses(own.iter().map(|own| own.address).collect())],
            NetworkChange::LinkGone { ifindex } => {
                self.bridges.remove(ifindex);
                let changes = self.gone(|known| known == ifindex);
                self.and_ports(changes)
            }
            NetworkChange::Link(link) => {
                let changes = self.link(&link);
                self.bridges.update(link);
                self.and_ports(changes)
            }
            NetworkChange::Links(links) => {
                let mut changes = self.gone(|known| links.iter().all(|link| link.ifindex != known));
                changes.extend(links.iter().flat_map(|link| self.link(link)));
                self.bridges = Bridges::new(links);
                self.and_ports(changes)
            }
        }
    }

    /// Adds what changes with the interfaces at the ports of LAN bridges: each of those that carry programs has its ports
    /// watched.
    fn and_ports(&mut self, mut changes: Vec<LanChange>) -> Vec<LanChange> {
        if !self.dataplane.follows_ports() {
            return changes;
        }
        let attached = self.interfaces.iter().filter(|known| known.ifindex.is_some());
        let wanted = self.bridges.ports(attached.map(|known| known.name.as_str()));
        for port in self.ports.extract_if(.., |port| !wanted.contains(port)) {
            info!(port = port.name, "no port of a LAN bridge any more");
            self.dataplane.release_port(&port);
            changes.push(LanChange::Port { name: port.name, attached: None });
        }
        self.complaints.retain(|ifindex, _| wanted.iter().any(|port| port.ifindex == *ifindex));
        for port in wanted {
            if !self.ports.contains(&port) {
                changes.extend(self.port(port));
            }
        }
        changes
    }

    /// Watches a port. One that cannot be watched is tried again with the next change around it.
    fn port(&mut self, port: Port) -> Option<LanChange> {
        let is_named = self.interfaces.iter().any(|known| known.name == port.name);
        let attached =
            if is_named { Err(self.bridges.both_are_named(&port)) } else { self.dataplane.attach_port(&port) };
        match attached {
            Ok(attachment) => {
                info!(port = port.name, "a port of a LAN bridge");
                self.complaints.remove(&port.ifindex);
                let name = port.name.clone();
                self.ports.push(port);
                Some(LanChange::Port { name, attached: Some(attachment) })
            }
            Err(error) => {
                let complaint = error.to_string();
                if self.complaints.get(&port.ifindex) != Some(&complaint) {
                    warn!(port = port.name, %error, "a port of a LAN bridge is not watched");
                    self.complaints.insert(port.ifindex, complaint);
                }
                None
            }
        }
    }

    /// The interfaces whose index `is_gone` are no more, or have another name.
    fn gone(&mut self, is_gone: impl Fn(u32) -> bool) -> Vec<LanChange> {
        let mut changes = Vec::new();
        for known in self.interfaces.iter_mut().filter(|known| known.ifindex.is_some_and(&is_gone)) {
            warn!(interface = known.name, "the interface is gone; its programs attach again when it is back");
            self.dataplane.release(&known.name);
            (known.ifindex, known.state) = (None, InterfaceState::Gone);
            changes.push(LanChange::Interface { name: known.name.clone(), state: known.state, attached: None });
        }
        changes
    }

    fn link(&mut self, link: &Link) -> Vec<LanChange> {
        let is_renamed = |known: &Known| known.ifindex == Some(link.ifindex) && known.name != link.name;
        let mut changes = Vec::new();
        if self.interfaces.iter().any(is_renamed) {
            changes = self.gone(|known| known == link.ifindex);
        }
        let Some(known) = self.interfaces.iter_mut().find(|known| known.name == link.name) else { return changes };
        let mut attached = None;
        if known.ifindex != Some(link.ifindex) {
            self.dataplane.release(&known.name);
            match self.dataplane.attach(&known.name) {
                Ok(attachment) => {
                    info!(interface = known.name, ifindex = attachment.ifindex, "the interface is there");
                    known.complaint.clear();
                    known.ifindex = Some(attachment.ifindex);
                    attached = Some(attachment);
                }
                Err(error) => {
                    known.ifindex = None;
                    let complaint = error.to_string();
                    // Each message about the interface is another try.
                    if complaint != known.complaint {
                        warn!(interface = known.name, %error, "the programs are not on the interface");
                        known.complaint = complaint;
                    }
                }
            }
        }
        let state = match known.ifindex {
            None => InterfaceState::Detached,
            Some(_) if link.is_up => InterfaceState::Up,
            Some(_) => InterfaceState::Down,
        };
        if state == known.state && attached.is_none() {
            return changes;
        }
        match (known.state, state) {
            (InterfaceState::Up, InterfaceState::Down) => info!(interface = known.name, "no carrier"),
            (InterfaceState::Down, InterfaceState::Up) => info!(interface = known.name, "the carrier is back"),
            _ => {}
        }
        known.state = state;
        changes.push(LanChange::Interface { name: known.name.clone(), state, attached });
        changes
    }
}
