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
//! * What is learned from CPEs is handed in and forgotten ([`Journal::keep`]): while the store is away or slow it waits, the
//!   latest of each CPE, and is written when the store is back.
//! * What somebody waits for is refused where too much waits already, so that a disk that stalls costs bounded memory.
//! * Signed requests of CPEs are remembered before they are answered ([`Journal::remember`]), so that none counts twice, at no
//!   server (T-67).
//! * `ts` of Connection Requests are reserved before they are sent ([`Journal::reserve`]), so that neither a second server
//!   nor this one after a crash gives a CPE the same one twice (T-54).

mod embedded;
mod encryption;
mod journal;
mod queue;
mod record;
mod redis;

use std::{collections::HashSet, fmt, path::PathBuf};

use tr111_core::{
    acs::{AHEAD, Change, Cpe, Fingerprint, Registry, State},
    short::Short,
    time::UnixTime,
};

pub use embedded::{Embedded, FILE};
pub use encryption::{BadKey, Encryption, Sealed};
pub use journal::{Health, Journal, Opened, Refused};
pub use redis::Redis;

use crate::{
    config::{RedisAddress, TlsFiles},
    store,
};

/// What a store tells: what it holds, and what others changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A CPE.
    Cpe(Cpe),
    /// A CPE whose binding this server changed last: what it learned since is not in it.
    Own(Cpe),
    /// A CPE as a store has it that lost something: what is known here may be newer.
    Found {
        /// It.
        cpe: Cpe,
        /// This server changed its binding last.
        is_own: bool,
    },
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
    /// A signed request that was accepted. A store that asks for each one ([`BindingStore::remember`]) tells none.
    Signed(Fingerprint),
    /// A record cannot be read. What is known here of whom it is about stays.
    Unreadable(Unreadable),
    /// Some changes were missed. What there is was told before this; nothing else is there.
    Whole(Whole),
}

/// A record of a store that this program does not read: of another version, under another key, or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Name of its CPE.
    pub name: Short,
    /// Why.
    pub reason: String,
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
    /// Redis cannot be had.
    #[error("registry {0}")]
    Redis(Failure),
    /// What Redis holds is kept from this program.
    #[error("registry {address}: {reason}")]
    Closed {
        /// Where it is, without a password.
        address: String,
        /// Why.
        reason: Sealed,
    },
    /// There are files for TLS, and no TLS.
    #[error(
        "acs.registry_ca_file, acs.registry_certificate_file and acs.registry_key_file are for rediss://, and acs.registry is {0}"
    )]
    NoTls(String),
    /// No thread.
    #[error("registry: {0}")]
    System(#[from] std::io::Error),
}

impl Error {
    /// The store is there, and this program cannot make out what it holds. Nothing was changed, and no later attempt mends
    /// that.
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unreadable(),
            Self::Closed { .. } => true,
            Self::Redis(_) | Self::NoTls(_) | Self::System(_) => false,
        }
    }
}

/// What outlives the process. Every function blocks; a [`Journal`] calls them from a thread of its own.
pub trait BindingStore: Send + fmt::Debug {
    /// Tells everything that it holds, as [`News::Cpe`], [`News::Association`], [`News::Timestamp`], [`News::GoodTime`] and
    /// [`News::Signed`]; a CPE before its timestamp.
    fn load(&mut self, each: &mut dyn FnMut(News)) -> Result<(), Error>;

    /// Writes groups, in their order; each as a whole or, where it would add a CPE of a name that another one has, not at
    /// all. What it says to have written survives a crash.
    fn commit(&mut self, groups: &[&[Change]]) -> Result<Vec<Result<(), Taken>>, Failure>;

    /// Remembers signed requests that are accepted, and says of each whether it was remembered before. What it says to
    /// remember survives a crash. As many are remembered as [`tr111_core::acs::GENERATION`] says.
    fn remember(&mut self, requests: &[Fingerprint]) -> Result<Vec<bool>, Failure>;

    /// A `ts` for each, that no server used for that CPE before (T-54): the time, or one more than the last one of that
    /// CPE.
    fn reserve(&mut self, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, Failure>;

    /// Records that could not be read, and were left alone, since this was asked last.
    fn unreadable(&mut self) -> Vec<Unreadable> {
        Vec::new()
    }

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

    /// The same with files for TLS.
    ///
    /// # Errors
    /// There are some, and this is no place that is reached by TLS: what was to be secret would travel in clear.
    pub fn with_tls_files(self, files: TlsFiles) -> Result<Self, Error> {
        match self {
            Self::Redis(address) if address.tls.is_some() => Ok(Self::Redis(address.with_tls_files(files))),
            other if files == TlsFiles::default() => Ok(other),
            other => Err(Error::NoTls(other.to_string())),
        }
    }

    /// Moves what cannot be read aside, so that [`Location::open`] finds nothing.
    pub fn move_aside(&self) -> Result<(), Error> {
        match self {
            Self::Embedded(directory) => {
                let aside = store::move_aside(&directory.join(FILE))?;
                tracing::warn!("the registry starts empty; the old file is now {}", aside.display());
                Ok(())
            }
            Self::Redis(address) => {
                let reason = format!("{address}: --start-empty is for the file of an embedded registry");
                Err(Error::Redis(Failure::Unavailable(reason)))
            }
        }
    }

    /// Opens the store that is there. Passwords are kept as `encryption` says.
    pub fn open(&self, encryption: Encryption) -> Result<Box<dyn BindingStore>, Error> {
        Ok(match self {
            Self::Embedded(directory) => Box::new(Embedded::open(directory, encryption)?),
            Self::Redis(address) => Box::new(Redis::open(address.clone(), encryption)?),
        })
    }
}

/// For people, without a password.
impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(directory) => directory.join(FILE).display().fmt(formatter),
            Self::Redis(address) => address.fmt(formatter),
        }
    }
}

/// Brings what a store told into the registry; gives what the store lacks, to be handed in again.
///
/// News of associations, of the time and of signed requests are not for it and are left alone.
pub fn follow(registry: &mut Registry, news: News) -> Vec<Change> {
    match news {
        News::Cpe(cpe) => learn(registry, cpe, State::follow),
        News::Own(cpe) => learn(registry, cpe, State::confirm),
        News::Found { cpe, is_own } => {
            let name = cpe.name.clone();
            let found = cpe.state.clone();
            learn(registry, cpe, if is_own { State::confirm } else { State::follow });
            let known = registry.number(&name).and_then(|number| registry.get(number));
            return known.map(|known| missing(name, &known.state, &found)).unwrap_or_default();
        }
        News::Removed(name) => {
            registry.remove(&name);
            registry.set_unreadable(&name, false);
        }
        News::Unreadable(record) => registry.set_unreadable(&record.name, true),
        News::Timestamp(name, last) => {
            if let Some(number) = registry.number(&name) {
                registry.update(number, |state| state.last_timestamp = last);
            }
        }
        News::TimestampsReset => reset_timestamps(registry),
        News::Association(..) | News::GoodTime(_) | News::Signed(_) => {}
        News::Whole(whole) => {
            let missing = registry.iter_from(0).filter(|(_, cpe)| !whole.names.contains(&cpe.name));
            let missing: Vec<Cpe> = missing.map(|(_, cpe)| cpe.clone()).collect();
            let (lost, removed): (Vec<_>, Vec<_>) =
                missing.into_iter().partition(|cpe| whole.is_lossy && !whole.removed.contains(&cpe.name));
            for cpe in removed {
                registry.remove(&cpe.name);
            }
            registry.keep_unreadable(|name| whole.names.contains(name));
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
    registry.set_unreadable(&cpe.name, false);
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
