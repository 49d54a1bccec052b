//! The persistent state of a gateway or device: rows with their instance numbers, what a device knows of its gateway,
//! values and attributes of the data model, and notifications.
//!
//! The store is one file of an embedded database in `state_dir`. A thread writes it, one group of changes at a time.
//! [`Store::committed`] reports a group after it is on disk (fsync). If a group cannot be written, the thread reports a
//! failure; the owner of the state still has the changes and commits them again.

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

/// Name of the store's file in `state_dir`.
pub const FILE: &str = "tr111.redb";
/// How long a change may wait for others before it is written.
pub const LINGER: Duration = Duration::from_millis(25);
/// Number of changed rows from which a group is written at once.
pub const GROUP: usize = 1_024;
/// Size of the database's cache in bytes. Rows are read only once, at the start.
const CACHE: usize = 1 << 20;
/// Version of the tables' layout.
const SCHEMA: u32 = 1;

/// Rows by instance number.
const ROWS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("rows");
/// Notifications by sequence number.
const NOTIFICATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("notifications");
/// Other values by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Names of the values in the table `meta`.
pub mod meta {
    /// Version of the tables' layout.
    pub(super) const SCHEMA: &str = "schema";
    /// The next instance number.
    pub const NEXT_INSTANCE: &str = "next_instance";
    /// Seed of the hash over clients.
    pub const SEED: &str = "seed";
    /// [`super::Boots`].
    pub const BOOTS: &str = "boots";
    /// Values of writable parameters, except those of TR-111 Table 6.
    pub const PARAMETERS: &str = "parameters";
    /// Values of the writable parameters of TR-111 Table 6.
    pub const STUN: &str = "stun";
    /// State of a device: its `GatewayInfo` and its lease.
    pub const DEVICE: &str = "device";
    /// The last accepted Connection Request, and what was learned about the NAT.
    pub const CPE: &str = "cpe";
    /// State of the notification core, without the unacknowledged notifications.
    pub const NOTIFICATION_STATE: &str = "notification_state";
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used.
    #[error(
        "cannot use the state directory {}: {source}; choose another one with --state-dir or agent.state_dir",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process uses the store.
    #[error("{} is in use by another agent; give each agent its own --state-dir", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot access {}: {source}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Sign of the damage.
        reason: String,
    },
    /// Another version of the program wrote the file.
    #[error("{} was written by another version of tr111: {reason}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Sign of the other version.
        reason: String,
    },
    /// The file is intact, but this program cannot decrypt or interpret its contents.
    #[error("{} cannot be read: {reason}", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// The database reports another error.
    #[error("the database {} failed: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The error of the database.
        reason: String,
    },
}

impl Error {
    /// Whether the file exists but its contents cannot be read. Another attempt would fail too.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Version { .. } | Self::Closed { .. })
    }

    /// The error for a record of the file at `path` that cannot be decoded.
    pub(crate) fn record(path: &Path, error: &DecodeError) -> Self {
        let (path, reason) = (path.to_owned(), error.to_string());
        match error {
            DecodeError::Version(_) => Self::Version { path, reason },
            _ => Self::Damaged { path, reason },
        }
    }
}

/// Contents of the store, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Rows by instance number.
    pub rows: Vec<(u32, Vec<u8>)>,
    /// Notifications by sequence number.
    pub notifications: Vec<(u64, Vec<u8>)>,
    /// Other values by name.
    pub meta: Vec<(String, Vec<u8>)>,
}

impl Contents {
    /// Decodes the value of this name; `None` if the store does not have it.
    pub fn meta<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DecodeError> {
        self.meta.iter().find(|(found, _)| found == name).map(|(_, bytes)| decode(bytes)).transpose()
    }
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    groups: std::sync::mpsc::Sender<Group>,
    committed: Arc<Mutex<mpsc::UnboundedReceiver<Committed>>>,
    relearned: Option<String>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Store {
    /// Opens the store in `directory` and reads it; creates the directory if necessary. Blocks the thread.
    ///
    /// If the file is damaged, or `sound` refuses its contents, the file is renamed and the store starts empty.
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
                // The disk is full, or the file system has become read-only. The contents are used nevertheless.
                let contents = if path.exists() { read_only(&path) } else { Some(Contents::default()) };
                let Some(read) = contents.and_then(|contents| sound(contents).ok()) else { return Err(error) };
                tracing::error!(%error, "the store cannot be written: the agent runs and retries");
                (None, read)
            }
            Err(error) if error.is_unreadable() => {
                let aside = move_aside(&path)?;
                tracing::error!(
                    %error,
                    old_file = %aside.display(),
                    "the store starts empty and the network is learned anew"
                );
                relearned = Some(format!("{error}; the old file was renamed to {}", aside.display()));
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

    /// Path of the store's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the store started empty, and the new name of the old file; `None` if it did not start empty.
    pub fn relearned(&self) -> Option<&str> {
        self.relearned.as_deref()
    }

    /// Queues a group, which is written as a whole or not at all.
    pub fn commit(&self, group: Group) {
        // The thread ends only when this handle is dropped. If it has panicked, `committed` reports it.
        let _ = self.groups.send(group);
    }

    /// Waits for the result of the oldest group whose result was not taken yet. Cancel-safe; borrows nothing.
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
        // Closing the channel ends the thread after it has written the queued groups.
        let (closed, _) = std::sync::mpsc::channel();
        self.groups = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Creates the directory of a store, accessible to its owner only, and returns whether it was created. An existing
/// directory is not changed.
///
/// # Errors
/// The directory cannot be created, or another user can write to it.
pub(crate) fn create(directory: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Directory { path: directory.to_owned(), source };
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {
            // The store contains identities, addresses and passwords. Permissions that the umask removed are restored.
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(directory).map_err(failed)?;
            let refused = |reason| failed(io::Error::new(io::ErrorKind::PermissionDenied, reason));
            match writable_by(&metadata) {
                Some(who) => Err(refused(format!("{who} can write to it and replace the agent's files"))),
                None => Ok(false),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

/// Who can write to a directory, except root and this user.
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

/// Creates a file that only its owner can access, in any directory. If the file exists, belongs to this user and is
/// accessible to others, as in earlier versions, access is restricted to the owner.
fn keep_private(path: &Path) {
    // An error here is repeated and reported when the file is opened.
    if OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).is_ok() {
        return;
    }
    let is_open = |file: &Metadata| file.is_file() && file.mode() & 0o077 != 0 && file.uid() == geteuid().as_raw();
    if fs::symlink_metadata(path).is_ok_and(|file| is_open(&file))
        && let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    {
        tracing::warn!(path = %path.display(), %error, "cannot restrict access to the file; other users may read it");
    }
}

/// Renames a damaged file and returns the new name.
pub(crate) fn move_aside(path: &Path) -> Result<PathBuf, Error> {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{unix}"));
    let aside = PathBuf::from(name);
    fs::rename(path, &aside).map_err(|source| Error::System { path: path.to_owned(), source })?;
    Ok(aside)
}

/// Opens or creates the file, checks every page of it, and reads it.
fn open(path: &Path) -> Result<(Database, Contents), Error> {
    guard(path, || open_unguarded(path))
}

/// Converts a panic of redb into an error. redb reports most damage as an error, but some makes it panic.
pub(crate) fn guard<T>(path: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Damaged { path: path.to_owned(), reason: "the database panicked".to_owned() }))
}

/// Opens the database, which is created if necessary, and checks every page of it.
pub(crate) fn database(path: &Path) -> Result<Database, Error> {
    keep_private(path);
    builder().create(path).map_err(|error| classify(path, error))
}

/// Opens the database in an existing file and checks every page of it. The file is not changed until it is released.
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
    // The database would initialise an empty file as a new database.
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
        return Err(Error::Damaged { path: path.to_owned(), reason: "the file is empty".to_owned() });
    }
    let database = database(path)?;
    let contents = read(&database).map_err(|error| classify(path, error))?;
    let schema: Result<Option<u32>, _> = contents.meta(meta::SCHEMA);
    let fresh = contents == Contents::default();
    match schema {
        Ok(Some(SCHEMA)) => {}
        Ok(None) if fresh => {}
        Ok(Some(other)) => return Err(other_layout(path, other.into(), SCHEMA.into())),
        Ok(None) => {
            return Err(Error::Damaged { path: path.to_owned(), reason: "it has no layout version".to_owned() });
        }
        Err(error) => return Err(Error::record(path, &error)),
    }
    Ok((database, contents))
}

/// The error for a file whose tables have the layout version `found`, while this program reads `known`.
pub(crate) fn other_layout(path: &Path, found: u64, known: u64) -> Error {
    let reason = format!("it has layout version {found}, but this program reads version {known}");
    Error::Version { path: path.to_owned(), reason }
}

/// Reads the contents of a file that cannot be written; `None` if that fails. It reads a copy in memory, because a
/// database that was not closed cleanly must be repaired before it is read.
fn read_only(path: &Path) -> Option<Contents> {
    let read = || read(&copy_in_memory(path)?).ok();
    let contents = panic::catch_unwind(AssertUnwindSafe(read)).ok().flatten()?;
    matches!(contents.meta(meta::SCHEMA), Ok(Some(SCHEMA))).then_some(contents)
}

/// Copies a database into memory and repairs the copy if it was not closed cleanly; `None` if that fails. Can panic
/// like redb.
pub(crate) fn copy_in_memory(path: &Path) -> Option<Database> {
    let bytes = fs::read(path).ok()?;
    let memory = InMemoryBackend::new();
    memory.set_len(bytes.len() as u64).ok()?;
    memory.write(0, &bytes).ok()?;
    Database::builder().set_check_integrity_on_open(true).create_with_backend(memory).ok()
}

fn read(database: &impl ReadableDatabase) -> Result<Contents, redb::Error> {
    // A missing table reads as empty.
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

/// Converts an error of the database. `Damaged` means that another attempt would fail too.
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
