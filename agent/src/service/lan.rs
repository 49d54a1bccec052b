//! Keeps the programs attached to the LAN interfaces. An interface may be removed and return: a bridge that is created
//! again, a USB adapter, a reloaded driver. It is identified by its name, because its kernel index changes each time.

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

/// A change that the owner of the table must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanChange {
    /// All IPv4 addresses of this machine.
    Addresses(Vec<std::net::Ipv4Addr>),
    /// A LAN interface changed state.
    Interface {
        /// The name of the interface.
        name: String,
        /// The new state.
        state: InterfaceState,
        /// The attachment, if the programs were attached just now.
        attached: Option<Attachment>,
    },
    /// A port of a LAN bridge was attached or released.
    Port {
        /// The name of the port.
        name: String,
        /// The attachment; `None` if the port was released.
        attached: Option<Attachment>,
    },
    /// The order of programs in the TC chains of an interface changed.
    Standing(Standing),
}

/// A configured LAN interface.
#[derive(Debug)]
struct Known {
    name: String,
    /// The index of the interface to which the programs are attached.
    ifindex: Option<u32>,
    state: InterfaceState,
    /// The last error of an attachment that was logged, so that it is logged once.
    complaint: String,
}

/// The LAN interfaces and their attachments.
#[derive(Debug)]
pub struct Lan {
    dataplane: Dataplane,
    interfaces: Vec<Known>,
    bridges: Bridges,
    /// The attached ports.
    ports: Vec<Port>,
    /// The last error that was logged for each port that could not be attached, by kernel index.
    complaints: BTreeMap<u32, String>,
}

impl Lan {
    /// Starts from the attachments of [`Dataplane::start`], with the `bridges` that were passed to it.
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

    /// Runs until the receiver of `told` is dropped, and returns the programs.
    pub async fn keep(
        mut self,
        mut network: mpsc::Receiver<NetworkChange>,
        told: mpsc::Sender<LanChange>,
    ) -> Dataplane {
        let netlink = Netlink::route()
            .inspect_err(|error| warn!(%error, "cannot open netlink; other TC filters will not be detected"))
            .ok();
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
                // A failed send means that the receiver was dropped; the loop ends then.
                let _ = told.send(change).await;
            }
        }
    }

    /// Checks which other programs are in the TC chains, and restores the order.
    async fn look(&mut self, netlink: Option<&Netlink>) -> Vec<LanChange> {
        let mut filters = Filters::new();
        for (ifindex, direction) in self.dataplane.chains() {
            let Some(netlink) = netlink else { continue };
            match netlink.filters(ifindex, direction == Direction::Egress).await {
                Ok(found) => drop(filters.insert((ifindex, direction), found)),
                Err(error) => tracing::debug!(%error, ifindex, "cannot read the TC filters"),
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

    /// Updates the attachments to ports of LAN bridges and adds the changes: all ports of a bridge that carries
    /// programs are attached.
    fn and_ports(&mut self, mut changes: Vec<LanChange>) -> Vec<LanChange> {
        if !self.dataplane.follows_ports() {
            return changes;
        }
        let attached = self.interfaces.iter().filter(|known| known.ifindex.is_some());
        let wanted = self.bridges.ports(attached.map(|known| known.name.as_str()));
        for port in self.ports.extract_if(.., |port| !wanted.contains(port)) {
            info!(port = port.name, "port removed from the LAN bridge");
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

    /// Attaches to a port. After a failure it is tried again with the next change of a link.
    fn port(&mut self, port: Port) -> Option<LanChange> {
        let is_named = self.interfaces.iter().any(|known| known.name == port.name);
        let attached =
            if is_named { Err(self.bridges.both_are_named(&port)) } else { self.dataplane.attach_port(&port) };
        match attached {
            Ok(attachment) => {
                info!(port = port.name, "port of a LAN bridge attached");
                self.complaints.remove(&port.ifindex);
                let name = port.name.clone();
                self.ports.push(port);
                Some(LanChange::Port { name, attached: Some(attachment) })
            }
            Err(error) => {
                let complaint = error.to_string();
                if self.complaints.get(&port.ifindex) != Some(&complaint) {
                    warn!(port = port.name, %error, "cannot attach to a port of a LAN bridge");
                    self.complaints.insert(port.ifindex, complaint);
                }
                None
            }
        }
    }

    /// Releases the interfaces whose index matches `is_gone`: they were removed or renamed.
    fn gone(&mut self, is_gone: impl Fn(u32) -> bool) -> Vec<LanChange> {
        let mut changes = Vec::new();
        for known in self.interfaces.iter_mut().filter(|known| known.ifindex.is_some_and(&is_gone)) {
            warn!(interface = known.name, "interface removed; the programs are attached again when it returns");
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
                    info!(interface = known.name, ifindex = attachment.ifindex, "programs attached to the interface");
                    known.complaint.clear();
                    known.ifindex = Some(attachment.ifindex);
                    attached = Some(attachment);
                }
                Err(error) => {
                    known.ifindex = None;
                    let complaint = error.to_string();
                    // Every message about the link causes another attempt.
                    if complaint != known.complaint {
                        warn!(interface = known.name, %error, "cannot attach the programs to the interface");
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
            (InterfaceState::Up, InterfaceState::Down) => info!(interface = known.name, "carrier lost"),
            (InterfaceState::Down, InterfaceState::Up) => info!(interface = known.name, "carrier restored"),
            _ => {}
        }
        known.state = state;
        changes.push(LanChange::Interface { name: known.name.clone(), state, attached });
        changes
    }
}
