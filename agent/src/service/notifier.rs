//! Connects the notification core with the store and the metrics.

use std::collections::HashSet;

use prometheus::IntCounterVec;
use tr111_core::{
    association,
    model::{self, Notification, Root},
    notification::{Cause, Input, Notifications, Output, Pending, Settings, State},
    time::BootTime,
};

use super::Clock;
use crate::control::message;

#[derive(Debug)]
pub(super) struct Notifier {
    core: Notifications,
    /// Full name of `ManageableDeviceNumberOfEntries`.
    number_of_entries: String,
    /// Full name of the ManageableDevice table, with the final dot.
    table: String,
    rows: u32,
    last_told: Option<BootTime>,
    /// Sequence number of the last notification.
    told: u64,
    /// Full names of the parameters whose changes are delayed.
    held_back: HashSet<String>,
    counter: IntCounterVec,
}

impl Notifier {
    pub(super) fn new(
        root: Root,
        state: State,
        last_told: Option<BootTime>,
        rows: u32,
        counter: IntCounterVec,
    ) -> Self {
        Self {
            held_back: state.waiting.iter().map(|waiting| waiting.name.clone()).collect(),
            told: state.next_sequence.saturating_sub(1),
            core: Notifications::new(root, Settings::default(), state),
            number_of_entries: model::number_of_entries(root),
            table: format!("{}ManagementServer.ManageableDevice.", root.prefix()),
            rows,
            last_told,
            counter,
        }
    }

    pub(super) fn core(&self) -> &Notifications {
        &self.core
    }

    pub(super) fn core_mut(&mut self) -> &mut Notifications {
        &mut self.core
    }

    /// Time of the last notification.
    pub(super) fn last_told(&self) -> Option<BootTime> {
        self.last_told
    }

    /// Takes changes of the ManageableDevice table. Returns whether the core's state must be stored.
    pub(super) fn table_changed(&mut self, now: BootTime, outputs: &[association::Output]) -> bool {
        let mut is_changed = false;
        for output in outputs {
            let rows = match output {
                association::Output::DeviceAdded { .. } => self.rows + 1,
                association::Output::DeviceRemoved { instance, .. } => {
                    let object = format!("{}{instance}.", self.table);
                    self.core.handle(now, Input::Gone { object: &object });
                    self.rows.saturating_sub(1)
                }
                _ => continue,
            };
            let before = std::mem::replace(&mut self.rows, rows);
            let name = self.number_of_entries.clone();
            is_changed |= self.changed(now, &name, &before.to_string(), &rows.to_string(), Cause::Other);
        }
        is_changed
    }

    /// Takes a change of a parameter. Returns whether the core's state must be stored.
    pub(super) fn changed(&mut self, now: BootTime, name: &str, before: &str, value: &str, cause: Cause) -> bool {
        let attribute = self.core.attribute(name);
        if attribute == Notification::Off {
            return false;
        }
        let last = self.last_sequence();
        self.core.handle(now, Input::Changed { name, before, value, cause });
        let is_told = self.last_sequence() != last;
        if attribute == Notification::Active && cause == Cause::Other && !is_told {
            let result = if self.held_back.insert(name.to_owned()) { "delayed" } else { "coalesced" };
            self.count(name, result);
        }
        true
    }

    /// The next notification to announce, in order.
    pub(super) fn poll(&mut self, clock: &Clock) -> Option<(u64, message::Event)> {
        let Output::Notify { sequence, time, parameters, kind } = self.core.poll_output()?;
        for (name, _) in &parameters {
            self.held_back.remove(name);
            self.count(name, "sent");
        }
        self.last_told = Some(time);
        self.told = sequence;
        Some((sequence, event(clock, &Pending { sequence, time, parameters, kind })))
    }

    /// The highest sequence number of an unacknowledged notification.
    fn last_sequence(&self) -> Option<u64> {
        self.core.pending(self.told).last().map(|pending| pending.sequence)
    }

    fn count(&self, name: &str, result: &str) {
        let parameter = name.rsplit('.').next().unwrap_or(name);
        self.counter.with_label_values(&[parameter, result]).inc();
    }
}

/// Converts a notification for watchers and subscribers.
pub(super) fn event(clock: &Clock, pending: &Pending) -> message::Event {
    let parameters = pending.parameters.iter();
    message::Event {
        time: clock.rfc3339(pending.time),
        what: message::Happening::Notification(message::Notification {
            sequence: pending.sequence,
            kind: pending.kind.event().to_owned(),
            parameters: parameters
                .map(|(name, value)| message::ChangedParameter { name: name.clone(), value: value.clone() })
                .collect(),
        }),
    }
}
