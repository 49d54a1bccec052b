//! The time that an ACS uses: the system clock, as long as it is plausible.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tr111_core::{
    acs::{Change, Now, Reading, ReferenceClock},
    time::UnixTime,
};

use super::Acs;
use crate::{
    control::message::{Alarm, Happening},
    os::clock::is_synchronised,
    service::Clock,
    telemetry::AcsMetrics,
};

/// Interval between two checks of the clock.
const LOOK: Duration = Duration::from_mins(1);
/// Number of checks between two writes of the time to the store.
const KEEP: u32 = 60;

/// The clock of an ACS. Clones share one state.
#[derive(Clone, Debug, Default)]
pub(super) struct AcsClock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    reference: ReferenceClock,
    /// How far the system clock is ahead of the latest plausible time; `None` while it is plausible.
    ahead: Option<Duration>,
}

impl AcsClock {
    /// Starts from the last good time that an earlier process stored.
    pub(super) fn restore(&self, good: Option<UnixTime>) {
        self.lock().reference = ReferenceClock::new(good, Clock::now());
    }

    /// Returns the time, the reading, and whether the clock has just become implausible or plausible again.
    fn read(&self) -> (Now, Reading, bool) {
        let now = system();
        let mut state = self.lock();
        let reading = state.reference.read(now);
        let before = std::mem::replace(&mut state.ahead, reading.ahead);
        (Now { unix: reading.unix, ..now }, reading, before.is_some() != reading.ahead.is_some())
    }

    pub(super) fn now(&self) -> Now {
        let now = system();
        Now { unix: self.lock().reference.read(now).unix, ..now }
    }

    /// Returns the latest plausible time; `None` while the system clock has never been set.
    pub(super) fn latest(&self) -> Option<UnixTime> {
        self.lock().reference.latest(system())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave a half-made change: each reading is complete before the next one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn system() -> Now {
    Now { boot: Clock::now(), unix: Clock::unix() }
}

impl Acs {
    /// Returns the time. While the system clock is too far ahead, this is the last good time plus the time that has
    /// passed since, and the transition raises an alarm.
    pub(crate) fn now(&self) -> Now {
        let (now, reading, is_other) = self.0.clock.read();
        if is_other {
            self.tell_clock(reading);
        }
        now
    }

    /// Returns how far the system clock is ahead; `None` while it is plausible.
    pub(super) fn clock_ahead(&self) -> Option<Duration> {
        self.now();
        self.0.clock.lock().ahead
    }

    /// Checks the clock every minute and stores the time every hour, until the agent ends.
    pub async fn watch_clock(self) {
        self.keep_time();
        let mut before = self.0.clock.latest();
        loop {
            for _ in 0..KEEP {
                sleep(LOOK).await;
                self.0.clock.lock().reference.confirm(system(), is_synchronised());
                self.now();
                let latest = self.0.clock.latest();
                // The latest plausible time went back, so times that were stored since lie in the future.
                if latest < before {
                    self.heal();
                }
                before = latest;
            }
            self.keep_time();
        }
    }

    /// Accepts the present system time as correct, on an operator's command.
    pub(super) fn accept_clock(&self) {
        self.0.clock.lock().reference.accept(system());
        self.now();
        self.heal();
        self.keep_time();
    }

    /// Stores the last good time for the next start.
    pub(super) fn keep_time(&self) {
        if let (Some(time), Some(journal)) = (self.0.clock.latest(), self.0.journal.get()) {
            journal.keep(vec![Change::GoodTime(time)]);
        }
    }

    fn tell_clock(&self, reading: Reading) {
        let Some(ahead) = reading.ahead else { return tracing::info!("the system clock is plausible again") };
        let time = Clock::rfc3339_of(reading.unix);
        tracing::error!(
            ahead_s = ahead.as_secs(),
            used = time,
            "the system clock is far ahead of the last good time and is not used for ts; set the clock, or, if it is \
             correct, run `tr111 cpe reset-timestamp --all`"
        );
        self.0.metrics.alarms.with_label_values(&[AcsMetrics::CLOCK_AHEAD]).inc();
        let alarm = AcsMetrics::CLOCK_AHEAD.to_owned();
        self.tell(|| Happening::Alarm(Alarm { alarm, ..Alarm::default() }));
    }
}
