use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

/// Hashes for the indices, keyed: identities, addresses and client identifiers are text from the LAN, and nobody
/// there may choose what collides. `SipHash` with a key that the agent draws, because the core draws nothing itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    seed: u64,
}

impl Keys {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    pub(super) fn hash<T: Hash + ?Sized>(self, value: &T) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.seed, self.seed.rotate_left(32) ^ 0x7472_3131_3100_0000);
        value.hash(&mut hasher);
        hasher.finish()
    }
}
