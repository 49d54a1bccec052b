//! Collects the changes of a role and commits them to the store in groups. Clients and watchers are told of a change
//! after its group is on disk. Renewals are delayed further ([`Renewals`]).
//!
//! A group that cannot be written is tried again. Watchers are told of it nevertheless, because a gateway with a full
//! disk still serves devices. A client that set a parameter gets a fault, and its change is undone.

use std::{collections::BTreeSet, future::pending, sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, oneshot},
    time::{Instant, sleep_until},
};
use tr111_core::{
    model::Notification,
    notification::{self, Notifications},
    time::BootTime,
};

use super::{
    Clock, Fault, Kept, cpe,
    kept::{StoredCpe, StoredNotification, StoredState, stored_parameters},
    management::Subject,
    parameters::{Written, fault},
    renewals::{ROLE, Renewals},
};
use crate::{
    control::message,
    store::{Boots, Committed, GROUP, Group, LINGER, Store, encode, meta},
};

/// Delay before another attempt after the store has failed.
const RETRY: Duration = Duration::from_secs(5);
/// How long the last group may take when the agent stops.
pub(super) const LAST_GROUP: Duration = Duration::from_secs(5);

/// The state before a change, to undo it.
#[derive(Debug)]
pub(super) struct Undo {
    /// The former values; `None` if the change set no values.
    pub(super) written: Option<Written>,
    /// The former attributes, by full parameter name.
    pub(super) attributes: Vec<(String, Notification)>,
}

/// Who is told after a group is on disk.
#[derive(Debug)]
pub(super) enum Told {
    Event(Arc<message::Event>),
    /// A client that set parameters or attributes.
    Set {
        reply: oneshot::Sender<Result<(), Fault>>,
        /// The first path that the client named.
        path: String,
        undo: Undo,
    },
    /// A client that acknowledged notifications.
    Acknowledged(oneshot::Sender<Result<(), String>>),
    /// A client that asked for rows.
    Devices(oneshot::Sender<Vec<message::Device>>, Vec<message::Device>),
    /// A client that asked for parameters.
    Parameters(oneshot::Sender<Result<Vec<message::Parameter>, Fault>>, Result<Vec<message::Parameter>, Fault>),
}

#[derive(Debug, Default)]
struct Gathered {
    rows: BTreeSet<u32>,
    /// Sequence numbers of notifications that were added or removed.
    notifications: BTreeSet<u64>,
    parameters: bool,
    /// A value changed that is written with every group.
    is_touched: bool,
    told: Vec<Told>,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        let Self { rows, notifications, parameters, is_touched, told } = self;
        rows.is_empty() && notifications.is_empty() && told.is_empty() && !parameters && !is_touched
    }
}

/// The state that is written to the store.
pub(super) struct Whole<'a> {
    pub(super) subject: &'a dyn Subject,
    pub(super) notifications: &'a Notifications,
    pub(super) last_told: Option<BootTime>,
    pub(super) written: &'a Written,
    pub(super) cpe: &'a cpe::State,
    pub(super) clock: &'a Clock,
}

/// What [`Keeper::next`] waited for.
pub(super) enum Step {
    /// A group is due; call [`Keeper::write`].
    Write,
    /// A group is complete; call [`Keeper::conclude`].
    Done(Committed),
}

/// Queue of changes in front of the store.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Store,
    boots: Boots,
    boot: u32,
    gathered: Gathered,
    renewals: Renewals,
    in_flight: Option<Gathered>,
    due: Option<Instant>,
    /// The last attempt failed and was logged.
    is_failing: bool,
    /// The highest sequence number of a notification that is on disk.
    told_sequence: u64,
    /// The next instance number on disk. `next_in_flight` is that of the group that is being written.
    next_instance: u32,
    next_in_flight: u32,
}

impl Keeper {
    pub(super) fn new(store: Store, kept: &Kept) -> Self {
        let mut keeper = Self {
            store,
            boots: kept.boots.clone(),
            boot: kept.boot,
            gathered: Gathered::default(),
            renewals: Renewals::new(),
            in_flight: None,
            due: None,
            is_failing: false,
            told_sequence: kept.notifications.next_sequence.saturating_sub(1),
            next_instance: kept.next_instance,
            next_in_flight: kept.next_instance,
        };
        // The hash seed and the boot number must be stored before the first row.
        keeper.gathered.parameters = true;
        keeper.due = Some(Instant::now());
        keeper
    }

    /// Marks a row as added, changed or removed.
    pub(super) fn row(&mut self, instance: u32) {
        self.gathered.rows.insert(instance);
        self.linger();
    }

    /// Sets how long renewals may wait before they are written.
    pub(super) fn set_store_interval(&mut self, interval: Duration) {
        self.renewals.set_interval(interval);
    }

    /// Records that leases of a row, or the role's own lease ([`ROLE`]), were renewed.
    pub(super) fn renewed(&mut self, row: u32) {
        if !self.gathered.rows.contains(&row) {
            self.renewals.add(row);
        }
    }

    /// Makes all delayed renewals due.
    pub(super) fn flush(&mut self) {
        let renewed = self.renewals.take_all();
        self.gather_renewed(renewed);
        if !self.gathered.is_empty() {
            self.linger();
        }
    }

    fn gather_renewed(&mut self, mut renewed: BTreeSet<u32>) {
        self.gathered.is_touched |= renewed.remove(&ROLE);
        self.gathered.rows.append(&mut renewed);
    }

    /// Marks a notification as added or removed.
    pub(super) fn notification(&mut self, sequence: u64) {
        self.gathered.notifications.insert(sequence);
        self.linger();
    }

    /// Marks values, attributes and waiting changes of the notification core as changed.
    pub(super) fn parameters(&mut self) {
        self.gathered.parameters = true;
        self.linger();
    }

    /// Marks a value as changed that is written with every group.
    pub(super) fn touch(&mut self) {
        self.gathered.is_touched = true;
        self.linger();
    }

    /// Queues a message to be sent after the current group is on disk.
    pub(super) fn tell(&mut self, told: Told) {
        self.gathered.told.push(told);
        self.linger();
    }

    /// The highest sequence number that subscribers may see.
    pub(super) fn told_sequence(&self) -> u64 {
        self.told_sequence
    }

    /// Whether a crash could lose this instance number, so that it must not be shown yet (T-32). Always false while the
    /// store fails.
    pub(super) fn may_take_back(&self, instance: u32) -> bool {
        instance >= self.next_instance && !self.is_failing
    }

    fn linger(&mut self) {
        if self.is_failing && self.due.is_some() {
            return;
        }
        let now = Instant::now();
        let latest = if self.gathered.rows.len() >= GROUP { now } else { now + LINGER };
        self.due = Some(self.due.map_or(latest, |due| due.min(latest)));
    }

    /// Waits for the next step, as of now. Cancel-safe; borrows nothing.
    pub(super) fn next(&self) -> impl Future<Output = Step> + Send + use<> {
        let committed = self.in_flight.is_some().then(|| self.store.committed());
        // After a failure the retry time decides when the store is tried again.
        let renewals = self.renewals.due().filter(|_| self.due.is_none() || !self.is_failing);
        let due = [self.due, renewals].into_iter().flatten().min();
        async move {
            match (committed, due) {
                (Some(committed), _) => return Step::Done(committed.await),
                (None, Some(due)) => sleep_until(due).await,
                (None, None) => pending().await,
            }
            Step::Write
        }
    }

    /// Passes the collected changes to the store.
    pub(super) fn write(&mut self, whole: &Whole<'_>) {
        self.due = None;
        let renewed = self.renewals.take_due(&self.gathered.rows);
        self.gather_renewed(renewed);
        if self.gathered.is_empty() {
            return;
        }
        self.next_in_flight = whole.subject.next_instance();
        let gathered = std::mem::take(&mut self.gathered);
        if let Some(boot) = self.boots.get_mut(&self.boot) {
            boot.unix = whole.clock.boot_unix();
        }
        let rows = gathered.rows.iter().map(|instance| (*instance, whole.subject.stored_row(self.boot, *instance)));
        let notifications = gathered.notifications.iter().map(|sequence| {
            let found = whole.notifications.pending(sequence.saturating_sub(1)).next();
            let found = found.filter(|pending| pending.sequence == *sequence);
            (*sequence, found.map(|pending| self.notification_of(pending)))
        });
        let meta = whole.subject.stored_values(self.boot);
        let mut group = Group { rows: rows.collect(), notifications: notifications.collect(), meta };
        group.meta.push((meta::BOOTS, encode(&self.boots)));
        group.meta.push((meta::CPE, encode(&StoredCpe::new(self.boot, whole.cpe, whole.notifications))));
        if gathered.parameters || !gathered.notifications.is_empty() {
            group.meta.extend(stored_parameters(whole.written));
            group.meta.push((meta::NOTIFICATION_STATE, encode(&self.state_of(whole))));
        }
        self.in_flight = Some(gathered);
        self.store.commit(group);
    }

    fn notification_of(&self, pending: &notification::Pending) -> Vec<u8> {
        encode(&StoredNotification { boot: self.boot, time: pending.time.0, parameters: pending.parameters.clone() })
    }

    fn state_of(&self, whole: &Whole<'_>) -> StoredState {
        let state = whole.notifications.state();
        let waiting = state.waiting.into_iter().map(|waiting| (waiting.name, waiting.before, waiting.value));
        StoredState {
            boot: self.boot,
            attributes: state.attributes.into_iter().map(|(name, attribute)| (name, attribute as u8)).collect(),
            waiting: waiting.collect(),
            next_sequence: state.next_sequence,
            last_notification: state.last_notification.map(|time| time.0),
            last_told: whole.last_told.map(|time| time.0),
        }
    }

    /// Takes the result of a group and tells those who wait for it. Returns the changes that must be undone, the latest
    /// first.
    pub(super) fn conclude(
        &mut self,
        committed: &Committed,
        whole: &Whole<'_>,
        events: &broadcast::Sender<Arc<message::Event>>,
    ) -> Vec<Undo> {
        let Some(mut group) = self.in_flight.take() else { return Vec::new() };
        match committed {
            Committed::Done => {
                self.next_instance = self.next_in_flight;
                if self.is_failing {
                    self.is_failing = false;
                    tracing::info!(store = %self.store.path().display(), "the store works again");
                }
            }
            Committed::Failed(reason) => {
                if !self.is_failing {
                    tracing::error!(
                        reason,
                        "the store cannot be written: the agent retries; a restart before that loses the latest changes"
                    );
                }
                self.is_failing = true;
                self.gathered.rows.append(&mut group.rows);
                self.gathered.notifications.append(&mut group.notifications);
                self.gathered.parameters = true;
                self.gathered.is_touched |= group.is_touched;
                self.due = Some(Instant::now() + RETRY);
            }
            Committed::Emptied => {
                tracing::error!(store = %self.store.path().display(), "store lost; writing the complete state again");
                self.gathered.rows.extend(whole.subject.instances());
                self.gathered.rows.append(&mut group.rows);
                self.gathered.notifications.extend(whole.notifications.pending(0).map(|pending| pending.sequence));
                self.gathered.parameters = true;
                // Nobody is told yet: the group is repeated, together with the complete state.
                group.told.append(&mut self.gathered.told);
                self.gathered.told = group.told;
                self.due = Some(Instant::now());
                return Vec::new();
            }
        }
        let failed = self.is_failing;
        if failed {
            // Changes that wait for the next group fail too, so that changes are undone in order.
            group.told.append(&mut self.gathered.told);
        }
        let mut undone = Vec::new();
        for told in group.told {
            match told {
                Told::Event(event) => {
                    if let message::Happening::Notification(notification) = &event.what {
                        self.told_sequence = self.told_sequence.max(notification.sequence);
                    }
                    // A failed send means that there are no receivers.
                    let _ = events.send(event);
                }
                Told::Set { reply, path, undo } => {
                    let result = if failed {
                        undone.push(undo);
                        Err(fault(tr111_core::model::Fault::InternalError, &path))
                    } else {
                        Ok(())
                    };
                    let _ = reply.send(result);
                }
                Told::Acknowledged(reply) => {
                    let kept = if failed {
                        Err("the acknowledgement was not stored: the store cannot be written".to_owned())
                    } else {
                        Ok(())
                    };
                    let _ = reply.send(kept);
                }
                Told::Devices(reply, page) => drop(reply.send(page)),
                Told::Parameters(reply, parameters) => drop(reply.send(parameters)),
            }
        }
        undone.reverse();
        undone
    }

    /// Whether any change is not on disk yet.
    pub(super) fn is_behind(&self) -> bool {
        self.in_flight.is_some() || self.due.is_some() || !self.renewals.is_empty()
    }
}
