//! What survives the agent: rows with their instance numbers, what a device knows of its gateway, values and attributes of the data model, notifications.
//!
//! One file of an embedded database under `state_dir`. A thread of its own writes it, one group of changes at a time,
//! and each group is on the disk (fsync) before [`Store::committed`] says so. What the thread cannot write it gives
//! back as a failure; the owner of the table still has everything and hands it in again.

#[cfg(feature = "acs")]
mod deferred;
mod record;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(feature = "acs")]
pub(crate) use deferred::DeferredFile;
pub use record::{Boot, Boots, DecodeError, Row, Times, decode, decode_row, encode, encode_row};
pub use writer::{Committed, Group};

use std::{
    fs::{self, DirBuilder, Metadata, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use nix::unistd::{getegid, geteuid};
use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend as _, TableDefinition, backends::InMemoryBackend,
};
use tokio::sync::{Mutex, mpsc};

/// Name of the file in `state_dir`.
pub const FILE: &str = "tr111.redb";
/// How long a change may wait for others before it is written.
pub const LINGER: Duration = Duration::from_millis(25);
/// Rows that do not wait any longer.
pub const GROUP: usize = 1_024;
/// Bytes of the database that stay in memory: rows are read once, at the start.
const CACHE: usize = 1 << 20;
/// Layout of the tables.
const SCHEMA: u32 = 1;

/// Instance number to row.
const ROWS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("rows");
/// Sequence number to notification.
const NOTIFICATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("notifications");
/// Name to value.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Names in the table of everything that is no row.
pub mod meta {
    /// Layout of the tables.
    pub(super) const SCHEMA: &str = "schema";
    /// The next instance number.
    pub const NEXT_INSTANCE: &str = "next_instance";
    /// Seed of the hash over clients.
    pub const SEED: &str = "seed";
    /// [`super::Boots`].
    pub const BOOTS: &str = "boots";
    /// Values of the data model that somebody wrote.
    pub const PARAMETERS: &str = "parameters";
    /// Those of TR-111 Table 6.
    pub const STUN: &str = "stun";
    /// What a device knows of its gateway, and its lease.
    pub const DEVICE: &str = "device";
    /// The last accepted Connection Request, and what was learned of the NAT.
    pub const CPE: &str = "cpe";
    /// What there is to know of notifications besides those that wait for their acknowledgement.
    pub const NOTIFICATION_STATE: &str = "notification_state";
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be had.
    #[error("state directory {}: {source}; name another with --state-dir or agent.state_dir", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another agent; give each its own --state-dir", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// Another version of the program wrote the file.
    #[error("{} was written by another version of tr111: {reason}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// How that shows.
        reason: String,
    },
    /// The file is whole, and what it holds is kept from this program.
    #[error("{} cannot be read: {reason}", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The database refuses.
    #[error("{}: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// The file is there and this program cannot make out what it holds. No later attempt mends that.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Version { .. } | Self::Closed { .. })
    }

    /// A record of the file at `path` does not decode.
    pub(crate) fn record(path: &Path, error: &DecodeError) -> Self {
        let (path, reason) = (path.to_owned(), error.to_string());
        match error {
            DecodeError::Version(_) => Self::Version { path, reason },
            _ => Self::Damaged { path, reason },
        }
    }
}

/// What the store held, as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Rows by instance number.
    pub rows: Vec<(u32, Vec<u8>)>,
    /// Notifications by sequence number.
    pub notifications: Vec<(u64, Vec<u8>)>,
    /// Everything else by name.
    pub meta: Vec<(String, Vec<u8>)>,
}

impl Contents {
    /// The value of a name, if the store has it.
    pub fn meta<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DecodeError> {
        self.meta.iter().find(|(found, _)| found == name).map(|(_, bytes)| decode(bytes)).transpose()
    }
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    groups: std::sync::mpsc::Sender<Group>,
    committed: Arc<Mutex<mpsc::UnboundedReceiver<Committed>>>,
    relearned: Option<String>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    /// Opens the store in `directory`, which is made if need be, and reads it. Blocks.
    ///
    /// A damaged file is moved aside, and the store is empty then; so it is where `sound` refuses what it holds.
    pub fn open<T>(
        directory: &Path,
        mut sound: impl FnMut(Contents) -> Result<T, DecodeError>,
    ) -> Result<(Self, T), Error> {
        create(directory)?;
        let path = directory.join(FILE);
        let mut relearned = None;
        let opened = open(&path).and_then(|(database, contents)| {
            let read = sound(contents).map_err(|error| Error::record(&path, &error))?;
            Ok((database, read))
        });
        let (database, read) = match opened {
            Err(error @ (Error::System { .. } | Error::Database { .. })) => {
                // A full disk, or one that became read-only: what it holds counts all the same.
                let contents = if path.exists() { read_only(&path) } else { Some(Contents::default()) };
                let Some(read) = contents.and_then(|contents| sound(contents).ok()) else { return Err(error) };
                tracing::error!(%error, "the store cannot be written: the agent goes on and tries again");
                (None, read)
            }
            Err(error) if error.is_unreadable() => {
                let aside = move_aside(&path)?;
                tracing::error!(%error, "the store starts empty and the network is learned anew; the old file is now {}", aside.display());
                relearned = Some(format!("{error}; the old file is now {}", aside.display()));
                let (database, contents) = open(&path)?;
                (Some(database), sound(contents).map_err(|error| Error::record(&path, &error))?)
            }
            other => other.map(|(database, read)| (Some(database), read))?,
        };
        let (groups, waiting) = std::sync::mpsc::channel();
        let (done, committed) = mpsc::unbounded_channel();
        let writer = writer::Writer::new(path.clone(), database);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&waiting, &done))
            .map_err(|source| Error::System { path: path.clone(), source })?;
        let committed = Arc::new(Mutex::new(committed));
        Ok((Self { path, groups, committed, relearned, thread: Some(thread) }, read))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the store started empty, and where the old file is; `None` where it did not.
    pub fn relearned(&self) -> Option<&str> {
        self.relearned.as_deref()
    }

    /// Hands in a group, to be written as a whole or not at all.
    pub fn commit(&self, group: Group) {
        // The thread ends only with this handle; if it panicked, `committed` says so.
        let _ = self.groups.send(group);
    }

    /// What became of the group that was handed in first. Cancel-safe, and borrows nothing.
    pub fn committed(&self) -> impl Future<Output = Committed> + Send + use<> {
        let committed = Arc::clone(&self.committed);
        async move {
            let ended = || Committed::Failed("the thread of the store has ended".to_owned());
            committed.lock().await.recv().await.unwrap_or_else(ended)
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The thread ends with its channel, after what was handed in is written.
        let (closed, _) = std::sync::mpsc::channel();
        self.groups = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes the directory of a store, for its owner alone; whether it was made. One that exists stays as it is.
///
/// # Errors
/// It cannot be made, or somebody else may write into it.
pub(crate) fn create(directory: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Directory { path: directory.to_owned(), source };
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {
            // Identities, addresses and passwords are nobody else's business; what a umask took away is given back.
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(directory).map_err(failed)?;
            let refused = |reason| failed(io::Error::new(io::ErrorKind::PermissionDenied, reason));
            match writable_by(&metadata) {
                Some(who) => Err(refused(format!("{who} may write into it and so replace what the agent keeps"))),
                None => Ok(false),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

/// Who else than root and this user may write into a directory.
fn writable_by(directory: &Metadata) -> Option<String> {
    let (mode, owner, group) = (directory.mode(), directory.uid(), directory.gid());
    if mode & 0o002 != 0 {
        return Some(format!("everybody (mode {:03o})", mode & 0o7777));
    }
    if mode & 0o020 != 0 && group != 0 && group != getegid().as_raw() {
        return Some(format!("the group {group} (mode {:03o})", mode & 0o7777));
    }
    (owner != 0 && owner != geteuid().as_raw()).then(|| format!("its owner, the user {owner},"))
}

/// Makes a file for its owner alone, whatever directory it is in. A file of this user that others may read, which earlier
/// versions made, is closed to them.
fn keep_private(path: &Path) {
    // What goes wrong here goes wrong again where the file is opened.
    if OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).is_ok() {
        return;
    }
    let is_open = |file: &Metadata| file.is_file() && file.mode() & 0o077 != 0 && file.uid() == geteuid().as_raw();
    if fs::symlink_metadata(path).is_ok_and(|file| is_open(&file))
        && let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    {
        tracing::warn!(path = %path.display(), %error, "others may read what the agent keeps");
    }
}

/// Moves a damaged file aside.
pub(crate) fn move_aside(path: &Path) -> Result<PathBuf, Error> {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{unix}"));
    let aside = PathBuf::from(name);
    fs::rename(path, &aside).map_err(|source| Error::System { path: path.to_owned(), source })?;
    Ok(aside)
}

/// Opens or makes the file, checks every page of it, and reads it.
fn open(path: &Path) -> Result<(Database, Contents), Error> {
    guard(path, || open_unguarded(path))
}

/// redb refuses what it recognises as damaged; what slips through its checks makes it panic.
pub(crate) fn guard<T>(path: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Damaged { path: path.to_owned(), reason: "the database panicked".to_owned() }))
}

/// The database in a file, which is made if need be, with every page of it checked.
pub(crate) fn database(path: &Path) -> Result<Database, Error> {
    keep_private(path);
    builder().create(path).map_err(|error| classify(path, error))
}

/// The database in an existing file, with every page of it checked. The file is not changed before it is released.
#[cfg(feature = "acs")]
pub(crate) fn deferred(path: &Path) -> Result<(Database, DeferredFile), Error> {
    let file = DeferredFile::open(path).map_err(|error| classify(path, error))?;
    let database = builder().create_with_backend(file.clone()).map_err(|error| classify(path, error))?;
    Ok((database, file))
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

fn open_unguarded(path: &Path) -> Result<(Database, Contents), Error> {
    // The database would take it for a new one.
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
        return Err(Error::Damaged { path: path.to_owned(), reason: "it is empty".to_owned() });
    }
    let database = database(path)?;
    let contents = read(&database).map_err(|error| classify(path, error))?;
    let schema: Result<Option<u32>, _> = contents.meta(meta::SCHEMA);
    let fresh = contents == Contents::default();
    match schema {
        Ok(Some(SCHEMA)) => {}
        Ok(None) if fresh => {}
        Ok(Some(other)) => return Err(other_layout(path, other.into(), SCHEMA.into())),
        Ok(None) => return Err(Error::Damaged { path: path.to_owned(), reason: "it names no layout".to_owned() }),
        Err(error) => return Err(Error::record(path, &error)),
    }
    Ok((database, contents))
}

/// The tables of the file at `path` have the layout `found`, where this program reads `known`.
pub(crate) fn other_layout(path: &Path, found: u64, known: u64) -> Error {
    let reason = format!("its layout is {found}, where this program reads {known}");
    Error::Version { path: path.to_owned(), reason }
}

/// The contents of a file that cannot be written; `None` where they cannot be had that way. They are read from a copy in
/// memory: what was not closed well is repaired before it is read, and the file has no room for that.
fn read_only(path: &Path) -> Option<Contents> {
    let read = || read(&copy_in_memory(path)?).ok();
    let contents = panic::catch_unwind(AssertUnwindSafe(read)).ok().flatten()?;
    matches!(contents.meta(meta::SCHEMA), Ok(Some(SCHEMA))).then_some(contents)
}

/// A copy of a database, repaired where it was not closed well; nothing where it cannot be had. May panic as redb does.
pub(crate) fn copy_in_memory(path: &Path) -> Option<Database> {
    let bytes = fs::read(path).ok()?;
    let memory = InMemoryBackend::new();
    memory.set_len(bytes.len() as u64).ok()?;
    memory.write(0, &bytes).ok()?;
    Database::builder().set_check_integrity_on_open(true).create_with_backend(memory).ok()
}

fn read(database: &impl ReadableDatabase) -> Result<Contents, redb::Error> {
    // Tables that are not there yet read as empty.
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    match transaction.open_table(ROWS) {
        Ok(table) => {
            for entry in table.iter()? {
                let (instance, row) = entry?;
                contents.rows.push((instance.value(), row.value().to_vec()));
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    match transaction.open_table(NOTIFICATIONS) {
        Ok(table) => {
            for entry in table.iter()? {
                let (sequence, notification) = entry?;
                contents.notifications.push((sequence.value(), notification.value().to_vec()));
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    match transaction.open_table(META) {
        Ok(table) => {
            for entry in table.iter()? {
                let (name, value) = entry?;
                contents.meta.push((name.value().to_owned(), value.value().to_vec()));
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(contents)
}

/// Damage is what no later attempt mends; everything else may pass.
pub(crate) fn classify(path: &Path, error: impl Into<redb::Error>) -> Error {
    let path = path.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => Error::InUse { path },
        redb::Error::Io(source) => match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Error::Damaged { path, reason: source.to_string() }
            }
            _ => Error::System { path, source },
        },
        error @ redb::Error::UpgradeRequired(_) => Error::Version { path, reason: error.to_string() },
        error @ (redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::RepairAborted) => Error::Damaged { path, reason: error.to_string() },
        error => Error::Database { path, reason: error.to_string() },
    }
}
