//! A thread that writes changes to the store. Changes that arrive during a write are written together in the next one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};
use tr111_core::{
    acs::{Change, Fingerprint, Registry},
    short::Short,
    time::UnixTime,
};

use super::{
    BindingStore, Encryption, Error, Failure, Follower, Location, News, Taken, Unreadable, Wanted, Whole, follow,
    queue::{Batch, GROUP, Group, Job, Latest, Queue, Remember, Reserve, Worker, keep_a_generation},
};
use crate::essential;

/// Pause before a store that failed is tried again; doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Capacity of the channel of news, in batches. A slow reader blocks the follower only.
const NEWS: usize = 64;

/// Whether the store can be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// The store can be written.
    #[default]
    Working,
    /// The store cannot be written. Changes learned from CPEs wait in memory, and a crash would lose them.
    Failing {
        /// Reason.
        reason: String,
    },
}

/// A change was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The name of a new CPE is taken (STUN-21).
    #[error(transparent)]
    Taken(#[from] Taken),
    /// The record of the CPE cannot be read. It is not overwritten.
    #[error("the record of {} cannot be read: {}", String::from_utf8_lossy(&.0.name).escape_debug(), .0.reason)]
    Unreadable(Unreadable),
    /// The store is unavailable.
    #[error("the registry cannot be written: {0}")]
    Unavailable(String),
    /// The store is slower than what is asked of it.
    #[error("the registry is busy: too much waits for its disk or its Redis; try again later")]
    Busy,
}

/// The content of a store, and the journal for it.
#[derive(Debug)]
pub struct Opened {
    /// Handle for changes.
    pub journal: Journal,
    /// All CPEs.
    pub registry: Registry,
    /// Keys and values of all associations.
    pub associations: Vec<(Short, Box<[u8]>)>,
    /// The last time at which the clock was known to be correct.
    pub good_time: Option<UnixTime>,
    /// Records that cannot be read. They are not changed.
    pub unreadable: Vec<Unreadable>,
    /// Accepted signed requests, in the order that [`tr111_core::acs::Server::remember`] needs.
    pub signed: Vec<Fingerprint>,
    /// Later changes of other servers, and losses of the store. Input of [`follow`].
    pub news: mpsc::Receiver<Vec<News>>,
}

/// Handle to the thread that writes changes. Cheap to clone. Dropping the last clone writes the remaining changes and
/// ends the thread.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Threads>);

#[derive(Debug)]
struct Threads {
    jobs: Queue,
    health: watch::Receiver<Health>,
    is_ending: Arc<AtomicBool>,
    running: Vec<JoinHandle<()>>,
}

impl Journal {
    /// Opens the store at `location` and reads its complete content. Blocks. `encryption` applies to the passwords of
    /// CPEs. `seed` is a random seed for the hash over names.
    pub fn open(location: &Location, encryption: Encryption, seed: u64) -> Result<Opened, Error> {
        Self::start(location.open(encryption)?, seed)
    }

    /// Starts a journal for an open store.
    pub fn start(mut store: Box<dyn BindingStore>, seed: u64) -> Result<Opened, Error> {
        let mut registry = Registry::new(seed);
        let (mut associations, mut signed, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
        let mut good_time = None;
        store.load(&mut |news| match news {
            News::Association(key, Some(value)) => associations.push((key, value)),
            News::Signed(request) => signed.push(request),
            News::Unreadable(record) => {
                unreadable.push(record.clone());
                follow(&mut registry, News::Unreadable(record));
            }
            News::GoodTime(time) => good_time = Some(time),
            other => drop(follow(&mut registry, other)),
        })?;
        let jobs = Queue::default();
        let (judged, health) = watch::channel(Health::Working);
        let (tell, news) = mpsc::channel(NEWS);
        let is_ending = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        if let Some(follower) = store.follower() {
            let (jobs, tell, is_ending) = (jobs.clone(), tell.clone(), Arc::clone(&is_ending));
            threads.push(essential::thread("registry-news", move || listen(follower, &jobs, &tell, &is_ending))?);
        }
        let ending = Arc::clone(&is_ending);
        let writer = Writer { store, kept: Kept::default(), failing: None, health: judged, tell, is_ending: ending };
        let waiting = jobs.worker();
        threads.push(essential::thread("registry", move || writer.run(&waiting))?);
        let journal = Self(Arc::new(Threads { jobs, health, is_ending, running: threads }));
        Ok(Opened { journal, registry, associations, good_time, unreadable, signed, news })
    }

    /// Writes `changes`: all of them or none. Returns after they are persistent.
    ///
    /// # Errors
    /// The store is away, or slow and too much waits for it, or another server added a CPE of the same name.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), Refused> {
        self.ask(|done| Job::Commit(changes, done)).await
    }

    /// Queues changes for the next write and does not wait for it. Of several queued states of a CPE only the latest is
    /// written.
    pub fn keep(&self, changes: Vec<Change>) {
        self.0.jobs.keep(changes);
    }

    /// Remembers accepted signed requests, and returns for each whether it was remembered before. Returns after they
    /// are persistent (T-67).
    ///
    /// # Errors
    /// The store is away, or slow and too much waits for it. They are remembered as soon as that can be.
    pub async fn remember(&self, requests: Vec<Fingerprint>) -> Result<Vec<bool>, Refused> {
        self.ask(|done| Job::Remember((requests, done))).await
    }

    /// Hands in signed requests that the store lost.
    pub fn remember_later(&self, requests: &[Fingerprint]) {
        self.0.jobs.remember_later(requests);
    }

    /// Reserves a `ts` for each CPE, in order. Returns after the values are persistent, so that no server sends them
    /// again (T-54).
    ///
    /// # Errors
    /// The store is away, or slow and too much waits for it: another server may send at the same time.
    pub async fn reserve(&self, wanted: Vec<Wanted>, now: UnixTime) -> Result<Vec<u64>, Refused> {
        self.ask(|done| Job::Reserve((wanted, now, done))).await
    }

    /// Whether the store can be written.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.0.health.clone()
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Job) -> Result<T, Refused> {
        let (done, answer) = oneshot::channel();
        self.0.jobs.push(job(done));
        answer.await.unwrap_or_else(|_| Err(Refused::Unavailable("its thread has ended".to_owned())))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        // The thread ends after what was handed in is written.
        self.jobs.close();
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Tells what others changed, until the end.
fn listen(mut follower: Box<dyn Follower>, jobs: &Queue, tell: &mpsc::Sender<Vec<News>>, is_ending: &AtomicBool) {
    let mut pause = PAUSE;
    while !is_ending.load(Ordering::Relaxed) {
        match follower.follow() {
            Ok(news) => {
                pause = PAUSE;
                if !news.is_empty() {
                    hand_over(news, tell, is_ending);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "others' changes of the registry are not heard");
                // So that the writer finds out and says so, though there may be nothing to write.
                jobs.ask();
                let until = Instant::now() + pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                while Instant::now() < until && !is_ending.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

/// Sends news to their reader. Gives up when the journal ends, because the reader may be waiting for this thread.
fn hand_over(news: Vec<News>, tell: &mpsc::Sender<Vec<News>>, is_ending: &AtomicBool) {
    let mut waiting = news;
    while let Err(mpsc::error::TrySendError::Full(news)) = tell.try_send(waiting) {
        if is_ending.load(Ordering::Relaxed) {
            return;
        }
        waiting = news;
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Changes that wait until the store can be written.
#[derive(Debug, Default)]
struct Kept {
    /// Signed requests, at most [`GENERATION`]. New ones replace the oldest.
    signed: VecDeque<Fingerprint>,
    changes: Latest,
}

impl Kept {
    fn remember(&mut self, requests: impl IntoIterator<Item = Fingerprint>) {
        self.signed.extend(requests);
        keep_a_generation(&mut self.signed);
    }

    fn is_empty(&self) -> bool {
        self.signed.is_empty() && self.changes.as_slice().is_empty()
    }
}

struct Writer {
    store: Box<dyn BindingStore>,
    /// Changes of failed writes whose sender does not wait for the result.
    kept: Kept,
    failing: Option<Failing>,
    health: watch::Sender<Health>,
    tell: mpsc::Sender<Vec<News>>,
    is_ending: Arc<AtomicBool>,
}

struct Failing {
    reason: String,
    /// Time of the next attempt.
    retry: Instant,
    pause: Duration,
}

impl Writer {
    fn run(mut self, jobs: &Worker) {
        while let Some(batch) = jobs.next(self.failing.as_ref().map(|failing| failing.retry)) {
            self.work(batch);
        }
        if !self.kept.is_empty() {
            self.failing = None;
            self.work(Batch::default());
        }
    }

    /// Does the jobs of a batch and writes kept changes. Signed requests are first, because their CPEs wait for a
    /// response.
    fn work(&mut self, batch: Batch) {
        // It is time to find out whether the store works again.
        let is_trial = batch.is_empty();
        let Batch { signed, signed_later, groups, reserves, .. } = batch;
        if !signed.is_empty() {
            self.remember(signed);
        }
        self.kept.remember(signed_later);
        self.catch_up();
        if is_trial || !(groups.is_empty() && self.kept.changes.as_slice().is_empty()) {
            self.write(groups);
        }
        if !reserves.is_empty() {
            self.reserve(reserves);
        }
    }

    /// Runs an operation of the store. If the store lost its content, reports that and runs the operation again. After
    /// a failure the store is not used until [`Failing::retry`].
    fn attempt<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn BindingStore, &Kept) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Some(failing) = self.failing.as_ref().filter(|failing| Instant::now() < failing.retry) {
            return Err(Failure::Unavailable(failing.reason.clone()));
        }
        let mut done = work(&mut *self.store, &self.kept);
        if matches!(done, Err(Failure::Emptied)) {
            self.tell_emptied();
            done = work(&mut *self.store, &self.kept);
        }
        self.judge(done.as_ref().err());
        done
    }

    /// Remembers signed requests.
    fn remember(&mut self, signed: Vec<Remember>) {
        let requests: Vec<_> = signed.iter().flat_map(|(requests, _)| requests).copied().collect();
        match self.attempt(|store, _| store.remember(&requests)) {
            Ok(known) => {
                let mut known = known.into_iter();
                for (requests, done) in signed {
                    let _ = done.send(Ok(known.by_ref().take(requests.len()).collect()));
                }
            }
            Err(failure) => self.fail(Batch { signed, ..Batch::default() }, &failure.to_string()),
        }
    }

    /// Remembers the kept signed requests.
    fn catch_up(&mut self) {
        while !self.kept.signed.is_empty() {
            let some: Vec<_> = self.kept.signed.iter().take(GROUP).copied().collect();
            if self.attempt(|store, _| store.remember(&some)).is_err() {
                return;
            }
            self.kept.signed.drain(..some.len());
        }
    }

    /// Writes the kept changes, then `groups`.
    fn write(&mut self, groups: Vec<Group>) {
        let outcomes = self.attempt(|store, kept| {
            let mut written = vec![kept.changes.as_slice()];
            written.extend(groups.iter().map(|(changes, _)| changes.as_slice()));
            store.commit(&written)
        });
        match outcomes {
            Ok(outcomes) => {
                self.kept.changes.clear();
                let unreadable = self.store.unreadable();
                for ((changes, done), outcome) in groups.into_iter().zip(outcomes.into_iter().skip(1)) {
                    let Some(done) = done else { continue };
                    let is_left =
                        |record: &&Unreadable| changes.iter().any(|change| change.name() == Some(&record.name));
                    let _ = done.send(match (outcome, unreadable.iter().find(is_left)) {
                        (Err(taken), _) => Err(Refused::Taken(taken)),
                        (Ok(()), Some(record)) => Err(Refused::Unreadable(record.clone())),
                        (Ok(()), None) => Ok(()),
                    });
                }
                if !unreadable.is_empty() {
                    hand_over(unreadable.into_iter().map(News::Unreadable).collect(), &self.tell, &self.is_ending);
                }
            }
            Err(failure) => self.fail(Batch { groups, ..Batch::default() }, &failure.to_string()),
        }
    }

    /// Reserves the timestamps of all jobs in one operation, so that they wait for one disk write.
    fn reserve(&mut self, reserves: Vec<Reserve>) {
        let Some(now) = reserves.iter().map(|(_, now, _)| *now).max() else { return };
        let wanted: Vec<Wanted> = reserves.iter().flat_map(|(wanted, ..)| wanted).cloned().collect();
        let mut given = self.attempt(|store, _| store.reserve(&wanted, now)).map(Vec::into_iter);
        for (wanted, _, done) in reserves {
            let some = given.as_mut().map(|given| given.by_ref().take(wanted.len()).collect());
            let _ = done.send(some.map_err(|failure| Refused::Unavailable(failure.to_string())));
        }
    }

    /// Reports a failure to the callers that wait. Keeps the changes of the others.
    fn fail(&mut self, batch: Batch, reason: &str) {
        for (requests, done) in batch.signed {
            let _ = done.send(Err(Refused::Unavailable(reason.to_owned())));
            self.kept.remember(requests);
        }
        for (changes, done) in batch.groups {
            match done {
                Some(done) => drop(done.send(Err(Refused::Unavailable(reason.to_owned())))),
                None => self.kept.changes.extend(changes),
            }
        }
        for (.., done) in batch.reserves {
            let _ = done.send(Err(Refused::Unavailable(reason.to_owned())));
        }
    }

    /// Reports that the content of the store was lost. The owner of the registry then writes all CPEs again.
    fn tell_emptied(&self) {
        let whole = News::Whole(Whole { is_lossy: true, ..Whole::default() });
        hand_over(vec![whole], &self.tell, &self.is_ending);
    }

    /// Logs when the store begins to fail and when it works again.
    fn judge(&mut self, failure: Option<&Failure>) {
        match (failure.map(ToString::to_string), &self.failing) {
            (None, None) => {}
            (None, Some(_)) => {
                tracing::info!("the registry can be written again");
                self.failing = None;
                self.health.send_replace(Health::Working);
            }
            (Some(reason), failing) => {
                let pause = failing.as_ref().map_or(PAUSE, |failing| (failing.pause * 2).min(LONGEST_PAUSE));
                if failing.is_none() {
                    tracing::error!(
                        reason,
                        "cannot write the registry; CPEs are served, but a restart would lose unwritten changes"
                    );
                }
                self.health.send_replace(Health::Failing { reason: reason.clone() });
                self.failing = Some(Failing { reason, retry: Instant::now() + pause, pause });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        net::SocketAddrV4,
        sync::{Mutex, mpsc as blocking},
    };

    use tr111_core::acs::{Seen, State};

    use super::*;

    /// A store that takes its time until its gate is dropped.
    #[derive(Debug)]
    struct Stalled {
        gate: blocking::Receiver<()>,
        written: Arc<Mutex<Written>>,
    }

    #[derive(Debug, Default)]
    struct Written {
        states: HashMap<Short, State>,
        commits: usize,
        signed: HashSet<Fingerprint>,
    }

    impl Stalled {
        fn wait(&mut self) -> std::sync::MutexGuard<'_, Written> {
            assert!(self.gate.recv().is_err(), "nothing is sent");
            self.written.lock().expect("no panic")
        }
    }

    impl BindingStore for Stalled {
        fn load(&mut self, _: &mut dyn FnMut(News)) -> Result<(), Error> {
            Ok(())
        }

        fn commit(&mut self, groups: &[&[Change]]) -> Result<Vec<Result<(), Taken>>, Failure> {
            let mut written = self.wait();
            for change in groups.iter().copied().flatten() {
                match change {
                    Change::State(name, state) => drop(written.states.insert(name.clone(), State::clone(state))),
                    _ => written.commits += 1,
                }
            }
            Ok(vec![Ok(()); groups.len()])
        }

        fn remember(&mut self, requests: &[Fingerprint]) -> Result<Vec<bool>, Failure> {
            let mut written = self.wait();
            Ok(requests.iter().map(|request| !written.signed.insert(*request)).collect())
        }

        fn reserve(&mut self, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, Failure> {
            drop(self.wait());
            Ok(vec![now.0; wanted.len()])
        }

        fn follower(&mut self) -> Option<Box<dyn Follower>> {
            None
        }
    }

    fn name(number: u32) -> Short {
        Short::from(format!("CPE{number}").as_bytes())
    }

    fn at(round: u32) -> State {
        let end = SocketAddrV4::new([198, 51, 100, 7].into(), 40_001);
        let (since, last_seen) = (UnixTime(1), UnixTime(round.into()));
        State { authenticated: Some(Seen { address: end, server: end, since, last_seen }), ..State::default() }
    }

    /// T-67: while the disk stalls, what is learned takes as much memory as there are CPEs, what somebody waits for is refused
    /// beyond a bound, and afterwards the store has the latest of each CPE and all that was promised.
    #[tokio::test]
    async fn a_store_that_stalls_costs_bounded_memory_and_loses_nothing() {
        const CPES: u32 = 1_000;
        let (gate, closed) = blocking::channel();
        let written = Arc::new(Mutex::new(Written::default()));
        let store = Stalled { gate: closed, written: Arc::clone(&written) };
        let Opened { journal, .. } = Journal::start(Box::new(store), 7).expect("a thread");
        // Dropped before the journal, which waits for its thread.
        let gate = gate;
        for round in 0..1_000 {
            for number in 0..CPES {
                journal.keep(vec![Change::State(name(number), Box::new(at(round)))]);
            }
        }
        let waiting = journal.0.jobs.len();
        assert!((1..=CPES as usize).contains(&waiting), "{waiting}");

        let (mut commits, mut remembers) = (Vec::new(), Vec::new());
        for number in 0..20_000 {
            let (done, answer) = oneshot::channel();
            journal.0.jobs.push(Job::Commit(vec![Change::Removed(name(number))], done));
            commits.push(answer);
        }
        for first in (0..200_000).step_by(100) {
            let (done, answer) = oneshot::channel();
            journal.0.jobs.push(Job::Remember(((first..first + 100).map(Fingerprint).collect(), done)));
            remembers.push(answer);
        }
        let busy = journal.reserve(vec![Wanted { name: name(1), last: None }], UnixTime(1)).await;
        assert_eq!(busy, Err(Refused::Busy));
        let waiting = journal.0.jobs.len();
        assert!(waiting < CPES as usize + 20_000, "{waiting}");

        drop(gate);
        let (mut done, mut refused) = (0, 0);
        for answer in commits {
            match answer.await.expect("an answer") {
                Ok(()) => done += 1,
                Err(other) => {
                    assert_eq!(other, Refused::Busy);
                    refused += 1;
                }
            }
        }
        assert!(done >= 16_000 && refused >= 3_000, "{done} done, {refused} refused");
        let mut unanswered = 0;
        for answer in remembers {
            match answer.await.expect("an answer") {
                Ok(known) => assert_eq!(known, [false; 100]),
                Err(other) => {
                    assert_eq!(other, Refused::Busy);
                    unanswered += 1;
                }
            }
        }
        assert!((1_000..1_500).contains(&unanswered), "{unanswered}");
        journal.commit(Vec::new()).await.expect("there is room again");
        let written = written.lock().expect("no panic");
        assert_eq!((written.commits, written.states.len()), (done, CPES as usize));
        assert!(written.states.values().all(|state| *state == at(999)), "the latest of each");
        assert_eq!(written.signed.len(), 200_000, "those of requests that were refused as well");
    }

    /// Whoever waits hears that the thread has ended, also for what he asks afterwards.
    #[tokio::test]
    async fn a_thread_that_panics_answers_nobody() {
        let (gate, closed) = blocking::channel();
        let Opened { journal, .. } =
            Journal::start(Box::new(Stalled { gate: closed, written: Arc::default() }), 7).expect("a thread");
        gate.send(()).expect("it listens");
        for _ in 0..2 {
            let ended = journal.commit(Vec::new()).await;
            assert_eq!(ended, Err(Refused::Unavailable("its thread has ended".to_owned())));
        }
    }
}
