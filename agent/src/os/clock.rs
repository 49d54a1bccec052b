//! The system's time of day, and whether it is synchronised.

#[cfg(not(feature = "test-clock"))]
pub use system::{is_synchronised, now};
#[cfg(feature = "test-clock")]
pub use test::{is_synchronised, now};

mod system {
    use std::{mem::MaybeUninit, time::SystemTime};

    /// The time of day.
    pub fn now() -> SystemTime {
        SystemTime::now()
    }

    /// Whether the kernel reports that the time of day is synchronised (adjtimex(2)). This is so after an NTP client
    /// has reported it, until the clock is set by hand or the client has been silent for hours.
    pub fn is_synchronised() -> bool {
        // SAFETY: `timex` consists of integers, for which zero is a valid value. `modes` 0 reads and changes nothing.
        let mut state = unsafe { MaybeUninit::<libc::timex>::zeroed().assume_init() };
        // SAFETY: the kernel writes to `state`, which is valid and exclusively borrowed for the whole call.
        let result = unsafe { libc::adjtimex(&raw mut state) };
        // -1 is an error, for example because a sandbox forbids the call.
        result >= 0 && result != libc::TIME_ERROR
    }
}

/// A clock that tests control. No release enables this feature.
#[cfg(feature = "test-clock")]
mod test {
    use std::{
        env, fs,
        time::{Duration, SystemTime},
    };

    use super::system;

    /// Environment variable with the name of a file. The file contains two words: the seconds by which the clock is
    /// ahead of the system clock (negative if behind), and `synchronised` or `unsynchronised`. The file is read at each
    /// use, so that a test can step the clock while the agent runs.
    const VARIABLE: &str = "TR111_TEST_CLOCK";

    /// The system time plus the difference that the test has set.
    pub fn now() -> SystemTime {
        let now = system::now();
        let Some((ahead, _)) = setting() else { return now };
        let by = Duration::from_secs(ahead.unsigned_abs());
        let stepped = if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        stepped.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The state that the test has set, else that of the system.
    pub fn is_synchronised() -> bool {
        setting().map_or_else(system::is_synchronised, |(_, is_synchronised)| is_synchronised)
    }

    /// The test's setting; `None` without a test.
    fn setting() -> Option<(i64, bool)> {
        let path = env::var_os(VARIABLE)?;
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{VARIABLE}={}: {error}", path.display()));
        let read = || {
            let (ahead, word) = text.trim().split_once(' ')?;
            let is_synchronised = match word {
                "synchronised" => true,
                "unsynchronised" => false,
                _ => return None,
            };
            Some((ahead.parse().ok()?, is_synchronised))
        };
        Some(
            read()
                .unwrap_or_else(|| panic!("{VARIABLE}={}: {text:?} is not `SECONDS (un)synchronised`", path.display())),
        )
    }
}
