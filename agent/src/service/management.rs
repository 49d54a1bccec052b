//! The data model of a role: clients read and set parameters and attributes, and changes cause notifications. Clients
//! and watchers are told of a change after it is on disk.

mod connection_requests;

use std::{sync::Arc, time::Duration};

use prometheus::IntCounter;
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::timeout,
};
use tr111_core::{
    association,
    binding::Report,
    device::{GatewayInfo, attributes},
    identity::DeviceIdentity,
    model::{self, Notification, Side},
    notification::{self, Cause},
    time::BootTime,
};

pub use self::connection_requests::Demands;
use super::{
    Ask, Clock, Fault, Kept, Model, cpe,
    keeper::{Keeper, LAST_GROUP, Step, Told, Undo, Whole},
    notifier::{self, Notifier},
    parameters::{View, fault},
    renewals::ROLE,
};
use crate::{
    control::message::{self, NatBinding},
    store::{Committed, Store},
    telemetry::Telemetry,
};

/// Notifications in one reply to [`Ask::Notifications`].
const NOTIFICATIONS: usize = 64;

/// The part of the data model and of the store that differs between the roles.
pub(super) trait Subject: Sync {
    fn side(&self) -> Side;

    /// Number of rows of the ManageableDevice table.
    fn number_of_entries(&self) -> u32 {
        0
    }

    /// Instance numbers of the rows, in ascending order.
    fn instances(&self) -> Vec<u32> {
        Vec::new()
    }

    /// The instance number of the next new row.
    fn next_instance(&self) -> u32 {
        1
    }

    /// The device of a row.
    fn device(&self, instance: u32) -> Option<&DeviceIdentity> {
        let _ = instance;
        None
    }

    /// `GatewayInfo` of a device; `None` on a gateway.
    fn gateway_info(&self) -> Option<&GatewayInfo> {
        None
    }

    /// A row in the store's encoding, as of boot number `boot`; `None` if the row does not exist.
    fn stored_row(&self, boot: u32, instance: u32) -> Option<Vec<u8>> {
        let _ = (boot, instance);
        None
    }

    /// Small values that must be consistent with the other records, so they are written with every group.
    fn stored_values(&self, boot: u32) -> Vec<(&'static str, Vec<u8>)>;
}

/// Owns the data model's values, attributes and notifications, and writes them to the store.
#[derive(Debug)]
pub(super) struct Management {
    model: Model,
    demands: watch::Sender<Demands>,
    notifier: Notifier,
    keeper: Keeper,
    clock: Clock,
    events: broadcast::Sender<Arc<message::Event>>,
    store_errors: IntCounter,
    /// The service that receives Connection Requests; set by [`Self::hear`].
    cpe: Option<cpe::Handle>,
    /// The state of that service which is stored.
    cpe_state: cpe::State,
    /// `UDPConnectionRequestAddress` and `NATDetected` as last passed to the notification core.
    known: Report,
}

impl Management {
    /// Starts with the stored state. `rows` is the number of rows of the table.
    pub(super) fn new(
        mut model: Model,
        kept: &mut Kept,
        store: Store,
        rows: u32,
        telemetry: &Telemetry,
        events: broadcast::Sender<Arc<message::Event>>,
    ) -> Self {
        if let Some(written) = kept.written.take() {
            let written = written.over(model.written());
            model.put(written);
        }
        let keeper = Keeper::new(store, kept);
        let state = std::mem::take(&mut kept.notifications);
        let notifier = Notifier::new(model.root(), state, kept.last_told, rows, telemetry.notifications.clone());
        let address = notifier.core().attribute(&model::udp_connection_request_address(model.root()));
        let (demands, _) = watch::channel(Demands::new(model.written(), address));
        Self {
            model,
            demands,
            notifier,
            keeper,
            clock: Clock::new(),
            events,
            store_errors: telemetry.store_errors.clone(),
            cpe: None,
            cpe_state: cpe::State::default(),
            known: Report::default(),
        }
    }

    /// The clock, adjusted to the system time.
    pub(super) fn clock(&mut self) -> &Clock {
        self.clock.follow();
        &self.clock
    }

    /// When [`Self::tick`] is due.
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        self.notifier.core().next_deadline()
    }

    /// Processes deadlines that have passed.
    pub(super) fn tick(&mut self) {
        self.notifier.core_mut().handle(Clock::now(), notification::Input::Tick);
        self.notify(true);
    }

    /// Time of the last notification, in RFC 3339 format.
    pub(super) fn last_notification(&self) -> Option<String> {
        self.notifier.last_told().map(|time| self.clock.rfc3339(time))
    }

    /// Waits for the store's next step, which is passed to [`Self::keep`]. Cancel-safe; borrows nothing.
    pub(super) fn next(&self) -> impl Future<Output = Step> + Send + use<> {
        self.keeper.next()
    }

    /// Writes a group, or processes the result of one.
    pub(super) fn keep(&mut self, subject: &dyn Subject, step: Step) {
        self.clock.follow();
        let whole = Whole {
            subject,
            notifications: self.notifier.core(),
            last_told: self.notifier.last_told(),
            written: self.model.written(),
            cpe: &self.cpe_state,
            clock: &self.clock,
        };
        match step {
            Step::Write => self.keeper.write(&whole),
            Step::Done(committed) => {
                if committed != Committed::Done {
                    self.store_errors.inc();
                }
                for undo in self.keeper.conclude(&committed, &whole, &self.events) {
                    self.undo(subject, undo);
                }
            }
        }
    }

    /// Sends rows to a client. A row with a new instance number is sent after the number is on disk.
    pub(super) fn answer_devices(&mut self, reply: oneshot::Sender<Vec<message::Device>>, page: Vec<message::Device>) {
        if page.last().is_some_and(|row| self.keeper.may_take_back(row.instance)) {
            self.keeper.tell(Told::Devices(reply, page));
        } else {
            let _ = reply.send(page);
        }
    }

    /// Writes the collected changes and waits for the result, so that a crash cannot lose an instance number that was
    /// shown to a client.
    pub(super) async fn settle(&mut self, subject: &dyn Subject) {
        self.keep(subject, Step::Write);
        match timeout(LAST_GROUP, self.keeper.next()).await {
            Ok(step) => self.keep(subject, step),
            Err(_slow) => tracing::warn!("the store is slow: changes are shown before they are written"),
        }
    }

    /// Writes all changes to the store and waits for it, at most [`LAST_GROUP`].
    pub(super) async fn finish(&mut self, subject: &dyn Subject) {
        self.keeper.flush();
        let written = async {
            while self.keeper.is_behind() {
                let step = self.keeper.next().await;
                self.keep(subject, step);
            }
        };
        if timeout(LAST_GROUP, written).await.is_err() {
            tracing::error!("the latest changes were not written to the store before the agent stopped");
        }
    }

    /// Marks the role's stored values as changed.
    pub(super) fn changed(&mut self) {
        self.keeper.touch();
    }

    /// Sets how long renewals may wait before they are written.
    pub(super) fn set_store_interval(&mut self, interval: Duration) {
        self.keeper.set_store_interval(interval);
    }

    /// The role's own lease was renewed and nothing else changed.
    pub(super) fn renewed(&mut self) {
        self.keeper.renewed(ROLE);
    }

    /// Leases of a row were renewed and nothing else changed.
    pub(super) fn row_renewed(&mut self, instance: u32) {
        self.keeper.renewed(instance);
    }

    /// A row was added, changed or removed.
    pub(super) fn row(&mut self, instance: u32) {
        self.keeper.row(instance);
    }

    /// Whether the event stream has subscribers.
    pub(super) fn is_watched(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Queues an event to be sent after the collected changes are on disk.
    pub(super) fn tell(&mut self, event: message::Event) {
        self.keeper.tell(Told::Event(Arc::new(event)));
    }

    /// Notifies of changes of the ManageableDevice table.
    pub(super) fn table_changed(&mut self, now: BootTime, outputs: &[association::Output]) {
        let is_changed = self.notifier.table_changed(now, outputs);
        self.notify(is_changed);
    }

    /// Notifies of changes of `GatewayInfo`: one notification holds all changed parameters (DEV-8, T-3).
    pub(super) fn gateway_info_changed(&mut self, now: BootTime, old: &GatewayInfo, new: &GatewayInfo) {
        attributes::changed(self.notifier.core_mut(), now, self.model.root(), old, new);
        self.notify(true);
    }

    /// Stores and announces the notifications of the core. `is_changed`: the core's state must be stored in any case.
    fn notify(&mut self, mut is_changed: bool) {
        self.clock.follow();
        while let Some((sequence, event)) = self.notifier.poll(&self.clock) {
            self.keeper.notification(sequence);
            self.tell(event);
            is_changed = true;
        }
        if is_changed {
            self.keeper.parameters();
        }
    }

    /// Answers the requests that are common to all roles and returns the others. A failed reply is ignored: the client
    /// has gone.
    pub(super) fn answer(&mut self, subject: &dyn Subject, ask: Ask) -> Option<Ask> {
        match ask {
            Ask::Get { paths, reply } => {
                let parameters = self.view(subject).get(&paths);
                if self.keeper.may_take_back(subject.next_instance().saturating_sub(1)) {
                    self.keeper.tell(Told::Parameters(reply, parameters));
                } else {
                    let _ = reply.send(parameters);
                }
            }
            Ask::Set { parameters, by_acs, reply } => self.set(subject, &parameters, by_acs, reply),
            Ask::Notify { path, attribute, reply } => self.set_attribute(subject, path, attribute, reply),
            Ask::Notifications { after, reply } => {
                self.clock.follow();
                let told = self.keeper.told_sequence();
                let page = self.notifier.core().pending(after).take_while(|pending| pending.sequence <= told);
                let _ = reply.send(page.take(NOTIFICATIONS).map(|one| notifier::event(&self.clock, one)).collect());
            }
            Ask::Acknowledge { sequence, reply } => self.acknowledge(sequence, reply),
            Ask::Bindings(reply) => {
                let _ = reply.send(self.own_bindings());
            }
            Ask::Heard(news) => self.heard(news),
            Ask::Woken { from, omitted } => self.woken(from, omitted),
            other => return Some(other),
        }
        None
    }

    /// The bindings on which this machine receives Connection Requests.
    pub(super) fn own_bindings(&mut self) -> Vec<NatBinding> {
        self.clock.follow();
        self.cpe.as_ref().map(|cpe| cpe.bindings(&self.clock)).unwrap_or_default()
    }

    fn view<'a>(&'a self, subject: &'a dyn Subject) -> View<'a> {
        self.model.view(subject, self.notifier.core())
    }

    fn acknowledge(&mut self, sequence: u64, reply: oneshot::Sender<Result<(), String>>) {
        let gone: Vec<u64> = self.notifier.core().pending(0).map(|pending| pending.sequence).collect();
        if sequence <= self.keeper.told_sequence() && self.notifier.core_mut().acknowledge(sequence) {
            gone.into_iter().filter(|gone| *gone <= sequence).for_each(|gone| self.keeper.notification(gone));
            self.keeper.tell(Told::Acknowledged(reply));
        } else {
            let _ = reply.send(Err(format!("there is no notification with sequence number {sequence} to acknowledge")));
        }
        // The acknowledgement may have made room for changes that wait.
        self.notifier.core_mut().handle(Clock::now(), notification::Input::Tick);
        self.notify(false);
    }

    /// Sets parameters. The client gets its reply after they are on disk.
    fn set(
        &mut self,
        subject: &dyn Subject,
        writes: &[(String, String)],
        by_acs: bool,
        reply: oneshot::Sender<Result<(), Fault>>,
    ) {
        let view = self.view(subject);
        let paths: Vec<String> = writes.iter().map(|(path, _)| path.clone()).collect();
        let checked = self.model.check(&view, writes).and_then(|checked| Ok((checked, view.get(&paths)?)));
        let (checked, before) = match checked {
            Ok(checked) => checked,
            Err(fault) => {
                let _ = reply.send(Err(fault));
                return;
            }
        };
        // T-72: a hidden value reads the same before and after the write, but its change is notified.
        let is_other = |write: &(String, String)| {
            let alone = self.model.check(&view, std::slice::from_ref(write));
            model::is_hidden(&write.0) && alone.is_ok_and(|checked| checked.written != *self.model.written())
        };
        let hidden: Vec<bool> = writes.iter().map(is_other).collect();
        let mut undo = Undo { written: Some(self.model.written().clone()), attributes: Vec::new() };
        if checked.is_url_set && subject.side() == Side::Device {
            // DEV-7: the ACS may have changed.
            let object = attributes::object(self.model.root());
            match self.replace_attributes(subject, &object, Notification::Active) {
                Ok(before) => undo.attributes = before,
                Err(error) => tracing::error!(%error, object, "cannot set notification attributes to Active"),
            }
        }
        let now = Clock::now();
        self.notifier.core_mut().handle(now, notification::Input::Limit(checked.written.notification_limit));
        self.put(now, checked.written);
        let after = self.view(subject).get(&paths).unwrap_or_default();
        let cause = if by_acs { Cause::Acs } else { Cause::Other };
        for ((before, after), is_hidden_other) in before.iter().zip(&after).zip(hidden) {
            if is_hidden_other || before.value != after.value {
                self.notifier.changed(now, &after.name, &before.value, &after.value, cause);
            }
        }
        self.notify(true);
        self.keeper.tell(Told::Set { reply, path: paths.first().cloned().unwrap_or_default(), undo });
    }

    fn set_attribute(
        &mut self,
        subject: &dyn Subject,
        path: String,
        attribute: Notification,
        reply: oneshot::Sender<Result<(), Fault>>,
    ) {
        match self.replace_attributes(subject, &path, attribute) {
            Ok(attributes) => {
                self.notifier.core_mut().handle(Clock::now(), notification::Input::Tick);
                self.notify(true);
                self.keeper.tell(Told::Set { reply, path, undo: Undo { written: None, attributes } });
            }
            Err(error) => {
                let _ = reply.send(Err(fault(error, &path)));
            }
        }
    }

    /// Sets the attribute of all parameters at and below `path`, or of none. Returns the former attributes, by full
    /// name.
    fn replace_attributes(
        &mut self,
        subject: &dyn Subject,
        path: &str,
        attribute: Notification,
    ) -> Result<Vec<(String, Notification)>, model::Fault> {
        let found = model::get(&self.view(subject), path)?;
        // Attributes do not affect which parameters exist, but the view reads both, so it gets a copy.
        let notifications = self.notifier.core().clone();
        self.notifier.core_mut().set(&self.model.view(subject, &notifications), path, attribute)?;
        self.demand();
        Ok(found.into_iter().map(|parameter| (parameter.name, parameter.notification)).collect())
    }

    fn undo(&mut self, subject: &dyn Subject, undo: Undo) {
        for (name, attribute) in undo.attributes {
            if let Err(fault) = self.replace_attributes(subject, &name, attribute) {
                tracing::debug!(name, %fault, "cannot restore a notification attribute");
            }
        }
        if let Some(written) = undo.written {
            let now = Clock::now();
            self.notifier.core_mut().handle(now, notification::Input::Limit(written.notification_limit));
            self.put(now, written);
            self.notify(false);
        }
    }
}
