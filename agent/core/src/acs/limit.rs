//! Rate limit per source address.

use std::{net::Ipv4Addr, time::Duration};

use siphasher::sip::SipHasher13;

use crate::time::BootTime;

/// Places that keys share: half a MiB, however many there are.
const PLACES: usize = 1 << 16;
/// How long a key may have been silent for what it saved up to count.
const BURST: Duration = Duration::from_secs(1);
/// Requests a second of one CPE beyond the limit of its address. A CPE sends nine copies of a request within 8 s (RFC 3489 9.3),
/// and some more while it searches for its NAT's timeout (TR-111 2.2.1.2).
const CPE_RATE: u32 = 20;
/// How many times the limit of an address all known CPEs at that address together get beyond it: a carrier's NAT has thousands of
/// CPEs behind one address.
const KNOWN_FACTOR: u32 = 4;

/// How much one source may send: an address, and beyond that the CPEs that are known to be at it.
///
/// What strangers send takes nothing from known CPEs, and what one CPE sends, or somebody in its name from its address, takes
/// nothing from its neighbours. The memory does not grow with the number of addresses.
#[derive(Clone, Debug)]
pub struct SourceLimit {
    addresses: Budgets,
    cpes: Budgets,
    known: Budgets,
}

impl SourceLimit {
    /// `rate` requests a second of an address, and as many at once; 0: as many as they like. Hashed under a random `seed`.
    pub fn new(seed: u64, rate: u32) -> Self {
        let hasher = SipHasher13::new_with_keys(seed, seed.rotate_left(32));
        let budgets = Budgets { hasher, rested: vec![0; PLACES].into(), interval: 0 };
        let mut limit = Self { addresses: budgets.clone(), cpes: budgets.clone(), known: budgets };
        limit.set_rate(rate);
        limit
    }

    /// Changes the rate, in requests per second; 0 means no limit.
    pub fn set_rate(&mut self, rate: u32) {
        self.addresses.set_rate(rate);
        self.cpes.set_rate(if rate == 0 { 0 } else { CPE_RATE });
        self.known.set_rate(rate.saturating_mul(KNOWN_FACTOR));
    }

    /// Whether a request from `source` is within the limit of its address; counts it if so.
    pub fn admits(&mut self, now: BootTime, source: Ipv4Addr) -> bool {
        self.addresses.admit(now, source.octets())
    }

    /// Whether a request beyond the limit of `source` is within those of the CPE with number `cpe`, which is known to be there;
    /// counts it if so.
    pub fn admits_known(&mut self, now: BootTime, source: Ipv4Addr, cpe: u32) -> bool {
        self.cpes.admit(now, cpe.to_ne_bytes()) && self.known.admit(now, source.octets())
    }
}

/// Requests a second of each key.
///
/// Keys share places under a secret hash, so nobody can aim at another's; a place forgets as fast as it fills.
#[derive(Clone, Debug)]
struct Budgets {
    hasher: SipHasher13,
    /// When the key of a place is back to having sent nothing, in nanoseconds.
    rested: Box<[u64]>,
    /// Nanoseconds that a request takes; 0: there is no limit.
    interval: u64,
}

impl Budgets {
    fn set_rate(&mut self, rate: u32) {
        self.interval = 1_000_000_000_u64.checked_div(rate.into()).unwrap_or_default();
    }

    fn admit(&mut self, BootTime(now): BootTime, key: [u8; 4]) -> bool {
        if self.interval == 0 {
            return true;
        }
        let place = &mut self.rested[self.hasher.hash(&key) as usize % PLACES];
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

    /// SEC-7: a source is limited to its rate, and other sources are not affected.
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

    /// SEC-7: known CPEs have budgets of their own, and none of them has the budget of another one.
    #[test]
    fn a_known_cpe_gets_a_rate_of_its_own() {
        let mut limit = SourceLimit::new(7, 10);
        let (crowded, other) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(203, 0, 113, 9));
        let at = |milliseconds| BootTime(5_000_000_000) + Duration::from_millis(milliseconds);
        while limit.admits(at(0), crowded) {}
        let mut admitted =
            |from, to, source, cpe| (from..to).filter(|&time| limit.admits_known(at(time), source, cpe)).count();
        assert_eq!(admitted(0, 1_000, crowded, 1), 39, "a burst of twenty, and the rate");
        assert_eq!(admitted(1_000, 11_000, crowded, 1), 200);
        let alone = admitted(11_000, 11_001, crowded, 2);
        assert_eq!(alone, 1, "its neighbour is not touched by that");
        let together: usize = (3..1_000).map(|cpe| admitted(20_000, 20_001, crowded, cpe)).sum();
        assert_eq!(together, 40, "four times the rate for all of them");
        assert_eq!(admitted(20_000, 20_001, other, 2_000), 1);
        limit.set_rate(0);
        assert!((0..1_000).all(|_| limit.admits_known(at(20_000), crowded, 1)));
    }
}
