//! Buffers of the kernel programs that are read, copied and compared in words of eight bytes.
//!
//! The BPF target has no unaligned access: to read eight bytes at any offset of a byte buffer, a program loads each
//! byte; of a word buffer it loads two words and shifts. Copying bytes takes a loop, copying words a few instructions.

use crate::frame::Octets;

/// Size of a word in bytes.
pub const WORD: usize = 8;

/// Eight bytes in wire order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct Word(pub [u8; WORD]);

/// A buffer of `N` words. Reads beyond the greatest power of two that is at most `N` wrap around to the start, because
/// in the kernel a mask replaces the bounds check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Words<const N: usize>(pub [Word; N]);

impl<const N: usize> Default for Words<N> {
    fn default() -> Self {
        Self::ZERO
    }
}

impl<const N: usize> Words<N> {
    /// The buffer with all bytes 0.
    pub const ZERO: Self = Self([Word([0; WORD]); N]);

    const MASK: usize = (1 << N.ilog2()) - 1;

    /// A buffer with `bytes`, zero-padded; excess bytes are dropped.
    pub fn of(bytes: &[u8]) -> Self {
        let mut words = Self::ZERO;
        for (word, bytes) in words.0.iter_mut().zip(bytes.chunks(WORD)) {
            word.0[..bytes.len()].copy_from_slice(bytes);
        }
        words
    }

    /// All bytes, in order.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.iter().flat_map(|word| word.0)
    }

    /// The first `B` bytes; `B` must not exceed the size of the buffer.
    #[inline(always)]
    pub fn first<const B: usize>(&self) -> [u8; B] {
        const { assert!(B <= N * WORD) };
        core::array::from_fn(|at| self.0[at / WORD].0[at % WORD])
    }

    /// Replaces the byte at `at`. Beyond the end it replaces another byte, as reads wrap around.
    #[inline(always)]
    pub fn put(&mut self, at: u32, byte: u8) {
        let at = at as usize;
        self.0[(at / WORD) & Self::MASK].0[at % WORD] = byte;
    }

    /// Replaces the byte at `at`; no effect beyond the end.
    pub fn set(&mut self, at: usize, byte: u8) {
        if let Some(word) = self.0.get_mut(at / WORD) {
            word.0[at % WORD] = byte;
        }
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        u64::from_be_bytes(self.0[index & Self::MASK].0)
    }
}

impl<const N: usize> Octets for Words<N> {
    #[inline(always)]
    fn octet(&self, at: u32) -> u8 {
        let at = at as usize;
        self.0[(at / WORD) & Self::MASK].0[at % WORD]
    }

    #[inline(always)]
    fn be16(&self, at: u32) -> u16 {
        (self.be64(at) >> 48) as u16
    }

    #[inline(always)]
    fn be32(&self, at: u32) -> u32 {
        (self.be64(at) >> 32) as u32
    }

    #[inline(always)]
    fn be64(&self, at: u32) -> u64 {
        let (index, bits) = (at as usize / WORD, at % 8 * 8);
        self.word(index) << bits | self.word(index + 1) >> 1 >> (63 - bits)
    }

    #[inline(always)]
    fn four(&self, at: u32) -> [u8; 4] {
        self.be32(at).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_like_their_bytes() {
        let bytes: [u8; 37] = core::array::from_fn(|at| at as u8 * 7 + 1);
        let words = Words::<8>::of(&bytes);
        assert!(words.bytes().take(37).eq(bytes));
        let slice = bytes.as_slice();
        for at in 0..29 {
            assert_eq!(words.octet(at), slice.octet(at));
            assert_eq!(words.be16(at), slice.be16(at));
            assert_eq!(words.be32(at), slice.be32(at));
            assert_eq!(words.four(at), slice.four(at));
            assert_eq!(words.be64(at), slice.be64(at), "{at}");
        }
    }

    #[test]
    fn reads_beyond_the_end_begin_again() {
        let words = Words::<4>::of(&core::array::from_fn::<u8, 32, _>(|at| at as u8));
        assert_eq!(words.octet(33), 1);
        assert_eq!(words.be64(28), 0x1c1d_1e1f_0001_0203);
        // Of five words, four are addressable.
        assert_eq!(Words::<5>::of(&[9; 40]).octet(32), 9);
    }
}
