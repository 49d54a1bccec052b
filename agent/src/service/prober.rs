//! Sends ARP requests to silent devices (GW-11). The kernel programs see the replies, like every ARP message from a
//! watched address; this module receives nothing.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use nix::{ifaddrs::getifaddrs, net::if_::if_indextoname};
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tr111_common::headers::Segment;
use tr111_core::arp::ArpRequest;

use crate::{
    essential,
    os::packet_socket::{PacketSocket, SocketError},
};

type Mac = [u8; 6];

/// How long the addresses of an interface are cached.
const FRESH: Duration = Duration::from_secs(10);
/// Probes that may wait to be sent. The core repeats probes that were dropped.
const QUEUE: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) segment: Segment,
    /// Destination address of the frame.
    pub(super) mac: Mac,
    pub(super) ip: Ipv4Addr,
}

/// Queues probes for the task that sends them.
#[derive(Clone, Debug)]
pub struct Prober {
    targets: mpsc::Sender<Target>,
}

struct Interface {
    socket: PacketSocket,
    mac: Mac,
    addresses: Vec<(Ipv4Addr, Ipv4Addr)>,
    read: Instant,
}

impl Prober {
    /// Starts the task, which counts sent probes in `sent`.
    ///
    /// # Panics
    /// If it is called outside a tokio runtime.
    pub fn start(sent: IntCounter) -> Self {
        let (targets, waiting) = mpsc::channel(QUEUE);
        essential::task("prober", run(sent, waiting));
        Self { targets }
    }

    /// Sends an ARP request to `target`. If the queue is full, the probe is dropped.
    pub(super) fn probe(&self, target: Target) {
        if self.targets.try_send(target).is_err() {
            tracing::debug!(?target, "probe dropped: the queue is full");
        }
    }
}

async fn run(sent: IntCounter, mut targets: mpsc::Receiver<Target>) {
    let mut interfaces: HashMap<u32, Interface> = HashMap::new();
    while let Some(target) = targets.recv().await {
        let ifindex = target.segment.ifindex;
        if interfaces.get(&ifindex).is_none_or(|interface| interface.read.elapsed() > FRESH) {
            // Entries of interfaces that were removed are dropped here.
            interfaces.retain(|_, interface| interface.read.elapsed() <= FRESH);
            match Interface::open(ifindex) {
                Ok(interface) => drop(interfaces.insert(ifindex, interface)),
                Err(error) => {
                    interfaces.remove(&ifindex);
                    tracing::debug!(%error, "cannot send probes on the interface");
                    continue;
                }
            }
        }
        let Some(interface) = interfaces.get(&ifindex) else { continue };
        let frame = interface.request(&target).to_frame(target.mac, target.segment.vlan);
        match interface.socket.send(&frame).await {
            Ok(()) => sent.inc(),
            Err(error) => {
                tracing::debug!(%error, ifindex, "cannot send a probe");
                interfaces.remove(&ifindex);
            }
        }
    }
}

impl Interface {
    fn open(ifindex: u32) -> Result<Self, SocketError> {
        let name = &interface_name(ifindex)?;
        let socket = PacketSocket::open_to_send(name)?;
        let system = |source| SocketError::System { interface: name.clone(), source };
        let (mut mac, mut addresses) = (None, Vec::new());
        for entry in getifaddrs().map_err(system)?.filter(|entry| entry.interface_name == *name) {
            let Some(address) = entry.address else { continue };
            if let Some(link) = address.as_link_addr() {
                mac = link.addr();
            }
            if let Some(inet) = address.as_sockaddr_in() {
                let mask = entry.netmask.and_then(|mask| Some(mask.as_sockaddr_in()?.ip()));
                addresses.push((inet.ip(), mask.unwrap_or(Ipv4Addr::BROADCAST)));
            }
        }
        let mac = mac.ok_or_else(|| SocketError::NoInterface(name.clone()))?;
        Ok(Self { socket, mac, addresses, read: Instant::now() })
    }

    fn request(&self, target: &Target) -> ArpRequest {
        ArpRequest { sender: (self.mac, sender(&self.addresses, target.ip)), target: target.ip }
    }
}

pub(super) fn interface_name(ifindex: u32) -> Result<String, SocketError> {
    let name = if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
    name.ok_or_else(|| SocketError::NoInterface(format!("number {ifindex}")))
}

/// The sender address: the one in the subnet of `target`, else the first one, else 0.0.0.0 as in an ARP Probe (RFC 5227
/// 2.1.1).
fn sender(addresses: &[(Ipv4Addr, Ipv4Addr)], target: Ipv4Addr) -> Ipv4Addr {
    let near = addresses.iter().find(|(address, mask)| *address & *mask == target & *mask);
    near.or(addresses.first()).map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| *address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_the_address_of_the_targets_subnet() {
        let mask = Ipv4Addr::new(255, 255, 255, 0);
        let addresses = [(Ipv4Addr::new(10, 0, 0, 1), mask), (Ipv4Addr::new(192, 168, 1, 1), mask)];
        assert_eq!(sender(&addresses, Ipv4Addr::new(192, 168, 1, 77)), Ipv4Addr::new(192, 168, 1, 1));
        assert_eq!(sender(&addresses, Ipv4Addr::new(172, 16, 0, 1)), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(sender(&[], Ipv4Addr::new(172, 16, 0, 1)), Ipv4Addr::UNSPECIFIED);
    }
}
