//! Access to packet bytes: the two small traits that kernel contexts and slices both implement.

/// Largest frame that the programs copy, in bytes. A power of two, so that one mask bounds every index.
pub const FRAME_CAPACITY: usize = 16 * 1024;

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

impl Octets for [u8; FRAME_CAPACITY] {
    #[inline(always)]
    fn octet(&self, at: u32) -> u8 {
        self[at as usize & (FRAME_CAPACITY - 1)]
    }
}

/// One turn of a bounded loop.
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
