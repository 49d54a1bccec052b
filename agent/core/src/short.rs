//! Byte strings that are usually short.

use std::{fmt, hash, ops::Deref};

/// Most bytes that are stored in place; [`Short`] then has the size of a `String`.
const IN_PLACE: usize = 22;

/// An immutable byte string: short ones are stored in place, longer ones on the heap.
///
/// Serial numbers, product classes and client identifiers are short, and there are millions of them. On the heap, each
/// would cost a cache miss to create, to compare and to drop.
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
