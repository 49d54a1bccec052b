//! Searches for devices that answer no ARP before their rows are removed (GW-8, T-6), and collects the answers for an
//! address that another client claims (GW-17).
//!
//! A device is present if one of these is newer than the first lost probe: the confirmation of the kernel's neighbour
//! entry, a packet from the device in a flow of the connection tracker (if it counts packets), or a frame from the
//! device's address. The existence of an entry proves nothing, nor does a packet to the device.
//!
//! Frames are received by packet sockets with a kernel filter on segment and address. The sockets are open only during
//! a search, so that other traffic costs nothing at other times.

use std::{
    collections::HashMap,
    fs,
    future::poll_fn,
    io,
    net::Ipv4Addr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, sleep_until},
};
use tr111_common::{
    abi::ClientKey,
    headers::{Segment, find_arp},
};
use tr111_core::{arp::EVERYBODY, association::LifeSign, time::BootTime};

use super::{
    Ask, Clock,
    prober::{Prober, Target, interface_name},
};
use crate::{
    essential,
    os::{
        netlink::Netlink,
        packet_socket::{PacketSocket, SOURCES_MAXIMUM},
    },
};

/// Searches that may wait for the task.
const QUEUE: usize = 16_384;
/// Searches that the task takes at once.
const BATCH: usize = 1_024;
/// Greatest number of open sockets. Further searches receive no frames, so a silent device is removed after its probes.
const SOCKETS_MAXIMUM: usize = 64;
/// Greatest number of concurrent searches in tracked flows. Each reads the connection tracker's table twice.
const FLOW_SEARCHES: usize = 32;
/// How long answers for a claimed address are collected.
const ANSWER: Duration = Duration::from_secs(1);
/// Greatest number of hardware addresses that are reported for one address.
const ANSWERS_MAXIMUM: usize = 8;
/// Greatest time between the second look at the flows and the end of the search.
const BEFORE_THE_END: Duration = Duration::from_secs(1);
/// Uncertainty of the time of a neighbour entry: two roundings to ticks of 10 ms.
const TICKS: Duration = Duration::from_millis(20);
/// Bytes of a frame that are read: up to the sender address of ARP behind a VLAN tag.
const FRAME: usize = 64;
/// Frames that are read from one socket before other sockets have their turn.
const FRAMES: usize = 64;
/// Contains 1 if the connection tracker counts packets.
const ACCOUNTING: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Any sign of life of a client that is newer than `since`.
    Sign { client: ClientKey, ip: Ipv4Addr, since: BootTime, until: BootTime },
    /// All hosts that answer for an address.
    Answers { segment: Segment, ip: Ipv4Addr },
}

/// A result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// A client is present.
    Alive {
        /// The client.
        client: ClientKey,
        /// The kind of evidence.
        sign: LifeSign,
    },
    /// A host answered for an address.
    Answer {
        /// The segment.
        segment: Segment,
        /// The address.
        ip: Ipv4Addr,
        /// The sender hardware address of the answer.
        mac: [u8; 6],
    },
}

/// Queues orders for the task that searches.
#[derive(Clone, Debug)]
pub struct Search {
    orders: mpsc::Sender<Order>,
}

impl Search {
    /// Starts the task, which sends its results to `owner`.
    ///
    /// # Panics
    /// If it is called outside a tokio runtime.
    pub fn start(prober: Prober, owner: mpsc::Sender<Ask>, conntrack: Option<Netlink>) -> Self {
        let (orders, waiting) = mpsc::channel(QUEUE);
        let route = Netlink::route()
            .inspect_err(|error| tracing::warn!(%error, "cannot open rtnetlink; searches do not use neighbour entries"))
            .ok();
        let flow_searches = Arc::new(Semaphore::new(FLOW_SEARCHES));
        let task = Task { prober, owner, route, conntrack, flow_searches, ears: Vec::new() };
        essential::task("search", task.run(waiting));
        Self { orders }
    }

    /// Queues a search. If the queue is full, the search is dropped.
    pub(super) fn begin(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            tracing::debug!(?order, "search dropped: the queue is full");
        }
    }
}

/// An address whose frames are wanted.
struct Wanted {
    ip: Ipv4Addr,
    until: Instant,
    purpose: Purpose,
}

enum Purpose {
    /// A sign of life: one frame of the client is enough.
    Sign(ClientKey),
    /// All hardware addresses that answer. These were reported already.
    Answers(Vec<[u8; 6]>),
}

/// A packet socket on a segment.
struct Ear {
    segment: Segment,
    /// Opened with the first filter.
    socket: Option<PacketSocket>,
    wanted: Vec<Wanted>,
    /// The filter of the socket does not match the wanted addresses.
    is_outdated: bool,
}

struct Task {
    prober: Prober,
    owner: mpsc::Sender<Ask>,
    route: Option<Netlink>,
    conntrack: Option<Netlink>,
    flow_searches: Arc<Semaphore>,
    ears: Vec<Ear>,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut batch = Vec::new();
        let mut frame = [0; FRAME];
        loop {
            let end = self.ears.iter().flat_map(|ear| &ear.wanted).map(|wanted| wanted.until).min();
            let mut sightings = Vec::new();
            tokio::select! {
                taken = orders.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    for order in batch.drain(..) {
                        sightings.extend(self.take(order).await);
                    }
                }
                (at, received) = next_frame(&self.ears, &mut frame) => sightings = self.read(at, received, &mut frame),
                () = sleep_until(end.unwrap_or_else(Instant::now).into()), if end.is_some() => {
                    let now = Instant::now();
                    for ear in &mut self.ears {
                        ear.retain(|wanted| wanted.until > now);
                    }
                }
            }
            self.refresh();
            for sighting in sightings {
                if self.owner.send(Ask::Sighted(sighting)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Starts a search, or returns its result if the neighbour entry decides it.
    async fn take(&mut self, order: Order) -> Option<Sighting> {
        match order {
            Order::Sign { client, ip, since, until } => {
                if self.is_confirmed(client.segment, ip, since).await {
                    return Some(Sighting::Alive { client, sign: LifeSign::Neighbour });
                }
                let until = instant(until);
                self.look_at_flows(client, ip, until);
                self.want(client.segment, Wanted { ip, until, purpose: Purpose::Sign(client) });
            }
            Order::Answers { segment, ip } => {
                let until = Instant::now() + ANSWER;
                let mut ears = self.ears.iter_mut().filter(|ear| ear.segment == segment);
                let is_asked = |wanted: &&mut Wanted| wanted.ip == ip && matches!(wanted.purpose, Purpose::Answers(_));
                match ears.find_map(|ear| ear.wanted.iter_mut().find(is_asked)) {
                    Some(asked) => (asked.until, asked.purpose) = (until, Purpose::Answers(Vec::new())),
                    None => self.want(segment, Wanted { ip, until, purpose: Purpose::Answers(Vec::new()) }),
                }
                // The socket is opened before the request is sent, so that it receives the answers.
                self.refresh();
                self.prober.probe(Target { segment, mac: EVERYBODY, ip });
            }
        }
        None
    }

    fn want(&mut self, segment: Segment, wanted: Wanted) {
        let has_room = |ear: &&mut Ear| ear.segment == segment && ear.wanted.len() < SOURCES_MAXIMUM;
        if let Some(ear) = self.ears.iter_mut().find(has_room) {
            ear.wanted.push(wanted);
            ear.is_outdated = true;
        } else if self.ears.len() < SOCKETS_MAXIMUM {
            self.ears.push(Ear { segment, socket: None, wanted: vec![wanted], is_outdated: true });
        } else {
            tracing::debug!(?segment, ip = %wanted.ip, "search dropped: all sockets are in use");
        }
    }

    /// Reads the frames of a socket. A socket that fails is closed, and its searches end without a result.
    fn read(&mut self, at: usize, received: io::Result<usize>, frame: &mut [u8; FRAME]) -> Vec<Sighting> {
        let (mut received, mut sightings) = (received.map(Some), Vec::new());
        for _ in 0..FRAMES {
            let ear = &mut self.ears[at];
            match received {
                Ok(Some(length)) => ear.hear(&frame[..length.min(FRAME)], &mut sightings),
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, segment = ?ear.segment, "cannot receive frames; searches end");
                    self.ears.swap_remove(at);
                    break;
                }
            }
            received = ear.socket.as_ref().map_or(Ok(None), |socket| socket.try_receive(frame));
        }
        sightings
    }

    /// Opens, filters and closes the sockets as required.
    fn refresh(&mut self) {
        self.ears.retain_mut(|ear| {
            if ear.is_outdated
                && !ear.wanted.is_empty()
                && let Err(error) = ear.filter()
            {
                tracing::debug!(%error, segment = ?ear.segment, "cannot open a packet socket; searches end");
                return false;
            }
            !ear.wanted.is_empty()
        });
    }

    /// Whether the kernel's neighbour entry of an address was confirmed after `since`. Always false in a VLAN, whose
    /// entry belongs to another interface.
    async fn is_confirmed(&self, segment: Segment, ip: Ipv4Addr, since: BootTime) -> bool {
        let Some(route) = self.route.as_ref().filter(|_| segment.vlan == [0, 0]) else { return false };
        let confirmed = route.neighbour_confirmed(segment.ifindex, ip).await;
        let confirmed =
            confirmed.inspect_err(|error| tracing::debug!(%error, %ip, "neighbour entry not read")).ok().flatten();
        confirmed.is_some_and(|ago| since + ago + TICKS < Clock::now())
    }

    /// Compares the packet counts of the client's flows now and at the end of the search, if the connection tracker
    /// counts.
    fn look_at_flows(&self, client: ClientKey, ip: Ipv4Addr, until: Instant) {
        let is_counted = fs::read_to_string(ACCOUNTING).is_ok_and(|text| text.trim() == "1");
        let Some(conntrack) = self.conntrack.as_ref().filter(|_| is_counted) else { return };
        let Ok(leave) = Arc::clone(&self.flow_searches).try_acquire_owned() else { return };
        tokio::spawn(look_at_flows(conntrack.clone(), self.owner.clone(), client, ip, until, leave));
    }
}

impl Ear {
    fn retain(&mut self, keep: impl Fn(&Wanted) -> bool) {
        let before = self.wanted.len();
        self.wanted.retain(keep);
        self.is_outdated |= self.wanted.len() != before;
    }

    /// Sets the filter of the socket to the wanted addresses; opens the socket if necessary.
    fn filter(&mut self) -> io::Result<()> {
        let sources: Vec<Ipv4Addr> = self.wanted.iter().map(|wanted| wanted.ip).collect();
        if let Some(socket) = &self.socket {
            socket.set_sources(self.segment.vlan, &sources)?;
        } else {
            let opened = interface_name(self.segment.ifindex)
                .and_then(|interface| PacketSocket::open_for_sources(&interface, self.segment.vlan, &sources));
            self.socket = Some(opened.map_err(io::Error::other)?);
        }
        self.is_outdated = false;
        Ok(())
    }

    /// Processes a frame that passed the filter.
    fn hear(&mut self, frame: &[u8], sightings: &mut Vec<Sighting>) {
        let Some((ip, mac)) = sender(frame, self.segment) else { return };
        let (segment, before) = (self.segment, self.wanted.len());
        self.wanted.retain_mut(|wanted| {
            if wanted.ip != ip {
                return true;
            }
            match (&mut wanted.purpose, mac) {
                (Purpose::Sign(client), _) => {
                    sightings.push(Sighting::Alive { client: *client, sign: LifeSign::Frame });
                    return false;
                }
                (Purpose::Answers(told), Some(mac)) if told.len() < ANSWERS_MAXIMUM && !told.contains(&mac) => {
                    told.push(mac);
                    sightings.push(Sighting::Answer { segment, ip, mac });
                }
                (Purpose::Answers(_), _) => {}
            }
            true
        });
        self.is_outdated |= self.wanted.len() != before;
    }
}

/// The next frame of any socket, and the index of the socket. Cancel-safe.
async fn next_frame(ears: &[Ear], frame: &mut [u8]) -> (usize, io::Result<usize>) {
    poll_fn(|context| {
        for (at, ear) in ears.iter().enumerate() {
            if let Some(socket) = &ear.socket
                && let Poll::Ready(received) = socket.poll_receive(context, frame)
            {
                return Poll::Ready((at, received));
            }
        }
        Poll::Pending
    })
    .await
}

/// The sender of a frame that passed the filter: the source address of IPv4, or the sender addresses of ARP. The kernel
/// has removed the outer VLAN tag.
fn sender(frame: &[u8], segment: Segment) -> Option<(Ipv4Addr, Option<[u8; 6]>)> {
    /// Offset of the source address of IPv4 behind an Ethernet header.
    const SOURCE: usize = 14 + 12;
    if let Some(arp) = find_arp(frame, None) {
        return Some((arp.ip.into(), Some(arp.mac)));
    }
    let tag = if segment.vlan[1] == 0 { 0 } else { 4 };
    Some(((*frame.get(SOURCE + tag..)?.first_chunk::<4>()?).into(), None))
}

async fn look_at_flows(
    conntrack: Netlink,
    owner: mpsc::Sender<Ask>,
    client: ClientKey,
    ip: Ipv4Addr,
    until: Instant,
    _leave: OwnedSemaphorePermit,
) {
    let failed = |error: &io::Error| tracing::debug!(%error, %ip, "cannot read the connection tracker");
    let Ok(before) = conntrack.packets_from(ip).await.inspect_err(failed) else { return };
    let left = until.saturating_duration_since(Instant::now());
    sleep(left.saturating_sub(BEFORE_THE_END.min(left / 4))).await;
    let Ok(after) = conntrack.packets_from(ip).await.inspect_err(failed) else { return };
    if has_risen(&before, &after) {
        let _ = owner.send(Ask::Sighted(Sighting::Alive { client, sign: LifeSign::Flow })).await;
    }
}

/// Whether a flow counts more packets than before, or is new and counts any.
fn has_risen(before: &HashMap<Vec<u8>, u64>, after: &HashMap<Vec<u8>, u64>) -> bool {
    after.iter().any(|(flow, packets)| *packets > before.get(flow).copied().unwrap_or(0))
}

/// Converts a boot time to an `Instant`; a past time becomes now.
fn instant(time: BootTime) -> Instant {
    Instant::now() + time.since(Clock::now()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-6: a flow with traffic in the other direction only, or a flow that ended, is not a sign of life.
    #[test]
    fn only_a_counter_that_rose_is_a_sign() {
        let flows = |counts: &[(u8, u64)]| counts.iter().map(|(flow, packets)| (vec![*flow], *packets)).collect();
        assert!(!has_risen(&flows(&[(1, 5), (2, 7)]), &flows(&[(1, 5)])));
        assert!(!has_risen(&flows(&[]), &flows(&[(1, 0)])));
        assert!(has_risen(&flows(&[(1, 5), (2, 7)]), &flows(&[(1, 5), (2, 8)])));
        assert!(has_risen(&flows(&[(1, 5)]), &flows(&[(1, 5), (3, 1)])));
    }

    #[test]
    fn the_sender_of_arp_and_of_ipv4_is_found_behind_an_inner_tag_too() {
        let mut arp = vec![0; 12];
        arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 192, 168, 1, 7]);
        let untagged = Segment::default();
        assert_eq!(sender(&arp, untagged), Some(([192, 168, 1, 7].into(), Some([2, 0, 0, 0, 0, 9]))));
        let mut ipv4 = vec![0; 12];
        ipv4.extend([0x08, 0x00, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 3]);
        assert_eq!(sender(&ipv4, untagged), Some(([10, 0, 0, 3].into(), None)));
        ipv4.splice(12..12, [0x81, 0x00, 0, 6]);
        assert_eq!(sender(&ipv4, Segment { ifindex: 1, vlan: [5, 6] }), Some(([10, 0, 0, 3].into(), None)));
        assert_eq!(sender(&ipv4[..20], untagged), None);
    }
}
