//! Reads the changes of other servers.

use std::collections::{HashMap, HashSet};

use redis::cmd;
use tr111_core::{acs::Change, short::Short};

use super::{Encryption, Failure, Follower, Link, News, Unreadable, epoch, script};
use crate::{
    config::RedisAddress,
    registry::{Whole, record},
};

/// Names per page.
const PAGE: usize = 1_000;
/// Milliseconds to wait for changes before the position of the stream is checked again.
const WAIT: usize = 500;

/// Position in the stream of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    epoch: String,
    sequence: u64,
    /// Token of change number `sequence`. `None` if the stream no longer contains the change.
    token: Option<Vec<u8>>,
}

impl Mark {
    /// The current end of the stream.
    pub(super) fn read(link: &mut Link, encryption: &Encryption) -> Result<Self, Failure> {
        let _: Option<String> = link.ask(cmd("SET").arg(script::EPOCH).arg(epoch()?).arg("NX"))?;
        if let Some(id) = encryption.id() {
            let _: Option<String> = link.ask(cmd("SET").arg(script::KEY).arg(&id).arg("NX"))?;
        }
        let (epoch, sequence) = position(link)?;
        Ok(Self { epoch: epoch.unwrap_or_default(), sequence, token: token(link, sequence)? })
    }

    /// Whether the stream, which ends at `now`, still contains the changes up to this position. A restarted Redis may
    /// have lost changes and used their numbers for other ones.
    fn is_kept(&self, now: &Self, link: &mut Link) -> Result<bool, Failure> {
        if self.epoch != now.epoch || self.sequence > now.sequence {
            return Ok(false);
        }
        let there = token(link, self.sequence)?;
        // If the stream was trimmed, the gap in the numbers is detected later.
        Ok(there.is_none() || self.token.is_none() || there == self.token)
    }
}

/// The token of a change. `None` if the stream does not contain the change.
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

/// Reads the complete content page by page.
#[derive(Debug)]
pub(super) struct Scan {
    /// Number of this server.
    server: u32,
    encryption: Encryption,
    /// The next page. CPEs come first, then associations, then timestamps. `None` at the end.
    at: Option<Page>,
    begun: bool,
    associations: HashSet<Short>,
    /// CPEs of the last page with unencrypted passwords, as changes that do nothing but encrypt them.
    in_clear: Vec<Change>,
}

/// Fields of a hash, and their values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
/// Requested fields of a hash, and their values if they exist.
type Found = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Clone, Copy, Debug)]
enum Page {
    Cpes(u64),
    Associations(u64),
    Timestamps(u64),
}

impl Scan {
    /// Starts at the beginning. `server` is the number of this server.
    pub(super) fn new(server: u32, encryption: Encryption) -> Self {
        let associations = HashSet::new();
        Self { server, encryption, at: None, begun: false, associations, in_clear: Vec::new() }
    }

    /// Changes that encrypt the passwords of the last page.
    pub(super) fn in_clear(&mut self) -> impl Iterator<Item = Change> {
        self.in_clear.drain(..)
    }

    /// The next page, or `None` at the end. Changes during the scan may be included or not, and a CPE may be reported
    /// twice.
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
        // Timestamps that are not in the hash were reset.
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
        // Another version of this program, or another program, wrote to the same database.
        Err(error) => News::Unreadable(Unreadable { name: Short::from(name), reason: error.to_string() }),
    }
}

/// State of a repeated scan.
#[derive(Debug)]
struct Again {
    scan: Scan,
    whole: Whole,
    mark: Mark,
}

/// The connection over which this server reads the changes of others.
#[derive(Debug)]
pub(super) struct RedisFollower {
    link: Link,
    /// Number of this server.
    server: u32,
    encryption: Encryption,
    /// Position up to which changes were read. `None` if it is unknown.
    mark: Option<Mark>,
    again: Option<Again>,
}

/// An entry of the stream: its id and its fields.
type Entry = (String, HashMap<Vec<u8>, Vec<u8>>);

impl RedisFollower {
    pub(super) fn new(address: RedisAddress, server: u32, encryption: Encryption, mark: Option<Mark>) -> Self {
        Self { link: Link::new(address), server, encryption, mark, again: None }
    }

    /// The current end of the stream.
    fn read_mark(&mut self) -> Result<Mark, Failure> {
        Mark::read(&mut self.link, &self.encryption)
    }

    /// After a lost connection, checks whether all changes up to the position are still there. Otherwise starts a scan.
    fn resume(&mut self) -> Result<(), Failure> {
        // An interrupted scan starts again.
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
        tracing::warn!(is_lossy, "missed changes of the registry; reading all of it again");
        let whole = Whole { is_lossy, ..Whole::default() };
        self.again = Some(Again { scan: Scan::new(self.server, self.encryption.clone()), whole, mark });
    }

    /// Reads the next page of a scan.
    fn step(&mut self, mut again: Again) -> Result<Vec<News>, Failure> {
        let Some(mut news) = again.scan.step(&mut self.link)? else {
            if again.whole.is_lossy {
                again.whole.removed = self.removed(&again.whole.names)?;
            }
            self.mark = Some(again.mark);
            return Ok(vec![News::Whole(again.whole)]);
        };
        if again.whole.is_lossy {
            // The timestamps in memory are newer.
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

    /// Names in the stream that are not in `names`: these CPEs were removed.
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

    /// The current values of all names that changed since the position.
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
            // The stream was trimmed and no longer contains all changes.
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
