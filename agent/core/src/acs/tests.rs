mod answers;
mod binding;
mod lab;
mod merge;
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
    let address = Some(address.parse().expect("an authority"));
    Reported { address, nat_detected: Some(true), at: UnixTime(at), revision: 0 }
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
    assert_eq!(registry.iter_from(u32::MAX).count(), 0);
}

/// T-37: a USERNAME is looked up exactly, then without its padding.
#[test]
fn finds_a_padded_username() {
    let mut registry = Registry::new(7);
    let short = registry.add(cpe("CPE5768")).expect("a free name");
    let padded = registry.add(cpe("CPE576  ")).expect("a free name");
    assert_eq!(registry.named(Username(b"CPE5768 ")), Some(short));
    assert_eq!(registry.named(Username(b"CPE5768\0")), Some(short));
    assert_eq!(registry.named(Username(b"CPE576  ")), Some(padded));
    assert_eq!(registry.named(Username(b"CPE576 \0")), None);
    let padded_by_nuls = |name: &[u8]| {
        let mut field = [0; 32];
        field[..name.len()].copy_from_slice(name);
        registry.named(Username(&field))
    };
    assert_eq!(padded_by_nuls(b"CPE5768"), Some(short));
    assert_eq!(padded_by_nuls(b"CPE576  "), Some(padded), "blanks before NULs are the name's");
    assert_eq!(padded_by_nuls(b"CPE5768\0x"), None);
    assert_eq!(padded_by_nuls(b""), None);
}

/// T-65: the most recent authenticated address is used, and an unsigned one never replaces it. Times do not decide,
/// because a clock may have been wrong for a moment.
#[test]
fn sends_to_the_latest_that_is_authenticated() {
    let by = |state: &State, approach| state.destination(approach).map(|to| (to.authority.to_string(), to.way));
    let mut state = State { tentative: Some(seen(40_001, 30)), ..State::default() };
    assert_eq!(by(&state, Approach::Both), Some(("198.51.100.7:40001".into(), Way::Tentative)));
    assert_eq!(by(&state, Approach::Notification), None);
    state.authenticated = Some(seen(40_000, 4_000_000_000));
    assert_eq!(by(&state, Approach::Both), Some(("198.51.100.7:40000".into(), Way::Authenticated)));
    state.report(told("cpe.example:4000", 20));
    assert_eq!(by(&state, Approach::Both), Some(("cpe.example:4000".into(), Way::Reported)));
    assert_eq!(by(&state, Approach::Stun), Some(("198.51.100.7:40000".into(), Way::Authenticated)));
    state.is_reported_last = false;
    assert_eq!(by(&state, Approach::Both), Some(("198.51.100.7:40000".into(), Way::Authenticated)));
    assert_eq!(by(&state, Approach::Notification), Some(("cpe.example:4000".into(), Way::Reported)));
}

/// STUN-41: an empty address withdraws the previous report, at every server, and keeps the bindings.
#[test]
fn an_empty_report_takes_back_the_address() {
    let mut state = State::default();
    state.report(Reported { revision: 1, ..told("cpe.example:4000", 30) });
    let before = state.clone();
    state.report(Reported { address: None, nat_detected: Some(false), at: UnixTime(20), revision: 2 });
    state.follow(&before);
    assert_eq!(state.destination(Approach::Both), None);
    let mut other = before;
    other.follow(&state);
    assert_eq!(other.destination(Approach::Both), None);
    state.tentative = Some(seen(40_001, 10));
    assert_eq!(state.destination(Approach::Both).map(|to| to.way), Some(Way::Tentative));
    state.authenticated = Some(seen(40_000, 10));
    assert_eq!(state.destination(Approach::Both).map(|to| to.way), Some(Way::Authenticated));
    assert_eq!(state.destination(Approach::Notification), None);
}

/// Times in the future are limited to now, and others are not changed.
#[test]
fn heals_times_of_the_future() {
    let mut state = State {
        authenticated: Some(Seen { last_seen: UnixTime(4_000_000_000), ..seen(40_000, 10) }),
        tentative: Some(seen(40_001, 4_000_000_000)),
        ..State::default()
    };
    state.report(told("cpe.example:4000", 4_000_000_000));
    assert!(state.heal(UnixTime(50)));
    assert_eq!(state.authenticated, Some(Seen { last_seen: UnixTime(50), ..seen(40_000, 10) }));
    assert_eq!(state.tentative, Some(seen(40_001, 50)));
    assert_eq!(state.reported.as_ref().map(|told| told.at), Some(UnixTime(50)));
    assert!(!state.heal(UnixTime(50)));
}

/// STUN-20, STUN-22, T-37: weak credentials are found, and random ones are not reported.
#[test]
fn finds_what_is_weak() {
    use lint::{Finding, findings, is_weak};

    let with = |name: &str, stun: &str, request: &str| {
        let mut cpe = cpe(name);
        cpe.credentials.stun_password = Short::from(stun.as_bytes());
        cpe.credentials.connection_request_password = Short::from(request.as_bytes());
        findings(&cpe)
    };
    let strong = "9f2c41d07be86a35c0d4e97f12ab5863";
    assert_eq!(with("CPE57689", strong, strong), []);
    assert_eq!(with("CPE5768", strong, strong), [Finding::UsernameLength]);
    // The CPE's ConnectionRequestUsername has the same value.
    let blank = [Finding::UsernameBlank, Finding::ConnectionRequestUsernameEncoding];
    assert_eq!(with("CPE5768 ", strong, strong), blank);
    assert_eq!(with("CPE&768%", strong, strong), [Finding::ConnectionRequestUsernameEncoding]);
    assert_eq!(with("CPE+768%", strong, strong), []);
    assert_eq!(with("CPE57689", "", ""), [Finding::NoStunPassword, Finding::NoConnectionRequestPassword]);
    let own = format!("CPE57689-{strong}");
    assert_eq!(with("CPE57689", strong, &own), [Finding::PasswordFromUsername]);
    assert_eq!(with("CPE57689", "password", strong), [Finding::WeakStunPassword]);
    assert_eq!(with("CPE57689", strong, "cr-secret-01"), [Finding::WeakConnectionRequestPassword]);
    for weak in ["12345678901234567890123456789012345678", &"a".repeat(200), &"ab".repeat(40), "stunpassword1234"] {
        assert!(is_weak(weak.as_bytes()), "{weak}");
    }
    for random in ["kX2p-9vTqLw_07GhZrYbAe", "0b9c4de1-6f3a-4e0d-9a71-c2d85be6f413", "7QZ2MWK9XR4T8PLB6NVC3JHFYD"] {
        assert!(!is_weak(random.as_bytes()), "{random}");
    }
    // No finding in very many random passwords.
    let mut state = 7_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    };
    let weak = (0..20_000).filter(|_| is_weak(format!("{:016x}{:016x}", word(), word()).as_bytes())).count();
    assert_eq!(weak, 0);
}

/// Secrets are never printed (T-62).
#[test]
fn prints_no_secret() {
    let cpe = cpe("CPE57689");
    let printed = format!("{cpe:?}");
    let has = |text: &Short| printed.contains(&format!("{text:?}"));
    assert!(has(&cpe.name), "{printed}");
    assert!(!has(&cpe.credentials.stun_password), "{printed}");
    assert!(!has(&cpe.credentials.connection_request_password), "{printed}");
}
