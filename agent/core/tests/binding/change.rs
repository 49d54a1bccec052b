//! Tests of BINDING-CHANGE: sent at once, once, and then not repeated (CPE-31 to CPE-36).

use std::time::Duration;

use tr111_core::{binding::Alarm, stun::INTERVALS};

use crate::sim::*;

/// CPE-31, CPE-34: the first answer, and each one with another binding, is followed by a BINDING-CHANGE at once; the
/// minimum period does not apply to it.
#[test]
fn a_binding_that_is_new_or_other_is_announced_at_once() {
    let mut world = World::new(enabled(10, 20), Some(seconds(300)));
    world.pass(WAY * 2);
    assert_eq!(world.changes().count(), 1);
    assert_eq!(world.changes().next().unwrap().at, world.now);
    world.pass(seconds(60));
    assert_eq!(world.changes().count(), 1);
    world.nat.reboot();
    world.pass(seconds(30));
    assert_eq!(world.changes().count(), 2);
    let requests: Vec<_> = world.requests().collect();
    let position = requests.iter().rposition(|request| request.is_change).unwrap();
    assert_eq!(requests[position].at.since(requests[position - 1].at), Some(WAY * 2));
}

/// T-41: a CPE without NAT announces its binding, too, because the ACS has to be able to learn it.
#[test]
fn a_binding_without_translation_is_announced() {
    let mut world = World::new(enabled(10, 20), None);
    world.pass(seconds(100));
    assert_eq!(world.changes().count(), 1);
}

/// CPE-33: no other request has BINDING-CHANGE.
#[test]
fn refreshes_do_not_carry_it() {
    let mut world = World::new(enabled(10, 10), Some(seconds(300)));
    world.pass(seconds(3_600));
    assert_eq!(world.changes().count(), 1);
    assert!(world.requests().count() > 350);
}

/// CPE-35: nine identical copies are sent at the times of RFC 3489. CPE-36: no more until the binding changes again.
#[test]
fn a_change_is_repeated_nine_times_and_then_never() {
    let mut world = World::new(enabled(60, -1), Some(seconds(3_600)));
    world.pass(WAY * 2);
    world.server.is_silent = true;
    world.pass(seconds(20));
    let change = world.changes().next().unwrap().clone();
    let copies: Vec<Duration> =
        world.sent.iter().filter(|sent| sent.id == change.id).map(|sent| sent.at.since(change.at).unwrap()).collect();
    let expected = [0, 100, 300, 700, 1_500, 3_100, 4_700, 6_300, 7_900].map(Duration::from_millis);
    assert_eq!(copies, expected);
    assert_eq!(INTERVALS.iter().sum::<Duration>(), SILENCE);
    world.server.is_silent = false;
    world.pass(seconds(600));
    assert_eq!(world.changes().count(), 1);
    world.nat.reboot();
    world.pass(seconds(600));
    assert_eq!(world.changes().count(), 2);
}

/// T-42: a newer binding replaces the running announcement.
#[test]
fn the_latest_change_wins() {
    let mut world = World::new(enabled(1, 2), Some(seconds(3_600)));
    world.pass(WAY * 2);
    world.nat.reboot();
    world.server.is_silent = true;
    world.pass(Duration::from_millis(500));
    world.server.is_silent = false;
    world.pass(seconds(5));
    assert!(world.changes().count() >= 2);
    let last = world.changes().last().unwrap().id;
    let first = world.changes().next().unwrap().id;
    assert_ne!(first, last);
    assert_eq!(world.cpe.current().address, world.mapping());
}

/// SEC-4: a NAT that maps each datagram anew does not cause endless requests.
#[test]
fn a_binding_that_never_rests_raises_an_alarm_and_not_a_storm() {
    let mut world = World::new(enabled(10, 20), Some(seconds(300)));
    world.server.scatters = true;
    world.pass(seconds(100));
    assert!(world.has_raised(Alarm::Unstable));
    let per_refresh = world.changes().count() / world.requests().filter(|request| !request.is_change).count();
    assert!(per_refresh <= 4, "{per_refresh}");
    world.server.scatters = false;
    world.pass(seconds(100));
    assert!(!world.cpe.alarms().any(|alarm| alarm == Alarm::Unstable));
}
