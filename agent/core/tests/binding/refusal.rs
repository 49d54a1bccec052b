//! Tests of errors, signatures and forged responses (CPE-13, CPE-14, CPE-17, CPE-30, SEC-3).

use std::net::SocketAddrV4;

use tr111_core::binding::{Alarm, Memory, Parameters};

use crate::sim::*;

/// A CPE whose server is configured by `script` from the start.
fn scripted(parameters: Parameters, script: impl FnOnce(&mut Server)) -> World {
    let mut world = World::silent(parameters, Some(seconds(60)), Memory::default());
    script(&mut world.server);
    world.set_local(Some(LOCAL));
    world
}

/// CPE-13, CPE-17, STUN-23, STUN-24: after a 401 the request is repeated with a signature; the next request is
/// unsigned.
#[test]
fn a_401_is_answered_by_the_signed_request() {
    let mut world = scripted(provisioned(10, 10), |server| server.demand = Demand::Everything);
    world.pass(seconds(1));
    assert!(world.cpe.current().nat_detected);
    assert!(world.cpe.binding().unwrap().is_authenticated);
    let requests: Vec<_> = world.requests().map(|request| (request.is_change, request.is_signed)).collect();
    assert_eq!(requests, [(false, false), (false, true), (true, false), (true, true)]);
    // T-39: a transaction of its own.
    assert_ne!(world.sent[0].id, world.sent[1].id);
    world.pass(seconds(10));
    assert!(!world.requests().nth(4).unwrap().is_signed);
    world.assert_periods(seconds(10), Some(seconds(10)));
}

/// STUN-23: if the server requires a signature for changes only, only these are signed.
#[test]
fn only_the_change_is_signed_where_only_that_is_wanted() {
    let mut world = scripted(provisioned(10, 10), |server| server.demand = Demand::Changes);
    world.pass(seconds(3_600));
    assert_eq!(world.requests().filter(|request| request.is_signed).count(), 1);
    assert!(world.cpe.alarms().next().is_none());
}

/// CPE-24: if the server requires signatures for all requests, tests are signed, too.
#[test]
fn the_search_works_with_signatures() {
    let mut world = scripted(provisioned(10, -1), |server| server.demand = Demand::Everything);
    world.pass_until(seconds(2_000), |world| world.learned().is_some());
    assert!(world.learned().unwrap() <= seconds(60));
    assert!(world.probes().any(|probe| probe.is_signed));
}

/// T-38: without both credentials a 401 is a failure, and a BINDING-CHANGE is not repeated.
#[test]
fn a_401_without_credentials_is_a_failure() {
    let username = Parameters { stun_password: String::new(), ..provisioned(10, -1) };
    let password = Parameters { stun_username: String::new(), ..provisioned(10, -1) };
    for parameters in [enabled(10, -1), username, password] {
        let fixed = Parameters { stun_maximum_keep_alive_period: 10, ..parameters.clone() };
        let mut world = scripted(fixed, |server| server.demand = Demand::Changes);
        world.pass(seconds(3_600));
        assert!(world.has_raised(Alarm::Unauthorized));
        assert_eq!(world.changes().count(), 1);
        assert!(world.sent.iter().all(|sent| !sent.is_signed));
        // The binding is known nevertheless.
        assert!(world.cpe.current().nat_detected);

        let mut world = scripted(parameters, |server| server.demand = Demand::Everything);
        world.pass(seconds(3_600));
        assert!(!world.cpe.current().nat_detected);
        assert!(world.requests().count() < 20);
        // New credentials are used as soon as the minimum period allows.
        world.set(provisioned(10, -1));
        world.pass(seconds(10));
        assert!(world.cpe.current().nat_detected);
    }
}

/// CPE-30, T-36, T-37: `STUNUsername` is in every request from the primary socket, padded with spaces.
#[test]
fn the_username_goes_with_every_primary_request() {
    let mut world = scripted(Parameters { stun_username: "CPE5768".to_owned(), ..enabled(10, -1) }, |_| {});
    world.pass(seconds(600));
    for sent in &world.sent {
        let expected = (sent.response_address.is_none()).then_some(b"CPE5768 ".to_vec());
        assert_eq!(sent.username, expected);
    }
    let mut world = scripted(enabled(10, -1), |_| {});
    world.pass(seconds(600));
    assert!(world.sent.iter().all(|sent| sent.username.is_none()));
}

/// CPE-14: an answer to a signed request without a valid signature has no effect and is counted.
#[test]
fn an_answer_with_no_or_wrong_integrity_is_dropped() {
    for (password, result) in [(None, "unsigned"), (Some("another"), "bad_integrity")] {
        let mut world = scripted(provisioned(10, -1), |server| {
            server.demand = Demand::Everything;
            server.password = password;
        });
        world.pass(seconds(60));
        assert!(!world.cpe.current().nat_detected);
        assert_eq!(world.changes().count(), 0);
        assert!(world.cpe.counts().contains_key(&("binding_response", result)), "{:?}", world.cpe.counts());
    }
}

/// Each error of the server raises its alarm, and the request is repeated with back-off within the bounds.
#[test]
fn every_error_has_its_alarm_and_its_pause() {
    let errors = [
        (400, Alarm::BadRequest),
        (420, Alarm::UnknownAttribute),
        (430, Alarm::StaleCredentials),
        (431, Alarm::IntegrityCheckFailure),
        (432, Alarm::MissingUsername),
        (433, Alarm::Refused),
        (500, Alarm::ServerError),
        (600, Alarm::GlobalFailure),
    ];
    for (code, alarm) in errors {
        let mut world = scripted(provisioned(10, -1), |server| server.error = Some(code));
        world.pass(seconds(3_600));
        assert!(world.has_raised(alarm), "{code}");
        assert_eq!(world.cpe.alarms().collect::<Vec<_>>(), [alarm]);
        let requests = world.requests().count();
        assert!((5..=13).contains(&requests), "{requests} requests in an hour after {code}");
        world.server.error = None;
        world.pass(seconds(700));
        assert!(world.cpe.current().nat_detected && world.cpe.alarms().next().is_none());
    }
}

/// Error codes of classes below 4 are ignored.
#[test]
fn an_error_of_a_low_class_is_silence() {
    let mut world = scripted(enabled(10, -1), |server| server.error = Some(300));
    world.pass(seconds(20));
    assert!(world.has_raised(Alarm::ServerUnreachable));
}

/// STUN-4: RFC 3489 forbids a server to send 420 for the attributes of TR-111; they are not omitted for such a server
/// (CPE-28).
#[test]
fn no_attribute_of_tr_111_is_left_out() {
    let mut world = scripted(enabled(10, -1), |server| server.unknown = Some(0xc001));
    world.pass(seconds(600));
    assert!(world.has_raised(Alarm::UnknownAttribute));
    let mut world = scripted(enabled(10, 20), |server| server.unknown = Some(0xc002));
    world.pass(seconds(600));
    assert_eq!(world.changes().count(), 1);
    assert!(world.cpe.current().nat_detected);
}

/// SEC-3: of two answers with different addresses to one request neither is used, and an alarm is raised.
#[test]
fn two_answers_mean_an_attack_and_neither_is_used() {
    let victim = SocketAddrV4::new([192, 0, 2, 66].into(), 53);
    let mut world = scripted(enabled(10, 20), |server| server.forged = Some(victim));
    world.pass(seconds(60));
    assert!(world.has_raised(Alarm::Contradiction));
    assert!(!world.cpe.current().nat_detected);
    assert!(world.notified().iter().all(|(_, report)| report.address != Some(victim)));
    world.assert_periods(seconds(10), Some(seconds(20)));
    world.server.forged = None;
    world.pass(seconds(60));
    assert_eq!(world.cpe.current().address, world.mapping());
    assert!(!world.cpe.alarms().any(|alarm| alarm == Alarm::Contradiction));
}

/// SEC-3: a binding that was known before the attack is kept.
#[test]
fn an_attack_does_not_take_a_known_binding_away() {
    let mut world = scripted(enabled(10, 20), |_| {});
    world.pass(seconds(60));
    let before = world.cpe.current();
    let told = world.notified().len();
    world.server.forged = Some(SocketAddrV4::new([192, 0, 2, 66].into(), 53));
    world.pass(seconds(200));
    assert_eq!(world.cpe.current(), before);
    assert_eq!(world.notified().len(), told);
    assert!(world.has_raised(Alarm::Contradiction));
}
