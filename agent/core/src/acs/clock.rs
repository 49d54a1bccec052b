//! Unix time of an ACS, as far as its clock can be believed.
//!
//! `ts` of Connection Requests is the time, and a CPE never takes a lower one again (UCR-6). One request that is signed
//! while the clock is years ahead is refused by every CPE whose own clock is right, and so are all later ones. Therefore
//! the clock is held against the last time that was known to be good, plus what the boottime clock counted since.

use std::time::Duration;

use super::Now;
use crate::time::{BootTime, UnixTime};

/// How far the clock may be ahead of the last known good time. A CPE refuses a `ts` that is more than 24 h ahead of its
/// own clock (UCR-10); half of that leaves room for a clock of a CPE that is behind.
pub const AHEAD: Duration = Duration::from_hours(12);

/// How long a synchronised clock has to run without a step before it counts as good, whatever was known before: a server
/// that was off for days is right, and a source of time that is wrong is usually corrected sooner.
const STEADY: Duration = Duration::from_hours(24);

/// A difference of two readings that is no step: both clocks are read in whole seconds, and there are leap seconds.
const NOISE: u64 = 2;

/// 2026-01-01T00:00:00Z: no ACS of this version ran before. A clock that says so was never set.
const EARLIEST: UnixTime = UnixTime(1_767_225_600);

/// What the clock says, and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The clock; where it is too far ahead, the last known good time and what passed since.
    pub unix: UnixTime,
    /// How far the clock is ahead of that, if it is too far.
    pub ahead: Option<Duration>,
}

/// A time that was known to be good.
#[derive(Clone, Copy, Debug)]
struct Good {
    unix: UnixTime,
    at: BootTime,
}

/// Since when the clock is synchronised and makes no step.
#[derive(Clone, Copy, Debug)]
struct Steady {
    since: BootTime,
    /// Unix time of the machine's boot by this clock.
    boot: UnixTime,
}

/// Judges the clock of an ACS.
#[derive(Clone, Debug, Default)]
pub struct ReferenceClock {
    /// Nothing until the clock is set for the first time.
    good: Option<Good>,
    steady: Option<Steady>,
}

impl ReferenceClock {
    /// A clock whose time was known to be `good` before `at`; how long before is not known.
    pub fn new(good: Option<UnixTime>, at: BootTime) -> Self {
        Self { good: good.map(|unix| Good { unix, at }), steady: None }
    }

    /// Judges what the system's clocks say. A clock that is behind is taken as it is: it can make no `ts` too large.
    pub fn read(&mut self, now: Now) -> Reading {
        let Some(expected) = self.expected(now.boot) else {
            if now.unix >= EARLIEST {
                self.accept(now);
            }
            return Reading { unix: now.unix, ahead: None };
        };
        let ahead = Duration::from_secs(now.unix.0.saturating_sub(expected.0));
        if ahead <= AHEAD {
            Reading { unix: now.unix, ahead: None }
        } else {
            Reading { unix: expected, ahead: Some(ahead) }
        }
    }

    /// Notes whether the clock is synchronised, from time to time. One that was for [`STEADY`], without a step, is good.
    pub fn confirm(&mut self, now: Now, is_synchronised: bool) {
        if !is_synchronised {
            self.steady = None;
            return;
        }
        let boot = UnixTime(now.unix.0.saturating_sub(seconds(now.boot)));
        match self.steady {
            Some(steady) if steady.boot.0.abs_diff(boot.0) <= NOISE => {
                if now.boot >= steady.since + STEADY {
                    self.accept(now);
                }
            }
            _ => self.steady = Some(Steady { since: now.boot, boot }),
        }
    }

    /// Takes the clock as it is for good, by an operator's word.
    pub fn accept(&mut self, now: Now) {
        self.good = Some(Good { unix: now.unix, at: now.boot });
    }

    /// The latest time that it may be: that of the clock, or the one that was known to be good and what passed since.
    /// Nothing while the clock was never set.
    pub fn latest(&mut self, now: Now) -> Option<UnixTime> {
        let unix = self.read(now).unix;
        Some(unix.max(self.expected(now.boot)?))
    }

    fn expected(&self, now: BootTime) -> Option<UnixTime> {
        let Good { unix, at } = self.good?;
        Some(UnixTime(unix.0.saturating_add(now.since(at).unwrap_or_default().as_secs())))
    }
}

fn seconds(time: BootTime) -> u64 {
    time.since(BootTime::default()).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    /// `boot` seconds after the machine's boot, with the clock at `unix`.
    fn at(boot: u64, unix: u64) -> Now {
        Now { boot: BootTime(boot * 1_000_000_000), unix: UnixTime(unix) }
    }

    fn good() -> ReferenceClock {
        ReferenceClock::new(Some(UnixTime(START)), at(100, 0).boot)
    }

    /// T-54: a clock that is years ahead gives no `ts`, for however long and whatever else says that it is right; when it
    /// is right again, it counts again.
    #[test]
    fn a_clock_that_is_far_ahead_is_not_taken() {
        let mut clock = good();
        assert_eq!(clock.read(at(160, START + 60)), Reading { unix: UnixTime(START + 60), ahead: None });
        for days in [1, 400, 4_000] {
            let wrong = at(200, START + days * DAY);
            clock.confirm(wrong, true);
            let ahead = Some(Duration::from_secs(days * DAY - 100));
            assert_eq!(clock.read(wrong), Reading { unix: UnixTime(START + 100), ahead }, "{days} days");
        }
        assert_eq!(clock.read(at(300, START + 200)), Reading { unix: UnixTime(START + 200), ahead: None });
        assert_eq!(clock.read(at(300, u64::MAX)).unix, UnixTime(START + 200));
    }

    /// Many steps, none of which is far, do not add up: the boottime clock does not follow them.
    #[test]
    fn steps_do_not_add_up() {
        let mut clock = good();
        let step = AHEAD.as_secs() - 60;
        assert_eq!(clock.read(at(110, START + step)).ahead, None);
        assert!(clock.read(at(120, START + 2 * step)).ahead.is_some());
    }

    /// A clock that is behind is taken, so that a known good time that was none does no harm; the time that is kept stays.
    #[test]
    fn a_clock_that_is_behind_is_taken() {
        let mut clock = good();
        for unix in [0, 1_000_000_000, START - 400 * DAY] {
            assert_eq!(clock.read(at(200, unix)), Reading { unix: UnixTime(unix), ahead: None });
            assert_eq!(clock.latest(at(200, unix)), Some(UnixTime(START + 100)));
        }
        assert_eq!(clock.latest(at(200, START + 103)), Some(UnixTime(START + 103)));
    }

    /// A first start with a clock that was never set knows no good time until the clock is set.
    #[test]
    fn the_first_time_that_was_set_is_good() {
        let mut clock = ReferenceClock::new(None, at(5, 0).boot);
        assert_eq!(clock.read(at(5, 5)), Reading { unix: UnixTime(5), ahead: None });
        assert_eq!(clock.latest(at(5, 5)), None);
        assert_eq!(clock.read(at(9, START)).ahead, None);
        assert!(clock.read(at(10, START + DAY)).ahead.is_some());
    }

    /// After days off, a synchronised clock is good within a day; an operator's word makes it good at once.
    #[test]
    fn a_clock_that_stays_synchronised_is_good_after_a_day() {
        let off = 90 * DAY;
        let mut clock = good();
        for hour in 0..24 {
            let now = at(100 + hour * 3_600, START + off + hour * 3_600 + hour % 2);
            clock.confirm(now, true);
            assert!(clock.read(now).ahead.is_some(), "after {hour} h");
        }
        let now = at(100 + DAY, START + off + DAY);
        clock.confirm(now, true);
        assert_eq!(clock.read(now), Reading { unix: now.unix, ahead: None });

        for (is_synchronised, step) in [(false, 0), (true, 7)] {
            let mut clock = good();
            clock.confirm(at(100, START + off), true);
            clock.confirm(at(5_000, START + off + 4_900 + step), is_synchronised);
            clock.confirm(now, true);
            assert!(clock.read(now).ahead.is_some(), "{is_synchronised} {step}");
            clock.accept(now);
            assert_eq!(clock.read(now).ahead, None);
        }
    }
}
