//! The registry of an ACS in both of its stores: what is told of one holds for the other.

use std::{collections::BTreeMap, net::SocketAddrV4, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;
use tr111::{
    config,
    registry::{self, Health, Journal, Location, News, Opened, Refused, Wanted, follow},
};
use tr111_core::{
    acs::{Approach, Change, Cpe, Credentials, Registry, Reported, Seen, State, Way},
    short::Short,
    time::UnixTime,
};
use tr111_tests::redis::{Redis, Relay};

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
}

/// What an ACS does with its registry.
struct Server {
    journal: Journal,
    registry: Registry,
    associations: BTreeMap<Vec<u8>, Vec<u8>>,
    news: mpsc::Receiver<Vec<News>>,
}

impl Server {
    fn open(location: &Location) -> Result<Self> {
        let Opened { journal, registry, associations, news, .. } = Journal::open(location, 7)?;
        let associations = associations.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        Ok(Self { journal, registry, associations, news })
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
        assert_eq!(server.journal.reserve(wanted("CPE57689", Some(1_800_000_000)), now).await?, [1_800_000_001]);
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
        let opened = Journal::open(&place.location()?, 7)?;
        assert_eq!(opened.good_time, None);
        for time in [1_800_000_000, 1_700_000_000] {
            opened.journal.commit(vec![Change::GoodTime(UnixTime(time))]).await?;
        }
        drop(opened);
        assert_eq!(Journal::open(&place.location()?, 7)?.good_time, Some(UnixTime(1_700_000_000)));
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

/// The embedded file is moved aside when it is damaged, and made anew when it is lost while the agent runs: what is in memory
/// is written again.
#[tokio::test]
async fn a_file_that_is_damaged_or_lost_is_made_anew() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let location = Location::Embedded(directory.path().to_owned());
    let file: PathBuf = directory.path().join(registry::FILE);
    let mut server = Server::open(&location)?;
    server.add("CPE57689").await?;
    drop(server);
    let whole = std::fs::read(&file)?;
    std::fs::write(&file, &whole[..whole.len() / 3])?;
    let mut server = Server::open(&location)?;
    ensure!(server.registry.is_empty());
    let aside = std::fs::read_dir(directory.path())?.filter_map(Result::ok);
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-")).count();
    assert_eq!(aside, 1);
    server.add("learned anew").await
}
