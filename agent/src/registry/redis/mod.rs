//! The registry in a Redis or Valkey, for several servers behind one address.
//!
//! Each server has all CPEs in memory. To change a CPE, a server reads its record from Redis, takes a revision number
//! from Redis, applies the change to the record (T-65, [`tr111_core::acs::Record`]), and writes the record if it has
//! not changed in between. A script compares and writes atomically. Each write appends the name of the CPE to a stream
//! under the next sequence number. The other servers read the stream, and then the current record of each name in it.
//! So the order of changes does not matter, but none may be missed. If sequence numbers are missing, because the stream
//! was trimmed while a server was absent, the server reads all records again.

mod connect;
mod follower;
mod script;

use std::collections::{HashMap, HashSet};

use redis::{Cmd, FromRedisValue, cmd};
use tr111_core::{
    acs::{Change, Fingerprint, GENERATION, Record, Stamp},
    short::Short,
    time::UnixTime,
};

use self::{
    connect::{ConnectError, Connection},
    follower::{Mark, RedisFollower},
};
use super::{BindingStore, Encryption, Error, Failure, Follower, News, Sealed, Taken, Unreadable, Wanted, record};
use crate::{config::RedisAddress, random};

/// Names per command and script. A script blocks all clients of Redis while it runs, which is some milliseconds.
const BATCH: usize = 512;
/// Maximum attempts to write a change while other servers change the same CPE.
const TRIES: usize = 32;

/// The registry in Redis, with the connection for writing.
#[derive(Debug)]
pub struct Redis {
    address: RedisAddress,
    connection: Link,
    /// Random number of this server process, not 0.
    server: u32,
    encryption: Encryption,
    /// Records that could not be changed because they cannot be read.
    unreadable: Vec<Unreadable>,
    /// Position of the stream at the time of [`BindingStore::load`].
    mark: Option<Mark>,
}

impl Redis {
    /// Connects to the Redis at `address`. `encryption` applies to the passwords of CPEs.
    ///
    /// # Errors
    /// Redis is unavailable, or its passwords are encrypted under another key. Only at the start must Redis be
    /// available: an agent without its CPEs would refuse all of them.
    pub fn open(address: RedisAddress, encryption: Encryption) -> Result<Self, Error> {
        let mut connection = Link::new(address.clone());
        connection.ask::<String>(&cmd("PING")).map_err(Error::Redis)?;
        if let Some(reason) = foreign_key(&mut connection, &encryption).map_err(Error::Redis)? {
            return Err(Error::Closed { address: address.to_string(), reason });
        }
        let [server] = random::words::<1>()?;
        let server = (server as u32).max(1);
        Ok(Self { address, connection, server, encryption, unreadable: Vec::new(), mark: None })
    }

    /// Writes a group of changes. If a name is taken, the CPEs that were already added are removed again.
    fn write(&mut self, changes: &[&Change]) -> Result<Result<(), Taken>, Failure> {
        let mut added: Vec<&Short> = Vec::new();
        for batch in changes.chunks(BATCH) {
            if let Err(taken) = self.write_batch(batch, &mut added)? {
                // Another server added the name after the check. Remove the CPEs that this group has added.
                let undo: Vec<Change> = added.iter().map(|name| Change::Removed((*name).clone())).collect();
                for batch in undo.iter().collect::<Vec<_>>().chunks(BATCH) {
                    let _ = self.write_batch(batch, &mut Vec::new())?;
                }
                return Ok(Err(taken));
            }
        }
        Ok(Ok(()))
    }

    /// Writes at most [`BATCH`] changes. `added` gets the names of added CPEs, even if the batch is refused.
    fn write_batch<'a>(
        &mut self,
        changes: &[&'a Change],
        added: &mut Vec<&'a Short>,
    ) -> Result<Result<(), Taken>, Failure> {
        let mut left: Vec<&'a Change> = changes.to_vec();
        for _ in 0..TRIES {
            let mut write = eval(
                script::WRITE,
                &[
                    script::CPES,
                    script::ASSOCIATIONS,
                    script::TIMESTAMPS,
                    script::SEQUENCE,
                    script::CHANGES,
                    script::GOOD_TIME,
                ],
            );
            write.arg(script::REMEMBERED).arg(&token()?);
            let names: HashSet<&Short> = left.iter().filter_map(|change| change.record()).collect();
            let names: Vec<&Short> = names.into_iter().collect();
            let before = self.values(&names)?;
            let (mut known, mut unreadable) = (HashMap::new(), HashMap::new());
            for (name, bytes) in &before {
                match record::decode(name, bytes, &self.encryption) {
                    Ok(record) => drop(known.insert(name, record)),
                    Err(error) => drop(unreadable.insert(name, error)),
                }
            }
            let revisions = known.values().map(|record: &Record| record.cpe.state.revision);
            let highest = left.iter().map(|change| change.revision()).chain(revisions).max();
            let stamp = if names.is_empty() { Stamp::default() } else { self.stamp(highest)? };
            let mut is_empty = true;
            let mut put = |kind: &str, name: &[u8], before: &[u8], after: &[u8]| {
                is_empty = false;
                write.arg(kind).arg(name).arg(before).arg(after);
            };
            let mut gone = HashSet::new();
            for change in &left {
                let Some(name) = change.record() else {
                    put_other(change, &mut put);
                    continue;
                };
                match (change, unreadable.remove(name)) {
                    // A record that cannot be read may be removed.
                    (_, None) | (Change::Removed(_), Some(_)) => {}
                    (Change::Added(_), Some(_)) => return Ok(Err(Taken { name: name.clone() })),
                    (_, Some(error)) => {
                        self.unreadable.push(Unreadable { name: name.clone(), reason: error.to_string() });
                        unreadable.insert(name, error);
                        continue;
                    }
                }
                match record::apply(change, known.remove(name), stamp) {
                    Ok(Some(record)) => drop(known.insert(name, record)),
                    Ok(None) if matches!(change, Change::Removed(_)) => drop(gone.insert(name)),
                    Ok(None) => {}
                    Err(taken) => return Ok(Err(taken)),
                }
            }
            for name in names.into_iter().filter(|name| !unreadable.contains_key(*name)) {
                let after = known.remove(name);
                let before = before.get(name).map(Vec::as_slice).unwrap_or_default();
                let bytes = after.as_ref().map(|record| record::encode(record, &self.encryption)).unwrap_or_default();
                if bytes != before {
                    put(script::CPE, name, before, &bytes);
                }
                // Another server may have restored a lost CPE with an older `ts`.
                let last = after.as_ref().and_then(|record| record.cpe.state.last_timestamp);
                if let Some(last) = last.filter(|_| before.is_empty()) {
                    put(script::TIMESTAMP, name, &[], last.to_string().as_bytes());
                }
                // The CPE was removed and its name is used by a new one.
                if after.is_some() && gone.contains(name) {
                    put(script::TIMESTAMP, name, &[], &[]);
                }
            }
            if is_empty {
                return Ok(Ok(()));
            }
            let missed: HashSet<Vec<u8>> = self.connection.ask(&write)?;
            left.retain(|change| {
                let is_missed = change.record().is_some_and(|name| missed.contains(&**name));
                if let Change::Added(cpe) = change
                    && !is_missed
                {
                    added.push(&cpe.name);
                }
                is_missed
            });
            if left.is_empty() {
                return Ok(Ok(()));
            }
        }
        Err(Failure::Unavailable("other servers keep changing the same CPEs".to_owned()))
    }

    /// Takes a revision number for a write. It is taken after the records are read, so that it is greater than the
    /// revisions of these records. It is also greater than `highest`, in case Redis lost its last writes.
    fn stamp(&mut self, highest: Option<u64>) -> Result<Stamp, Failure> {
        let next = |connection: &mut Link, by: u64| connection.ask(cmd("INCRBY").arg(script::REVISION).arg(by));
        let mut revision: u64 = next(&mut self.connection, 1)?;
        if let Some(behind) = highest.and_then(|highest| highest.checked_sub(revision)) {
            revision = next(&mut self.connection, behind + 1)?;
        }
        Ok(Stamp { server: self.server, revision })
    }

    /// Reports the complete content, and encrypts unencrypted passwords if encryption is on. Returns the position of
    /// the stream at the beginning.
    fn read(&mut self, each: &mut dyn FnMut(News)) -> Result<Mark, Failure> {
        let mark = Mark::read(&mut self.connection, &self.encryption)?;
        let mut scan = follower::Scan::new(self.server, self.encryption.clone());
        while let Some(news) = scan.step(&mut self.connection)? {
            let in_clear: Vec<Change> = scan.in_clear().collect();
            let _ = self.write(&in_clear.iter().collect::<Vec<_>>())?;
            news.into_iter().for_each(&mut *each);
        }
        if let Some(time) = self.connection.ask(cmd("GET").arg(script::GOOD_TIME))? {
            each(News::GoodTime(UnixTime(time)));
        }
        Ok(mark)
    }

    /// The records of CPEs in Redis.
    fn values(&mut self, names: &[&Short]) -> Result<HashMap<Short, Vec<u8>>, Failure> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let mut question = cmd("HMGET");
        question.arg(script::CPES);
        for name in names {
            question.arg(&***name);
        }
        let values: Vec<Option<Vec<u8>>> = self.connection.ask(&question)?;
        let known = names.iter().zip(values).filter_map(|(name, value)| Some(((*name).clone(), value?)));
        Ok(known.collect())
    }

    /// The first CPE to be added whose name is taken.
    fn taken(&mut self, changes: &[Change]) -> Result<Option<Taken>, Failure> {
        let (mut added, mut gone) = (Vec::new(), HashSet::new());
        for change in changes {
            match change {
                Change::Removed(name) => drop(gone.insert(name)),
                Change::Added(cpe) if !gone.contains(&cpe.name) => added.push(&cpe.name),
                _ => {}
            }
        }
        for names in added.chunks(BATCH) {
            let known = self.values(names)?;
            if let Some(&name) = names.iter().find(|name| known.contains_key(**name)) {
                return Ok(Some(Taken { name: name.clone() }));
            }
        }
        Ok(None)
    }
}

impl BindingStore for Redis {
    fn load(&mut self, each: &mut dyn FnMut(News)) -> Result<(), Error> {
        self.mark = Some(self.read(each).map_err(Error::Redis)?);
        Ok(())
    }

    fn commit(&mut self, groups: &[&[Change]]) -> Result<Vec<Result<(), Taken>>, Failure> {
        let mut outcomes = vec![Ok(()); groups.len()];
        if groups.iter().all(|group| group.is_empty()) {
            // The caller checks whether Redis is available.
            self.connection.ask::<String>(&cmd("PING"))?;
        }
        // Groups that cannot be refused are written together.
        let mut gathered: Vec<&Change> = Vec::new();
        for (group, outcome) in groups.iter().zip(&mut outcomes) {
            if !group.iter().any(|change| matches!(change, Change::Added(_))) {
                gathered.extend(*group);
                continue;
            }
            let _ = self.write(&std::mem::take(&mut gathered))?;
            *outcome = match self.taken(group)? {
                Some(taken) => Err(taken),
                None => self.write(&group.iter().collect::<Vec<_>>())?,
            };
        }
        let _ = self.write(&gathered)?;
        Ok(outcomes)
    }

    fn remember(&mut self, requests: &[Fingerprint]) -> Result<Vec<bool>, Failure> {
        let mut known = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            let mut remember = eval(script::REMEMBER, &[script::SIGNED_RECENT, script::SIGNED_OLDER]);
            remember.arg(GENERATION);
            for Fingerprint(number) in batch {
                remember.arg(&number.to_be_bytes());
            }
            let batch: Vec<bool> = self.connection.ask(&remember)?;
            known.extend(batch);
        }
        Ok(known)
    }

    fn reserve(&mut self, wanted: &[Wanted], now: UnixTime) -> Result<Vec<u64>, Failure> {
        let mut reserved = Vec::with_capacity(wanted.len());
        for batch in wanted.chunks(BATCH) {
            let mut reserve = eval(script::RESERVE, &[script::TIMESTAMPS]);
            reserve.arg(now.0);
            for wanted in batch {
                let last = wanted.last(now).map_or(-1, |last| i64::try_from(last).unwrap_or(i64::MAX));
                reserve.arg(&*wanted.name).arg(last);
            }
            let batch: Vec<u64> = self.connection.ask(&reserve)?;
            reserved.extend(batch);
        }
        Ok(reserved)
    }

    fn unreadable(&mut self) -> Vec<Unreadable> {
        std::mem::take(&mut self.unreadable)
    }

    fn follower(&mut self) -> Option<Box<dyn Follower>> {
        let encryption = self.encryption.clone();
        Some(Box::new(RedisFollower::new(self.address.clone(), self.server, encryption, self.mark.take())))
    }
}

/// Adds a change that does not concern the record of a CPE to the arguments of the script.
fn put_other(change: &Change, put: &mut impl FnMut(&str, &[u8], &[u8], &[u8])) {
    match change {
        Change::Association(key, value) => put(script::ASSOCIATION, key, &[], value.as_deref().unwrap_or_default()),
        Change::TimestampReset(name) => put(script::TIMESTAMP, name, &[], &[]),
        Change::TimestampsReset => put(script::TIMESTAMP, &[], &[], &[]),
        Change::GoodTime(UnixTime(time)) => put(script::TIME, &[], &[], time.to_string().as_bytes()),
        Change::Added(_) | Change::Put(_) | Change::State(..) | Change::Reported(..) | Change::Removed(_) => {}
    }
}

fn eval(script: &str, keys: &[&str]) -> Cmd {
    let mut eval = cmd("EVAL");
    eval.arg(script).arg(keys.len()).arg(keys);
    eval
}

/// A connection that is opened when it is needed, and opened again after an error.
struct Link {
    address: RedisAddress,
    connection: Option<Connection>,
}

impl Link {
    fn new(address: RedisAddress) -> Self {
        Self { address, connection: None }
    }

    fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Failure> {
        let address = &self.address;
        let failed = |error: ConnectError| Failure::Unavailable(format!("{address}: {error}"));
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(address).map_err(failed)?,
        };
        let answer = connection.ask(command).map_err(failed)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Link({})", self.address)
    }
}

/// Why the passwords in Redis cannot be decrypted. `None` if they can, or if there are none.
fn foreign_key(link: &mut Link, encryption: &Encryption) -> Result<Option<Sealed>, Failure> {
    let (id,): (Option<Vec<u8>>,) = link.ask(cmd("MGET").arg(script::KEY))?;
    Ok(match (id, encryption.id()) {
        (Some(_), None) => Some(Sealed::NoKey),
        (Some(id), Some(ours)) if id != ours => Some(Sealed::WrongKey),
        _ => None,
    })
}

/// Random bytes that identify a write.
fn token() -> Result<[u8; 8], Failure> {
    random::bytes().map_err(|error| Failure::Unavailable(format!("cannot get random bytes: {error}")))
}

/// Random text that identifies a life of the database.
fn epoch() -> Result<String, Failure> {
    let words = random::words::<2>();
    let words = words.map_err(|error| Failure::Unavailable(format!("cannot get random bytes: {error}")))?;
    Ok(words.map(|word| format!("{word:016x}")).concat())
}
