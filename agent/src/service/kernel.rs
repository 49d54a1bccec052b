//! The maps and the ring of the kernel programs, as traits, so that the owner of the table runs without a kernel in
//! tests.

use std::{future::Future, io};

use tr111_common::{
    abi::{ClientKey, ExchangeKey, Flow, FlowKey, LastAck, Neighbour, NeighbourKey},
    config::Config,
    event::{Event, RecordError},
};
use tr111_core::{association::RemovalReason, time::BootTime};

use crate::dataplane::{self, LanRing, Marks};

/// The ring of events.
pub trait Events {
    /// Waits for events and passes a batch of them, in order, to `take`. Returns how many. Cancel-safe: events that
    /// were not passed remain in the ring.
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

/// The maps that the owner of the table reads and writes.
pub trait Programs {
    /// Writes the settings.
    fn set_config(&self, config: &Config) -> Result<(), dataplane::Error>;
    /// Marks an exchange of a client that sent an identity.
    fn mark_exchange(&self, key: &ExchangeKey) -> Result<(), dataplane::Error>;
    /// Marks a client that has a row.
    fn stick(&self, client: &ClientKey) -> Result<(), dataplane::Error>;
    /// Removes the mark of a client that no longer has a row, and records the reason in the client's last ACK, unless that
    /// ACK is later than `seen`.
    fn unstick(&self, client: &ClientKey, reason: RemovalReason, seen: BootTime);
    /// Removes the last ACK of a client whose row was removed from the store, unless a newer ACK was recorded.
    fn forget_ended(&self, client: &ClientKey);
    /// Removes the marks of all other clients.
    fn retain_sticky(&self, keep: impl Fn(&ClientKey) -> bool);
    /// Starts to record ARP messages from an address.
    fn watch(&self, key: &NeighbourKey, now: BootTime) -> Result<(), dataplane::Error>;
    /// Stops recording them.
    fn unwatch(&self, key: &NeighbourKey);
    /// Stops recording ARP messages from all other addresses.
    fn retain_watched(&self, keep: impl Fn(&NeighbourKey) -> bool);
    /// The last ARP message from a watched address.
    fn neighbour(&self, key: &NeighbourKey) -> Option<Neighbour>;
    /// When a reply to a client with an identity last left by an interface.
    fn last_reply(&self, ifindex: u32) -> Option<BootTime>;
    /// When a LAN bridge last forwarded a reply of a foreign DHCP server to a client with an identity.
    fn last_foreign_reply(&self, ifindex: u32) -> Option<BootTime>;
    /// When an interface last received merged DHCP datagrams that could not be separated.
    fn last_merged(&self, ifindex: u32) -> Option<BootTime>;
    /// The last ACK of each client, or the reason why its lease ended.
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

    fn unstick(&self, client: &ClientKey, reason: RemovalReason, seen: BootTime) {
        Self::unstick(self, client);
        self.end_lease(client, reason.number(), seen.0);
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
