//! What every role does with its data model: clients read, write and set attributes, changes make notifications, and
//! nobody is told before it is on the disk.

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

/// Notifications in one answer to [`Ask::Notifications`].
const NOTIFICATIONS: usize = 64;

/// What one role has and the other has not: its part of the data model, and of the store.
pub(super) trait Subject: Sync {
    /// Whose parameters they are.
    fn side(&self) -> Side;

    /// Rows of the table of devices.
    fn number_of_entries(&self) -> u32 {
        0
    }

    /// Their instance numbers, growing.
    fn instances(&self) -> Vec<u32> {
        Vec::new()
    }

    /// The instance number that the next row gets.
    fn next_instance(&self) -> u32 {
        1
    }

    /// Who is in a row.
    fn device(&self, instance: u32) -> Option<&DeviceIdentity> {
        let _ = instance;
        None
    }

    /// What a device knows of its gateway.
    fn gateway_info(&self) -> Option<&GatewayInfo> {
        None
    }

    /// A row as the store has it, written in boot number `boot`.
    fn stored_row(&self, boot: u32, instance: u32) -> Option<Vec<u8>> {
        let _ = (boot, instance);
        None
    }

    /// Small values that are right only together with what else changed, so they go with every group.
    fn stored_values(&self, boot: u32) -> Vec<(&'static str, Vec<u8>)>;
}

/// Owns the data model's values, attributes and notifications, and the way to the store.
#[derive(Debug)]
pub(super) struct Management {
    model: Model,
    demands: watch::Sender<Demands>,
    notifier: Notifier,
    keeper: Keeper,
    clock: Clock,
    events: broadcast::Sender<Arc<message::Event>>,
    store_errors: IntCounter,
    /// Hears Connection Requests, from [`Self::hear`] on.
    cpe: Option<cpe::Handle>,
    /// What is to be kept of it.
    cpe_state: cpe::State,
    /// `UDPConnectionRequestAddress` and `NATDetected` as notifications know them.
    known: Report,
}

impl Management {
    /// With what an earlier agent left. `rows`: how many the table has.
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

    /// The clock, after it followed the system's time.
    pub(super) fn clock(&mut self) -> &Clock {
        self.clock.follow();
        &self.clock
    }

    /// When to call [`Self::tick`].
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        self.notifier.core().next_deadline()
    }

    /// Time went by.
    pub(super) fn tick(&mut self) {
        self.notifier.core_mut().handle(Clock::now(), notification::Input::Tick);
        self.notify(true);
    }

    /// When something was last notified.
    pub(super) fn last_notification(&self) -> Option<String> {
        self.notifier.last_told().map(|time| self.clock.rfc3339(time))
    }

    /// Waits until the store has something to do or has done it: [`Self::keep`]. Cancel-safe, and borrows nothing.
    pub(super) fn next(&self) -> impl Future<Output = Step> + Send + use<> {
        self.keeper.next()
    }

    /// Writes a group, or tells of one that is written.
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

    /// Answers with rows: those with a new number once it is on the disk.
    pub(super) fn answer_devices(&mut self, reply: oneshot::Sender<Vec<message::Device>>, page: Vec<message::Device>) {
        if page.last().is_some_and(|row| self.keeper.may_take_back(row.instance)) {
            self.keeper.tell(Told::Devices(reply, page));
        } else {
            let _ = reply.send(page);
        }
    }

    /// Writes what gathered, once: a crash takes nothing back, no instance number either, of what anybody is shown.
    pub(super) async fn settle(&mut self, subject: &dyn Subject) {
        self.keep(subject, Step::Write);
        match timeout(LAST_GROUP, self.keeper.next()).await {
            Ok(step) => self.keep(subject, step),
            Err(_slow) => tracing::warn!("the store is slow: what happened meanwhile is told before it is written"),
        }
    }

    /// Waits until everything is on the disk, for a while.
    pub(super) async fn finish(&mut self, subject: &dyn Subject) {
        self.keeper.flush();
        let written = async {
            while self.keeper.is_behind() {
                let step = self.keeper.next().await;
                self.keep(subject, step);
            }
        };
        if timeout(LAST_GROUP, written).await.is_err() {
            tracing::error!("the last changes are not in the store");
        }
    }

    /// What the role has to keep changed.
    pub(super) fn changed(&mut self) {
        self.keeper.touch();
    }

    /// How long renewals wait to be written.
    pub(super) fn set_store_interval(&mut self, interval: Duration) {
        self.keeper.set_store_interval(interval);
    }

    /// A lease of the role was renewed, and nothing else changed.
    pub(super) fn renewed(&mut self) {
        self.keeper.renewed(ROLE);
    }

    /// Leases in a row were renewed, and nothing else changed.
    pub(super) fn row_renewed(&mut self, instance: u32) {
        self.keeper.renewed(instance);
    }

    /// A row changed, came or went.
    pub(super) fn row(&mut self, instance: u32) {
        self.keeper.row(instance);
    }

    /// Somebody listens.
    pub(super) fn is_watched(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// To be told with what gathers now.
    pub(super) fn tell(&mut self, event: message::Event) {
        self.keeper.tell(Told::Event(Arc::new(event)));
    }

    /// Takes what became of the table.
    pub(super) fn table_changed(&mut self, now: BootTime, outputs: &[association::Output]) {
        let is_changed = self.notifier.table_changed(now, outputs);
        self.notify(is_changed);
    }

    /// Takes what became of `GatewayInfo`: one notification tells of all that changed (DEV-8, T-3).
    pub(super) fn gateway_info_changed(&mut self, now: BootTime, old: &GatewayInfo, new: &GatewayInfo) {
        attributes::changed(self.notifier.core_mut(), now, self.model.root(), old, new);
        self.notify(true);
    }

    /// Passes on what the notification core has to tell. `is_changed`: there is something to keep anyway.
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

    /// Answers what every role answers alike, and gives everything else back. A client that left before its answer
    /// misses nothing.
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

    /// The binding on which this machine hears Connection Requests.
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
            let _ = reply.send(Err(format!("there was no notification {sequence}")));
        }
        // There may be room for what waited.
        self.notifier.core_mut().handle(Clock::now(), notification::Input::Tick);
        self.notify(false);
    }

    /// Sets parameters; the client is answered once they are on the disk.
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
        // T-72: what is hidden reads the same before and after, and is told of all the same.
        let is_other = |write: &(String, String)| {
            let alone = self.model.check(&view, std::slice::from_ref(write));
            model::is_hidden(&write.0) && alone.is_ok_and(|checked| checked.written != *self.model.written())
        };
        let hidden: Vec<bool> = writes.iter().map(is_other).collect();
        let mut undo = Undo { written: Some(self.model.written().clone()), attributes: Vec::new() };
        if checked.is_url_set && subject.side() == Side::Device {
            // DEV-7: the ACS may be another one now.
            let object = attributes::object(self.model.root());
            match self.replace_attributes(subject, &object, Notification::Active) {
                Ok(before) => undo.attributes = before,
                Err(error) => tracing::error!(%error, object, "the attributes are not what they should be"),
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

    /// Sets the attribute of what is at and below `path`, or of nothing; gives those that were before, by full name.
    fn replace_attributes(
        &mut self,
        subject: &dyn Subject,
        path: &str,
        attribute: Notification,
    ) -> Result<Vec<(String, Notification)>, model::Fault> {
        let found = model::get(&self.view(subject), path)?;
        // Which parameters there are does not depend on attributes, but the view of them reads both.
        let notifications = self.notifier.core().clone();
        self.notifier.core_mut().set(&self.model.view(subject, &notifications), path, attribute)?;
        self.demand();
        Ok(found.into_iter().map(|parameter| (parameter.name, parameter.notification)).collect())
    }

    fn undo(&mut self, subject: &dyn Subject, undo: Undo) {
        for (name, attribute) in undo.attributes {
            if let Err(fault) = self.replace_attributes(subject, &name, attribute) {
                tracing::debug!(name, %fault, "an attribute is not what it was");
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
