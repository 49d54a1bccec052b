//! The ManageableDevice table: rows, bindings, and the indices over them.
//!
//! The table maintains its invariants: one row per identity, at least one binding per row, one binding per client. The
//! owner decides what is added and removed.

use std::{hint::black_box, net::Ipv4Addr};

use tr111_common::{abi::ClientKey, headers::Segment};

use super::{
    Binding, Device, Record, index::Index, instances::Instances, keys::Keys, liveness::Liveness, wheel::Wheel,
};
use crate::{
    dhcp::HardwareAddress,
    identity::DeviceIdentity,
    slab::{NONE, Slab},
    time::BootTime,
};

/// Most rows for which memory is reserved in advance; it is not resident before it is used.
const RESERVED_MAXIMUM: u32 = 1 << 20;

struct Row {
    identity: DeviceIdentity,
    instance: u32,
    /// List of the row's bindings, oldest first.
    first: u32,
    last: u32,
    bindings: u32,
    first_seen: BootTime,
    last_seen: BootTime,
}

/// A binding with its state in the table.
pub(super) struct Held {
    pub(super) binding: Binding,
    /// After a NAK, the time at which the binding is removed without an ACK (T-8); else never.
    pub(super) grace: BootTime,
    /// Whether the stored lease has expired and a renewal may be missing in the store; the station has to be probed.
    pub(super) is_doubtful: bool,
    pub(super) liveness: Liveness,
    row: u32,
    previous: u32,
    next: u32,
}

impl Held {
    /// Whether a server assigned the address, and has not refused it since.
    pub(super) fn is_leased(&self) -> bool {
        self.binding.source == super::Source::Request && self.grace == BootTime::NEVER
    }
}

/// Result of a look-up before an insertion.
pub(super) struct Found {
    /// The present binding of the client.
    pub(super) client: Option<u32>,
    /// The present binding of the address.
    pub(super) holder: Option<u32>,
    /// The row of the identity.
    pub(super) row: Option<u32>,
    hashes: Hashes,
    identity_hash: u64,
}

pub(super) struct Inserted {
    pub(super) id: u32,
    pub(super) instance: u32,
    /// Whether a new row was added.
    pub(super) added: bool,
}

pub(super) struct Removed {
    pub(super) binding: Binding,
    pub(super) instance: u32,
    /// The row's identity, if the row was removed with its last binding.
    pub(super) row: Option<DeviceIdentity>,
}

pub(super) struct Table {
    keys: Keys,
    rows: Slab<Row>,
    held: Slab<Held>,
    deadlines: Wheel,
    by_identity: Index,
    by_instance: Instances,
    by_client: Index,
    by_address: Index,
    by_mac: Index,
    next_instance: u32,
}

impl Table {
    /// An empty table with capacity for about `rows` rows. It can grow, but growing an index moves all its entries
    /// during one insertion.
    pub(super) fn new(keys: Keys, rows: u32) -> Self {
        let capacity = rows.min(RESERVED_MAXIMUM) as usize;
        Self {
            keys,
            rows: Slab::with_capacity(capacity),
            held: Slab::with_capacity(capacity),
            deadlines: Wheel::with_capacity(capacity),
            by_identity: Index::with_capacity(capacity),
            by_instance: Instances::default(),
            by_client: Index::with_capacity(capacity),
            by_address: Index::with_capacity(capacity),
            by_mac: Index::with_capacity(capacity),
            next_instance: 1,
        }
    }

    pub(super) fn rows(&self) -> u32 {
        self.rows.len()
    }

    pub(super) fn bindings(&self) -> u32 {
        self.held.len()
    }

    pub(super) fn held(&self, id: u32) -> &Held {
        &self.held[id]
    }

    /// A keyed hash of the client, which LAN hosts cannot choose.
    pub(super) fn hash_of(&self, client: &ClientKey) -> u64 {
        self.keys.client(client)
    }

    pub(super) fn client(&self, client: &ClientKey) -> Option<u32> {
        self.client_at(self.keys.client(client), client)
    }

    fn client_at(&self, hash: u64, client: &ClientKey) -> Option<u32> {
        self.by_client.find(hash, |id| self.held[id].binding.client == *client)
    }

    /// The binding that holds an address.
    pub(super) fn holder(&self, segment: Segment, ip: Ipv4Addr) -> Option<u32> {
        self.holder_at(self.keys.address(segment, ip), segment, ip)
    }

    fn holder_at(&self, hash: u64, segment: Segment, ip: Ipv4Addr) -> Option<u32> {
        self.by_address.find(hash, |id| {
            let binding = &self.held[id].binding;
            binding.ip == ip && binding.segment() == segment
        })
    }

    /// Whether a binding belongs to the row of this identity.
    pub(super) fn is_of(&self, id: u32, identity: &DeviceIdentity) -> bool {
        self.identity_of(id) == identity
    }

    pub(super) fn identity_of(&self, id: u32) -> &DeviceIdentity {
        &self.rows[self.held[id].row].identity
    }

    /// Looks up the client, the address and the identity of a new binding.
    pub(super) fn look_up(&self, identity: &DeviceIdentity, binding: &Binding) -> Found {
        let hashes = hashes(self.keys, binding);
        let identity_hash = self.keys.identity(identity);
        self.by_identity.warm(identity_hash);
        self.warm(&hashes);
        let client = self.client_at(hashes.client, &binding.client);
        let holder = self.holder_at(hashes.address, binding.segment(), binding.ip);
        let row = self.by_identity.find(identity_hash, |row| self.rows[row].identity == *identity);
        Found { client, holder, row, hashes, identity_hash }
    }

    fn warm(&self, hashes: &Hashes) {
        self.by_client.warm(hashes.client);
        self.by_address.warm(hashes.address);
        self.by_mac.warm(hashes.mac);
    }

    pub(super) fn bindings_in(&self, row: u32) -> u32 {
        self.rows[row].bindings
    }

    /// Number of identities and bindings of a hardware address, and whether the row in `found` is among these.
    pub(super) fn brought_by(&self, mac: &HardwareAddress, found: &Found) -> (usize, usize, bool) {
        let of_mac = self.by_mac.all(found.hashes.mac).map(|id| &self.held[id]);
        let mut rows: Vec<u32> = of_mac.filter(|held| held.binding.mac == *mac).map(|held| held.row).collect();
        let bindings = rows.len();
        rows.sort_unstable();
        rows.dedup();
        let known = found.row.is_some_and(|row| rows.contains(&row));
        (rows.len(), bindings, known)
    }

    pub(super) fn is_out_of_instances(&self) -> bool {
        self.next_instance == u32::MAX
    }

    pub(super) fn next_instance(&self) -> u32 {
        self.next_instance
    }

    /// Skips the instance numbers below `next`, which have been used.
    pub(super) fn skip_instances(&mut self, next: u32) {
        self.next_instance = self.next_instance.max(next);
    }

    /// Adds a stored row without its bindings; `None` if its instance number is in use. Its identity must not have a
    /// row.
    ///
    /// The row violates the table's invariant until [`Table::insert`] adds a binding.
    pub(super) fn restore_row(&mut self, found: &Found, record: &Record) -> Option<u32> {
        if self.by_instance.get(record.instance).is_some() {
            return None;
        }
        let row = self.add_row(
            found.identity_hash,
            record.identity.clone(),
            record.instance,
            [record.first_seen, record.last_seen],
        );
        self.skip_instances(record.instance.saturating_add(1));
        Some(row)
    }

    pub(super) fn instance_of(&self, id: u32) -> u32 {
        self.rows[self.held[id].row].instance
    }

    pub(super) fn liveness_mut(&mut self, id: u32) -> &mut Liveness {
        &mut self.held[id].liveness
    }

    /// Adds a binding to the row of its identity, or to a new row. `found` has to be current, and the client must not
    /// have a binding.
    pub(super) fn insert(&mut self, found: &Found, identity: DeviceIdentity, binding: Binding) -> Inserted {
        let seen = binding.last_seen;
        let row = found.row.unwrap_or_else(|| {
            let instance = self.next_instance;
            self.skip_instances(instance.saturating_add(1));
            self.add_row(found.identity_hash, identity, instance, [seen; 2])
        });
        let (hashes, previous) = (&found.hashes, self.rows[row].last);
        let liveness = Liveness::heard(seen);
        let id = self.held.insert(Held {
            binding,
            grace: BootTime::NEVER,
            is_doubtful: false,
            liveness,
            row,
            previous,
            next: NONE,
        });
        match self.held.get_mut(previous) {
            Some(previous) => previous.next = id,
            None => self.rows[row].first = id,
        }
        let entry = &mut self.rows[row];
        entry.last = id;
        entry.bindings += 1;
        entry.last_seen = entry.last_seen.max(seen);
        self.by_client.insert(hashes.client, id);
        self.by_address.insert(hashes.address, id);
        self.by_mac.insert(hashes.mac, id);
        Inserted { id, instance: self.rows[row].instance, added: found.row.is_none() }
    }

    fn add_row(&mut self, hash: u64, identity: DeviceIdentity, instance: u32, seen: [BootTime; 2]) -> u32 {
        let [first_seen, last_seen] = seen;
        let row = Row { identity, instance, first: NONE, last: NONE, bindings: 0, first_seen, last_seen };
        let row = self.rows.insert(row);
        self.by_identity.insert(hash, row);
        self.by_instance.insert(instance, row);
        row
    }

    /// Replaces a binding by a newer one of the same client, and ends the grace period. The new binding may be on
    /// another interface, where the client must not have a binding.
    pub(super) fn replace(&mut self, id: u32, binding: Binding) {
        let keys = self.keys;
        let (old, new) = (hashes(keys, &self.held[id].binding), hashes(keys, &binding));
        let held = &mut self.held[id];
        (held.grace, held.is_doubtful) = (BootTime::NEVER, false);
        let row = &mut self.rows[held.row];
        row.last_seen = row.last_seen.max(binding.last_seen);
        held.binding = binding;
        let indices = [&mut self.by_client, &mut self.by_address, &mut self.by_mac];
        for ((index, old), new) in indices.into_iter().zip(old.each()).zip(new.each()) {
            if old != new {
                index.remove(old, id);
                index.insert(new, id);
            }
        }
    }

    /// Updates the last-seen time of a binding's row.
    pub(super) fn heard(&mut self, id: u32, at: BootTime) {
        let row = &mut self.rows[self.held[id].row];
        row.last_seen = row.last_seen.max(at);
    }

    /// Updates the last-seen times of a binding and of its row.
    pub(super) fn touch(&mut self, id: u32, now: BootTime) {
        let held = &mut self.held[id];
        held.binding.last_seen = held.binding.last_seen.max(now);
        let row = &mut self.rows[held.row];
        row.last_seen = row.last_seen.max(now);
    }

    pub(super) fn doubt(&mut self, id: u32) {
        self.held[id].is_doubtful = true;
    }

    pub(super) fn settle_doubt(&mut self, id: u32, lease_expires: Option<BootTime>) {
        let held = &mut self.held[id];
        (held.is_doubtful, held.binding.lease_expires) = (false, lease_expires);
    }

    /// Sets the Ethernet source of a binding, if it is unknown since a restart.
    pub(super) fn recall_sender(&mut self, id: u32, sender: [u8; 6]) {
        self.held[id].binding.sender.get_or_insert(sender);
    }

    /// Starts the grace period; an earlier end is kept.
    pub(super) fn start_grace(&mut self, id: u32, end: BootTime) {
        let grace = &mut self.held[id].grace;
        *grace = end.min(*grace);
    }

    /// Removes a binding, and its row with the last one.
    pub(super) fn remove(&mut self, id: u32) -> Removed {
        let hashes = hashes(self.keys, &self.held[id].binding);
        self.warm(&hashes);
        self.deadlines.warm(id);
        black_box(self.rows[self.held[id].row].instance);
        let Held { binding, row, previous, next, .. } = self.held.remove(id).expect("callers found it just now");
        self.by_client.remove(hashes.client, id);
        self.by_address.remove(hashes.address, id);
        self.by_mac.remove(hashes.mac, id);
        self.deadlines.cancel(id);
        match self.held.get_mut(previous) {
            Some(previous) => previous.next = next,
            None => self.rows[row].first = next,
        }
        match self.held.get_mut(next) {
            Some(next) => next.previous = previous,
            None => self.rows[row].last = previous,
        }
        let entry = &mut self.rows[row];
        entry.bindings -= 1;
        let (instance, is_empty) = (entry.instance, entry.bindings == 0);
        let row = if is_empty { self.remove_row(row) } else { None };
        Removed { binding, instance, row }
    }

    fn remove_row(&mut self, row: u32) -> Option<DeviceIdentity> {
        let Row { identity, instance, .. } = self.rows.remove(row)?;
        self.by_identity.remove(self.keys.identity(&identity), row);
        self.by_instance.remove(instance);
        Some(identity)
    }

    /// Sets the deadline at which [`Table::poll`] returns a binding.
    pub(super) fn schedule(&mut self, id: u32, deadline: BootTime) {
        self.deadlines.schedule(id, deadline);
    }

    /// Returns a binding whose deadline has passed.
    pub(super) fn poll(&mut self, now: BootTime) -> Option<u32> {
        self.deadlines.poll(now)
    }

    /// Time of the next call of [`Table::poll`].
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        self.deadlines.next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Held)> {
        self.held.iter()
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        // Instance numbers start at 1.
        self.devices_after(0)
    }

    pub(super) fn devices_after(&self, instance: u32) -> impl Iterator<Item = Device<'_>> {
        self.by_instance.after(instance).map(|row| self.describe(row))
    }

    pub(super) fn device(&self, instance: u32) -> Option<Device<'_>> {
        self.by_instance.get(instance).map(|row| self.describe(row))
    }

    fn describe(&self, row: u32) -> Device<'_> {
        let Row { identity, instance, first, first_seen, last_seen, .. } = &self.rows[row];
        Device {
            instance: *instance,
            identity,
            first_seen: *first_seen,
            last_seen: *last_seen,
            bindings: Bindings { held: &self.held, next: *first },
        }
    }
}

struct Hashes {
    client: u64,
    address: u64,
    mac: u64,
}

impl Hashes {
    fn each(&self) -> [u64; 3] {
        [self.client, self.address, self.mac]
    }
}

fn hashes(keys: Keys, binding: &Binding) -> Hashes {
    Hashes {
        client: keys.client(&binding.client),
        address: keys.address(binding.segment(), binding.ip),
        mac: keys.mac(&binding.mac),
    }
}

/// Iterator over the bindings of one row, oldest first.
#[derive(Clone)]
pub struct Bindings<'a> {
    held: &'a Slab<Held>,
    next: u32,
}

impl<'a> Iterator for Bindings<'a> {
    type Item = &'a Binding;

    fn next(&mut self) -> Option<Self::Item> {
        let held = self.held.get(self.next)?;
        self.next = held.next;
        Some(&held.binding)
    }
}

impl std::fmt::Debug for Bindings<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.clone()).finish()
    }
}
