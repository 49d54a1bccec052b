//! The registry of an ACS in both of its stores: what is told of one holds for the other.

use std::{collections::BTreeMap, net::SocketAddrV4, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use redb::TableDefinition;
use tokio::sync::mpsc;
use tr111::{
    config::{self, TlsFiles},
    registry::{self, Encryption, Health, Journal, Location, News, Opened, Refused, Unreadable, Wanted, follow},
};
use tr111_core::{
    acs::{Approach, Change, Cpe, Credentials, Fingerprint, GENERATION, Registry, Reported, Seen, State, Way},
    short::Short,
    time::UnixTime,
};
use tr111_tests::redis::{Certificates, Redis, Relay};

const LIMIT: Duration = Duration::from_secs(30);

/// A kind of store, where it is, and what it needs to be there.
enum Place {
    Embedded(tempfile::TempDir),
    Redis(Redis<'static>),
}

impl Place {
    /// One of each.
    fn all() -> Result<[Self; 2]> {
        Ok([Self::Embedded(tempfile::tempdir()?), Self::Redis(Redis::start()?)])
    }

    fn location(&self) -> Result<Location> {
        Ok(match self {
            Self::Embedded(directory) => Location::Embedded(directory.path().join("state")),
            Self::Redis(redis) => Location::Redis(redis.address()?),
        })
    }

    fn open(&self) -> Result<Server> {
        Server::open(&self.location()?)
    }

    /// Everything that it has, as bytes.
    fn content(&self) -> Result<Vec<u8>> {
        match self {
            Self::Embedded(directory) => Ok(std::fs::read(directory.path().join("state").join(registry::FILE))?),
            Self::Redis(redis) => Ok(redis.cli(&["HGETALL", "{tr111}:cpes"])?.into_bytes()),
        }
    }
}

/// What an ACS does with its registry.
struct Server {
    journal: Journal,
    registry: Registry,
    associations: BTreeMap<Vec<u8>, Vec<u8>>,
    unreadable: Vec<Unreadable>,
    signed: Vec<Fingerprint>,
    news: mpsc::Receiver<Vec<News>>,
}

impl Server {
    fn open(location: &Location) -> Result<Self> {
        Ok(Self::open_with(location, Encryption::default())?)
    }

    fn open_with(location: &Location, encryption: Encryption) -> Result<Self, registry::Error> {
        let opened = Journal::open(location, encryption, 7)?;
        let Opened { journal, registry, associations, unreadable, signed, news, .. } = opened;
        let associations = associations.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        Ok(Self { journal, registry, associations, unreadable, signed, news })
    }

    fn cpe(&self, name: &str) -> Option<&Cpe> {
        self.registry.number(name.as_bytes()).and_then(|number| self.registry.get(number))
    }

    /// Where a Connection Request would go.
    fn destination(&self, name: &str) -> Option<String> {
        Some(self.cpe(name)?.state.destination(Approach::Both)?.authority.to_string())
    }

    /// Takes news until something is true.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let heard = async {
            while !is_so(self) {
                let batch = self.news.recv().await.context("the news ended")?;
                for news in batch {
                    if let News::Unreadable(record) = &news {
                        self.unreadable.push(record.clone());
                    }
                    if let News::Whole(whole) = &news
                        && whole.is_lossy
                    {
                        self.journal.remember_later(&self.signed);
                    }
                    if let News::Association(key, value) = &news {
                        match value {
                            Some(value) => drop(self.associations.insert(key.to_vec(), value.to_vec())),
                            None => drop(self.associations.remove(&**key)),
                        }
                    }
                    self.journal.keep(follow(&mut self.registry, news));
                }
            }
            Ok(())
        };
        tokio::time::timeout(LIMIT, heard).await.with_context(|| format!("not in time: {what}"))?
    }

    /// Waits until the store works, or does not.
    async fn health(&self, works: bool) -> Result<()> {
        let mut health = self.journal.health();
        let is_so = |health: &Health| (*health == Health::Working) == works;
        tokio::time::timeout(LIMIT, health.wait_for(is_so)).await??;
        Ok(())
    }

    /// Learns something, and hands it in without waiting.
    fn learn(&mut self, name: &str, state: State) -> Result<()> {
        let number = self.registry.number(name.as_bytes()).context("no such CPE")?;
        let learned = self.registry.update(number, |known| {
            *known = State { revision: known.revision, ..state };
            known.clone()
        });
        self.journal.keep(vec![Change::State(short(name), Box::new(learned.context("it went")?))]);
        Ok(())
    }

    /// Takes what a CPE told its ACS.
    async fn report(&mut self, name: &str, told: Reported) -> Result<()> {
        let number = self.registry.number(name.as_bytes()).context("no such CPE")?;
        self.registry.update(number, |known| known.report(told.clone()));
        self.journal.commit(vec![Change::Reported(short(name), Box::new(told))]).await?;
        Ok(())
    }

    /// Remembers a signed request; whether it was remembered before.
    async fn is_known(&mut self, request: u64) -> Result<bool> {
        let known = self.journal.remember(vec![Fingerprint(request)]).await?;
        ensure!(known.len() == 1, "{known:?}");
        self.signed.push(Fingerprint(request));
        Ok(known[0])
    }

    async fn add(&mut self, name: &str) -> Result<()> {
        self.journal.commit(vec![added(name)]).await?;
        self.registry.add(cpe(name)).context("taken")?;
        Ok(())
    }
}

fn short(text: &str) -> Short {
    Short::from(text.as_bytes())
}

fn cpe(name: &str) -> Cpe {
    let credentials = Credentials {
        stun_password: short(&format!("{name}: a STUNPassword that is longer than twenty-two bytes")),
        connection_request_username: short(name),
        connection_request_password: short("cr-secret-01"),
    };
    Cpe { name: short(name), credentials, state: State::default() }
}

fn added(name: &str) -> Change {
    Change::Added(Box::new(cpe(name)))
}

fn seen(port: u16, since: u64) -> Seen {
    let address = SocketAddrV4::new([198, 51, 100, 7].into(), port);
    let server = SocketAddrV4::new([203, 0, 113, 10].into(), 3478);
    Seen { address, server, since: UnixTime(since), last_seen: UnixTime(since + 5) }
}

fn signed(port: u16, since: u64) -> State {
    State { authenticated: Some(seen(port, since)), ..State::default() }
}

fn told(address: &str, at: u64) -> Result<Reported> {
    Ok(Reported { address: Some(address.parse()?), nat_detected: Some(true), at: UnixTime(at), revision: 0 })
}

fn wanted(name: &str, last: Option<u64>) -> Vec<Wanted> {
    vec![Wanted { name: short(name), last }]
}

/// STUN-26, STUN-41: what was learned of a CPE, and what an operator set, is there after a restart; what was taken away is
/// not.
#[tokio::test]
async fn everything_is_there_after_a_restart() -> Result<()> {
    for place in Place::all()? {
        let mut whole = cpe("CPE57689");
        whole.state = State {
            authenticated: Some(seen(40_000, 10)),
            tentative: Some(seen(40_001, 20)),
            reported: Some(Box::new(told("cpe.example:4000", 40)?)),
            is_reported_last: true,
            last_timestamp: Some(1_700_000_000),
            must_verify: true,
            revision: 0,
        };
        let server = place.open()?;
        ensure!(server.registry.is_empty());
        server.journal.commit(vec![added("gone"), Change::Put(Box::new(whole.clone())), added("bare")]).await?;
        let mut silent = cpe("silent");
        silent.state.reported = Some(Box::new(Reported { address: None, ..told("cpe.example:4000", 40)? }));
        server.journal.commit(vec![Change::Put(Box::new(silent.clone()))]).await?;
        server.journal.commit(vec![Change::Removed(short("gone"))]).await?;
        let association = |value: Option<&[u8]>| Change::Association(short("device"), value.map(Into::into));
        server.journal.commit(vec![association(Some(b"its gateway"))]).await?;
        drop(server);

        let server = place.open()?;
        assert_eq!((server.registry.len(), server.cpe("gone")), (3, None));
        for expected in [whole, cpe("bare"), silent] {
            let mut found = server.cpe(std::str::from_utf8(&expected.name)?).context("it is gone")?.clone();
            found.state.revision = 0;
            assert_eq!(found, expected);
        }
        assert_eq!(server.associations.get(b"device".as_slice()), Some(&b"its gateway".to_vec()));
        server.journal.commit(vec![association(None)]).await?;
        drop(server);
        ensure!(place.open()?.associations.is_empty());
    }
    Ok(())
}

/// What nobody waits for is written before the process ends, the latest of each CPE.
#[tokio::test]
async fn what_was_learned_last_is_written_before_the_end() -> Result<()> {
    for place in Place::all()? {
        let mut server = place.open()?;
        server.add("CPE57689").await?;
        for port in 1..=500 {
            server.learn("CPE57689", signed(port, u64::from(port)))?;
        }
        drop(server);
        assert_eq!(place.open()?.destination("CPE57689").as_deref(), Some("198.51.100.7:500"));
    }
    Ok(())
}

/// STUN-21: a group with a name that another CPE has is refused as a whole.
#[tokio::test]
async fn a_name_that_is_taken_refuses_its_whole_group() -> Result<()> {
    for place in Place::all()? {
        let server = place.open()?;
        server.journal.commit(vec![added("first")]).await?;
        let mut many: Vec<Change> = (0..2_000).map(|number| added(&format!("many{number}"))).collect();
        many.push(added("first"));
        let refused = server.journal.commit(many).await;
        assert!(matches!(&refused, Err(Refused::Taken(taken)) if *taken.name == *b"first"), "{refused:?}");
        server.journal.commit(vec![added("second")]).await?;
        drop(server);
        let names: Vec<_> = place.open()?.registry.iter_from(0).map(|(_, cpe)| cpe.name.clone()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
    Ok(())
}

/// T-54, UCR-37: a CPE never gets the same ts twice, not by two processes that follow each other within a second either.
#[tokio::test]
async fn a_timestamp_is_never_given_twice() -> Result<()> {
    for place in Place::all()? {
        let server = place.open()?;
        server.journal.commit(vec![added("CPE57689")]).await?;
        let now = UnixTime(1_700_000_000);
        let first = server.journal.reserve(wanted("CPE57689", None), now).await?;
        let second = server.journal.reserve(wanted("CPE57689", Some(first[0])), now).await?;
        assert_eq!((first, second), (vec![1_700_000_000], vec![1_700_000_001]));
        drop(server);
        // This process does not know what the one before sent.
        let server = place.open()?;
        assert_eq!(server.journal.reserve(wanted("CPE57689", None), now).await?, [1_700_000_002]);
        assert_eq!(server.journal.reserve(wanted("CPE57689", Some(1_700_000_100)), now).await?, [1_700_000_101]);
    }
    Ok(())
}

/// T-54: a `ts` of the future, by a clock that was wrong, is kept for the CPE that it was sent to and for no other, until
/// it is reset.
#[tokio::test]
async fn a_timestamp_of_the_future_is_that_of_one_cpe() -> Result<()> {
    for place in Place::all()? {
        let (now, future) = (UnixTime(1_700_000_000), UnixTime(1_700_000_000 + 400 * 86_400));
        let server = place.open()?;
        server.journal.commit(vec![added("CPE1"), added("CPE2"), added("CPE3")]).await?;
        for name in ["CPE1", "CPE2"] {
            assert_eq!(server.journal.reserve(wanted(name, None), future).await?, [future.0]);
        }
        drop(server);
        let server = place.open()?;
        let last = |name| server.cpe(name).map(|cpe| cpe.state.last_timestamp);
        assert_eq!((last("CPE1"), last("CPE3")), (Some(Some(future.0)), Some(None)));
        let next = async |name, known| server.journal.reserve(wanted(name, known), now).await;
        assert_eq!(next("CPE3", None).await?, [now.0]);
        assert_eq!(next("CPE1", None).await?, [future.0 + 1]);
        server.journal.commit(vec![Change::TimestampReset(short("CPE1"))]).await?;
        // Another server that has not heard of it yet remembers the one before.
        assert_eq!(next("CPE1", Some(future.0 + 1)).await?, [now.0]);
        assert_eq!(next("CPE2", None).await?, [future.0 + 1]);
        server.journal.commit(vec![Change::TimestampsReset]).await?;
        assert_eq!((next("CPE1", None).await?, next("CPE2", None).await?), (vec![now.0], vec![now.0]));
        // Who goes takes its `ts` along.
        server.journal.commit(vec![Change::Removed(short("CPE2")), added("CPE2")]).await?;
        assert_eq!(next("CPE2", None).await?, [now.0]);
    }
    Ok(())
}

/// The last time that was known to be good is there after a restart.
#[tokio::test]
async fn the_good_time_is_there_after_a_restart() -> Result<()> {
    for place in Place::all()? {
        let opened = Journal::open(&place.location()?, Encryption::default(), 7)?;
        assert_eq!(opened.good_time, None);
        for time in [1_800_000_000, 1_700_000_000] {
            opened.journal.commit(vec![Change::GoodTime(UnixTime(time))]).await?;
        }
        drop(opened);
        assert_eq!(
            Journal::open(&place.location()?, Encryption::default(), 7)?.good_time,
            Some(UnixTime(1_700_000_000))
        );
    }
    Ok(())
}

/// A reset at one server is known at the other, and a `ts` that Redis lost is put back with its CPE.
#[tokio::test]
async fn two_servers_know_of_a_reset_and_of_a_loss() -> Result<()> {
    let mut redis = Redis::start()?;
    let location = Location::Redis(redis.address()?);
    let (now, future) = (UnixTime(1_700_000_000), 1_900_000_000);
    let (mut one, mut other) = (Server::open(&location)?, Server::open(&location)?);
    for name in ["CPE1", "CPE2"] {
        one.add(name).await?;
    }
    other.until("both are known", |server| server.registry.len() == 2).await?;
    let last = |server: &Server, name| server.cpe(name).and_then(|cpe| cpe.state.last_timestamp);
    for server in [&mut one, &mut other] {
        for name in ["CPE1", "CPE2"] {
            let number = server.registry.number(name.as_bytes()).context("no such CPE")?;
            server.registry.update(number, |state| state.last_timestamp = Some(future));
        }
    }
    one.journal.commit(vec![Change::TimestampReset(short("CPE1"))]).await?;
    other.until("the reset is known", |server| last(server, "CPE1").is_none()).await?;
    assert_eq!(last(&other, "CPE2"), Some(future));

    redis.kill()?;
    redis.forget()?;
    redis.resume()?;
    let count = || redis.cli(&["HLEN", "{tr111}:cpes"]);
    other.until("both are put back", |_| count().is_ok_and(|count| count.trim() == "2")).await?;
    other.health(true).await?;
    let next = other.journal.reserve([wanted("CPE1", None), wanted("CPE2", None)].concat(), now).await?;
    assert_eq!(next, [now.0, future + 1]);

    other.journal.commit(vec![Change::TimestampsReset]).await?;
    one.until("the reset of all is known", |server| last(server, "CPE2").is_none()).await?;
    Ok(())
}

/// T-54: two servers that send at the same time do not give a CPE the same ts.
#[tokio::test]
async fn two_servers_never_give_one_cpe_the_same_timestamp() -> Result<()> {
    let place = Place::Redis(Redis::start()?);
    let (one, other) = (place.open()?, place.open()?);
    let now = UnixTime(1_700_000_000);
    let mut given = Vec::new();
    for _ in 0..50 {
        let wanted = || (0..20).flat_map(|_| wanted("CPE57689", None)).collect::<Vec<_>>();
        let (one, other) = tokio::join!(one.journal.reserve(wanted(), now), other.journal.reserve(wanted(), now));
        given.extend(one?);
        given.extend(other?);
    }
    given.sort_unstable();
    assert_eq!(given, (1_700_000_000..1_700_002_000).collect::<Vec<_>>());
    Ok(())
}

/// T-65: what one server learns the other one knows, and the latest that is authenticated wins, whoever writes last.
#[tokio::test]
async fn two_servers_know_what_either_learns() -> Result<()> {
    let place = Place::Redis(Redis::start()?);
    let (mut one, mut other) = (place.open()?, place.open()?);
    one.add("CPE57689").await?;
    other.until("the CPE is known", |server| server.cpe("CPE57689").is_some()).await?;
    other.learn("CPE57689", signed(40_002, 20))?;
    one.until("the binding is known", |server| server.destination("CPE57689").is_some()).await?;
    // This one was held up: it learned of an older binding before, and writes now.
    one.journal.commit(vec![Change::State(short("CPE57689"), Box::new(signed(40_001, 10)))]).await?;
    other.journal.commit(vec![added("marker")]).await?;
    for server in [&mut one, &mut other] {
        server.until("everything is heard", |server| server.cpe("marker").is_some()).await?;
        assert_eq!(server.destination("CPE57689").as_deref(), Some("198.51.100.7:40002"));
    }
    let way = one.cpe("CPE57689").and_then(|cpe| cpe.state.destination(Approach::Both)).map(|to| to.way);
    assert_eq!(way, Some(Way::Authenticated));
    assert_eq!(place.open()?.destination("CPE57689").as_deref(), Some("198.51.100.7:40002"));
    // STUN-21, among servers as well.
    let refused = other.journal.commit(vec![added("CPE57689")]).await;
    assert!(matches!(refused, Err(Refused::Taken(_))), "{refused:?}");
    one.journal.commit(vec![Change::Removed(short("CPE57689"))]).await?;
    other.until("the CPE is gone", |server| server.cpe("CPE57689").is_none()).await?;
    one.journal.commit(vec![Change::Association(short("device"), Some(Box::from(b"gateway".as_slice())))]).await?;
    other.until("the association is known", |server| !server.associations.is_empty()).await?;
    Ok(())
}

/// T-65: what was learned while a clock was years ahead gives way to what is learned next, by a signature or a report.
#[tokio::test]
async fn a_time_of_the_future_freezes_nothing() -> Result<()> {
    const FUTURE: u64 = 4_000_000_000;
    for place in Place::all()? {
        let mut server = place.open()?;
        server.add("CPE57689").await?;
        server.learn("CPE57689", signed(40_001, FUTURE))?;
        server.report("CPE57689", told("cpe.example:4000", FUTURE + 1)?).await?;
        drop(server);
        let mut server = place.open()?;
        assert_eq!(server.destination("CPE57689").as_deref(), Some("cpe.example:4000"));
        let known = server.cpe("CPE57689").context("it is gone")?.state.clone();
        server.learn("CPE57689", State { authenticated: Some(seen(40_002, 10)), is_reported_last: false, ..known })?;
        drop(server);
        let mut server = place.open()?;
        assert_eq!(server.destination("CPE57689").as_deref(), Some("198.51.100.7:40002"));
        server.report("CPE57689", told("cpe.example:4001", 5)?).await?;
        drop(server);
        assert_eq!(place.open()?.destination("CPE57689").as_deref(), Some("cpe.example:4001"));
    }
    Ok(())
}

/// T-65: the same where another server learns what is next; and a clock that is behind is no worse than one that is ahead.
#[tokio::test]
async fn the_clocks_of_servers_do_not_matter() -> Result<()> {
    let place = Place::Redis(Redis::start()?);
    let mut servers = [place.open()?, place.open()?];
    servers[0].add("CPE57689").await?;
    for (port, (server, since)) in (1..).zip([(0, 4_000_000_000), (1, 10), (0, 1_700_000_000), (1, 0), (1, 20), (0, 9)])
    {
        servers[server].until("the CPE is known", |server| server.cpe("CPE57689").is_some()).await?;
        servers[server].learn("CPE57689", signed(port, since))?;
        let address = format!("198.51.100.7:{port}");
        for server in &mut servers {
            server.until(&address, |server| server.destination("CPE57689").as_ref() == Some(&address)).await?;
        }
        let must_verify = servers[0].cpe("CPE57689").map(|cpe| cpe.state.must_verify);
        assert_eq!(must_verify, Some(false), "after {port}");
    }
    Ok(())
}

/// What a server learned while it was cut off from Redis counts where the record is as it was; where another server moved it
/// on, it loses, and the CPE has to sign again.
#[tokio::test]
async fn what_was_learned_while_cut_off_loses_to_what_moved_on() -> Result<()> {
    let redis = Redis::start()?;
    let wire = Relay::start(redis.address()?)?;
    let mut one = Server::open(&Location::Redis(wire.address()))?;
    let mut other = Server::open(&Location::Redis(redis.address()?))?;
    for name in ["CPE1", "CPE2"] {
        one.add(name).await?;
        one.learn(name, signed(40_000, 10))?;
    }
    other
        .until("both bindings are known", |server| {
            ["CPE1", "CPE2"].iter().all(|name| server.destination(name).is_some())
        })
        .await?;

    wire.cut();
    one.health(false).await?;
    for name in ["CPE1", "CPE2"] {
        one.learn(name, signed(40_001, 4_000_000_000))?;
    }
    other.learn("CPE2", signed(40_002, 20))?;
    other.journal.commit(Vec::new()).await?;
    wire.mend();
    one.health(true).await?;
    for server in [&mut one, &mut other] {
        let state = |server: &Server, name| {
            let state = server.cpe(name).map(|cpe| &cpe.state);
            state.map(|state| (state.authenticated.map(|seen| seen.address.port()), state.must_verify))
        };
        server
            .until("the binding that nobody else moved", |server| state(server, "CPE1") == Some((Some(40_001), false)))
            .await?;
        server.until("the one that moved on", |server| state(server, "CPE2") == Some((Some(40_002), true))).await?;
    }
    // It signs, here or there.
    one.learn("CPE2", signed(40_003, 30))?;
    for server in [&mut one, &mut other] {
        let is_signed = |server: &Server| {
            let state = server.cpe("CPE2").map(|cpe| &cpe.state);
            state.is_some_and(|state| state.authenticated == Some(seen(40_003, 30)) && !state.must_verify)
        };
        server.until("the signature", is_signed).await?;
    }
    Ok(())
}

/// T-67: a signed request that was accepted is remembered over a restart, and by another server at once.
#[tokio::test]
async fn a_signed_request_is_remembered_where_bindings_are_kept() -> Result<()> {
    for place in Place::all()? {
        let mut one = place.open()?;
        assert_eq!([one.is_known(1).await?, one.is_known(2).await?, one.is_known(1).await?], [false, false, true]);
        if let Place::Redis(_) = &place {
            let mut other = place.open()?;
            assert_eq!([other.is_known(2).await?, other.is_known(3).await?], [true, false]);
            ensure!(one.is_known(3).await?);
        }
        drop(one);
        let mut again = place.open()?;
        ensure!(again.is_known(1).await? && again.is_known(2).await? && !again.is_known(4).await?);
        if let Place::Embedded(_) = &place {
            // Told at the start, so that nobody has to ask.
            again.signed.truncate(2);
            assert_eq!(again.signed, [1, 2].map(Fingerprint));
        }
    }
    Ok(())
}

/// T-67: what was remembered while Redis was away, or before it lost everything, is put back.
#[tokio::test]
async fn signed_requests_are_put_back() -> Result<()> {
    let mut redis = Redis::start()?;
    let location = Location::Redis(redis.address()?);
    let mut one = Server::open(&location)?;
    one.add("CPE57689").await?;
    ensure!(!one.is_known(1).await?);
    redis.kill()?;
    one.health(false).await?;
    ensure!(one.is_known(2).await.is_err());
    redis.forget()?;
    redis.resume()?;
    one.until("the CPE is put back", |_| redis.cli(&["HLEN", "{tr111}:cpes"]).is_ok_and(|count| count.trim() == "1"))
        .await?;
    let mut other = Server::open(&location)?;
    assert_eq!([other.is_known(1).await?, other.is_known(2).await?, other.is_known(3).await?], [true, true, false]);
    Ok(())
}

/// Bytes that a million remembered requests take `place`, as `docs/acs.md` states them.
fn stated(place: &str) -> Result<u64> {
    let row = format!("| {place} | ");
    let cell = include_str!("../../docs/acs.md").lines().find_map(|line| line.strip_prefix(&row)?.strip_suffix(" |"));
    Ok(cell.with_context(|| format!("docs/acs.md has no row {place:?}"))?.parse::<u64>()? * 1_000_000)
}

/// T-67: a million signed requests take what `docs/acs.md` states, and Redis has at most two generations of them.
#[tokio::test]
async fn a_million_signed_requests_take_what_the_document_states() -> Result<()> {
    const MILLION: u64 = 1_000_000;
    let number = |index: u64| Fingerprint(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // A tenth of them: the database is slow where it is not optimised. `cargo xtask bench registry` writes all.
    let place = Place::Embedded(tempfile::tempdir()?);
    let journal = place.open()?.journal;
    for first in (0..MILLION / 10).step_by(10_000) {
        journal.remember((first..first + 10_000).map(number).collect()).await?;
    }
    drop(journal);
    let (length, most) = (place.content()?.len() as u64, stated("in the file of an embedded registry")? / 10);
    ensure!(length <= most + (2 << 20), "{length} bytes of at most {most}, and those of an empty file");

    let redis = Redis::start()?;
    let journal = Server::open(&Location::Redis(redis.address()?))?.journal;
    let cli = |words: &[&str]| -> Result<u64> { Ok(redis.cli(words)?.trim().parse()?) };
    let fill = |from: u64, to: u64| {
        let script = "for n = ARGV[1], ARGV[2] - 1 do redis.call('SADD', KEYS[1], struct.pack('>I8', n)) end return 0";
        cli(&["EVAL", script, "1", "{tr111}:signed", &from.to_string(), &to.to_string()])
    };
    fill(0, MILLION)?;
    let memory = cli(&["MEMORY", "USAGE", "{tr111}:signed", "SAMPLES", "0"])?;
    let most = stated("in memory of a Redis")?;
    ensure!((most / 10 * 7..=most).contains(&memory), "{memory} bytes of {most}");
    let all_but_one = GENERATION as u64 - 1;
    fill(MILLION, all_but_one)?;
    for round in [1, 2] {
        let request = vec![Fingerprint(round << 40)];
        assert_eq!(journal.remember(request.clone()).await?, [false]);
        assert_eq!(journal.remember(request).await?, [true]);
        assert_eq!(cli(&["SCARD", "{tr111}:signed"])? + cli(&["SCARD", "{tr111}:signed_older"])?, all_but_one + 1);
        fill(round * all_but_one, (round + 1) * all_but_one)?;
    }
    Ok(())
}

/// Redis ends in the middle, and comes back with its data: what was learned meanwhile is written then.
#[tokio::test]
async fn while_redis_is_away_nothing_is_lost() -> Result<()> {
    let mut redis = Redis::start()?;
    let location = Location::Redis(redis.address()?);
    let (mut one, mut other) = (Server::open(&location)?, Server::open(&location)?);
    for name in ["CPE1", "CPE2"] {
        one.add(name).await?;
    }
    other.until("both are known", |server| server.registry.len() == 2).await?;
    redis.kill()?;
    // That is found out though nothing is written.
    one.health(false).await?;
    one.learn("CPE1", signed(40_001, 10))?;
    other.learn("CPE2", signed(40_002, 10))?;
    let refused = one.journal.commit(vec![added("CPE3")]).await;
    assert!(matches!(refused, Err(Refused::Unavailable(_))), "{refused:?}");
    assert!(one.journal.reserve(wanted("CPE1", None), UnixTime(5)).await.is_err());
    redis.resume()?;
    for server in [&mut one, &mut other] {
        server.health(true).await?;
        let knows = |server: &Server| ["CPE1", "CPE2"].iter().all(|name| server.destination(name).is_some());
        server.until("both bindings are known", knows).await?;
    }
    let fresh = Server::open(&location)?;
    assert_eq!(fresh.destination("CPE1").as_deref(), Some("198.51.100.7:40001"));
    assert_eq!(fresh.destination("CPE2").as_deref(), Some("198.51.100.7:40002"));
    Ok(())
}

/// Redis comes back without its data, or somebody empties it: those who have everything in memory put it back.
#[tokio::test]
async fn what_redis_loses_is_put_back() -> Result<()> {
    let mut redis = Redis::start()?;
    let location = Location::Redis(redis.address()?);
    let (mut one, mut other) = (Server::open(&location)?, Server::open(&location)?);
    for name in ["CPE1", "CPE2", "CPE3"] {
        one.add(name).await?;
    }
    other.until("all are known", |server| server.registry.len() == 3).await?;
    one.learn("CPE1", signed(40_001, 10))?;
    other.until("the binding is known", |server| server.destination("CPE1").is_some()).await?;
    for is_emptied in [false, true] {
        if is_emptied {
            redis.cli(&["FLUSHALL"])?;
        } else {
            redis.kill()?;
            redis.forget()?;
            redis.resume()?;
        }
        let count = || redis.cli(&["HLEN", "{tr111}:cpes"]);
        for server in [&mut one, &mut other] {
            server.until("it is put back", |_| count().is_ok_and(|count| count.trim() == "3")).await?;
            assert_eq!((server.registry.len(), server.destination("CPE1").is_some()), (3, true));
        }
        let fresh = Server::open(&location)?;
        assert_eq!((fresh.registry.len(), fresh.destination("CPE1").is_some()), (3, true), "emptied: {is_emptied}");
    }
    Ok(())
}

/// Redis comes back without its last changes, and others take their numbers before a server looks: it finds out, and puts back
/// what was lost.
#[tokio::test]
async fn changes_that_redis_loses_are_put_back_though_others_have_their_numbers() -> Result<()> {
    let mut redis = Redis::start()?;
    let location = Location::Redis(redis.address()?);
    let mut one = Server::open(&location)?;
    for name in ["CPE1", "CPE2"] {
        one.add(name).await?;
    }
    let saved = redis.save()?;
    one.learn("CPE1", signed(40_001, 10))?;
    one.add("CPE3").await?;
    // The last of it was heard of, and so was the rest.
    one.until("everything is followed", |server| server.cpe("CPE3").is_some_and(|cpe| cpe.state.revision > 0)).await?;
    redis.kill()?;
    one.health(false).await?;
    redis.restore(&saved)?;
    redis.resume()?;
    let mut other = Server::open(&location)?;
    for port in [40_002, 40_003] {
        other.learn("CPE2", signed(port, u64::from(port)))?;
        other.journal.commit(Vec::new()).await?;
    }
    one.until("the binding of the other", |server| server.destination("CPE2").is_some()).await?;
    let is_back = |_: &Server| redis.cli(&["HEXISTS", "{tr111}:cpes", "CPE3"]).is_ok_and(|found| found.trim() == "1");
    one.until("what was lost is put back", is_back).await?;
    other.until("what was lost", |server| server.destination("CPE1").is_some() && server.cpe("CPE3").is_some()).await?;
    assert_eq!(one.destination("CPE1").as_deref(), Some("198.51.100.7:40001"));
    Ok(())
}

/// A server that missed more than Redis remembers reads everything again.
#[tokio::test]
async fn a_server_that_missed_changes_reads_everything_again() -> Result<()> {
    let redis = Redis::start()?;
    let location = Location::Redis(redis.address()?);
    let (mut one, mut other) = (Server::open(&location)?, Server::open(&location)?);
    one.add("stays").await?;
    one.add("goes").await?;
    other.until("both are known", |server| server.registry.len() == 2).await?;
    // Its connections are cut before and after each of these, and the stream forgets them.
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"])?;
    one.journal.commit(vec![Change::Removed(short("goes"))]).await.ok();
    one.health(true).await?;
    one.journal.commit(vec![Change::Removed(short("goes")), added("comes")]).await?;
    redis.cli(&["XTRIM", "{tr111}:changes", "MAXLEN", "0"])?;
    let known =
        |server: &Server| ["stays", "goes", "comes"].map(|name| server.cpe(name).is_some()) == [true, false, true];
    other.until("what was missed is known", known).await?;
    Ok(())
}

/// A password opens the door and is never shown.
#[tokio::test]
async fn a_redis_with_a_password_is_opened_by_it_alone() -> Result<()> {
    let redis = Redis::start_with(Some("correct-horse"))?;
    let Err(error) = Server::open(&Location::Redis(redis.url().parse()?)) else { anyhow::bail!("opened without") };
    ensure!(error.to_string().contains("redis://127.0.0.1"), "{error}");
    let wrong = redis.url().parse::<config::RedisAddress>()?.with_password("wrong-battery".to_owned());
    let Err(error) = Server::open(&Location::Redis(wrong)) else { anyhow::bail!("opened with another") };
    ensure!(!format!("{error:?} {error}").contains("wrong-battery"), "{error:?}");
    Server::open(&Location::Redis(redis.address()?))?.add("CPE57689").await
}

/// `rediss://` is TLS: both ends know each other by certificates of an authority, or there is no connection.
#[tokio::test]
async fn a_redis_with_tls_is_opened_by_certificates() -> Result<()> {
    let (redis, others) = (Redis::start_with_tls(Certificates::make()?)?, Certificates::make()?);
    let good = redis.address()?;
    let (mut one, mut other) =
        (Server::open(&Location::Redis(good.clone()))?, Server::open(&Location::Redis(good.clone()))?);
    one.add("CPE57689").await?;
    other.until("the CPE is known", |server| server.cpe("CPE57689").is_some()).await?;
    ensure!(!one.is_known(1).await?);
    let files = good.tls.clone().context("no TLS")?;
    let with = |files: TlsFiles| good.clone().with_tls_files(files);
    let named = redis.url().replace("127.0.0.1", "localhost").parse::<config::RedisAddress>()?;
    for (address, words) in [
        (with(TlsFiles { ca: others.client().ca, ..files.clone() }), "invalid peer certificate"),
        (with(TlsFiles { certificate: None, key: None, ..files.clone() }), "CertificateRequired"),
        (with(TlsFiles { ca: files.ca.clone(), ..others.client() }), "UnknownCA"),
        (with(TlsFiles { key: None, ..files.clone() }), "go together"),
        (with(TlsFiles { ca: Some("/nonexistent.pem".into()), ..files.clone() }), "/nonexistent.pem"),
        (named.with_tls_files(files.clone()), "not valid for name"),
        (redis.url().replace("rediss", "redis").parse()?, "redis://127.0.0.1"),
    ] {
        let Err(error) = Server::open(&Location::Redis(address)) else { anyhow::bail!("opened: {words}") };
        ensure!(error.to_string().contains(words), "{words}: {error:#}");
    }
    // Whoever names certificates means TLS.
    let plain = Location::Redis(redis.url().replace("rediss", "redis").parse()?);
    ensure!(plain.with_tls_files(files).is_err_and(|error| error.to_string().contains("rediss://")));
    Ok(())
}

/// The rights that `docs/acs.md` lists for a user of Redis are enough for everything, and none of them is dangerous.
#[tokio::test]
async fn a_redis_user_needs_the_rights_that_the_document_lists() -> Result<()> {
    let redis = Redis::start()?;
    let document = include_str!("../../docs/acs.md");
    let mut lines = document.lines();
    let line = lines.find(|line| line.starts_with("ACL SETUSER tr111 ")).context("docs/acs.md has no ACL")?;
    let words: Vec<_> = line.split(' ').map(|word| if word == ">PASSWORD" { ">correct-horse" } else { word }).collect();
    assert_eq!(redis.cli(&words)?.trim(), "OK");
    let dangerous = redis.cli(&["ACL", "CAT", "dangerous"])?;
    let granted = words.iter().filter_map(|word| word.strip_prefix('+'));
    let wrong: Vec<_> = granted.filter(|name| dangerous.lines().any(|line| line == *name)).collect();
    ensure!(wrong.is_empty(), "dangerous: {wrong:?}");

    let address = redis.url().replace("redis://", "redis://tr111@").parse::<config::RedisAddress>()?;
    let location = Location::Redis(address.with_password("correct-horse".to_owned()));
    let (mut one, mut other) = (Server::open_with(&location, key("0f")?)?, Server::open_with(&location, key("0f")?)?);
    one.add("CPE1").await?;
    one.add("CPE2").await?;
    let association = Change::Association(short("device"), Some(Box::from(b"gateway".as_slice())));
    one.journal.commit(vec![association]).await?;
    other.until("all are known", |server| server.registry.len() == 2 && !server.associations.is_empty()).await?;
    other.learn("CPE1", signed(40_001, 10))?;
    one.until("the binding is known", |server| server.destination("CPE1").is_some()).await?;
    assert_eq!(one.journal.reserve(wanted("CPE1", None), UnixTime(7)).await?, [7]);
    ensure!(!one.is_known(1).await? && other.is_known(1).await?);
    one.journal.commit(vec![Change::Removed(short("CPE2"))]).await?;
    other.until("the CPE is gone", |server| server.registry.len() == 1).await?;
    // Connections are lost, then the data.
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"])?;
    one.journal.commit(vec![added("CPE3")]).await.ok();
    one.health(true).await?;
    redis.cli(&["FLUSHALL"])?;
    one.until("it is put back", |_| redis.cli(&["HLEN", "{tr111}:cpes"]).is_ok_and(|count| count.trim() != "0"))
        .await?;
    Server::open_with(&location, key("0f")?)?;
    let refused = redis.cli(&["ACL", "LOG"])?;
    ensure!(refused.trim().is_empty(), "{refused}");
    Ok(())
}

/// One record that cannot be read is told and left alone; everything else goes on, at a server that runs and at one that
/// starts.
#[tokio::test]
async fn a_record_that_cannot_be_read_is_skipped() -> Result<()> {
    let redis = Redis::start()?;
    let location = Location::Redis(redis.address()?);
    let mut one = Server::open(&location)?;
    for name in ["CPE1", "CPE2"] {
        one.add(name).await?;
    }
    redis.cli(&["HSET", "{tr111}:cpes", "CPE1", "of another version", "alien", "xx"])?;
    redis.cli(&["HSET", "{tr111}:timestamps", "CPE1", "no number"])?;
    assert_eq!(one.journal.reserve(wanted("CPE1", Some(8)), UnixTime(7)).await?, [9]);

    let mut other = Server::open(&location)?;
    let mut names: Vec<_> = other.unreadable.iter().map(|record| record.name.to_vec()).collect();
    names.sort_unstable();
    assert_eq!(names, [b"CPE1".to_vec(), b"alien".to_vec()]);
    ensure!(other.registry.is_unreadable(b"CPE1") && other.cpe("CPE1").is_none() && other.cpe("CPE2").is_some());

    // Whoever knows the CPE goes on with what is known, and writes nothing over the record.
    one.learn("CPE1", signed(40_001, 10))?;
    one.learn("CPE2", signed(40_002, 10))?;
    one.until("the alarm", |server| server.unreadable.iter().any(|record| *record.name == *b"CPE1")).await?;
    ensure!(one.destination("CPE1").is_some());
    let refused = one.journal.commit(vec![Change::Put(Box::new(cpe("CPE1")))]).await;
    assert!(matches!(&refused, Err(Refused::Unreadable(record)) if *record.name == *b"CPE1"), "{refused:?}");
    let refused = other.journal.commit(vec![added("CPE1")]).await;
    assert!(matches!(refused, Err(Refused::Taken(_))), "{refused:?}");
    other.until("the other binding", |server| server.destination("CPE2").is_some()).await?;
    assert_eq!(redis.cli(&["HGET", "{tr111}:cpes", "CPE1"])?.trim(), "of another version");

    // A record that becomes unreadable is told to those who follow.
    one.add("CPE3").await?;
    other.until("the new one", |server| server.cpe("CPE3").is_some()).await?;
    redis.cli(&["HSET", "{tr111}:cpes", "CPE3", "xx"])?;
    let sequence: u64 = redis.cli(&["INCR", "{tr111}:sequence"])?.trim().parse()?;
    redis.cli(&["XADD", "{tr111}:changes", &format!("{sequence}-0"), "c", "CPE3"])?;
    other.until("the alarm", |server| server.registry.is_unreadable(b"CPE3")).await?;
    ensure!(other.cpe("CPE3").is_some(), "what is known of it stays");

    other.journal.commit(vec![Change::Removed(short("CPE1"))]).await?;
    other.journal.commit(vec![added("CPE1")]).await?;
    one.until("it is readable", |server| server.cpe("CPE1").is_some_and(|cpe| cpe.state.authenticated.is_none()))
        .await?;
    assert_eq!(Server::open(&location)?.unreadable.len(), 2);
    Ok(())
}

/// The key of 32 bytes like `digits`.
fn key(digits: &str) -> Result<Encryption> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), digits.repeat(32))?;
    Ok(Encryption::read(file.path())?)
}

/// Passwords are kept encrypted where there is a key, those that were in clear as well, and are read with that key alone.
#[tokio::test]
async fn passwords_are_encrypted_at_rest() -> Result<()> {
    for place in Place::all()? {
        let location = place.location()?;
        let has = |content: &[u8], text: &[u8]| content.windows(text.len()).any(|part| part == text);
        let passwords = [b"a STUNPassword that is longer".as_slice(), b"cr-secret-01"];
        let mut server = Server::open(&location)?;
        for number in 0..500 {
            server.add(&format!("CPE{number}")).await?;
        }
        server.is_known(5).await?;
        drop(server);
        ensure!(passwords.iter().all(|text| has(&place.content().unwrap_or_default(), text)));

        let mut server = Server::open_with(&location, key("0f")?)?;
        assert_eq!(server.cpe("CPE7").map(|known| &known.credentials), Some(&cpe("CPE7").credentials));
        server.add("new").await?;
        server.learn("CPE7", signed(40_001, 10))?;
        ensure!(server.is_known(5).await?);
        drop(server);
        let content = place.content()?;
        ensure!(!passwords.iter().any(|text| has(&content, text)), "in clear");
        ensure!(has(&content, b"CPE7"));

        for other in [Encryption::default(), key("0e")?] {
            let Err(error) = Server::open_with(&location, other) else { anyhow::bail!("opened without the key") };
            ensure!(error.is_unreadable() && error.to_string().contains("acs.registry_encryption_key_file"), "{error}");
            ensure!(place.content()? == content, "it was changed");
        }
        let server = Server::open_with(&location, key("0f")?)?;
        let credentials = |name| server.cpe(name).map(|known| &known.credentials);
        assert_eq!(
            (server.registry.len(), credentials("CPE7"), credentials("new")),
            (501, Some(&cpe("CPE7").credentials), Some(&cpe("new").credentials))
        );
        assert_eq!(server.destination("CPE7").as_deref(), Some("198.51.100.7:40001"));
    }
    Ok(())
}

/// A file that is damaged, cut to nothing, or of a newer version is refused and stays as it is, whether it was closed well
/// or not.
#[tokio::test]
async fn a_file_that_cannot_be_read_stays_as_it_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let location = Location::Embedded(directory.path().to_owned());
    let file: PathBuf = directory.path().join(registry::FILE);
    let server = Server::open(&location)?;
    let many = (0..2_000).map(|number| added(&format!("CPE{number:05}"))).collect();
    server.journal.commit(many).await?;
    // As after a SIGKILL.
    let open = std::fs::read(&file)?;
    drop(server);
    let whole = std::fs::read(&file)?;
    let mut scribbled = whole.clone();
    let middle = scribbled.len() / 3;
    scribbled[middle..].iter_mut().step_by(97).for_each(|byte| *byte ^= 0x5a);
    let newer_layout = changed(&open, |transaction| {
        transaction.open_table(TableDefinition::<&str, u64>::new("meta"))?.insert("schema", 7)?;
        Ok(())
    })?;
    let newer_record = changed(&whole, |transaction| {
        let (name, record) = (b"CPE00000".as_slice(), b"\x7f\x00".as_slice());
        transaction.open_table(TableDefinition::<&[u8], &[u8]>::new("cpes"))?.insert(name, record)?;
        Ok(())
    })?;
    for (name, bytes, words) in [
        ("no database", b"no database".repeat(1_000), "is damaged"),
        ("empty", Vec::new(), "is damaged"),
        ("cut", whole[..whole.len() / 3].to_vec(), "is damaged"),
        ("cut while open", open[..open.len() - 4_096].to_vec(), "is damaged"),
        ("scribbled", scribbled, "is damaged"),
        ("newer layout", newer_layout, "another version"),
        ("newer record", newer_record, "another version"),
    ] {
        std::fs::write(&file, &bytes)?;
        let Err(error) = Server::open(&location) else { anyhow::bail!("{name}: opened") };
        ensure!(error.to_string().contains(words), "{name}: {error:#}");
        ensure!(std::fs::read(&file)? == bytes, "{name}: the file was changed");
        assert_eq!(std::fs::read_dir(directory.path())?.count(), 1, "{name}");
    }
    std::fs::write(&file, &open)?;
    assert_eq!(Server::open(&location)?.registry.len(), 2_000);
    location.move_aside()?;
    ensure!(Server::open(&location)?.registry.is_empty());
    Ok(())
}

/// A database file like `bytes`, after a change, as it is after a SIGKILL.
fn changed(bytes: &[u8], change: impl FnOnce(&redb::WriteTransaction) -> Result<()>) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, bytes)?;
    let database = redb::Database::open(file.path())?;
    let transaction = database.begin_write()?;
    change(&transaction)?;
    transaction.commit()?;
    Ok(std::fs::read(&file)?)
}
