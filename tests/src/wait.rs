//! Waiting for a condition, with a deadline: nothing here counts on time alone.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(15);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this process fail from now on, so that it unwinds and cleans up (Ctrl-C in the demo).
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether [`interrupt`] was called.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Waits until `condition` gives a value.
///
/// # Errors
/// `what` did not come within `limit`, or the condition failed.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if is_interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        if Instant::now() >= deadline {
            bail!("no {what} within {limit:?}");
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// As [`wait_for`].
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, limit, || Ok(condition()?.then_some(())))
}
