//! Unix time of an ACS, limited to plausible values.
//!
//! `ts` of a Connection Request is the current time, and a CPE refuses every later request with a lower one (UCR-6). If
//! one request is signed while the clock is years ahead, then CPEs with a correct clock refuse it, and the others
//! refuse all later requests. The clock is therefore compared with the last time that is known to be correct, plus the
//! time that the boottime clock has counted since.

use std::time::Duration;

use super::Now;
use crate::time::{BootTime, UnixTime};

/// How far the clock may be ahead of the expected time. A CPE refuses a `ts` more than 24 h ahead of its own clock
/// (UCR-10); half of that tolerates a CPE whose clock is behind.
pub const AHEAD: Duration = Duration::from_hours(12);

/// How long a synchronised clock has to run without a step before it is accepted as correct, whatever the expected
/// time. After a shutdown of days the clock is right and the expected time is not; a wrong time source is usually
/// corrected within this time.
const STEADY: Duration = Duration::from_hours(24);

/// Largest difference between the clocks, in seconds, that is not a step: both are read in whole seconds, and leap
/// seconds occur.
const NOISE: u64 = 2;

/// 2026-01-01T00:00:00Z. No ACS of this version ran earlier, so a clock before this time was never set.
const EARLIEST: UnixTime = UnixTime(1_767_225_600);

/// A judged reading of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The time of the clock; if that is too far ahead, the expected time.
    pub unix: UnixTime,
    /// How far the clock is ahead of the expected time, if that is too far.
    pub ahead: Option<Duration>,
}

/// A time that is known to be correct.
#[derive(Clone, Copy, Debug)]
struct Good {
    unix: UnixTime,
    at: BootTime,
}

/// A period in which the clock is synchronised and makes no step.
#[derive(Clone, Copy, Debug)]
struct Steady {
    since: BootTime,
    /// Unix time of the machine's boot, according to this clock.
    boot: UnixTime,
}

/// Compares the clock of an ACS with the last time that is known to be correct.
#[derive(Clone, Debug, Default)]
pub struct ReferenceClock {
    /// `None` until the clock has been set once.
    good: Option<Good>,
    steady: Option<Steady>,
}

impl ReferenceClock {
    /// A reference clock with the correct time `good`, which was stored an unknown time before `at`.
    pub fn new(good: Option<UnixTime>, at: BootTime) -> Self {
        Self { good: good.map(|unix| Good { unix, at }), steady: None }
    }

    /// Judges the current time. A clock that is behind is accepted, because it cannot produce too large a `ts`.
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

    /// Tells periodically whether the clock is synchronised. After [`STEADY`] without a step it is accepted as correct.
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

    /// Accepts the current time as correct, on an operator's request.
    pub fn accept(&mut self, now: Now) {
        self.good = Some(Good { unix: now.unix, at: now.boot });
    }

    /// The latest plausible time: the later one of the clock's time and the expected time. `None` if the clock was
    /// never set.
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

    /// The clocks `boot` seconds after the machine's boot, with the Unix time `unix`.
    fn at(boot: u64, unix: u64) -> Now {
        Now { boot: BootTime(boot * 1_000_000_000), unix: UnixTime(unix) }
    }

    fn good() -> ReferenceClock {
        ReferenceClock::new(Some(UnixTime(START)), at(100, 0).boot)
    }

    /// T-54: a clock that is years ahead is never used for `ts`, however long it stays so and whether it is
    /// synchronised; once it is right again, it is used again.
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

    /// Many small steps do not add up, because the boottime clock does not follow them.
    #[test]
    fn steps_do_not_add_up() {
        let mut clock = good();
        let step = AHEAD.as_secs() - 60;
        assert_eq!(clock.read(at(110, START + step)).ahead, None);
        assert!(clock.read(at(120, START + 2 * step)).ahead.is_some());
    }

    /// A clock that is behind is accepted, so a wrong reference does no harm; the stored reference is kept.
    #[test]
    fn a_clock_that_is_behind_is_taken() {
        let mut clock = good();
        for unix in [0, 1_000_000_000, START - 400 * DAY] {
            assert_eq!(clock.read(at(200, unix)), Reading { unix: UnixTime(unix), ahead: None });
            assert_eq!(clock.latest(at(200, unix)), Some(UnixTime(START + 100)));
        }
        assert_eq!(clock.latest(at(200, START + 103)), Some(UnixTime(START + 103)));
    }

    /// At a first start with a clock that was never set, there is no correct time until the clock is set.
    #[test]
    fn the_first_time_that_was_set_is_good() {
        let mut clock = ReferenceClock::new(None, at(5, 0).boot);
        assert_eq!(clock.read(at(5, 5)), Reading { unix: UnixTime(5), ahead: None });
        assert_eq!(clock.latest(at(5, 5)), None);
        assert_eq!(clock.read(at(9, START)).ahead, None);
        assert!(clock.read(at(10, START + DAY)).ahead.is_some());
    }

    /// After days of shutdown, a synchronised clock is accepted within a day, and at once on an operator's request.
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
