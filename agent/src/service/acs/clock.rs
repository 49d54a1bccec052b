//! The time of an ACS: the system's clock, where it can be believed.

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

/// How often the clock is looked at, though nobody asks for the time.
const LOOK: Duration = Duration::from_mins(1);
/// After how many looks the time is kept, for the next start.
const KEEP: u32 = 60;

/// The clock of an ACS. All copies are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct AcsClock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    reference: ReferenceClock,
    /// How far the clock is ahead, where it is too far.
    ahead: Option<Duration>,
}

impl AcsClock {
    /// Goes by a time that an earlier process knew to be good.
    pub(super) fn restore(&self, good: Option<UnixTime>) {
        self.lock().reference = ReferenceClock::new(good, Clock::now());
    }

    /// This moment, and whether it began or ceased to be believed that the clock is right.
    fn read(&self) -> (Now, Reading, bool) {
        let now = system();
        let mut state = self.lock();
        let reading = state.reference.read(now);
        let before = std::mem::replace(&mut state.ahead, reading.ahead);
        (Now { unix: reading.unix, ..now }, reading, before.is_some() != reading.ahead.is_some())
    }

    /// This moment.
    pub(super) fn now(&self) -> Now {
        let now = system();
        Now { unix: self.lock().reference.read(now).unix, ..now }
    }

    /// The latest time that it may be; nothing while the clock was never set.
    pub(super) fn latest(&self) -> Option<UnixTime> {
        self.lock().reference.latest(system())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each reading is whole before the next.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn system() -> Now {
    Now { boot: Clock::now(), unix: Clock::unix() }
}

impl Acs {
    /// This moment. Where the clock is too far ahead, that is an alarm, and the time is the last good one and what passed
    /// since.
    pub(crate) fn now(&self) -> Now {
        let (now, reading, is_other) = self.0.clock.read();
        if is_other {
            self.tell_clock(reading);
        }
        now
    }

    /// How far the clock is ahead, where it is too far.
    pub(super) fn clock_ahead(&self) -> Option<Duration> {
        self.now();
        self.0.clock.lock().ahead
    }

    /// Looks at the clock, and keeps the time for the next start, until the agent ends.
    pub async fn watch_clock(self) {
        self.keep_time();
        let mut before = self.0.clock.latest();
        loop {
            for _ in 0..KEEP {
                sleep(LOOK).await;
                self.0.clock.lock().reference.confirm(system(), is_synchronised());
                self.now();
                let latest = self.0.clock.latest();
                // What was learned since is of the future.
                if latest < before {
                    self.heal();
                }
                before = latest;
            }
            self.keep_time();
        }
    }

    /// Takes the clock as it is for good, by an operator's word.
    pub(super) fn accept_clock(&self) {
        self.0.clock.lock().reference.accept(system());
        self.now();
        self.heal();
        self.keep_time();
    }

    /// Keeps the last time that was known to be good.
    pub(super) fn keep_time(&self) {
        if let (Some(time), Some(journal)) = (self.0.clock.latest(), self.0.journal.get()) {
            journal.keep(vec![Change::GoodTime(time)]);
        }
    }

    fn tell_clock(&self, reading: Reading) {
        let Some(ahead) = reading.ahead else { return tracing::info!("the clock is believed again") };
        let time = Clock::rfc3339_of(reading.unix);
        tracing::error!(
            ahead_s = ahead.as_secs(),
            used = time,
            "the clock is far ahead of the last known good time, so ts is not taken from it; set the clock, or, if it is \
             right, run `tr111 cpe reset-timestamp --all`"
        );
        self.0.metrics.alarms.with_label_values(&[AcsMetrics::CLOCK_AHEAD]).inc();
        let alarm = AcsMetrics::CLOCK_AHEAD.to_owned();
        self.tell(|| Happening::Alarm(Alarm { alarm, ..Alarm::default() }));
    }
}
