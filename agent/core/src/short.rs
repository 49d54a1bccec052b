//! Bytes that are few as a rule.

use std::{fmt, hash, ops::Deref};

/// Most bytes that need no memory of their own: with them, [`Short`] is as large as a `String`.
const IN_PLACE: usize = 22;

/// Bytes that do not change: a few in place, more in memory of their own.
///
/// Serial numbers, product classes and client identifiers are short and there are millions of them. Each of them in
/// memory of its own costs a miss of the cache to make, to compare and to drop.
#[derive(Clone)]
pub struct Short(Place);

#[derive(Clone)]
enum Place {
    Here { length: u8, bytes: [u8; IN_PLACE] },
    There(Box<[u8]>),
}

const _: () = assert!(size_of::<Option<Short>>() == size_of::<String>());

impl From<&[u8]> for Short {
    fn from(value: &[u8]) -> Self {
        let mut bytes = [0; IN_PLACE];
        match bytes.get_mut(..value.len()) {
            Some(place) => {
                place.copy_from_slice(value);
                Self(Place::Here { length: value.len() as u8, bytes })
            }
            None => Self(Place::There(value.into())),
        }
    }
}

impl Deref for Short {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Here { length, bytes } => &bytes[..usize::from(*length)],
            Place::There(bytes) => bytes,
        }
    }
}

impl Default for Short {
    fn default() -> Self {
        Self::from([].as_slice())
    }
}

impl PartialEq for Short {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Short {}

impl PartialOrd for Short {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Short {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(other)
    }
}

impl hash::Hash for Short {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Short {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_length_come_back_and_compare_as_slices_do() {
        let bytes: Vec<u8> = (0..64).collect();
        for length in 0..bytes.len() {
            let short = Short::from(&bytes[..length]);
            assert_eq!(*short, bytes[..length]);
            assert_eq!((short.clone(), matches!(short.0, Place::Here { .. })), (short, length <= IN_PLACE));
            for other in 0..bytes.len() {
                let (left, right) = (&bytes[..length], &bytes[64 - other..]);
                assert_eq!(Short::from(left).cmp(&Short::from(right)), left.cmp(right));
            }
        }
        assert_eq!(*Short::default(), []);
    }
}
