//! Token buckets by key.

use std::{collections::BTreeMap, time::Duration};

use crate::time::BootTime;

/// Number of buckets that are not full, above which full ones are removed from memory.
const FORGET_ABOVE: usize = 1_024;

/// Token buckets of one size. Full buckets take no memory.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Interval at which a token is added; zero for no limit.
    interval: Duration,
    /// Time in which all tokens but one are added.
    reserve: Duration,
    /// Time at which the bucket of a key is full.
    full: BTreeMap<u64, BootTime>,
    forget_above: usize,
}

impl Budgets {
    /// Buckets of `burst` tokens, at least one, that gain one per `interval`; an interval of zero means no limit.
    pub fn new(burst: u32, interval: Duration) -> Self {
        let reserve = interval.saturating_mul(burst.saturating_sub(1));
        Self { interval, reserve, full: BTreeMap::new(), forget_above: FORGET_ABOVE }
    }

    /// Whether all buckets are full, as of their last use.
    pub fn are_full(&self) -> bool {
        self.full.is_empty()
    }

    /// Time at which the bucket of `key` has a token; `now` if it has one.
    pub fn ready(&self, key: u64, now: BootTime) -> BootTime {
        let Some(full) = self.full.get(&key) else { return now };
        full.since(BootTime::default() + self.reserve).map_or(now, |ready| now.max(BootTime::default() + ready))
    }

    /// Takes a token from the bucket of `key`. A missing token is borrowed, and delays the next one.
    pub fn spend(&mut self, key: u64, now: BootTime) {
        if self.interval.is_zero() {
            return;
        }
        if self.full.len() >= self.forget_above {
            self.full.retain(|_, full| *full > now);
            self.forget_above = FORGET_ABOVE.max(2 * self.full.len());
        }
        let full = self.full.entry(key).or_insert(now);
        *full = now.max(*full) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_is_spent_at_once_and_comes_back_one_by_one() {
        let mut budgets = Budgets::new(3, Duration::from_mins(1));
        for _ in 0..3 {
            assert_eq!(budgets.ready(1, at(10)), at(10));
            budgets.spend(1, at(10));
        }
        assert_eq!(budgets.ready(1, at(10)), at(70));
        assert_eq!(budgets.ready(2, at(10)), at(10), "another key");
        budgets.spend(1, at(10));
        assert_eq!(budgets.ready(1, at(10)), at(130), "one is owed");
        budgets.spend(1, at(130));
        assert_eq!(budgets.ready(1, at(131)), at(190));
        assert_eq!(budgets.ready(1, at(900)), at(900));
    }

    #[test]
    fn without_an_interval_there_is_no_limit() {
        let mut budgets = Budgets::new(1, Duration::ZERO);
        for _ in 0..100 {
            budgets.spend(1, at(10));
        }
        assert_eq!(budgets.ready(1, at(10)), at(10));
    }

    #[test]
    fn full_buckets_take_no_memory() {
        let mut budgets = Budgets::new(8, Duration::from_secs(1));
        for key in 0..100_000 {
            budgets.spend(key, at(key / 100));
        }
        assert!(budgets.full.len() <= 2 * FORGET_ABOVE, "{}", budgets.full.len());
    }
}
