//! Stores and restores the table across restarts of the agent (T-30, T-32).

use super::{Association, Output, Record};
use crate::time::BootTime;

impl Association {
    /// The row with this instance number, for the store; `None` if there is none.
    pub fn record(&self, instance: u32) -> Option<Record> {
        let device = self.table.device(instance)?;
        Some(Record {
            instance,
            identity: device.identity.clone(),
            first_seen: device.first_seen,
            last_seen: device.last_seen,
            bindings: device.bindings.cloned().collect(),
        })
    }

    /// Instance number of the next row. It is stored, so that no number is reused (T-32).
    pub fn next_instance(&self) -> u32 {
        self.table.next_instance()
    }

    /// Restores rows from the store. The programs are told of the clients; no row is reported as new.
    ///
    /// An expired lease is removed at the next [`super::Input::Tick`] if a [`super::Input::LastAck`] shows that the
    /// store lacks no renewal. Without that record, as after a loss of power, the station is probed first; if it cannot
    /// be probed, its lease has ended. All stations are probed within one probe interval.
    ///
    /// Not restored are: devices that the operator excludes now; bindings beyond the maximum of a row (the oldest are
    /// kept); and records that contradict the table or an earlier record: a client and an address have one binding, an
    /// identity has one row, and a row has at least one binding. A row whose instance number is in use gets a new
    /// number.
    ///
    /// Order at a start: [`super::Input::LocalAddresses`], this function, every [`super::Input::LastAck`] (newest
    /// first), then the ring. The grace period after a NAK (T-8) is not stored: liveness and lease decide instead.
    pub fn restore(&mut self, now: BootTime, records: impl IntoIterator<Item = Record>, next_instance: u32) {
        self.table.skip_instances(next_instance);
        for record in records {
            self.restore_row(now, record);
        }
    }

    /// Called after the last [`super::Input::LastAck`]: a lease that is still in doubt, and whose station cannot be
    /// probed, has ended.
    pub(super) fn settle_unasked(&mut self) {
        for client in std::mem::take(&mut self.unasked) {
            if let Some(id) = self.table.client(&client) {
                self.settle_doubt(id, self.table.held(id).binding.lease_expires);
            }
        }
    }

    fn restore_row(&mut self, now: BootTime, mut record: Record) {
        record.last_seen = record.last_seen.min(now);
        record.first_seen = record.first_seen.min(record.last_seen);
        for mut binding in std::mem::take(&mut record.bindings) {
            // After a reboot with a clock that is behind, all stored times may be years ahead. A lease ends no later
            // than if its ACK had arrived now (T-56).
            let left = binding.lease_expires.and_then(|end| end.since(binding.last_seen));
            binding.last_seen = binding.last_seen.min(now);
            binding.lease_expires = binding.lease_expires.map(|end| left.map_or(end, |left| end.min(now + left)));
            let mut found = self.table.look_up(&record.identity, &binding);
            let contradicts = found.client.is_some() || found.holder.is_some();
            let is_full = found.row.is_some_and(|row| self.is_row_full(row, 0));
            if is_full || contradicts || self.is_denied(&record.identity, &binding.mac) {
                continue;
            }
            found.row = found.row.or_else(|| self.table.restore_row(&found, &record));
            if found.row.is_none() && self.table.is_out_of_instances() {
                return;
            }
            let client = binding.client;
            let is_over = binding.lease_expires.is_some_and(|end| end + self.settings.expiry_guard <= now);
            // If the row's number is in use, the row gets another one.
            let inserted = self.table.insert(&found, record.identity.clone(), binding);
            self.watch(inserted.id);
            self.review(inserted.id, now);
            if is_over {
                self.table.doubt(inserted.id);
                self.unasked.extend(Some(client).filter(|_| !self.is_probed(inserted.id)));
            }
            self.schedule(inserted.id);
            self.outputs.push_back(Output::Stick(client));
        }
    }
}
