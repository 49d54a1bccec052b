//! Which signed requests were accepted, so that none of them counts twice (T-67).
//!
//! A classic STUN server gives no nonce, and MESSAGE-INTEGRITY does not cover the source: whoever saw a signed request could
//! send it again from elsewhere and take the binding along. What is left to him is a request that was signed and never arrived
//! here.
//!
//! The last requests are remembered, whatever the clock says, in two generations of [`GENERATION`]: the recent one is filled,
//! then it becomes the older one, and the older one before it is forgotten. Whoever keeps requests over a restart does the
//! same.

use std::{mem, net::SocketAddrV4};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use tr111_common::stun::BindingForm;

use super::Ends;
use crate::{short::Short, stun::TransactionId};

/// Requests of one generation: as many are remembered at least, of all CPEs together, and twice as many at most.
pub const GENERATION: usize = 1 << 20;

/// A signed request as it is remembered: the first eight bytes of its MESSAGE-INTEGRITY. Only who knows the password can make
/// another request with the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// A signed request that counts as soon as it is remembered where bindings are kept. Its answer waits for that.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub(super) fingerprint: Fingerprint,
    /// Name of the CPE.
    pub(super) name: Short,
    pub(super) ends: Ends,
    /// How CONNECTION-REQUEST-BINDING is written.
    pub(super) binding: Option<BindingForm>,
    pub(super) transaction_id: TransactionId,
    pub(super) datagram: Box<[u8]>,
    /// Where the answer goes.
    pub(super) to: SocketAddrV4,
}

impl Accepted {
    /// What is to be remembered.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The two ends of the request.
    pub fn ends(&self) -> Ends {
        self.ends
    }
}

/// Whether an [`Accepted`] request is remembered where bindings are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// From now on: it counts.
    Now,
    /// It was before, by another server or an earlier process: it is a replay.
    Before,
    /// It is not, because the store is away: it proves nothing.
    NotAtAll,
}

/// The requests that this process knows of.
#[derive(Debug)]
pub(super) struct SignedRequests {
    hasher: SipHasher13,
    recent: HashTable<u64>,
    older: HashTable<u64>,
    generation: usize,
}

impl SignedRequests {
    /// None yet; hashed under a random `seed`, because who has a password chooses what collides.
    pub(super) fn new(seed: u64) -> Self {
        Self::with_generation(seed, GENERATION)
    }

    fn with_generation(seed: u64, generation: usize) -> Self {
        let hasher = SipHasher13::new_with_keys(seed.rotate_left(17), !seed);
        Self { hasher, recent: HashTable::new(), older: HashTable::new(), generation }
    }

    /// Whether it was accepted before.
    pub(super) fn contains(&self, Fingerprint(number): Fingerprint) -> bool {
        let hash = self.hash(number);
        [&self.recent, &self.older].into_iter().any(|known| known.find(hash, |&known| known == number).is_some())
    }

    /// It was accepted.
    pub(super) fn note(&mut self, request: Fingerprint) {
        if self.contains(request) {
            return;
        }
        let (Fingerprint(number), hasher) = (request, self.hasher);
        let hash = |number: &u64| hasher.hash(&number.to_ne_bytes());
        self.recent.insert_unique(hash(&number), number, hash);
        if self.recent.len() >= self.generation {
            self.older = mem::take(&mut self.recent);
        }
    }

    /// All of them, those of the older generation first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Fingerprint> {
        self.older.iter().chain(&self.recent).copied().map(Fingerprint)
    }

    fn hash(&self, number: u64) -> u64 {
        self.hasher.hash(&number.to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-67: the last requests are remembered, a generation of them at least, and two at most.
    #[test]
    fn remembers_the_last_requests_in_bounded_memory() {
        const GENERATION: u64 = 100;
        let mut signed = SignedRequests::with_generation(7, GENERATION as usize);
        for number in 0..1_000 {
            assert!(!signed.contains(Fingerprint(number)));
            for _ in 0..2 {
                signed.note(Fingerprint(number));
            }
            for last in number.saturating_sub(GENERATION - 1)..=number {
                assert!(signed.contains(Fingerprint(last)), "{last} of {number}");
            }
            assert!(signed.iter().count() < 2 * GENERATION as usize);
        }
        assert!(!signed.contains(Fingerprint(0)));
        let mut million = SignedRequests::new(7);
        (0..1_000_000).for_each(|number| million.note(Fingerprint(number)));
        let size = million.recent.allocation_size();
        assert!((15_000_000..=20_000_000).contains(&size), "{size}");
        assert!(include_str!("../../../../docs/acs.md").contains("| in memory of the server | 20 |"));
        assert_eq!(signed.iter().next().map(|Fingerprint(number)| number / GENERATION), Some(9));
    }
}
