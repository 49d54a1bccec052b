//! Which gateway each device is behind: stores, counts and announces what the core decides.

mod record;

use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};
use tr111_core::{
    acs::{
        self, Now,
        association::{self, Associations, Change, Moment, Outcome, Record, Settings, Table, Tally},
    },
    identity::{DeviceIdentity, GatewayIdentity},
    short::Short,
};

use super::{Acs, Error, describe};
use crate::{
    control::message::{AssociationChange, Happening},
    registry::Whole,
    service::Clock,
    telemetry::{AcsMetrics, AssociationMetrics},
};

/// Sleep while no deadline is set.
const NEVER: Duration = Duration::from_hours(24);

/// The part of the state of associations that all clones of an [`Acs`] share.
#[derive(Debug)]
pub(super) struct Shared {
    associations: Mutex<Associations>,
    metrics: OnceLock<AssociationMetrics>,
    /// Notified when the next deadline has become earlier.
    due: Notify,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            associations: Mutex::new(Associations::new(Settings::default())),
            metrics: OnceLock::new(),
            due: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Associations> {
        // A panic cannot leave a half-made change: each report is taken as a whole.
        self.associations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acs {
    /// Takes a device's report of its gateway; `None` if the device knows no gateway (ACS-1 to ACS-4).
    pub async fn report_gateway(
        &self,
        device: &DeviceIdentity,
        gateway: Option<GatewayIdentity>,
    ) -> Result<Outcome, Error> {
        let now = self.moment();
        let (outcome, changes) = self.associate(|associations| associations.report(now, device, gateway));
        self.count(|metrics| metrics.gateway_info(outcome));
        self.settle(changes).await?;
        self.0.association.due.notify_one();
        Ok(outcome?)
    }

    /// Takes a gateway's report of its whole ManageableDevice table, which decides the claims of devices (ACS-5).
    /// Returns how many rows cannot belong to any device, and the records that changed.
    pub async fn report_table(&self, gateway: &GatewayIdentity, table: Table) -> Result<(usize, Vec<Record>), Error> {
        let now = self.moment();
        let (taken, changes) = self.associate(|associations| associations.table(now, gateway, table));
        self.count(|metrics| metrics.manageable_device(taken.map(drop)));
        let records = changes.iter().filter_map(|change| change.record.clone()).collect();
        self.settle(changes).await?;
        Ok((taken?, records))
    }

    /// Returns the association and the claim of a device.
    pub fn association(&self, device: &DeviceIdentity) -> Option<Record> {
        self.0.association.lock().get(device).cloned()
    }

    /// Returns at most `limit` records that follow `after` in the order of device identities.
    pub fn associations(&self, after: Option<&DeviceIdentity>, limit: usize) -> Vec<Record> {
        self.0.association.lock().after(after).take(limit).cloned().collect()
    }

    /// Returns at most `limit` records whose claim the gateway's table contradicts, and how many there are.
    pub fn alarms(&self, limit: usize) -> (Vec<Record>, u64) {
        let associations = self.0.association.lock();
        (associations.alarms().take(limit).cloned().collect(), associations.tally().refused)
    }

    /// Returns the number of records in each state.
    pub fn association_tally(&self) -> Tally {
        self.0.association.lock().tally()
    }

    /// Counts into `metrics` from now on.
    pub fn count_associations(&self, metrics: AssociationMetrics) {
        metrics.show(self.association_tally());
        // The first call wins; there is only one.
        let _ = self.0.association.metrics.set(metrics);
    }

    pub(super) fn set_association(&self, settings: Settings) {
        self.0.association.lock().set(settings);
    }

    /// Refuses claims that no notification confirmed in time, until the agent ends.
    pub async fn watch_associations(self) {
        loop {
            let due = self.0.association.lock().next_deadline();
            let wait = due.map_or(NEVER, |due| due.since(Clock::now()).unwrap_or_default());
            tokio::select! {
                () = sleep(wait) => {}
                () = self.0.association.due.notified() => continue,
            }
            let now = self.moment();
            let ((), changes) = self.associate(|associations| associations.pass(now));
            if let Err(error) = self.settle(changes).await {
                tracing::warn!(%error, "cannot store the refusal of an association");
            }
        }
    }

    fn moment(&self) -> Moment {
        let Now { boot, unix } = self.now();
        Moment { boot, unix }
    }

    fn associate<T>(&self, work: impl FnOnce(&mut Associations) -> T) -> (T, Vec<Change>) {
        let mut associations = self.0.association.lock();
        let done = work(&mut associations);
        let changes = std::iter::from_fn(|| associations.poll_change()).collect();
        (done, changes)
    }

    /// Stores, counts and announces changes.
    async fn settle(&self, changes: Vec<Change>) -> Result<(), Error> {
        let kept = match self.0.journal.get().filter(|_| !changes.is_empty()) {
            Some(journal) => journal.commit(changes.iter().map(kept).collect()).await,
            None => Ok(()),
        };
        self.announce(changes);
        Ok(kept?)
    }

    /// Loads the associations that a store holds.
    pub(super) fn restore_associations(&self, kept: impl IntoIterator<Item = (Short, Box<[u8]>)>) {
        for (key, value) in kept {
            let _ = self.follow_association(&key, Some(&value));
        }
    }

    /// Applies a change that another server made. Returns the changes that follow from it, which are to be stored.
    #[must_use]
    pub(super) fn follow_association(&self, key: &[u8], value: Option<&[u8]>) -> Vec<acs::Change> {
        let now = self.moment();
        let mut is_readable = true;
        let ((), changes) = self.associate(|associations| match (value, record::device(key)) {
            (Some(value), Some(_)) => {
                let record = record::decode(key, value);
                match record {
                    Some(record) => associations.restore(now, record),
                    None => is_readable = false,
                }
            }
            (None, Some(device)) => associations.remove(&device),
            (_, None) => is_readable = false,
        });
        if !is_readable {
            tracing::error!(key = %key.escape_ascii(), "cannot decode an association of the registry; record ignored");
            self.alarm(AcsMetrics::UNREADABLE, None, None);
        }
        let decided = changes.iter().map(kept).collect();
        self.announce(changes);
        decided
    }

    /// Compares the associations with the keys of a complete snapshot of the store. Removes those that the store does
    /// not have. If the store has lost records, returns them to be stored again instead.
    #[must_use]
    pub(super) fn follow_whole(&self, whole: &Whole) -> Vec<acs::Change> {
        let (missing, changes) = self.associate(|associations| {
            let is_there = |record: &&Record| whole.associations.contains(&record::key(&record.device));
            let missing: Vec<Record> = associations.after(None).filter(|record| !is_there(record)).cloned().collect();
            if !whole.is_lossy {
                for record in &missing {
                    associations.remove(&record.device);
                }
            }
            missing
        });
        self.announce(changes);
        let again =
            |record: &Record| acs::Change::Association(record::key(&record.device), Some(record::encode(record)));
        if whole.is_lossy { missing.iter().map(again).collect() } else { Vec::new() }
    }

    /// Counts and announces changes.
    fn announce(&self, changes: Vec<Change>) {
        self.count(|metrics| {
            for change in &changes {
                metrics.changed(change.outcome);
            }
            metrics.show(self.association_tally());
        });
        for change in changes {
            if change.outcome == Outcome::Refused {
                let (device, gateway) = (&change.device, &change.gateway);
                tracing::warn!(%device, %gateway, "claim refused: the gateway's table does not list the device");
            }
            self.tell(|| Happening::Association(told(change)));
        }
    }

    fn count(&self, count: impl FnOnce(&AssociationMetrics)) {
        if let Some(metrics) = self.0.association.metrics.get() {
            count(metrics);
        }
    }
}

fn kept(change: &Change) -> acs::Change {
    acs::Change::Association(record::key(&change.device), change.record.as_ref().map(record::encode))
}

fn told(change: Change) -> Box<AssociationChange> {
    let Change { device, gateway, outcome, record } = change;
    let associated = record.and_then(|record| record.association);
    Box::new(AssociationChange {
        result: outcome.label().to_owned(),
        alarm: outcome == Outcome::Refused,
        device: describe::identity(&device),
        gateway: describe::gateway(&gateway),
        associated: associated.map(|association| describe::gateway(&association.gateway)),
    })
}

impl From<association::Refusal> for Error {
    fn from(refusal: association::Refusal) -> Self {
        Self::Association(refusal)
    }
}
