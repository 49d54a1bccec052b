//! Clock types of the cores. Time is always an argument; the cores read no clock.

use std::{ops::Add, time::Duration};

/// An instant of `CLOCK_BOOTTIME`, in nanoseconds.
///
/// This clock continues during suspend and never steps, so leases and ages are correct (T-31). The kernel programs use
/// the same clock (`bpf_ktime_get_boot_ns`). Unix time is only used at the edges of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(pub u64);

impl BootTime {
    /// An instant that is never reached.
    pub const NEVER: Self = Self(u64::MAX);

    /// Time from `earlier` to this instant; `None` if `earlier` is later.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }
}

/// Saturates at [`BootTime::NEVER`].
impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// Unix time in seconds, for times that are exchanged with other machines or shown; not for durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_saturates_and_subtraction_never_goes_negative() {
        assert_eq!(BootTime(5) + Duration::from_secs(1), BootTime(1_000_000_005));
        assert_eq!(BootTime(5) + Duration::MAX, BootTime::NEVER);
        assert_eq!(BootTime(7).since(BootTime(5)), Some(Duration::from_nanos(2)));
        assert_eq!(BootTime(5).since(BootTime(7)), None);
    }
}
