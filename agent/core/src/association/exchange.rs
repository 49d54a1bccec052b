//! DHCP requests that wait for their reply.

use std::net::Ipv4Addr;

use tr111_common::{
    abi::{ClientKey, ExchangeKey},
    dhcp4::MessageType,
};

use super::{index::Index, keys::Keys};
use crate::{
    dhcp::HardwareAddress,
    identity::DeviceIdentity,
    short::Short,
    slab::{NONE, Slab},
    time::BootTime,
};

/// The fields of a request that are needed for its reply, because servers do not repeat them (RFC 2131 4.1).
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) key: ExchangeKey,
    pub(super) client: ClientKey,
    pub(super) mac: HardwareAddress,
    pub(super) client_id: Option<Short>,
    /// Ethernet source of the request.
    pub(super) sender: [u8; 6],
    /// The identity in this request, or in an earlier one of the same exchange.
    pub(super) identity: Option<DeviceIdentity>,
    pub(super) message: MessageType,
    /// `ciaddr`; for an INFORM without it, the source address.
    pub(super) address: Ipv4Addr,
    pub(super) relayed: bool,
    pub(super) time: BootTime,
}

struct Waiting {
    exchange: Exchange,
    hash: u64,
    older: u32,
    newer: u32,
}

/// A bounded set of exchanges; the least recently stored one is evicted first.
pub(super) struct Exchanges {
    waiting: Slab<Waiting>,
    by_key: Index,
    oldest: u32,
    newest: u32,
    keys: Keys,
}

impl Exchanges {
    pub(super) fn new(keys: Keys) -> Self {
        Self { waiting: Slab::with_capacity(0), by_key: Index::with_capacity(0), oldest: NONE, newest: NONE, keys }
    }

    /// Stores a request, replacing an earlier one of the same exchange; the earlier identity is kept if this request
    /// has none. Returns whether another exchange was evicted to stay within `maximum`.
    pub(super) fn record(&mut self, mut exchange: Exchange, maximum: u32) -> bool {
        let hash = self.keys.exchange(&exchange.key);
        if let Some(id) = self.find(hash, &exchange.key)
            && let Some(earlier) = self.remove(id)
            && earlier.client == exchange.client
            && exchange.identity.is_none()
        {
            exchange.identity = earlier.identity;
        }
        let full = self.waiting.len() >= maximum.max(1);
        if full {
            self.remove(self.oldest);
        }
        let id = self.waiting.insert(Waiting { exchange, hash, older: self.newest, newer: NONE });
        match self.waiting.get_mut(self.newest) {
            Some(previous) => previous.newer = id,
            None => self.oldest = id,
        }
        self.newest = id;
        self.by_key.insert(hash, id);
        full
    }

    /// The number of an exchange, for [`Exchanges::get`] and [`Exchanges::take`].
    pub(super) fn lookup(&self, key: &ExchangeKey) -> Option<u32> {
        self.find(self.keys.exchange(key), key)
    }

    pub(super) fn get(&self, id: u32) -> Option<&Exchange> {
        Some(&self.waiting.get(id)?.exchange)
    }

    pub(super) fn take(&mut self, id: u32) -> Option<Exchange> {
        self.remove(id)
    }

    fn find(&self, hash: u64, key: &ExchangeKey) -> Option<u32> {
        self.by_key.find(hash, |id| self.waiting[id].exchange.key == *key)
    }

    /// Removes the requests with a time of at most `time`.
    pub(super) fn forget_until(&mut self, time: BootTime) {
        while self.oldest_time().is_some_and(|oldest| oldest <= time) {
            self.remove(self.oldest);
        }
    }

    pub(super) fn oldest_time(&self) -> Option<BootTime> {
        Some(self.waiting.get(self.oldest)?.exchange.time)
    }

    fn remove(&mut self, id: u32) -> Option<Exchange> {
        let hash = self.waiting.get(id)?.hash;
        self.by_key.remove(hash, id);
        let Waiting { exchange, older, newer, .. } = self.waiting.remove(id)?;
        match self.waiting.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.waiting.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        Some(exchange)
    }
}
