mod answers;
mod binding;
mod lab;
mod properties;

use std::net::SocketAddrV4;

use super::*;
use crate::{short::Short, stun::Username, time::UnixTime};

fn cpe(name: &str) -> Cpe {
    let credentials = Credentials {
        stun_password: Short::from(b"stunpassword1234".as_slice()),
        connection_request_username: Short::from(name.as_bytes()),
        connection_request_password: Short::from(b"cr-secret-01".as_slice()),
    };
    Cpe { name: Short::from(name.as_bytes()), credentials, state: State::default() }
}

fn seen(port: u16, since: u64) -> Seen {
    let address = SocketAddrV4::new([198, 51, 100, 7].into(), port);
    let server = SocketAddrV4::new([203, 0, 113, 10].into(), 3478);
    Seen { address, server, since: UnixTime(since), last_seen: UnixTime(since) }
}

fn told(address: &str, at: u64) -> Reported {
    let address = address.parse().expect("an authority");
    Reported { address, nat_detected: Some(true), at: UnixTime(at) }
}

/// STUN-21: a STUNUsername belongs to one CPE.
#[test]
fn refuses_a_second_cpe_of_the_same_name() {
    let mut registry = Registry::new(7);
    assert_eq!(registry.add(cpe("CPE57689")), Ok(0));
    assert_eq!(registry.add(cpe("CPE57689")), Err(Taken));
    assert_eq!(registry.add(cpe("cpe57689")), Ok(1));
    assert_eq!(registry.remove(b"CPE57689").map(|cpe| cpe.name), Some(cpe("CPE57689").name));
    assert_eq!((registry.number(b"CPE57689"), registry.len()), (None, 1));
    assert_eq!(registry.add(cpe("CPE57689")), Ok(0));
    assert_eq!(registry.iter_from(1).map(|(number, _)| number).collect::<Vec<_>>(), [1]);
}

/// T-37: a USERNAME is looked for as it is, then without its padding.
#[test]
fn finds_a_padded_username() {
    let mut registry = Registry::new(7);
    let short = registry.add(cpe("CPE5768")).expect("a free name");
    let padded = registry.add(cpe("CPE576  ")).expect("a free name");
    assert_eq!(registry.named(Username(b"CPE5768 ")), Some(short));
    assert_eq!(registry.named(Username(b"CPE5768\0")), Some(short));
    assert_eq!(registry.named(Username(b"CPE576  ")), Some(padded));
    assert_eq!(registry.named(Username(b"CPE576 \0")), None);
}

/// T-65: the latest of what is authenticated wins, and nothing unsigned overrides it.
#[test]
fn sends_to_the_latest_that_is_authenticated() {
    let by = |state: &State, approach| state.destination(approach).map(|to| (to.authority.to_string(), to.way));
    let mut state = State { tentative: Some(seen(40_001, 30)), ..State::default() };
    assert_eq!(by(&state, Approach::Both), Some(("198.51.100.7:40001".into(), Way::Tentative)));
    assert_eq!(by(&state, Approach::Notification), None);
    state.authenticated = Some(seen(40_000, 10));
    assert_eq!(by(&state, Approach::Both), Some(("198.51.100.7:40000".into(), Way::Authenticated)));
    state.reported = Some(Box::new(told("cpe.example:4000", 20)));
    assert_eq!(by(&state, Approach::Both), Some(("cpe.example:4000".into(), Way::Reported)));
    assert_eq!(by(&state, Approach::Stun), Some(("198.51.100.7:40000".into(), Way::Authenticated)));
    state.authenticated = Some(seen(40_002, 25));
    assert_eq!(by(&state, Approach::Both), Some(("198.51.100.7:40002".into(), Way::Authenticated)));
    assert_eq!(by(&state, Approach::Notification), Some(("cpe.example:4000".into(), Way::Reported)));
}

/// A secret is never printed (T-62).
#[test]
fn prints_no_secret() {
    let cpe = cpe("CPE57689");
    let printed = format!("{cpe:?}");
    let has = |text: &Short| printed.contains(&format!("{text:?}"));
    assert!(has(&cpe.name), "{printed}");
    assert!(!has(&cpe.credentials.stun_password), "{printed}");
    assert!(!has(&cpe.credentials.connection_request_password), "{printed}");
}
