//! The system's time of day, and whether anything keeps it right.

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

    /// Whether the kernel says that the time of day is synchronised (adjtimex(2)). It does once an NTP client or the like
    /// has said so, and no more after somebody set the clock, or when the client is silent for hours.
    pub fn is_synchronised() -> bool {
        // SAFETY: `timex` is plain integers, for which zeros are a value, and `modes` 0 asks without changing anything.
        let mut state = unsafe { MaybeUninit::<libc::timex>::zeroed().assume_init() };
        // SAFETY: the kernel writes into `state`, which lives for the whole call and is nobody else's.
        let result = unsafe { libc::adjtimex(&raw mut state) };
        // -1 is an error, as where a sandbox forbids the call.
        result >= 0 && result != libc::TIME_ERROR
    }
}

/// The clock of a test, by which a whole agent lives. No release has this feature.
#[cfg(feature = "test-clock")]
mod test {
    use std::{
        env, fs,
        time::{Duration, SystemTime},
    };

    use super::system;

    /// Names a file with two words: by how many seconds the clock is ahead of the system's (negative: behind it), and
    /// `synchronised` or `unsynchronised`. It is read each time, so that a test can step the clock while the agent runs.
    const VARIABLE: &str = "TR111_TEST_CLOCK";

    /// The system's time, moved as the test says.
    pub fn now() -> SystemTime {
        let now = system::now();
        let Some((ahead, _)) = setting() else { return now };
        let by = Duration::from_secs(ahead.unsigned_abs());
        let stepped = if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        stepped.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// What the test says, else what the system says.
    pub fn is_synchronised() -> bool {
        setting().map_or_else(system::is_synchronised, |(_, is_synchronised)| is_synchronised)
    }

    /// Nothing where no test set the clock.
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
