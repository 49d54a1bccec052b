//! Limits how often a client may change the table (SEC-8).
//!
//! Every change is written to disk. A client that repeatedly releases its address and returns, or that changes its
//! identity each time, could wear out flash memory. Each client therefore has a token bucket: a burst of changes, then
//! one per minute. Its Ethernet source has a larger bucket, so that a station cannot evade the limit by inventing
//! client identifiers. A relay agent has none, because it forwards for many clients.
//!
//! Removals are never delayed, and the first row of a client is free; removals that a client causes are charged. A
//! client with an empty bucket waits: without a row, for its row; with a row, for the row of its new identity, and it
//! keeps the present row with its lease meanwhile. Of several identities the latest is used. A waiting change is not
//! shown, reported or stored.

use tr111_common::{abi::ClientKey, dhcp4::MessageType};

use super::{Association, Binding, IdentityResult, Output, Remark, RemovalReason, Settings, keys::Keys};
use crate::{budget::Budgets, identity::DeviceIdentity, time::BootTime};

/// Most clients that may wait; further ones are refused. A LAN host can invent clients.
const WAITING_MAXIMUM: usize = 1_024;
/// Bucket size of an Ethernet source, as a multiple of a client's.
const SENDER: u32 = 8;

#[derive(Clone)]
struct Change {
    message: MessageType,
    identity: DeviceIdentity,
    /// The client's future binding if the client has none; otherwise its binding when the wait began.
    binding: Binding,
    /// Time at which the client's bucket has a token.
    due: BootTime,
    /// Whether the client has no row although the kernel programs know it, which is needed for its RELEASE.
    is_rowless: bool,
}

/// The token buckets, and the waiting changes.
pub(super) struct Changes {
    keys: Keys,
    clients: Budgets,
    senders: Budgets,
    waiting: Vec<Change>,
}

impl Changes {
    pub(super) fn new(keys: Keys, settings: &Settings) -> Self {
        let Settings { change_burst: burst, change_interval: interval, .. } = *settings;
        Self {
            keys,
            clients: Budgets::new(burst, interval),
            senders: Budgets::new(burst.saturating_mul(SENDER), interval / SENDER),
            waiting: Vec::new(),
        }
    }

    /// Charges a binding's client and its Ethernet source with one change.
    pub(super) fn charge(&mut self, now: BootTime, binding: &Binding) {
        self.clients.spend(self.keys.client(&binding.client), now);
        if let Some(sender) = self.sender(binding) {
            self.senders.spend(sender, now);
        }
    }

    /// Time at which the client of a binding may change something; `now` if it may at once.
    fn ready(&self, now: BootTime, binding: &Binding) -> BootTime {
        // Usually all buckets are full, and no hash is needed.
        if self.clients.are_full() {
            return now;
        }
        let client = self.clients.ready(self.keys.client(&binding.client), now);
        self.sender(binding).map_or(client, |sender| client.max(self.senders.ready(sender, now)))
    }

    fn sender(&self, binding: &Binding) -> Option<u64> {
        let sender = binding.sender.filter(|_| !binding.relayed)?;
        Some(self.keys.sender(binding.segment(), sender))
    }

    /// Time at which the next waiting change is due.
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        self.waiting.iter().map(|change| change.due).min()
    }

    pub(super) fn waiting(&self) -> impl ExactSizeIterator<Item = &ClientKey> {
        self.waiting.iter().map(|change| &change.binding.client)
    }

    pub(super) fn rowless(&self) -> usize {
        self.waiting.iter().filter(|change| change.is_rowless).count()
    }

    fn get(&self, client: &ClientKey) -> Option<&Change> {
        self.waiting.iter().find(|change| change.binding.client == *client)
    }

    pub(super) fn identity_of(&self, client: &ClientKey) -> Option<&DeviceIdentity> {
        self.get(client).map(|change| &change.identity)
    }

    /// The future binding of a waiting client without a row.
    pub(super) fn binding_of(&self, client: &ClientKey) -> Option<&Binding> {
        self.get(client).filter(|change| change.is_rowless).map(|change| &change.binding)
    }

    /// Discards the waiting change of a client. Returns whether there was one.
    pub(super) fn forget(&mut self, client: &ClientKey) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|change| change.binding.client != *client);
        self.waiting.len() < before
    }

    /// Adds a waiting change; it replaces an earlier one of the same client. Returns `false` if there is no room.
    fn put(&mut self, change: Change) -> bool {
        self.forget(&change.binding.client);
        let has_room = self.waiting.len() < WAITING_MAXIMUM;
        if has_room {
            self.waiting.push(change);
        }
        has_room
    }
}

impl Association {
    /// Time at which the client of a binding may change something; `None` if it may now.
    pub(super) fn exhausted_until(&self, binding: &Binding) -> Option<BootTime> {
        Some(self.changes.ready(self.now, binding)).filter(|ready| *ready > self.now)
    }

    /// Lets a client with a row wait until `due` for the row of its new identity.
    pub(super) fn wait(&mut self, message: MessageType, identity: DeviceIdentity, binding: Binding, due: BootTime) {
        self.counts.count_remark(Remark::ChangeDelayed);
        if !self.changes.put(Change { message, identity, binding, due, is_rowless: false }) {
            self.counts.count_identity(message, IdentityResult::ChangeCap);
        }
    }

    /// Lets a client without a row wait until `due` for its row. `is_known` says whether the programs know the client
    /// already.
    pub(super) fn wait_for_row(
        &mut self,
        message: MessageType,
        identity: DeviceIdentity,
        binding: Binding,
        due: BootTime,
        is_known: bool,
    ) {
        self.counts.count_remark(Remark::ChangeDelayed);
        let client = binding.client;
        let change = Change { message, identity, binding, due, is_rowless: true };
        if self.changes.put(change.clone()) {
            self.outputs.extend(Some(Output::Stick(client)).filter(|_| !is_known));
        } else {
            let Change { identity, binding, .. } = change;
            let result = IdentityResult::ChangeCap;
            self.counts.count_identity(message, result);
            self.outputs.push_back(Output::DeviceRefused { identity, binding, result });
        }
    }

    /// Discards the waiting change of a client without a row.
    pub(super) fn give_up_row(&mut self, client: ClientKey, reason: RemovalReason) {
        if let Some(seen) = self.changes.binding_of(&client).map(|binding| binding.last_seen) {
            self.changes.forget(&client);
            self.outputs.push_back(Output::Unstick { client, reason, seen });
        }
    }

    /// Applies the waiting changes that are due.
    pub(super) fn settle_changes(&mut self, now: BootTime) {
        let due: Vec<Change> = self.changes.waiting.iter().filter(|change| change.due <= now).cloned().collect();
        for Change { message, identity, binding, is_rowless, .. } in due {
            let client = binding.client;
            match self.table.client(&client) {
                Some(id) => self.place(message, identity, self.table.held(id).binding.clone()),
                None if !is_rowless => drop(self.changes.forget(&client)),
                None if self.is_over(now, &binding) => self.give_up_row(client, RemovalReason::Expired),
                None => self.place(message, identity, binding),
            }
        }
    }

    /// Whether a lease has expired, or its address belongs to another client now.
    fn is_over(&self, now: BootTime, binding: &Binding) -> bool {
        let has_ended = binding.lease_expires.is_some_and(|end| end + self.settings.expiry_guard <= now);
        let holder = self.table.holder(binding.segment(), binding.ip);
        has_ended || holder.is_some_and(|holder| self.is_newer(holder, binding.last_seen))
    }

    /// Discards the waiting changes of clients on an interface that was removed.
    pub(super) fn forget_changes(&mut self, ifindex: u32) {
        let behind = self.changes.waiting().filter(|client| client.segment.ifindex == ifindex);
        for client in behind.copied().collect::<Vec<_>>() {
            self.give_up_row(client, RemovalReason::Disconnected);
            self.changes.forget(&client);
        }
    }
}
