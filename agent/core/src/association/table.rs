//! The ManageableDevice table: rows, their bindings, and the indices that find them.
//!
//! The table keeps its own invariants: one row for an identity, at least one binding in a row, one binding for a
//! client. What may enter and leave, and when, is decided by its owner.

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

/// Most rows for which room is made in advance; none of it is resident before it is used.
const RESERVED_MAXIMUM: u32 = 1 << 20;

struct Row {
    identity: DeviceIdentity,
    instance: u32,
    /// The list of its bindings, oldest first.
    first: u32,
    last: u32,
    /// How many they are.
    bindings: u32,
    first_seen: BootTime,
    last_seen: BootTime,
}

/// A binding in its place.
pub(super) struct Held {
    pub(super) binding: Binding,
    /// After a NAK, when the binding goes unless an ACK comes (T-8); else never.
    pub(super) grace: BootTime,
    /// The lease had ended by what the store had, which may lack a renewal. Nobody knows before the station was asked.
    pub(super) is_doubtful: bool,
    pub(super) liveness: Liveness,
    row: u32,
    previous: u32,
    next: u32,
}

impl Held {
    /// A server vouches for the address.
    pub(super) fn is_leased(&self) -> bool {
        self.binding.source == super::Source::Request && self.grace == BootTime::NEVER
    }
}

/// What there is of a binding that is to enter.
pub(super) struct Found {
    /// The binding that its client has.
    pub(super) client: Option<u32>,
    /// The binding that has its address.
    pub(super) holder: Option<u32>,
    /// The row of its identity.
    pub(super) row: Option<u32>,
    hashes: Hashes,
    identity_hash: u64,
}

/// What an insertion did.
pub(super) struct Inserted {
    pub(super) id: u32,
    pub(super) instance: u32,
    /// The row is new too.
    pub(super) added: bool,
}

/// What a removal took.
pub(super) struct Removed {
    pub(super) binding: Binding,
    pub(super) instance: u32,
    /// The identity, where the row went with its last binding.
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
    /// An empty table for about `rows` rows. It may grow beyond, but an index that grows moves all that is in it, and
    /// the addition that makes it do so waits.
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

    /// A number that nobody on the LAN can choose.
    pub(super) fn hash_of(&self, client: &ClientKey) -> u64 {
        self.keys.client(client)
    }

    /// The binding of a client.
    pub(super) fn client(&self, client: &ClientKey) -> Option<u32> {
        self.client_at(self.keys.client(client), client)
    }

    fn client_at(&self, hash: u64, client: &ClientKey) -> Option<u32> {
        self.by_client.find(hash, |id| self.held[id].binding.client == *client)
    }

    /// The binding that has an address.
    pub(super) fn holder(&self, segment: Segment, ip: Ipv4Addr) -> Option<u32> {
        self.holder_at(self.keys.address(segment, ip), segment, ip)
    }

    fn holder_at(&self, hash: u64, segment: Segment, ip: Ipv4Addr) -> Option<u32> {
        self.by_address.find(hash, |id| {
            let binding = &self.held[id].binding;
            binding.ip == ip && binding.segment() == segment
        })
    }

    /// Whether a binding belongs to an identity's row.
    pub(super) fn is_of(&self, id: u32, identity: &DeviceIdentity) -> bool {
        self.identity_of(id) == identity
    }

    /// The identity of a binding's row.
    pub(super) fn identity_of(&self, id: u32) -> &DeviceIdentity {
        &self.rows[self.held[id].row].identity
    }

    /// What the table has of a binding that is to enter, and of its identity.
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

    /// How many bindings a row has.
    pub(super) fn bindings_in(&self, row: u32) -> u32 {
        self.rows[row].bindings
    }

    /// How many identities and bindings a hardware address has, and whether the row of what was looked up is among them.
    pub(super) fn brought_by(&self, mac: &HardwareAddress, found: &Found) -> (usize, usize, bool) {
        let of_mac = self.by_mac.all(found.hashes.mac).map(|id| &self.held[id]);
        let mut rows: Vec<u32> = of_mac.filter(|held| held.binding.mac == *mac).map(|held| held.row).collect();
        let bindings = rows.len();
        rows.sort_unstable();
        rows.dedup();
        let known = found.row.is_some_and(|row| rows.contains(&row));
        (rows.len(), bindings, known)
    }

    /// Whether no instance number is left.
    pub(super) fn is_out_of_instances(&self) -> bool {
        self.next_instance == u32::MAX
    }

    /// The instance number that the next row gets.
    pub(super) fn next_instance(&self) -> u32 {
        self.next_instance
    }

    /// Leaves out the instance numbers below `next`: they were given out before.
    pub(super) fn skip_instances(&mut self, next: u32) {
        self.next_instance = self.next_instance.max(next);
    }

    /// Adds the row of a record, without its bindings, unless its number is there already. Its identity must not be.
    ///
    /// The row breaks the table's invariant until [`Table::insert`] puts a binding in it.
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

    /// The instance number of a binding's row.
    pub(super) fn instance_of(&self, id: u32) -> u32 {
        self.rows[self.held[id].row].instance
    }

    /// The state of a binding's liveness.
    pub(super) fn liveness_mut(&mut self, id: u32) -> &mut Liveness {
        &mut self.held[id].liveness
    }

    /// Adds a binding to the row of its identity, to a new one where there is none. It was looked up just now, and its
    /// client has none.
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

    /// Puts a newer binding of the same client in place of the one that is there, and ends a grace. The client may be
    /// on another interface now, where it has no binding yet.
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

    /// Notes that the station of a binding was heard.
    pub(super) fn heard(&mut self, id: u32, at: BootTime) {
        let row = &mut self.rows[self.held[id].row];
        row.last_seen = row.last_seen.max(at);
    }

    /// Notes that the device of a binding was there.
    pub(super) fn touch(&mut self, id: u32, now: BootTime) {
        let held = &mut self.held[id];
        held.binding.last_seen = held.binding.last_seen.max(now);
        let row = &mut self.rows[held.row];
        row.last_seen = row.last_seen.max(now);
    }

    /// Notes that it has to be found out whether a binding's lease has ended.
    pub(super) fn doubt(&mut self, id: u32) {
        self.held[id].is_doubtful = true;
    }

    /// Notes when the lease of a binding ends that was doubtful.
    pub(super) fn settle_doubt(&mut self, id: u32, lease_expires: Option<BootTime>) {
        let held = &mut self.held[id];
        (held.is_doubtful, held.binding.lease_expires) = (false, lease_expires);
    }

    /// Notes who sent the requests of a binding, where a restart forgot it.
    pub(super) fn recall_sender(&mut self, id: u32, sender: [u8; 6]) {
        self.held[id].binding.sender.get_or_insert(sender);
    }

    /// Starts a grace, unless one runs.
    pub(super) fn start_grace(&mut self, id: u32, end: BootTime) {
        let grace = &mut self.held[id].grace;
        *grace = end.min(*grace);
    }

    /// Takes a binding away, and its row with it if it was the last.
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

    /// Sets when [`Table::poll`] gives a binding.
    pub(super) fn schedule(&mut self, id: u32, deadline: BootTime) {
        self.deadlines.schedule(id, deadline);
    }

    /// A binding whose deadline has come.
    pub(super) fn poll(&mut self, now: BootTime) -> Option<u32> {
        self.deadlines.poll(now)
    }

    /// When to poll again.
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        self.deadlines.next()
    }

    /// Every binding with its number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Held)> {
        self.held.iter()
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        // Numbers begin at 1.
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

/// The bindings of one row, the oldest first.
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
