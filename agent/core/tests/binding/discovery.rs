//! Tests of the choice of the server, of the first request, and of the meaning of the answer.

use std::{net::SocketAddrV4, time::Duration};

use tr111_core::{
    binding::{Alarm, Input, Memory, Output, Parameters, Report, Settings},
    stun::Attribute,
};

use crate::sim::*;

fn report(address: SocketAddrV4, nat_detected: bool) -> Report {
    Report { address: Some(address), nat_detected }
}

/// CPE-1, CPE-2, CPE-37, CPE-38, DM-20: the first request is sent at once, and its answer has the public address.
#[test]
fn the_binding_is_known_after_one_round_trip() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    assert_eq!(world.sent[0].at, world.now);
    assert_eq!(world.cpe.current(), report(LOCAL, false));
    world.pass(WAY * 2);
    assert_eq!(world.cpe.current(), report(SocketAddrV4::new(PUBLIC, 40_001), true));
    assert_eq!(world.cpe.current().udp_connection_request_address(), "198.51.100.7:40001");
}

/// CPE-1, DM-29: with STUN disabled no STUN packet is sent, and the parameters have the listener's own address.
#[test]
fn stun_that_is_off_is_silent_and_reports_the_listener() {
    let mut world = World::new(Parameters { stun_enable: false, ..enabled(10, -1) }, Some(seconds(60)));
    world.pass(seconds(100_000));
    assert!(world.sent.is_empty());
    assert_eq!(world.cpe.current(), report(LOCAL, false));
    assert_eq!(world.cpe.next_deadline(), None);
    assert_eq!(world.notified().len(), 1);
}

/// DM-22, DM-29: STUN is disabled and enabled at run time; the values follow immediately.
#[test]
fn stun_switches_at_run_time() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass(seconds(30));
    world.set(Parameters { stun_enable: false, ..enabled(10, -1) });
    assert_eq!(world.cpe.current(), report(LOCAL, false));
    let sent = world.sent.len();
    world.pass(seconds(10_000));
    assert_eq!(world.sent.len(), sent);
    world.set(enabled(10, -1));
    assert_eq!((world.sent.len(), world.sent[sent].at), (sent + 1, world.now));
    world.pass(WAY * 2);
    assert!(world.cpe.current().nat_detected);
}

/// CPE-42: an address that the server sees unchanged is not translated.
#[test]
fn no_nat_reports_the_listener() {
    let mut world = World::new(enabled(10, -1), None);
    world.pass(seconds(1_000));
    assert_eq!(world.cpe.current(), report(LOCAL, false));
    // Without NAT there is no timeout to learn.
    assert_eq!(world.probes().count(), 0);
    assert_eq!(world.cpe.phase(), None);
}

/// CPE-10: another port is a translation, too.
#[test]
fn a_port_alone_is_a_translation() {
    let mut world = World::new(enabled(10, -1), None);
    world.server.scatters = true;
    world.pass(WAY * 2);
    assert!(world.cpe.current().nat_detected);
    assert_eq!(world.cpe.current().address.unwrap().ip(), LOCAL.ip());
}

/// CPE-11, CPE-12: each refresh determines the binding again, and the latest answer is used.
#[test]
fn a_refresh_notices_that_the_nat_came_or_went() {
    let mut world = World::new(enabled(10, 20), Some(seconds(60)));
    world.pass(seconds(1));
    assert!(world.cpe.current().nat_detected);
    world.nat.timeout = None;
    world.pass(seconds(30));
    assert_eq!(world.cpe.current(), report(LOCAL, false));
    world.nat.timeout = Some(seconds(60));
    world.nat.reboot();
    world.pass(seconds(30));
    assert_eq!(world.cpe.current().address, world.mapping());
}

/// CPE-7, CPE-21: a new server gets the next request, but not before the minimum period.
#[test]
fn another_server_is_asked_next() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass(seconds(1));
    let sent = world.sent.len();
    world.set(Parameters { stun_server_address: OTHER_SERVER.ip().to_string(), ..enabled(10, -1) });
    world.pass(seconds(20));
    assert!(world.sent.len() > sent);
    assert!(world.sent[sent..].iter().all(|sent| sent.to == OTHER_SERVER));
    // The new server has not seen the binding.
    assert_eq!(world.changes().filter(|change| change.to == OTHER_SERVER).count(), 1);
    world.assert_periods(seconds(10), None);
    let sent = world.sent.len();
    world.set(Parameters {
        stun_server_port: 3479,
        stun_server_address: OTHER_SERVER.ip().to_string(),
        ..enabled(10, -1)
    });
    world.pass(seconds(20));
    assert!(world.sent[sent..].iter().all(|sent| sent.to == SocketAddrV4::new(*OTHER_SERVER.ip(), 3479)));
}

/// CPE-8: without `STUNServerAddress`, the host of the ACS URL is resolved and used.
#[test]
fn the_acs_is_the_server_where_no_other_is_named() {
    let parameters = Parameters {
        stun_server_address: String::new(),
        url: "https://acs.example:7547/cwmp".to_owned(),
        ..enabled(10, -1)
    };
    let mut world = World::silent(parameters.clone(), Some(seconds(60)), Memory::default());
    world.names.insert("acs.example".to_owned(), vec![*SERVER.ip()]);
    world.set_local(Some(LOCAL));
    assert_eq!(world.sent[0].to, SERVER);
    world.set(Parameters { url: String::new(), ..parameters });
    assert!(world.has_raised(Alarm::NoServer));
    assert_eq!(world.cpe.current(), report(LOCAL, false));
}

/// T-20: if enabled, the public address is taken from XOR-MAPPED-ADDRESS of a server that sends nothing else, and the
/// period is learned; each request has the magic cookie of RFC 5389. If not enabled, no address is reported.
#[test]
fn the_xor_form_tells_of_the_binding_where_it_is_taken() {
    for form in [Attribute::XorMappedAddress, Attribute::DraftXorMappedAddress] {
        let mut world = World::silent(enabled(10, -1), Some(seconds(60)), Memory::default());
        world.server.mapped = form;
        world.set_local(Some(LOCAL));
        world.pass(seconds(30));
        assert_eq!(world.cpe.current(), report(LOCAL, false));
        assert!(world.cpe.counts().contains_key(&("binding_response", "incomplete")));
        assert!(world.sent.iter().all(|sent| !sent.id.has_cookie()));

        let sent = world.sent.len();
        let settings = Settings { xor_mapped_address: true, ..Settings::default() };
        world.handle(Input::Settings(settings));
        world.pass_until(seconds(2_000), |world| world.learned().is_some());
        world.pass(seconds(1));
        assert_eq!(world.cpe.current().address, world.mapping());
        assert!(world.probes().count() > 0);
        let running = world.sent[sent - 1].id;
        assert!(world.sent[sent..].iter().all(|sent| sent.id.has_cookie() || sent.id == running));
    }
}

/// A name that does not resolve is looked up again, with back-off.
#[test]
fn a_name_that_does_not_resolve_is_asked_for_again_with_back_off() {
    let named = Parameters { stun_server_address: "stun.example".to_owned(), ..enabled(10, -1) };
    let mut world = World::new(named, Some(seconds(60)));
    world.pass(seconds(3_600));
    assert!(world.has_raised(Alarm::Unresolved));
    let asked = |(_, output): &&(_, Output)| matches!(output, Output::Resolve { .. });
    let count = world.outputs.iter().filter(asked).count();
    assert!((8..=16).contains(&count), "{count} look-ups in an hour");
    assert!(world.sent.is_empty());
    world.names.insert("stun.example".to_owned(), vec![*SERVER.ip()]);
    world.pass(seconds(600));
    assert!(world.cpe.current().nat_detected);
    assert!(world.outputs.iter().any(|(_, output)| *output == Output::Cleared(Alarm::Unresolved)));
}

/// The name of a silent server is looked up again, and its other address is tried.
#[test]
fn a_silent_server_is_looked_up_again() {
    let named = Parameters { stun_server_address: "stun.example".to_owned(), ..enabled(10, -1) };
    let mut world = World::silent(named, Some(seconds(60)), Memory::default());
    world.names.insert("stun.example".to_owned(), vec![*SERVER.ip(), *OTHER_SERVER.ip()]);
    world.set_local(Some(LOCAL));
    world.pass(seconds(5));
    assert_eq!(world.cpe.server(), Some(SERVER));
    world.server.is_silent = true;
    world.pass_until(seconds(60), |world| world.cpe.server() == Some(OTHER_SERVER));
    world.server.is_silent = false;
    world.pass(seconds(60));
    assert!(world.cpe.current().nat_detected);
    assert_eq!(world.cpe.server(), Some(OTHER_SERVER));
}

/// CPE-15, CPE-16: another local address is another binding, which is discovered without regard to the minimum period.
#[test]
fn another_local_address_is_discovered_at_once() {
    let mut world = World::new(enabled(300, -1), Some(seconds(60)));
    world.pass(seconds(1));
    let (sent, before) = (world.sent.len(), world.cpe.current());
    let moved = SocketAddrV4::new([192, 168, 1, 101].into(), LOCAL.port());
    world.set_local(Some(moved));
    assert_eq!((world.sent.len(), world.sent[sent].at), (sent + 1, world.now));
    assert_eq!(world.cpe.current(), report(moved, false));
    world.pass(seconds(1));
    assert_eq!(world.cpe.current().address, world.mapping());
    assert_ne!(world.cpe.current(), before);
    assert_eq!(world.changes().count(), 2);
    // The listener's own address was current for one round trip, and was not notified (CPE-41).
    assert!(world.notified().iter().all(|(_, report)| report.nat_detected));
}

/// Without a local address nothing is sent or notified, and there is no deadline.
#[test]
fn a_lost_address_ends_everything() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass(seconds(1));
    let (sent, told) = (world.sent.len(), world.notified().len());
    world.set_local(None);
    assert_eq!(world.cpe.current(), Report::default());
    world.pass(seconds(1_000));
    assert_eq!((world.sent.len(), world.notified().len()), (sent, told));
    assert_eq!(world.cpe.next_deadline(), None);
}

/// T-44: without an answer no NAT is detected, and the reported address is the listener's.
#[test]
fn a_server_that_never_answers_leaves_the_listener() {
    let mut world = World::silent(enabled(10, -1), Some(seconds(60)), Memory::default());
    world.server.is_silent = true;
    world.set_local(Some(LOCAL));
    world.pass(SILENCE);
    assert_eq!(world.cpe.current(), report(LOCAL, false));
    assert!(world.has_raised(Alarm::ServerUnreachable));
    assert_eq!(world.notified().len(), 1);
}

/// T-44: the binding of a lost server is kept for one more period, then given up and reported.
#[test]
fn a_lost_server_takes_the_binding_with_it_after_a_period() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass_until(seconds(900), |world| world.learned().is_some());
    world.server.is_silent = true;
    world.pass_until(seconds(200), |world| world.has_raised(Alarm::ServerUnreachable));
    let period = world.cpe.period().unwrap();
    world.pass(period.saturating_sub(seconds(1)));
    assert!(world.cpe.current().nat_detected);
    world.pass(seconds(2));
    assert_eq!(world.cpe.current(), report(LOCAL, false));
    assert_eq!(world.notified().last().unwrap().1, report(LOCAL, false));
    // The server returns, and the ACS is informed in both ways (CPE-27).
    let changes = world.changes().count();
    world.server.is_silent = false;
    world.pass(seconds(700));
    assert!(world.cpe.current().nat_detected);
    assert!(world.changes().count() > changes);
    assert!(world.outputs.iter().any(|(_, output)| *output == Output::Cleared(Alarm::ServerUnreachable)));
}

/// CPE-18, CPE-19, SEC-3: messages that are not the server's answer to a request of the CPE have no effect.
#[test]
fn strangers_say_nothing() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass(seconds(1));
    let before = world.cpe.current();
    for kind in [0x0001_u16, 0x0101, 0x0111, 0x0002, 0x0102, 0x0112, 0x7f7f] {
        let mut datagram = kind.to_be_bytes().to_vec();
        datagram.extend([0, 12]);
        datagram.extend([7; 16]);
        datagram.extend([0, 1, 0, 8, 0, 1, 1, 1, 6, 6, 6, 6]);
        for cut in [0, 1, 19, 20, 32] {
            world.handle(Input::Received {
                socket: tr111_core::binding::Socket::Primary,
                source: SERVER,
                datagram: &datagram[..cut],
            });
        }
    }
    world.pass(Duration::from_millis(500));
    assert_eq!(world.cpe.current(), before);
    assert!(world.cpe.counts().keys().any(|(kind, result)| (*kind, *result) == ("unreadable", "truncated")));
    assert!(world.cpe.counts().keys().any(|key| *key == ("binding_response", "other_transaction")));
}
