//! Between the owner of a role and the store: changes gather for a moment, go to the disk as one group, and only
//! then is anybody told of them. Renewals wait longer ([`Renewals`]).
//!
//! A group that cannot be written stays to be written. Watchers are told all the same then, because a gateway with a
//! full disk still has devices; who asked to set something is told that it failed, and it is undone.

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

/// Pause before a store that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long the last group may take when the agent ends.
pub(super) const LAST_GROUP: Duration = Duration::from_secs(5);

/// What was before a change, so that it can be undone.
#[derive(Debug)]
pub(super) struct Undo {
    /// Values; `None` where none was written.
    pub(super) written: Option<Written>,
    /// Attributes by full name.
    pub(super) attributes: Vec<(String, Notification)>,
}

/// Who is told once a group is on the disk.
#[derive(Debug)]
pub(super) enum Told {
    /// Watchers.
    Event(Arc<message::Event>),
    /// A client that set something.
    Set {
        reply: oneshot::Sender<Result<(), Fault>>,
        /// What it named first.
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
    /// Sequence numbers of notifications that came or went.
    notifications: BTreeSet<u64>,
    parameters: bool,
    /// Something changed that goes with every group.
    is_touched: bool,
    told: Vec<Told>,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        let Self { rows, notifications, parameters, is_touched, told } = self;
        rows.is_empty() && notifications.is_empty() && told.is_empty() && !parameters && !is_touched
    }
}

/// What the store is to hold.
pub(super) struct Whole<'a> {
    pub(super) subject: &'a dyn Subject,
    pub(super) notifications: &'a Notifications,
    pub(super) last_told: Option<BootTime>,
    pub(super) written: &'a Written,
    pub(super) cpe: &'a cpe::State,
    pub(super) clock: &'a Clock,
}

/// What comes next.
pub(super) enum Step {
    /// A group is due: [`Keeper::write`].
    Write,
    /// A group is done: [`Keeper::conclude`].
    Done(Committed),
}

/// Keeps the store.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Store,
    boots: Boots,
    boot: u32,
    gathered: Gathered,
    renewals: Renewals,
    in_flight: Option<Gathered>,
    due: Option<Instant>,
    /// The last attempt failed, and the log says so.
    is_failing: bool,
    /// Notifications up to this one are on the disk.
    told_sequence: u64,
    /// The next instance number, as it is on the disk and in the group that is under way.
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
        // The seed and this boot are to be known before the first row.
        keeper.gathered.parameters = true;
        keeper.due = Some(Instant::now());
        keeper
    }

    /// A row changed, came or went.
    pub(super) fn row(&mut self, instance: u32) {
        self.gathered.rows.insert(instance);
        self.linger();
    }

    /// How long renewals wait to be written.
    pub(super) fn set_store_interval(&mut self, interval: Duration) {
        self.renewals.set_interval(interval);
    }

    /// Leases in a row, or that of the role, were renewed.
    pub(super) fn renewed(&mut self, row: u32) {
        if !self.gathered.rows.contains(&row) {
            self.renewals.add(row);
        }
    }

    /// Lets no renewal wait any longer.
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

    /// A notification came or went.
    pub(super) fn notification(&mut self, sequence: u64) {
        self.gathered.notifications.insert(sequence);
        self.linger();
    }

    /// A value, an attribute, or what waits for a notification changed.
    pub(super) fn parameters(&mut self) {
        self.gathered.parameters = true;
        self.linger();
    }

    /// Something changed that goes with every group.
    pub(super) fn touch(&mut self) {
        self.gathered.is_touched = true;
        self.linger();
    }

    /// To be told with the group that gathers now.
    pub(super) fn tell(&mut self, told: Told) {
        self.gathered.told.push(told);
        self.linger();
    }

    /// Notifications up to this one may be given to subscribers.
    pub(super) fn told_sequence(&self) -> u64 {
        self.told_sequence
    }

    /// Whether a crash would take an instance number back, so that nobody may be shown it yet (T-32). While the store
    /// fails, everybody is shown everything.
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

    /// Waits for what comes next, as it stands now. Cancel-safe, and borrows nothing.
    pub(super) fn next(&self) -> impl Future<Output = Step> + Send + use<> {
        let committed = self.in_flight.is_some().then(|| self.store.committed());
        // A store that failed is tried again at its time.
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

    /// Hands what gathered to the store.
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

    /// Tells whom the group was for. What has to be undone is given back, the latest first.
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
                        "the store cannot be written: the agent goes on and tries again, but a restart would lose what changes now"
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
                tracing::error!(store = %self.store.path().display(), "the store was lost and is written anew");
                self.gathered.rows.extend(whole.subject.instances());
                self.gathered.rows.append(&mut group.rows);
                self.gathered.notifications.extend(whole.notifications.pending(0).map(|pending| pending.sequence));
                self.gathered.parameters = true;
                // Nothing is told yet: the group comes again, with everything else.
                group.told.append(&mut self.gathered.told);
                self.gathered.told = group.told;
                self.due = Some(Instant::now());
                return Vec::new();
            }
        }
        let failed = self.is_failing;
        if failed {
            // Those that wait for the next attempt fail with it, so that what is undone is undone in order.
            group.told.append(&mut self.gathered.told);
        }
        let mut undone = Vec::new();
        for told in group.told {
            match told {
                Told::Event(event) => {
                    if let message::Happening::Notification(notification) = &event.what {
                        self.told_sequence = self.told_sequence.max(notification.sequence);
                    }
                    // Without receivers nobody misses it.
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
                    let kept = if failed { Err("the store cannot be written".to_owned()) } else { Ok(()) };
                    let _ = reply.send(kept);
                }
                Told::Devices(reply, page) => drop(reply.send(page)),
                Told::Parameters(reply, parameters) => drop(reply.send(parameters)),
            }
        }
        undone.reverse();
        undone
    }

    /// Whether anything is not on the disk yet.
    pub(super) fn is_behind(&self) -> bool {
        self.in_flight.is_some() || self.due.is_some() || !self.renewals.is_empty()
    }
}
