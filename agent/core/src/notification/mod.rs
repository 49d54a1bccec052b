//! Notification attributes, and notifications of changes to the ACS (TR-069 A.3.2.4, TR-111 1.2.1).
//!
//! The owner of the values reports every change to [`Notifications`]. A change of an Active parameter causes a
//! notification; a change of a Passive parameter is included in the next one (GW-13). Changes of
//! `ManageableDeviceNumberOfEntries` cause at most one notification in `ManageableDeviceNotificationLimit` seconds: the
//! first one is sent at once, later ones wait and are combined into one with the latest value (GW-14, T-12).
//!
//! A notification is kept until it is acknowledged. A reader of [`Notifications::pending`] therefore gets each
//! notification at least once and in order, also across restarts, for which [`Notifications::state`] has to be stored.
//!
//! Changes that the ACS made itself cause no notification.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    model::{self, Fault, Notification as Attribute, Root},
    time::BootTime,
};

/// Settings of the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether a change that was reverted while it waited is not notified (T-12).
    pub suppress_net_zero: bool,
    /// Whether Active is accepted on the parameters of ManageableDevice rows; otherwise it is refused with fault 9009
    /// (DM-9).
    pub active_on_rows: bool,
}

/// The origin of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Any origin other than the ACS.
    Other,
    /// The ACS, which needs no notification.
    Acs,
}

/// Inputs of the notification core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The value of a parameter changed. An added and a removed row are two changes of the number of entries, in their
    /// order (T-11).
    Changed {
        /// Full name of the parameter.
        name: &'a str,
        /// The previous value, as CWMP writes it.
        before: &'a str,
        /// The new value.
        value: &'a str,
        /// Origin of the change.
        cause: Cause,
    },
    /// The new value of `ManageableDeviceNotificationLimit`, in seconds.
    Limit(u32),
    /// A Connection Request was accepted (UCR-14). Further ones have no effect until its notification is acknowledged,
    /// which happens at the start of the session. The first one after that causes another notification, for another
    /// session (T-27).
    ConnectionRequest,
    /// An object was removed, and with it the attributes of its parameters.
    Gone {
        /// Path of the object, which ends in a dot.
        object: &'a str,
    },
    /// The operator changed settings.
    Settings(Settings),
    /// Time has passed.
    Tick,
}

/// The cause of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Event `4 VALUE CHANGE`: an Active parameter changed.
    ActiveValueChange,
    /// Event `6 CONNECTION REQUEST`: the ACS requests a session.
    ConnectionRequest,
}

impl Kind {
    /// CWMP name of the event (TR-069 A.3.3.1).
    pub const fn event(self) -> &'static str {
        match self {
            Self::ActiveValueChange => "4 VALUE CHANGE",
            Self::ConnectionRequest => "6 CONNECTION REQUEST",
        }
    }
}

/// Outputs of the notification core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A notification for the ACS. It is also among [`Notifications::pending`] until it is acknowledged.
    Notify {
        /// Number of the notification; consecutive.
        sequence: u64,
        /// Time of the notification.
        time: BootTime,
        /// Names and values that changed since the last notification.
        parameters: Vec<(String, String)>,
        /// Cause of the notification.
        kind: Kind,
    },
}

/// A notification that has not been acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Number of the notification; consecutive.
    pub sequence: u64,
    /// Time of the notification.
    pub time: BootTime,
    /// Names and values that changed.
    pub parameters: Vec<(String, String)>,
    /// Cause of the notification.
    pub kind: Kind,
}

/// A change that no notification has reported yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Full name of the parameter.
    pub name: String,
    /// The last reported value.
    pub before: String,
    /// The current value.
    pub value: String,
}

/// State that is stored across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Attributes other than Off, by full name.
    pub attributes: Vec<(String, Attribute)>,
    /// Notifications that have not been acknowledged, in order.
    pub pending: Vec<Pending>,
    /// Changes that wait for the limit or for the next notification.
    pub waiting: Vec<Waiting>,
    /// Number of the next notification.
    pub next_sequence: u64,
    /// Time of the last notification of the number of entries.
    pub last_notification: Option<BootTime>,
    /// `ManageableDeviceNotificationLimit` in seconds.
    pub limit: u32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            attributes: Vec::new(),
            pending: Vec::new(),
            waiting: Vec::new(),
            next_sequence: 1,
            last_notification: None,
            limit: 0,
        }
    }
}

/// Most unacknowledged notifications. Further changes wait and are combined.
const PENDING_MAXIMUM: usize = 1024;

/// The notification core.
#[derive(Clone, Debug)]
pub struct Notifications {
    settings: Settings,
    attributes: BTreeMap<String, Attribute>,
    pending: VecDeque<Pending>,
    /// Number of notifications at the end of `pending` that have not been polled.
    fresh: usize,
    /// By full name.
    waiting: BTreeMap<String, Change>,
    next_sequence: u64,
    last_notification: Option<BootTime>,
    limit: u32,
    /// Full name of the parameter to which the limit applies.
    number_of_entries: String,
}

#[derive(Clone, Debug)]
struct Change {
    before: String,
    value: String,
}

impl Notifications {
    /// A core with a stored state; [`State::default`] at the first start.
    pub fn new(root: Root, settings: Settings, state: State) -> Self {
        let waiting = state.waiting.into_iter().map(|Waiting { name, before, value }| (name, Change { before, value }));
        Self {
            settings,
            attributes: state.attributes.into_iter().collect(),
            pending: state.pending.into(),
            fresh: 0,
            waiting: waiting.collect(),
            next_sequence: state.next_sequence,
            last_notification: state.last_notification,
            limit: state.limit,
            number_of_entries: model::number_of_entries(root),
        }
    }

    /// The state that has to be stored across restarts.
    pub fn state(&self) -> State {
        let waiting = self.waiting.iter().map(|(name, Change { before, value })| Waiting {
            name: name.clone(),
            before: before.clone(),
            value: value.clone(),
        });
        State {
            attributes: self.attributes.iter().map(|(name, attribute)| (name.clone(), *attribute)).collect(),
            pending: self.pending.iter().cloned().collect(),
            waiting: waiting.collect(),
            next_sequence: self.next_sequence,
            last_notification: self.last_notification,
            limit: self.limit,
        }
    }

    /// The attribute of the parameter with this full name.
    pub fn attribute(&self, name: &str) -> Attribute {
        self.attributes.get(name).copied().unwrap_or_default()
    }

    /// Sets the attribute of the parameter `path`, or of all parameters below the partial path `path`. On an error,
    /// none is changed.
    ///
    /// # Errors
    /// 9005 for an unknown name, 9009 for Active where it is refused (DM-9).
    pub fn set(&mut self, source: &dyn model::Source, path: &str, attribute: Attribute) -> Result<(), Fault> {
        let targets = model::targets(source, path)?;
        let is_refused = attribute == Attribute::Active && !self.settings.active_on_rows;
        if is_refused && targets.iter().any(|target| target.may_refuse_active) {
            return Err(Fault::NotificationRejected);
        }
        for target in targets {
            if attribute == Attribute::Off {
                self.attributes.remove(&target.name);
                self.waiting.remove(&target.name);
            } else {
                self.attributes.insert(target.name, attribute);
            }
        }
        Ok(())
    }

    /// Handles an input.
    pub fn handle(&mut self, now: BootTime, input: Input<'_>) {
        // Times from before a restart may be wrong (T-31), and must not delay notifications.
        self.last_notification = self.last_notification.map(|last| last.min(now));
        match input {
            Input::Changed { name, before, value, cause: Cause::Other } => self.changed(name, before, value),
            Input::Changed { name, cause: Cause::Acs, .. } => {
                self.waiting.remove(name);
            }
            Input::Limit(seconds) => self.limit = seconds,
            Input::ConnectionRequest => {
                if self.pending.iter().all(|pending| pending.kind != Kind::ConnectionRequest) {
                    self.push(now, Vec::new(), Kind::ConnectionRequest);
                }
            }
            Input::Gone { object } => {
                forget(&mut self.attributes, object);
                forget(&mut self.waiting, object);
            }
            Input::Settings(settings) => self.settings = settings,
            Input::Tick => {}
        }
        if self.due().is_some_and(|due| due <= now) {
            self.notify(now);
        }
    }

    /// Handles several changes, each with full name, previous value and new value, and reports them in one
    /// notification.
    pub fn changed_together<'a>(
        &mut self,
        now: BootTime,
        changes: impl IntoIterator<Item = (String, &'a str, &'a str)>,
    ) {
        for (name, before, value) in changes {
            self.changed(&name, before, value);
        }
        self.handle(now, Input::Tick);
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        let fresh = self.pending.get(self.pending.len() - self.fresh)?;
        let Pending { sequence, time, parameters, kind } = fresh.clone();
        self.fresh -= 1;
        Some(Output::Notify { sequence, time, parameters, kind })
    }

    /// Time at which [`Input::Tick`] has to be passed.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.due()
    }

    /// The unacknowledged notifications with numbers greater than `after`, in order.
    pub fn pending(&self, after: u64) -> impl Iterator<Item = &Pending> {
        let first = self.pending.partition_point(|pending| pending.sequence <= after);
        self.pending.range(first..)
    }

    /// Acknowledges the notification `sequence` and all before it. Returns `false` if there was no such notification.
    pub fn acknowledge(&mut self, sequence: u64) -> bool {
        if sequence >= self.next_sequence {
            return false;
        }
        let told = self.pending.partition_point(|pending| pending.sequence <= sequence);
        self.pending.drain(..told);
        self.fresh = self.fresh.min(self.pending.len());
        true
    }

    fn changed(&mut self, name: &str, before: &str, value: &str) {
        if self.attribute(name) == Attribute::Off {
            return;
        }
        if let Some(change) = self.waiting.get_mut(name) {
            value.clone_into(&mut change.value);
        } else {
            let change = Change { before: before.to_owned(), value: value.to_owned() };
            self.waiting.insert(name.to_owned(), change);
        }
        if self.settings.suppress_net_zero && self.waiting.get(name).is_some_and(|change| change.before == change.value)
        {
            self.waiting.remove(name);
        }
    }

    /// Time of the next notification; `None` if no Active change is waiting, or too many notifications are
    /// unacknowledged.
    fn due(&self) -> Option<BootTime> {
        if self.pending.len() >= PENDING_MAXIMUM {
            return None;
        }
        let active = self.waiting.keys().filter(|name| self.attribute(name) == Attribute::Active);
        active.map(|name| if *name == self.number_of_entries { self.allowed_from() } else { BootTime::default() }).min()
    }

    /// Time at which the limit allows the next notification of the number of entries.
    fn allowed_from(&self) -> BootTime {
        let limit = std::time::Duration::from_secs(self.limit.into());
        self.last_notification.map_or(BootTime::default(), |last| last + limit)
    }

    /// Creates a notification with all waiting changes.
    fn notify(&mut self, now: BootTime) {
        if self.waiting.contains_key(&self.number_of_entries) {
            self.last_notification = Some(now);
        }
        let parameters = std::mem::take(&mut self.waiting).into_iter().map(|(name, change)| (name, change.value));
        self.push(now, parameters.collect(), Kind::ActiveValueChange);
    }

    fn push(&mut self, now: BootTime, parameters: Vec<(String, String)>, kind: Kind) {
        self.pending.push_back(Pending { sequence: self.next_sequence, time: now, parameters, kind });
        self.next_sequence += 1;
        self.fresh += 1;
    }
}

/// Removes the entries below an object.
fn forget<T>(names: &mut BTreeMap<String, T>, object: &str) {
    let below = names.range(object.to_owned()..).map(|(name, _)| name).take_while(|name| name.starts_with(object));
    let below: Vec<String> = below.cloned().collect();
    for name in below {
        names.remove(&name);
    }
}
