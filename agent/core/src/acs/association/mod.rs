//! Whether a device is behind the gateway that it names (TR-111 1.2.3).
//!
//! DHCP has no integrity, so what a device tells of its gateway may be forged. The only defence is the gateway's own
//! ManageableDevice table (ACS-6): a device is associated with the gateway that it names as soon as a row of that table
//! has its identity, all elements of it. Until then its word is a [`Claim`], and the association stays what it was.
//!
//! ```text
//!                         device names a gateway
//!   the one on file ────────────────┬──────────────── another, or the first
//!         │                  its table is known?
//!     Unchanged             yes │         │ no
//!                    row with all elements?  Pending ──── table comes ──┐
//!                    yes │      │ no            ▲                       │
//!                  Validated  Refused ──────────┴── the next table decides anew
//! ```
//!
//! A table is known while the gateway notifies of changes; one that was read is true for the moment of reading, so it
//! decides what waits then and is not kept (ACS-5). The order in which device and table come makes no difference.
//!
//! What cannot be told from a device in the LAN is a relay there that speaks for a device elsewhere (ACS-7). Both sides
//! must be known to this ACS, or to one coupled with it (ACS-8): nobody else can give the table.

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

/// What is held of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The device.
    pub device: DeviceIdentity,
    /// The gateway that it is associated with.
    pub association: Option<Association>,
    /// What it says and nothing confirms.
    pub claim: Option<Claim>,
}

/// A device is behind a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// The gateway.
    pub gateway: GatewayIdentity,
    /// Whether a row of its table confirmed it.
    pub validated: bool,
    /// Since when.
    pub since: UnixTime,
}

/// A device says that it is behind a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The gateway.
    pub gateway: GatewayIdentity,
    /// Whether the gateway's table contradicts; if not, the table is awaited.
    pub refused: bool,
    /// Since when it says so.
    pub since: UnixTime,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It says what is on file; nothing more is needed (ACS-2).
    Unchanged,
    /// A row of the gateway's table confirms it, so it is on file now (ACS-3).
    Validated,
    /// Nothing confirms it, and it is on file because validation is off (ACS-6).
    Unvalidated,
    /// The gateway's table is awaited; the ACS may read it (ACS-5).
    Pending,
    /// The gateway's table contradicts: what is on file stays, and that is an alarm (ACS-3).
    Refused,
    /// The device names no gateway any more.
    Withdrawn,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Unchanged, Self::Validated, Self::Unvalidated, Self::Pending, Self::Refused, Self::Withdrawn];

    /// Its name for people and programs.
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

/// A record that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub device: DeviceIdentity,
    /// The gateway that it was about.
    pub gateway: GatewayIdentity,
    /// What became of the report that caused it, which may be an earlier one.
    pub outcome: Outcome,
    /// What is held now; `None` where that is nothing.
    pub record: Option<Record>,
}

/// Why a report was not taken. Nothing changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More devices than there may be.
    #[error("there are {limit} devices already, which acs.association.max_devices allows")]
    TooManyDevices {
        /// As many as there may be.
        limit: usize,
    },
    /// More rows than a table may have.
    #[error("the table has {rows} rows, where acs.association.max_table_rows allows {limit}")]
    TooManyRows {
        /// Rows of the table.
        rows: usize,
        /// As many as there may be.
        limit: usize,
    },
    /// The gateway says that there are more rows, or fewer: the table was read in parts, and changed meanwhile.
    #[error("ManageableDeviceNumberOfEntries is {entries}, and there are {rows} rows; read the table again")]
    Incomplete {
        /// What the gateway says.
        entries: usize,
        /// Rows that came.
        rows: usize,
    },
}

impl Refusal {
    /// Its name in the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooManyDevices { .. } => "too_many_devices",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::Incomplete { .. } => "incomplete",
        }
    }

    /// The names of all, for a metric that shows zeros.
    pub const LABELS: [&'static str; 3] = ["too_many_devices", "too_many_rows", "incomplete"];
}

/// How it is decided, and how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether claims are validated at all (ACS-6).
    pub validation: bool,
    /// How long a device may be missing in a table that is kept: gateways delay notifications by
    /// `ManageableDeviceNotificationLimit`.
    pub notification_delay: Duration,
    /// Most devices.
    pub max_devices: usize,
    /// Most claims. The oldest is forgotten for a new one.
    pub max_claims: usize,
    /// Most rows of one table.
    pub max_table_rows: usize,
    /// Most rows of all tables that are kept, each table counted as one row more. The oldest are forgotten for new ones.
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

/// What a gateway reports of its ManageableDevice table, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// ManageableDeviceNumberOfEntries.
    pub entries: usize,
    /// The rows, as many. `None` where a row's identity cannot be that of any device.
    pub rows: Vec<Option<DeviceIdentity>>,
    /// Whether the gateway notifies of every change, so that the table stays true until the next one.
    pub notifies: bool,
}

/// When something happened, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// For lengths of time.
    pub boot: BootTime,
    /// For people.
    pub unix: UnixTime,
}

/// The gateways of all devices.
#[derive(Debug)]
pub struct Associations {
    settings: Settings,
    file: File,
    changes: VecDeque<Change>,
}

impl Associations {
    /// None yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, file: File::default(), changes: VecDeque::new() }
    }

    /// Other settings from now on. What is held stays, until something new comes.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Takes a record that was stored, or that another server changed. That one may not know the table that decides.
    pub fn restore(&mut self, now: Moment, record: Record) {
        let device = record.device.clone();
        self.file.put(&device, Some(record));
        self.settle_by_kept(now, &device);
    }

    /// Takes it that another server forgot a device.
    pub fn remove(&mut self, device: &DeviceIdentity) {
        self.file.put(device, None);
    }

    /// A device reports its GatewayInfo; `None` where that is empty.
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
                // A claim of another gateway was given up.
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

    /// A gateway reports its ManageableDevice table, which decides what devices claimed of it. `Ok` gives the rows that
    /// cannot be of any device, and were passed over.
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
            // A table that was read is as it is; one that is notified may be late.
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

    /// When [`Associations::pass`] has something to do.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.file.first_wait().map(|(until, _)| until)
    }

    /// Time passed: claims that no notification made true are refused.
    pub fn pass(&mut self, now: Moment) {
        while let Some((until, device)) = self.file.first_wait()
            && until <= now.boot
        {
            let device = device.clone();
            self.file.end_wait(&device);
            self.settle_by_kept(now, &device);
        }
    }

    /// Decides the claim of a device by the table of the gateway that it names. Without one it stays pending.
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

    /// What changed, to be stored and told, in order.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// What is held of a device.
    pub fn get(&self, device: &DeviceIdentity) -> Option<&Record> {
        self.file.get(device)
    }

    /// Everything that is held, in the order of the identities, behind `after`.
    pub fn after<'a>(&'a self, after: Option<&DeviceIdentity>) -> impl Iterator<Item = &'a Record> {
        self.file.after(after)
    }

    /// Devices whose claim is refused, the oldest first.
    pub fn alarms(&self) -> impl Iterator<Item = &Record> {
        self.file.claimants().filter(|record| record.claim.as_ref().is_some_and(|claim| claim.refused))
    }

    /// How many there are of each.
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
                // What was accepted without validation and is confirmed now is no younger by that.
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
