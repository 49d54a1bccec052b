//! Keep-alive times of the primary socket, between the ACS's minimum and maximum (TR-111 2.2.1.2, CPE-20 to CPE-22).

use std::time::Duration;

use super::{Parameters, Settings};
use crate::time::BootTime;

/// Time in which a test of the binding has to be answered. RFC 3489's schedule sends five copies in this time, so a
/// test does not fail because of one lost datagram.
pub(super) const PATIENCE: Duration = Duration::from_millis(3_100);

/// Longest delay between a datagram that was sent and one that arrived, for both to count as one event for the NAT. A
/// later arrival makes the quiet time unclear, because only some NATs refresh a binding on incoming datagrams.
const ECHO: Duration = Duration::from_secs(2);

/// Limits from `STUNMinimumKeepAlivePeriod` and `STUNMaximumKeepAlivePeriod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Shortest time between the beginnings of two transactions.
    pub minimum: Duration,
    /// Longest time without a datagram sent.
    pub maximum: Duration,
    /// Longest period that leaves time for a test before the refresh that `maximum` requires.
    pub longest: Duration,
    /// Whether the period has to be learned, because minimum and maximum differ (CPE-23).
    pub is_open: bool,
}

impl Bounds {
    /// The limits of the ACS's parameters and the operator's settings.
    pub fn new(parameters: &Parameters, settings: &Settings) -> Self {
        let minimum = Duration::from_secs(parameters.stun_minimum_keep_alive_period.into());
        let maximum = u64::try_from(parameters.stun_maximum_keep_alive_period).ok().map(Duration::from_secs);
        let is_open = maximum != Some(minimum);
        // T-45 defines both floors, because both parameters may be 0.
        let minimum = minimum.max(settings.shortest_period);
        let maximum = maximum.unwrap_or(settings.longest_period).max(minimum);
        let patience = PATIENCE.min(maximum / 10);
        let longest = maximum.saturating_sub(patience).max(minimum);
        Self { minimum, maximum, longest, is_open: is_open && minimum < maximum }
    }

    /// `period`, limited to these bounds.
    pub fn clamp(&self, period: Duration) -> Duration {
        let longest = if self.is_open { self.longest } else { self.maximum };
        period.clamp(self.minimum, longest)
    }
}

/// Times of datagrams on the primary socket, as far as the NAT and the bounds depend on them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Activity {
    /// Last datagram sent. Only outgoing datagrams are sure to refresh a binding.
    sent: Option<BootTime>,
    /// Last datagram sent or received; some NATs refresh a binding on incoming datagrams (T-47).
    moved: Option<BootTime>,
    /// Last datagram received that the CPE requested, and that therefore is no disturbance.
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

    /// The time `period` after the last datagram sent; at once if nothing was sent.
    pub(super) fn refresh_at(&self, period: Duration) -> BootTime {
        self.sent.map_or(BootTime::default(), |sent| sent + period)
    }

    /// Whether the last incoming datagram followed an outgoing one immediately, so that both are one event for the NAT.
    pub(super) fn is_quiet(&self) -> bool {
        self.moved.is_some_and(|moved| self.sent.max(self.expected).is_some_and(|cause| moved <= cause + ECHO))
    }

    /// Time for which the binding has been quiet.
    pub(super) fn quiet(&self, now: BootTime) -> Duration {
        self.moved.and_then(|moved| now.since(moved)).unwrap_or_default()
    }

    /// Time at which the binding will have been quiet for `period`.
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

    /// CPE-23: equal minimum and maximum fix the period, without a search.
    #[test]
    fn equal_bounds_fix_the_period() {
        let fixed = bounds(25, 25);
        assert!(!fixed.is_open);
        assert_eq!(fixed.clamp(Duration::from_mins(1)), Duration::from_secs(25));
        assert_eq!(fixed.clamp(Duration::from_secs(1)), Duration::from_secs(25));
    }

    /// CPE-22, T-45: -1 means no maximum, and 0 is raised to the internal minimum.
    #[test]
    fn no_maximum_and_a_maximum_of_zero_have_internal_bounds() {
        let open = bounds(0, -1);
        assert!(open.is_open);
        assert_eq!((open.minimum, open.maximum), (Duration::from_secs(1), Duration::from_hours(1)));
        let zero = bounds(0, 0);
        assert_eq!((zero.is_open, zero.minimum, zero.maximum), (false, Duration::from_secs(1), Duration::from_secs(1)));
        assert_eq!(bounds(7_200, -1).maximum, Duration::from_hours(2));
    }

    /// CPE-22: the longest period leaves time for a test before the maximum.
    #[test]
    fn the_longest_period_leaves_time_for_a_test() {
        for (minimum, maximum) in [(1, 2), (5, 10), (10, 120), (30, -1)] {
            let bounds = bounds(minimum, maximum);
            let patience = bounds.maximum.saturating_sub(bounds.longest);
            assert!(patience == PATIENCE || patience >= bounds.maximum / 10, "{bounds:?}");
        }
    }
}
