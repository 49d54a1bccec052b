//! The table over a restart of the agent (T-30, T-32).

use super::{Association, Output, Record};
use crate::time::BootTime;

impl Association {
    /// A row as it is to be kept; `None` where there is no such row.
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

    /// The instance number that the next row gets; kept, so that none is given out twice (T-32).
    pub fn next_instance(&self) -> u32 {
        self.table.next_instance()
    }

    /// Puts back what was kept. Clients are told to the programs, and nobody is told of new rows.
    ///
    /// Leases that are over go with the next [`super::Input::Tick`], if a [`super::Input::LastAck`] shows that the store
    /// lacks no renewal. Without one, as after a loss of power, the station is asked first; where nobody can be asked, the
    /// lease is over. Stations are asked for within a probe interval. Who is denied a row meanwhile, what is more than a
    /// row may hold now (the oldest stay), and what contradicts the table or an earlier record, is left out: a client or
    /// an address has one binding, an identity one row, and a row without a binding is none. A number that is taken is
    /// replaced.
    ///
    /// At start: first [`super::Input::LocalAddresses`], then this, then every [`super::Input::LastAck`], the newest
    /// first, then the ring. A grace after a NAK (T-8) is not kept: liveness and the lease decide.
    pub fn restore(&mut self, now: BootTime, records: impl IntoIterator<Item = Record>, next_instance: u32) {
        self.table.skip_instances(next_instance);
        for record in records {
            self.restore_row(now, record);
        }
    }

    /// Every [`super::Input::LastAck`] was read: what is doubtful now and cannot be asked has ended.
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
            // After a reboot with a clock that is behind, everything is years ahead. A lease ends no later than it would if it
            // were heard of now (T-56).
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
            // Without a row the number is taken, and the row gets another.
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
