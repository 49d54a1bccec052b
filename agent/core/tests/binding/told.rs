//! Tests of notifications to the ACS (CPE-39 to CPE-41, SEC-4).

use tr111_core::{
    binding::{Input, Memory, Output, Parameters},
    stun::Message,
};

use crate::sim::*;

/// CPE-39: the first binding is notified as soon as it is known, and once.
#[test]
fn the_first_binding_is_told_at_once() {
    let mut world = World::new(enabled(10, 20), Some(seconds(300)));
    world.pass(seconds(600));
    let told = world.notified();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0.since(world.sent[0].at), Some(WAY * 2));
    assert_eq!(told[0].1, world.cpe.current());
}

/// CPE-4, CPE-27: the ACS learns of a binding in both ways: by BINDING-CHANGE, in a request with
/// CONNECTION-REQUEST-BINDING from the listener's socket, and by the parameter.
#[test]
fn a_change_is_told_by_attribute_and_by_parameter() {
    let mut world = World::new(enabled(10, 20), Some(seconds(300)));
    for changes in 1..=3 {
        world.pass(seconds(60));
        assert_eq!((world.changes().count(), world.notified().len()), (changes, changes));
        assert_eq!(world.cpe.current().address, world.mapping());
        assert_eq!(world.notified().last().unwrap().1, world.cpe.current());
        let change = world.changes().last().unwrap();
        assert!(Message::parse(&change.datagram).unwrap().has_connection_request_binding());
        world.nat.reboot();
    }
}

/// CPE-40: changes within the limit wait for it, and the latest value is notified.
#[test]
fn the_limit_delays_and_the_latest_value_is_told() {
    let parameters = Parameters { notification_limit: 60, ..enabled(5, 5) };
    let mut world = World::new(parameters, Some(seconds(300)));
    world.pass(seconds(1));
    for _ in 0..2 {
        world.nat.reboot();
        world.pass(seconds(5));
    }
    assert_eq!(world.notified().len(), 1);
    world.pass(seconds(100));
    let told = world.notified();
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].0.since(told[0].0), Some(seconds(60)));
    assert_eq!(told[1].1, world.cpe.current());
}

/// CPE-40: the limit counts from the last notification to the ACS, not from one that the ACS had not requested.
#[test]
fn what_nobody_asked_for_starts_no_limit() {
    let parameters = Parameters { notification_limit: 60, ..enabled(5, 5) };
    let mut world = World::silent(parameters, Some(seconds(300)), Memory::default());
    world.handle(Input::Asked(false));
    world.set_local(Some(LOCAL));
    for (asked, told) in [(false, 1), (true, 2), (true, 2)] {
        world.handle(Input::Asked(asked));
        world.nat.reboot();
        world.pass(seconds(10));
        assert_eq!(world.notified().len(), told);
    }
}

/// SEC-4: a binding that flaps is notified once per limit, however often it changes.
#[test]
fn a_flapping_binding_is_told_once_in_the_limit() {
    let parameters = Parameters { notification_limit: 60, ..enabled(1, 1) };
    let mut world = World::new(parameters, Some(seconds(300)));
    for _ in 0..600 {
        world.nat.reboot();
        world.pass(seconds(1));
    }
    let told = world.notified();
    assert!((9..=11).contains(&told.len()), "{} in ten minutes", told.len());
    assert!(told.windows(2).all(|pair| pair[1].0.since(pair[0].0).unwrap() >= seconds(60)));
}

/// CPE-41: while tests let the binding expire, changes are notified after the search, or after five minutes.
#[test]
fn a_search_is_damped() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass_until(seconds(2_000), |world| world.learned().is_some());
    world.pass(seconds(1));
    let is_change = |(_, output): &&(_, Output)| matches!(output, Output::Changed(_));
    let changes = world.outputs.iter().filter(is_change).count();
    assert!(changes > world.notified().len() + 1, "{changes} changes");
    // The first binding and the final one, but none of those that expired in tests.
    assert_eq!(world.notified().len(), 2, "{:?}", world.notified());
    assert_eq!(world.notified()[1].1, world.cpe.current());
}

/// CPE-39: a binding that the ACS knows from before a restart is not notified again.
#[test]
fn the_same_binding_is_not_told_after_a_restart() {
    let mut world = World::new(enabled(10, 20), Some(seconds(300)));
    world.pass(seconds(5));
    let memory = world.cpe.memory();
    assert_eq!(memory.told, Some(world.cpe.current()));
    let mut again = World::silent(enabled(10, 20), Some(seconds(300)), memory);
    again.set_local(Some(LOCAL));
    again.pass(seconds(60));
    assert_eq!(again.cpe.current(), world.cpe.current());
    assert!(again.notified().is_empty());
    let mut fresh = World::silent(enabled(10, 20), Some(seconds(300)), Memory::default());
    fresh.set_local(Some(LOCAL));
    fresh.pass(seconds(60));
    assert_eq!(fresh.notified().len(), 1);
}
