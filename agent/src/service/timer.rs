//! A timer on the boottime clock. The timers of tokio stop while the machine is suspended.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Duration,
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};
use tr111_core::time::BootTime;

#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Fires at a time of the boottime clock.
#[derive(Debug)]
pub(super) struct Timer {
    descriptor: AsyncFd<Descriptor>,
    at: Option<BootTime>,
}

impl Timer {
    /// Creates a timer that is not set. Must be called in a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let descriptor = Descriptor(TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?);
        #[expect(deprecated, reason = "its successor is unsafe for owners that are not I/O-safe; `TimerFd` is")]
        let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
        Ok(Self { descriptor, at: None })
    }

    /// Sets the timer to `at` instead of the former time. A time in the past fires at once.
    pub(super) fn set(&mut self, at: Option<BootTime>) -> io::Result<()> {
        if self.at == at {
            return Ok(());
        }
        let timer = &self.descriptor.get_ref().0;
        match at {
            // An absolute time of zero would disarm the timer.
            Some(BootTime(at)) => timer.set(
                Expiration::OneShot(TimeSpec::from(Duration::from_nanos(at.max(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            )?,
            None => timer.unset()?,
        }
        self.at = at;
        Ok(())
    }

    /// Waits until the timer fires. Cancel-safe.
    pub(super) async fn ring(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.descriptor.readable().await?;
            match guard.try_io(|descriptor| Ok(descriptor.get_ref().0.wait()?)) {
                Ok(rung) => {
                    self.at = None;
                    return rung;
                }
                // The timer was set again in the meantime.
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::service::Clock;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn it_rings_at_its_time_and_once() {
        let mut timer = Timer::new().expect("a timer");
        let at = Clock::now() + Duration::from_millis(20);
        timer.set(Some(at)).expect("set");
        timeout(PATIENCE, timer.ring()).await.expect("in time").expect("rings");
        assert!(Clock::now() >= at);
        assert!(timeout(Duration::from_millis(50), timer.ring()).await.is_err(), "not a second time");
    }

    #[tokio::test]
    async fn an_instant_that_has_passed_rings_at_once_and_none_never() {
        let mut timer = Timer::new().expect("a timer");
        timer.set(Some(BootTime(0))).expect("set");
        timeout(PATIENCE, timer.ring()).await.expect("in time").expect("rings");
        timer.set(Some(BootTime(5))).expect("set");
        timer.set(None).expect("unset");
        assert!(timeout(Duration::from_millis(50), timer.ring()).await.is_err());
    }
}
