//! Persistence of the CPEs of an ACS: in a local file, or in a Redis or Valkey that several servers share.
//!
//! A server has all CPEs in memory ([`tr111_core::acs::Registry`]) and never reads the store while it answers a CPE. A
//! [`BindingStore`] makes changes persistent. The thread of a [`Journal`] drives it:
//!
//! ```text
//!    owner of the Registry ──Change──▶ Journal ──groups──▶ BindingStore
//!             ▲                                                │
//!             └───────────────────News─────────────────────────┘   changes of other servers, losses of the store
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

/// What a store reports: its content, and changes of other servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A CPE. Another server changed its binding last.
    Cpe(Cpe),
    /// A CPE whose binding this server changed last. Changes that this server has not written yet are not included.
    Own(Cpe),
    /// A CPE in a store that lost changes. The state in memory may be newer.
    Found {
        /// The CPE as the store has it.
        cpe: Cpe,
        /// Whether this server changed its binding last.
        is_own: bool,
    },
    /// The CPE with this name was removed.
    Removed(Short),
    /// The key and the value of an association. `None`: the association was removed.
    Association(Short, Option<Box<[u8]>>),
    /// Name and last `ts` of a CPE. `None`: the `ts` was reset.
    Timestamp(Short, Option<u64>),
    /// The last `ts` of all CPEs was reset.
    TimestampsReset,
    /// The last time at which the clock was known to be correct.
    GoodTime(UnixTime),
    /// An accepted signed request. A shared store reports none, because [`BindingStore::remember`] checks each request
    /// there.
    Signed(Fingerprint),
    /// A record cannot be read. The state of its CPE in memory is kept.
    Unreadable(Unreadable),
    /// The end of a complete listing, after changes were missed. The store holds what was reported before this, and
    /// nothing else.
    Whole(Whole),
}

/// A record that cannot be read: it has another version, is encrypted under another key, or is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Name of the CPE.
    pub name: Short,
    /// Reason.
    pub reason: String,
}

/// Content of a store after changes were missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Names of all CPEs.
    pub names: HashSet<Short>,
    /// Keys of all associations.
    pub associations: HashSet<Short>,
    /// The store lost changes. A CPE that is in memory and not in `names` must be written again, unless it is in
    /// `removed`.
    pub is_lossy: bool,
    /// Names of CPEs that a server removed.
    pub removed: HashSet<Short>,
}

/// A CPE that needs a `ts` for a Connection Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the CPE.
    pub name: Short,
    /// Last `ts` that this server knows of ([`tr111_core::acs::State::last_timestamp`]).
    pub last: Option<u64>,
}

impl Wanted {
    /// The last `ts` that this server knows of, in case the store lost it. A value far in the future is ignored,
    /// because this server may not know yet that it was reset. The store's own value is not affected.
    fn last(&self, UnixTime(now): UnixTime) -> Option<u64> {
        self.last.filter(|last| *last <= now.saturating_add(AHEAD.as_secs()))
    }
}

/// The name of a CPE is taken by another one (STUN-21).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another CPE has the name {}", String::from_utf8_lossy(name).escape_debug())]
pub struct Taken {
    /// The first taken name.
    pub name: Short,
}

/// Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The store is unavailable at the moment.
    #[error("{0}")]
    Unavailable(String),
    /// The content of the store was lost and a new store was created. The failed operation may be repeated.
    #[error("the registry was lost and is rewritten from memory")]
    Emptied,
}

/// The registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Redis is unavailable.
    #[error("registry {0}")]
    Redis(Failure),
    /// The passwords in Redis cannot be decrypted.
    #[error("registry {address}: {reason}")]
    Closed {
        /// Address of Redis, without a password.
        address: String,
        /// Reason.
        reason: Sealed,
    },
    /// Files for TLS are set, but the registry is not reached by TLS. The field is its location.
    #[error(
        "acs.registry_ca_file, acs.registry_certificate_file and acs.registry_key_file need rediss://, \
         but acs.registry is {0}"
    )]
    NoTls(String),
    /// A thread could not be started, or random bytes are unavailable.
    #[error("registry: {0}")]
    System(#[from] std::io::Error),
}

impl Error {
    /// Whether the store exists but this program cannot read its content. Nothing was changed, and another attempt will
    /// fail as well.
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unreadable(),
            Self::Closed { .. } => true,
            Self::Redis(_) | Self::NoTls(_) | Self::System(_) => false,
        }
    }
}

/// A persistent store. All functions block. A [`Journal`] calls them from its own thread.
pub trait BindingStore: Send + fmt::Debug {
    /// Reports the complete content as [`News::Cpe`], [`News::Own`], [`News::Unreadable`], [`News::Association`],
    /// [`News::Timestamp`], [`News::GoodTime`] and [`News::Signed`]. A CPE comes before its timestamp.
    fn load(&mut self, each: &mut dyn FnMut(News)) -> Result<(), Error>;

    /// Writes groups of changes in order. A group that adds a CPE whose name is taken is not written at all; the others
    /// are written completely. Written changes survive a crash.
    fn commit(&mut self, groups: &[&[Change]]) -> Result<Vec<Result<(), Taken>>, Failure>;

    /// Remembers accepted signed requests, and returns for each whether it was remembered before. Remembered requests
    /// survive a crash. At least the last [`tr111_core::acs::GENERATION`] requests are remembered.
    fn remember(&mut self, requests: &[Fingerprint]) -> Result<Vec<bool>, Failure>;

    /// Reserves a `ts` for each CPE that no server used for the CPE before (T-54): the current time, or the last `ts`
    /// of the CPE plus 1 if that is later.
    fn reserve(&mut self, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, Failure>;

    /// Records that could not be read since the last call. They were not changed.
    fn unreadable(&mut self) -> Vec<Unreadable> {
        Vec::new()
    }

    /// The source of other servers' changes since [`BindingStore::load`]. `None` for a store that is not shared.
    fn follower(&mut self) -> Option<Box<dyn Follower>>;
}

/// Source of other servers' changes.
pub trait Follower: Send + fmt::Debug {
    /// Waits for changes, for about a second at most.
    fn follow(&mut self) -> Result<Vec<News>, Failure>;
}

/// Location of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file in this directory.
    Embedded(PathBuf),
    /// A Redis or Valkey server.
    Redis(RedisAddress),
}

impl Location {
    /// Sets the password of a Redis server.
    #[must_use]
    pub fn with_password(self, password: String) -> Self {
        match self {
            Self::Redis(address) => Self::Redis(address.with_password(password)),
            embedded @ Self::Embedded(_) => embedded,
        }
    }

    /// Sets the files for TLS.
    ///
    /// # Errors
    /// Files are given, but the location is not reached by TLS, so the data would be sent unencrypted.
    pub fn with_tls_files(self, files: TlsFiles) -> Result<Self, Error> {
        match self {
            Self::Redis(address) if address.tls.is_some() => Ok(Self::Redis(address.with_tls_files(files))),
            other if files == TlsFiles::default() => Ok(other),
            other => Err(Error::NoTls(other.to_string())),
        }
    }

    /// Moves an unreadable file aside, so that [`Location::open`] creates an empty one.
    pub fn move_aside(&self) -> Result<(), Error> {
        match self {
            Self::Embedded(directory) => {
                let aside = store::move_aside(&directory.join(FILE))?;
                tracing::warn!(moved_to = %aside.display(), "the registry starts empty; the old file was moved aside");
                Ok(())
            }
            Self::Redis(address) => {
                let reason = format!("{address}: --start-empty works only for an embedded registry");
                Err(Error::Redis(Failure::Unavailable(reason)))
            }
        }
    }

    /// Opens the store. `encryption` applies to the passwords of CPEs.
    pub fn open(&self, encryption: Encryption) -> Result<Box<dyn BindingStore>, Error> {
        Ok(match self {
            Self::Embedded(directory) => Box::new(Embedded::open(directory, encryption)?),
            Self::Redis(address) => Box::new(Redis::open(address.clone(), encryption)?),
        })
    }
}

/// For messages. Omits the password.
impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(directory) => directory.join(FILE).display().fmt(formatter),
            Self::Redis(address) => address.fmt(formatter),
        }
    }
}

/// Applies the news of a store to the registry in memory. Returns the changes that the store lost, which must be
/// written again.
///
/// News of associations, the time and signed requests are ignored.
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

/// Sets times in the future, written while the clock was ahead, back to `now`.
pub fn heal(registry: &mut Registry, now: UnixTime) {
    let is_wrong = |cpe: &Cpe| cpe.state.clone().heal(now);
    let wrong: Vec<u32> = registry.iter_from(0).filter(|(_, cpe)| is_wrong(cpe)).map(|(number, _)| number).collect();
    for number in wrong {
        registry.update(number, |state| state.heal(now));
    }
}

/// Resets the last `ts` of all CPEs.
pub fn reset_timestamps(registry: &mut Registry) {
    let sent: Vec<u32> =
        registry.iter_from(0).filter(|(_, cpe)| cpe.state.last_timestamp.is_some()).map(|(number, _)| number).collect();
    for number in sent {
        registry.update(number, |state| state.last_timestamp = None);
    }
}

/// Adds a CPE from a store. If the CPE is known, merges its state with `follow`.
fn learn(registry: &mut Registry, cpe: Cpe, follow: impl FnOnce(&mut State, &State)) {
    registry.set_unreadable(&cpe.name, false);
    let Some(number) = registry.number(&cpe.name) else {
        // This cannot fail: the name is free.
        let _ = registry.add(cpe);
        return;
    };
    registry.update(number, |state| follow(state, &cpe.state));
    registry.set_credentials(number, cpe.credentials);
}

/// Changes that bring `found`, the state in the store, up to `known`, the state in memory.
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
