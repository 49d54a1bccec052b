//! Renewals of leases that wait to be written to the store.
//!
//! A transaction of the store writes tens of kilobytes, however small the change is. A renewal changes only the end of
//! a lease, but clients that renew often would wear out flash memory. Therefore renewals are collected, and rows that
//! were written within the last minute are written together once a minute.
//!
//! Waiting renewals are written when the agent stops. After a kill they are restored from the programs' records. After
//! a power failure the agent probes devices whose lease has expired according to the store.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;
use tr111_core::budget::Budgets;

use super::Clock;

/// Stands for the role's own lease. Instance numbers of rows begin at 1.
pub(super) const ROLE: u32 = 0;
/// Interval at which frequently renewed rows are written.
const PERIOD: Duration = Duration::from_mins(1);

/// Rows that are written together.
#[derive(Debug, Default)]
struct Waiting {
    rows: BTreeSet<u32>,
    due: Option<Instant>,
}

impl Waiting {
    /// Adds a row that may wait for `at_most`.
    fn add(&mut self, row: u32, at_most: Duration) {
        self.rows.insert(row);
        self.due.get_or_insert_with(|| Instant::now() + at_most);
    }

    /// Makes the rows due in `at_most` or earlier.
    fn hurry(&mut self, at_most: Duration) {
        let latest = Instant::now() + at_most;
        self.due = self.due.map(|due| due.min(latest));
    }

    fn take(&mut self) -> BTreeSet<u32> {
        std::mem::take(self).rows
    }

    /// The rows, without those in `written`, if they are due.
    fn take_due(&mut self, written: &BTreeSet<u32>) -> BTreeSet<u32> {
        if !self.rows.is_empty() {
            self.rows.retain(|row| !written.contains(row));
        }
        let is_due = self.due.is_some_and(|due| due <= Instant::now());
        if is_due || self.rows.is_empty() { self.take() } else { BTreeSet::new() }
    }
}

#[derive(Debug)]
pub(super) struct Renewals {
    interval: Duration,
    soon: Waiting,
    /// Rows that were written within the last [`PERIOD`].
    later: Waiting,
    budgets: Budgets,
}

impl Renewals {
    pub(super) fn new() -> Self {
        let budgets = Budgets::new(1, PERIOD);
        Self { interval: Duration::ZERO, soon: Waiting::default(), later: Waiting::default(), budgets }
    }

    /// Sets how long renewals may wait.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
        self.soon.hurry(interval);
        self.later.hurry(interval.max(PERIOD));
    }

    /// Records that leases of a row were renewed.
    pub(super) fn add(&mut self, row: u32) {
        if self.soon.rows.contains(&row) || self.later.rows.contains(&row) {
            return;
        }
        let now = Clock::now();
        if row != ROLE && self.budgets.ready(row.into(), now) > now {
            self.later.add(row, self.interval.max(PERIOD));
        } else {
            self.soon.add(row, self.interval);
        }
    }

    /// When [`Self::take_due`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.soon.due, self.later.due].into_iter().flatten().min()
    }

    /// Whether no renewal waits.
    pub(super) fn is_empty(&self) -> bool {
        self.soon.rows.is_empty() && self.later.rows.is_empty()
    }

    /// Takes the rows that are due. Rows in `written` are written anyway and are dropped.
    pub(super) fn take_due(&mut self, written: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut due = self.soon.take_due(written);
        due.append(&mut self.later.take_due(written));
        let now = Clock::now();
        for row in &due {
            self.budgets.spend((*row).into(), now);
        }
        due
    }

    /// Takes all waiting rows.
    pub(super) fn take_all(&mut self) -> BTreeSet<u32> {
        let mut all = self.soon.take();
        all.append(&mut self.later.take());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    async fn wait(renewals: &Renewals) {
        tokio::time::sleep_until(renewals.due().expect("something waits")).await;
    }

    #[tokio::test]
    async fn renewals_wait_for_each_other_from_the_first_one_on() {
        let mut renewals = Renewals::new();
        renewals.set_interval(INTERVAL);
        renewals.add(1);
        let due = renewals.due();
        renewals.add(2);
        renewals.add(1);
        renewals.add(3);
        assert_eq!(renewals.due(), due);
        assert_eq!(renewals.take_due(&BTreeSet::new()), [].into());
        wait(&renewals).await;
        assert_eq!(renewals.take_due(&[2].into()), [1, 3].into());
        assert_eq!((renewals.due(), renewals.is_empty()), (None, true));
    }

    #[tokio::test]
    async fn rows_that_are_renewed_again_and_again_are_written_together_once_a_minute() {
        let mut renewals = Renewals::new();
        for row in [1, 2] {
            renewals.add(row);
            assert_eq!(renewals.take_due(&BTreeSet::new()), [row].into());
        }
        renewals.add(1);
        let due = renewals.due().expect("it waits");
        assert!(due > Instant::now() + PERIOD / 2);
        renewals.add(2);
        assert_eq!(renewals.due(), Some(due), "for the same transaction");
        // Other rows do not wait for them.
        renewals.add(3);
        assert_eq!(renewals.take_due(&BTreeSet::new()), [3].into());
        assert_eq!(renewals.due(), Some(due));
        assert_eq!(renewals.take_due(&[2].into()), [].into());
        assert_eq!(renewals.take_all(), [1].into());
        assert_eq!((renewals.due(), renewals.is_empty()), (None, true));
    }

    /// The role's own lease has no budget.
    #[tokio::test]
    async fn a_role_waits_for_the_interval_alone() {
        let mut renewals = Renewals::new();
        for _ in 0..2 {
            renewals.add(ROLE);
            assert_eq!(renewals.take_due(&BTreeSet::new()), [ROLE].into());
        }
    }

    #[tokio::test]
    async fn a_shorter_interval_counts_at_once() {
        let mut renewals = Renewals::new();
        renewals.set_interval(Duration::from_hours(1));
        renewals.add(1);
        renewals.set_interval(Duration::ZERO);
        wait(&renewals).await;
        assert_eq!(renewals.take_due(&BTreeSet::new()), [1].into());
    }
}
