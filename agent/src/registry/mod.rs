//! Where the CPEs of an ACS are kept: in a file of this machine, or in a Redis or Valkey that several servers share.
//!
//! Whoever serves CPEs has all of them in memory ([`tr111_core::acs::Registry`]) and asks nobody. A [`BindingStore`] is what
//! outlives the process; a thread of a [`Journal`] drives it:
//!
//! ```text
//!    owner of the Registry ──Change──▶ Journal ──groups──▶ BindingStore
//!             ▲                                                │
//!             └───────────────────News─────────────────────────┘   what other servers changed, or what was lost
//! ```
//!
//! * What an operator asks for is answered when the store has it ([`Journal::commit`]).
//! * What is learned from CPEs is handed in and forgotten ([`Journal::keep`]): while the store is away it waits, the latest of
//!   each CPE, and is written when the store is back.
//! * `ts` of Connection Requests are reserved before they are sent ([`Journal::reserve`]), so that neither a second server
//!   nor this one after a crash gives a CPE the same one twice (T-54).

mod embedded;
mod journal;
mod record;
mod redis;

use std::{collections::HashSet, fmt, path::PathBuf};

use tr111_core::{
    acs::{AHEAD, Change, Cpe, Registry, State},
    short::Short,
    time::UnixTime,
};

pub use embedded::{Embedded, FILE};
pub use journal::{Health, Journal, Opened, Refused};
pub use redis::Redis;

use crate::{config::RedisAddress, store};

/// What a store tells: what it holds, and what others changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A CPE.
    Cpe(Cpe),
    /// A CPE whose binding this server changed last: what it learned since is not in it.
    Own(Cpe),
    /// A CPE as a store has it that lost something: what is known here may be newer.
    Found(Cpe),
    /// There is no CPE of this name.
    Removed(Short),
    /// An association, or that there is none under this key.
    Association(Short, Option<Box<[u8]>>),
    /// The last `ts` of the CPE of this name; nothing where it was forgotten.
    Timestamp(Short, Option<u64>),
    /// The last `ts` of every CPE was forgotten.
    TimestampsReset,
    /// The last time that was known to be good.
    GoodTime(UnixTime),
    /// Some changes were missed. What there is was told before this; nothing else is there.
    Whole(Whole),
}

/// What there is in a store of which changes were missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Names of all CPEs.
    pub names: HashSet<Short>,
    /// Keys of all associations.
    pub associations: HashSet<Short>,
    /// The store lost something: what is missing was not taken away by anybody, unless it is named in `removed`, and is
    /// to be put back.
    pub is_lossy: bool,
    /// Names of CPEs that were taken away.
    pub removed: HashSet<Short>,
}

/// A CPE that is about to be sent a Connection Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: Short,
    /// [`tr111_core::acs::State::last_timestamp`], as far as this server knows.
    pub last: Option<u64>,
}

impl Wanted {
    /// The `ts` that this server knows of, for a store that may have lost it. One that is far ahead counts only where the
    /// store has it: this server may not have heard yet that it was reset.
    fn last(&self, UnixTime(now): UnixTime) -> Option<u64> {
        self.last.filter(|last| *last <= now.saturating_add(AHEAD.as_secs()))
    }
}

/// Another CPE has one of the names (STUN-21).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another CPE has the name {}", String::from_utf8_lossy(name).escape_debug())]
pub struct Taken {
    /// The first of them.
    pub name: Short,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The store cannot be had at the moment.
    #[error("{0}")]
    Unavailable(String),
    /// Everything that was written before is lost, and there is a new store; what failed may be handed in again.
    #[error("the registry was lost and is written anew")]
    Emptied,
}

/// Why there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be had.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Redis cannot be had, or holds what this program does not read.
    #[error("registry redis://{address}: {reason}")]
    Redis {
        /// Where it is, without a password.
        address: String,
        /// Why.
        reason: String,
    },
    /// No thread.
    #[error("registry: {0}")]
    System(#[from] std::io::Error),
}

/// What outlives the process. Every function blocks; a [`Journal`] calls them from a thread of its own.
pub trait BindingStore: Send + fmt::Debug {
    /// Tells everything that it holds, as [`News::Cpe`], [`News::Association`], [`News::Timestamp`] and [`News::GoodTime`];
    /// a CPE before its timestamp.
    fn load(&mut self, each: &mut dyn FnMut(News)) -> Result<(), Error>;

    /// Writes groups, in their order; each as a whole or, where it would add a CPE of a name that another one has, not at
    /// all. What it says to have written survives a crash.
    fn commit(&mut self, groups: &[&[Change]]) -> Result<Vec<Result<(), Taken>>, Failure>;

    /// A `ts` for each, that no server used for that CPE before (T-54): the time, or one more than the last one of that
    /// CPE.
    fn reserve(&mut self, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, Failure>;

    /// What tells of others' changes from [`BindingStore::load`] on; nothing where there are no others.
    fn follower(&mut self) -> Option<Box<dyn Follower>>;
}

/// Tells what others changed.
pub trait Follower: Send + fmt::Debug {
    /// Waits for changes, at most for about a second.
    fn follow(&mut self) -> Result<Vec<News>, Failure>;
}

/// Where a registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file of this directory.
    Embedded(PathBuf),
    /// In a Redis or Valkey.
    Redis(RedisAddress),
}

impl Location {
    /// The same with the password of a Redis.
    #[must_use]
    pub fn with_password(self, password: String) -> Self {
        match self {
            Self::Redis(address) => Self::Redis(address.with_password(password)),
            embedded @ Self::Embedded(_) => embedded,
        }
    }

    /// Opens the store that is there.
    pub fn open(&self) -> Result<Box<dyn BindingStore>, Error> {
        Ok(match self {
            Self::Embedded(directory) => Box::new(Embedded::open(directory)?),
            Self::Redis(address) => Box::new(Redis::open(address.clone())?),
        })
    }
}

/// For people, without a password.
impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(directory) => directory.join(FILE).display().fmt(formatter),
            Self::Redis(address) => write!(formatter, "redis://{address}"),
        }
    }
}

/// Brings what a store told into the registry; gives what the store lacks, to be handed in again.
///
/// News of associations and of the time are not for it and are left alone.
pub fn follow(registry: &mut Registry, news: News) -> Vec<Change> {
    match news {
        News::Cpe(cpe) => learn(registry, cpe, State::follow),
        News::Own(cpe) => learn(registry, cpe, State::confirm),
        News::Found(cpe) => {
            let name = cpe.name.clone();
            let found = cpe.state.clone();
            learn(registry, cpe, State::follow);
            let known = registry.number(&name).and_then(|number| registry.get(number));
            return known.map(|known| missing(name, &known.state, &found)).unwrap_or_default();
        }
        News::Removed(name) => drop(registry.remove(&name)),
        News::Timestamp(name, last) => {
            if let Some(number) = registry.number(&name) {
                registry.update(number, |state| state.last_timestamp = last);
            }
        }
        News::TimestampsReset => reset_timestamps(registry),
        News::Association(..) | News::GoodTime(_) => {}
        News::Whole(whole) => {
            let missing = registry.iter_from(0).filter(|(_, cpe)| !whole.names.contains(&cpe.name));
            let missing: Vec<Cpe> = missing.map(|(_, cpe)| cpe.clone()).collect();
            let (lost, removed): (Vec<_>, Vec<_>) =
                missing.into_iter().partition(|cpe| whole.is_lossy && !whole.removed.contains(&cpe.name));
            for cpe in removed {
                registry.remove(&cpe.name);
            }
            return lost.into_iter().map(|cpe| Change::Put(Box::new(cpe))).collect();
        }
    }
    Vec::new()
}

/// Brings times that are later than `now`, by a clock that was ahead, back to it.
pub fn heal(registry: &mut Registry, now: UnixTime) {
    let is_wrong = |cpe: &Cpe| cpe.state.clone().heal(now);
    let wrong: Vec<u32> = registry.iter_from(0).filter(|(_, cpe)| is_wrong(cpe)).map(|(number, _)| number).collect();
    for number in wrong {
        registry.update(number, |state| state.heal(now));
    }
}

/// Forgets the last `ts` of every CPE.
pub fn reset_timestamps(registry: &mut Registry) {
    let sent: Vec<u32> =
        registry.iter_from(0).filter(|(_, cpe)| cpe.state.last_timestamp.is_some()).map(|(number, _)| number).collect();
    for number in sent {
        registry.update(number, |state| state.last_timestamp = None);
    }
}

/// Takes a CPE of a store, and its state by `follow` where the CPE is known.
fn learn(registry: &mut Registry, cpe: Cpe, follow: impl FnOnce(&mut State, &State)) {
    let Some(number) = registry.number(&cpe.name) else {
        // Its name is free, as was just seen.
        let _ = registry.add(cpe);
        return;
    };
    registry.update(number, |state| follow(state, &cpe.state));
    registry.set_credentials(number, cpe.credentials);
}

/// What `known` has of a CPE and `found` has not, to be handed in again.
fn missing(name: Short, known: &State, found: &State) -> Vec<Change> {
    let mut missing = Vec::new();
    if let Some(told) = known.report_missing_in(found) {
        missing.push(Change::Reported(name.clone(), Box::new(told.clone())));
    }
    if !known.has_binding_of(found) {
        missing.push(Change::State(name, Box::new(known.clone())));
    }
    missing
}
