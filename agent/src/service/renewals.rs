//! Renewals that wait to be written.
//!
//! A transaction of the store writes tens of kilobytes, however small the change is. A renewal changes nothing but the end of
//! a lease, and whoever renews too often would wear out a flash memory. So renewals wait for others, and a row that is
//! renewed again and again is written once a minute. After a kill the programs' records tell of what waited; after a loss of
//! power, the agent asks for devices whose lease has ended by the store; when the agent stops, nothing waits any longer.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;
use tr111_core::{budget::Budgets, time::BootTime};

use super::Clock;

/// Stands for what a role has besides rows, whose numbers begin at 1.
pub(super) const ROLE: u32 = 0;
/// The renewals of one row are written at most so often.
const PERIOD: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Renewals {
    interval: Duration,
    rows: BTreeSet<u32>,
    budgets: Budgets,
    due: Option<Instant>,
}

impl Renewals {
    pub(super) fn new() -> Self {
        let budgets = Budgets::new(1, PERIOD);
        Self { interval: Duration::ZERO, rows: BTreeSet::new(), budgets, due: None }
    }

    /// How long renewals wait for others.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
        let latest = Instant::now() + interval;
        self.due = self.due.map(|due| due.min(latest));
    }

    /// Leases in a row were renewed.
    pub(super) fn add(&mut self, row: u32) {
        if self.rows.insert(row) {
            self.wait_for(row, Clock::now());
        }
    }

    fn wait_for(&mut self, row: u32, now: BootTime) {
        let budget = self.budgets.ready(row.into(), now).since(now).unwrap_or_default();
        let due = Instant::now() + self.interval.max(budget);
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// When to take what is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether any waits.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows that are to be written now. Those in `written` are written anyway.
    pub(super) fn take_due(&mut self, written: &BTreeSet<u32>) -> BTreeSet<u32> {
        if !self.rows.is_empty() {
            self.rows.retain(|row| !written.contains(row));
        }
        if self.rows.is_empty() {
            self.due = None;
        }
        if self.due.is_none_or(|due| due > Instant::now()) {
            return BTreeSet::new();
        }
        let now = Clock::now();
        let is_due = |row: &u32| *row == ROLE || self.budgets.ready((*row).into(), now) <= now;
        let (due, later): (BTreeSet<u32>, BTreeSet<u32>) = self.rows.iter().partition(|row| is_due(row));
        due.iter().for_each(|row| self.budgets.spend((*row).into(), now));
        self.due = None;
        later.iter().for_each(|row| self.wait_for(*row, now));
        self.rows = later;
        due
    }

    /// All rows that wait.
    pub(super) fn take_all(&mut self) -> BTreeSet<u32> {
        self.due = None;
        std::mem::take(&mut self.rows)
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
    async fn a_row_that_is_renewed_again_and_again_is_written_once_a_minute() {
        let mut renewals = Renewals::new();
        renewals.add(1);
        assert_eq!(renewals.take_due(&BTreeSet::new()), [1].into());
        renewals.add(1);
        let due = renewals.due().expect("it waits");
        assert!(due > Instant::now() + PERIOD / 2);
        // Others do not wait for it, nor does it wait longer for others.
        renewals.add(2);
        assert_eq!(renewals.take_due(&BTreeSet::new()), [2].into());
        assert!(renewals.due().is_some_and(|again| again < due + Duration::from_secs(1)));
        assert_eq!(renewals.take_all(), [1].into());
        assert_eq!((renewals.due(), renewals.is_empty()), (None, true));
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
