//! Storage of the associations: records, claims, tables and the indices between them. All changes are made here, so
//! that the indices stay consistent.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::Record;
use crate::{
    identity::{DeviceIdentity, GatewayIdentity},
    time::BootTime,
};

/// Counts of the stored associations, claims and tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Associations that a gateway's table confirmed.
    pub validated: u64,
    /// Associations that were accepted without validation.
    pub unvalidated: u64,
    /// Claims that wait for the gateway's table.
    pub pending: u64,
    /// Claims that the gateway's table contradicts.
    pub refused: u64,
    /// Stored tables.
    pub tables: u64,
    /// Rows of all stored tables.
    pub rows: u64,
    /// Claims that were discarded because of [`super::Settings::max_claims`].
    pub forgotten_claims: u64,
    /// Tables that were discarded because of [`super::Settings::max_kept_rows`].
    pub forgotten_tables: u64,
}

/// The identities in the rows of a table.
#[derive(Debug)]
pub(super) struct Rows {
    sorted: Box<[DeviceIdentity]>,
    reported: usize,
}

impl FromIterator<DeviceIdentity> for Rows {
    fn from_iter<T: IntoIterator<Item = DeviceIdentity>>(rows: T) -> Self {
        let mut sorted: Vec<_> = rows.into_iter().collect();
        let reported = sorted.len();
        sorted.sort_unstable();
        sorted.dedup();
        Self { sorted: sorted.into(), reported }
    }
}

impl Rows {
    /// Whether a row has the identity with all its elements (ACS-4). An empty product class equals a missing one.
    pub(super) fn has(&self, device: &DeviceIdentity) -> bool {
        self.sorted.binary_search(device).is_ok()
    }

    /// Number of identities that the gateway reported, including duplicates.
    pub(super) fn reported(&self) -> usize {
        self.reported
    }

    /// The table's share of [`super::Settings::max_kept_rows`]: an empty table counts as one row.
    fn weight(&self) -> usize {
        self.sorted.len() + 1
    }
}

#[derive(Debug)]
struct Device {
    record: Record,
    claim: Option<u64>,
}

#[derive(Debug, Default)]
struct Gateway {
    table: Option<(u64, Rows)>,
    /// Numbers of the claims that name the gateway.
    claims: BTreeSet<u64>,
}

/// Everything that is stored. Numbers increase, so the lowest number is the oldest.
#[derive(Debug, Default)]
pub(super) struct File {
    devices: BTreeMap<DeviceIdentity, Device>,
    gateways: BTreeMap<GatewayIdentity, Gateway>,
    claims: BTreeMap<u64, DeviceIdentity>,
    tables: BTreeMap<u64, GatewayIdentity>,
    /// For claims that a delayed notification may still confirm: the time at which they are refused.
    waits: BTreeMap<u64, BootTime>,
    last: u64,
    kept_rows: usize,
    tally: Tally,
}

impl File {
    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    pub(super) fn get(&self, device: &DeviceIdentity) -> Option<&Record> {
        self.devices.get(device).map(|device| &device.record)
    }

    pub(super) fn after(&self, after: Option<&DeviceIdentity>) -> impl Iterator<Item = &Record> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.devices.range((from, Bound::Unbounded)).map(|(_, device)| &device.record)
    }

    pub(super) fn claims(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn claimants(&self) -> impl Iterator<Item = &Record> {
        self.claims.values().filter_map(|device| self.get(device))
    }

    /// The devices that claim to be behind a gateway, oldest claim first.
    pub(super) fn claimants_of(&self, gateway: &GatewayIdentity) -> Vec<DeviceIdentity> {
        let claims = self.gateways.get(gateway).into_iter().flat_map(|gateway| &gateway.claims);
        claims.filter_map(|claim| self.claims.get(claim)).cloned().collect()
    }

    /// Defers until `until` the refusal of the device's claim by the stored table.
    pub(super) fn wait(&mut self, device: &DeviceIdentity, until: BootTime) {
        if let Some(claim) = self.claim_of(device) {
            self.waits.insert(claim, until);
        }
    }

    pub(super) fn waits(&self, device: &DeviceIdentity) -> bool {
        self.claim_of(device).is_some_and(|claim| self.waits.contains_key(&claim))
    }

    pub(super) fn end_wait(&mut self, device: &DeviceIdentity) {
        if let Some(claim) = self.claim_of(device) {
            self.waits.remove(&claim);
        }
    }

    /// The oldest deferred claim. A later claim has an earlier deadline only if the notification delay was shortened.
    pub(super) fn first_wait(&self) -> Option<(BootTime, &DeviceIdentity)> {
        let (claim, &until) = self.waits.first_key_value()?;
        Some((until, self.claims.get(claim)?))
    }

    fn claim_of(&self, device: &DeviceIdentity) -> Option<u64> {
        self.devices.get(device)?.claim
    }

    pub(super) fn table(&self, gateway: &GatewayIdentity) -> Option<&Rows> {
        self.gateways.get(gateway)?.table.as_ref().map(|(_, rows)| rows)
    }

    pub(super) fn kept_rows(&self) -> usize {
        self.kept_rows
    }

    pub(super) fn tally(&self) -> Tally {
        Tally { tables: self.tables.len() as u64, rows: (self.kept_rows - self.tables.len()) as u64, ..self.tally }
    }

    pub(super) fn count_forgotten(&mut self) {
        self.tally.forgotten_claims += 1;
    }

    /// Replaces the record of a device. A claim that names the same gateway as before keeps its number.
    pub(super) fn put(&mut self, device: &DeviceIdentity, record: Option<Record>) {
        let mut number = None;
        if let Some(old) = self.devices.remove(device) {
            self.count(&old.record, |count| *count -= 1);
            if let (Some(claim), Some(old)) = (old.claim, old.record.claim) {
                let same = record.as_ref().and_then(|record| record.claim.as_ref());
                let same = same.filter(|same| same.gateway == old.gateway);
                if same.is_none_or(|same| same.refused) {
                    self.waits.remove(&claim);
                }
                if same.is_some() {
                    number = Some(claim);
                } else {
                    self.claims.remove(&claim);
                    self.change_gateway(&old.gateway, |gateway| {
                        gateway.claims.remove(&claim);
                    });
                }
            }
        }
        let Some(record) = record.filter(|record| record.association.is_some() || record.claim.is_some()) else {
            return;
        };
        self.count(&record, |count| *count += 1);
        if let Some(claim) = record.claim.as_ref().filter(|_| number.is_none()) {
            self.last += 1;
            let last = self.last;
            number = Some(last);
            self.claims.insert(last, device.clone());
            self.change_gateway(&claim.gateway, |gateway| {
                gateway.claims.insert(last);
            });
        }
        self.devices.insert(device.clone(), Device { record, claim: number });
    }

    fn count(&mut self, record: &Record, change: impl Fn(&mut u64)) {
        if let Some(association) = &record.association {
            change(if association.validated { &mut self.tally.validated } else { &mut self.tally.unvalidated });
        }
        if let Some(claim) = &record.claim {
            change(if claim.refused { &mut self.tally.refused } else { &mut self.tally.pending });
        }
    }

    pub(super) fn keep(&mut self, gateway: &GatewayIdentity, rows: Option<Rows>) {
        self.last += 1;
        let table = rows.map(|rows| (self.last, rows));
        if let Some((number, rows)) = &table {
            self.tables.insert(*number, gateway.clone());
            self.kept_rows += rows.weight();
        }
        let mut old = None;
        self.change_gateway(gateway, |gateway| old = std::mem::replace(&mut gateway.table, table));
        if let Some((number, rows)) = old {
            self.tables.remove(&number);
            self.kept_rows -= rows.weight();
        }
    }

    pub(super) fn forget_oldest_table(&mut self) {
        if let Some(gateway) = self.tables.values().next().cloned() {
            self.tally.forgotten_tables += 1;
            self.keep(&gateway, None);
        }
    }

    /// Changes the entry of a gateway, and removes the entry if it becomes empty.
    fn change_gateway(&mut self, name: &GatewayIdentity, change: impl FnOnce(&mut Gateway)) {
        let gateway = self.gateways.entry(name.clone()).or_default();
        change(gateway);
        if gateway.table.is_none() && gateway.claims.is_empty() {
            self.gateways.remove(name);
        }
    }
}

#[cfg(test)]
impl File {
    /// Whether the indices match the stored records.
    pub(super) fn is_consistent(&self) -> bool {
        let claims = self.claims.iter().all(|(claim, device)| self.claim_of(device) == Some(*claim));
        let numbered = self.devices.values().filter(|device| device.claim.is_some()).count();
        let indexed: usize = self.gateways.values().map(|gateway| gateway.claims.len()).sum();
        let tables = self.gateways.values().filter(|gateway| gateway.table.is_some()).count();
        claims
            && (numbered, indexed, tables) == (self.claims.len(), self.claims.len(), self.tables.len())
            && self.waits.keys().all(|claim| self.claims.contains_key(claim))
    }
}
