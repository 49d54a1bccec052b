//! Stories that keep both cores busy take turns, also across test programs.

use std::fs::{File, OpenOptions};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

/// Held by a heavy story while it runs.
#[derive(Debug)]
pub struct Turn {
    _file: Flock<File>,
}

impl Turn {
    /// Waits for its turn.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn take() -> Result<Self> {
        let path = std::env::temp_dir().join("tr111-tests.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).context("the lock file")?;
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).context("flock")?;
        Ok(Self { _file: file })
    }
}
