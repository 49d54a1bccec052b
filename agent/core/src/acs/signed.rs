//! Which signed requests were accepted, so that none of them counts twice (T-67).

use std::{collections::VecDeque, time::Duration};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::{stun::TransactionId, time::BootTime};

/// How long they are remembered.
const REMEMBERED: Duration = Duration::from_hours(24);
/// Most that are remembered, of all CPEs together; beyond, the oldest are forgotten. They take 32 MiB.
const CAPACITY: usize = 1 << 20;

/// One request of one CPE, as a number that nobody can aim at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

/// The requests of the last [`REMEMBERED`].
///
/// A classic STUN server gives no nonce, and MESSAGE-INTEGRITY does not cover the source: whoever saw a signed request
/// could send it again from elsewhere and take the binding along. What is left to him is a request that was signed and
/// never arrived here.
#[derive(Debug)]
pub(super) struct SignedRequests {
    hasher: SipHasher13,
    known: HashTable<u64>,
    order: VecDeque<(BootTime, u64)>,
    capacity: usize,
}

impl SignedRequests {
    /// None yet; hashed under a random `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self::with_capacity(seed, CAPACITY)
    }

    fn with_capacity(seed: u64, capacity: usize) -> Self {
        let hasher = SipHasher13::new_with_keys(seed.rotate_left(17), !seed);
        Self { hasher, known: HashTable::new(), order: VecDeque::new(), capacity }
    }

    /// The number of a request.
    pub(super) fn fingerprint(&self, username: &[u8], TransactionId(id): TransactionId) -> Fingerprint {
        let mut text = [0; 16 + 256];
        let length = username.len().min(256);
        text[..16].copy_from_slice(&id);
        text[16..16 + length].copy_from_slice(&username[..length]);
        Fingerprint(self.hasher.hash(&text[..16 + length]))
    }

    /// Whether it was accepted before.
    pub(super) fn contains(&mut self, now: BootTime, Fingerprint(number): Fingerprint) -> bool {
        self.forget(now, self.capacity);
        self.known.find(number, |&known| known == number).is_some()
    }

    /// It is accepted.
    pub(super) fn note(&mut self, now: BootTime, Fingerprint(number): Fingerprint) {
        self.forget(now, self.capacity - 1);
        self.known.insert_unique(number, number, |&known| known);
        self.order.push_back((now, number));
    }

    /// Drops what is too old, and the oldest beyond `keep`.
    fn forget(&mut self, now: BootTime, keep: usize) {
        while let Some(&(noted, number)) = self.order.front()
            && (self.order.len() > keep || now >= noted + REMEMBERED)
        {
            self.order.pop_front();
            if let Ok(found) = self.known.find_entry(number, |&known| known == number) {
                found.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-67: a request is remembered for 24 hours, for its own CPE, in bounded memory.
    #[test]
    fn remembers_for_a_day_and_no_more_than_there_is_room_for() {
        let mut signed = SignedRequests::with_capacity(7, 2);
        let at = |hours| BootTime::default() + Duration::from_hours(hours);
        let number = |signed: &SignedRequests, name: &[u8], id| signed.fingerprint(name, TransactionId([id; 16]));
        let first = number(&signed, b"CPE57689", 1);
        signed.note(at(0), first);
        assert!(signed.contains(at(23), first));
        let others = number(&signed, b"CPE57690", 1);
        assert!(!signed.contains(at(23), others));
        assert!(!signed.contains(at(24), first));

        for id in 2..5 {
            let request = number(&signed, b"CPE57689", id);
            signed.note(at(25), request);
        }
        let known = [2, 3, 4].map(|id| {
            let request = number(&signed, b"CPE57689", id);
            signed.contains(at(25), request)
        });
        assert_eq!((known, signed.known.len()), ([false, true, true], 2));
    }
}
