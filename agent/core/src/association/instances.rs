//! Rows by instance number.
//!
//! Numbers increase and are never reused (T-32), so adjacent numbers are added and removed together: pages of numbers
//! stay nearly full while rows live long. A tree of pages fits the CPU caches; a tree of rows would not.

use std::{collections::BTreeMap, ops::Bound};

/// Instance numbers in a page.
const PAGE: u32 = 32;

#[derive(Debug, Default)]
struct Page {
    /// One bit for each number that is in use.
    used: u32,
    rows: Box<[u32; PAGE as usize]>,
}

impl Page {
    /// The rows from an offset in the page on.
    fn from(&self, first: u32) -> impl Iterator<Item = u32> {
        (first..PAGE).filter(|at| self.used >> at & 1 == 1).map(|at| self.rows[at as usize])
    }
}

/// Rows by instance number.
#[derive(Debug, Default)]
pub(super) struct Instances {
    pages: BTreeMap<u32, Page>,
}

impl Instances {
    pub(super) fn get(&self, instance: u32) -> Option<u32> {
        let page = self.pages.get(&(instance / PAGE))?;
        (page.used >> (instance % PAGE) & 1 == 1).then(|| page.rows[(instance % PAGE) as usize])
    }

    pub(super) fn insert(&mut self, instance: u32, row: u32) {
        let page = self.pages.entry(instance / PAGE).or_default();
        page.used |= 1 << (instance % PAGE);
        page.rows[(instance % PAGE) as usize] = row;
    }

    pub(super) fn remove(&mut self, instance: u32) {
        let number = instance / PAGE;
        let Some(page) = self.pages.get_mut(&number) else { return };
        page.used &= !(1 << (instance % PAGE));
        if page.used == 0 {
            self.pages.remove(&number);
        }
    }

    /// The rows with numbers greater than `instance`, in order.
    pub(super) fn after(&self, instance: u32) -> impl Iterator<Item = u32> {
        let (number, first) = (instance / PAGE, instance % PAGE + 1);
        let begun = self.pages.get(&number).into_iter().flat_map(move |page| page.from(first));
        let above = self.pages.range((Bound::Excluded(number), Bound::Unbounded));
        begun.chain(above.flat_map(|(_, page)| page.from(0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares with a map.
        #[test]
        fn agrees_with_a_plain_map(steps in prop::collection::vec((any::<bool>(), 1u32..200), 1..200)) {
            let (mut instances, mut plain) = (Instances::default(), BTreeMap::new());
            for (adds, instance) in steps {
                if adds {
                    instances.insert(instance, instance + 1_000);
                    plain.insert(instance, instance + 1_000);
                } else {
                    instances.remove(instance);
                    plain.remove(&instance);
                }
                prop_assert_eq!(instances.get(instance), plain.get(&instance).copied());
                for after in [0, instance - 1, instance, 200, u32::MAX] {
                    let above = plain.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, row)| *row);
                    prop_assert_eq!(instances.after(after).collect::<Vec<_>>(), above.collect::<Vec<_>>());
                }
            }
            // Empty pages are removed.
            for instance in plain.keys() {
                instances.remove(*instance);
            }
            prop_assert!(instances.pages.is_empty());
        }
    }
}
