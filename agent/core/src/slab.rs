//! Values by small numbers, which are reused after a removal.

/// Not a valid number.
pub(crate) const NONE: u32 = u32::MAX;

/// A vector with reusable entries.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    occupied: u32,
}

#[derive(Debug)]
enum Entry<T> {
    Occupied(T),
    /// The next free number, or [`NONE`].
    Vacant(u32),
}

impl<T> Slab<T> {
    /// A slab with capacity for `capacity` values; the kernel allocates only the pages that are used.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), free: NONE, occupied: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.occupied
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        match self.entries.get(id as usize)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        match self.entries.get_mut(id as usize)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.occupied += 1;
        let id = self.free;
        if let Some(entry) = self.entries.get_mut(id as usize) {
            if let Entry::Vacant(next) = *entry {
                self.free = next;
            }
            *entry = Entry::Occupied(value);
            return id;
        }
        self.entries.push(Entry::Occupied(value));
        self.entries.len() as u32 - 1
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let entry = self.entries.get_mut(id as usize)?;
        if matches!(entry, Entry::Vacant(_)) {
            return None;
        }
        let Entry::Occupied(value) = std::mem::replace(entry, Entry::Vacant(self.free)) else { return None };
        self.free = id;
        self.occupied -= 1;
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.iter_from(0)
    }

    /// The values with numbers of at least `first`.
    pub(crate) fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, &T)> {
        let rest = self.entries.get(first as usize..).unwrap_or_default();
        // Entries come first in the zip, because no number follows the greatest one.
        rest.iter().zip(first..).filter_map(|(entry, id)| match entry {
            Entry::Occupied(value) => Some((id, value)),
            Entry::Vacant(_) => None,
        })
    }
}

/// The value with a number from an index or a list.
///
/// Indices and slabs are changed together, so a missing value is a bug here.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        self.get(id).expect("indices hold only occupied numbers")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.get_mut(id).expect("indices hold only occupied numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_freed_numbers_out_again() {
        let mut slab = Slab::with_capacity(0);
        let ids: Vec<u32> = "abc".chars().map(|letter| slab.insert(letter)).collect();
        assert_eq!(ids, [0, 1, 2]);
        assert_eq!(slab.remove(1), Some('b'));
        assert_eq!((slab.remove(1), slab.get(1), slab.len()), (None, None, 2));
        assert_eq!(slab.remove(0), Some('a'));
        assert_eq!([slab.insert('d'), slab.insert('e'), slab.insert('f')], [0, 1, 3]);
        assert_eq!(slab.iter().map(|(_, letter)| *letter).collect::<String>(), "decf");
        assert_eq!(slab.iter_from(2).map(|(_, letter)| *letter).collect::<String>(), "cf");
        assert_eq!(slab.iter_from(9).count(), 0);
    }
}
