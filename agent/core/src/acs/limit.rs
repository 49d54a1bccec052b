//! How much one source may send.

use std::{net::Ipv4Addr, time::Duration};

use siphasher::sip::SipHasher13;

use crate::time::BootTime;

/// Places that sources share: half a MiB, whoever sends.
const PLACES: usize = 1 << 16;
/// How long a source may have been silent for what it saved up to count.
const BURST: Duration = Duration::from_secs(1);

/// Requests a second of one address, in memory that does not grow with the number of addresses.
///
/// Addresses share places under a secret hash, so nobody can aim at another's; a place forgets as fast as it fills.
#[derive(Clone, Debug)]
pub struct SourceLimit {
    hasher: SipHasher13,
    /// When the source of a place is back to having sent nothing, in nanoseconds.
    rested: Box<[u64]>,
    interval: u64,
}

impl SourceLimit {
    /// `rate` requests a second, and as many at once; 0: as many as they like. Hashed under a random `seed`.
    pub fn new(seed: u64, rate: u32) -> Self {
        let hasher = SipHasher13::new_with_keys(seed, seed.rotate_left(32));
        let mut limit = Self { hasher, rested: vec![0; PLACES].into(), interval: 0 };
        limit.set_rate(rate);
        limit
    }

    /// Changes the rate.
    pub fn set_rate(&mut self, rate: u32) {
        self.interval = 1_000_000_000_u64.checked_div(rate.into()).unwrap_or_default();
    }

    /// Whether a request from `source` is within the limit; counts it if so.
    pub fn admits(&mut self, BootTime(now): BootTime, source: Ipv4Addr) -> bool {
        if self.interval == 0 {
            return true;
        }
        let place = &mut self.rested[self.hasher.hash(&source.octets()) as usize % PLACES];
        let rested = (*place).max(now) + self.interval;
        let is_within = rested <= now + BURST.as_nanos() as u64;
        if is_within {
            *place = rested;
        }
        is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEC-7: a source gets its rate and no more, and another source is not touched by that.
    #[test]
    fn a_source_gets_its_rate_and_no_more() {
        let mut limit = SourceLimit::new(7, 10);
        let (loud, quiet) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(203, 0, 113, 9));
        let at = |milliseconds| BootTime(5_000_000_000) + Duration::from_millis(milliseconds);
        let mut admitted = |from, to| (from..to).filter(|&time| limit.admits(at(time), loud)).count();
        assert_eq!(admitted(0, 1), 1);
        assert_eq!(admitted(1, 1_000), 18, "a burst of ten, and the rate");
        assert_eq!(admitted(1_000, 11_000), 100);
        assert!(limit.admits(at(11_000), quiet));
        limit.set_rate(0);
        assert!((0..1_000).all(|_| limit.admits(at(11_000), loud)));
    }
}
