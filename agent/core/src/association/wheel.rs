//! A hierarchical timing wheel with one deadline per number. Setting and cancelling take O(1), expiry amortised O(1).
//!
//! There are seven levels of 64 slots. The level of a deadline is the highest six-bit group in which its tick differs
//! from the current tick, so all deadlines at one level are before those of higher levels. When the current time
//! reaches a slot of a higher level, its deadlines move down. Slots are linked lists in one array; a deadline takes 24
//! bytes.
//!
//! Most deadlines are postponed before they expire, because leases are renewed and stations are heard. A deadline that
//! is postponed or cancelled therefore stays in its slot, and moves to its new slot when the old one is reached. This
//! avoids access to the neighbours in the list, which are anywhere in memory.

use std::hint::black_box;

use crate::time::BootTime;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 2^64 ns are 2^38 ticks.
const LEVELS: usize = (64 - GRAIN_BITS).div_ceil(SLOT_BITS) as usize;
/// A tick is 2^26 ns (67 ms).
const GRAIN_BITS: u32 = 26;
/// The list heads come first in the array: those of the slots, then that of the expired deadlines.
const DUE: u32 = (LEVELS * SLOTS) as u32;
const FIRST: u32 = DUE + 1;
const NO_TICK: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    previous: u32,
    /// The node itself, if it is in no list.
    next: u32,
    /// Tick of the slot in which the node is.
    tick: u64,
    /// Tick of the deadline, at or after `tick`; [`NO_TICK`] for never.
    wanted: u64,
}

/// Deadlines of numbers.
#[derive(Debug)]
pub(super) struct Wheel {
    nodes: Vec<Node>,
    occupied: [u64; LEVELS],
    tick: u64,
}

impl Wheel {
    /// A wheel with capacity for `capacity` numbers; the kernel allocates only the pages that are used.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let nodes = Vec::with_capacity(FIRST as usize + capacity);
        let mut wheel = Self { nodes, occupied: [0; LEVELS], tick: 0 };
        wheel.grow(FIRST);
        wheel
    }

    /// Sets or replaces the deadline of `id`. [`BootTime::NEVER`] cancels it.
    pub(super) fn schedule(&mut self, id: u32, deadline: BootTime) {
        let node = FIRST + id;
        self.grow(node + 1);
        let entry = &mut self.nodes[node as usize];
        // Rounded up, so that no deadline expires early.
        entry.wanted = if deadline == BootTime::NEVER { NO_TICK } else { deadline.0.div_ceil(1 << GRAIN_BITS) };
        if entry.next == node || entry.wanted < entry.tick {
            self.relink(node);
        }
    }

    /// See [`super::index::Index::warm`].
    pub(super) fn warm(&self, id: u32) {
        black_box(self.nodes.get((FIRST + id) as usize).map(|node| node.tick));
    }

    pub(super) fn cancel(&mut self, id: u32) {
        self.schedule(id, BootTime::NEVER);
    }

    /// Returns a number whose deadline is at or before `now`, and cancels the deadline.
    pub(super) fn poll(&mut self, now: BootTime) -> Option<u32> {
        let target = now.0 >> GRAIN_BITS;
        while let Some((level, slot, start)) = self.first_slot() {
            if start > target {
                break;
            }
            self.tick = start;
            self.empty(level, slot);
        }
        self.tick = self.tick.max(target);
        loop {
            let node = self.nodes[DUE as usize].next;
            if node == DUE {
                return None;
            }
            let entry = &mut self.nodes[node as usize];
            if entry.wanted <= self.tick {
                entry.wanted = NO_TICK;
                self.unlink(node);
                return Some(node - FIRST);
            }
            self.relink(node);
        }
    }

    /// Time of the next call of [`Wheel::poll`]. It is not after the first deadline, but may be before it, if deadlines
    /// have to move down a level or were postponed.
    pub(super) fn next(&self) -> Option<BootTime> {
        if self.nodes[DUE as usize].next != DUE {
            return Some(BootTime(self.tick << GRAIN_BITS));
        }
        let (_, _, start) = self.first_slot()?;
        Some(BootTime(start.saturating_mul(1 << GRAIN_BITS)))
    }

    /// The earliest slot in use, and the tick at which it starts.
    fn first_slot(&self) -> Option<(usize, u32, u64)> {
        let (level, slots) = (0..).zip(&self.occupied).find(|(_, slots)| **slots != 0)?;
        let slot = slots.trailing_zeros();
        let shift = level * SLOT_BITS;
        let above = self.tick >> shift >> SLOT_BITS << SLOT_BITS;
        Some((level as usize, slot, (above | u64::from(slot)) << shift))
    }

    /// Moves the nodes of a slot to the slots where they belong now.
    fn empty(&mut self, level: usize, slot: u32) {
        let head = head(level, slot);
        loop {
            let node = self.nodes[head as usize].next;
            if node == head {
                return;
            }
            self.relink(node);
        }
    }

    /// Moves a node to the slot of its deadline.
    fn relink(&mut self, node: u32) {
        self.unlink(node);
        let entry = &mut self.nodes[node as usize];
        entry.tick = entry.wanted;
        if entry.wanted != NO_TICK {
            self.link(node);
        }
    }

    fn link(&mut self, node: u32) {
        let tick = self.nodes[node as usize].tick;
        let head = if tick <= self.tick {
            DUE
        } else {
            let level = (tick ^ self.tick).ilog2() / SLOT_BITS;
            let slot = (tick >> (level * SLOT_BITS)) as u32 & (SLOTS as u32 - 1);
            self.occupied[level as usize] |= 1 << slot;
            head(level as usize, slot)
        };
        let last = self.nodes[head as usize].previous;
        self.nodes[node as usize].previous = last;
        self.nodes[node as usize].next = head;
        self.nodes[last as usize].next = node;
        self.nodes[head as usize].previous = node;
    }

    fn unlink(&mut self, node: u32) {
        let Node { previous, next, .. } = self.nodes[node as usize];
        self.nodes[previous as usize].next = next;
        self.nodes[next as usize].previous = previous;
        // Only a list head can be on both sides of a node.
        if previous == next && next < DUE {
            self.occupied[next as usize / SLOTS] &= !(1 << (next as usize % SLOTS));
        }
        self.nodes[node as usize].previous = node;
        self.nodes[node as usize].next = node;
    }

    fn grow(&mut self, length: u32) {
        let have = self.nodes.len() as u32;
        self.nodes.extend((have..length).map(|node| Node { previous: node, next: node, tick: 0, wanted: NO_TICK }));
    }
}

fn head(level: usize, slot: u32) -> u32 {
    (level * SLOTS) as u32 + slot
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 1 << GRAIN_BITS;

    fn at(seconds: u64) -> BootTime {
        BootTime::default() + Duration::from_secs(seconds)
    }

    fn drain(wheel: &mut Wheel, now: BootTime) -> Vec<u32> {
        let mut fired: Vec<u32> = std::iter::from_fn(|| wheel.poll(now)).collect();
        fired.sort_unstable();
        fired
    }

    #[test]
    fn fires_within_a_tick_after_the_deadline_and_never_before() {
        let mut wheel = Wheel::with_capacity(0);
        for (id, seconds) in [(0, 1), (1, 10), (2, 3_600), (3, 90_000), (4, 40_000_000)] {
            wheel.schedule(id, at(seconds));
        }
        for (id, seconds) in [(0, 1), (1, 10), (2, 3_600), (3, 90_000), (4, 40_000_000)] {
            assert_eq!(drain(&mut wheel, BootTime(at(seconds).0 - 1)), []);
            assert_eq!(drain(&mut wheel, BootTime(at(seconds).0 + TICK)), [id]);
        }
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once() {
        let mut wheel = Wheel::with_capacity(0);
        assert_eq!(drain(&mut wheel, at(1_000)), []);
        wheel.schedule(7, at(5));
        assert!(wheel.next().unwrap() <= at(1_000));
        assert_eq!(drain(&mut wheel, at(5)), [7]);
    }

    #[test]
    fn the_longest_lease_fits_and_never_means_never() {
        let mut wheel = Wheel::with_capacity(0);
        wheel.schedule(0, at(u64::from(u32::MAX)));
        wheel.schedule(1, BootTime(u64::MAX - TICK));
        wheel.schedule(2, BootTime::NEVER);
        assert_eq!(drain(&mut wheel, at(u64::from(u32::MAX) + 1)), [0]);
        wheel.cancel(1);
        assert_eq!(drain(&mut wheel, BootTime(u64::MAX)), []);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_deadline_that_is_put_off_fires_at_its_last_time_and_one_that_is_brought_forward_too() {
        let mut wheel = Wheel::with_capacity(0);
        for seconds in [100, 200, 300, 150] {
            wheel.schedule(0, at(seconds));
        }
        wheel.schedule(1, at(100));
        wheel.cancel(1);
        wheel.schedule(1, at(50));
        wheel.schedule(2, at(100));
        wheel.cancel(2);
        assert_eq!(drain(&mut wheel, at(49)), []);
        assert_eq!(drain(&mut wheel, at(51)), [1]);
        assert_eq!(drain(&mut wheel, at(149)), []);
        assert_eq!(drain(&mut wheel, at(151)), [0]);
        assert_eq!(wheel.next(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u32, u64),
        Cancel(u32),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Delays across all levels.
        let delay = || (0u32..50, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1));
        prop_oneof![
            3 => (0u32..40, delay()).prop_map(|(id, delay)| Step::Schedule(id, delay)),
            1 => (0u32..40).prop_map(Step::Cancel),
            3 => delay().prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Compares with a map that is searched linearly.
        #[test]
        fn agrees_with_a_plain_map(steps in prop::collection::vec(step(), 1..200)) {
            let mut wheel = Wheel::with_capacity(0);
            let mut plain = BTreeMap::new();
            let mut now = 0u64;
            for step in steps {
                match step {
                    Step::Schedule(id, delay) => {
                        wheel.schedule(id, BootTime(now + delay));
                        plain.insert(id, now + delay);
                    }
                    Step::Cancel(id) => {
                        wheel.cancel(id);
                        plain.remove(&id);
                    }
                    Step::Pass(delay) => {
                        now += delay;
                        let floor = now / TICK;
                        let mut expected = Vec::new();
                        plain.retain(|id, deadline: &mut u64| {
                            let due = deadline.div_ceil(TICK) <= floor;
                            if due {
                                expected.push(*id);
                            }
                            !due
                        });
                        prop_assert_eq!(drain(&mut wheel, BootTime(now)), expected);
                    }
                }
                let first = plain.values().map(|deadline| deadline.div_ceil(TICK) * TICK).min();
                match (wheel.next(), first) {
                    (Some(next), Some(first)) => prop_assert!(next.0 <= first.max(now)),
                    // A cancelled deadline may cause one additional wake-up at its former time.
                    (next, first) => prop_assert!(next.is_some() || first.is_none()),
                }
            }
        }

        /// A caller that sleeps until `next` polls a bounded number of times per deadline.
        #[test]
        fn wakes_at_most_once_a_level(delay in any::<u64>()) {
            let mut wheel = Wheel::with_capacity(0);
            let deadline = BootTime(delay / 2);
            wheel.schedule(0, deadline);
            let mut polls = 0;
            while let Some(next) = wheel.next() {
                wheel.poll(next);
                polls += 1;
                prop_assert!(polls <= LEVELS);
            }
        }
    }
}
