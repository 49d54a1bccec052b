//! Keeps the programs on the LAN interfaces, which may go and come back: a bridge that is made anew, a USB adapter, a
//! driver that is loaded again. The name is what lasts; the kernel index is another one each time.

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
    dataplane::{Attachment, Dataplane, Direction, Filters, ORDER_INTERVAL, Standing},
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
}

impl Lan {
    /// As [`Dataplane::start`] left them.
    pub fn new(dataplane: Dataplane) -> Self {
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
        let interfaces = dataplane.attachments().iter().map(known).chain(dataplane.missing().iter().map(missing));
        Self { interfaces: interfaces.collect(), dataplane }
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
            NetworkChange::LinkGone { ifindex } => self.gone(|known| known == ifindex),
            NetworkChange::Link(link) => self.link(&link),
            NetworkChange::Links(links) => {
                let mut changes = self.gone(|known| links.iter().all(|link| link.ifindex != known));
                changes.extend(links.iter().flat_map(|link| self.link(link)));
                changes
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
