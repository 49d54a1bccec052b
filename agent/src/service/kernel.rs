//! What the owner of the table reads from the kernel programs and writes for them. Behind traits, so that it runs
//! without a kernel in tests.

use std::{future::Future, io};

use tr111_common::{
    abi::{ClientKey, ExchangeKey, Flow, FlowKey, LastAck, Neighbour, NeighbourKey},
    config::Config,
    event::{Event, RecordError},
};
use tr111_core::{association::RemovalReason, time::BootTime};

use crate::dataplane::{self, LanRing, Marks};

/// Where events come from.
pub trait Events {
    /// Waits for events and gives a batch of them, in order, to `take`. Cancel-safe: what was not given stays.
    fn next_batch(
        &mut self,
        take: impl FnMut(Result<Event<'_>, RecordError>),
    ) -> impl Future<Output = io::Result<usize>>;
}

impl Events for LanRing {
    async fn next_batch(&mut self, take: impl FnMut(Result<Event<'_>, RecordError>)) -> io::Result<usize> {
        Self::next_batch(self, take).await
    }
}

/// What the programs are told.
pub trait Programs {
    /// New settings.
    fn set_config(&self, config: &Config) -> Result<(), dataplane::Error>;
    /// The exchange belongs to a client with an identity.
    fn mark_exchange(&self, key: &ExchangeKey) -> Result<(), dataplane::Error>;
    /// The client has a row.
    fn stick(&self, client: &ClientKey) -> Result<(), dataplane::Error>;
    /// The client has none any more, which its last ACK says from now on.
    fn unstick(&self, client: &ClientKey, reason: RemovalReason);
    /// The store has no row of the client: its last ACK goes, if no other came meanwhile.
    fn forget_ended(&self, client: &ClientKey);
    /// Only these clients have rows.
    fn retain_sticky(&self, keep: impl Fn(&ClientKey) -> bool);
    /// ARP messages from the address are to be noted.
    fn watch(&self, key: &NeighbourKey, now: BootTime) -> Result<(), dataplane::Error>;
    /// They are not any more.
    fn unwatch(&self, key: &NeighbourKey);
    /// Only these addresses are watched.
    fn retain_watched(&self, keep: impl Fn(&NeighbourKey) -> bool);
    /// The last ARP message from a watched address.
    fn neighbour(&self, key: &NeighbourKey) -> Option<Neighbour>;
    /// When a reply to a client with an identity last left by an interface.
    fn last_reply(&self, ifindex: u32) -> Option<BootTime>;
    /// When a LAN bridge last forwarded a reply of another server, which does not count, to a client with an identity.
    fn last_foreign_reply(&self, ifindex: u32) -> Option<BootTime>;
    /// When DHCP datagrams were last merged at an interface and not told apart.
    fn last_merged(&self, ifindex: u32) -> Option<BootTime>;
    /// How the last exchange of every client ended.
    fn last_acks(&self) -> Vec<(ClientKey, LastAck)>;
    /// The flows that carry Binding Requests with CONNECTION-REQUEST-BINDING.
    fn flows(&self) -> Vec<(FlowKey, Flow)>;
}

impl Programs for Marks {
    fn set_config(&self, config: &Config) -> Result<(), dataplane::Error> {
        Self::set_config(self, config)
    }

    fn mark_exchange(&self, key: &ExchangeKey) -> Result<(), dataplane::Error> {
        Self::mark_exchange(self, key)
    }

    fn stick(&self, client: &ClientKey) -> Result<(), dataplane::Error> {
        Self::stick(self, client)
    }

    fn unstick(&self, client: &ClientKey, reason: RemovalReason) {
        Self::unstick(self, client);
        self.end_lease(client, reason.number());
    }

    fn forget_ended(&self, client: &ClientKey) {
        Self::forget_ended(self, client);
    }

    fn retain_sticky(&self, keep: impl Fn(&ClientKey) -> bool) {
        Self::retain_sticky(self, keep);
    }

    fn watch(&self, key: &NeighbourKey, now: BootTime) -> Result<(), dataplane::Error> {
        Self::watch(self, key, now.0)
    }

    fn unwatch(&self, key: &NeighbourKey) {
        Self::unwatch(self, key);
    }

    fn retain_watched(&self, keep: impl Fn(&NeighbourKey) -> bool) {
        Self::retain_watched(self, keep);
    }

    fn neighbour(&self, key: &NeighbourKey) -> Option<Neighbour> {
        Self::neighbour(self, key)
    }

    fn last_reply(&self, ifindex: u32) -> Option<BootTime> {
        Self::last_reply(self, ifindex).map(BootTime)
    }

    fn last_foreign_reply(&self, ifindex: u32) -> Option<BootTime> {
        Self::last_foreign_reply(self, ifindex).map(BootTime)
    }

    fn last_merged(&self, ifindex: u32) -> Option<BootTime> {
        Self::last_merged(self, ifindex).map(BootTime)
    }

    fn last_acks(&self) -> Vec<(ClientKey, LastAck)> {
        Self::last_acks(self)
    }

    fn flows(&self) -> Vec<(FlowKey, Flow)> {
        Self::flows(self)
    }
}
