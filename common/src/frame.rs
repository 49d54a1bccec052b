//! Access to packet bytes: the small traits that kernel contexts and slices both implement.

use crate::words::{WORD, Words};

/// Largest frame that the programs copy, in bytes. A power of two, so that one mask bounds every index.
pub const FRAME_CAPACITY: usize = 16 * 1024;
/// The same in words.
pub const FRAME_WORDS: usize = FRAME_CAPACITY / WORD;

/// Loads fixed-size pieces of a frame, for headers.
pub trait Frame {
    /// Length of the whole frame in bytes, its non-linear parts included.
    fn len(&self) -> usize;

    /// The `N` bytes at `offset`, or `None` where the frame ends earlier.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Whether the frame has no bytes at all.
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

/// Reads single bytes of a frame that was copied, for the option walk.
///
/// Callers compare `at` with the end that they know; a read beyond the copy gives some byte and never fails,
/// because in the kernel a mask takes the place of a check.
pub trait Octets {
    /// The byte at `at`.
    fn octet(&self, at: u32) -> u8;

    /// Two bytes in network order.
    fn be16(&self, at: u32) -> u16 {
        u16::from_be_bytes([self.octet(at), self.octet(at + 1)])
    }

    /// Four bytes in network order.
    fn be32(&self, at: u32) -> u32 {
        u32::from_be_bytes(self.four(at))
    }

    /// Eight bytes in network order.
    #[inline(always)]
    fn be64(&self, at: u32) -> u64 {
        u64::from(self.be32(at)) << 32 | u64::from(self.be32(at + 4))
    }

    /// Six bytes as they stand: an Ethernet address.
    #[inline(always)]
    fn mac(&self, at: u32) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.be64(at).to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Four bytes as they stand.
    fn four(&self, at: u32) -> [u8; 4] {
        [self.octet(at), self.octet(at + 1), self.octet(at + 2), self.octet(at + 3)]
    }
}

impl Octets for [u8] {
    fn octet(&self, at: u32) -> u8 {
        self.get(at as usize).copied().unwrap_or(0)
    }
}

/// The first `count` bytes of a word, whose first byte is on top; all of them from 8 on.
#[inline(always)]
pub fn first_bytes(word: u64, count: u32) -> u64 {
    match count {
        0 => 0,
        1..=7 => word & (u64::MAX << (64 - 8 * count)),
        _ => word,
    }
}

/// Words of the buffer that pieces of a message are gathered in.
pub const GATHERED_WORDS: usize = 256 + PIECE_WORDS;
/// Bytes that may be gathered.
pub const GATHERED_MAXIMUM: u32 = 2048;
/// Words of the longest piece: the value of a DHCP option.
const PIECE_WORDS: usize = 32;

/// What pieces of a message are copied from.
pub trait Source: Octets {
    /// Copies `length` bytes at `at`, 1 to 256, to `to` from its byte `place` on, which is below [`GATHERED_MAXIMUM`];
    /// `false` where they are not there.
    fn copy_to(&self, at: u32, length: u32, to: &mut Words<GATHERED_WORDS>, place: u32) -> bool;
}

impl Source for [u8] {
    fn copy_to(&self, at: u32, length: u32, to: &mut Words<GATHERED_WORDS>, place: u32) -> bool {
        let Some(piece) = self.get(at as usize..).and_then(|rest| rest.get(..length as usize)) else { return false };
        piece.iter().zip(place as usize..).for_each(|(byte, place)| to.set(place, *byte));
        true
    }
}

/// One turn of a bounded loop.
///
/// What a step changes from turn to turn lies behind a reference, in the kernel in a map. Of a map's values the
/// verifier knows nothing, so that all turns look alike to it and it walks one of them; on the stack each value that a
/// variable can have makes another turn (a million instructions for 32 attributes on Linux 7.3).
pub trait Step {
    /// Does the turn with number `index`; `false` ends the loop.
    fn step(&mut self, index: u32) -> bool;
}

/// Runs bounded loops: `for` in userspace, `bpf_loop` (Linux 5.17) in the kernel, where an open-coded loop over
/// options has too many paths for the verifier.
pub trait Repeat: Copy {
    /// Calls `step` at most `turns` times.
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
