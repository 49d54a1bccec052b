//! The registry in a file of this machine, beside the store of the other roles and under the same rules: each group is on
//! the disk before anybody is told, a damaged file is moved aside, and a full disk is tried again.

use std::{
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use tr111_core::{acs::Change, connreq::next_timestamp, short::Short, time::UnixTime};

use super::{
    BindingStore, Error, Failure, Follower, News, Taken, Wanted, Whole,
    record::{self, Writers},
};
use crate::store::{self, DecodeError};

/// Name of the file in `state_dir`.
pub const FILE: &str = "registry.redb";
/// Layout of the tables.
const SCHEMA: u64 = 1;

/// Name to everything else of a CPE.
const CPES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("cpes");
/// Associations, of which only their owner knows more.
const ASSOCIATIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("associations");
/// Name to number.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Layout of the tables.
const META_SCHEMA: &str = "schema";
/// The highest `ts` that was ever reserved.
const META_TIMESTAMP: &str = "timestamp";

/// The open file.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    /// `None` after a failure: the database takes nothing more until it is opened again.
    database: Option<Database>,
    /// What a file holds that cannot be written, until it is read.
    read_only: Option<Database>,
    /// No `ts` above it was given to any CPE, in all lives of this file.
    highest: Option<u64>,
    /// What it was when this process began. A CPE's own last `ts` is in memory from then on, so that one number on the disk,
    /// written once a second at most, does for all of them.
    floor: Option<u64>,
    /// What was given at or below `floor`, by the clock of whoever asked: few, unless the clock went back.
    raised: HashMap<Short, u64>,
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
            Ok((database, highest)) => Ok(Self::new(path, Some(database), highest)),
            Err(store::Error::Damaged { path, reason }) => Self::anew(path, &reason),
            // A full disk, or one that became read-only: what it holds counts all the same.
            Err(error @ (store::Error::System { .. } | store::Error::Database { .. })) if path.exists() => {
                let copy = panic::catch_unwind(|| store::copy_in_memory(&path)).ok().flatten();
                let Some((copy, (_, highest))) = copy.and_then(|copy| meta(&copy).ok().map(|meta| (copy, meta))) else {
                    return Err(error);
                };
                tracing::error!(%error, "the registry cannot be written: the agent goes on and tries again");
                Ok(Self { read_only: Some(copy), ..Self::new(path, None, highest) })
            }
            Err(error) => Err(error),
        }
    }

    fn new(path: PathBuf, database: Option<Database>, highest: Option<u64>) -> Self {
        Self { path, database, read_only: None, highest, floor: highest, raised: HashMap::new() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn anew(path: PathBuf, reason: &str) -> Result<Self, store::Error> {
        let aside = store::move_aside(&path)?;
        tracing::error!(reason, "the registry starts empty; the damaged file is now {}", aside.display());
        let (database, highest) = open(&path)?;
        Ok(Self::new(path, Some(database), highest))
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
            Ok((database, _)) if existed => Ok(database),
            Ok((database, _)) => {
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
        let highest = self.highest;
        self.with(|database| write(database, groups, highest))
    }

    fn reserve(&mut self, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, Failure> {
        let mut reserved = Vec::with_capacity(wanted.len());
        for Wanted { name, last } in wanted {
            let known = next_timestamp(now, *last);
            if self.floor.is_none_or(|floor| known > floor) && !self.raised.contains_key(name) {
                reserved.push(known);
                continue;
            }
            let raised = self.raised.entry(name.clone()).or_insert(self.floor.unwrap_or_default());
            *raised = next_timestamp(now, Some(*raised).max(*last));
            reserved.push(*raised);
        }
        let highest = reserved.iter().copied().max();
        if highest > self.highest {
            self.with(|database| write(database, &[], highest))?;
            self.highest = highest;
        }
        Ok(reserved)
    }

    fn follower(&mut self) -> Option<Box<dyn Follower>> {
        None
    }
}

/// The database, and the highest `ts` that was reserved.
fn open(path: &Path) -> Result<(Database, Option<u64>), store::Error> {
    store::guard(path, || {
        let database = store::database(path)?;
        let (schema, highest) = meta(&database).map_err(|error| store::classify(path, error))?;
        match schema {
            Some(SCHEMA) | None => Ok((database, highest)),
            Some(other) => {
                Err(store::Error::Damaged { path: path.to_owned(), reason: format!("layout {other}, not {SCHEMA}") })
            }
        }
    })
}

fn meta(database: &Database) -> Result<(Option<u64>, Option<u64>), redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(table) => {
            let number = |name| -> Result<_, redb::Error> { Ok(table.get(name)?.map(|value| value.value())) };
            Ok((number(META_SCHEMA)?, number(META_TIMESTAMP)?))
        }
        Err(redb::TableError::TableDoesNotExist(_)) => Ok((None, None)),
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
        each(News::Cpe(record::decode(name, bytes)?));
        Ok(())
    })?;
    rows(ASSOCIATIONS, &mut |key, value| {
        each(News::Association(Short::from(key), Some(value.into())));
        Ok(())
    })
}

type Outcomes = Vec<Result<(), Taken>>;

fn write(database: &Database, groups: &[&[Change]], highest: Option<u64>) -> Result<Outcomes, redb::Error> {
    let mut transaction = database.begin_write()?;
    // fsync before `commit` returns: power loss costs nothing that was told.
    transaction.set_durability(Durability::Immediate)?;
    let mut outcomes = Outcomes::with_capacity(groups.len());
    {
        let mut cpes = transaction.open_table(CPES)?;
        let mut associations = transaction.open_table(ASSOCIATIONS)?;
        let mut numbers = transaction.open_table(META)?;
        numbers.insert(META_SCHEMA, SCHEMA)?;
        if let Some(highest) = highest {
            numbers.insert(META_TIMESTAMP, highest)?;
        }
        for group in groups {
            outcomes.push(write_group(&mut cpes, &mut associations, group)?);
        }
    }
    transaction.commit()?;
    Ok(outcomes)
}

type Table<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

/// A group that is refused takes back what it wrote.
fn write_group(
    cpes: &mut Table<'_>,
    associations: &mut Table<'_>,
    group: &[Change],
) -> Result<Result<(), Taken>, redb::Error> {
    let mut written: Vec<(&Short, Option<Vec<u8>>)> = Vec::new();
    for change in group {
        let name = change.name();
        if let Change::Association(key, value) = change {
            match value {
                Some(value) => drop(associations.insert(&**key, &**value)?),
                None => drop(associations.remove(&**key)?),
            }
            continue;
        }
        let before = cpes.get(&**name)?.map(|bytes| bytes.value().to_vec());
        // What cannot be read was refused when the file was opened; what came since was written by this program.
        let known = before.as_deref().and_then(|bytes| record::decode(name, bytes).ok());
        let after = match record::apply(change, known, Writers::One) {
            Ok(after) => after.map(|cpe| record::encode(&cpe)),
            Err(taken) => {
                for (name, before) in written.into_iter().rev() {
                    put(cpes, name, before.as_deref())?;
                }
                return Ok(Err(taken));
            }
        };
        if after != before {
            put(cpes, name, after.as_deref())?;
            written.push((name, before));
        }
    }
    Ok(Ok(()))
}

fn put(cpes: &mut Table<'_>, name: &Short, value: Option<&[u8]>) -> Result<(), redb::Error> {
    match value {
        Some(value) => drop(cpes.insert(&**name, value)?),
        None => drop(cpes.remove(&**name)?),
    }
    Ok(())
}
