//! The registry in a file of this machine, beside the store of the other roles and under the same rules: each group is on
//! the disk before anybody is told, a damaged file is moved aside, and a full disk is tried again.

use std::{
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tr111_core::{
    acs::{Change, Record, Stamp},
    connreq::next_timestamp,
    short::Short,
    time::UnixTime,
};

use super::{BindingStore, Error, Failure, Follower, News, Taken, Wanted, Whole, record};
use crate::store::{self, DecodeError};

/// Name of the file in `state_dir`.
pub const FILE: &str = "registry.redb";
/// Layout of the tables.
const SCHEMA: u64 = 2;
/// The layout before: records of version 1, and one number below which nobody was given a `ts`.
const FIRST_SCHEMA: u64 = 1;

/// Name to everything else of a CPE.
const CPES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("cpes");
/// Associations, of which only their owner knows more.
const ASSOCIATIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("associations");
/// Name of a CPE to the last `ts` that was given to it (T-54).
const TIMESTAMPS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("timestamps");
/// Name to number.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Layout of the tables.
const META_SCHEMA: &str = "schema";
/// The last time that was known to be good ([`Change::GoodTime`]).
const META_GOOD_TIME: &str = "good_time";
/// In [`FIRST_SCHEMA`], the highest `ts` that was ever given.
const META_TIMESTAMP: &str = "timestamp";

/// The open file.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    /// `None` after a failure: the database takes nothing more until it is opened again.
    database: Option<Database>,
    /// What a file holds that cannot be written, until it is read.
    read_only: Option<Database>,
}

impl Embedded {
    /// Opens the file in `directory`, which is made if need be.
    ///
    /// # Errors
    /// It cannot be had. A damaged one is no error: it is moved aside, and there is an empty one then.
    pub fn open(directory: &Path) -> Result<Self, store::Error> {
        store::create(directory)?;
        let path = directory.join(FILE);
        match open(&path) {
            Ok(database) => Ok(Self::new(path, Some(database))),
            Err(store::Error::Damaged { path, reason }) => Self::anew(path, &reason),
            // A full disk, or one that became read-only: what it holds counts all the same.
            Err(error @ (store::Error::System { .. } | store::Error::Database { .. })) if path.exists() => {
                let copy = panic::catch_unwind(|| store::copy_in_memory(&path)).ok().flatten();
                let Some(copy) = copy.filter(|copy| number(copy, META_SCHEMA).is_ok()) else { return Err(error) };
                tracing::error!(%error, "the registry cannot be written: the agent goes on and tries again");
                Ok(Self { read_only: Some(copy), ..Self::new(path, None) })
            }
            Err(error) => Err(error),
        }
    }

    fn new(path: PathBuf, database: Option<Database>) -> Self {
        Self { path, database, read_only: None }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn anew(path: PathBuf, reason: &str) -> Result<Self, store::Error> {
        let aside = store::move_aside(&path)?;
        tracing::error!(reason, "the registry starts empty; the damaged file is now {}", aside.display());
        let database = open(&path)?;
        Ok(Self::new(path, Some(database)))
    }

    /// Lets the database do something; afterwards it is to be opened again if that failed.
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
        match open(&self.path) {
            Ok(database) if existed => Ok(database),
            Ok(database) => {
                self.database = Some(database);
                Err(Failure::Emptied)
            }
            Err(store::Error::Damaged { reason, .. }) => {
                let fresh = Self::anew(self.path.clone(), &reason).map_err(unavailable)?;
                self.database = fresh.database;
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
        match store::guard(&self.path, || read(&self.path, database, each)) {
            Err(store::Error::Damaged { path, reason }) => {
                // Whatever was told of it is not there.
                each(News::Whole(Whole::default()));
                self.database = None;
                *self = Self::anew(path, &reason)?;
                Ok(())
            }
            read => Ok(read?),
        }
    }

    fn commit(&mut self, groups: &[&[Change]]) -> Result<Vec<Result<(), Taken>>, Failure> {
        self.with(|database| write(database, groups))
    }

    fn reserve(&mut self, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, Failure> {
        self.with(|database| reserve(database, wanted, now))
    }

    fn follower(&mut self) -> Option<Box<dyn Follower>> {
        None
    }
}

fn open(path: &Path) -> Result<Database, store::Error> {
    let damaged = |reason| store::Error::Damaged { path: path.to_owned(), reason };
    store::guard(path, || {
        let database = store::database(path)?;
        match number(&database, META_SCHEMA).map_err(|error| store::classify(path, error))? {
            Some(SCHEMA) | None => {}
            Some(FIRST_SCHEMA) => {
                let upgraded = upgrade(&database).map_err(|error| store::classify(path, error))?;
                upgraded.map_err(|error| damaged(error.to_string()))?;
            }
            Some(other) => return Err(damaged(format!("layout {other}, not {SCHEMA}"))),
        }
        Ok(database)
    })
}

/// Brings a file of [`FIRST_SCHEMA`] to [`SCHEMA`], all of it or nothing.
fn upgrade(database: &Database) -> Result<Result<(), DecodeError>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut tables = Tables::open(&transaction)?;
        let mut upgraded = Vec::new();
        for entry in tables.cpes.iter()? {
            let (name, bytes) = entry?;
            match record::decode(name.value(), bytes.value()) {
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

/// A number of [`META`].
fn number(database: &Database, name: &str) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(table) => Ok(table.get(name)?.map(|value| value.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes a key and a value.
type Each<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), DecodeError> + 'a;

fn read(path: &Path, database: &Database, each: &mut dyn FnMut(News)) -> Result<(), store::Error> {
    let classify = |error: redb::Error| store::classify(path, error);
    let damaged = |error: DecodeError| store::Error::Damaged { path: path.to_owned(), reason: error.to_string() };
    let transaction = database.begin_read().map_err(|error| classify(error.into()))?;
    let rows = |table, each: &mut Each<'_>| {
        let table = match transaction.open_table(table) {
            Ok(table) => table,
            // Tables that are not there yet read as empty.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(classify(error.into())),
        };
        for entry in table.iter().map_err(|error| classify(error.into()))? {
            let (key, value) = entry.map_err(|error| classify(error.into()))?;
            each(key.value(), value.value()).map_err(damaged)?;
        }
        Ok(())
    };
    rows(CPES, &mut |name, bytes| {
        each(News::Cpe(record::decode(name, bytes)?.cpe));
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
    Ok(())
}

type Outcomes = Vec<Result<(), Taken>>;

fn write(database: &Database, groups: &[&[Change]]) -> Result<Outcomes, redb::Error> {
    let mut transaction = database.begin_write()?;
    // fsync before `commit` returns: power loss costs nothing that was told.
    transaction.set_durability(Durability::Immediate)?;
    let mut outcomes = Outcomes::with_capacity(groups.len());
    {
        let mut tables = Tables::open(&transaction)?;
        tables.numbers.insert(META_SCHEMA, SCHEMA)?;
        for group in groups {
            outcomes.push(tables.write_group(group)?);
        }
    }
    transaction.commit()?;
    Ok(outcomes)
}

/// Gives each CPE a `ts` that is greater than its last one.
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

/// The tables, to be written.
struct Tables<'a> {
    cpes: Table<'a>,
    associations: Table<'a>,
    timestamps: redb::Table<'a, &'static [u8], u64>,
    numbers: redb::Table<'a, &'static str, u64>,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            cpes: transaction.open_table(CPES)?,
            associations: transaction.open_table(ASSOCIATIONS)?,
            timestamps: transaction.open_table(TIMESTAMPS)?,
            numbers: transaction.open_table(META)?,
        })
    }

    /// A group that is refused takes back what it wrote.
    fn write_group(&mut self, group: &[Change]) -> Result<Result<(), Taken>, redb::Error> {
        let mut written: Vec<(&Short, Option<Vec<u8>>)> = Vec::new();
        for change in group {
            let Some(name) = change.record() else {
                self.write_other(change)?;
                continue;
            };
            let before = self.cpes.get(&**name)?.map(|bytes| bytes.value().to_vec());
            // What cannot be read was refused when the file was opened; what came since was written by this program.
            let known = before.as_deref().and_then(|bytes| record::decode(name, bytes).ok());
            let is_new = before.is_none();
            // Nobody else writes, so nothing has to be numbered.
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
                    let after = after.as_ref().map(record::encode);
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

    /// A change that is about no record of a CPE.
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

    /// Writes a CPE that was not there, and the `ts` that somebody knows of it.
    fn create(&mut self, record: &Record) -> Result<(), redb::Error> {
        let cpe = &record.cpe;
        self.put(&cpe.name, Some(&record::encode(record)))?;
        if let Some(last) = cpe.state.last_timestamp {
            self.timestamps.insert(&*cpe.name, last)?;
        }
        Ok(())
    }

    /// Writes the record of a CPE. Where there is none, its `ts` goes too.
    fn put(&mut self, name: &Short, record: Option<&[u8]>) -> Result<(), redb::Error> {
        match record {
            Some(record) => drop(self.cpes.insert(&**name, record)?),
            None => {
                self.cpes.remove(&**name)?;
                self.timestamps.remove(&**name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the layout before: CPEs with their last `ts`, and one number for all. The number was the `ts` of the future
    /// that one CPE was sent once.
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

    /// T-54: a file of the version before is read, with the `ts` of each CPE, and the one of all is forgotten.
    #[test]
    fn a_file_of_the_first_layout_is_upgraded() {
        let directory = tempfile::tempdir().expect("a directory");
        first(&directory.path().join(FILE));
        for _ in 0..2 {
            let mut embedded = Embedded::open(directory.path()).expect("opens");
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
        let mut embedded = Embedded::open(directory.path()).expect("opens");
        let wanted = ["CPE1", "CPE2"].map(|name| Wanted { name: Short::from(name.as_bytes()), last: None });
        let given = embedded.reserve(&wanted, UnixTime(1_700_000_000)).expect("reserves");
        assert_eq!(given, [1_700_000_008, 1_700_000_000]);
    }
}
