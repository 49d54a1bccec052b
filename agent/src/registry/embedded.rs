//! The registry in a local file in `state_dir`.
//!
//! A group of changes is synced to disk before the result is returned. Writes to a full disk are tried again. A file
//! that cannot be read at the start is not changed, because passwords cannot be learned again. A file that becomes
//! damaged while the agent runs is moved aside and rewritten from memory.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use tr111_core::{
    acs::{Change, Fingerprint, GENERATION, Record, Stamp},
    connreq::next_timestamp,
    short::Short,
    time::UnixTime,
};

use super::{
    BindingStore, Encryption, Error, Failure, Follower, News, Taken, Wanted,
    record::{self, RecordError},
};
use crate::store::{self, DeferredFile};

/// Name of the file in `state_dir`.
pub const FILE: &str = "registry.redb";
/// Version of the table layout.
const SCHEMA: u64 = 2;
/// Version 1 of the table layout: records of version 1, and one last `ts` for all CPEs.
const FIRST_SCHEMA: u64 = 1;

/// Name of a CPE to its record.
const CPES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("cpes");
/// Associations. Only their owner knows the format of keys and values.
const ASSOCIATIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("associations");
/// Name of a CPE to the last reserved `ts` (T-54).
const TIMESTAMPS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("timestamps");
/// Accepted signed requests, in two generations.
const SIGNED_RECENT: TableDefinition<'_, u64, ()> = TableDefinition::new("signed_recent");
const SIGNED_OLDER: TableDefinition<'_, u64, ()> = TableDefinition::new("signed_older");
/// Named numbers.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Name of the version of the table layout.
const META_SCHEMA: &str = "schema";
/// Name of the last time at which the clock was known to be correct ([`Change::GoodTime`]).
const META_GOOD_TIME: &str = "good_time";
/// Name of the highest `ts` of all CPEs, in [`FIRST_SCHEMA`] only.
const META_TIMESTAMP: &str = "timestamp";

/// The registry in a file.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    /// `None` after a failure. The database must then be opened again.
    database: Option<Database>,
    /// Copy of a file that cannot be written, until [`BindingStore::load`] has read it.
    read_only: Option<Database>,
    /// Handle to the file. The file is not changed until [`BindingStore::load`] has read it.
    deferred: Option<DeferredFile>,
    /// Maximum signed requests of a generation.
    generation: u64,
    encryption: Encryption,
}

impl Embedded {
    /// Opens the file in `directory`, and creates both if they do not exist. `encryption` applies to the passwords of
    /// CPEs.
    ///
    /// # Errors
    /// The file cannot be opened, or it cannot be read ([`store::Error::is_unreadable`]). It is not changed then.
    pub fn open(directory: &Path, encryption: Encryption) -> Result<Self, store::Error> {
        store::create(directory)?;
        let path = directory.join(FILE);
        match open(&path) {
            Ok(Opened { database, file }) => {
                Ok(Self { deferred: Some(file), ..Self::new(path, Some(database), encryption) })
            }
            // The disk is full or read-only. Use the content of the file nevertheless.
            Err(error @ (store::Error::System { .. } | store::Error::Database { .. })) if path.exists() => {
                let copy = panic::catch_unwind(|| store::copy_in_memory(&path)).ok().flatten();
                let Some(copy) = copy else { return Err(error) };
                layout(&path, &copy)?;
                tracing::error!(%error, "cannot write the registry; the agent continues and tries again");
                Ok(Self { read_only: Some(copy), ..Self::new(path, None, encryption) })
            }
            Err(error) => Err(error),
        }
    }

    fn new(path: PathBuf, database: Option<Database>, encryption: Encryption) -> Self {
        let generation = GENERATION as u64;
        Self { path, database, read_only: None, deferred: None, generation, encryption }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs an operation on the database. After a failure the next operation opens the database again.
    fn with<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Failure> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        match panic::catch_unwind(AssertUnwindSafe(|| work(&database))) {
            Ok(Ok(done)) => {
                self.database = Some(database);
                Ok(done)
            }
            Ok(Err(error)) => Err(Failure::Unavailable(store::classify(&self.path, error).to_string())),
            Err(_) => Err(Failure::Unavailable(format!("{}: the database panicked", self.path.display()))),
        }
    }

    fn reopen(&mut self) -> Result<Database, Failure> {
        let unavailable = |error: store::Error| Failure::Unavailable(error.to_string());
        let existed = self.path.exists();
        match open(&self.path).and_then(|opened| opened.release(&self.path)) {
            Ok(database) if existed => Ok(database),
            Ok(database) => {
                self.database = Some(database);
                Err(Failure::Emptied)
            }
            Err(error @ store::Error::Damaged { .. }) => {
                let aside = store::move_aside(&self.path).map_err(unavailable)?;
                tracing::error!(
                    %error,
                    moved_to = %aside.display(),
                    "the registry is damaged; it was moved aside and is rewritten from memory"
                );
                let opened = open(&self.path).and_then(|opened| opened.release(&self.path));
                self.database = Some(opened.map_err(unavailable)?);
                Err(Failure::Emptied)
            }
            Err(error) => Err(unavailable(error)),
        }
    }
}

impl BindingStore for Embedded {
    fn load(&mut self, each: &mut dyn FnMut(News)) -> Result<(), Error> {
        let copy = self.read_only.take();
        let Some(database) = self.database.as_ref().or(copy.as_ref()) else { return Ok(()) };
        let is_in_clear = store::guard(&self.path, || read(&self.path, database, &self.encryption, each))?;
        if is_in_clear && self.encryption.is_on() && self.deferred.is_some() {
            match store::guard(&self.path, || encrypt(&self.path, database, &self.encryption)) {
                Ok(encrypted) => {
                    tracing::info!("encrypted the passwords in the registry");
                    (self.database, self.deferred) = (Some(encrypted), None);
                    return Ok(());
                }
                Err(error) => tracing::error!(%error, "cannot encrypt the passwords in the registry"),
            }
        }
        if let Some(Err(error)) = self.deferred.take().map(|file| file.release()) {
            self.database = None;
            tracing::error!(%error, "cannot write the registry; the agent continues and tries again");
        }
        Ok(())
    }

    fn commit(&mut self, groups: &[&[Change]]) -> Result<Vec<Result<(), Taken>>, Failure> {
        let encryption = self.encryption.clone();
        self.with(|database| write(database, groups, &encryption))
    }

    fn remember(&mut self, requests: &[Fingerprint]) -> Result<Vec<bool>, Failure> {
        let generation = self.generation;
        self.with(|database| remember(database, requests, generation))
    }

    fn reserve(&mut self, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, Failure> {
        self.with(|database| reserve(database, wanted, now))
    }

    fn follower(&mut self) -> Option<Box<dyn Follower>> {
        None
    }
}

/// A database with a supported layout.
struct Opened {
    database: Database,
    /// Handle to the file. The file was not changed.
    file: DeferredFile,
}

impl Opened {
    /// Permits changes of the file and returns the database.
    fn release(self, path: &Path) -> Result<Database, store::Error> {
        self.file.release().map_err(|error| store::classify(path, error))?;
        Ok(self.database)
    }
}

/// Opens the file, and creates it if it does not exist.
fn open(path: &Path) -> Result<Opened, store::Error> {
    match fs::metadata(path) {
        // A new file is created together with its tables, so this file was truncated.
        Ok(metadata) if metadata.len() == 0 => return Err(damaged(path, "the file is empty")),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => create(path)?,
        Err(error) => return Err(store::classify(path, error)),
    }
    store::guard(path, || {
        let (database, file) = store::deferred(path)?;
        if layout(path, &database)? == Some(FIRST_SCHEMA) {
            let upgraded = upgrade(&database).map_err(|error| store::classify(path, error))?;
            upgraded.map_err(|error| damaged(path, &error.to_string()))?;
        }
        Ok(Opened { database, file })
    })
}

/// Version of the table layout. `None` if there are no tables. Fails if this program does not support the version.
fn layout(path: &Path, database: &Database) -> Result<Option<u64>, store::Error> {
    let classify = |error| store::classify(path, error);
    match number(database, META_SCHEMA).map_err(classify)? {
        known @ Some(SCHEMA | FIRST_SCHEMA) => Ok(known),
        Some(other) => Err(store::other_layout(path, other, SCHEMA)),
        // An earlier version of the agent created the file and wrote nothing.
        None if is_bare(database).map_err(classify)? => Ok(None),
        None => Err(damaged(path, "the version of the layout is missing")),
    }
}

fn damaged(path: &Path, reason: &str) -> store::Error {
    store::Error::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}

/// Creates the file with its tables, atomically. If another process creates it at the same time, that is not an error.
fn create(path: &Path) -> Result<(), store::Error> {
    make(path, put_in_place, |database| write(database, &[], &Encryption::default()).map(drop)).map(drop)
}

/// Replaces the file by a new one with the content of `database` and encrypted passwords. In the old file, plain
/// passwords would remain in free pages.
fn encrypt(path: &Path, database: &Database, encryption: &Encryption) -> Result<Database, store::Error> {
    let replace = |new: &Path, path: &Path| fs::rename(new, path);
    make(path, replace, |new| {
        let (from, to) = (database.begin_read()?, new.begin_write()?);
        copy(&from, &to, CPES, |name, bytes| {
            // The records were just read, so decoding does not fail.
            let record = record::decode(name, bytes, encryption).ok();
            record.map_or_else(|| bytes.to_vec(), |record| record::encode(&record, encryption))
        })?;
        copy(&from, &to, ASSOCIATIONS, |_, bytes| bytes.to_vec())?;
        for table in [SIGNED_OLDER, SIGNED_RECENT] {
            copy_signed(&from, &to, table)?;
        }
        let mut timestamps = to.open_table(TIMESTAMPS)?;
        for entry in from.open_table(TIMESTAMPS)?.iter()? {
            let (name, timestamp) = entry?;
            timestamps.insert(name.value(), timestamp.value())?;
        }
        let mut numbers = to.open_table(META)?;
        for entry in from.open_table(META)?.iter()? {
            let (name, number) = entry?;
            numbers.insert(name.value(), number.value())?;
        }
        drop((timestamps, numbers));
        Ok(to.commit()?)
    })
}

fn copy(
    from: &redb::ReadTransaction,
    to: &redb::WriteTransaction,
    table: TableDefinition<'_, &'static [u8], &'static [u8]>,
    change: impl Fn(&[u8], &[u8]) -> Vec<u8>,
) -> Result<(), redb::Error> {
    let mut copied = to.open_table(table)?;
    let table = match from.open_table(table) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in table.iter()? {
        let (key, value) = entry?;
        copied.insert(key.value(), &*change(key.value(), value.value()))?;
    }
    Ok(())
}

fn copy_signed(
    from: &redb::ReadTransaction,
    to: &redb::WriteTransaction,
    table: TableDefinition<'_, u64, ()>,
) -> Result<(), redb::Error> {
    let mut copied = to.open_table(table)?;
    let mut result = Ok(());
    read_signed(from, table, &mut |news| {
        if let (News::Signed(Fingerprint(number)), Ok(())) = (news, &result) {
            result = copied.insert(number, ()).map(drop);
        }
    })?;
    Ok(result?)
}

/// Creates a database next to the file at `path`, fills it with `fill` and moves it to `path` with `put`.
fn make(
    path: &Path,
    put: impl FnOnce(&Path, &Path) -> io::Result<()>,
    fill: impl FnOnce(&Database) -> Result<(), redb::Error>,
) -> Result<Database, store::Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    // A killed process with the same process id may have left this file.
    let _ = fs::remove_file(&new);
    let made = store::guard(&new, || {
        let database = store::database(&new)?;
        fill(&database).map_err(|error| store::classify(&new, error))?;
        let parent = |path: &Path| path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all());
        put(&new, path).map_err(|error| store::classify(path, error))?;
        // The file has its name; an error now would leave the database without one.
        if let Err(error) = parent(path) {
            tracing::warn!(path = %path.display(), %error, "directory not synchronised: a power loss may lose the new file");
        }
        Ok(database)
    });
    let _ = fs::remove_file(&new);
    made
}

/// Links the file `new` to `path`, unless `path` exists.
fn put_in_place(new: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(new, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // The file system has no hard links.
        Err(_) => fs::rename(new, path),
        Ok(()) => Ok(()),
    }
}

/// Whether the database has no tables.
fn is_bare(database: &Database) -> Result<bool, redb::Error> {
    Ok(database.begin_read()?.list_tables()?.next().is_none())
}

/// Upgrades a file from [`FIRST_SCHEMA`] to [`SCHEMA`], in one transaction.
fn upgrade(database: &Database) -> Result<Result<(), RecordError>, redb::Error> {
    // Records of the first layout are not encrypted.
    let plain = Encryption::default();
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut tables = Tables::open(&transaction, &plain)?;
        let mut upgraded = Vec::new();
        for entry in tables.cpes.iter()? {
            let (name, bytes) = entry?;
            match record::decode(name.value(), bytes.value(), &plain) {
                Ok(record) => upgraded.push(record),
                Err(error) => return Ok(Err(error)),
            }
        }
        for record in &upgraded {
            tables.create(record)?;
        }
        tables.numbers.remove(META_TIMESTAMP)?;
        tables.numbers.insert(META_SCHEMA, SCHEMA)?;
    }
    transaction.commit()?;
    Ok(Ok(()))
}

/// Reads a number from [`META`].
fn number(database: &Database, name: &str) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(table) => Ok(table.get(name)?.map(|value| value.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Callback for a key and its value.
type Each<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), RecordError> + 'a;

/// Reports the complete content. Returns whether there are unencrypted passwords.
fn read(
    path: &Path,
    database: &Database,
    encryption: &Encryption,
    each: &mut dyn FnMut(News),
) -> Result<bool, store::Error> {
    let classify = |error: redb::Error| store::classify(path, error);
    let undecodable = |error| match error {
        RecordError::Decode(error) => store::Error::record(path, &error),
        RecordError::Sealed(error) => store::Error::Closed { path: path.to_owned(), reason: error.to_string() },
    };
    let mut is_in_clear = false;
    let transaction = database.begin_read().map_err(|error| classify(error.into()))?;
    let rows = |table, each: &mut Each<'_>| {
        let table = match transaction.open_table(table) {
            Ok(table) => table,
            // A missing table reads as empty.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(classify(error.into())),
        };
        for entry in table.iter().map_err(|error| classify(error.into()))? {
            let (key, value) = entry.map_err(|error| classify(error.into()))?;
            each(key.value(), value.value()).map_err(undecodable)?;
        }
        Ok(())
    };
    rows(CPES, &mut |name, bytes| {
        is_in_clear |= !record::is_sealed(bytes);
        each(News::Cpe(record::decode(name, bytes, encryption)?.cpe));
        Ok(())
    })?;
    rows(ASSOCIATIONS, &mut |key, value| {
        each(News::Association(Short::from(key), Some(value.into())));
        Ok(())
    })?;
    match transaction.open_table(TIMESTAMPS) {
        Ok(table) => {
            for entry in table.iter().map_err(|error| classify(error.into()))? {
                let (name, timestamp) = entry.map_err(|error| classify(error.into()))?;
                each(News::Timestamp(Short::from(name.value()), Some(timestamp.value())));
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(classify(error.into())),
    }
    if let Some(time) = number(database, META_GOOD_TIME).map_err(classify)? {
        each(News::GoodTime(UnixTime(time)));
    }
    for generation in [SIGNED_OLDER, SIGNED_RECENT] {
        read_signed(&transaction, generation, each).map_err(classify)?;
    }
    Ok(is_in_clear)
}

fn read_signed(
    transaction: &redb::ReadTransaction,
    generation: TableDefinition<'_, u64, ()>,
    each: &mut dyn FnMut(News),
) -> Result<(), redb::Error> {
    let table = match transaction.open_table(generation) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in table.iter()? {
        each(News::Signed(Fingerprint(entry?.0.value())));
    }
    Ok(())
}

/// Adds requests to the recent generation. A full recent generation replaces the older one.
fn remember(database: &Database, requests: &[Fingerprint], generation: u64) -> Result<Vec<bool>, redb::Error> {
    let mut transaction = database.begin_write()?;
    // fsync before a response is sent.
    transaction.set_durability(Durability::Immediate)?;
    let mut known = Vec::with_capacity(requests.len());
    let is_full = {
        let older = transaction.open_table(SIGNED_OLDER)?;
        let mut recent = transaction.open_table(SIGNED_RECENT)?;
        for &Fingerprint(number) in requests {
            known.push(older.get(number)?.is_some() || recent.insert(number, ())?.is_some());
        }
        recent.len()? >= generation
    };
    if is_full {
        transaction.delete_table(SIGNED_OLDER)?;
        transaction.rename_table(SIGNED_RECENT, SIGNED_OLDER)?;
    }
    transaction.commit()?;
    Ok(known)
}

type Outcomes = Vec<Result<(), Taken>>;

fn write(database: &Database, groups: &[&[Change]], encryption: &Encryption) -> Result<Outcomes, redb::Error> {
    let mut transaction = database.begin_write()?;
    // fsync before `commit` returns, so that a power loss does not lose acknowledged changes.
    transaction.set_durability(Durability::Immediate)?;
    let mut outcomes = Outcomes::with_capacity(groups.len());
    {
        let mut tables = Tables::open(&transaction, encryption)?;
        tables.numbers.insert(META_SCHEMA, SCHEMA)?;
        for group in groups {
            outcomes.push(tables.write_group(group)?);
        }
    }
    transaction.commit()?;
    Ok(outcomes)
}

/// Reserves for each CPE a `ts` that is greater than its last one.
fn reserve(database: &Database, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut reserved = Vec::with_capacity(wanted.len());
    {
        let mut timestamps = transaction.open_table(TIMESTAMPS)?;
        for wanted in wanted {
            let given = timestamps.get(&*wanted.name)?.map(|last| last.value());
            let timestamp = next_timestamp(now, given.max(wanted.last(now)));
            timestamps.insert(&*wanted.name, timestamp)?;
            reserved.push(timestamp);
        }
    }
    transaction.commit()?;
    Ok(reserved)
}

type Table<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

/// The tables, open for writing.
struct Tables<'a> {
    cpes: Table<'a>,
    associations: Table<'a>,
    timestamps: redb::Table<'a, &'static [u8], u64>,
    numbers: redb::Table<'a, &'static str, u64>,
    encryption: &'a Encryption,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction, encryption: &'a Encryption) -> Result<Self, redb::Error> {
        Ok(Self {
            cpes: transaction.open_table(CPES)?,
            associations: transaction.open_table(ASSOCIATIONS)?,
            timestamps: transaction.open_table(TIMESTAMPS)?,
            numbers: transaction.open_table(META)?,
            encryption,
        })
    }

    /// Writes a group of changes. A refused group is rolled back.
    fn write_group(&mut self, group: &[Change]) -> Result<Result<(), Taken>, redb::Error> {
        let mut written: Vec<(&Short, Option<Vec<u8>>)> = Vec::new();
        for change in group {
            let Some(name) = change.record() else {
                self.write_other(change)?;
                continue;
            };
            let before = self.cpes.get(&**name)?.map(|bytes| bytes.value().to_vec());
            // All records can be decoded: they were read at the start, or this process wrote them.
            let known = before.as_deref().and_then(|bytes| record::decode(name, bytes, self.encryption).ok());
            let is_new = before.is_none();
            // There is one writer only, so writes need no revision numbers.
            let after = match record::apply(change, known, Stamp::default()) {
                Ok(after) => after,
                Err(taken) => {
                    for (name, before) in written.into_iter().rev() {
                        self.put(name, before.as_deref())?;
                    }
                    return Ok(Err(taken));
                }
            };
            match after {
                Some(record) if is_new => self.create(&record)?,
                after => {
                    let after = after.as_ref().map(|record| record::encode(record, self.encryption));
                    if after == before {
                        continue;
                    }
                    self.put(name, after.as_deref())?;
                }
            }
            written.push((name, before));
        }
        Ok(Ok(()))
    }

    /// Writes a change that does not concern the record of a CPE.
    fn write_other(&mut self, change: &Change) -> Result<(), redb::Error> {
        match change {
            Change::Association(key, Some(value)) => drop(self.associations.insert(&**key, &**value)?),
            Change::Association(key, None) => drop(self.associations.remove(&**key)?),
            Change::TimestampReset(name) => drop(self.timestamps.remove(&**name)?),
            Change::TimestampsReset => self.timestamps.retain(|_, _| false)?,
            Change::GoodTime(UnixTime(time)) => drop(self.numbers.insert(META_GOOD_TIME, time)?),
            Change::Added(_) | Change::Put(_) | Change::State(..) | Change::Reported(..) | Change::Removed(_) => {}
        }
        Ok(())
    }

    /// Writes a new CPE, and its last `ts` if known.
    fn create(&mut self, record: &Record) -> Result<(), redb::Error> {
        let cpe = &record.cpe;
        self.put(&cpe.name, Some(&record::encode(record, self.encryption)))?;
        if let Some(last) = cpe.state.last_timestamp {
            self.timestamps.insert(&*cpe.name, last)?;
        }
        Ok(())
    }

    /// Writes the record of a CPE. `None` removes the record and the last `ts`.
    fn put(&mut self, name: &Short, record: Option<&[u8]>) -> Result<(), redb::Error> {
        if let Some(record) = record {
            self.cpes.insert(&**name, record)?;
        } else {
            self.cpes.remove(&**name)?;
            self.timestamps.remove(&**name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a file of the first layout: CPEs with their last `ts`, and the highest `ts` of all CPEs, which is far in
    /// the future.
    fn first(path: &Path) {
        let database = store::database(path).expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        for (name, last_timestamp) in [("CPE1", Some(1_700_000_007_u64)), ("CPE2", None)] {
            let text = |text: &'static str| text.as_bytes();
            let passwords = (text("stun"), text("user"), text("password"));
            let cpe = (passwords, None::<u8>, None::<u8>, None::<u8>, last_timestamp, true);
            let bytes = postcard::to_extend(&cpe, vec![1]).expect("plain data");
            transaction.open_table(CPES).expect("a table").insert(text(name), &*bytes).expect("written");
        }
        let mut numbers = transaction.open_table(META).expect("a table");
        numbers.insert(META_SCHEMA, FIRST_SCHEMA).expect("written");
        numbers.insert(META_TIMESTAMP, 1_900_000_000).expect("written");
        drop(numbers);
        transaction.commit().expect("written");
    }

    /// T-54: a file of the first layout is read with the last `ts` of each CPE. The highest `ts` of all CPEs is
    /// dropped.
    #[test]
    fn a_file_of_the_first_layout_is_upgraded() {
        let directory = tempfile::tempdir().expect("a directory");
        first(&directory.path().join(FILE));
        for _ in 0..2 {
            let mut embedded = Embedded::open(directory.path(), Encryption::default()).expect("opens");
            let mut news = Vec::new();
            embedded.load(&mut |one| news.push(one)).expect("reads");
            let cpes: Vec<_> = news
                .iter()
                .filter_map(|one| match one {
                    News::Cpe(cpe) => Some((&*cpe.name, &*cpe.credentials.stun_password, cpe.state.must_verify)),
                    _ => None,
                })
                .collect();
            assert_eq!(cpes, [(&b"CPE1"[..], &b"stun"[..], true), (b"CPE2", b"stun", true)]);
            assert!(news.contains(&News::Timestamp(Short::from(&b"CPE1"[..]), Some(1_700_000_007))), "{news:?}");
        }
        let mut embedded = Embedded::open(directory.path(), Encryption::default()).expect("opens");
        let wanted = ["CPE1", "CPE2"].map(|name| Wanted { name: Short::from(name.as_bytes()), last: None });
        let given = embedded.reserve(&wanted, UnixTime(1_700_000_000)).expect("reserves");
        assert_eq!(given, [1_700_000_008, 1_700_000_000]);
    }

    fn is_aside(directory: &Path) -> bool {
        let mut entries = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").file_name());
        entries.any(|name| name.to_string_lossy().contains(".damaged-"))
    }

    /// A file that is damaged or removed while the agent runs is created again, and the failure says so.
    #[test]
    fn a_file_that_is_lost_while_it_is_in_use_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Embedded::open(directory.path(), Encryption::default()).expect("opens");
        store.load(&mut |_| {}).expect("reads");
        for is_damaged in [false, true] {
            // As after a failed write, the database must be opened again.
            store.database = None;
            if is_damaged {
                fs::write(store.path(), b"no database".repeat(1_000)).expect("writable");
            } else {
                fs::remove_file(store.path()).expect("removable");
            }
            assert_eq!(store.commit(&[&[]]), Err(Failure::Emptied));
            assert_eq!(store.commit(&[&[]]), Ok(vec![Ok(())]));
            assert_eq!(is_aside(directory.path()), is_damaged);
        }
    }

    /// T-67: signed requests are remembered across a restart: at least the last generation, at most two.
    #[test]
    fn signed_requests_are_remembered_in_bounded_space() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut known = Vec::new();
        for first in (0..1_000).step_by(70) {
            let mut store =
                Embedded { generation: 100, ..Embedded::open(directory.path(), Encryption::default()).expect("opens") };
            let mut told = Vec::new();
            store
                .load(&mut |news| {
                    if let News::Signed(Fingerprint(number)) = news {
                        told.push(number);
                    }
                })
                .expect("reads");
            assert!(told.len() < 200 + 70, "{}", told.len());
            let last = known.len().saturating_sub(100);
            assert!(known[last..].iter().all(|number| told.contains(number)));
            let requests: Vec<_> = (first..first + 70).map(Fingerprint).collect();
            assert_eq!(store.remember(&requests), Ok(vec![false; 70]));
            assert_eq!(store.remember(&requests), Ok(vec![true; 70]));
            assert_eq!(
                store.remember(&[requests[3], Fingerprint(5_000 + first), Fingerprint(5_000 + first)]),
                Ok(vec![true, false, true])
            );
            known.extend(requests.iter().map(|&Fingerprint(number)| number));
            known.push(5_000 + first);
        }
    }

    /// Two agents cannot open the file at the same time, neither before it is read nor after.
    #[test]
    fn a_second_agent_is_told_that_the_file_is_in_use() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Embedded::open(directory.path(), Encryption::default()).expect("opens");
        for _ in 0..2 {
            let second = Embedded::open(directory.path(), Encryption::default());
            assert!(matches!(second, Err(store::Error::InUse { .. })), "{second:?}");
            store.load(&mut |_| {}).expect("reads");
        }
    }

    /// A file of a newer version that appears while the agent runs is not changed.
    #[test]
    fn a_file_of_a_newer_version_is_not_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Embedded::open(directory.path(), Encryption::default()).expect("opens");
        let database = store.database.take().expect("open");
        store.deferred.take().expect("not read yet").release().expect("writable");
        let transaction = database.begin_write().expect("begins");
        transaction.open_table(META).expect("there").insert(META_SCHEMA, SCHEMA + 1).expect("written");
        transaction.commit().expect("written");
        drop(database);
        let before = fs::read(store.path()).expect("readable");
        let Err(Failure::Unavailable(reason)) = store.commit(&[&[]]) else { panic!("written") };
        assert!(reason.contains("another version"), "{reason}");
        assert_eq!(fs::read(store.path()).expect("readable"), before);
    }
}
