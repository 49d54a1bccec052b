//! Hash index from keyed hashes to row numbers that touches few cache lines per look-up.
//!
//! In a table of a million rows every look-up misses the CPU caches, so its cost is the number of memory locations. A
//! slot holds half of the hash beside the number: an unsuccessful look-up usually reads one cache line, a successful
//! one reads that and the entry, and growing the index reads no entries. The index uses open addressing with linear
//! probing; a removal moves the following slots, so there are no tombstones. The caller keys the hashes, so senders who
//! do not know the key cannot choose colliding values.

use std::hint::black_box;

/// A slot: upper half of the hash, then the number plus one. 0 is an empty slot, so that the kernel allocates only the
/// pages which are used.
type Slot = u64;
const EMPTY: Slot = 0;

/// Numbers by hash. Several numbers may have the same hash.
#[derive(Debug)]
pub(super) struct Index {
    /// The length is a power of two; at most three quarters are used.
    slots: Vec<Slot>,
    used: usize,
}

impl Index {
    /// An index with room for `capacity` numbers before it grows.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let slots = (capacity.saturating_mul(4) / 3 + 1).next_power_of_two();
        Self { slots: vec![EMPTY; slots], used: 0 }
    }

    /// The first number with this hash that `is` accepts.
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.all(hash).find(|number| is(*number))
    }

    /// The numbers with this hash, and sometimes one with another hash.
    pub(super) fn all(&self, hash: u64) -> impl Iterator<Item = u32> {
        let mut at = self.home(tag(hash));
        std::iter::from_fn(move || {
            let slot = self.slots[at];
            at = self.after(at);
            (slot != EMPTY).then_some(slot)
        })
        .filter(move |slot| *slot >> 32 == tag(hash))
        .map(|slot| slot as u32 - 1)
    }

    /// Loads the slot of a hash into the cache. Indices that are used one after the other would otherwise wait for
    /// memory one after the other.
    pub(super) fn warm(&self, hash: u64) {
        black_box(self.slots[self.home(tag(hash))]);
    }

    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            let grown = vec![EMPTY; self.slots.len() * 2];
            for slot in std::mem::replace(&mut self.slots, grown) {
                if slot != EMPTY {
                    self.put(slot);
                }
            }
        }
        self.used += 1;
        self.put(slot(hash, number));
    }

    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        let wanted = slot(hash, number);
        let mut hole = self.home(tag(hash));
        while self.slots[hole] != wanted {
            if self.slots[hole] == EMPTY {
                return;
            }
            hole = self.after(hole);
        }
        // The following slots move up, except to before their home slot.
        let mut at = self.after(hole);
        while self.slots[at] != EMPTY {
            let from_home = self.distance(self.home(self.slots[at] >> 32), at);
            if from_home >= self.distance(hole, at) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.slots[hole] = EMPTY;
        self.used -= 1;
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot >> 32);
        while self.slots[at] != EMPTY {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn home(&self, tag: u64) -> usize {
        tag as usize & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

fn tag(hash: u64) -> u64 {
    hash >> 32
}

fn slot(hash: u64, number: u32) -> Slot {
    tag(hash) << 32 | u64::from(number + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares with a set, with hashes that collide and that are at the end of the slots, while the index grows.
        #[test]
        fn agrees_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0u64..12, 0u32..24), 1..300)) {
            let mut index = Index::with_capacity(0);
            let mut plain = BTreeSet::new();
            for (adds, kind, number) in steps {
                // Tags that share their lower bits, adjacent and around the end.
                let hash = ((kind % 4).wrapping_sub(2) & 0xffff | (kind / 4) << 16) << 32 | kind;
                if adds && plain.insert((hash, number)) {
                    index.insert(hash, number);
                } else if !adds {
                    plain.remove(&(hash, number));
                    index.remove(hash, number);
                }
                prop_assert_eq!(index.used, plain.len());
                prop_assert!(index.slots.iter().filter(|slot| **slot != EMPTY).count() == plain.len());
                for (hash, number) in &plain {
                    prop_assert_eq!(index.find(*hash, |found| found == *number), Some(*number));
                    let numbers: BTreeSet<u32> = index.all(*hash).collect();
                    let expected = plain.iter().filter(|(other, _)| other == hash).map(|(_, number)| *number);
                    prop_assert_eq!(numbers, expected.collect());
                }
            }
        }
    }

    #[test]
    fn an_empty_index_finds_nothing_and_makes_room() {
        let mut index = Index::with_capacity(0);
        assert_eq!(index.find(7, |_| true), None);
        index.remove(7, 1);
        for number in 0..1_000 {
            index.insert(u64::MAX, number);
        }
        assert_eq!(index.all(u64::MAX).count(), 1_000);
    }
}
