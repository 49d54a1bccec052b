//! Access to the bytes of a packet: small traits that kernel contexts and slices both implement.

use crate::words::{WORD, Words};

/// Largest frame that the programs copy, in bytes. A power of two, so that one mask bounds every index.
pub const FRAME_CAPACITY: usize = 16 * 1024;
/// [`FRAME_CAPACITY`] in words.
pub const FRAME_WORDS: usize = FRAME_CAPACITY / WORD;

/// A frame from which fixed-size pieces can be loaded, such as headers.
pub trait Frame {
    /// Length of the frame in bytes, including its non-linear parts.
    fn len(&self) -> usize;

    /// The `N` bytes at `offset`; `None` if the frame ends before them.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Whether the frame has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Frame for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
}

/// Byte access to a copied frame, for walks over options and attributes.
///
/// Callers compare `at` with the end of the data that they know. A read beyond the copy returns an unspecified byte and
/// never fails, because in the kernel a mask replaces the bounds check.
pub trait Octets {
    /// The byte at `at`.
    fn octet(&self, at: u32) -> u8;

    /// Two bytes as a big-endian number.
    fn be16(&self, at: u32) -> u16 {
        u16::from_be_bytes([self.octet(at), self.octet(at + 1)])
    }

    /// Four bytes as a big-endian number.
    fn be32(&self, at: u32) -> u32 {
        u32::from_be_bytes(self.four(at))
    }

    /// Eight bytes as a big-endian number.
    #[inline(always)]
    fn be64(&self, at: u32) -> u64 {
        u64::from(self.be32(at)) << 32 | u64::from(self.be32(at + 4))
    }

    /// Six bytes in wire order: an Ethernet address.
    #[inline(always)]
    fn mac(&self, at: u32) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.be64(at).to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Four bytes in wire order.
    fn four(&self, at: u32) -> [u8; 4] {
        [self.octet(at), self.octet(at + 1), self.octet(at + 2), self.octet(at + 3)]
    }
}

impl Octets for [u8] {
    fn octet(&self, at: u32) -> u8 {
        self.get(at as usize).copied().unwrap_or(0)
    }
}

/// The first `count` bytes of a big-endian word; the others become 0. All bytes if `count` is 8 or greater.
#[inline(always)]
pub fn first_bytes(word: u64, count: u32) -> u64 {
    match count {
        0 => 0,
        1..=7 => word & (u64::MAX << (64 - 8 * count)),
        _ => word,
    }
}

/// Words in the buffer that joins the pieces of a message.
pub const GATHERED_WORDS: usize = 256 + PIECE_WORDS;
/// Most bytes that can be joined.
pub const GATHERED_MAXIMUM: u32 = 2048;
/// Words of the longest piece: the value of a DHCP option.
const PIECE_WORDS: usize = 32;

/// A frame from which pieces of variable length can be copied.
pub trait Source: Octets {
    /// Copies the `length` bytes at `at` (1 to 256) to `to`, from its byte `place` on (below [`GATHERED_MAXIMUM`]).
    /// Returns `false` if the frame ends before them.
    fn copy_to(&self, at: u32, length: u32, to: &mut Words<GATHERED_WORDS>, place: u32) -> bool;
}

impl Source for [u8] {
    fn copy_to(&self, at: u32, length: u32, to: &mut Words<GATHERED_WORDS>, place: u32) -> bool {
        let Some(piece) = self.get(at as usize..).and_then(|rest| rest.get(..length as usize)) else { return false };
        piece.iter().zip(place as usize..).for_each(|(byte, place)| to.set(place, *byte));
        true
    }
}

/// The body of a bounded loop.
///
/// Variables that change between iterations have to be behind a reference, and in the kernel inside a map: the verifier
/// does not track the contents of map values, so all iterations look alike to it and it verifies one. It does track the
/// stack, where each value of a variable makes another iteration to verify (a million instructions for 32 attributes on
/// Linux 7.3).
pub trait Step {
    /// Runs the iteration `index`; `false` ends the loop.
    fn step(&mut self, index: u32) -> bool;
}

/// A way to run bounded loops: `for` in userspace, `bpf_loop` (Linux 5.17) in the kernel. An open-coded loop over
/// options has too many paths for the verifier.
pub trait Repeat: Copy {
    /// Calls `step` at most `turns` times, until it returns `false`.
    fn repeat<S: Step>(self, turns: u32, step: &mut S);
}

/// The loop of userspace.
#[derive(Clone, Copy, Debug)]
pub struct PlainLoop;

impl Repeat for PlainLoop {
    fn repeat<S: Step>(self, turns: u32, step: &mut S) {
        for index in 0..turns {
            if !step.step(index) {
                break;
            }
        }
    }
}
