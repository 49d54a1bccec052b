//! Property tests: any order of failures, checked against the requirements of TR-111 at every moment.

use std::{net::SocketAddrV4, time::Duration};

use proptest::prelude::*;
use tr111_core::binding::Memory;

use crate::sim::*;

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Timeout(u64),
    Reboot,
    Silent(bool),
    Demand(Demand),
    Error(Option<u16>),
    Forged(bool),
    Honours(bool),
    Refreshed(bool),
    Traffic,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop_oneof![0u64..20, 0u64..5_000].prop_map(Step::Pass),
        2 => prop_oneof![Just(15u64), Just(30), Just(60), Just(300), 5u64..400].prop_map(Step::Timeout),
        1 => Just(Step::Reboot),
        2 => any::<bool>().prop_map(Step::Silent),
        1 => prop_oneof![Just(Demand::Nothing), Just(Demand::Changes), Just(Demand::Everything)].prop_map(Step::Demand),
        1 => prop_oneof![2 => Just(None), 1 => Just(Some(401)), 1 => (400u16..=699).prop_map(Some)].prop_map(Step::Error),
        1 => any::<bool>().prop_map(Step::Forged),
        1 => any::<bool>().prop_map(Step::Honours),
        1 => any::<bool>().prop_map(Step::Refreshed),
        1 => Just(Step::Traffic),
    ]
}

/// A timeout of the NAT, and how long it applies.
#[derive(Clone, Copy, Debug)]
struct Timeout {
    /// Position between the shortest timeout and one minute, by ratio: 0 to 1.
    place: f64,
    holds: Duration,
}

impl Timeout {
    /// The shortest one is 1.2 times the shortest period, or 2.4 s.
    fn duration(self, minimum: u32) -> Duration {
        let shortest = 1.2 * f64::from(minimum.max(2));
        Duration::from_secs_f64(shortest * (60.0 / shortest).powf(self.place))
    }
}

/// Some change during the search; the others apply long enough for the period to be learned.
fn timeout() -> impl Strategy<Value = Timeout> {
    let place = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
    let holds = prop_oneof![0u64..600, 1_200u64..3_600].prop_map(seconds);
    (place, holds).prop_map(|(place, holds)| Timeout { place, holds })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// CPE-21, CPE-22: no request is sooner than the minimum or later than the maximum, whatever server and NAT do.
    /// CPE-17, CPE-28, CPE-29, CPE-32: the simulator checks the attributes of every request.
    #[test]
    fn the_bounds_hold_in_any_trouble(
        minimum in 0u32..100,
        width in prop::option::of(0u32..200),
        credentials in any::<bool>(),
        limit in prop_oneof![Just(0u32), 1u32..100],
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let maximum = width.map_or(-1, |width| (minimum + width).cast_signed());
        let mut parameters = if credentials { provisioned(minimum, maximum) } else { enabled(minimum, maximum) };
        parameters.notification_limit = limit;
        let mut world = World::silent(parameters, Some(seconds(60)), Memory::default());
        world.set_local(Some(LOCAL));
        for step in steps {
            match step {
                Step::Pass(time) => world.pass(seconds(time)),
                Step::Timeout(timeout) => world.nat.timeout = Some(seconds(timeout)),
                Step::Reboot => world.nat.reboot(),
                Step::Silent(silent) => world.server.is_silent = silent,
                Step::Demand(demand) => world.server.demand = demand,
                Step::Error(error) => world.server.error = error,
                Step::Forged(forged) => {
                    world.server.forged = forged.then_some(SocketAddrV4::new([192, 0, 2, 66].into(), 53));
                }
                Step::Honours(honours) => world.server.honours_response_address = honours,
                Step::Refreshed(refreshed) => world.nat.refreshed_by_answers = refreshed,
                Step::Traffic => world.handle(tr111_core::binding::Input::Heard),
            }
            // The reported address has a form that DM-20 allows, and NATDetected agrees with it.
            let report = world.cpe.current();
            prop_assert_eq!(report.nat_detected, report.address != Some(LOCAL));
        }
        let floor = seconds(minimum.max(1).into());
        let ceiling = if maximum < 0 { seconds(3_600) } else { seconds(maximum.cast_unsigned().into()) };
        world.assert_periods(floor, Some(ceiling.max(floor)));
        // CPE-36: there is one BINDING-CHANGE per determination and at most one determination per other request, and a
        // few more if the answer to a change has another binding.
        let refreshes = world.requests().filter(|request| !request.is_change).count();
        prop_assert!(world.changes().count() <= refreshes * 8);
        // CPE-40.
        let told = world.notified();
        for pair in told.windows(2) {
            prop_assert!(pair[1].0.since(pair[0].0).unwrap() >= seconds(limit.into()));
        }
        // After all failures have ended, the true values are known within the longest pause.
        world.server.is_silent = false;
        world.server.error = None;
        world.server.forged = None;
        world.server.demand = Demand::Nothing;
        world.nat.timeout = Some(seconds(500));
        world.pass(seconds(3_700).max(ceiling.min(seconds(700)) * 2));
        prop_assert!(world.cpe.current().nat_detected, "{:?}", world.cpe);
    }

    /// CPE-23: each timeout between the bounds is learned within a tenth below it, and never above.
    #[test]
    fn every_timeout_is_learned(timeout in 11_000u64..900_000, refreshed in any::<bool>(), moves in any::<bool>()) {
        let timeout = Duration::from_millis(timeout);
        let mut world = World::new(enabled(10, -1), Some(timeout));
        (world.nat.refreshed_by_answers, world.nat.moves) = (refreshed, moves);
        world.pass_until(seconds(20_000), |world| world.learned().is_some());
        let learned = world.learned().unwrap();
        prop_assert!(learned <= timeout && learned * 10 >= timeout * 9, "{:?} of {:?}", learned, timeout);
    }

    /// CPE-25: whatever the previous timeout of the NAT was, the binding exists 95 % of the time in every five minutes,
    /// from ten minutes after the timeout changed. The timeout is at least 1.2 times the shortest period, or 2.4 s.
    #[test]
    fn every_timeout_that_follows_another_is_learned(
        minimum in prop_oneof![0u32..=10, 10u32..=50],
        width in prop::option::of(0u32..200),
        signs in any::<bool>(),
        moves in any::<bool>(),
        refreshed in any::<bool>(),
        lateness in 0u64..20,
        timeouts in prop::collection::vec(timeout(), 1..6),
        last in timeout(),
    ) {
        const SETTLED: Duration = Duration::from_mins(10);
        const SLICE: Duration = Duration::from_mins(5);
        let maximum = width.map_or(-1, |width| (minimum + width).cast_signed());
        let mut world = World::silent(provisioned(minimum, maximum), Some(seconds(60)), Memory::default());
        world.server.demand = if signs { Demand::Everything } else { Demand::Nothing };
        world.set_local(Some(LOCAL));
        world.lateness = Duration::from_millis(lateness);
        (world.nat.moves, world.nat.refreshed_by_answers) = (moves, refreshed);
        for timeout in timeouts.into_iter().chain([Timeout { holds: seconds(3_600), ..last }]) {
            world.nat.timeout = Some(timeout.duration(minimum));
            world.pass(timeout.holds.min(SETTLED));
            let mut left = timeout.holds.saturating_sub(SETTLED);
            while left >= SLICE {
                let before = world.gone();
                world.pass(SLICE);
                let gone = world.gone().checked_sub(before).unwrap();
                prop_assert!(gone * 20 <= SLICE, "gone for {:?} in a slice with {:?}: {:?}", gone, timeout, world.cpe);
                left -= SLICE;
            }
            world.pass(left);
        }
        world.assert_periods(seconds(minimum.max(1).into()), None);
    }
}
