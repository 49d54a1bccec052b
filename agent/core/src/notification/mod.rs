//! Notification attributes, and the notifications that changes make (TR-069 A.3.2.4, TR-111 1.2.1).
//!
//! The owner of the values tells [`Notifications`] of every change. A change of a parameter that is Active makes a
//! notification; one of a parameter that is Passive goes with the next (GW-13). Changes of
//! `ManageableDeviceNumberOfEntries` make no more than one in `ManageableDeviceNotificationLimit` seconds: the first
//! goes at once, later ones wait together and go with the latest value (GW-14, T-12).
//!
//! A notification stays until it is acknowledged, so whoever asks for those [`Notifications::pending`] gets each at
//! least once and in order, also over a restart: [`Notifications::state`] is what there is to keep.
//!
//! Changes that the ACS made itself are not told to it.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    model::{self, Fault, Notification as Attribute, Root},
    time::BootTime,
};

/// What the operator may set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Say nothing of a change that was undone while it waited (T-12).
    pub suppress_net_zero: bool,
    /// Take Active on the parameters of ManageableDevice rows, which are refused with 9009 else (DM-9).
    pub active_on_rows: bool,
}

/// Who changed a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Anything but the ACS.
    Other,
    /// The ACS, which knows.
    Acs,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A parameter's value changed. A row that comes and one that goes are two changes of the number of entries, in
    /// their order (T-11).
    Changed {
        /// Full name.
        name: &'a str,
        /// The value before, as CWMP writes it.
        before: &'a str,
        /// The value now.
        value: &'a str,
        /// Who changed it.
        cause: Cause,
    },
    /// `ManageableDeviceNotificationLimit` is so many seconds now.
    Limit(u32),
    /// An accepted Connection Request (UCR-14). Until its notification is acknowledged, which is due at the session's
    /// start, further ones add nothing: the session is still to come. The first one after that makes one more
    /// notification, for one more session (T-27).
    ConnectionRequest,
    /// An object is no more, and neither are attributes of what was in it.
    Gone {
        /// Its path, which ends in a dot.
        object: &'a str,
    },
    /// The operator changed settings.
    Settings(Settings),
    /// Time has passed.
    Tick,
}

/// Why there is a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Event `4 VALUE CHANGE`, of an Active parameter.
    ActiveValueChange,
    /// Event `6 CONNECTION REQUEST`: the ACS wants a session.
    ConnectionRequest,
}

impl Kind {
    /// CWMP's name of the event (TR-069 A.3.3.1).
    pub const fn event(self) -> &'static str {
        match self {
            Self::ActiveValueChange => "4 VALUE CHANGE",
            Self::ConnectionRequest => "6 CONNECTION REQUEST",
        }
    }
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A notification for the ACS. It is among [`Notifications::pending`] as well, until it is acknowledged.
    Notify {
        /// Grows by one.
        sequence: u64,
        /// When it was made.
        time: BootTime,
        /// Names and values that changed since the last one.
        parameters: Vec<(String, String)>,
        /// Why.
        kind: Kind,
    },
}

/// A notification that nobody acknowledged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Grows by one.
    pub sequence: u64,
    /// When it was made.
    pub time: BootTime,
    /// Names and values.
    pub parameters: Vec<(String, String)>,
    /// Why.
    pub kind: Kind,
}

/// A change that no notification told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Full name.
    pub name: String,
    /// The value that was told last.
    pub before: String,
    /// The latest value.
    pub value: String,
}

/// What is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Attributes that are not Off, by full name.
    pub attributes: Vec<(String, Attribute)>,
    /// Notifications that nobody acknowledged, in order.
    pub pending: Vec<Pending>,
    /// Changes that wait for the limit, or for the next notification.
    pub waiting: Vec<Waiting>,
    /// Number of the next notification.
    pub next_sequence: u64,
    /// When the number of entries was told last.
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

/// Notifications that may wait for an acknowledgement. Further changes wait together until there is room.
const PENDING_MAXIMUM: usize = 1024;

/// The notification core.
#[derive(Clone, Debug)]
pub struct Notifications {
    settings: Settings,
    attributes: BTreeMap<String, Attribute>,
    pending: VecDeque<Pending>,
    /// How many of `pending`, at its end, are not put out yet.
    fresh: usize,
    /// By full name.
    waiting: BTreeMap<String, Change>,
    next_sequence: u64,
    last_notification: Option<BootTime>,
    limit: u32,
    /// The parameter that the limit is about.
    number_of_entries: String,
}

#[derive(Clone, Debug)]
struct Change {
    before: String,
    value: String,
}

impl Notifications {
    /// As it was when `state` was taken; [`State::default`] at the first start.
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

    /// What to keep.
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

    /// The attribute of a parameter.
    pub fn attribute(&self, name: &str) -> Attribute {
        self.attributes.get(name).copied().unwrap_or_default()
    }

    /// Sets the attribute of the parameter `path`, or of every parameter below the partial path `path`, or of none.
    ///
    /// # Errors
    /// 9005 for a name that is not there, 9009 for Active where that is refused (DM-9).
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

    /// Takes what happened.
    pub fn handle(&mut self, now: BootTime, input: Input<'_>) {
        // Times from before a restart may be wrong (T-31), and must not silence anything.
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

    /// Takes changes that belong together, each as full name, value before and value now: one notification tells of
    /// all.
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

    /// The next thing to do for the caller.
    pub fn poll_output(&mut self) -> Option<Output> {
        let fresh = self.pending.get(self.pending.len() - self.fresh)?;
        let Pending { sequence, time, parameters, kind } = fresh.clone();
        self.fresh -= 1;
        Some(Output::Notify { sequence, time, parameters, kind })
    }

    /// When to hand in [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.due()
    }

    /// What nobody acknowledged yet, after the notification `after`, in order; `after` 0 for all.
    pub fn pending(&self, after: u64) -> impl Iterator<Item = &Pending> {
        let first = self.pending.partition_point(|pending| pending.sequence <= after);
        self.pending.range(first..)
    }

    /// The ACS has the notification `sequence` and those before it. Says whether that one was ever made.
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

    /// When what waits makes a notification: never, while nothing that is Active waits, or nobody takes them.
    fn due(&self) -> Option<BootTime> {
        if self.pending.len() >= PENDING_MAXIMUM {
            return None;
        }
        let active = self.waiting.keys().filter(|name| self.attribute(name) == Attribute::Active);
        active.map(|name| if *name == self.number_of_entries { self.allowed_from() } else { BootTime::default() }).min()
    }

    /// When the limit lets the number of entries be told again.
    fn allowed_from(&self) -> BootTime {
        let limit = std::time::Duration::from_secs(self.limit.into());
        self.last_notification.map_or(BootTime::default(), |last| last + limit)
    }

    /// Tells all that waits, so that a session has every change since the last.
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

/// Removes what is below an object.
fn forget<T>(names: &mut BTreeMap<String, T>, object: &str) {
    let below = names.range(object.to_owned()..).map(|(name, _)| name).take_while(|name| name.starts_with(object));
    let below: Vec<String> = below.cloned().collect();
    for name in below {
        names.remove(&name);
    }
}
