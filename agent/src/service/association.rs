//! The task that owns the association table: it hands the core what happens, and carries out what follows.

use std::{collections::HashSet, io, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tr111_common::{
    counter::{Counter, Ring},
    event::{Event, RecordError},
};
use tr111_core::{
    association::{Association, IdentityResult, Input, Output, Settings},
    model::Notification,
    notification::{self, Cause},
    time::BootTime,
};

use super::{
    Ask, Clock, Fault, InterfaceState, Kept, LanChange, Model, Prober,
    describe::Describer,
    keeper::{Keeper, Step, Told, Undo, Whole},
    kernel::{Events, Programs},
    knobs::Knobs,
    notifier::{self, Notifier},
    parameters::fault,
    prober::Target,
    timer::Timer,
};
use crate::{
    config,
    control::message::{self, Device, Interface, Status},
    dataplane::{self, Attachment},
    store::{Committed, Store},
    telemetry::{KernelCounters, Telemetry, log::Log},
};

/// Rows in one answer to [`Ask::Devices`].
const PAGE: usize = 256;

/// Notifications in one answer to [`Ask::Notifications`].
const NOTIFICATIONS: usize = 64;
/// How long the ring has to be empty before what waited in it counts as read.
const QUIET: Duration = Duration::from_millis(20);
/// How long reading what waited in the ring may take.
const DRAIN: Duration = Duration::from_secs(3);
/// How often losses of the ring are looked for.
const LOSSES: Duration = Duration::from_secs(1);
/// At most so often the log tells of devices that are denied: anybody on the LAN can be one, all the time.
const DENIALS: Duration = Duration::from_secs(10);
/// How long the last group may take when the agent ends.
const LAST_GROUP: Duration = Duration::from_secs(5);

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Role of the agent.
    pub role: &'static str,
    /// When it started.
    pub started: BootTime,
    /// Where programs are attached, by kernel index.
    pub interfaces: Vec<(u32, Interface)>,
    /// Directory of what is pinned.
    pub pin_dir: PathBuf,
    /// Address of the metrics.
    pub metrics: Option<String>,
}

/// Why the owner gave up its table.
#[derive(Debug)]
pub enum Ended {
    /// A signal.
    Stopped,
    /// A client asked for it.
    Detached {
        /// Answers the client, once the programs are off.
        reply: oneshot::Sender<Result<(), String>>,
        /// Comes when the client has its answer.
        answered: oneshot::Receiver<()>,
    },
}

/// What the owner works with.
#[derive(Debug)]
pub struct Parts<K, C> {
    /// What does not change.
    pub facts: Facts,
    /// The programs' maps.
    pub programs: K,
    /// The programs' counters.
    pub counters: C,
    /// The metrics.
    pub telemetry: Arc<Telemetry>,
    /// Where happenings go.
    pub events: broadcast::Sender<Arc<message::Event>>,
    /// The knobs.
    pub knobs: Knobs,
    /// Values of the data model.
    pub model: Model,
    /// The log.
    pub log: Log,
    /// Asks the silent.
    pub prober: Prober,
}

/// Owns the table.
pub struct Owner<K, C> {
    core: Association,
    parts: Parts<K, C>,
    keeper: Keeper,
    notifier: Notifier,
    clock: Clock,
    describer: Describer,
    /// Seed of the programs' hash; it stays while the maps do.
    seed: u64,
    /// Kept between events, for its memory.
    outputs: Vec<Output>,
    /// When the next device that is denied is told to the log.
    next_denial: BootTime,
    /// Events that the ring had lost when the table was last reconciled.
    lost: u64,
}

/// What [`Parts`] hold without the store, which [`Keeper`] has.
macro_rules! whole {
    ($owner:expr) => {
        Whole {
            core: &$owner.core,
            notifications: $owner.notifier.core(),
            last_told: $owner.notifier.last_told(),
            written: $owner.parts.model.written(),
            describer: &$owner.describer,
            clock: &$owner.clock,
            seed: $owner.seed,
        }
    };
}

/// The core's settings.
pub fn settings(association: &config::Association, seed: u64) -> Settings {
    Settings {
        max_rows: association.max_rows,
        deny: association.deny.clone(),
        max_identities_per_mac: association.max_identities_per_mac,
        nak_grace: association.nak_grace,
        expiry_guard: association.expiry_grace,
        inform_maximum_age: association.inform_maximum_age,
        probe_interval: association.probe_interval,
        probe_count: association.probe_count,
        accept_foreign_server: association.accept_foreign_server,
        kernel: association.kernel(seed),
        ..Settings::default()
    }
}

impl<K: Programs, C: KernelCounters> Owner<K, C> {
    /// With the table that an earlier agent left. `seed` is the one that the programs have.
    pub fn new(mut parts: Parts<K, C>, mut kept: Kept, seed: u64, store: Store) -> Self {
        let interfaces = &parts.facts.interfaces;
        let describer = Describer::new(interfaces.iter().map(|(ifindex, at)| (*ifindex, at.name.clone())).collect());
        let now = Clock::now();
        let mut core = Association::new(settings(&parts.knobs.association(), seed));
        let rows = std::mem::take(&mut kept.rows);
        let instances: Vec<u32> = rows.iter().map(|row| row.instance).collect();
        core.restore(now, rows, kept.next_instance);
        if let Some(written) = kept.written.take() {
            parts.model.put(written);
        }
        let mut keeper = Keeper::new(store, &kept);
        // What was left out of the table goes from the store as well.
        instances.into_iter().filter(|row| core.device(*row).is_none()).for_each(|row| keeper.row(row));
        let state = std::mem::take(&mut kept.notifications);
        let counter = parts.telemetry.notifications.clone();
        let notifier = Notifier::new(parts.model.root(), state, kept.last_told, core.rows(), counter);
        let lost = parts.counters.read(Counter::RingLost(Ring::Lan));
        let mut owner = Self {
            core,
            parts,
            keeper,
            notifier,
            clock: Clock::new(),
            describer,
            seed,
            outputs: Vec::new(),
            next_denial: now,
            lost,
        };
        // Clients are told to the programs again, and leases that are over go.
        owner.handle(Input::Tick);
        owner.tell_telemetry();
        owner
    }

    /// Works until a signal or a client ends it.
    pub async fn run(
        mut self,
        mut ring: impl Events,
        mut asks: mpsc::Receiver<Ask>,
        mut network: mpsc::Receiver<LanChange>,
    ) -> io::Result<Ended> {
        let mut timer = Timer::new()?;
        let mut network_is_watched = true;
        let mut losses = interval(LOSSES);
        losses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.catch_up(&mut ring, &mut network).await?;
        self.parts.telemetry.set_ready();
        loop {
            let deadlines = [self.core.next_deadline(), self.notifier.core().next_deadline()];
            timer.set(deadlines.into_iter().flatten().min())?;
            let step = self.keeper.next();
            tokio::select! {
                step = step => self.keep(step),
                taken = ring.next_batch(|event| self.take(event)) => {
                    taken?;
                    // A full ring must not keep others from their turn: clients, watchers, metrics.
                    tokio::task::yield_now().await;
                }
                reached = timer.ring() => {
                    reached?;
                    self.handle(Input::Tick);
                    self.notifier.core_mut().handle(Clock::now(), notification::Input::Tick);
                    self.notify(true);
                }
                _ = losses.tick() => {
                    let lost = self.parts.counters.read(Counter::RingLost(Ring::Lan));
                    if lost != self.lost {
                        self.lost = lost;
                        self.reconcile();
                    }
                }
                change = network.recv(), if network_is_watched => match change {
                    Some(LanChange::Addresses(addresses)) => self.addresses(addresses),
                    Some(LanChange::Interface { name, state, attached }) => self.interface(&name, state, attached),
                    None => network_is_watched = false,
                },
                ask = asks.recv() => match ask {
                    Some(Ask::Detach { pin_dir, reply, answered }) => {
                        let own = &self.parts.facts.pin_dir;
                        match pin_dir {
                            Some(other) if other != *own => {
                                let reason = format!("this agent works with {}, and goes on", own.display());
                                let _ = reply.send(Err(reason));
                            }
                            _ => {
                                self.finish().await;
                                return Ok(Ended::Detached { reply, answered });
                            }
                        }
                    }
                    Some(Ask::Stop) | None => {
                        self.finish().await;
                        return Ok(Ended::Stopped);
                    }
                    Some(ask) => self.answer(ask),
                },
            }
            self.tell_telemetry();
        }
    }

    /// Reads what waited in the ring while no agent was there, and what the ring lost (T-29, T-30). Nobody is answered
    /// before, so nobody sees a table that lacks what happened meanwhile.
    async fn catch_up(&mut self, ring: &mut impl Events, network: &mut mpsc::Receiver<LanChange>) -> io::Result<()> {
        // An ACK counts only from a server of this gateway's own.
        if let Ok(Some(LanChange::Addresses(addresses))) = timeout(DRAIN, network.recv()).await {
            self.addresses(addresses);
        }
        let end = Instant::now() + DRAIN;
        while Instant::now() < end {
            match timeout(QUIET, ring.next_batch(|event| self.take(event))).await {
                Ok(taken) => drop(taken?),
                Err(_quiet) => break,
            }
        }
        self.reconcile();
        let clients: HashSet<_> = self.core.devices().flat_map(|row| row.bindings).map(|held| held.client).collect();
        self.parts.programs.retain_sticky(|client| clients.contains(client));
        self.tell_telemetry();
        Ok(())
    }

    /// Lets the last ACK of each client act, as far as nothing newer is known (T-29).
    fn reconcile(&mut self) {
        let mut acks = self.parts.programs.last_acks();
        acks.sort_unstable_by_key(|(_, ack)| std::cmp::Reverse(ack.time));
        for (client, ack) in &acks {
            self.handle(Input::LastAck { client: *client, ack });
        }
        tracing::debug!(clients = acks.len(), rows = self.core.rows(), "reconciled with the last acknowledgements");
    }

    /// Waits until everything is on the disk, for a while.
    async fn finish(&mut self) {
        let written = async {
            while self.keeper.is_behind() {
                let step = self.keeper.next().await;
                self.keep(step);
            }
        };
        if timeout(LAST_GROUP, written).await.is_err() {
            tracing::error!("the last changes are not in the store");
        }
    }

    fn keep(&mut self, step: Step) {
        match step {
            Step::Write => {
                self.clock.follow();
                self.keeper.write(&whole!(self));
            }
            Step::Done(committed) => {
                if committed != Committed::Done {
                    self.parts.telemetry.store_errors.inc();
                }
                let undone = self.keeper.conclude(&committed, &whole!(self), &self.parts.events);
                for undo in undone {
                    self.undo(undo);
                }
            }
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Written(written) => {
                let limit = notification::Input::Limit(written.notification_limit);
                self.notifier.core_mut().handle(Clock::now(), limit);
                self.parts.model.put(written);
            }
            Undo::Attributes(attributes) => {
                for (name, attribute) in attributes {
                    self.notifier.put_attribute(&self.parts.model, &self.core, &name, attribute);
                }
            }
        }
    }

    fn take(&mut self, event: Result<Event<'_>, RecordError>) {
        match event {
            Ok(event) => {
                self.handle(Input::Event(&event));
                let latency = Clock::now().since(BootTime(event.time)).unwrap_or_default();
                self.parts.telemetry.event_latency.observe(latency.as_secs_f64());
            }
            Err(error) => {
                self.parts.telemetry.damaged_records.inc();
                tracing::debug!(?error, "a record of the LAN ring is no event");
            }
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        let now = Clock::now();
        self.core.handle(now, input);
        let mut outputs = std::mem::take(&mut self.outputs);
        while let Some(output) = self.core.poll_output() {
            if let Output::Inquire { client, neighbour } = output {
                let heard = self.parts.programs.last_seen(&neighbour);
                if heard.is_none() {
                    // The map lost it: from now on it is listened to again.
                    self.note_write("neighbours", self.parts.programs.watch(&neighbour, BootTime::default()));
                }
                self.core.handle(now, Input::Seen { client, at: heard.unwrap_or_default() });
            } else {
                outputs.push(output);
            }
        }
        if outputs.is_empty() {
            self.outputs = outputs;
            return;
        }
        self.write(now, &outputs);
        for output in &outputs {
            if let Output::DeviceAdded { instance, .. }
            | Output::DeviceRemoved { instance, .. }
            | Output::BindingAdded { instance, .. }
            | Output::BindingRemoved { instance, .. }
            | Output::BindingRenewed { instance, .. } = output
            {
                self.keeper.row(*instance);
            }
            if let Output::DeviceRefused { identity, binding, result: IdentityResult::Denied } = output
                && now >= self.next_denial
            {
                tracing::info!(%identity, mac = %binding.mac, "a device that is denied gets no row");
                self.next_denial = now + DENIALS;
            }
        }
        if self.parts.events.receiver_count() > 0 {
            self.clock.follow();
            for event in self.describer.events(&self.clock, now, &self.core, &outputs) {
                self.keeper.tell(Told::Event(Arc::new(event)));
            }
        }
        let is_changed = self.notifier.table_changed(now, &outputs);
        self.notify(is_changed);
        outputs.clear();
        self.outputs = outputs;
    }

    /// Passes on what the notification core has to tell. `is_changed`: there is something to keep anyway.
    fn notify(&mut self, is_changed: bool) {
        let mut is_changed = is_changed;
        while let Some((sequence, event)) = self.notifier.poll(&self.clock) {
            self.keeper.notification(sequence);
            self.keeper.tell(Told::Event(Arc::new(event)));
            is_changed = true;
        }
        if is_changed {
            self.keeper.parameters();
        }
    }

    /// Writes to the programs' maps.
    fn write(&self, now: BootTime, outputs: &[Output]) {
        for output in outputs {
            let (map, written) = match output {
                Output::MarkExchange(key) => ("exchanges", self.parts.programs.mark_exchange(key)),
                Output::Stick(client) => ("sticky", self.parts.programs.stick(client)),
                Output::Unstick(client) => {
                    self.parts.programs.unstick(client);
                    continue;
                }
                Output::Watch(neighbour) => ("neighbours", self.parts.programs.watch(neighbour, now)),
                Output::Unwatch(neighbour) => {
                    self.parts.programs.unwatch(neighbour);
                    continue;
                }
                Output::Probe { segment, mac, ip, .. } => {
                    self.parts.prober.probe(Target { segment: *segment, mac: *mac, ip: *ip });
                    continue;
                }
                _ => continue,
            };
            self.note_write(map, written);
        }
    }

    fn note_write(&self, map: &'static str, written: Result<(), dataplane::Error>) {
        if let Err(error) = written {
            self.parts.telemetry.failed_writes.with_label_values(&[map]).inc();
            tracing::debug!(%error, map, "a kernel map was not written");
        }
    }

    fn addresses(&mut self, addresses: Vec<Ipv4Addr>) {
        tracing::debug!(?addresses, "addresses of this machine");
        self.handle(Input::LocalAddresses(addresses));
    }

    /// A LAN interface changed, and may have come back with another index.
    fn interface(&mut self, name: &str, state: InterfaceState, attached: Option<Attachment>) {
        let mut interfaces = self.parts.facts.interfaces.iter_mut();
        let Some((index, interface)) = interfaces.find(|(_, interface)| interface.name == name) else { return };
        let (was, is_attached) = (*index, attached.is_some());
        match attached {
            Some(attachment) => (*index, *interface) = (attachment.ifindex, attachment.into()),
            None if matches!(state, InterfaceState::Detached | InterfaceState::Gone) => interface.hooks.clear(),
            None => {}
        }
        state.label().clone_into(&mut interface.state);
        let ifindex = *index;
        if is_attached || state == InterfaceState::Up {
            self.describer.rename(ifindex, name);
            self.handle(Input::LinkUp { ifindex, was });
        }
        if was != ifindex {
            self.describer.forget(was);
        }
        if state != InterfaceState::Up {
            self.handle(Input::LinkDown { ifindex });
        }
    }

    fn tell_telemetry(&self) {
        self.parts.telemetry.set_table(|table| {
            table.rows = self.core.rows().into();
            table.bindings = self.core.bindings().into();
            table.counts.clone_from(self.core.counts());
        });
    }

    /// A client that left before its answer misses nothing.
    fn answer(&mut self, ask: Ask) {
        self.clock.follow();
        match ask {
            Ask::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Ask::Devices { after, reply } => {
                let _ = reply.send(self.devices(after));
            }
            Ask::Get { paths, reply } => {
                let view = self.parts.model.view(&self.core, self.notifier.core());
                let _ = reply.send(view.get(&paths));
            }
            Ask::Set { parameters, by_acs, reply } => self.set(&parameters, by_acs, reply),
            Ask::Notify { path, attribute, reply } => self.set_attribute(path, attribute, reply),
            Ask::Notifications { after, reply } => {
                let told = self.keeper.told_sequence();
                let page = self.notifier.core().pending(after).take_while(|pending| pending.sequence <= told);
                let _ = reply.send(page.take(NOTIFICATIONS).map(|one| notifier::event(&self.clock, one)).collect());
            }
            Ask::Acknowledge { sequence, reply } => {
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
            Ask::Knobs(reply) => {
                let _ = reply.send(self.parts.knobs.list());
            }
            Ask::Tune { settings, reply } => {
                let tuned = self.parts.knobs.tune(&settings).map_err(|error| error.to_string());
                if tuned.is_ok() {
                    self.apply();
                }
                let _ = reply.send(tuned);
            }
            Ask::Reload(values) => {
                for kept in self.parts.knobs.reload(*values) {
                    tracing::warn!(key = kept, "the new value takes effect at the next start");
                }
                self.apply();
                tracing::info!("configuration reloaded");
            }
            // These end the task, in `run`.
            Ask::Detach { .. } | Ask::Stop => {}
        }
    }

    /// Sets parameters; the client is answered once they are on the disk.
    fn set(&mut self, writes: &[(String, String)], by_acs: bool, reply: oneshot::Sender<Result<(), Fault>>) {
        let model = &self.parts.model;
        let view = model.view(&self.core, self.notifier.core());
        let paths: Vec<String> = writes.iter().map(|(path, _)| path.clone()).collect();
        let checked = model.check(&view, writes).and_then(|written| Ok((written, view.get(&paths)?)));
        let (written, before) = match checked {
            Ok(checked) => checked,
            Err(fault) => {
                let _ = reply.send(Err(fault));
                return;
            }
        };
        let undo = Undo::Written(model.written().clone());
        let now = Clock::now();
        self.notifier.core_mut().handle(now, notification::Input::Limit(written.notification_limit));
        self.parts.model.put(written);
        let after = self.parts.model.view(&self.core, self.notifier.core()).get(&paths).unwrap_or_default();
        let cause = if by_acs { Cause::Acs } else { Cause::Other };
        for (before, after) in before.iter().zip(&after).filter(|(before, after)| before.value != after.value) {
            self.notifier.changed(now, &after.name, &before.value, &after.value, cause);
        }
        self.notify(true);
        self.keeper.tell(Told::Set { reply, path: paths.first().cloned().unwrap_or_default(), undo });
    }

    fn set_attribute(&mut self, path: String, attribute: Notification, reply: oneshot::Sender<Result<(), Fault>>) {
        let view = self.parts.model.view(&self.core, self.notifier.core());
        let before = tr111_core::model::get(&view, &path).map(|found| {
            let attributes = found.into_iter().map(|parameter| (parameter.name, parameter.notification));
            attributes.collect::<Vec<_>>()
        });
        let set = before.and_then(|before| {
            self.notifier.set_attribute(&self.parts.model, &self.core, &path, attribute)?;
            Ok(before)
        });
        match set {
            Ok(before) => {
                self.notifier.core_mut().handle(Clock::now(), notification::Input::Tick);
                self.notify(true);
                self.keeper.tell(Told::Set { reply, path, undo: Undo::Attributes(before) });
            }
            Err(error) => {
                let _ = reply.send(Err(fault(error, &path)));
            }
        }
    }

    /// Puts the knobs into force.
    fn apply(&mut self) {
        self.parts.log.set(self.parts.knobs.log());
        self.handle(Input::Settings(settings(&self.parts.knobs.association(), self.seed)));
        let written = self.parts.programs.set_config(&self.core.settings().kernel);
        self.note_write("config", written);
    }

    fn status(&self) -> Status {
        let facts = &self.parts.facts;
        let read = |counter| self.parts.counters.read(counter);
        Status {
            role: facts.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.clock.rfc3339(facts.started),
            uptime_s: Clock::now().since(facts.started).unwrap_or_default().as_secs(),
            interfaces: facts.interfaces.iter().map(|(_, interface)| interface.clone()).collect(),
            table: message::Table {
                rows: self.core.rows().into(),
                bindings: self.core.bindings().into(),
                max_rows: self.core.settings().max_rows.into(),
            },
            rings: Ring::ALL
                .into_iter()
                .map(|ring| message::Ring {
                    name: ring.label().to_owned(),
                    events: read(Counter::RingEvents(ring)),
                    lost: read(Counter::RingLost(ring)),
                })
                .collect(),
            last_notification: self.notifier.last_told().map(|time| self.clock.rfc3339(time)),
            pin_dir: facts.pin_dir.clone(),
            metrics: facts.metrics.clone(),
        }
    }

    fn devices(&self, after: u32) -> Vec<Device> {
        let page = self.core.devices_after(after).take(PAGE);
        page.map(|device| self.describer.device(&self.clock, &device)).collect()
    }
}
