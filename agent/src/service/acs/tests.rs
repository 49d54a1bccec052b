use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use tr111_core::{
    acs::{Fingerprint, Seen},
    short::Short,
    stun::{Attribute, Builder, MessageType, TransactionId, Username},
    time::UnixTime,
};

use super::*;
use crate::{
    config::Values,
    essential,
    registry::{self, BindingStore, Failure, Follower, Journal, News, Taken, Wanted},
    telemetry::Telemetry,
};

fn acs() -> Acs {
    let telemetry = Telemetry::plain("acs").expect("consistent names");
    let metrics = AcsMetrics::register(&telemetry, "acs").expect("consistent names");
    // One socket bound to an address and one bound to all addresses.
    let addresses = [SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)];
    let sockets = addresses.map(|address| StunSocket::bind(address, 1).expect("a port")).concat();
    Acs::new(7, &(&Values::default()).into(), sockets, broadcast::channel(16).0, metrics)
}

fn credentials(stun_password: &str) -> Credentials {
    let short = |text: &str| Short::from(text.as_bytes());
    Credentials {
        stun_password: short(stun_password),
        connection_request_username: short("CPE57689"),
        connection_request_password: short("cr-secret-01"),
    }
}

/// A store that keeps nothing, counts the changes, and fails on request.
#[derive(Clone, Debug, Default)]
struct Store {
    fails: Arc<AtomicBool>,
    changes: Arc<AtomicU32>,
}

impl BindingStore for Store {
    fn load(&mut self, _: &mut dyn FnMut(News)) -> Result<(), registry::Error> {
        Ok(())
    }

    fn commit(&mut self, groups: &[&[Change]]) -> Result<Vec<Result<(), Taken>>, Failure> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Failure::Unavailable("no disk".to_owned()));
        }
        let changes: usize = groups.iter().map(|group| group.len()).sum();
        self.changes.fetch_add(changes as u32, Ordering::Relaxed);
        Ok(vec![Ok(()); groups.len()])
    }

    fn remember(&mut self, _: &[Fingerprint]) -> Result<Vec<bool>, Failure> {
        Err(Failure::Unavailable("no disk".to_owned()))
    }

    fn reserve(&mut self, _: &[Wanted], _: UnixTime) -> Result<Vec<u64>, Failure> {
        Err(Failure::Unavailable("no disk".to_owned()))
    }

    fn follower(&mut self) -> Option<Box<dyn Follower>> {
        None
    }
}

fn told(address: &str) -> Reported {
    let address = Some(address.parse().expect("an authority"));
    Reported { address, nat_detected: Some(true), at: tr111_core::time::UnixTime(1_700_000_000), revision: 0 }
}

/// STUN-21: a second CPE with the same name is refused, and the first one is unchanged.
#[tokio::test]
async fn a_name_belongs_to_one_cpe() {
    let acs = acs();
    acs.add("CPE57689", credentials("first")).await.expect("a free name");
    assert_eq!(acs.add("CPE57689", credentials("second")).await, Err(Error::Taken));
    assert_eq!(*acs.get("CPE57689").expect("it is there").credentials.stun_password, *b"first");
    acs.remove("CPE57689").await.expect("it is there");
    assert_eq!(acs.remove("CPE57689").await, Err(Error::Unknown));
    assert_eq!(acs.get("CPE57689"), None);
}

/// STUN-41: a report that the store refused leaves the CPE as it was, so the same report is written when it comes again.
#[tokio::test]
async fn a_refused_report_is_news_when_it_comes_again() {
    let (acs, store) = (acs(), Store::default());
    acs.open(Journal::start(Box::new(store.clone()), 7).expect("a store"));
    acs.add("CPE57689", credentials("secret")).await.expect("a free name");
    acs.report("CPE57689", told("cpe.example:4000")).await.expect("it is there");
    let empty = || Reported { address: None, ..told("cpe.example:4000") };
    store.fails.store(true, Ordering::Relaxed);
    assert!(matches!(acs.report("CPE57689", empty()).await, Err(Error::Store(_))));
    let known = acs.get("CPE57689").and_then(|cpe| cpe.state.reported);
    assert!(known.is_some_and(|told| told.address.is_some()));
    store.fails.store(false, Ordering::Relaxed);
    let before = store.changes.load(Ordering::Relaxed);
    while acs.report("CPE57689", empty()).await.is_err() {
        // The store is tried again some time after a failure.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.changes.load(Ordering::Relaxed), before + 1);
}

/// STUN-20, STUN-21: an upsert adds CPEs, replaces the credentials of existing ones, keeps their bindings, and writes
/// only what has changed. If the store fails, nothing is changed.
#[tokio::test]
async fn an_upsert_is_whole_and_keeps_what_was_learned() {
    let (acs, store) = (acs(), Store::default());
    acs.open(Journal::start(Box::new(store.clone()), 7).expect("a store"));
    let cpes = |password: &str| ["old", "new"].map(|name| (name.to_owned(), credentials(password))).to_vec();
    let password = |name: &str| acs.get(name).map(|cpe| cpe.credentials.stun_password.to_vec());
    let written = || store.changes.load(Ordering::Relaxed);
    acs.add("old", credentials("first")).await.expect("a free name");
    acs.verify("old").await.expect("it is there");

    store.fails.store(true, Ordering::Relaxed);
    let failed = acs.upsert_all(cpes("second")).await.expect_err("the store fails");
    assert!(matches!(failed.error, Error::Store(_)), "{failed}");
    assert_eq!((password("old"), password("new")), (Some(b"first".to_vec()), None));
    assert_eq!(acs.size().cpes, 1);
    // Even unchanged credentials are not reported as stored while the store fails.
    assert!(matches!(acs.set_credentials("old", credentials("first")).await, Err(Error::Store(_))));
    store.fails.store(false, Ordering::Relaxed);
    let before = written();
    let mut upserted = acs.upsert_all(cpes("second")).await;
    while upserted.is_err() {
        // The store is tried again some time after a failure.
        tokio::time::sleep(Duration::from_millis(20)).await;
        upserted = acs.upsert_all(cpes("second")).await;
    }
    assert_eq!((password("old"), password("new")), (Some(b"second".to_vec()), Some(b"second".to_vec())));
    assert!(acs.get("old").is_some_and(|cpe| cpe.state.must_verify));
    assert_eq!(written(), before + 2);
    acs.upsert_all(cpes("second")).await.expect("the same again");
    acs.set_credentials("old", credentials("second")).await.expect("the same again");
    assert_eq!(written(), before + 2);
    let wrong = vec![("newer".to_owned(), credentials("x")), ("old".to_owned(), credentials(&"x".repeat(257)))];
    assert_eq!(acs.upsert_all(wrong).await.expect_err("too long").name, "old");
    assert_eq!(password("newer"), None);
}

#[tokio::test]
async fn texts_have_the_lengths_of_table_6_and_no_control_characters() {
    let acs = acs();
    for wrong in ["", "\u{1b}[2J", &"x".repeat(257)] {
        assert!(matches!(acs.add(wrong, credentials("s")).await, Err(Error::Text { .. })), "{wrong:?}");
    }
    assert!(matches!(acs.add("a", credentials(&"x".repeat(257))).await, Err(Error::Text { .. })));
    acs.add(&"x".repeat(256), Credentials::default()).await.expect("256 bytes");
}

/// STUN-41: the latest report wins, watchers are told of it, and new credentials do not change it.
#[tokio::test]
async fn a_report_is_a_binding() {
    let acs = acs();
    let mut events = acs.events();
    assert_eq!(acs.report("CPE57689", told("198.51.100.7:1")).await, Err(Error::Unknown));
    acs.add("CPE57689", credentials("s")).await.expect("a free name");
    acs.report("CPE57689", told("198.51.100.7:1")).await.expect("it is there");
    acs.report("CPE57689", told("cpe.example")).await.expect("it is there");
    acs.set_credentials("CPE57689", credentials("t")).await.expect("it is there");
    let bindings = acs.bindings(0, 10).items;
    assert_eq!(bindings.len(), 1);
    assert_eq!((bindings[0].address.as_str(), bindings[0].way.as_deref()), ("cpe.example", Some("reported")));
    // An empty address removes the reported address, and is announced once.
    let empty = Reported { address: None, ..told("cpe.example") };
    acs.report("CPE57689", empty.clone()).await.expect("it is there");
    acs.report("CPE57689", empty).await.expect("it is there");
    assert_eq!(acs.bindings(0, 10).items, []);
    for address in [Some("198.51.100.7:1"), Some("cpe.example"), None] {
        let event = events.recv().await.expect("told");
        let Happening::BindingChanged(change) = &event.what else { panic!("{event:?}") };
        assert_eq!(change.address.as_deref(), address);
    }
    assert!(events.try_recv().is_err(), "told twice");
}

#[tokio::test]
async fn pages_hold_every_cpe_once() {
    let acs = acs();
    for number in 0..10 {
        acs.add(&format!("CPE{number}"), credentials("s")).await.expect("a free name");
    }
    acs.remove("CPE3").await.expect("it is there");
    let (mut names, mut from) = (Vec::new(), Some(0));
    while let Some(first) = from {
        let page = acs.list(first, 4);
        assert!(page.items.len() <= 4);
        names.extend(page.items.into_iter().map(|cpe| describe::text(&cpe.name)));
        from = page.next;
    }
    assert_eq!(names, [0, 1, 2, 4, 5, 6, 7, 8, 9].map(|number| format!("CPE{number}")));
    assert_eq!(acs.size(), Size { cpes: 9, authenticated: 0, unreadable: 0 });
}

/// STUN-41, STUN-42, UCR-20, UCR-24: a reported host name is looked up, and the request is sent from the STUN server's
/// port without waiting for a response.
#[tokio::test]
async fn a_name_is_looked_up() {
    let (acs, cpe) = (acs(), UdpSocket::bind("127.0.0.1:0").expect("a port"));
    cpe.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let port = cpe.local_addr().expect("bound").port();
    acs.add("CPE57689", credentials("s")).await.expect("a free name");
    acs.report("CPE57689", told(&format!("localhost:{port}"))).await.expect("it is there");
    let sent = acs.send("CPE57689", 1).await.expect("sent");
    assert_eq!((sent.to, sent.way.as_deref()), (format!("localhost:{port}"), Some("reported")));
    let mut request = [0; 2_000];
    let (length, from) = cpe.recv_from(&mut request).expect("a request");
    assert_eq!(from, acs.0.sockets[0].address().into());
    assert!(request[..length].starts_with(format!("GET http://localhost:{port}?ts=").as_bytes()));

    acs.report("CPE57689", told("nobody.invalid")).await.expect("it is there");
    let refused = acs.send("CPE57689", 1).await.expect_err("nobody");
    assert_eq!(refused.label(), "unresolved");
}

/// STUN-43, UCR-34: the default port is 80, and it is not written in the request.
#[tokio::test]
async fn without_a_port_it_is_80() {
    let acs = acs();
    acs.add("CPE57689", credentials("s")).await.expect("a free name");
    acs.report("CPE57689", told("127.0.0.1")).await.expect("it is there");
    let sent = acs.send("CPE57689", 1).await.expect("sent");
    assert_eq!(sent.address.to_string(), "127.0.0.1:80");
    assert!(sent.request.contains("GET http://127.0.0.1?ts=") && sent.request.contains("\r\nHost: 127.0.0.1\r\n"));
}

/// UCR-20: a request is sent from the address that the CPE asked, or from the first one if that is another server's.
#[tokio::test]
async fn the_socket_is_the_one_that_was_asked() {
    let acs = acs();
    let [one, all] = [0, 1].map(|index| acs.0.sockets[index].address());
    let at = |ip: [u8; 4], port| Some(SocketAddrV4::new(ip.into(), port));
    for (server, expected) in [
        (Some(one), (0, Ipv4Addr::LOCALHOST)),
        (at([127, 0, 0, 7], all.port()), (1, Ipv4Addr::new(127, 0, 0, 7))),
        (at([127, 0, 0, 7], one.port()), (0, Ipv4Addr::LOCALHOST)),
        (None, (0, Ipv4Addr::LOCALHOST)),
    ] {
        assert_eq!(acs.socket_for(server), expected, "{server:?}");
    }
}

/// Panics when a binding moves.
#[derive(Debug)]
struct Panics;

impl tr111_core::acs::Follower for Panics {
    fn settled(&mut self, _: &Short, _: Option<Seen>, _: Option<Seen>) {
        panic!("out of cheese");
    }
}

/// A panic in a thread of the STUN server costs what was read with it and raises an alarm; the socket is served on. Again and
/// again, it ends the agent.
#[tokio::test]
async fn a_thread_that_panics_serves_on_and_is_told() {
    let acs = acs();
    acs.add("CPE57689", credentials("s")).await.expect("a free name");
    acs.lock().server.registry_mut().follow(Box::new(Panics));
    acs.serve_stun(7).expect("threads");
    let alarms = || acs.0.metrics.alarms.with_label_values(&[AcsMetrics::PANICKED]).get();
    let ask = |builder: Builder, patience| {
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        client.set_read_timeout(Some(patience)).expect("a timeout");
        client.send_to(&builder.build(), acs.0.sockets[0].address()).expect("sent");
        client.recv(&mut [0; 500]).is_ok()
    };
    let plain = || Builder::new(MessageType::BindingRequest, TransactionId([7; 16]));
    let named = || {
        let name = Attribute::Username(Username(b"CPE57689"));
        plain().attribute(Attribute::ConnectionRequestBinding).attribute(name)
    };
    // From another port each time.
    for panics in 1..=9 {
        assert!(!ask(named(), Duration::from_millis(50)), "its thread panics");
        assert!(ask(plain(), Duration::from_secs(5)), "it is there after {panics} panics");
        assert_eq!(alarms(), panics);
    }
    assert!(!ask(named(), Duration::from_millis(50)));
    let failures = essential::failures();
    assert!(failures.iter().any(|failure| failure.name == "stun"), "{failures:?}");
    assert_eq!(alarms(), 9, "the tenth ends the thread");
    assert!(!ask(plain(), Duration::from_millis(50)));
    acs.stop();
}
