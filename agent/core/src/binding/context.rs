//! State that the parts of the STUN client share: settings, randomness, outputs, counters.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::Hasher,
    time::Duration,
};

use siphasher::sip128::{Hasher128, SipHasher24};

use super::{Alarm, Bounds, Output, Parameters, Settings};
use crate::stun::TransactionId;

/// Numbers of messages, by type and result (`tr111_stun_messages_total`).
pub type Counts = BTreeMap<(&'static str, &'static str), u64>;

/// State that the parts of the STUN client share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) parameters: Parameters,
    pub(super) bounds: Bounds,
    pub(super) outputs: VecDeque<Output>,
    pub(super) counts: Counts,
    pub(super) learned: Option<Duration>,
    raised: BTreeSet<Alarm>,
    random: Random,
}

impl Context {
    pub(super) fn new(settings: Settings, parameters: Parameters, learned: Option<Duration>) -> Self {
        Self {
            bounds: Bounds::new(&parameters, &settings),
            random: Random { key: settings.seed, drawn: 0 },
            settings,
            parameters,
            outputs: VecDeque::new(),
            counts: Counts::new(),
            learned,
            raised: BTreeSet::new(),
        }
    }

    pub(super) fn count(&mut self, message_type: &'static str, result: &'static str) {
        *self.counts.entry((message_type, result)).or_default() += 1;
    }

    pub(super) fn raise(&mut self, alarm: Alarm) {
        if self.raised.insert(alarm) {
            self.outputs.push_back(Output::Alarm(alarm));
        }
    }

    pub(super) fn clear(&mut self, alarm: Alarm) {
        if self.raised.remove(&alarm) {
            self.outputs.push_back(Output::Cleared(alarm));
        }
    }

    pub(super) fn clear_all(&mut self) {
        self.outputs.extend(std::mem::take(&mut self.raised).into_iter().map(Output::Cleared));
    }

    pub(super) fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.raised.iter().copied()
    }

    /// A transaction identifier that cannot be guessed without the seed. If XOR-MAPPED-ADDRESS is accepted (T-20), it
    /// begins with the magic cookie of RFC 5389 and has 96 random bits.
    pub(super) fn transaction_id(&mut self) -> TransactionId {
        let id = TransactionId(self.random.draw().to_be_bytes());
        if self.settings.xor_mapped_address { id.with_cookie() } else { id }
    }

    /// `period`, shortened by a random part of up to a twentieth, so that devices which started together diverge. It is
    /// never extended, because the binding might expire.
    pub(super) fn jittered(&mut self, period: Duration) -> Duration {
        let span = (period / 20).as_nanos() as u64;
        period.saturating_sub(Duration::from_nanos((self.random.draw() >> 64) as u64 % (span + 1)))
    }
}

/// A keyed hash of a counter; unpredictable without the key.
#[derive(Debug)]
struct Random {
    key: [u64; 2],
    drawn: u64,
}

impl Random {
    fn draw(&mut self) -> u128 {
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        hasher.write_u64(self.drawn);
        self.drawn += 1;
        hasher.finish128().as_u128()
    }
}
