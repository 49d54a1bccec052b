//! What an ACS keeps in its registry, and shares with other servers of the same registry.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tr111_core::{
    acs::{Change, Cpe, Credentials, Registry, State},
    connreq::next_timestamp,
    short::Short,
};

use super::{Acs, Error, Order, Shared, describe, judge, judge_credentials};
use crate::{
    essential,
    registry::{Health, Journal, News, Opened, Refused, Unreadable, Wanted, follow, heal, reset_timestamps},
    telemetry::AcsMetrics,
};

/// Pause before a busy store is asked again whether everything is kept.
const BUSY: Duration = Duration::from_millis(50);

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Taken(_) => Self::Taken,
            refused @ (Refused::Unreadable(_) | Refused::Busy) => Self::Store(refused.to_string()),
            Refused::Unavailable(reason) => Self::Store(reason),
        }
    }
}

/// A list of CPEs was not added. No CPE of the list was added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {error}", name.escape_debug())]
pub struct NotAdded {
    /// The CPE that could not be added.
    pub name: String,
    /// The reason.
    pub error: Error,
}

impl NotAdded {
    pub(super) fn new(name: &[u8], error: Error) -> Self {
        Self { name: String::from_utf8_lossy(name).into_owned(), error }
    }
}

/// Checks the texts of new CPEs.
///
/// # Errors
/// Names the first with a text that TR-111 Table 6 does not allow.
pub(super) fn judged(cpes: Vec<(String, Credentials)>) -> Result<Vec<Cpe>, NotAdded> {
    let judge = |(name, credentials): (String, Credentials)| {
        let judged = judge("STUNUsername", name.as_bytes(), 1).and_then(|()| judge_credentials(&credentials));
        judged.map_err(|error| NotAdded::new(name.as_bytes(), error))?;
        Ok(Cpe { name: Short::from(name.as_bytes()), credentials, state: State::default() })
    };
    cpes.into_iter().map(judge).collect()
}

impl Acs {
    /// Starts to use `opened` as the registry: takes over its CPEs, stores changes there, and follows the changes that
    /// other servers make there.
    pub fn open(&self, opened: Opened) {
        let Opened { journal, registry, associations, good_time, unreadable, signed, mut news } = opened;
        {
            let server = &mut self.lock().server;
            *server.registry_mut() = registry;
            for request in signed {
                server.remember(request);
            }
        }
        self.0.clock.restore(good_time);
        self.heal();
        let health = journal.health();
        // This is called once.
        let _ = self.0.journal.set(journal);
        self.restore_associations(associations);
        self.note_unreadable(&unreadable);
        self.note_size();
        essential::task("registry health", note_health(Arc::clone(&self.0), health));
        let shared = Arc::downgrade(&self.0);
        essential::task("registry news", async move {
            while let Some(batch) = news.recv().await {
                let Some(shared) = shared.upgrade() else { return };
                Self(shared).take(batch);
            }
        });
    }

    /// Marks the registry as unreadable for this `reason`: from now on no CPE is known and no change is stored.
    pub fn refuse(&self, reason: String) {
        // This is called at most once, at the start.
        let _ = self.0.unreadable.set(reason);
        self.0.settings.write().unwrap_or_else(PoisonError::into_inner).is_registry_readable = false;
    }

    /// Checks that the registry could be read.
    ///
    /// # Errors
    /// [`Error::Unreadable`] with the reason.
    pub fn readable(&self) -> Result<(), Error> {
        self.0.unreadable.get().map_or(Ok(()), |reason| Err(Error::Unreadable(reason.clone())))
    }

    /// Waits until all queued changes are stored, or have failed.
    pub async fn flush(&self) {
        let Some(journal) = self.0.journal.get() else { return };
        self.keep_time();
        let mut flushed = journal.commit(Vec::new()).await;
        while flushed == Err(Refused::Busy) {
            sleep(BUSY).await;
            flushed = journal.commit(Vec::new()).await;
        }
        if let Err(error) = flushed {
            tracing::error!(%error, "what was learned last is lost");
        }
    }

    /// Returns whether the registry stores changes.
    pub fn health(&self) -> Health {
        self.0.journal.get().map(|journal| journal.health().borrow().clone()).unwrap_or_default()
    }

    /// Adds CPEs that have credentials and no binding yet: all of them, or none (STUN-20, STUN-21).
    ///
    /// # Errors
    /// Names the first CPE that cannot be added.
    pub async fn add_all(&self, cpes: Vec<(String, Credentials)>) -> Result<(), NotAdded> {
        self.add_judged(judged(cpes)?).await
    }

    pub(super) async fn add_judged(&self, cpes: Vec<Cpe>) -> Result<(), NotAdded> {
        let names: Vec<Short> = cpes.iter().map(|cpe| cpe.name.clone()).collect();
        let changes: Vec<Change> = cpes.into_iter().map(|cpe| Change::Added(Box::new(cpe))).collect();
        let taken = {
            let mut state = self.lock();
            let registry = state.server.registry_mut();
            self.judge_room(registry, &names)?;
            let taken = changes.iter().position(|change| match change {
                Change::Added(cpe) => registry.add(Cpe::clone(cpe)).is_err(),
                _ => false,
            });
            for name in taken.map(|place| &names[..place]).unwrap_or_default() {
                registry.remove(name);
            }
            taken
        };
        if let Some(place) = taken {
            return Err(NotAdded::new(&names[place], Error::Taken));
        }
        self.note_size();
        let Some(journal) = self.0.journal.get() else { return Ok(()) };
        let Err(refused) = journal.commit(changes).await else { return Ok(()) };
        let mut state = self.lock();
        for name in &names {
            forget_unstored(state.server.registry_mut(), name);
        }
        drop(state);
        self.note_size();
        let name = match &refused {
            Refused::Taken(taken) => taken.name.clone(),
            Refused::Unreadable(record) => record.name.clone(),
            Refused::Unavailable(_) | Refused::Busy => names.first().cloned().unwrap_or_default(),
        };
        Err(NotAdded::new(&name, refused.into()))
    }

    /// Adds CPEs, and replaces the credentials of those that exist: all of them, or none. The bindings of existing CPEs
    /// are kept. Credentials that have not changed are not written again.
    ///
    /// # Errors
    /// Names a CPE that cannot be added or changed.
    pub async fn upsert_all(&self, cpes: Vec<(String, Credentials)>) -> Result<(), NotAdded> {
        self.upsert_judged(judged(cpes)?).await
    }

    pub(super) async fn upsert_judged(&self, cpes: Vec<Cpe>) -> Result<(), NotAdded> {
        let mut changes = Vec::new();
        // The former credentials of each changed CPE; `None` for a new one.
        let mut before: Vec<(Short, Option<Credentials>)> = Vec::new();
        {
            let mut state = self.lock();
            let registry = state.server.registry_mut();
            let new = cpes.iter().map(|cpe| &cpe.name).filter(|name| registry.number(name).is_none());
            self.judge_room(registry, new)?;
            for cpe in cpes {
                let name = cpe.name.clone();
                let Some(number) = registry.number(&name) else {
                    changes.push(Change::Put(Box::new(cpe.clone())));
                    // The name is free: the lookup above found no CPE.
                    let _ = registry.add(cpe);
                    before.push((name, None));
                    continue;
                };
                let Some(known) = registry.get(number).filter(|known| known.credentials != cpe.credentials) else {
                    continue;
                };
                changes.push(Change::Put(Box::new(Cpe { state: known.state.clone(), ..cpe.clone() })));
                before.push((name, registry.set_credentials(number, cpe.credentials)));
            }
        }
        self.note_size();
        let Some(journal) = self.0.journal.get() else { return Ok(()) };
        let Err(refused) = journal.commit(changes).await else { return Ok(()) };
        let name = before.first().map(|(name, _)| name.clone()).unwrap_or_default();
        {
            let mut state = self.lock();
            let registry = state.server.registry_mut();
            for (name, credentials) in before.into_iter().rev() {
                match (registry.number(&name), credentials) {
                    (Some(number), Some(credentials)) => drop(registry.set_credentials(number, credentials)),
                    (_, None) => forget_unstored(registry, &name),
                    // The CPE was removed meanwhile.
                    (None, Some(_)) => {}
                }
            }
        }
        self.note_size();
        Err(NotAdded::new(&name, refused.into()))
    }

    /// Whether a registry has room for CPEs of these names. Those that other servers add are taken in any case.
    fn judge_room<'a>(&self, registry: &Registry, names: impl IntoIterator<Item = &'a Short>) -> Result<(), NotAdded> {
        let maximum = self.max_cpes();
        let room = maximum.saturating_sub(registry.len()) as usize;
        match names.into_iter().nth(room) {
            Some(name) => Err(NotAdded::new(name, Error::Full { maximum })),
            None => Ok(()),
        }
    }

    /// Forgets the last `ts` of a CPE: the next one is the time (T-54).
    pub async fn reset_timestamp(&self, name: &str) -> Result<(), Error> {
        let cpe = self.change(name, |registry, number| {
            registry.update(number, |state| state.last_timestamp = None);
        })?;
        self.keep(Change::TimestampReset(cpe.name)).await
    }

    /// Forgets the last `ts` of every CPE, and accepts the present time of the system clock as correct.
    pub async fn reset_timestamps(&self) -> Result<(), Error> {
        self.accept_clock();
        reset_timestamps(self.lock().server.registry_mut());
        self.keep(Change::TimestampsReset).await
    }

    /// Reserves one `ts` per order, each greater than every `ts` that any server sent to that CPE before (T-54,
    /// UCR-37).
    pub(super) async fn reserve(&self, orders: &[Order]) -> Result<Vec<u64>, Error> {
        let now = self.now().unix;
        let wanted: Vec<Option<Wanted>> = {
            let state = self.lock();
            let registry = state.server.registry();
            let last = |name: &Short| Some(registry.get(registry.number(name)?)?.state.last_timestamp);
            let wanted = |name: &Short| Some(Wanted { name: name.clone(), last: last(name)? });
            orders.iter().map(|order| order.name.as_ref().and_then(wanted)).collect()
        };
        let known: Vec<Wanted> = wanted.iter().flatten().cloned().collect();
        let given = match self.0.journal.get() {
            Some(journal) if !known.is_empty() => journal.reserve(known, now).await?,
            // Without a store, memory is the only record.
            _ => known.iter().map(|wanted| next_timestamp(now, wanted.last)).collect(),
        };
        let mut given = given.into_iter();
        let mut state = self.lock();
        let registry = state.server.registry_mut();
        let reserved = wanted.into_iter().map(|wanted| {
            let Some((name, given)) = wanted.and_then(|wanted| Some((wanted.name, given.next()?))) else {
                return now.0;
            };
            // The CPE may have been removed meanwhile.
            if let Some(number) = registry.number(&name) {
                registry.update(number, |state| state.last_timestamp = Some(given));
            }
            given
        });
        Ok(reserved.collect())
    }

    /// Waits until a change is stored. Without a store, returns at once.
    pub(super) async fn keep(&self, change: Change) -> Result<(), Error> {
        self.note_size();
        let Some(journal) = self.0.journal.get() else { return Ok(()) };
        Ok(journal.commit(vec![change]).await?)
    }

    /// Queues a change for the next commit and does not wait for it.
    pub(super) fn keep_later(&self, change: Change) {
        self.note_size();
        if let Some(journal) = self.0.journal.get() {
            journal.keep(vec![change]);
        }
    }

    /// Corrects stored times that lie in the future.
    pub(super) fn heal(&self) {
        if let Some(latest) = self.0.clock.latest() {
            heal(self.lock().server.registry_mut(), latest);
        }
    }

    /// Applies changes that other servers made.
    fn take(&self, batch: Vec<News>) {
        let (mut lost, mut unreadable) = (Vec::new(), Vec::new());
        let latest = self.0.clock.latest();
        for mut news in batch {
            match &mut news {
                News::Cpe(cpe) | News::Own(cpe) | News::Found { cpe, .. } => {
                    if let Some(latest) = latest {
                        cpe.state.heal(latest);
                    }
                }
                News::Association(key, value) => lost.extend(self.follow_association(key, value.as_deref())),
                News::Whole(whole) => {
                    lost.extend(self.follow_whole(whole));
                    self.remember_again(whole.is_lossy);
                }
                News::Unreadable(record) => unreadable.push(record.clone()),
                _ => {}
            }
            // The lock is released between any two changes, so that STUN threads are not delayed.
            lost.extend(follow(self.lock().server.registry_mut(), news));
        }
        self.note_size();
        self.note_unreadable(&unreadable);
        if let Some(journal) = self.0.journal.get().filter(|_| !lost.is_empty()) {
            tracing::warn!(
                records = lost.len(),
                "the registry has lost records that this server knows; writing them again"
            );
            journal.keep(lost);
        }
    }

    /// Counts and announces an alarm for each record that cannot be decoded, and logs the first one.
    fn note_unreadable(&self, records: &[Unreadable]) {
        let Some(first) = records.first() else { return };
        tracing::error!(
            records = records.len(),
            first = %first.name.escape_ascii(),
            reason = first.reason,
            "records of the registry cannot be read and are left alone; remove them, or use the version and the key that wrote them"
        );
        for record in records {
            self.alarm(AcsMetrics::UNREADABLE, Some(describe::text(&record.name)), None);
        }
    }

    /// If the store has lost records, writes the fingerprints of signed requests again that this server remembers.
    fn remember_again(&self, is_lossy: bool) {
        if let Some(journal) = self.0.journal.get().filter(|_| is_lossy) {
            let requests: Vec<_> = self.lock().server.remembered().collect();
            journal.remember_later(&requests);
        }
    }
}

/// Removes a CPE that the store refused, unless another server has stored one of the same name meanwhile: what a store
/// with several servers holds has a revision.
fn forget_unstored(registry: &mut Registry, name: &[u8]) {
    let known = registry.number(name).and_then(|number| registry.get(number));
    if known.is_some_and(|cpe| cpe.state.revision == 0) {
        registry.remove(name);
    }
}

/// Sets the metric of the registry's health until the registry is closed.
async fn note_health(shared: Arc<Shared>, mut health: watch::Receiver<Health>) {
    let gauge = shared.metrics.registry.clone();
    drop(shared);
    loop {
        gauge.set(i64::from(*health.borrow_and_update() == Health::Working));
        if health.changed().await.is_err() {
            return;
        }
    }
}

/// The registry, once it is open.
pub(super) type Keeper = std::sync::OnceLock<Journal>;
