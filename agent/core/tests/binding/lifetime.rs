//! Tests of the search for the binding's lifetime with a simulated NAT (CPE-23 to CPE-25, T-46, T-47, T-73).

use std::{net::SocketAddrV4, time::Duration};

use tr111_core::binding::{Alarm, Input, Memory, Output, Phase, Settings};

use crate::sim::*;

fn assert_learned(world: &World, timeout: u64) {
    let learned = world.learned().unwrap();
    assert!(learned <= seconds(timeout), "{learned:?} is above {timeout} s");
    assert!(learned * 10 >= seconds(timeout) * 9, "{learned:?} is more than a tenth below {timeout} s");
}

/// CPE-23, CPE-24: the result is within a tenth below the timeout, never above it, after at most eight tests including
/// that of the server; whether or not the NAT refreshes on incoming datagrams, and whether or not it changes the port.
#[test]
fn the_lifetime_is_found_in_at_most_eight_probes() {
    for timeout in [15, 30, 60] {
        for (moves, refreshed_by_answers) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut world = World::new(enabled(10, -1), Some(seconds(timeout)));
            (world.nat.moves, world.nat.refreshed_by_answers) = (moves, refreshed_by_answers);
            world.pass_until(seconds(2_000), |world| world.learned().is_some());
            assert!(world.probes().count() <= 8, "{} probes for {timeout} s", world.probes().count());
            assert_learned(&world, timeout);
            assert_eq!(world.cpe.phase(), Some(Phase::Monitoring));
        }
    }
}

/// CPE-23: Linux keeps a flow for 30 s, and for 120 s once it has carried packets in both directions for two seconds.
/// Every binding is brought to the second state before it is tested, even if the minimum period prevents a refresh
/// (CPE-26). The longer timeout is learned, and the binding then survives.
#[test]
fn the_two_timeouts_of_linux_are_learned_as_the_longer_one() {
    for minimum in [1, 10, 30, 60] {
        let mut world = World::new(enabled(minimum, -1), Some(seconds(30)));
        world.nat.stream = Some(seconds(120));
        world.pass_until(seconds(4_000), |world| world.learned().is_some());
        assert_learned(&world, 120);
        world.assert_periods(seconds(minimum.into()), None);
        world.pass(seconds(5));
        let mapping = world.mapping().unwrap();
        for _ in 0..600 {
            world.pass(seconds(1));
            assert_eq!(world.mapping(), Some(mapping), "lapsed with a minimum of {minimum} s");
        }
        // After a restart of the NAT, too.
        world.nat.reboot();
        world.pass_until(seconds(200), |world| world.mapping().is_some());
        world.pass(seconds(5));
        let mapping = world.mapping().unwrap();
        for _ in 0..600 {
            world.pass(seconds(1));
            assert_eq!(world.mapping(), Some(mapping), "lapsed with a minimum of {minimum} s after a restart");
        }
    }
}

/// STUN-5: packets that are saved by extending the timeout from 30 s to 300 s.
#[test]
fn an_extended_timeout_takes_at_least_eight_times_fewer_packets() {
    let [short, long] =
        [30, 300].map(|timeout| World::new(enabled(10, -1), Some(seconds(timeout))).keep_alive_packets(10));
    assert!(short >= 8.0 * long, "{short} and {long} packets an hour");
}

/// CPE-23: a longer lifetime needs one more test per doubling.
#[test]
fn a_long_lifetime_is_found() {
    let mut world = World::new(enabled(10, -1), Some(seconds(300)));
    world.pass_until(seconds(10_000), |world| world.learned().is_some());
    assert!(world.probes().count() <= 10);
    assert_learned(&world, 300);
}

/// CPE-23: the example of the requirement.
#[test]
fn forty_five_seconds_between_ten_and_a_hundred_and_twenty() {
    let mut world = World::new(enabled(10, 120), Some(seconds(45)));
    world.pass_until(seconds(2_000), |world| world.learned().is_some());
    let learned = world.learned().unwrap();
    assert!(seconds(30) < learned && learned <= seconds(45));
}

/// CPE-24, CPE-26: tests are sent from the secondary socket, for the current binding, and may be sooner than the
/// minimum.
#[test]
fn a_test_names_the_binding() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass(seconds(5));
    let probe = world.probes().next().unwrap();
    assert_eq!(probe.response_address, world.mapping());
    assert!(probe.at.since(world.sent[0].at).unwrap() < seconds(1));
    assert!(!probe.is_change && probe.username.is_none());
}

/// T-73: the answer to a test has the secondary socket's mapping, which is not the binding.
#[test]
fn answers_to_tests_do_not_touch_the_binding() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass(seconds(25));
    assert!(world.probes().count() >= 2);
    assert_eq!(world.cpe.current().address, Some(SocketAddrV4::new(PUBLIC, 40_001)));
    assert_eq!(world.changes().count(), 1);
}

/// T-47: the verdict is followed by a refresh at once, so an expired binding is replaced soon.
#[test]
fn a_lapsed_binding_is_renewed_right_after_the_verdict() {
    let mut world = World::new(enabled(10, -1), Some(seconds(15)));
    world.pass(seconds(1));
    world.pass_until(seconds(100), |world| world.cpe.current().address != Some(SocketAddrV4::new(PUBLIC, 40_001)));
    let probe = world.probes().last().unwrap().at;
    let renewed = world.requests().find(|request| request.at > probe).unwrap().at;
    assert!(renewed.since(probe).unwrap() <= Duration::from_millis(3_100));
    assert_eq!(world.cpe.current().address, world.mapping());
}

/// T-46: a server that ignores RESPONSE-ADDRESS is detected by the first test. The default period is used, an alarm is
/// raised, and there are no further tests.
#[test]
fn a_server_that_ignores_response_address_is_noticed() {
    let mut world = World::new(enabled(10, -1), Some(seconds(300)));
    world.server.honours_response_address = false;
    world.pass(seconds(3_600));
    assert!(world.has_raised(Alarm::ProbeUnsupported));
    assert_eq!(world.probes().count(), 1);
    assert_eq!((world.cpe.period(), world.learned()), (Some(seconds(30)), None));
    world.assert_periods(seconds(10), Some(seconds(30)));
    // The server honours it the next day.
    world.server.honours_response_address = true;
    world.pass(seconds(2 * 86_400));
    assert_learned(&world, 300);
    assert!(!world.cpe.alarms().any(|alarm| alarm == Alarm::ProbeUnsupported));
}

/// T-46: the bounds apply to the default period, too.
#[test]
fn the_default_period_keeps_to_the_bounds() {
    for (minimum, maximum, period) in [(40, -1, 40), (5, 20, 18)] {
        let mut world = World::new(enabled(minimum, maximum), Some(seconds(300)));
        world.server.honours_response_address = false;
        world.pass(seconds(600));
        assert_eq!(world.cpe.period(), Some(seconds(period)));
    }
}

/// T-46: a changed default period takes effect at once.
#[test]
fn the_default_period_changes_at_run_time() {
    let mut world = World::new(enabled(10, -1), Some(seconds(300)));
    world.server.honours_response_address = false;
    world.pass(seconds(600));
    let default_period = seconds(120);
    world.handle(Input::Settings(Settings { default_period, ..Settings::default() }));
    let sent = world.sent.len();
    world.pass(seconds(3_600));
    assert_eq!(world.cpe.period(), Some(default_period));
    assert!(world.sent.len() - sent <= 33);
    let binding = world.cpe.binding().unwrap();
    assert!(!binding.is_authenticated && binding.seen > binding.since);
}

/// T-46: a server that refuses the attribute does not honour it.
#[test]
fn a_server_that_refuses_response_address_is_noticed() {
    let mut world = World::new(enabled(10, -1), Some(seconds(300)));
    world.server.unknown = Some(0x0002);
    world.pass(seconds(3_600));
    assert!(world.has_raised(Alarm::ProbeUnsupported));
    assert_eq!(world.probes().count(), 1);
}

/// CPE-25: a timeout that is halved at run time is detected by monitoring, and learned.
#[test]
fn a_shrunken_timeout_is_learned() {
    // A refresh with another port leads to a test at once, so that case is detected sooner.
    for (moves, limit) in [(true, 500), (false, 1_500)] {
        let mut world = World::new(enabled(10, -1), Some(seconds(60)));
        world.nat.moves = moves;
        world.pass_until(seconds(2_000), |world| world.learned().is_some());
        world.nat.timeout = Some(seconds(30));
        world.pass_until(seconds(limit), |world| world.learned().is_some_and(|learned| learned <= seconds(30)));
        assert_learned(&world, 30);
    }
}

/// CPE-25: the expiry of a learned binding is detected although timers are some milliseconds late. The CPE is
/// unreachable for at most two of the true periods, while the shorter timeout is detected and searched for, and
/// afterwards never.
#[test]
fn a_lapse_of_what_was_learned_is_over_within_two_periods() {
    for (before, after, limit) in [(5, 3, 120), (20, 10, 240)] {
        for (moves, refreshed_by_answers) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut world = World::new(enabled(1, -1), Some(seconds(before)));
            world.lateness = Duration::from_millis(7);
            (world.nat.moves, world.nat.refreshed_by_answers) = (moves, refreshed_by_answers);
            world.pass_until(seconds(2_000), |world| world.learned().is_some());
            assert_learned(&world, before);
            world.pass(seconds(600));

            world.nat.timeout = Some(seconds(after));
            let longest = world.longest_gap(seconds(limit));
            assert!(longest <= seconds(after) * 2, "out of reach for {longest:?} after {before} s became {after} s");
            assert_learned(&world, after);
            assert_eq!(world.cpe.phase(), Some(Phase::Monitoring));
            assert_eq!(world.longest_gap(seconds(3_600)), Duration::ZERO);
        }
    }
}

/// CPE-25: a restart of the NAT loses the present binding. No test lets the new one expire, although the CPE cannot
/// know that the timeout is unchanged.
#[test]
fn a_restart_of_the_nat_costs_one_period() {
    let mut world = World::new(enabled(1, -1), Some(seconds(60)));
    world.pass_until(seconds(2_000), |world| world.learned().is_some());
    let learned = world.learned().unwrap();
    world.pass(seconds(600));
    world.nat.reboot();
    world.pass_until(seconds(60), |world| world.mapping().is_some());
    let lapsed = world.cpe.counts()[&("probe", "lapsed")];
    // The ACS is notified of the new port at once; CPE-41 delays only what is likely to change again.
    world.pass(seconds(1));
    assert_eq!(
        (world.cpe.current().address, world.notified().last().unwrap().1),
        (world.mapping(), world.cpe.current())
    );
    assert_eq!(world.longest_gap(seconds(3_600)), Duration::ZERO);
    assert_learned(&world, 60);
    assert!(world.learned().unwrap() * 10 >= learned * 9);
    assert_eq!(world.cpe.counts()[&("probe", "lapsed")], lapsed);
}

/// CPE-25: looking for a grown timeout costs little reachability, even if it grew much.
#[test]
fn a_grown_timeout_is_looked_for_by_small_steps() {
    let mut world = World::new(enabled(1, -1), Some(Duration::from_millis(2_400)));
    world.lateness = Duration::from_millis(7);
    world.pass_until(seconds(600), |world| world.learned().is_some());
    world.pass(seconds(600));
    world.nat.timeout = Some(seconds(60));
    let minutes = seconds(300);
    for _ in 0..(86_400 + 3_600) / minutes.as_secs() {
        let before = world.gone();
        world.pass(minutes);
        let gone = world.gone().checked_sub(before).unwrap();
        assert!(gone * 20 <= minutes, "out of reach for {gone:?} of {minutes:?}: {:?}", world.cpe);
    }
    assert_learned(&world, 60);
}

/// CPE-25: a grown timeout is learned within about a day, and looking for it costs one test per day.
#[test]
fn a_grown_timeout_is_learned() {
    let mut world = World::new(enabled(10, -1), Some(seconds(30)));
    world.pass(seconds(2 * 86_400));
    assert_learned(&world, 30);
    world.nat.timeout = Some(seconds(300));
    world.pass(seconds(86_400 + 7_200));
    assert_learned(&world, 300);
    let learned = |(_, output): &&(_, Output)| matches!(output, Output::Learned { .. });
    assert!(world.outputs.iter().filter(learned).count() >= 2);
}

/// CPE-21: a binding that does not survive the minimum period raises an alarm, and is not refreshed more often.
#[test]
fn a_timeout_below_the_minimum_is_an_alarm() {
    let mut world = World::new(enabled(30, -1), Some(seconds(15)));
    world.pass(seconds(86_400));
    assert!(world.has_raised(Alarm::MinimumTooLong));
    world.assert_periods(seconds(30), None);
    assert_eq!((world.cpe.period(), world.learned()), (Some(seconds(30)), None));
    world.nat.timeout = Some(seconds(60));
    world.pass(seconds(86_400));
    assert_learned(&world, 60);
    assert!(world.cpe.alarms().next().is_none());
}

/// A period that was learned before a restart is confirmed by one test and one for a longer period, without a search.
#[test]
fn a_restart_confirms_what_was_learned() {
    let mut world = World::new(enabled(10, -1), Some(seconds(60)));
    world.pass_until(seconds(2_000), |world| world.learned().is_some());
    let memory = world.cpe.memory();
    let mut world = World::silent(enabled(10, -1), Some(seconds(60)), memory);
    world.set_local(Some(LOCAL));
    world.pass_until(seconds(400), |world| world.cpe.phase() == Some(Phase::Monitoring));
    assert_eq!((world.probes().count(), world.learned()), (3, memory.learned));
    assert_ne!(memory, Memory::default());
}
