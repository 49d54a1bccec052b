//! When the primary socket has to send: between the ACS's minimum and its maximum (TR-111 2.2.1.2, CPE-20 to CPE-22).

use std::time::Duration;

use super::{Parameters, Settings};
use crate::time::BootTime;

/// Time for a test of the binding to be answered. RFC 3489's schedule has sent it five times by then, so a test does
/// not fail for a lost datagram.
pub(super) const PATIENCE: Duration = Duration::from_millis(3_100);

/// The latest answer to a request that still counts as one with it. Anything later, from whomever, leaves unclear how
/// long the binding was left alone, because some NATs are refreshed by what comes in and some are not.
const ECHO: Duration = Duration::from_secs(2);

/// What `STUNMinimumKeepAlivePeriod` and `STUNMaximumKeepAlivePeriod` allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// No new transaction comes sooner after another.
    pub minimum: Duration,
    /// Nothing is sent for no longer than this.
    pub maximum: Duration,
    /// The longest period that leaves time for a test before the refresh that `maximum` demands.
    pub longest: Duration,
    /// The period is to be learned: minimum and maximum differ (CPE-23).
    pub is_open: bool,
}

impl Bounds {
    /// The bounds that the ACS and the operator set.
    pub fn new(parameters: &Parameters, settings: &Settings) -> Self {
        let minimum = Duration::from_secs(parameters.stun_minimum_keep_alive_period.into());
        let maximum = u64::try_from(parameters.stun_maximum_keep_alive_period).ok().map(Duration::from_secs);
        let is_open = maximum != Some(minimum);
        // Both floors are T-45's: 0 is in the range of both parameters.
        let minimum = minimum.max(settings.shortest_period);
        let maximum = maximum.unwrap_or(settings.longest_period).max(minimum);
        let patience = PATIENCE.min(maximum / 10);
        let longest = maximum.saturating_sub(patience).max(minimum);
        Self { minimum, maximum, longest, is_open: is_open && minimum < maximum }
    }

    /// `period` between the bounds.
    pub fn clamp(&self, period: Duration) -> Duration {
        let longest = if self.is_open { self.longest } else { self.maximum };
        period.clamp(self.minimum, longest)
    }
}

/// What the primary socket sent and heard, as far as the NAT's timer and the bounds care.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Activity {
    /// When it sent last, whatever it was: only what leaves is sure to refresh a binding.
    sent: Option<BootTime>,
    /// When it sent or heard something last: some NATs are refreshed by what comes in (T-47).
    moved: Option<BootTime>,
    /// When something came that the CPE itself asked for, and that therefore disturbs nothing.
    expected: Option<BootTime>,
}

impl Activity {
    pub(super) fn sent(&mut self, now: BootTime) {
        self.sent = Some(now);
        self.moved = Some(now);
    }

    pub(super) fn heard(&mut self, now: BootTime) {
        self.moved = Some(now);
    }

    pub(super) fn expected(&mut self, now: BootTime) {
        self.expected = Some(now);
    }

    /// When `period` is over since something was sent: at once, if nothing was.
    pub(super) fn refresh_at(&self, period: Duration) -> BootTime {
        self.sent.map_or(BootTime::default(), |sent| sent + period)
    }

    /// What came in came right behind what went out, so that both are one point in time for the NAT.
    pub(super) fn is_quiet(&self) -> bool {
        self.moved.is_some_and(|moved| self.sent.max(self.expected).is_some_and(|cause| moved <= cause + ECHO))
    }

    /// For how long the binding has been quiet.
    pub(super) fn quiet(&self, now: BootTime) -> Duration {
        self.moved.and_then(|moved| now.since(moved)).unwrap_or_default()
    }

    /// When the binding will have been quiet for `period`.
    pub(super) fn quiet_at(&self, period: Duration) -> BootTime {
        self.moved.map_or(BootTime::default(), |moved| moved + period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(minimum: u32, maximum: i32) -> Bounds {
        let parameters = Parameters {
            stun_minimum_keep_alive_period: minimum,
            stun_maximum_keep_alive_period: maximum,
            ..Parameters::default()
        };
        Bounds::new(&parameters, &Settings::default())
    }

    /// CPE-23: minimum equal to maximum is a fixed period, without a search.
    #[test]
    fn equal_bounds_fix_the_period() {
        let fixed = bounds(25, 25);
        assert!(!fixed.is_open);
        assert_eq!(fixed.clamp(Duration::from_mins(1)), Duration::from_secs(25));
        assert_eq!(fixed.clamp(Duration::from_secs(1)), Duration::from_secs(25));
    }

    /// CPE-22, T-45: -1 is no maximum, and 0 is the internal floor.
    #[test]
    fn no_maximum_and_a_maximum_of_zero_have_internal_bounds() {
        let open = bounds(0, -1);
        assert!(open.is_open);
        assert_eq!((open.minimum, open.maximum), (Duration::from_secs(1), Duration::from_hours(1)));
        let zero = bounds(0, 0);
        assert_eq!((zero.is_open, zero.minimum, zero.maximum), (false, Duration::from_secs(1), Duration::from_secs(1)));
        assert_eq!(bounds(7_200, -1).maximum, Duration::from_hours(2));
    }

    /// CPE-22: there is time for a test before the maximum is over.
    #[test]
    fn the_longest_period_leaves_time_for_a_test() {
        for (minimum, maximum) in [(1, 2), (5, 10), (10, 120), (30, -1)] {
            let bounds = bounds(minimum, maximum);
            let patience = bounds.maximum.saturating_sub(bounds.longest);
            assert!(patience == PATIENCE || patience >= bounds.maximum / 10, "{bounds:?}");
        }
    }
}
