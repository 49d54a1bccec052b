//! How often a client may change the table (SEC-8).
//!
//! Each change is written to the disk, and a client that releases its address and comes back, or that comes with another
//! identity each time, could wear out a flash memory. So a client has a budget: a few changes at once, then one a minute.
//! Its Ethernet source has a larger one, or a station that invents client identifiers would have no limit; a relay has
//! none of its own, because it speaks for many.
//!
//! Removals are never delayed, and the first row of a client needs no budget: what a client makes go is charged. Who has
//! used up its budget waits: for its row, if it has none; else for the row of its new identity, and keeps the row of the
//! one before, with a lease that goes on. The newest identity counts. Nothing of it is shown, told or written before.

use tr111_common::{abi::ClientKey, dhcp4::MessageType};

use super::{Association, Binding, IdentityResult, Output, Remark, RemovalReason, Settings, keys::Keys};
use crate::{budget::Budgets, identity::DeviceIdentity, time::BootTime};

/// Clients that may wait at a time; one more is refused. A host on the LAN can invent clients.
const WAITING_MAXIMUM: usize = 1_024;
/// What an Ethernet source may change, as a multiple of what a client may.
const SENDER: u32 = 8;

/// A change that waits.
#[derive(Clone)]
struct Change {
    /// The request that brought the identity.
    message: MessageType,
    identity: DeviceIdentity,
    /// The binding that its client will have, where it has none yet; else what it was when it began to wait.
    binding: Binding,
    /// When the client has a change left.
    due: BootTime,
    /// The client has no row, and the programs know it all the same: its RELEASE has to be heard.
    is_rowless: bool,
}

/// The budgets, and who waits for them.
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

    /// Charges the client of a binding, and its Ethernet source, with a change.
    pub(super) fn charge(&mut self, now: BootTime, binding: &Binding) {
        self.clients.spend(self.keys.client(&binding.client), now);
        if let Some(sender) = self.sender(binding) {
            self.senders.spend(sender, now);
        }
    }

    /// When the client of a binding has a change left; `now` if it has one already.
    fn ready(&self, now: BootTime, binding: &Binding) -> BootTime {
        // As a rule nobody owes anything, and no hash is needed.
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

    /// When to settle the next.
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        self.waiting.iter().map(|change| change.due).min()
    }

    /// The clients that wait.
    pub(super) fn waiting(&self) -> impl ExactSizeIterator<Item = &ClientKey> {
        self.waiting.iter().map(|change| &change.binding.client)
    }

    /// How many of them have no row.
    pub(super) fn rowless(&self) -> usize {
        self.waiting.iter().filter(|change| change.is_rowless).count()
    }

    fn get(&self, client: &ClientKey) -> Option<&Change> {
        self.waiting.iter().find(|change| change.binding.client == *client)
    }

    /// The identity for whose row a client waits.
    pub(super) fn identity_of(&self, client: &ClientKey) -> Option<&DeviceIdentity> {
        self.get(client).map(|change| &change.identity)
    }

    /// The binding for which a client without a row waits.
    pub(super) fn binding_of(&self, client: &ClientKey) -> Option<&Binding> {
        self.get(client).filter(|change| change.is_rowless).map(|change| &change.binding)
    }

    /// The client waits no more; whether it did.
    pub(super) fn forget(&mut self, client: &ClientKey) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|change| change.binding.client != *client);
        self.waiting.len() < before
    }

    /// Lets a change wait, in place of an earlier one of its client. Whether there was room.
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
    /// When the client of a binding has a change left, if it has none now.
    pub(super) fn exhausted_until(&self, binding: &Binding) -> Option<BootTime> {
        Some(self.changes.ready(self.now, binding)).filter(|ready| *ready > self.now)
    }

    /// Lets the identity that a client with a row gave wait until `due`.
    pub(super) fn wait(&mut self, message: MessageType, identity: DeviceIdentity, binding: Binding, due: BootTime) {
        self.counts.count_remark(Remark::ChangeDelayed);
        if !self.changes.put(Change { message, identity, binding, due, is_rowless: false }) {
            self.counts.count_identity(message, IdentityResult::ChangeCap);
        }
    }

    /// Lets a client wait until `due` for its row. `is_known`: the programs know the client already.
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

    /// A client without a row waits no more for one.
    pub(super) fn give_up_row(&mut self, client: ClientKey, reason: RemovalReason) {
        if self.changes.binding_of(&client).is_some() {
            self.changes.forget(&client);
            self.outputs.push_back(Output::Unstick { client, reason });
        }
    }

    /// Lets changes happen whose time has come.
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

    /// Whether a lease has ended, or its address has gone to another client.
    fn is_over(&self, now: BootTime, binding: &Binding) -> bool {
        let has_ended = binding.lease_expires.is_some_and(|end| end + self.settings.expiry_guard <= now);
        let holder = self.table.holder(binding.segment(), binding.ip);
        has_ended || holder.is_some_and(|holder| self.is_newer(holder, binding.last_seen))
    }

    /// Nobody behind an interface that is no more waits any longer.
    pub(super) fn forget_changes(&mut self, ifindex: u32) {
        let behind = self.changes.waiting().filter(|client| client.segment.ifindex == ifindex);
        for client in behind.copied().collect::<Vec<_>>() {
            self.give_up_row(client, RemovalReason::Disconnected);
            self.changes.forget(&client);
        }
    }
}
