//! Search for the longest keep-alive period that the NAT binding survives (TR-111 2.2.1.2, CPE-23 to CPE-25).
//!
//! The search only computes: the session keeps the binding quiet for [`Search::candidate`], tests it, and passes the
//! verdict to [`Search::judge`]. Discovery doubles the period until a test fails. Then it halves the ratio between the
//! longest good and the shortest bad period, until they differ by at most a tenth. Only a period that passed a test is
//! learned, so the result does not exceed the timeout at that time.
//!
//! The timeout may shrink at any time, so monitoring tests the learned period regularly, before a refresh. If a test
//! fails at or below the longest good period, no period is known to be good any more, and discovery restarts at the
//! shortest one. It reaches the new timeout from below with few and short outages. A period that passed before later
//! tests failed is tested again, because the timeout may have shrunk in between.

use std::{ops::RangeInclusive, time::Duration};

/// First period of discovery, within the bounds: shorter than the timeout of any known NAT.
const FIRST: Duration = Duration::from_secs(10);
/// Time between two tests in monitoring, so that a shrunken timeout is detected within minutes. [`REFRESHES`] limits
/// it.
const BETWEEN_TESTS: Duration = Duration::from_mins(2);
/// Number of refreshes between two tests in monitoring. A test adds one packet to a refresh, so tests increase the
/// packets by a tenth to a third.
const REFRESHES: RangeInclusive<u32> = 3..=10;
/// Number of consecutive failed tests after which the period that was good before them is tested again.
const LAPSES: u32 = 2;

/// Result of a test of the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The binding still existed.
    Alive,
    /// The binding had expired.
    Lapsed,
}

/// The two phases that TR-111 2.2.1.2 suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Searches for the period.
    Discovery,
    /// Uses the learned period, and tests whether it still is good.
    Monitoring,
}

/// A search between two bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    shortest: Duration,
    longest: Duration,
    /// The first candidate while no good period is known.
    first: Duration,
    /// The longest period that passed a test and was not contradicted since.
    good: Option<Duration>,
    /// The shortest period that failed a test.
    bad: Option<Duration>,
    /// Whether the period is increased in small steps, so that an outage is short; used if a good period was known
    /// before.
    careful: bool,
    phase: Phase,
    /// Refreshes since the last test in monitoring.
    refreshes: u32,
    lapses: u32,
    /// Whether a test of this search failed, so that further ones may fail.
    disturbs: bool,
    /// Whether the last test was late and failed.
    is_late: bool,
}

impl Search {
    /// A new search for periods from `shortest` to `longest`.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        let longest = longest.max(shortest);
        Self {
            shortest,
            longest,
            first: FIRST.clamp(shortest, longest),
            good: None,
            bad: None,
            careful: false,
            phase: Phase::Discovery,
            refreshes: 0,
            lapses: 0,
            disturbs: false,
            is_late: false,
        }
    }

    /// A search that begins with a learned period.
    pub fn resume(shortest: Duration, longest: Duration, learned: Duration) -> Self {
        let mut search = Self::new(shortest, longest);
        search.first = learned.clamp(search.shortest, search.longest);
        search.careful = true;
        search
    }

    /// Changes the bounds. A learned period becomes the first candidate.
    pub fn rebound(&mut self, shortest: Duration, longest: Duration) {
        if (shortest, longest) != (self.shortest, self.longest) {
            *self = match self.good {
                Some(good) => Self::resume(shortest, longest, good),
                None => Self::new(shortest, longest),
            };
        }
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The longest period that is known to be good, else the shortest one.
    pub fn period(&self) -> Duration {
        self.good.unwrap_or(self.shortest)
    }

    /// The learned period; `None` during discovery, or if the binding does not survive the shortest period.
    pub fn learned(&self) -> Option<Duration> {
        self.good.filter(|_| self.phase == Phase::Monitoring)
    }

    /// Whether tests let the binding expire, and further ones may.
    pub fn disturbs(&self) -> bool {
        self.phase == Phase::Discovery && self.disturbs
    }

    /// Time for which the binding should be quiet before the next test; `None` if the next refresh needs no test.
    pub fn candidate(&self) -> Option<Duration> {
        let Some(good) = self.good else {
            return (self.phase == Phase::Discovery || self.is_due()).then_some(self.first);
        };
        if self.phase == Phase::Monitoring {
            return (self.is_due() || self.lapses > 0).then_some(good);
        }
        Some(match self.bad {
            _ if self.lapses >= LAPSES => good,
            None if self.careful => tenth_above(good).min(self.longest),
            None => (good * 2).min(self.longest),
            Some(bad) => between(good, bad).min(good * 2),
        })
    }

    fn is_due(&self) -> bool {
        let refreshes = BETWEEN_TESTS.as_millis() / self.period().as_millis().max(1);
        let refreshes = u32::try_from(refreshes).unwrap_or(u32::MAX);
        self.refreshes >= refreshes.clamp(*REFRESHES.start(), *REFRESHES.end())
    }

    /// Records a refresh without a test.
    pub fn refreshed(&mut self) {
        self.refreshes = self.refreshes.saturating_add(1);
    }

    /// Records that the binding seems to have expired without a test. The learned period is confirmed from the shortest
    /// one upwards, so that the binding survives meanwhile.
    pub fn doubt(&mut self) {
        self.refreshes = u32::MAX;
        if self.good.is_some() {
            self.start_again();
            self.phase = Phase::Discovery;
        }
    }

    /// Tests whether the binding survives longer periods than the learned one, in small steps.
    pub fn look_higher(&mut self) {
        if self.phase == Phase::Monitoring && self.good.is_some_and(|good| good < self.longest) {
            self.bad = None;
            self.careful = true;
            self.phase = Phase::Discovery;
        }
    }

    /// Handles the result of a test after the binding was quiet for `quiet` instead of `candidate`.
    pub fn judge(&mut self, candidate: Duration, quiet: Duration, verdict: Verdict) {
        // A test that is much too late and fails says nothing about the candidate. If the next test is late too, so
        // will be the refreshes, and the candidate is too long.
        let is_late = verdict == Verdict::Lapsed && !is_close(candidate, quiet);
        if is_late && !std::mem::replace(&mut self.is_late, true) {
            return;
        }
        self.is_late = false;
        self.refreshes = 0;
        match verdict {
            Verdict::Alive => self.held(candidate),
            Verdict::Lapsed => self.lapsed(candidate),
        }
        self.phase = if self.is_settled() { Phase::Monitoring } else { Phase::Discovery };
        self.disturbs &= self.phase == Phase::Discovery;
    }

    fn held(&mut self, candidate: Duration) {
        self.lapses = 0;
        self.good = Some(self.good.map_or(candidate, |good| good.max(candidate)).min(self.longest));
        self.bad = self.bad.filter(|bad| *bad > candidate);
    }

    fn lapsed(&mut self, candidate: Duration) {
        self.lapses = self.lapses.saturating_add(1);
        self.disturbs = true;
        self.bad = Some(self.bad.map_or(candidate, |bad| bad.min(candidate)));
        if self.good.is_none_or(|good| good >= candidate) {
            self.start_again();
        }
    }

    /// Restarts discovery without a good period.
    fn start_again(&mut self) {
        self.good = None;
        self.first = self.shortest;
        self.careful = false;
    }

    fn is_settled(&self) -> bool {
        match (self.good, self.bad) {
            (Some(good), _) if good >= self.longest => true,
            (Some(good), Some(bad)) => is_close(good, bad),
            (None, Some(bad)) => bad <= self.shortest,
            (_, None) => false,
        }
    }
}

/// Whether `above` exceeds `below` by at most a tenth: the resolution of the search.
fn is_close(below: Duration, above: Duration) -> bool {
    above <= tenth_above(below)
}

fn tenth_above(period: Duration) -> Duration {
    period * 11 / 10
}

/// The geometric mean, which halves the ratio. In whole milliseconds, and always inside the interval.
fn between(below: Duration, above: Duration) -> Duration {
    let (low, high) = (below.as_millis() as u64, above.as_millis() as u64);
    Duration::from_millis((low * high).isqrt().clamp(low + 1, high.saturating_sub(1).max(low + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Runs discovery against a NAT with this timeout; returns the number of tests.
    fn discover(search: &mut Search, timeout: Duration) -> u32 {
        let mut probes = 0;
        while search.phase() == Phase::Discovery {
            let candidate = search.candidate().unwrap();
            // Timers are about a millisecond late. A binding expires exactly at its timeout.
            let quiet = candidate + Duration::from_millis(1);
            search.judge(candidate, quiet, if quiet < timeout { Verdict::Alive } else { Verdict::Lapsed });
            probes += 1;
            assert!(probes < 40, "{search:?} does not end");
        }
        probes
    }

    fn assert_within_a_tenth_below(learned: Duration, timeout: Duration) {
        assert!(learned < timeout, "{learned:?} is above {timeout:?}");
        assert!(learned * 10 >= timeout * 9, "{learned:?} is more than a tenth below {timeout:?}");
    }

    /// CPE-23: the search ends within a tenth below the timeout, never above it, and with few tests.
    #[test]
    fn finds_the_usual_timeouts_within_a_tenth_below_in_at_most_seven_probes() {
        for timeout in [15, 30, 60] {
            for shortest in [1, 5, 10] {
                let mut search = Search::new(seconds(shortest), seconds(3_600));
                let probes = discover(&mut search, seconds(timeout));
                assert!(probes <= 7, "{probes} for {timeout} s from {shortest} s");
                assert_within_a_tenth_below(search.learned().unwrap(), seconds(timeout));
            }
        }
    }

    /// CPE-23: the same for all timeouts and bounds.
    #[test]
    fn never_learns_a_period_above_the_timeout_and_comes_within_a_tenth() {
        for shortest in [1, 7, 10, 30, 100] {
            for longest in [20, 45, 120, 3_600] {
                for timeout in (500..200_000).step_by(733).map(Duration::from_millis) {
                    let mut search = Search::new(seconds(shortest), seconds(longest));
                    discover(&mut search, timeout);
                    let top = search.longest;
                    match search.learned() {
                        None => assert!(timeout <= seconds(shortest)),
                        Some(learned) if timeout > top => {
                            assert!(learned <= top && learned * 11 / 10 >= top, "{learned:?} of {top:?}");
                        }
                        Some(learned) => assert_within_a_tenth_below(learned, timeout),
                    }
                    let period = search.period();
                    assert!(seconds(shortest) <= period && period <= top);
                }
            }
        }
    }

    /// CPE-21: no period is below the minimum, even if the binding does not survive it.
    #[test]
    fn keeps_the_minimum_where_the_binding_does_not_survive_it() {
        let mut search = Search::new(seconds(30), seconds(3_600));
        assert_eq!(discover(&mut search, seconds(15)), 1);
        assert_eq!((search.learned(), search.period()), (None, seconds(30)));
        // The timeout of the NAT grows.
        search.doubt();
        assert_eq!(search.candidate(), Some(seconds(30)));
        search.judge(seconds(30), seconds(30), Verdict::Alive);
        discover(&mut search, seconds(60));
        assert_within_a_tenth_below(search.learned().unwrap(), seconds(60));
    }

    /// Number of refreshes until monitoring tests the learned period.
    fn refresh(search: &mut Search) -> u32 {
        let mut refreshes = 0;
        while search.candidate().is_none() {
            search.refreshed();
            refreshes += 1;
            assert!(refreshes <= *REFRESHES.end());
        }
        refreshes
    }

    /// The learned period passes a test.
    fn confirm(search: &mut Search) {
        let learned = search.learned().unwrap();
        search.judge(learned, learned, Verdict::Alive);
    }

    /// If discovery ended with a failed test, the learned period is tested at once, because the timeout may have
    /// shrunk.
    #[test]
    fn what_was_learned_is_confirmed_where_a_lapse_came_last() {
        let mut search = Search::new(seconds(10), seconds(3_600));
        discover(&mut search, seconds(60));
        assert_eq!(search.candidate(), search.learned());
        confirm(&mut search);
        assert_eq!(search.candidate(), None);
    }

    /// CPE-25: monitoring tests the learned period every two minutes, but not before the third and not after the tenth
    /// refresh.
    #[test]
    fn monitoring_tests_what_was_learned() {
        for (timeout, expected) in [(5, 10), (20, 6), (60, 3), (1_000, 3)] {
            let mut search = Search::new(seconds(1), seconds(3_600));
            discover(&mut search, seconds(timeout));
            let learned = search.learned();
            confirm(&mut search);
            for _ in 0..2 {
                assert_eq!(refresh(&mut search), expected, "of {timeout} s");
                assert_eq!(search.candidate(), learned);
                confirm(&mut search);
                assert_eq!((search.phase(), search.learned()), (Phase::Monitoring, learned));
            }
        }
    }

    /// CPE-25: a failed test of the learned period, late by some milliseconds like every test, invalidates the period.
    /// The new timeout is found from below.
    #[test]
    fn monitoring_adapts_to_a_timeout_that_shrinks() {
        for (before, after) in [(5_000, 3_000), (20_000, 10_000), (60_000, 2_400), (60_000, 55_000)] {
            let [before, after] = [before, after].map(Duration::from_millis);
            let mut search = Search::new(seconds(1), seconds(3_600));
            discover(&mut search, before);
            let learned = search.learned().unwrap();
            assert!(learned > after);
            search.judge(learned, learned + Duration::from_millis(3), Verdict::Lapsed);
            assert_eq!((search.phase(), search.learned()), (Phase::Discovery, None));
            assert_eq!((search.period(), search.candidate()), (seconds(1), Some(seconds(1))));
            discover(&mut search, after);
            assert_within_a_tenth_below(search.learned().unwrap(), after);
        }
    }

    /// CPE-25: after a doubt, the learned period is confirmed from below; the known upper limit is kept.
    #[test]
    fn a_doubt_is_settled_from_below_without_a_lapse() {
        for timeout in [5, 20, 60] {
            let mut search = Search::new(seconds(1), seconds(3_600));
            discover(&mut search, seconds(timeout));
            search.doubt();
            while search.phase() == Phase::Discovery {
                let candidate = search.candidate().unwrap();
                assert!(candidate < seconds(timeout), "{candidate:?} of {timeout} s");
                assert!(!search.disturbs());
                search.judge(candidate, candidate, Verdict::Alive);
            }
            assert_within_a_tenth_below(search.learned().unwrap(), seconds(timeout));
        }
    }

    /// CPE-25: a timeout that shrinks during discovery is found, although a longer period passed a test.
    #[test]
    fn discovery_adapts_to_a_timeout_that_shrinks() {
        for tests in 1..8 {
            let mut search = Search::new(seconds(1), seconds(3_600));
            for _ in 0..tests {
                let Some(candidate) = search.candidate() else { break };
                let holds = candidate < seconds(60);
                search.judge(candidate, candidate, if holds { Verdict::Alive } else { Verdict::Lapsed });
            }
            discover(&mut search, seconds(3));
            if let Some(candidate) = search.candidate() {
                let holds = candidate < seconds(3);
                search.judge(candidate, candidate, if holds { Verdict::Alive } else { Verdict::Lapsed });
                discover(&mut search, seconds(3));
            }
            assert_within_a_tenth_below(search.learned().unwrap(), seconds(3));
        }
    }

    /// A late test that fails is ignored. A second one is not, because refreshes are late, too.
    #[test]
    fn a_late_test_that_lapsed_is_repeated_once() {
        let mut search = Search::new(seconds(1), seconds(3_600));
        discover(&mut search, seconds(20));
        let learned = search.learned().unwrap();
        refresh(&mut search);
        search.judge(learned, learned * 2, Verdict::Lapsed);
        assert_eq!((search.learned(), search.candidate()), (Some(learned), Some(learned)));
        search.judge(learned, learned, Verdict::Alive);
        for expected in [Some(learned), None] {
            search.judge(learned, learned * 2, Verdict::Lapsed);
            assert_eq!(search.learned(), expected);
        }
    }

    /// CPE-21: a failed test of the minimum that is late by some milliseconds shows that the minimum is too long.
    #[test]
    fn a_minimum_that_does_not_hold_ends_the_search() {
        let mut search = Search::new(seconds(30), seconds(3_600));
        search.judge(seconds(30), Duration::from_millis(30_002), Verdict::Lapsed);
        assert_eq!((search.phase(), search.learned()), (Phase::Monitoring, None));
        assert_eq!(refresh(&mut search), 4);
    }

    /// CPE-25: a grown timeout is found; if it did not grow, looking for it costs one test.
    #[test]
    fn looking_higher_costs_one_test_where_nothing_changed() {
        let mut search = Search::new(seconds(10), seconds(3_600));
        discover(&mut search, seconds(30));
        let learned = search.learned();
        confirm(&mut search);
        search.look_higher();
        assert_eq!(search.period(), learned.unwrap());
        assert_eq!(discover(&mut search, seconds(30)), 1);
        assert_eq!(search.learned(), learned);
        confirm(&mut search);
        search.look_higher();
        discover(&mut search, seconds(300));
        assert_within_a_tenth_below(search.learned().unwrap(), seconds(300));
        // By at most a tenth at a time, so that the one outage is short.
        confirm(&mut search);
        search.look_higher();
        let learned = search.period();
        assert_eq!(search.candidate(), Some(tenth_above(learned)));
        search.judge(tenth_above(learned), tenth_above(learned), Verdict::Alive);
        assert_eq!(search.candidate(), Some(tenth_above(tenth_above(learned))));
    }

    #[test]
    fn a_value_from_before_a_restart_is_confirmed_by_two_tests() {
        let mut search = Search::resume(seconds(10), seconds(3_600), seconds(56));
        assert_eq!(search.period(), seconds(10));
        assert_eq!(discover(&mut search, seconds(60)), 2);
        assert_eq!(search.learned(), Some(seconds(56)));
        let mut search = Search::resume(seconds(10), seconds(3_600), seconds(56));
        discover(&mut search, seconds(30));
        assert_within_a_tenth_below(search.learned().unwrap(), seconds(30));
    }

    #[test]
    fn other_bounds_keep_what_was_learned_as_a_guess() {
        let mut search = Search::new(seconds(10), seconds(3_600));
        discover(&mut search, seconds(60));
        search.rebound(seconds(10), seconds(3_600));
        assert_eq!(search.phase(), Phase::Monitoring);
        search.rebound(seconds(10), seconds(40));
        assert_eq!((search.phase(), search.candidate()), (Phase::Discovery, Some(seconds(40))));
    }
}
