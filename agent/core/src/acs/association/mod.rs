//! Decides which gateway each device is behind (TR-111 1.2.3).
//!
//! DHCP has no integrity protection, so the gateway that a device reports may be forged. The only defence is the
//! gateway's own ManageableDevice table (ACS-6): a device is associated with the gateway that it reports once a row of
//! that table has the device's identity, with all its elements. Until then the report is a [`Claim`] and the
//! association is unchanged.
//!
//! ```text
//!                         device reports a gateway
//!   the associated one ─────────────┬──────────────── another one, or the first one
//!         │                  its table is known?
//!     Unchanged             yes │         │ no
//!                    row with all elements?  Pending ── table arrives ──┐
//!                    yes │      │ no            ▲                       │
//!                  Validated  Refused ──────────┴── the next table decides again
//! ```
//!
//! A table stays known while the gateway notifies of changes. A table that the ACS read is valid only at that moment,
//! so it decides the claims that wait for it and is not stored (ACS-5). The order in which the reports of device and
//! table arrive does not matter.
//!
//! A relay in the LAN that acts for a device elsewhere cannot be distinguished from a device in the LAN (ACS-7). Device
//! and gateway have to be known to this ACS, or to one that is coupled with it (ACS-8): no other ACS can obtain the
//! table.

mod file;
#[cfg(test)]
mod tests;

pub use file::Tally;

use std::{collections::VecDeque, time::Duration};

use thiserror::Error;

use crate::{
    identity::{DeviceIdentity, GatewayIdentity},
    time::{BootTime, UnixTime},
};
use file::{File, Rows};

/// What is stored about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Identity of the device.
    pub device: DeviceIdentity,
    /// The device's current association.
    pub association: Option<Association>,
    /// The device's report that is not confirmed.
    pub claim: Option<Claim>,
}

/// Association of a device with the gateway that it is behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// Identity of the gateway.
    pub gateway: GatewayIdentity,
    /// Whether a row of the gateway's table confirmed the association.
    pub validated: bool,
    /// Time at which the association began.
    pub since: UnixTime,
}

/// A device's unconfirmed report of its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Identity of the gateway.
    pub gateway: GatewayIdentity,
    /// `true` if the gateway's table contradicts the claim, `false` while the claim waits for the table.
    pub refused: bool,
    /// Time at which the device first reported this gateway.
    pub since: UnixTime,
}

/// Result of a device's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device reported its current association; nothing else is needed (ACS-2).
    Unchanged,
    /// A row of the gateway's table confirms the report; the association is changed (ACS-3).
    Validated,
    /// Validation is off, so the association is changed without confirmation (ACS-6).
    Unvalidated,
    /// The gateway's table is not known. The ACS may read it (ACS-5).
    Pending,
    /// The gateway's table contradicts the report; the association is unchanged and an alarm is raised (ACS-3).
    Refused,
    /// The device no longer reports a gateway.
    Withdrawn,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 6] =
        [Self::Unchanged, Self::Validated, Self::Unvalidated, Self::Pending, Self::Refused, Self::Withdrawn];

    /// Name of the outcome in JSON, metrics and output.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Validated => "validated",
            Self::Unvalidated => "unvalidated",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// A change of a device's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Identity of the device.
    pub device: DeviceIdentity,
    /// The gateway of the report that caused the change.
    pub gateway: GatewayIdentity,
    /// Outcome of that report, which may be an earlier one.
    pub outcome: Outcome,
    /// The new record; `None` if nothing is stored any more.
    pub record: Option<Record>,
}

/// Reasons for which a report is refused. A refused report changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The greatest number of devices is reached.
    #[error("the limit of {limit} devices (acs.association.max_devices) is reached")]
    TooManyDevices {
        /// The greatest number of devices.
        limit: usize,
    },
    /// The table has more rows than allowed.
    #[error("the table has {rows} rows; acs.association.max_table_rows allows {limit}")]
    TooManyRows {
        /// Rows of the reported table.
        rows: usize,
        /// The greatest number of rows in one table.
        limit: usize,
    },
    /// The number of rows differs from ManageableDeviceNumberOfEntries: the table changed while it was read in parts.
    #[error("ManageableDeviceNumberOfEntries is {entries}, but the table has {rows} rows; read the table again")]
    Incomplete {
        /// The value of ManageableDeviceNumberOfEntries.
        entries: usize,
        /// Rows that were reported.
        rows: usize,
    },
}

impl Refusal {
    /// Name of the reason in the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooManyDevices { .. } => "too_many_devices",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::Incomplete { .. } => "incomplete",
        }
    }

    /// Names of all reasons, for a metric that shows zeros.
    pub const LABELS: [&'static str; 3] = ["too_many_devices", "too_many_rows", "incomplete"];
}

/// Rules and limits of the associations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether associations need the confirmation of the gateway's table (ACS-6).
    pub validation: bool,
    /// How long a device may be missing in a stored table: gateways delay their notifications by
    /// `ManageableDeviceNotificationLimit`.
    pub notification_delay: Duration,
    /// Greatest number of devices.
    pub max_devices: usize,
    /// Greatest number of claims. The oldest claim is discarded for a new one.
    pub max_claims: usize,
    /// Greatest number of rows in one table.
    pub max_table_rows: usize,
    /// Greatest number of rows in all stored tables; each table counts as one additional row. The oldest tables are
    /// discarded for new ones.
    pub max_kept_rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            validation: true,
            notification_delay: Duration::ZERO,
            max_devices: 4_000_000,
            max_claims: 65_536,
            max_table_rows: 65_536,
            max_kept_rows: 4_000_000,
        }
    }
}

/// A gateway's complete ManageableDevice table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The value of ManageableDeviceNumberOfEntries.
    pub entries: usize,
    /// The rows. `None` for a row whose identity no device can have.
    pub rows: Vec<Option<DeviceIdentity>>,
    /// Whether the gateway notifies of every change, so that the table stays valid until the next notification.
    pub notifies: bool,
}

/// The same moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// For durations.
    pub boot: BootTime,
    /// For timestamps that are shown.
    pub unix: UnixTime,
}

/// The associations of all devices.
#[derive(Debug)]
pub struct Associations {
    settings: Settings,
    file: File,
    changes: VecDeque<Change>,
}

impl Associations {
    /// No associations yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, file: File::default(), changes: VecDeque::new() }
    }

    /// Replaces the settings. Stored records are not checked again until the next report.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Adds a record from the store, or one that another server changed. A claim is decided if its table is known here.
    pub fn restore(&mut self, now: Moment, record: Record) {
        let device = record.device.clone();
        self.file.put(&device, Some(record));
        self.settle_by_kept(now, &device);
    }

    /// Removes a device that another server removed.
    pub fn remove(&mut self, device: &DeviceIdentity) {
        self.file.put(device, None);
    }

    /// Handles a device's report of its GatewayInfo; `None` if GatewayInfo is empty.
    pub fn report(
        &mut self,
        now: Moment,
        device: &DeviceIdentity,
        gateway: Option<GatewayIdentity>,
    ) -> Result<Outcome, Refusal> {
        let old = self.file.get(device).cloned();
        let Some(gateway) = gateway else { return Ok(self.withdraw(old)) };
        if old.is_none() && self.file.len() >= self.settings.max_devices {
            return Err(Refusal::TooManyDevices { limit: self.settings.max_devices });
        }
        let (association, claim) = old.map(|old| (old.association, old.claim)).unwrap_or_default();
        let on_file = association.as_ref().filter(|association| association.gateway == gateway);
        if on_file.is_some_and(|association| association.validated || !self.settings.validation) {
            if claim.is_some() {
                // The device gave up its claim on another gateway.
                let record = Record { device: device.clone(), association, claim: None };
                self.change(device, gateway, Outcome::Unchanged, Some(record));
            }
            return Ok(Outcome::Unchanged);
        }
        let again = claim.filter(|claim| claim.gateway == gateway);
        let delay = self.settings.notification_delay;
        let delayed = if again.is_some() { self.file.waits(device) } else { !delay.is_zero() };
        let outcome = match self.file.table(&gateway).map(|rows| rows.has(device)) {
            Some(true) => Outcome::Validated,
            _ if !self.settings.validation => Outcome::Unvalidated,
            Some(false) if !delayed => Outcome::Refused,
            _ => Outcome::Pending,
        };
        let since = again.as_ref().map_or(now.unix, |claim| claim.since);
        self.conclude(device, gateway, association, outcome, (now.unix, since));
        if outcome == Outcome::Pending && again.is_none() && delayed {
            self.file.wait(device, now.boot + delay);
        }
        while self.file.claims() > self.settings.max_claims {
            self.forget_oldest_claim();
        }
        Ok(outcome)
    }

    /// Handles a gateway's report of its ManageableDevice table, which decides the claims on the gateway. Returns the
    /// number of rows that were skipped because no device can have their identity.
    pub fn table(&mut self, now: Moment, gateway: &GatewayIdentity, table: Table) -> Result<usize, Refusal> {
        let Table { entries, rows, notifies } = table;
        let limit = self.settings.max_table_rows;
        if rows.len() > limit {
            return Err(Refusal::TooManyRows { rows: rows.len(), limit });
        }
        if entries != rows.len() {
            return Err(Refusal::Incomplete { entries, rows: rows.len() });
        }
        let total = rows.len();
        let known: Rows = rows.into_iter().flatten().collect();
        let ignored = total - known.reported();
        for device in self.file.claimants_of(gateway) {
            // A table that was read is current. A table from notifications may lag behind.
            if known.has(&device) {
                self.settle(now, &device, Outcome::Validated);
            } else if !(notifies && self.file.waits(&device)) {
                self.settle(now, &device, Outcome::Refused);
            }
        }
        self.file.keep(gateway, notifies.then_some(known));
        while self.file.kept_rows() > self.settings.max_kept_rows {
            self.file.forget_oldest_table();
        }
        Ok(ignored)
    }

    /// The next time at which [`Associations::pass`] has to be called.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.file.first_wait().map(|(until, _)| until)
    }

    /// Refuses the claims that no notification confirmed in time.
    pub fn pass(&mut self, now: Moment) {
        while let Some((until, device)) = self.file.first_wait()
            && until <= now.boot
        {
            let device = device.clone();
            self.file.end_wait(&device);
            self.settle_by_kept(now, &device);
        }
    }

    /// Decides a device's claim by the stored table of its gateway. Without that table the claim stays pending.
    fn settle_by_kept(&mut self, now: Moment, device: &DeviceIdentity) {
        let Some(claim) = self.file.get(device).and_then(|record| record.claim.as_ref()) else { return };
        match self.file.table(&claim.gateway).map(|rows| rows.has(device)) {
            Some(true) => self.settle(now, device, Outcome::Validated),
            Some(false) => self.settle(now, device, Outcome::Refused),
            None => {}
        }
    }

    fn settle(&mut self, now: Moment, device: &DeviceIdentity, outcome: Outcome) {
        let Some(Record { association, claim: Some(claim), .. }) = self.file.get(device).cloned() else { return };
        self.conclude(device, claim.gateway, association, outcome, (now.unix, claim.since));
    }

    fn withdraw(&mut self, old: Option<Record>) -> Outcome {
        let Some(Record { device, association, claim }) = old else { return Outcome::Unchanged };
        let named = association.map(|association| association.gateway).or(claim.map(|claim| claim.gateway));
        if let Some(gateway) = named {
            self.change(&device, gateway, Outcome::Withdrawn, None);
        }
        Outcome::Withdrawn
    }

    /// The next change that has to be stored and reported, in order.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// The record of a device.
    pub fn get(&self, device: &DeviceIdentity) -> Option<&Record> {
        self.file.get(device)
    }

    /// All records in the order of the identities, starting after `after`.
    pub fn after<'a>(&'a self, after: Option<&DeviceIdentity>) -> impl Iterator<Item = &'a Record> {
        self.file.after(after)
    }

    /// Devices with a refused claim, oldest claim first.
    pub fn alarms(&self) -> impl Iterator<Item = &Record> {
        self.file.claimants().filter(|record| record.claim.as_ref().is_some_and(|claim| claim.refused))
    }

    /// The current counts.
    pub fn tally(&self) -> Tally {
        self.file.tally()
    }

    fn conclude(
        &mut self,
        device: &DeviceIdentity,
        gateway: GatewayIdentity,
        association: Option<Association>,
        outcome: Outcome,
        (now, since): (UnixTime, UnixTime),
    ) {
        let (association, claim) = match outcome {
            Outcome::Validated | Outcome::Unvalidated => {
                let validated = outcome == Outcome::Validated;
                // The later confirmation of an association that was accepted without validation does not change its
                // start.
                let since = association.filter(|old| old.gateway == gateway).map_or(now, |old| old.since);
                (Some(Association { gateway: gateway.clone(), validated, since }), None)
            }
            _ => (association, Some(Claim { gateway: gateway.clone(), refused: outcome == Outcome::Refused, since })),
        };
        let record = Record { device: device.clone(), association, claim };
        if self.file.get(device) != Some(&record) {
            self.change(device, gateway, outcome, Some(record));
        }
    }

    fn change(&mut self, device: &DeviceIdentity, gateway: GatewayIdentity, outcome: Outcome, record: Option<Record>) {
        self.file.put(device, record.clone());
        self.changes.push_back(Change { device: device.clone(), gateway, outcome, record });
    }

    fn forget_oldest_claim(&mut self) {
        let Some(Record { device, association, claim: Some(claim) }) = self.file.claimants().next().cloned() else {
            return;
        };
        let record = association.map(|association| Record {
            device: device.clone(),
            association: Some(association),
            claim: None,
        });
        self.file.count_forgotten();
        self.change(&device, claim.gateway, Outcome::Withdrawn, record);
    }
}
