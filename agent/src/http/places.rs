//! Limits of concurrent connections, and the choice of the connection that is closed in favour of a new one.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use super::Limits;

/// The limit of event streams is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are too many event streams already")]
pub struct Full;

/// The addresses that one client can choose from: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The headers of a request are being received; before the first request also the TLS handshake.
    Heading,
    /// A request is being answered.
    Answering,
    /// The connection is idle after a response.
    Resting,
    /// The connection is an event stream.
    Streaming,
}

#[derive(Debug)]
struct Seat {
    source: Source,
    phase: Phase,
    /// Time of the last change of the phase; in [`Phase::Resting`], of the last written byte.
    since: Instant,
    /// Whether a request was received.
    has_asked: bool,
    /// Whether the client is authenticated.
    is_trusted: bool,
    /// Dropping it closes the connection; `None` after that.
    keep: Option<oneshot::Sender<()>>,
}

impl Seat {
    fn is_stranger(&self) -> bool {
        !self.is_trusted && self.phase != Phase::Streaming
    }

    fn may_leave(&self) -> bool {
        self.phase != Phase::Streaming && !(self.is_trusted && self.phase == Phase::Answering)
    }
}

/// What happens to a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// It is accepted.
    Enter,
    /// It is accepted after this connection is closed.
    Displace(u64),
    /// It waits until a connection ends, or until this time.
    Wait(Option<Instant>),
}

#[derive(Debug, Default)]
struct Seats {
    last: u64,
    taken: BTreeMap<u64, Seat>,
}

impl Seats {
    fn strangers(&self, source: Source) -> usize {
        self.taken.values().filter(|seat| seat.is_stranger() && seat.source == source).count()
    }

    /// Decides about a new connection from `source`.
    fn decide(&self, limits: &Limits, source: Source, now: Instant) -> Decision {
        if self.strangers(source) >= limits.per_source {
            return self.make_room(limits, now, |seat| seat.is_stranger() && seat.source == source);
        }
        let connections = self.taken.values().filter(|seat| seat.phase != Phase::Streaming).count();
        if connections >= limits.connections {
            return self.make_room(limits, now, Seat::may_leave);
        }
        Decision::Enter
    }

    /// Chooses the connection to close by these criteria, in this order: the client is not authenticated; its source has
    /// the most unauthenticated connections; it sent no request; it has been inactive for the longest time.
    fn make_room(&self, limits: &Limits, now: Instant, is_meant: impl Fn(&Seat) -> bool) -> Decision {
        let meant = || self.taken.iter().filter(|(_, seat)| is_meant(seat));
        if meant().any(|(_, seat)| seat.keep.is_none()) {
            return Decision::Wait(None);
        }
        let heard_out = |seat: &Seat| if seat.has_asked { seat.since } else { seat.since + limits.grace };
        let worth = |seat: &Seat| (seat.is_trusted, Reverse(self.strangers(seat.source)), seat.has_asked, seat.since);
        let ready = meant().filter(|(_, seat)| heard_out(seat) <= now);
        match ready.min_by_key(|(_, seat)| worth(seat)) {
            Some((&number, _)) => Decision::Displace(number),
            None => Decision::Wait(meant().map(|(_, seat)| heard_out(seat)).min()),
        }
    }

    fn seat(&mut self, source: Source, now: Instant) -> (u64, oneshot::Receiver<()>) {
        let (keep, displaced) = oneshot::channel();
        self.last += 1;
        let (phase, keep) = (Phase::Heading, Some(keep));
        let seat = Seat { source, phase, since: now, has_asked: false, is_trusted: false, keep };
        self.taken.insert(self.last, seat);
        (self.last, displaced)
    }

    fn displace(&mut self, number: u64) {
        if let Some(seat) = self.taken.get_mut(&number) {
            seat.keep = None;
        }
    }

    fn enter(&mut self, number: u64, phase: Phase, now: Instant) {
        // A stream remains a stream until its connection ends.
        if let Some(seat) = self.taken.get_mut(&number).filter(|seat| seat.phase != Phase::Streaming) {
            seat.phase = phase;
            seat.since = now;
            seat.has_asked |= phase == Phase::Answering;
        }
    }

    fn stream(&mut self, limits: &Limits, number: u64) -> Result<(), Full> {
        let Some(source) = self.taken.get(&number).map(|seat| seat.source) else { return Err(Full) };
        let streams = || self.taken.values().filter(|seat| seat.phase == Phase::Streaming);
        let of_source = streams().filter(|seat| seat.source == source).count();
        if streams().count() >= limits.streams || of_source >= limits.streams_per_source {
            return Err(Full);
        }
        if let Some(seat) = self.taken.get_mut(&number) {
            seat.phase = Phase::Streaming;
        }
        Ok(())
    }
}

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct Places {
    limits: Limits,
    seats: Mutex<Seats>,
    left: Notify,
}

impl Places {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, seats: Mutex::default(), left: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        // A panic cannot leave a half-made change: no code that holds this lock panics.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place for a new connection. Returns the place and a future that resolves when the connection must be
    /// closed.
    pub(super) async fn admit(self: &Arc<Self>, from: IpAddr) -> (Place, impl Future<Output = ()> + Send + use<>) {
        let source = Source::from(from);
        let (number, displaced) = loop {
            let now = Instant::now();
            let decision = self.lock().decide(&self.limits, source, now);
            let until = match decision {
                Decision::Enter => break self.lock().seat(source, now),
                Decision::Displace(number) => {
                    self.lock().displace(number);
                    None
                }
                Decision::Wait(until) => until,
            };
            match until {
                // A connection may end earlier.
                Some(until) => drop(timeout_at(until, self.left.notified()).await),
                None => self.left.notified().await,
            }
        };
        let displaced = async move { drop(displaced.await) };
        (Place { places: Arc::clone(self), number }, displaced)
    }

    pub(super) fn set_trusted(&self, number: u64, is_trusted: bool) {
        if let Some(seat) = self.lock().taken.get_mut(&number) {
            seat.is_trusted = is_trusted;
        }
    }

    pub(super) fn stream(&self, number: u64) -> Result<(), Full> {
        self.lock().stream(&self.limits, number)?;
        // The stream no longer counts as a connection, so a new one can be accepted.
        self.left.notify_one();
        Ok(())
    }

    /// Marks the connection as answering a request until the returned guard is dropped.
    pub(super) fn answer(self: &Arc<Self>, number: u64) -> Answering {
        self.lock().enter(number, Phase::Answering, Instant::now());
        Answering { places: Arc::clone(self), number }
    }

    /// Bytes were received.
    pub(super) fn heard(&self, number: u64, now: Instant) {
        let mut seats = self.lock();
        if seats.taken.get(&number).is_some_and(|seat| seat.phase == Phase::Resting) {
            seats.enter(number, Phase::Heading, now);
        }
    }

    /// Bytes of a response were sent.
    pub(super) fn spoke(&self, number: u64, now: Instant) {
        if let Some(seat) = self.lock().taken.get_mut(&number).filter(|seat| seat.phase == Phase::Resting) {
            seat.since = now;
        }
    }

    /// When the connection times out if the client sends nothing.
    pub(super) fn deadline(&self, number: u64) -> Option<Instant> {
        let seats = self.lock();
        let seat = seats.taken.get(&number)?;
        match seat.phase {
            Phase::Heading => Some(seat.since + self.limits.headers),
            Phase::Resting => Some(seat.since + self.limits.idle),
            Phase::Answering | Phase::Streaming => None,
        }
    }
}

/// A place of a connection, which becomes free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
}

impl Place {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().taken.remove(&self.number);
        self.places.left.notify_one();
    }
}

/// Guard of a request that is being answered. The connection becomes idle when it is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    places: Arc<Places>,
    number: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.places.lock().enter(self.number, Phase::Resting, Instant::now());
        // A newcomer that waits may displace it now.
        self.places.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits {
        connections: 8,
        per_source: 4,
        streams: 3,
        streams_per_source: 2,
        grace: Duration::from_millis(100),
        headers: Duration::from_secs(10),
        idle: Duration::from_mins(1),
        stall: Duration::from_secs(30),
        header_bytes: 8_192,
    };

    fn source(number: u8) -> Source {
        IpAddr::from([192, 0, 2, number]).into()
    }

    /// Seats and a simulated time.
    struct Story {
        seats: Seats,
        now: Instant,
        kept: Vec<oneshot::Receiver<()>>,
    }

    impl Story {
        fn begin() -> Self {
            Self { seats: Seats::default(), now: Instant::now(), kept: Vec::new() }
        }

        fn wait(&mut self, milliseconds: u64) {
            self.now += Duration::from_millis(milliseconds);
        }

        fn enter(&mut self, from: u8) -> u64 {
            assert_eq!(self.decide(from), Decision::Enter);
            let (number, displaced) = self.seats.seat(source(from), self.now);
            self.kept.push(displaced);
            number
        }

        fn ask(&mut self, number: u64) {
            self.seats.enter(number, Phase::Answering, self.now);
        }

        fn rest(&mut self, number: u64) {
            self.seats.enter(number, Phase::Resting, self.now);
        }

        fn trust(&mut self, number: u64) {
            self.seats.taken.get_mut(&number).expect("a seat").is_trusted = true;
        }

        fn decide(&self, from: u8) -> Decision {
            self.seats.decide(&LIMITS, source(from), self.now)
        }

        fn give_way(&mut self, from: u8) -> u64 {
            let Decision::Displace(number) = self.decide(from) else { panic!("{:?}", self.decide(from)) };
            self.seats.displace(number);
            assert_eq!(self.decide(from), Decision::Wait(None), "one at a time");
            self.seats.taken.remove(&number);
            number
        }
    }

    /// SEC-8: connections of a source with many connections are closed before those of a source with few.
    #[test]
    fn a_newcomer_displaces_the_oldest_silent_connection_of_the_source_that_has_most() {
        let mut story = Story::begin();
        let lone = story.enter(1);
        let many: Vec<_> = (0..4).map(|_| story.enter(2)).collect();
        let some: Vec<_> = (0..3).map(|_| story.enter(3)).collect();
        story.wait(200);
        story.ask(many[0]);
        story.rest(many[0]);
        assert_eq!(story.give_way(4), many[1], "who asked is worth more than who is silent");
        story.enter(4);
        story.wait(200);
        assert_eq!(story.give_way(5), many[2], "as many as the third has, and older");
        story.enter(5);
        story.wait(200);
        assert_eq!(story.give_way(6), some[0]);
        assert!(story.seats.taken.contains_key(&lone));
    }

    #[test]
    fn a_source_has_so_many_connections_and_displaces_its_own() {
        let mut story = Story::begin();
        let first = story.enter(1);
        let own: Vec<_> = (0..4).map(|_| story.enter(2)).collect();
        story.wait(200);
        assert_eq!(story.give_way(2), own[0]);
        assert!(story.seats.taken.contains_key(&first), "the older one of somebody else stays");
    }

    #[test]
    fn who_proved_who_it_is_stays_while_it_is_answered_and_goes_last_while_it_rests() {
        let mut story = Story::begin();
        let known: Vec<_> = (0..7)
            .map(|_| {
                let number = story.enter(1);
                story.ask(number);
                story.trust(number);
                number
            })
            .collect();
        let stranger = story.enter(2);
        story.ask(stranger);
        story.wait(200);
        assert_eq!(story.give_way(3), stranger);
        let next = story.enter(3);
        story.ask(next);
        story.trust(next);
        assert_eq!(story.decide(4), Decision::Wait(None), "all are answered");
        story.rest(known[3]);
        assert_eq!(story.give_way(4), known[3]);
    }

    /// Clients that connect at the same time can all send their requests.
    #[test]
    fn a_new_connection_is_heard_out() {
        let mut story = Story::begin();
        let start = story.now;
        let own: Vec<_> = (0..4).map(|_| story.enter(1)).collect();
        story.wait(50);
        assert_eq!(story.decide(1), Decision::Wait(Some(start + LIMITS.grace)));
        story.ask(own[2]);
        story.rest(own[2]);
        assert_eq!(story.decide(1), Decision::Displace(own[2]), "it had its answer");
        story.wait(50);
        assert_eq!(story.give_way(1), own[0]);
    }

    #[test]
    fn event_streams_have_places_of_their_own() {
        let mut story = Story::begin();
        let streams: Vec<_> = (0..4).map(|_| story.enter(1)).collect();
        for number in &streams {
            story.ask(*number);
        }
        let results = streams.iter().map(|&number| story.seats.stream(&LIMITS, number)).collect::<Vec<_>>();
        assert_eq!(results, [Ok(()), Ok(()), Err(Full), Err(Full)], "two of one source");
        for number in &streams {
            story.rest(*number);
        }
        let others: Vec<_> = [2, 3].map(|from| story.enter(from)).into();
        assert_eq!(story.seats.stream(&LIMITS, others[0]), Ok(()));
        assert_eq!(story.seats.stream(&LIMITS, others[1]), Err(Full), "three in all");
        let before = story.seats.taken.len();
        for from in 10..15 {
            story.enter(from);
        }
        story.wait(200);
        for from in 20..30 {
            story.give_way(from);
            story.enter(from);
            story.wait(200);
        }
        assert_eq!(story.seats.taken.len(), before + 5, "eight connections and three streams");
        for number in [streams[0], streams[1], others[0]] {
            assert_eq!(story.seats.taken[&number].phase, Phase::Streaming);
        }
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        let source = |text: &str| Source::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.2"), source("192.0.2.1"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:3:4:5:6"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }
}
