//! The clock of an agent under test, which goes wrong when a story wants it to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Result, ensure};

use crate::agent::binary;

/// Names the file, in an agent that was built with the feature `test-clock` (agent/src/os/clock.rs).
const VARIABLE: &str = "TR111_TEST_CLOCK";

/// A minute, a day, a year in seconds.
pub const MINUTE: i64 = 60;
/// See [`MINUTE`].
pub const DAY: i64 = 86_400;
/// See [`MINUTE`].
pub const YEAR: i64 = 365 * DAY;

/// By how many seconds clocks are wrong in the stories: minutes, days and years, ahead and behind.
pub const STEPS: [i64; 6] = [5 * MINUTE, -5 * MINUTE, 3 * DAY, -3 * DAY, 10 * YEAR, -10 * YEAR];

/// A clock that agents go by.
#[derive(Debug)]
pub struct TestClock(PathBuf);

impl TestClock {
    /// A clock that is right and synchronised, in a file `name` of `directory`.
    ///
    /// # Errors
    /// The agent was built without such a clock.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        static HAS_IT: OnceLock<bool> = OnceLock::new();
        let file = fs::read(binary()?)?;
        let has_it = HAS_IT.get_or_init(|| file.windows(VARIABLE.len()).any(|part| part == VARIABLE.as_bytes()));
        ensure!(
            has_it,
            "{} was built without `--features test-clock`; `cargo xtask test` builds it with",
            binary()?.display()
        );
        let clock = Self(directory.join(name));
        clock.set(0, true)?;
        Ok(clock)
    }

    /// Steps it: `ahead` seconds ahead of the real time from now on.
    ///
    /// # Errors
    /// The directory is gone.
    pub fn set(&self, ahead: i64, is_synchronised: bool) -> Result<()> {
        let word = if is_synchronised { "synchronised" } else { "unsynchronised" };
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{ahead} {word}\n"))?;
        // At once, for whoever reads it.
        Ok(fs::rename(new, &self.0)?)
    }

    /// Has `command` go by it.
    pub fn give<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(VARIABLE, &self.0)
    }
}
