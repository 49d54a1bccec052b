//! Adds bindings to the table and removes them. All changes go through this module, so that outputs and counters agree
//! with the table.

use tr111_common::{abi::NeighbourKey, dhcp4::MessageType};

use super::{Association, Binding, IdentityResult, Output, Remark, RemovalReason, Source, table::Found};
use crate::{dhcp::HardwareAddress, identity::DeviceIdentity, time::BootTime};

/// Most bindings of a hardware address, per identity that it may have: boot loaders, operating systems and virtual
/// machines behind one address have a client identifier each.
const BINDINGS_PER_IDENTITY: usize = 8;
/// Most bindings in the table, per row that it may have. The kernel's map `STICKY` then has room for all clients.
const BINDINGS_PER_ROW: u32 = 2;

impl Association {
    /// Adds or updates the binding of a client under `identity`, after the ACK to `message`.
    pub(super) fn place(&mut self, message: MessageType, identity: DeviceIdentity, binding: Binding) {
        let client = binding.client;
        let found = self.table.look_up(&identity, &binding);
        let current = found.client;
        if [current, found.holder].into_iter().flatten().any(|id| self.is_newer(id, binding.last_seen)) {
            return;
        }
        let holder = found.holder.filter(|holder| Some(*holder) != current);
        if let Some(id) = current {
            if self.table.is_of(id, &identity) {
                self.changes.forget(&client);
                self.displace(holder, &identity, &binding, false);
                self.replace(id, binding);
                return;
            }
            if let Some(due) = self.exhausted_until(&binding).filter(|_| !self.is_denied(&identity, &binding.mac)) {
                // The client keeps the row of its present identity until the next identity's turn.
                self.wait(message, identity, binding.clone(), due);
                self.displace(holder, &self.table.identity_of(id).clone(), &binding, false);
                self.replace(id, binding);
                return;
            }
            // T-11: the client stays known to the programs, because it gets its new binding at once.
            self.take_out(id, RemovalReason::IdentityChanged);
        }
        let displaced = self.displace(holder, &identity, &binding, true);
        let refusal = if self.is_denied(&identity, &binding.mac) {
            Some(IdentityResult::Denied)
        } else {
            self.refusal(&found, &binding, displaced.is_some())
        };
        match refusal {
            None => {
                let is_known = self.changes.forget(&client) || current.is_some();
                if let Some(due) = self.exhausted_until(&binding).filter(|_| current.is_none()) {
                    self.wait_for_row(message, identity, binding, due, is_known);
                } else {
                    if let Some((id, _)) = displaced {
                        self.unwatch(self.table.held(id).binding.neighbour());
                    }
                    self.put_in(&found, identity, binding);
                    self.outputs.extend(Some(Output::Stick(client)).filter(|_| !is_known));
                }
            }
            Some(result) => {
                let seen = binding.last_seen;
                self.counts.count_identity(message, result);
                self.outputs.push_back(Output::DeviceRefused { identity, binding, result });
                if self.changes.forget(&client) || current.is_some() {
                    self.outputs.push_back(Output::Unstick { client, reason: RemovalReason::IdentityChanged, seen });
                }
            }
        }
        if let Some((id, reason)) = displaced {
            self.remove(id, reason);
        }
    }

    /// Whether a binding has newer information than `seen`. Events that were delayed in the ring may be older than what
    /// [`super::Input::LastAck`] told.
    pub(super) fn is_newer(&self, id: u32, seen: BootTime) -> bool {
        self.table.held(id).binding.last_seen > seen
    }

    /// Replaces the binding `id` by a newer one of the same client and identity.
    pub(super) fn replace(&mut self, id: u32, binding: Binding) {
        let seen = binding.last_seen;
        let before = &self.table.held(id).binding;
        let (neighbour, is_moved) =
            (before.neighbour(), before.mac != binding.mac || before.neighbour() != binding.neighbour());
        let changed = !before.differs_in_time_only(&binding) && self.exhausted_until(&binding).is_none();
        if changed {
            self.changes.charge(self.now, &binding);
        }
        self.table.replace(id, binding);
        if is_moved {
            self.table.liveness_mut(id).forget_station();
            self.unwatch(neighbour);
            self.watch(id);
        }
        self.renewed(id, seen, changed);
    }

    /// Handles an ACK at `seen` for an existing binding; `changed` says whether more than times changed.
    pub(super) fn renewed(&mut self, id: u32, seen: BootTime, changed: bool) {
        self.revive(id, seen);
        self.schedule(id);
        let (instance, binding) = (self.table.instance_of(id), self.table.held(id).binding.clone());
        self.outputs.push_back(Output::BindingRenewed { instance, binding, changed });
    }

    /// Requests recording of ARP messages from the address of a binding.
    pub(super) fn watch(&mut self, id: u32) {
        self.outputs.extend(self.table.held(id).binding.neighbour().map(Output::Watch));
    }

    /// Ends the recording of ARP messages from an address.
    pub(super) fn unwatch(&mut self, neighbour: Option<NeighbourKey>) {
        self.outputs.extend(neighbour.map(Output::Unwatch));
    }

    /// Removes the binding of the client that holds the address of `binding`, because an address belongs to one client.
    ///
    /// If a newcomer has the holder's identity, the caller has to remove the holder after it added the new binding, so
    /// that the row is kept.
    fn displace(
        &mut self,
        holder: Option<u32>,
        identity: &DeviceIdentity,
        binding: &Binding,
        is_newcomer: bool,
    ) -> Option<(u32, RemovalReason)> {
        let id = holder?;
        let holder = &self.table.held(id).binding;
        self.counts.count_remark(Remark::AddressReassigned);
        let same_identity = self.table.is_of(id, identity);
        let reason = if holder.mac == binding.mac && !same_identity {
            RemovalReason::IdentityChanged
        } else if holder.source == Source::Inform {
            RemovalReason::Disconnected
        } else {
            RemovalReason::Expired
        };
        if same_identity && is_newcomer {
            return Some((id, reason));
        }
        self.remove(id, reason);
        None
    }

    /// Whether the operator excludes the device from the table (GW-16).
    pub(super) fn is_denied(&self, identity: &DeviceIdentity, mac: &HardwareAddress) -> bool {
        self.settings.deny.iter().any(|deny| deny.matches(identity, mac))
    }

    /// Whether a row has the maximum of bindings, not counting `leaving` of them.
    pub(super) fn is_row_full(&self, row: u32, leaving: u32) -> bool {
        self.table.bindings_in(row) - leaving >= self.settings.max_bindings_per_row
    }

    /// The reason for which a new binding is refused (SEC-8).
    fn refusal(&self, found: &Found, binding: &Binding, replaces: bool) -> Option<IdentityResult> {
        // The programs know waiting clients like clients with a binding.
        let waiting = u32::try_from(self.changes.rowless()).unwrap_or(u32::MAX);
        let bindings = self.table.bindings().saturating_add(waiting) - u32::from(replaces);
        if found.row.is_none() && (self.table.rows() >= self.settings.max_rows || self.table.is_out_of_instances())
            || bindings >= self.settings.max_rows.saturating_mul(BINDINGS_PER_ROW)
        {
            return Some(IdentityResult::TableFull);
        }
        // A replaced binding has the same identity and makes room in its row.
        if found.row.is_some_and(|row| self.is_row_full(row, u32::from(replaces))) {
            return Some(IdentityResult::RowCap);
        }
        let most = self.settings.max_identities_per_mac as usize;
        let (identities, bindings, known) = self.table.brought_by(&binding.mac, found);
        let full = if known { bindings >= most.saturating_mul(BINDINGS_PER_IDENTITY) } else { identities >= most };
        full.then_some(IdentityResult::MacCap)
    }

    fn put_in(&mut self, found: &Found, identity: DeviceIdentity, binding: Binding) {
        let described = identity.clone();
        let inserted = self.table.insert(found, identity, binding.clone());
        self.revive(inserted.id, binding.last_seen);
        self.schedule(inserted.id);
        let instance = inserted.instance;
        if inserted.added {
            self.counts.count_addition(binding.source);
            self.outputs.push_back(Output::DeviceAdded { instance, identity: described, binding });
        } else {
            self.counts.count_remark(Remark::IdentityShared);
            self.outputs.push_back(Output::BindingAdded { instance, binding });
        }
        self.watch(inserted.id);
    }

    /// Removes a binding, and its row with the last one; the programs forget the client.
    pub(super) fn remove(&mut self, id: u32, reason: RemovalReason) {
        let binding = &self.table.held(id).binding;
        let (client, seen) = (binding.client, binding.last_seen);
        self.changes.forget(&client);
        self.take_out(id, reason);
        self.outputs.push_back(Output::Unstick { client, reason, seen });
    }

    fn take_out(&mut self, id: u32, reason: RemovalReason) {
        let removed = self.table.remove(id);
        let (instance, binding) = (removed.instance, removed.binding);
        if reason.is_up_to_client() {
            self.changes.charge(self.now, &binding);
        }
        // A newcomer may hold the address already (see `place`).
        let neighbour = binding.neighbour().filter(|_| self.table.holder(binding.segment(), binding.ip).is_none());
        match removed.row {
            Some(identity) => {
                self.counts.count_removal(reason);
                self.outputs.push_back(Output::DeviceRemoved { instance, identity, binding, reason });
            }
            None => self.outputs.push_back(Output::BindingRemoved { instance, binding, reason }),
        }
        self.unwatch(neighbour);
    }

    /// Schedules the next call of [`Association::wake`] for a binding.
    pub(super) fn schedule(&mut self, id: u32) {
        let (end, _) = self.end_of(id);
        self.table.schedule(id, end.min(self.table.held(id).liveness.due));
    }

    /// Handles what is due for a binding.
    pub(super) fn wake(&mut self, now: BootTime, id: u32) {
        let (end, reason) = self.end_of(id);
        if end <= now {
            self.remove(id, reason);
        } else if self.table.held(id).liveness.due <= now {
            self.look_after(now, id);
        } else {
            self.schedule(id);
        }
    }

    /// Time and reason of a binding's removal without further events.
    fn end_of(&self, id: u32) -> (BootTime, RemovalReason) {
        let held = self.table.held(id);
        let lease = match held.binding.lease_expires {
            Some(end) if !held.is_doubtful => end + self.settings.expiry_guard,
            _ => BootTime::NEVER,
        };
        let age = match (held.binding.source, self.settings.inform_maximum_age) {
            (Source::Inform, Some(age)) => held.binding.last_seen + age,
            _ => BootTime::NEVER,
        };
        let end = lease.min(age);
        if held.grace < end { (held.grace, RemovalReason::Refused) } else { (end, RemovalReason::Expired) }
    }
}
