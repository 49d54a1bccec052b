//! Hears what other servers change.

use std::collections::{HashMap, HashSet};

use redis::cmd;
use tr111_core::{acs::Change, short::Short};

use super::{Encryption, Failure, Follower, Link, News, Unreadable, epoch, script};
use crate::{
    config::RedisAddress,
    registry::{Whole, record},
};

/// Names that are read at a time.
const PAGE: usize = 1_000;
/// How long a server waits for news before it looks whether everything is still there, in milliseconds.
const WAIT: usize = 500;

/// How far somebody read, and of which life of which Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    epoch: String,
    sequence: u64,
    /// That of change number `sequence`; nothing where the stream does not have it any more.
    token: Option<Vec<u8>>,
}

impl Mark {
    /// Where Redis is now.
    pub(super) fn read(link: &mut Link, encryption: &Encryption) -> Result<Self, Failure> {
        let _: Option<String> = link.ask(cmd("SET").arg(script::EPOCH).arg(epoch()?).arg("NX"))?;
        if let Some(id) = encryption.id() {
            let _: Option<String> = link.ask(cmd("SET").arg(script::KEY).arg(&id).arg("NX"))?;
        }
        let (epoch, sequence) = position(link)?;
        Ok(Self { epoch: epoch.unwrap_or_default(), sequence, token: token(link, sequence)? })
    }

    /// Whether what was read up to here is what Redis has up to here, where it is `now`. A Redis that was restarted may
    /// have lost changes and given their numbers to others since.
    fn is_kept(&self, now: &Self, link: &mut Link) -> Result<bool, Failure> {
        if self.epoch != now.epoch || self.sequence > now.sequence {
            return Ok(false);
        }
        let there = token(link, self.sequence)?;
        // Where the stream is shorter, the numbers say so later.
        Ok(there.is_none() || self.token.is_none() || there == self.token)
    }
}

/// The token of a change; nothing where the stream does not have it.
fn token(link: &mut Link, sequence: u64) -> Result<Option<Vec<u8>>, Failure> {
    let id = format!("{sequence}-0");
    let entries: Vec<Entry> = link.ask(cmd("XRANGE").arg(script::CHANGES).arg(&id).arg(&id))?;
    Ok(entries.into_iter().find_map(|(_, mut fields)| fields.remove(script::TOKEN.as_bytes())))
}

/// The epoch, and the number of the last change.
fn position(link: &mut Link) -> Result<(Option<String>, u64), Failure> {
    let (epoch, sequence): (Option<String>, Option<u64>) =
        link.ask(cmd("MGET").arg(script::EPOCH).arg(script::SEQUENCE))?;
    Ok((epoch, sequence.unwrap_or(0)))
}

/// Reads everything, a page at a time.
#[derive(Debug)]
pub(super) struct Scan {
    /// Who reads.
    server: u32,
    encryption: Encryption,
    /// The next page: of CPEs, then of associations, then of timestamps. Nothing when all is read.
    at: Option<Page>,
    begun: bool,
    associations: HashSet<Short>,
    /// Names of CPEs of the last page whose passwords are to be encrypted, with a change that changes nothing else.
    in_clear: Vec<Change>,
}

/// Fields of a hash, and their values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
/// Fields of a hash that were asked for, and their values where they are there.
type Found = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Clone, Copy, Debug)]
enum Page {
    Cpes(u64),
    Associations(u64),
    Timestamps(u64),
}

impl Scan {
    /// From the beginning, for the server of this number.
    pub(super) fn new(server: u32, encryption: Encryption) -> Self {
        let associations = HashSet::new();
        Self { server, encryption, at: None, begun: false, associations, in_clear: Vec::new() }
    }

    /// Changes that have the passwords of the last page encrypted.
    pub(super) fn in_clear(&mut self) -> impl Iterator<Item = Change> {
        self.in_clear.drain(..)
    }

    /// The next page; nothing when all is read. What changes meanwhile may be in it or not, and a CPE may come twice.
    pub(super) fn step(&mut self, link: &mut Link) -> Result<Option<Vec<News>>, Failure> {
        let is_first = !std::mem::replace(&mut self.begun, true);
        if is_first {
            self.at = Some(Page::Cpes(0));
        }
        let Some(page) = self.at else { return Ok(None) };
        let (hash, cursor) = match page {
            Page::Cpes(cursor) => (script::CPES, cursor),
            Page::Associations(cursor) => (script::ASSOCIATIONS, cursor),
            Page::Timestamps(cursor) => (script::TIMESTAMPS, cursor),
        };
        let (next, pairs): (u64, Pairs) = link.ask(cmd("HSCAN").arg(hash).arg(cursor).arg("COUNT").arg(PAGE))?;
        let is_last = next == 0;
        let mut news = Vec::with_capacity(pairs.len());
        // Those that are not there were forgotten.
        news.extend(is_first.then_some(News::TimestampsReset));
        for (name, value) in pairs {
            match page {
                Page::Cpes(_) => {
                    let told = cpe(self.server, &name, &value, &self.encryption);
                    if let News::Cpe(cpe) | News::Own(cpe) = &told
                        && self.encryption.is_on()
                        && !record::is_sealed(&value)
                    {
                        self.in_clear.push(Change::State(cpe.name.clone(), Box::new(cpe.state.clone())));
                    }
                    news.push(told);
                }
                Page::Associations(_) => {
                    let key = Short::from(name.as_slice());
                    if self.associations.insert(key.clone()) {
                        news.push(News::Association(key, Some(value.into())));
                    }
                }
                Page::Timestamps(_) => {
                    let last = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                    news.push(News::Timestamp(Short::from(name.as_slice()), last));
                }
            }
        }
        self.at = match page {
            Page::Cpes(_) if is_last => Some(Page::Associations(0)),
            Page::Cpes(_) => Some(Page::Cpes(next)),
            Page::Associations(_) if is_last => Some(Page::Timestamps(0)),
            Page::Associations(_) => Some(Page::Associations(next)),
            Page::Timestamps(_) if is_last => None,
            Page::Timestamps(_) => Some(Page::Timestamps(next)),
        };
        Ok(Some(news))
    }
}

fn cpe(server: u32, name: &[u8], value: &[u8], encryption: &Encryption) -> News {
    match record::decode(name, value, encryption) {
        Ok(record) if record.author.server == server => News::Own(record.cpe),
        Ok(record) => News::Cpe(record.cpe),
        // A program of another version, or another program, wrote into the same database.
        Err(error) => News::Unreadable(Unreadable { name: Short::from(name), reason: error.to_string() }),
    }
}

/// Reads everything again.
#[derive(Debug)]
struct Again {
    scan: Scan,
    whole: Whole,
    mark: Mark,
}

/// The connection over which this server hears of others.
#[derive(Debug)]
pub(super) struct RedisFollower {
    link: Link,
    /// Who follows.
    server: u32,
    encryption: Encryption,
    /// Nothing where it is not known how far was read.
    mark: Option<Mark>,
    again: Option<Again>,
}

/// One entry of the stream: its number, its kind, and the name.
type Entry = (String, HashMap<Vec<u8>, Vec<u8>>);

impl RedisFollower {
    pub(super) fn new(address: RedisAddress, server: u32, encryption: Encryption, mark: Option<Mark>) -> Self {
        Self { link: Link::new(address), server, encryption, mark, again: None }
    }

    /// Where Redis is now.
    fn read_mark(&mut self) -> Result<Mark, Failure> {
        Mark::read(&mut self.link, &self.encryption)
    }

    /// Whether what was read still is what there is, after the connection was lost.
    fn resume(&mut self) -> Result<(), Failure> {
        // Half of everything is nothing.
        self.again = None;
        let now = self.read_mark()?;
        match &self.mark {
            Some(mark) if mark.is_kept(&now, &mut self.link)? => {}
            Some(_) => self.start_again(now, true),
            None => self.start_again(now, false),
        }
        Ok(())
    }

    fn start_again(&mut self, mark: Mark, is_lossy: bool) {
        tracing::warn!(is_lossy, "changes of the registry were missed: all of it is read again");
        let whole = Whole { is_lossy, ..Whole::default() };
        self.again = Some(Again { scan: Scan::new(self.server, self.encryption.clone()), whole, mark });
    }

    /// The next page of everything.
    fn step(&mut self, mut again: Again) -> Result<Vec<News>, Failure> {
        let Some(mut news) = again.scan.step(&mut self.link)? else {
            if again.whole.is_lossy {
                again.whole.removed = self.removed(&again.whole.names)?;
            }
            self.mark = Some(again.mark);
            return Ok(vec![News::Whole(again.whole)]);
        };
        if again.whole.is_lossy {
            // What is known here is newer.
            news.retain(|news| !matches!(news, News::Timestamp(..) | News::TimestampsReset));
        }
        for news in &mut news {
            let is_own = matches!(news, News::Own(_));
            match news {
                News::Cpe(cpe) | News::Own(cpe) => {
                    again.whole.names.insert(cpe.name.clone());
                    if again.whole.is_lossy {
                        *news = News::Found { cpe: cpe.clone(), is_own };
                    }
                }
                News::Unreadable(record) => drop(again.whole.names.insert(record.name.clone())),
                News::Association(key, _) => drop(again.whole.associations.insert(key.clone())),
                _ => {}
            }
        }
        self.again = Some(again);
        Ok(news)
    }

    /// Names in the stream that are not there: somebody took them away.
    fn removed(&mut self, names: &HashSet<Short>) -> Result<HashSet<Short>, Failure> {
        let mut removed = HashSet::new();
        let mut from = "-".to_owned();
        loop {
            let page = cmd("XRANGE").arg(script::CHANGES).arg(&from).arg("+").arg("COUNT").arg(PAGE).to_owned();
            let page: Vec<Entry> = self.link.ask(&page)?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            from = format!("({last}");
            let changed = page.iter().filter_map(|(_, fields)| fields.get(script::CPE.as_bytes()));
            removed.extend(changed.map(|name| Short::from(name.as_slice())).filter(|name| !names.contains(name)));
        }
    }

    /// What changed since, read as it is now.
    fn changes(&mut self) -> Result<Vec<News>, Failure> {
        let Some(mark) = self.mark.clone() else { return Ok(Vec::new()) };
        let (epoch, sequence) = position(&mut self.link)?;
        if epoch.as_ref() != Some(&mark.epoch) || sequence < mark.sequence {
            let now = self.read_mark()?;
            self.start_again(now, true);
            return Ok(Vec::new());
        }
        let after = format!("{}-0", mark.sequence);
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(PAGE).arg("BLOCK").arg(WAIT).arg("STREAMS").arg(script::CHANGES).arg(after);
        let streams: Option<Vec<(String, Vec<Entry>)>> = self.link.ask(&read)?;
        let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
        let (mut last, mut token) = (mark.sequence, mark.token.clone());
        let mut missed = sequence > last;
        let (mut cpes, mut associations, mut timestamps) = (HashSet::new(), HashSet::new(), Vec::new());
        for (id, mut fields) in entries {
            let number = id.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            missed = number != last + 1;
            if missed {
                break;
            }
            last = number;
            token = fields.remove(script::TOKEN.as_bytes());
            cpes.extend(fields.remove(script::CPE.as_bytes()));
            associations.extend(fields.remove(script::ASSOCIATION.as_bytes()));
            timestamps.extend(fields.remove(script::TIMESTAMP.as_bytes()));
        }
        if missed {
            // The stream is shorter than the absence was.
            let now = self.read_mark()?;
            self.start_again(now, false);
            return Ok(Vec::new());
        }
        let mut news = Vec::with_capacity(cpes.len() + associations.len());
        for (name, value) in self.values(script::CPES, cpes)? {
            match value {
                Some(value) => news.push(cpe(self.server, &name, &value, &self.encryption)),
                None => news.push(News::Removed(Short::from(name.as_slice()))),
            }
        }
        for (key, value) in self.values(script::ASSOCIATIONS, associations)? {
            news.push(News::Association(Short::from(key.as_slice()), value.map(Into::into)));
        }
        news.extend(timestamps.into_iter().map(|name| match name.as_slice() {
            [] => News::TimestampsReset,
            name => News::Timestamp(Short::from(name), None),
        }));
        self.mark = Some(Mark { sequence: last, token, ..mark });
        Ok(news)
    }

    fn values(&mut self, hash: &str, names: HashSet<Vec<u8>>) -> Result<Found, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<Vec<u8>> = names.into_iter().collect();
        let values: Vec<Option<Vec<u8>>> = self.link.ask(cmd("HMGET").arg(hash).arg(&names))?;
        Ok(names.into_iter().zip(values).collect())
    }
}

impl Follower for RedisFollower {
    fn follow(&mut self) -> Result<Vec<News>, Failure> {
        if !self.link.is_connected() {
            self.resume()?;
        }
        match self.again.take() {
            Some(again) => self.step(again),
            None => self.changes(),
        }
    }
}
