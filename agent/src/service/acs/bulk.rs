//! Connection Requests to many CPEs, at a given rate.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime, sync::Semaphore, sync::mpsc, task::JoinSet};
use tr111_core::connreq::COPIES;

use super::{
    Acs, Error,
    send::Order,
    socket::{BATCH, Outgoing},
};
use crate::{
    control::message::{BulkProgress, BulkSummary},
    random,
    telemetry::AcsMetrics,
};

/// Number of CPEs that are read from the registry, and whose `ts` are reserved, at once.
const CHUNK: usize = 1_024;
/// Groups of datagrams per second: no group has more than 1/500 of a second's CPEs.
const GROUPS: u32 = 500;
/// Number of host names that are looked up at the same time.
const LOOKUPS: usize = 64;
/// Interval between two reports of progress.
const TELL: Duration = Duration::from_millis(100);

/// The CPEs that receive a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every CPE.
    All,
    /// The CPEs with these names (STUNUsername).
    Names(Vec<String>),
}

/// State of a bulk of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Requests are being sent.
    Progress(BulkProgress),
    /// All copies have been sent.
    Finished(BulkSummary),
}

impl Acs {
    /// Sends Connection Requests in `copies` to the selected CPEs, at `rate` CPEs per second. Dropping the receiver
    /// stops it.
    pub fn send_many(&self, selection: Selection, rate: u32, copies: usize) -> mpsc::Receiver<Bulk> {
        let (told, progress) = mpsc::channel(16);
        let total = match &selection {
            Selection::All => self.size().cpes,
            Selection::Names(names) => names.len() as u64,
        };
        let sender = Sender {
            acs: self.clone(),
            runtime: runtime::Handle::current(),
            told,
            pace: Pace { start: Instant::now(), rate: rate.max(1), departed: 0 },
            copies: copies.clamp(1, COPIES.len()),
            waiting: Default::default(),
            summary: BulkSummary { cpes: total, ..BulkSummary::default() },
            done: 0,
            last_told: Instant::now(),
            is_left: false,
            named: JoinSet::new(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        };
        // Signing and pacing keep a core busy, and sending may wait for buffer space.
        drop(tokio::task::spawn_blocking(move || sender.run(selection)));
        progress
    }

    /// Returns the orders for the next CPEs of all, from number `from` on, and the number of the next page.
    fn orders(&self, from: u32) -> (Vec<Result<Order, Error>>, Option<u32>) {
        let approach = self.approach();
        let page = self.page(from, CHUNK, |cpe| [Order::new(cpe, approach)]);
        (page.items, page.next)
    }

    fn orders_of(&self, names: &[String]) -> Vec<Result<Order, Error>> {
        let approach = self.approach();
        let order = |name: &String| self.get(name).ok_or(Error::Unknown).and_then(|cpe| Order::new(&cpe, approach));
        names.iter().map(order).collect()
    }
}

/// Computes when the next group is due.
#[derive(Debug)]
struct Pace {
    start: Instant,
    rate: u32,
    departed: u64,
}

impl Pace {
    fn next(&self) -> Instant {
        self.start + Duration::from_nanos(self.departed.saturating_mul(1_000_000_000) / u64::from(self.rate))
    }

    /// Number of CPEs in a group.
    fn group(&self) -> usize {
        ((self.rate / GROUPS) as usize).clamp(1, BATCH)
    }
}

/// Datagrams that are sent together, each with the index of its socket.
type Group = Vec<(usize, Outgoing)>;

/// A group that waits for its next copy.
#[derive(Debug)]
struct Waiting {
    first: Instant,
    group: Group,
}

#[derive(Debug)]
struct Sender {
    acs: Acs,
    runtime: runtime::Handle,
    told: mpsc::Sender<Bulk>,
    pace: Pace,
    copies: usize,
    /// Groups by the number of the copy that they send next, in the order in which they are due.
    waiting: [VecDeque<Waiting>; COPIES.len()],
    summary: BulkSummary,
    done: u64,
    last_told: Instant,
    /// The receiver was dropped.
    is_left: bool,
    /// Requests whose host is a name, which is looked up first.
    named: JoinSet<Result<(), Error>>,
    lookups: Arc<Semaphore>,
}

impl Sender {
    fn run(mut self, selection: Selection) {
        match selection {
            Selection::All => {
                let mut from = Some(0);
                while let Some(first) = from.filter(|_| !self.is_left) {
                    let (orders, next) = self.acs.orders(first);
                    from = next;
                    self.take(orders);
                }
            }
            Selection::Names(names) => {
                for names in names.chunks(CHUNK) {
                    if self.is_left {
                        break;
                    }
                    let orders = self.acs.orders_of(names);
                    self.take(orders);
                }
            }
        }
        // Requests that were sent once get all their copies.
        while let Some(due) = self.next_copy() {
            self.wait_until(due);
        }
        while let Some(joined) = self.runtime.block_on(self.named.join_next()) {
            self.count(joined.unwrap_or_else(|error| Err(Error::NotSent(error.to_string()))));
        }
        self.summary.duration_ms = u64::try_from(self.pace.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let _ = self.told.blocking_send(Bulk::Finished(self.summary));
    }

    /// Sends to these CPEs.
    fn take(&mut self, orders: Vec<Result<Order, Error>>) {
        let mut good = Vec::with_capacity(orders.len());
        for order in orders {
            match order {
                Ok(order) => good.push(order),
                Err(error) => self.count(Err(error)),
            }
        }
        let reserved = self.runtime.block_on(self.acs.reserve(&good));
        let nonces = random::bytes::<{ CHUNK * 8 }>().map_err(|error| Error::NotSent(error.to_string()));
        let (timestamps, nonces) = match (reserved, nonces) {
            (Ok(timestamps), Ok(nonces)) => (timestamps, nonces),
            (Err(error), _) | (_, Err(error)) => return good.iter().for_each(|_| self.count(Err(error.clone()))),
        };
        let mut group = Group::with_capacity(self.pace.group());
        for ((order, timestamp), nonce) in good.into_iter().zip(timestamps).zip(nonces.as_chunks::<8>().0) {
            let Ok(ip) = order.authority.host.parse() else {
                self.look_up(order);
                continue;
            };
            let to = std::net::SocketAddrV4::new(ip, order.authority.port);
            match order.sign(timestamp, self.acs.next_id(), *nonce) {
                Ok(bytes) => {
                    let (socket, from) = self.acs.socket_for(order.server);
                    group.push((socket, Outgoing { to, from, bytes }));
                }
                Err(error) => self.count(Err(error)),
            }
            if group.len() >= self.pace.group() {
                self.depart(std::mem::take(&mut group));
            }
            if self.is_left {
                return;
            }
        }
        self.depart(group);
    }

    /// Looks up a host name in a task of its own, which then sends the request.
    fn look_up(&mut self, order: Order) {
        let (acs, lookups, copies) = (self.acs.clone(), Arc::clone(&self.lookups), self.copies);
        self.pace.departed += 1;
        let task = async move {
            let _place = lookups.acquire().await;
            acs.carry_out(Ok(order), copies).await.map(drop)
        };
        self.named.spawn_on(task, &self.runtime);
    }

    /// Sends the first copy when it is due, and queues the group for the next copy.
    fn depart(&mut self, group: Group) {
        if group.is_empty() {
            return;
        }
        self.wait_until(self.pace.next());
        let sent = self.transmit(&group);
        self.pace.departed += group.len() as u64;
        self.done += group.len() as u64;
        self.summary.sent += sent;
        self.acs.0.metrics.requests.with_label_values(&[AcsMetrics::SENT]).inc_by(sent);
        for _ in sent..group.len() as u64 {
            self.fail(&Error::NotSent(String::new()));
        }
        if self.copies > 1 {
            self.waiting[1].push_back(Waiting { first: Instant::now(), group });
        }
    }

    fn transmit(&mut self, group: &Group) -> u64 {
        let mut sent = 0;
        for run in group.chunk_by(|left, right| left.0 == right.0) {
            let datagrams = run.iter().map(|(_, datagram)| datagram);
            if let Some(socket) = self.acs.0.sockets.get(run[0].0) {
                sent += socket.send(datagrams, true) as u64;
            }
        }
        self.summary.datagrams += sent;
        sent
    }

    fn next_copy(&self) -> Option<Instant> {
        let fronts = self.waiting.iter().zip(COPIES);
        fronts.filter_map(|(queue, after)| Some(queue.front()?.first + after)).min()
    }

    /// Sends the copies that become due until `deadline`.
    fn wait_until(&mut self, deadline: Instant) {
        loop {
            let now = Instant::now();
            for (copy, after) in COPIES.into_iter().enumerate().skip(1) {
                while let Some(waiting) = self.waiting[copy].pop_front_if(|waiting| waiting.first + after <= now) {
                    self.transmit(&waiting.group);
                    if copy + 1 < self.copies {
                        self.waiting[copy + 1].push_back(waiting);
                    }
                }
            }
            if now.duration_since(self.last_told) >= TELL {
                self.last_told = now;
                self.tell();
            }
            if now >= deadline {
                return;
            }
            let next = self.next_copy().map_or(deadline, |copy| copy.min(deadline));
            thread::sleep(next.saturating_duration_since(Instant::now()).min(TELL));
        }
    }

    fn tell(&mut self) {
        let progress = BulkProgress { done: self.done, cpes: self.summary.cpes };
        let sent = self.told.try_send(Bulk::Progress(progress));
        self.is_left |= matches!(sent, Err(mpsc::error::TrySendError::Closed(_)));
    }

    /// Counts the result for one CPE.
    fn count(&mut self, result: Result<(), Error>) {
        self.done += 1;
        match result {
            Ok(()) => {
                self.summary.sent += 1;
                self.summary.datagrams += self.copies as u64;
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &Error) {
        let label = error.label();
        self.acs.0.metrics.requests.with_label_values(&[label]).inc();
        *self.summary.failed.entry(label.to_owned()).or_default() += 1;
    }
}
