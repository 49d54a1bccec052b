//! Which numbers a hash leads to, in one place of memory for each look-up.
//!
//! In a table of a million rows every look-up misses the caches, so what counts is how many places it touches. A slot
//! has half of the hash beside the number: a look-up that finds nothing reads one cache line as a rule, one that finds
//! something reads that and the entry itself, and an index that grows reads no entry at all. Open addressing with
//! linear probing; a removal moves what follows, so there are no tombstones. The hashes are keyed by the caller: who
//! does not know the key cannot choose what collides.

use std::hint::black_box;

/// Slots: the upper half is of the hash, the lower half is one more than the number. Zero is an empty one, so that the
/// system gives memory only to what is used.
type Slot = u64;
const EMPTY: Slot = 0;

/// Numbers by the hash of what they are found by. Several may have the same.
#[derive(Debug)]
pub(super) struct Index {
    /// A power of two of them; at most three quarters are used.
    slots: Vec<Slot>,
    used: usize,
}

impl Index {
    /// With room for `capacity` numbers before it grows.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let slots = (capacity.saturating_mul(4) / 3 + 1).next_power_of_two();
        Self { slots: vec![EMPTY; slots], used: 0 }
    }

    /// The first number of `hash` that `is` the one that is looked for.
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.all(hash).find(|number| is(*number))
    }

    /// The numbers of `hash`, and now and then one of another.
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

    /// Lets the place of a hash come from memory meanwhile: several indices that are asked for after one another would
    /// else wait for it one after another.
    pub(super) fn warm(&self, hash: u64) {
        black_box(self.slots[self.home(tag(hash))]);
    }

    /// Adds a number, which is not there yet.
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

    /// Takes a number away, if it is there.
    pub(super) fn remove(&mut self, hash: u64, number: u32) {
        let wanted = slot(hash, number);
        let mut hole = self.home(tag(hash));
        while self.slots[hole] != wanted {
            if self.slots[hole] == EMPTY {
                return;
            }
            hole = self.after(hole);
        }
        // What follows moves up, unless it would come before its home.
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
        /// Against a set, with hashes that collide and lie at the end of the slots, while it grows.
        #[test]
        fn agrees_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0u64..12, 0u32..24), 1..300)) {
            let mut index = Index::with_capacity(0);
            let mut plain = BTreeSet::new();
            for (adds, kind, number) in steps {
                // Tags that share their lower bits, next to each other and around the end.
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
