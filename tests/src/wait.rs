//! Waiting for a condition, with a deadline: nothing here counts on time alone.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(15);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on, Ctrl-C and SIGTERM make every wait of this process fail, so that it unwinds and what was made is taken
/// down in order.
///
/// # Errors
/// The system refuses a thread, or the signals.
pub fn catch_interrupts() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupted, mut terminated) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupted.recv() => {}
                    _ = terminated.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::SeqCst);
            }
        });
    })?;
    Ok(())
}

/// Whether somebody wants this process to end.
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

/// Lets `time` pass, for measurements that take their time.
///
/// # Errors
/// Somebody wants this process to end.
pub fn pass(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        if is_interrupted() {
            bail!("interrupted");
        }
        thread::sleep(left.min(Duration::from_millis(100)));
    }
    Ok(())
}

/// Waits until `condition` holds.
///
/// # Errors
/// As [`wait_for`].
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, limit, || Ok(condition()?.then_some(())))
}
