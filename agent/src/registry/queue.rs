//! What waits for the thread that writes, in bounded memory however long the store takes.
//!
//! * What was learned, and nobody waits for, takes the place of what was learned of the same CPE before. So there are as many
//!   such changes as there are CPEs and associations, whatever was learned while the store stalled.
//! * What somebody waits for is refused beyond a limit.
//! * Signed requests that nobody waits for, or that are refused, are kept up to a generation, the last ones.

use std::{
    collections::{HashMap, VecDeque},
    mem::discriminant,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;
use tr111_core::{
    acs::{Change, Fingerprint, GENERATION},
    short::Short,
    time::UnixTime,
};

use super::{Wanted, journal::Refused};

/// Changes and timestamps that are waited for. At 1.5 kB for a CPE with the longest texts they take 25 MB.
const LIMIT: usize = 1 << 14;
/// What one job counts at most, so that a large import leaves room for others. Only one is at work at a time.
const JOB_LIMIT: usize = LIMIT / 2;
/// Signed requests that are waited for.
const SIGNED_LIMIT: usize = 1 << 16;
/// Changes, signed requests and timestamps of one batch, but for a job that is larger.
pub(super) const GROUP: usize = 8_192;

/// Changes that are written as a whole, and who waits for them.
pub(super) type Group = (Vec<Change>, Option<oneshot::Sender<Result<(), Refused>>>);
/// Signed requests, and who waits for what the store says of them.
pub(super) type Remember = (Vec<Fingerprint>, oneshot::Sender<Result<Vec<bool>, Refused>>);
/// Timestamps, and who waits for them.
pub(super) type Reserve = (Vec<Wanted>, UnixTime, oneshot::Sender<Result<Vec<u64>, Refused>>);

/// Something to do.
#[derive(Debug)]
pub(super) enum Job {
    Commit(Vec<Change>, oneshot::Sender<Result<(), Refused>>),
    Keep(Change),
    Remember(Remember),
    Reserve(Reserve),
}

impl Job {
    fn refuse(self) {
        match self {
            Self::Commit(_, done) => drop(done.send(Err(Refused::Busy))),
            Self::Remember((_, done)) => drop(done.send(Err(Refused::Busy))),
            Self::Reserve((.., done)) => drop(done.send(Err(Refused::Busy))),
            Self::Keep(_) => {}
        }
    }

    /// What it counts against [`LIMIT`].
    fn weight(&self) -> usize {
        match self {
            Self::Commit(changes, _) => changes.len().clamp(1, JOB_LIMIT),
            Self::Reserve((wanted, ..)) => wanted.len().clamp(1, JOB_LIMIT),
            Self::Keep(_) | Self::Remember(_) => 0,
        }
    }

    /// What it counts against [`SIGNED_LIMIT`].
    fn signed(&self) -> usize {
        if let Self::Remember((requests, _)) = self { requests.len() } else { 0 }
    }
}

/// Jobs that are done together: first the signed requests, then the changes, then timestamps.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) signed: Vec<Remember>,
    /// Signed requests that nobody waits for.
    pub(super) signed_later: VecDeque<Fingerprint>,
    pub(super) groups: Vec<Group>,
    pub(super) reserves: Vec<Reserve>,
    /// Changes, signed requests and timestamps.
    pub(super) size: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        let Self { signed, signed_later, groups, reserves, .. } = self;
        signed.is_empty() && signed_later.is_empty() && groups.is_empty() && reserves.is_empty()
    }

    /// Whether a job belongs to it: changes that come after timestamps belong to the next one.
    fn takes(&self, job: &Job) -> bool {
        let is_in_turn = self.reserves.is_empty() || !matches!(job, Job::Commit(..) | Job::Keep(_));
        self.size < GROUP && is_in_turn
    }

    fn push(&mut self, job: Job) {
        match job {
            Job::Remember(remember) => {
                self.size += remember.0.len();
                self.signed.push(remember);
            }
            Job::Reserve(reserve) => {
                self.size += reserve.0.len();
                self.reserves.push(reserve);
            }
            Job::Commit(changes, done) => {
                self.size += changes.len();
                self.groups.push((changes, Some(done)));
            }
            Job::Keep(change) => {
                self.size += 1;
                match self.groups.last_mut() {
                    Some((changes, None)) => changes.push(change),
                    _ => self.groups.push((vec![change], None)),
                }
            }
        }
    }
}

/// Where the last changes that nobody waits for are among those that wait, by kind and by whom they are about.
#[derive(Debug, Default)]
struct Places(HashMap<(Kind, Short), u64>);

/// Kinds of changes that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Put,
    State,
    Reported,
    Association,
    GoodTime,
}

impl Kind {
    fn of(change: &Change) -> Option<(Self, Short)> {
        let kind = match change {
            Change::Put(_) => Self::Put,
            Change::State(..) => Self::State,
            Change::Reported(..) => Self::Reported,
            Change::Association(..) => Self::Association,
            Change::GoodTime(_) => Self::GoodTime,
            Change::Added(_) | Change::Removed(_) | Change::TimestampReset(_) | Change::TimestampsReset => return None,
        };
        Some((kind, change.name().cloned().unwrap_or_default()))
    }
}

impl Places {
    /// The place of an earlier change of the same kind about the same.
    fn earlier(&self, change: &Change) -> Option<u64> {
        self.0.get(&Kind::of(change)?).copied()
    }

    /// A change has a place of its own. What came before it stays before it.
    fn note(&mut self, change: &Change, place: u64) {
        self.separate(change);
        if let Some(key) = Kind::of(change) {
            self.0.insert(key, place);
        }
    }

    /// Has nothing that comes later get before this change.
    fn separate(&mut self, change: &Change) {
        let Some(name) = change.name() else { return };
        let kinds: &[Kind] = match change {
            Change::Association(..) => &[Kind::Association],
            Change::State(..) => &[Kind::State],
            Change::Reported(..) => &[Kind::State, Kind::Reported],
            _ => &[Kind::Put, Kind::State, Kind::Reported],
        };
        for kind in kinds {
            self.0.remove(&(*kind, name.clone()));
        }
    }

    /// A change is taken from its place.
    fn forget(&mut self, change: &Change, place: u64) {
        if let Some(key) = Kind::of(change)
            && self.0.get(&key) == Some(&place)
        {
            self.0.remove(&key);
        }
    }
}

/// Has `earlier` say what `later` says. Gives what is still to be said on its own behind it.
fn supersede(earlier: &mut Change, later: Change) -> Option<Change> {
    match (&*earlier, later) {
        // What the CPE is stands there, and what was learned of it since may stand behind that.
        (Change::Put(known), Change::Put(cpe)) if known.credentials == cpe.credentials => {
            Some(Change::State(cpe.name, Box::new(cpe.state)))
        }
        (Change::Reported(_, known), Change::Reported(_, told)) if *known == told => None,
        (Change::Put(_) | Change::Reported(..), later) => Some(later),
        (_, later) => {
            *earlier = later;
            None
        }
    }
}

/// Changes in a row.
trait Row {
    /// The change that nobody waits for at a place.
    fn at(&mut self, place: u64) -> Option<&mut Change>;
}

/// Puts a change where an earlier one is, or gives back what needs a place of its own.
fn fit(mut change: Change, places: &Places, row: &mut impl Row) -> Option<Change> {
    while let Some(earlier) = places.earlier(&change).and_then(|place| row.at(place)) {
        let kind = discriminant(&change);
        change = supersede(earlier, change)?;
        if discriminant(&change) == kind {
            break;
        }
    }
    Some(change)
}

/// Changes that nobody waits for, in their order, the latest of each CPE and association.
#[derive(Debug, Default)]
pub(super) struct Latest {
    changes: Vec<Change>,
    places: Places,
}

impl Row for Vec<Change> {
    fn at(&mut self, place: u64) -> Option<&mut Change> {
        self.get_mut(usize::try_from(place).ok()?)
    }
}

impl Latest {
    pub(super) fn extend(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Some(change) = fit(change, &self.places, &mut self.changes) {
                self.places.note(&change, self.changes.len() as u64);
                self.changes.push(change);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn as_slice(&self) -> &[Change] {
        &self.changes
    }
}

/// Keeps the last signed requests, as many as a store remembers.
pub(super) fn keep_a_generation(requests: &mut VecDeque<Fingerprint>) {
    let beyond = requests.len().saturating_sub(GENERATION);
    requests.drain(..beyond);
}

/// Jobs in their order.
#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// The place of the first; each has one more than the one before.
    first: u64,
}

impl Jobs {
    /// The place of the next one.
    fn end(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// Takes the first one, if a batch takes it. Gives its place as well.
    fn pop(&mut self, batch: &Batch) -> Option<(u64, Job)> {
        let job = self.waiting.pop_front_if(|job| batch.takes(job))?;
        let place = self.first;
        self.first += 1;
        Some((place, job))
    }
}

impl Row for Jobs {
    fn at(&mut self, place: u64) -> Option<&mut Change> {
        match self.waiting.get_mut(usize::try_from(place.checked_sub(self.first)?).ok()?)? {
            Job::Keep(change) => Some(change),
            _ => None,
        }
    }
}

/// Takes jobs for the thread. All copies are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(Arc<Shared>);

/// The thread's end of a [`Queue`]. Without it, whoever waits hears that nobody answers.
#[derive(Debug)]
pub(super) struct Worker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: Jobs,
    places: Places,
    /// Of all jobs together.
    weight: usize,
    signed: usize,
    /// Signed requests that nobody waits for.
    signed_later: VecDeque<Fingerprint>,
    /// Somebody wants to know whether the store works.
    is_asked: bool,
    /// Nothing comes any more.
    is_closed: bool,
    /// Nobody takes anything any more.
    is_abandoned: bool,
}

impl Queue {
    /// Hands in a job that somebody waits for, or refuses it, where too many wait.
    pub(super) fn push(&self, job: Job) {
        self.change(|state| state.push(job));
    }

    /// Hands in changes that nobody waits for.
    pub(super) fn keep(&self, changes: Vec<Change>) {
        self.change(|state| changes.into_iter().for_each(|change| state.keep(change)));
    }

    /// Hands in signed requests that nobody waits for.
    pub(super) fn remember_later(&self, requests: &[Fingerprint]) {
        self.change(|state| state.remember_later(requests));
    }

    /// Has the thread find out whether the store works.
    pub(super) fn ask(&self) {
        self.change(|state| state.is_asked = true);
    }

    /// Has the thread end when it has done everything.
    pub(super) fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    /// The thread's end; there is one.
    pub(super) fn worker(&self) -> Worker {
        Worker(Arc::clone(&self.0))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        if !state.is_abandoned {
            change(&mut state);
        }
        drop(state);
        self.0.news.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics, and the jobs are whole between two calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// Waits for the next jobs; at `until` the latest it gives an empty batch. `None`: all is done, and nothing comes any more.
    pub(super) fn next(&self, until: Option<Instant>) -> Option<Batch> {
        let mut state = self.0.lock();
        loop {
            let batch = state.take();
            if !batch.is_empty() || std::mem::take(&mut state.is_asked) {
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
            let Some(until) = until else {
                state = self.0.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(batch);
            }
            state = self.0.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        *self.0.lock() = State { is_abandoned: true, ..State::default() };
    }
}

impl State {
    fn push(&mut self, job: Job) {
        let is_full = (job.weight() > 0 && self.weight >= LIMIT) || (job.signed() > 0 && self.signed >= SIGNED_LIMIT);
        if is_full {
            if let Job::Remember((requests, _)) = &job {
                self.remember_later(requests);
            }
            return job.refuse();
        }
        if let Job::Commit(changes, _) = &job {
            for change in changes {
                self.places.separate(change);
            }
        }
        self.weight += job.weight();
        self.signed += job.signed();
        self.jobs.waiting.push_back(job);
    }

    fn keep(&mut self, change: Change) {
        if let Some(change) = fit(change, &self.places, &mut self.jobs) {
            self.places.note(&change, self.jobs.end());
            self.jobs.waiting.push_back(Job::Keep(change));
        }
    }

    fn remember_later(&mut self, requests: &[Fingerprint]) {
        self.signed_later.extend(requests);
        keep_a_generation(&mut self.signed_later);
    }

    /// Takes what is done together next.
    fn take(&mut self) -> Batch {
        let mut batch = Batch { signed_later: std::mem::take(&mut self.signed_later), ..Batch::default() };
        while let Some((place, job)) = self.jobs.pop(&batch) {
            self.weight -= job.weight();
            self.signed -= job.signed();
            if let Job::Keep(change) = &job {
                self.places.forget(change, place);
            }
            batch.push(job);
        }
        batch
    }
}

#[cfg(test)]
impl Queue {
    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.0.lock().jobs.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddrV4};

    use tr111_core::acs::{Cpe, Credentials, Record, Reported, Seen, Stamp, State};

    use super::{super::record, *};

    /// Numbers that look random, the same ones each time.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    fn name(number: u64) -> Short {
        Short::from(format!("CPE{number}").as_bytes())
    }

    fn state(port: u16) -> State {
        let end = |port| SocketAddrV4::new([198, 51, 100, 7].into(), port);
        let seen = Seen { address: end(port), server: end(3478), since: UnixTime(1), last_seen: UnixTime(1) };
        State { authenticated: Some(seen), ..State::default() }
    }

    /// A change about one of three CPEs, and whether somebody waits for it. `known` are their ports: a CPE that is handed in
    /// again is as it is known.
    fn any(numbers: &mut Numbers, known: &mut [u16; 3], port: u16) -> (Change, bool) {
        let number = numbers.below(3);
        let (name, known) = (name(number), &mut known[number as usize]);
        let password = [numbers.below(2) as u8];
        let credentials = Credentials { stun_password: Short::from(&password[..]), ..Credentials::default() };
        let cpe = Box::new(Cpe { name: name.clone(), credentials, state: state(*known) });
        let told =
            |revision| Reported { address: None, nat_detected: Some(true), at: UnixTime(u64::from(port)), revision };
        match numbers.below(12) {
            0 => (Change::Added(cpe), true),
            1 => (Change::Removed(name), true),
            2 => (Change::Put(cpe), true),
            3 => (Change::Put(cpe), false),
            4 => (Change::Reported(name, Box::new(told(0))), true),
            5 => (Change::Reported(name, Box::new(told(numbers.below(3)))), false),
            6 => (Change::Association(name, Some([port as u8].into())), numbers.below(2) == 0),
            kind => {
                *known = port;
                (Change::State(name, Box::new(state(port))), kind == 7)
            }
        }
    }

    /// What a store has.
    #[derive(Debug, Default, PartialEq)]
    struct Stored(BTreeMap<Short, Record>, BTreeMap<Short, Box<[u8]>>);

    impl Stored {
        fn write(&mut self, change: &Change) {
            if let Change::Association(key, value) = change {
                self.1.insert(key.clone(), value.clone().unwrap_or_default());
            }
            let Some(name) = change.record() else { return };
            match record::apply(change, self.0.get(name).cloned(), Stamp::default()) {
                Ok(Some(record)) => drop(self.0.insert(name.clone(), record)),
                Ok(None) => drop(self.0.remove(name)),
                Err(_) => {}
            }
        }

        fn write_all(&mut self, batch: &Batch) {
            batch.groups.iter().flat_map(|(changes, _)| changes).for_each(|change| self.write(change));
        }
    }

    /// What takes the place of something earlier comes to the same as if each change had been written in its turn, whatever
    /// somebody waits for between them.
    #[test]
    fn the_store_ends_with_what_came_last() {
        for seed in 0..2_000 {
            let (mut numbers, queue) = (Numbers(seed), Queue::default());
            let worker = queue.worker();
            let (mut expected, mut stored, mut latest) = (Stored::default(), Stored::default(), Latest::default());
            let (mut kept, mut kept_in_turn) = (Stored::default(), Stored::default());
            let (mut told, mut known) = (Vec::new(), [0; 3]);
            for port in 1..40 {
                let (change, is_awaited) = any(&mut numbers, &mut known, port);
                expected.write(&change);
                told.push(change.clone());
                if Kind::of(&change).is_some() {
                    kept_in_turn.write(&change);
                    latest.extend(vec![change.clone()]);
                }
                if is_awaited {
                    queue.push(Job::Commit(vec![change], oneshot::channel().0));
                } else {
                    queue.keep(vec![change]);
                }
                if numbers.below(20) == 0 {
                    stored.write_all(&worker.next(None).expect("it is open"));
                }
            }
            queue.close();
            while let Some(batch) = worker.next(None) {
                stored.write_all(&batch);
            }
            assert_eq!(stored, expected, "{told:#?}");
            latest.as_slice().iter().for_each(|change| kept.write(change));
            assert_eq!(kept, kept_in_turn, "{told:#?}");
        }
    }

    /// A store that loses everything again and again is told again and again; that takes no more room than once.
    #[test]
    fn what_is_told_again_takes_the_place_of_what_was_told() {
        let (queue, mut latest) = (Queue::default(), Latest::default());
        for port in 1..1_000 {
            let cpe = Cpe { name: name(1), credentials: Credentials::default(), state: state(port) };
            let told = Reported { address: None, nat_detected: None, at: UnixTime(1), revision: 1 };
            let changes = vec![
                Change::Put(Box::new(cpe)),
                Change::Reported(name(1), Box::new(told)),
                Change::State(name(1), Box::new(state(port))),
                Change::Association(name(2), None),
                Change::GoodTime(UnixTime(port.into())),
            ];
            queue.keep(changes.clone());
            latest.extend(changes);
        }
        assert!(queue.len() <= 6 && latest.as_slice().len() <= 6, "{latest:?}");
        assert!(latest.as_slice().contains(&Change::GoodTime(UnixTime(999))));
        assert!(latest.as_slice().contains(&Change::State(name(1), Box::new(state(999)))));
    }
}
