//! A server's memory of what it answered, so that copies of a request have one effect and always an answer (T-25).

use std::{collections::VecDeque, hash::BuildHasher, net::SocketAddrV4};

use hashbrown::HashMap;
use siphasher::sip::SipHasher13;

use super::{LISTEN, TransactionId};
use crate::time::BootTime;

/// What a server knows of a request that has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// It is new: judge it, answer it, and [`Replies::note`] the answer.
    New,
    /// A copy: send this again, and do nothing else (STUN-27, STUN-28).
    Copy(&'a [u8]),
    /// The same request from another address: MESSAGE-INTEGRITY does not cover the source, so this is a replay (T-67).
    Replayed,
}

#[derive(Debug)]
struct Answered {
    now: BootTime,
    source: SocketAddrV4,
    request: u64,
    reply: Box<[u8]>,
}

/// The answers of the last [`LISTEN`] to requests that changed something, at most `capacity` of them.
///
/// TR-111 2.2.2.2.1 has redundant copies ignored, but a client whose 401 was lost would then never get further. So the
/// procedure runs once, and its answer is given as often as it is asked for.
#[derive(Debug)]
pub struct Replies {
    answered: HashMap<TransactionId, Answered, Keyed>,
    order: VecDeque<(BootTime, TransactionId)>,
    capacity: usize,
}

/// Hashes under a key that the agent drew: clients choose their transaction ids, and may not choose what collides.
#[derive(Clone, Copy, Debug)]
struct Keyed(SipHasher13);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

impl Replies {
    /// Room for `capacity` answers, hashed under a random `seed`.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let keyed = Keyed(SipHasher13::new_with_keys(seed, seed.rotate_left(32)));
        Self { answered: HashMap::with_hasher(keyed), order: VecDeque::new(), capacity }
    }

    /// What is known of the request with this id, these bytes and this source.
    pub fn look(&mut self, now: BootTime, source: SocketAddrV4, id: TransactionId, request: &[u8]) -> Seen<'_> {
        self.forget(now, self.capacity);
        let request = self.hash(request);
        match self.answered.get(&id) {
            // Copies are identical (RFC 3489 9.3); whoever signs under the id of the 401 asks anew.
            Some(answered) if answered.request != request => Seen::New,
            Some(answered) if answered.source != source => Seen::Replayed,
            Some(answered) => Seen::Copy(&answered.reply),
            None => Seen::New,
        }
    }

    /// Remembers the answer to a request. The oldest answer makes room where there is none.
    pub fn note(&mut self, now: BootTime, source: SocketAddrV4, id: TransactionId, request: &[u8], reply: &[u8]) {
        self.forget(now, self.capacity.saturating_sub(1));
        let request = self.hash(request);
        self.answered.insert(id, Answered { now, source, request, reply: reply.into() });
        self.order.push_back((now, id));
    }

    /// Drops what is older than [`LISTEN`], and the oldest beyond `keep`.
    fn forget(&mut self, now: BootTime, keep: usize) {
        while let Some(&(noted, id)) = self.order.front()
            && (self.order.len() > keep || now >= noted + LISTEN)
        {
            self.order.pop_front();
            // An id that was answered again has a younger place in the order.
            if self.answered.get(&id).is_some_and(|answered| answered.now == noted) {
                self.answered.remove(&id);
            }
        }
    }

    fn hash(&self, request: &[u8]) -> u64 {
        self.answered.hasher().0.hash(request)
    }
}
