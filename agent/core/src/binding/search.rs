//! The search for the longest keep-alive period that the NAT binding survives (TR-111 2.2.1.2, CPE-23 to CPE-25).
//!
//! Pure arithmetic over verdicts: somebody keeps the binding quiet for [`Search::candidate`], tests it, and says what
//! came out. Discovery doubles until a period is too long and then halves the ratio between the longest period known
//! good and the shortest known bad, until they are a tenth apart. Only a period that was seen to hold is ever learned,
//! so the result is never above the true timeout. Monitoring tests that period now and then, before a refresh, and goes
//! back to discovery when it does not hold.

use std::time::Duration;

/// Where discovery begins, if the bounds let it: shorter than the timeout of any NAT that the field knows.
const FIRST: Duration = Duration::from_secs(10);
/// Refreshes from one test of monitoring to the next: a tenth more packets, and a shrunken timeout is seen in minutes.
const REFRESHES: u32 = 10;

/// What a test of the binding showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The binding was still there.
    Alive,
    /// It was not.
    Lapsed,
}

/// The two phases that TR-111 2.2.1.2 suggests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Looks for the period.
    Discovery,
    /// Has it, and tests whether it still holds.
    Monitoring,
}

/// The search, between two bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    shortest: Duration,
    longest: Duration,
    /// The first candidate.
    first: Duration,
    /// Longest period that was seen to hold.
    good: Option<Duration>,
    /// Shortest period that was seen not to.
    bad: Option<Duration>,
    /// The next step up is a small one: there is a value that held before.
    careful: bool,
    phase: Phase,
    /// Refreshes since monitoring tested last.
    refreshes: u32,
}

impl Search {
    /// A search that knows nothing, for periods from `shortest` to `longest`.
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
        }
    }

    /// A search that begins with what an earlier one learned.
    pub fn resume(shortest: Duration, longest: Duration, learned: Duration) -> Self {
        let mut search = Self::new(shortest, longest);
        search.first = learned.clamp(search.shortest, search.longest);
        search.careful = true;
        search
    }

    /// The same search between other bounds: what was learned is a first guess there.
    pub fn rebound(&mut self, shortest: Duration, longest: Duration) {
        if (shortest, longest) != (self.shortest, self.longest) {
            *self = match self.good {
                Some(good) => Self::resume(shortest, longest, good),
                None => Self::new(shortest, longest),
            };
        }
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The period that is safe as far as is known.
    pub fn period(&self) -> Duration {
        self.good.unwrap_or(self.shortest)
    }

    /// The period that discovery found; `None` while it looks, and where the binding does not even survive the shortest
    /// one.
    pub fn learned(&self) -> Option<Duration> {
        self.good.filter(|_| self.phase == Phase::Monitoring)
    }

    /// Tests let the binding lapse, and more of them may.
    pub fn disturbs(&self) -> bool {
        self.phase == Phase::Discovery && self.bad.is_some()
    }

    /// For how long the binding should be quiet before it is tested next; `None` where the next refresh needs no test.
    pub fn candidate(&self) -> Option<Duration> {
        if self.phase == Phase::Monitoring {
            return (self.refreshes >= REFRESHES).then_some(self.period());
        }
        Some(match (self.good, self.bad) {
            (None, None) => self.first,
            (Some(good), None) if self.careful => tenth_above(good).min(self.longest),
            (Some(good), None) => (good * 2).min(self.longest),
            (None, Some(bad)) if is_close(self.shortest, bad) => self.shortest,
            (good, Some(bad)) => between(good.unwrap_or(self.shortest), bad),
        })
    }

    /// The binding was refreshed without a test.
    pub fn refreshed(&mut self) {
        self.refreshes = self.refreshes.saturating_add(1);
    }

    /// Something else suggests that the binding did not hold: it is tested before the next refresh.
    pub fn doubt(&mut self) {
        self.refreshes = REFRESHES;
    }

    /// Looks whether the binding holds longer than it did, by a small step first.
    pub fn look_higher(&mut self) {
        if self.phase == Phase::Monitoring && self.good.is_some_and(|good| good < self.longest) {
            self.bad = None;
            self.careful = true;
            self.phase = Phase::Discovery;
        }
    }

    /// What the test of a binding that was quiet for `quiet` showed.
    pub fn judge(&mut self, quiet: Duration, verdict: Verdict) {
        self.refreshes = 0;
        match verdict {
            Verdict::Alive if self.phase == Phase::Monitoring && self.good.is_some() => return,
            Verdict::Alive => {
                // A second success in a row means that the value of before is no guide any more.
                self.careful &= self.good.is_none();
                self.good = Some(self.good.map_or(quiet, |good| good.max(quiet)).min(self.longest));
                self.bad = self.bad.filter(|bad| *bad > quiet);
            }
            Verdict::Lapsed => {
                self.bad = Some(self.bad.map_or(quiet, |bad| bad.min(quiet)));
                self.good = self.good.filter(|good| *good < quiet);
            }
        }
        self.phase = if self.is_settled() { Phase::Monitoring } else { Phase::Discovery };
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

/// Whether `above` is no more than a tenth above `below`: the resolution of the search.
fn is_close(below: Duration, above: Duration) -> bool {
    above <= tenth_above(below)
}

fn tenth_above(period: Duration) -> Duration {
    period * 11 / 10
}

/// The geometric mean, so that every test halves the ratio. In whole milliseconds, and never an end of the interval.
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

    /// Runs discovery against a NAT with a timeout; returns the tests that it took.
    fn discover(search: &mut Search, timeout: Duration) -> u32 {
        let mut probes = 0;
        while search.phase() == Phase::Discovery {
            let quiet = search.candidate().unwrap();
            // At exactly its timeout a binding is gone.
            search.judge(quiet, if quiet < timeout { Verdict::Alive } else { Verdict::Lapsed });
            probes += 1;
            assert!(probes < 40, "{search:?} does not end");
        }
        probes
    }

    fn assert_within_a_tenth_below(learned: Duration, timeout: Duration) {
        assert!(learned < timeout, "{learned:?} is above {timeout:?}");
        assert!(learned * 10 >= timeout * 9, "{learned:?} is more than a tenth below {timeout:?}");
    }

    /// CPE-23: the search ends within a tenth below the true value, never above, and in few tests.
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

    /// CPE-23: the same for every timeout and all bounds.
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

    /// CPE-21: no period below the minimum, even where the binding does not live that long.
    #[test]
    fn keeps_the_minimum_where_the_binding_does_not_survive_it() {
        let mut search = Search::new(seconds(30), seconds(3_600));
        assert_eq!(discover(&mut search, seconds(15)), 1);
        assert_eq!((search.learned(), search.period()), (None, seconds(30)));
        // The NAT becomes kinder.
        search.doubt();
        assert_eq!(search.candidate(), Some(seconds(30)));
        search.judge(seconds(30), Verdict::Alive);
        discover(&mut search, seconds(60));
        assert_within_a_tenth_below(search.learned().unwrap(), seconds(60));
    }

    /// CPE-25: monitoring tests what was learned, and falls back to discovery.
    #[test]
    fn monitoring_adapts_to_a_timeout_that_shrinks() {
        let mut search = Search::new(seconds(10), seconds(3_600));
        discover(&mut search, seconds(60));
        let learned = search.learned();
        assert_eq!(search.candidate(), None);
        (0..REFRESHES).for_each(|_| search.refreshed());
        assert_eq!(search.candidate(), learned);
        search.judge(learned.unwrap(), Verdict::Alive);
        assert_eq!((search.phase(), search.learned()), (Phase::Monitoring, learned));
        search.doubt();
        search.judge(learned.unwrap(), Verdict::Lapsed);
        assert_eq!(search.phase(), Phase::Discovery);
        discover(&mut search, seconds(30));
        assert_within_a_tenth_below(search.learned().unwrap(), seconds(30));
    }

    /// CPE-25: a timeout that grew is found, and looking for one that did not costs a single test.
    #[test]
    fn looking_higher_costs_one_test_where_nothing_changed() {
        let mut search = Search::new(seconds(10), seconds(3_600));
        discover(&mut search, seconds(30));
        let learned = search.learned();
        search.look_higher();
        assert_eq!(search.period(), learned.unwrap());
        assert_eq!(discover(&mut search, seconds(30)), 1);
        assert_eq!(search.learned(), learned);
        search.look_higher();
        discover(&mut search, seconds(300));
        assert_within_a_tenth_below(search.learned().unwrap(), seconds(300));
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
