//! Recent answers of a server, so that copies of a request have one effect and all are answered (T-25).

use std::{collections::VecDeque, hash::BuildHasher, net::SocketAddrV4};

use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

use super::{LISTEN, TransactionId};
use crate::time::BootTime;

/// Result of looking up a received request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// The request is new: handle it, and store the answer with [`Replies::note`].
    New,
    /// A copy of an answered request: repeat this answer, without further effect (STUN-27, STUN-28).
    Copy(&'a [u8]),
    /// The same request from another address. MESSAGE-INTEGRITY does not cover the source, so this is a replay (T-67).
    Replayed,
}

#[derive(Debug)]
struct Answered {
    now: BootTime,
    source: SocketAddrV4,
    request: u64,
    reply: Box<[u8]>,
}

/// The answers of the last [`LISTEN`], at most `capacity`, to requests that had an effect.
///
/// TR-111 2.2.2.2.1 requires that redundant copies are ignored, but a client whose 401 was lost could then never
/// continue. The request therefore takes effect once, and its answer is repeated for each copy.
#[derive(Debug)]
pub struct Replies {
    answered: HashMap<TransactionId, Answered, Keyed>,
    order: VecDeque<(BootTime, TransactionId)>,
    capacity: usize,
}

/// Keyed hash of transaction identifiers, because clients choose them and must not be able to choose colliding ones.
#[derive(Clone, Copy, Debug)]
struct Keyed(SipHasher13);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

impl Replies {
    /// A memory for `capacity` answers. `seed` has to be random.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let keyed = Keyed(SipHasher13::new_with_keys(seed, seed.rotate_left(32)));
        Self { answered: HashMap::with_hasher(keyed), order: VecDeque::new(), capacity }
    }

    /// Looks up a request by its transaction identifier, its bytes and its source.
    pub fn look(&mut self, now: BootTime, source: SocketAddrV4, id: TransactionId, request: &[u8]) -> Seen<'_> {
        self.forget(now, self.capacity);
        let request = self.hash(request);
        match self.answered.get(&id) {
            // Copies have identical bytes (RFC 3489 9.3). A signed request that reuses the identifier of a 401 is a new
            // one.
            Some(answered) if answered.request != request => Seen::New,
            Some(answered) if answered.source != source => Seen::Replayed,
            Some(answered) => Seen::Copy(&answered.reply),
            None => Seen::New,
        }
    }

    /// Stores the answer to a request. If the memory is full, the oldest answer is discarded.
    pub fn note(&mut self, now: BootTime, source: SocketAddrV4, id: TransactionId, request: &[u8], reply: &[u8]) {
        self.forget(now, self.capacity.saturating_sub(1));
        let request = self.hash(request);
        self.answered.insert(id, Answered { now, source, request, reply: reply.into() });
        self.order.push_back((now, id));
    }

    /// Discards the answers that are older than [`LISTEN`], and the oldest ones beyond `keep`.
    fn forget(&mut self, now: BootTime, keep: usize) {
        while let Some(&(noted, id)) = self.order.front()
            && (self.order.len() > keep || now >= noted + LISTEN)
        {
            self.order.pop_front();
            // If the identifier was answered again, a later entry of the order refers to it.
            if self.answered.get(&id).is_some_and(|answered| answered.now == noted) {
                self.answered.remove(&id);
            }
        }
    }

    fn hash(&self, request: &[u8]) -> u64 {
        self.answered.hasher().0.hash(request)
    }
}
