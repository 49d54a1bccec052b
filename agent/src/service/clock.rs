//! The only module that reads clocks. The agent uses the boottime clock; Unix time appears only at its interfaces.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use tr111_core::time::{BootTime, UnixTime};

use crate::os::clock::{is_synchronised, now as system_time};

/// The smallest step of the system time that is followed. Smaller differences come from reading two clocks in
/// succession.
const STEP: Duration = Duration::from_millis(500);

/// Converts boot time to Unix time, so that a boot time always reads as the same date.
#[derive(Debug)]
pub struct Clock {
    /// Unix time of the boot.
    boot: SystemTime,
}

impl Clock {
    /// Reads the boottime clock and the system time.
    pub fn new() -> Self {
        Self { boot: boot_of(system_time(), Self::now()) }
    }

    /// The boottime clock.
    pub fn now() -> BootTime {
        // CLOCK_BOOTTIME exists since Linux 2.6.39, and `clock_gettime` cannot fail for an existing clock.
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        BootTime::default() + time
    }

    /// Unix time, if the system clock is synchronised. A device without a battery-backed clock starts with a time in
    /// the past, which cannot be told from a correct one (T-56).
    pub fn trusted() -> Option<UnixTime> {
        is_synchronised().then(Self::unix)
    }

    /// Follows a step of the system time, for example by NTP.
    pub fn follow(&mut self) {
        self.correct(boot_of(system_time(), Self::now()));
    }

    /// Unix time of the boot, in nanoseconds.
    pub fn boot_unix(&self) -> u64 {
        let since = self.boot.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn correct(&mut self, boot: SystemTime) {
        let step = match boot.duration_since(self.boot) {
            Ok(forward) => forward,
            Err(backward) => backward.duration(),
        };
        if step >= STEP {
            self.boot = boot;
        }
    }

    /// Unix time by the system clock.
    pub fn unix() -> UnixTime {
        UnixTime(system_time().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    /// Formats a Unix time by RFC 3339, in UTC.
    pub fn rfc3339_of(UnixTime(seconds): UnixTime) -> String {
        rfc3339(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// The current time by RFC 3339, in UTC.
    pub fn rfc3339_now() -> String {
        rfc3339(system_time())
    }

    /// Formats a boot time by RFC 3339, in UTC, with a resolution of one second.
    pub fn rfc3339(&self, time: BootTime) -> String {
        let unix = self.boot.checked_add(Duration::from_nanos(time.0)).unwrap_or(SystemTime::UNIX_EPOCH);
        rfc3339(unix)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Formats a time by RFC 3339, in UTC, with a resolution of one second. Times outside 1970 to 9999 are replaced by the
/// nearest limit.
fn rfc3339(time: SystemTime) -> String {
    /// 9999-12-31T23:59:59Z, the last time in RFC 3339 format.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

fn boot_of(now: SystemTime, since_boot: BootTime) -> SystemTime {
    now.checked_sub(Duration::from_nanos(since_boot.0)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01T00:00:00Z
    const NEW_YEAR: Duration = Duration::from_hours(490_896);

    fn booted(at: Duration) -> Clock {
        Clock { boot: SystemTime::UNIX_EPOCH + at }
    }

    #[test]
    fn an_instant_is_shown_as_rfc_3339_in_utc() {
        let clock = booted(NEW_YEAR);
        assert_eq!(clock.rfc3339(BootTime(0)), "2026-01-01T00:00:00Z");
        assert_eq!(clock.rfc3339(BootTime(100_999_999_999)), "2026-01-01T00:01:40Z");
    }

    #[test]
    fn an_instant_that_never_comes_is_shown_as_a_date_that_parses() {
        let shown = booted(NEW_YEAR).rfc3339(BootTime::NEVER);
        assert!(humantime::parse_rfc3339(&shown).is_ok(), "{shown}");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_step_of_the_system_time_is_followed_and_noise_is_not() {
        let mut clock = booted(NEW_YEAR);
        let second = BootTime(1_000_000_000);
        clock.correct(SystemTime::UNIX_EPOCH + NEW_YEAR - Duration::from_millis(3));
        assert_eq!(clock.rfc3339(second), "2026-01-01T00:00:01Z");
        clock.correct(SystemTime::UNIX_EPOCH + NEW_YEAR + Duration::from_hours(1));
        assert_eq!(clock.rfc3339(second), "2026-01-01T01:00:01Z");
    }

    #[test]
    fn the_boottime_clock_goes_forward() {
        let earlier = Clock::now();
        assert!(Clock::now() >= earlier);
        assert!(earlier > BootTime::default());
    }
}
