//! Remembers the signed requests that were accepted, so that none is accepted twice (T-67).
//!
//! A server of RFC 3489 sends no nonce, and MESSAGE-INTEGRITY does not cover the source. An attacker who saw a signed
//! request could therefore send it again from another address and take over the binding. With this memory, the attacker
//! can only use a signed request that never reached this server.
//!
//! The last requests are remembered, independently of the clock, in two generations of [`GENERATION`] requests each.
//! When the recent generation is full, it replaces the older one. A store that keeps requests across restarts does the
//! same.

use std::{mem, net::SocketAddrV4};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use tr111_common::stun::BindingForm;

use super::Ends;
use crate::{short::Short, stun::TransactionId};

/// Requests in one generation. At least as many are remembered, over all CPEs, and at most twice as many.
pub const GENERATION: usize = 1 << 20;

/// A signed request as it is remembered: the first eight bytes of MESSAGE-INTEGRITY. Only somebody who knows the
/// password can make another request with the same fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

/// An authentic request that takes effect, and is answered, once the store remembers it.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub(super) fingerprint: Fingerprint,
    pub(super) name: Short,
    pub(super) ends: Ends,
    /// The form of CONNECTION-REQUEST-BINDING.
    pub(super) binding: Option<BindingForm>,
    pub(super) transaction_id: TransactionId,
    pub(super) datagram: Box<[u8]>,
    /// Destination of the answer.
    pub(super) to: SocketAddrV4,
}

impl Accepted {
    /// The fingerprint that has to be remembered.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Source and destination of the request.
    pub fn ends(&self) -> Ends {
        self.ends
    }
}

/// The store's reply about an [`Accepted`] request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// The request is remembered now: it takes effect.
    Now,
    /// The request was remembered before, by another server or an earlier process: it is a replay.
    Before,
    /// The request could not be remembered, because the store is unavailable: it proves nothing.
    NotAtAll,
}

/// The requests that this process remembers.
#[derive(Debug)]
pub(super) struct SignedRequests {
    hasher: SipHasher13,
    recent: HashTable<u64>,
    older: HashTable<u64>,
    generation: usize,
}

impl SignedRequests {
    /// No requests yet. `seed` has to be random, because a CPE that knows its password chooses its fingerprints.
    pub(super) fn new(seed: u64) -> Self {
        Self::with_generation(seed, GENERATION)
    }

    fn with_generation(seed: u64, generation: usize) -> Self {
        let hasher = SipHasher13::new_with_keys(seed.rotate_left(17), !seed);
        Self { hasher, recent: HashTable::new(), older: HashTable::new(), generation }
    }

    /// Whether the request was accepted before.
    pub(super) fn contains(&self, Fingerprint(number): Fingerprint) -> bool {
        let hash = self.hash(number);
        [&self.recent, &self.older].into_iter().any(|known| known.find(hash, |&known| known == number).is_some())
    }

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

    /// T-67: at least one and at most two generations of requests are remembered.
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
