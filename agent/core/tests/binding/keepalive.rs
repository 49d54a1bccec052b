//! Tests of keep-alives between the minimum and the maximum period (CPE-20 to CPE-23).

use std::time::Duration;

use tr111_core::binding::{Input, Phase};

use crate::sim::*;

/// CPE-3, CPE-20: refreshes are sent from the listener's socket, and once the timeout is learned the binding never
/// expires.
#[test]
fn a_learned_binding_never_lapses() {
    for timeout in [15, 30, 60, 300] {
        let mut world = World::new(enabled(10, -1), Some(seconds(timeout)));
        world.pass_until(seconds(10_000), |world| world.learned().is_some());
        world.pass(seconds(1));
        let mapping = world.mapping().expect("it was just refreshed");
        for _ in 0..6_000 {
            world.pass(Duration::from_millis(100));
            assert_eq!(world.mapping(), Some(mapping), "lapsed with {timeout} s: {:?}", world.cpe);
        }
    }
}

/// CPE-23: if minimum and maximum are equal, they are the period, without tests.
#[test]
fn equal_bounds_are_the_period() {
    let mut world = World::new(enabled(20, 20), Some(seconds(60)));
    world.pass(seconds(3_600));
    assert_eq!(world.probes().count(), 0);
    assert_eq!((world.cpe.period(), world.cpe.phase()), (Some(seconds(20)), None));
    world.assert_periods(seconds(20), Some(seconds(20)));
}

/// T-40: an unanswered keep-alive is retransmitted like any request, sooner than the minimum period.
#[test]
fn a_keep_alive_is_repeated() {
    let mut world = World::new(enabled(20, 20), Some(seconds(60)));
    world.pass(seconds(5));
    world.server.is_silent = true;
    world.pass(seconds(30));
    let keep_alive = world.requests().last().expect("requests").clone();
    assert!(!keep_alive.is_change);
    let copies = world.sent.iter().filter(|sent| sent.id == keep_alive.id);
    let copies: Vec<Duration> = copies.map(|sent| sent.at.since(keep_alive.at).unwrap()).collect();
    assert_eq!(copies, [0, 100, 300, 700, 1_500, 3_100, 4_700, 6_300, 7_900].map(Duration::from_millis));
}

/// CPE-21, CPE-22: the bounds hold in every phase, for days.
#[test]
fn no_gap_is_below_the_minimum_or_above_the_maximum() {
    for (minimum, maximum, timeout) in
        [(10, 120, 60), (10, 60, 300), (20, 40, 15), (1, 5, 30), (30, 31, 60), (0, 0, 60)]
    {
        let mut world = World::new(enabled(minimum, maximum), Some(seconds(timeout)));
        world.pass(seconds(86_400));
        world.assert_periods(seconds(minimum.max(1).into()), Some(seconds(maximum.max(1).cast_unsigned().into())));
        let period = world.cpe.period().unwrap();
        assert!(period < seconds(timeout) || period == seconds(minimum.into()), "{period:?}");
    }
}

/// CPE-22: minimum and maximum hold while the server is silent, too.
#[test]
fn the_bounds_hold_while_the_server_is_silent() {
    for (minimum, maximum) in [(10, 60), (1, 2), (1, 1), (300, 300), (30, 3_600)] {
        let mut world = World::new(enabled(minimum, maximum), Some(seconds(60)));
        world.pass(seconds(5));
        world.server.is_silent = true;
        world.pass(seconds(20_000));
        world.server.is_silent = false;
        world.pass(seconds(20_000));
        world.assert_periods(seconds(minimum.into()), Some(seconds(maximum.cast_unsigned().into())));
    }
}

/// Without a maximum, a silent server is asked with back-off.
#[test]
fn a_silent_server_is_asked_with_back_off() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.server.is_silent = true;
    world.pass(seconds(86_400));
    let count = world.requests().count();
    assert!((140..180).contains(&count), "{count} requests in a day");
}

/// T-47: other traffic makes the quiet time unclear, so the binding is refreshed without a test.
#[test]
fn traffic_postpones_tests_and_not_refreshes() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.nat.refreshed_by_answers = true;
    world.pass(seconds(1));
    let probes = world.probes().count();
    for _ in 0..200 {
        world.pass(seconds(4));
        world.handle(Input::Heard);
    }
    assert_eq!(world.probes().count(), probes);
    assert!(world.requests().count() >= 75);
    assert_eq!(world.cpe.phase(), Some(Phase::Discovery));
    world.assert_periods(seconds(10), Some(seconds(11)));
    world.pass_until(seconds(1_000), |world| world.learned().is_some());
}

/// DM-27, DM-28: changed bounds take effect at once.
#[test]
fn bounds_change_at_run_time() {
    let mut world = World::new(enabled(10, -1), Some(seconds(300)));
    world.pass_until(seconds(10_000), |world| world.learned().is_some());
    world.set(enabled(10, 40));
    let sent = world.sent.len();
    world.pass(seconds(3_600));
    world.sent.drain(..sent);
    world.assert_periods(seconds(10), Some(seconds(40)));
    assert!(world.cpe.period().unwrap() > seconds(35));
    world.set(enabled(50, 50));
    let sent = world.sent.len();
    world.pass(seconds(3_600));
    world.sent.drain(..sent);
    world.assert_periods(seconds(50), Some(seconds(50)));
}
