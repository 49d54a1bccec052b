//! The task that owns the association table of a gateway: passes events to the core and carries out its outputs.

use std::{collections::HashSet, io, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use nix::net::if_::{Interfaces, if_nameindex};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tr111_common::{
    abi::{ClientKey, Neighbour},
    counter::{Counter, Hook, Ring},
    event::{Event, RecordError},
};
use tr111_core::{
    association::{Association, Binding, IdentityResult, Input, Output, Remark, Settings},
    identity::DeviceIdentity,
    model::Side,
    time::BootTime,
};

use super::{
    Ask, Clock, GatewayAlarm, InterfaceState, Kept, LanChange, Model, Prober, Search, Sighting,
    alarms::{self, Alarms},
    cpe,
    describe::Describer,
    flows::{self, Flows, Look},
    keeper::Step,
    kernel::{Events, Programs},
    knobs::Knobs,
    management::{Management, Subject},
    prober::Target,
    replies::{self, Replies},
    search::Order,
    timer::Timer,
};
use crate::{
    config,
    control::message::{self, Device, Happening, Interface, NatBinding, Status},
    dataplane::{self, Attachment, Standing},
    nat::Nat,
    os::ethtool,
    store::{Committed, Store, encode, encode_row, meta},
    telemetry::{KernelCounters, Telemetry, log::Log},
};

/// Rows in one reply to [`Ask::Devices`], and in one step of restoring the table.
const PAGE: usize = 256;
/// How long the ring must be empty before its backlog counts as read.
const QUIET: Duration = Duration::from_millis(20);
/// Limit on the time for reading the backlog of the ring.
const DRAIN: Duration = Duration::from_secs(3);
/// Interval between two checks for lost events of the ring.
const LOSSES: Duration = Duration::from_secs(1);
/// Minimum interval between two reconciliations because of replies without a request. A client that exceeds its budget
/// of requests can cause such replies, and reading every record takes some 100 ms.
const UNMATCHED: Duration = Duration::from_secs(10);
/// How long the alarm stays active after merged datagrams that could not be separated.
const MERGED: Duration = Duration::from_mins(10);
/// Minimum interval between two log lines about denied devices: any host on the LAN can cause them.
const DENIALS: Duration = Duration::from_secs(10);

/// Facts for the status. Most do not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The role of the agent.
    pub role: &'static str,
    /// When the agent started.
    pub started: BootTime,
    /// Interfaces with programs, by kernel index.
    pub interfaces: Vec<(u32, Interface)>,
    /// The directory of pinned programs and maps.
    pub pin_dir: PathBuf,
    /// The address of the metrics endpoint.
    pub metrics: Option<String>,
    /// Which program listens for TCP Connection Requests.
    pub tcp_connection_requests: String,
}

/// Why [`Owner::run`] returned.
#[derive(Debug)]
pub enum Ended {
    /// The agent was told to stop by a signal.
    Stopped,
    /// A client asked to detach the programs.
    Detached {
        /// Receives the result after the programs are detached.
        reply: oneshot::Sender<Result<(), String>>,
        /// Resolves when the client has received the reply.
        answered: oneshot::Receiver<()>,
    },
}

/// What the owner needs.
#[derive(Debug)]
pub struct Parts<K, C> {
    /// Facts for the status.
    pub facts: Facts,
    /// The programs' maps.
    pub programs: K,
    /// The programs' counters.
    pub counters: C,
    /// The metrics.
    pub telemetry: Arc<Telemetry>,
    /// The event stream to watchers.
    pub events: broadcast::Sender<Arc<message::Event>>,
    /// The knobs.
    pub knobs: Knobs,
    /// Values of the data model.
    pub model: Model,
    /// The log, whose filter is a knob.
    pub log: Log,
    /// Sends ARP requests to silent devices.
    pub prober: Prober,
    /// Searches for devices that do not answer ARP.
    pub search: Search,
    /// NAT timeouts; `None` if they are not extended.
    pub nat: Option<Nat>,
}

impl<K: Programs, C> Parts<K, C> {
    /// Carries out the core's outputs that concern kernel maps, probes and searches.
    fn write(&self, now: BootTime, outputs: &[Output]) {
        for output in outputs {
            let (map, written) = match output {
                Output::MarkExchange(key) => ("exchanges", self.programs.mark_exchange(key)),
                Output::Stick(client) => ("sticky", self.programs.stick(client)),
                Output::Unstick { client, reason, seen } => {
                    self.programs.unstick(client, *reason, *seen);
                    continue;
                }
                Output::Watch(neighbour) => ("neighbours", self.programs.watch(neighbour, now)),
                Output::Unwatch(neighbour) => {
                    self.programs.unwatch(neighbour);
                    continue;
                }
                Output::Probe { client, mac, ip } => {
                    self.prober.probe(Target { segment: client.segment, mac: *mac, ip: *ip });
                    continue;
                }
                Output::Search { client, ip, since, until } => {
                    self.search.begin(Order::Sign { client: *client, ip: *ip, since: *since, until: *until });
                    continue;
                }
                Output::AskHolder { segment, ip } => {
                    self.search.begin(Order::Answers { segment: *segment, ip: *ip });
                    continue;
                }
                _ => continue,
            };
            self.note_write(map, written);
        }
    }

    fn note_write(&self, map: &'static str, written: Result<(), dataplane::Error>) {
        if let Err(error) = written {
            self.telemetry.failed_writes.with_label_values(&[map]).inc();
            tracing::debug!(%error, map, "cannot write to a kernel map");
        }
    }
}

/// Owns the association table.
pub struct Owner<K, C> {
    table: Table,
    parts: Parts<K, C>,
    management: Management,
    flows: Flows,
    alarms: Alarms,
    replies: Replies,
    /// Reused between events to avoid allocations.
    outputs: Vec<Output>,
    /// When the next denied device may be logged.
    next_denial: BootTime,
    /// The ring's count of lost events at the last reconciliation.
    lost: u64,
    /// The count of replies without a request at the last reconciliation. `next_reconciliation` is the earliest time of
    /// another reconciliation because of them.
    unmatched: u64,
    next_reconciliation: BootTime,
    /// Clients whose last binding was removed since the last group was passed to the store, and those of that group.
    ended: [HashSet<ClientKey>; 2],
}

/// The association table, for the data model and the store.
pub(super) struct Table {
    pub(super) core: Association,
    pub(super) describer: Describer,
    /// Seed of the programs' hash. It must not change while the maps exist.
    pub(super) seed: u64,
}

impl Subject for Table {
    fn side(&self) -> Side {
        Side::Gateway
    }

    fn number_of_entries(&self) -> u32 {
        self.core.rows()
    }

    fn next_instance(&self) -> u32 {
        self.core.next_instance()
    }

    fn instances(&self) -> Vec<u32> {
        self.core.devices().map(|device| device.instance).collect()
    }

    fn device(&self, instance: u32) -> Option<&DeviceIdentity> {
        self.core.device(instance).map(|device| device.identity)
    }

    fn stored_row(&self, boot: u32, instance: u32) -> Option<Vec<u8>> {
        let device = self.core.device(instance)?;
        Some(encode_row(boot, &device, |ifindex| self.describer.interface(ifindex)))
    }

    fn stored_values(&self, _: u32) -> Vec<(&'static str, Vec<u8>)> {
        vec![(meta::NEXT_INSTANCE, encode(&self.core.next_instance())), (meta::SEED, encode(&self.seed))]
    }
}

fn merging_interfaces() -> Vec<String> {
    let interfaces = if_nameindex().ok();
    let names = interfaces.iter().flat_map(Interfaces::to_slice).filter_map(|one| one.name().to_str().ok());
    names
        .filter(|name| ethtool::merging(name).is_ok_and(|merging| !merging.is_empty()))
        .map(ToOwned::to_owned)
        .collect()
}

/// Builds the core's settings from the configuration.
pub fn settings(association: &config::Association, traffic: &config::Traffic, seed: u64) -> Settings {
    Settings {
        max_rows: association.max_rows,
        deny: association.deny.clone(),
        max_identities_per_mac: association.max_identities_per_mac,
        max_bindings_per_row: association.max_bindings_per_row,
        nak_grace: association.nak_grace,
        expiry_guard: association.expiry_grace,
        inform_maximum_age: association.inform_maximum_age,
        probe_interval: association.probe_interval,
        probe_count: association.probe_count,
        accept_foreign_server: association.accept_foreign_server,
        kernel: traffic.complete(association.kernel(seed)),
        ..Settings::default()
    }
}

impl<K: Programs, C: KernelCounters> Owner<K, C> {
    /// Starts with the table that an earlier agent stored. `seed` is the seed that the programs use.
    pub fn new(parts: Parts<K, C>, mut kept: Kept, seed: u64, store: Store) -> Self {
        let interfaces = &parts.facts.interfaces;
        let describer = Describer::new(interfaces.iter().map(|(ifindex, at)| (*ifindex, at.name.clone())).collect());
        let now = Clock::now();
        let mut core = Association::new(settings(&parts.knobs.association(), &parts.knobs.traffic(), seed));
        let mut rows = std::mem::take(&mut kept.rows).into_iter();
        let instances: Vec<_> = rows.as_slice().iter().map(|row| (row.instance, row.bindings.len())).collect();
        let mut outputs = Vec::new();
        // Clients are passed to the programs in steps: the outputs of a large table need more memory than the table.
        loop {
            core.restore(now, rows.by_ref().take(PAGE), kept.next_instance);
            outputs.extend(std::iter::from_fn(|| core.poll_output()));
            parts.write(now, &outputs);
            outputs.clear();
            if rows.as_slice().is_empty() {
                break;
            }
        }
        // An interface that does not exist yet is treated like one without a carrier.
        for (ifindex, interface) in &parts.facts.interfaces {
            if interface.state == InterfaceState::Missing.label() {
                core.handle(now, Input::LinkDown { ifindex: *ifindex });
            }
        }
        let (telemetry, model) = (&parts.telemetry, parts.model.clone());
        let mut management = Management::new(model, &mut kept, store, core.rows(), telemetry, parts.events.clone());
        management.set_store_interval(parts.knobs.store_interval());
        // Bindings that were not restored are removed from the store as well.
        for (row, bindings) in instances {
            if core.device(row).is_none_or(|device| device.bindings.count() != bindings) {
                management.row(row);
            }
        }
        let lost = parts.counters.read(Counter::RingLost(Ring::Lan));
        let table = Table { core, describer, seed };
        let names = parts.facts.interfaces.iter().map(|(_, interface)| interface.name.as_str());
        let alarms = Alarms::new(telemetry.gateway_alarms.clone(), names);
        let owner = Self {
            table,
            parts,
            management,
            flows: Flows::default(),
            alarms,
            replies: Replies::new(now),
            outputs,
            next_denial: now,
            lost,
            unmatched: 0,
            next_reconciliation: now,
            ended: Default::default(),
        };
        owner.tell_telemetry();
        owner
    }

    /// Starts the service that receives Connection Requests.
    pub fn hear(&mut self, parts: cpe::Parts) -> io::Result<()> {
        self.management.hear(parts)
    }

    /// Runs until a signal or a client stops the agent.
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
            let deadlines = [self.table.core.next_deadline(), self.management.next_deadline()];
            timer.set(deadlines.into_iter().flatten().min())?;
            let step = self.management.next();
            tokio::select! {
                step = step => self.keep(step),
                taken = ring.next_batch(|event| self.take(event)) => {
                    taken?;
                    // A full ring must not delay clients, watchers and metrics.
                    tokio::task::yield_now().await;
                }
                reached = timer.ring() => {
                    reached?;
                    self.handle(Input::Tick);
                    self.management.tick();
                }
                _ = losses.tick() => {
                    self.look_for_losses();
                    self.look_for_replies();
                    self.look_for_merged();
                }
                change = network.recv(), if network_is_watched => match change {
                    Some(change) => self.lan_changed(change),
                    None => network_is_watched = false,
                },
                ask = asks.recv() => match ask {
                    Some(Ask::Detach { pin_dir, reply, answered }) => {
                        let own = &self.parts.facts.pin_dir;
                        match pin_dir {
                            Some(other) if other != *own => {
                                let reason = format!("this agent uses {}; it was not stopped", own.display());
                                let _ = reply.send(Err(reason));
                            }
                            _ => {
                                self.management.finish(&self.table).await;
                                return Ok(Ended::Detached { reply, answered });
                            }
                        }
                    }
                    Some(Ask::Stop) | None => {
                        self.management.finish(&self.table).await;
                        return Ok(Ended::Stopped);
                    }
                    Some(ask) => self.answer(ask),
                },
            }
            self.tell_telemetry();
        }
    }

    /// Takes a step of the store. The programs' record of the end of a client is removed after the store has removed
    /// the client's row.
    fn keep(&mut self, step: Step) {
        let [ended, in_flight] = &mut self.ended;
        match &step {
            Step::Write => in_flight.extend(ended.drain()),
            Step::Done(Committed::Done) => {
                for client in in_flight.drain() {
                    self.parts.programs.forget_ended(&client);
                }
            }
            // The rows are part of the next group.
            Step::Done(Committed::Failed(_) | Committed::Emptied) => {}
        }
        self.management.keep(&self.table, step);
    }

    /// Reads the backlog of the ring from the time when no agent was running, and reconciles (T-29, T-30). Clients are
    /// answered afterwards, so that no client sees an outdated table.
    async fn catch_up(&mut self, ring: &mut impl Events, network: &mut mpsc::Receiver<LanChange>) -> io::Result<()> {
        // An ACK counts only if it comes from one of the gateway's own addresses, so these must be known first.
        let addresses_known = Instant::now() + DRAIN;
        while let Ok(Some(change)) = timeout_at(addresses_known, network.recv()).await {
            let is_addresses = matches!(change, LanChange::Addresses(_));
            self.lan_changed(change);
            if is_addresses {
                break;
            }
        }
        let (begin, end) = (Clock::now(), Instant::now() + DRAIN);
        // On a busy LAN the ring never becomes empty. The backlog is read when the first event newer than `begin`
        // appears.
        let mut is_read = false;
        while !is_read && Instant::now() < end {
            let batch = ring.next_batch(|event| {
                is_read |= event.as_ref().is_ok_and(|event| BootTime(event.time) > begin);
                self.take(event);
            });
            match timeout(QUIET, batch).await {
                Ok(taken) => drop(taken?),
                Err(_quiet) => break,
            }
        }
        self.reconcile();
        // Expiry is processed last: a lease that has expired according to the store may have been renewed meanwhile.
        self.handle(Input::Tick);
        self.management.settle(&self.table).await;
        let bindings = || self.table.core.devices().flat_map(|row| row.bindings);
        let waiting = self.table.core.waiting().copied();
        let clients: HashSet<_> = bindings().map(|held| held.client).chain(waiting).collect();
        self.parts.programs.retain_sticky(|client| clients.contains(client));
        let neighbours: HashSet<_> = bindings().filter_map(Binding::neighbour).collect();
        self.parts.programs.retain_watched(|neighbour| neighbours.contains(neighbour));
        self.tell_telemetry();
        Ok(())
    }

    /// Reconciles if the ring lost events, or if a budget kept requests out of it. The programs' maps still have the
    /// last ACKs.
    fn look_for_losses(&mut self) {
        let lost = self.parts.counters.read(Counter::RingLost(Ring::Lan));
        let unmatched = self.table.core.counts().remark(Remark::UnmatchedReply);
        let now = Clock::now();
        if lost != self.lost || (unmatched != self.unmatched && now >= self.next_reconciliation) {
            (self.lost, self.unmatched, self.next_reconciliation) = (lost, unmatched, now + UNMATCHED);
            self.reconcile();
        }
    }

    /// Processes the last ACK of each client that is newer than the table (T-29).
    fn reconcile(&mut self) {
        let mut acks = self.parts.programs.last_acks();
        // An interface that was created again has a new index. Records of the old index are obsolete.
        let interfaces = &self.parts.facts.interfaces;
        acks.retain(|(client, _)| interfaces.iter().any(|(ifindex, _)| *ifindex == client.segment.ifindex));
        acks.sort_unstable_by_key(|(_, ack)| std::cmp::Reverse(ack.time));
        for (client, ack) in &acks {
            self.handle(Input::LastAck { client: *client, ack });
        }
        tracing::debug!(
            clients = acks.len(),
            rows = self.table.core.rows(),
            "table reconciled with the last ACK of each client"
        );
    }

    fn take(&mut self, event: Result<Event<'_>, RecordError>) {
        match event {
            Ok(event) => {
                self.replies.take(&event);
                match event.hook {
                    Hook::LanBinding => self.flow(&event),
                    _ => self.handle(Input::Event(&event)),
                }
                let latency = Clock::now().since(BootTime(event.time)).unwrap_or_default();
                self.parts.telemetry.event_latency.observe(latency.as_secs_f64());
            }
            Err(error) => {
                self.parts.telemetry.damaged_records.inc();
                tracing::debug!(?error, "cannot decode a record of the LAN ring");
            }
        }
    }

    fn handle(&mut self, input: Input<'_>) {
        let now = Clock::now();
        self.table.core.handle(now, input);
        self.pass_on(now);
    }

    /// Carries out the outputs of the core.
    fn pass_on(&mut self, now: BootTime) {
        let mut outputs = std::mem::take(&mut self.outputs);
        while let Some(output) = self.table.core.poll_output() {
            if let Output::Inquire { client, neighbour } = output {
                let heard = self.parts.programs.neighbour(&neighbour);
                if heard.is_none() {
                    // The map has lost the entry; it is added again.
                    self.parts.note_write("neighbours", self.parts.programs.watch(&neighbour, BootTime::default()));
                }
                let Neighbour { seen, mac, .. } = heard.unwrap_or_default();
                let mac = Some(mac).filter(|mac| *mac != [0; 6]);
                self.table.core.handle(now, Input::Seen { client, at: BootTime(seen), mac });
            } else {
                outputs.push(output);
            }
        }
        if outputs.is_empty() {
            self.outputs = outputs;
            return;
        }
        self.parts.write(now, &outputs);
        for output in &outputs {
            if let Output::Unstick { client, .. } | Output::Ended(client) = output {
                self.ended[0].insert(*client);
            }
            if let Output::Ended(_) = output {
                // The record is deleted after a commit, and nothing else may be due.
                self.management.changed();
            }
            if let Output::DeviceAdded { instance, .. }
            | Output::DeviceRemoved { instance, .. }
            | Output::BindingAdded { instance, .. }
            | Output::BindingRemoved { instance, .. }
            | Output::BindingRenewed { instance, changed: true, .. } = output
            {
                self.management.row(*instance);
            }
            if let Output::BindingRenewed { instance, changed: false, .. } = output {
                self.management.row_renewed(*instance);
            }
            if let Output::DeviceRefused { identity, binding, result: IdentityResult::Denied } = output
                && now >= self.next_denial
            {
                tracing::info!(%identity, mac = %binding.mac, "device denied");
                self.next_denial = now + DENIALS;
            }
        }
        if self.management.is_watched() {
            let Table { core, describer, .. } = &self.table;
            let events = describer.events(self.management.clock(), now, core, &outputs);
            for event in events {
                self.management.tell(event);
            }
        }
        self.management.table_changed(now, &outputs);
        outputs.clear();
        self.outputs = outputs;
    }

    fn lan_changed(&mut self, change: LanChange) {
        match change {
            LanChange::Addresses(addresses) => self.addresses(addresses),
            LanChange::Interface { name, state, attached } => self.interface(&name, state, attached),
            LanChange::Port { name, attached } => self.port(&name, attached),
            LanChange::Standing(standing) => self.stand(standing),
        }
    }

    /// A port of a LAN bridge was attached or released.
    fn port(&mut self, name: &str, attached: Option<Attachment>) {
        let is_port = |known: &Interface| known.side == dataplane::Side::Port.label() && known.name == name;
        self.parts.facts.interfaces.retain(|(_, known)| !is_port(known));
        if let Some(attachment) = attached {
            self.parts.facts.interfaces.push((attachment.ifindex, attachment.into()));
        } else {
            self.alarm(GatewayAlarm::Displaced, name, None);
            self.alarm(GatewayAlarm::Merged, name, None);
        }
    }

    fn addresses(&mut self, addresses: Vec<Ipv4Addr>) {
        tracing::debug!(?addresses, "addresses of this machine changed");
        self.handle(Input::LocalAddresses(addresses));
    }

    /// The state of a LAN interface changed. The interface may have returned with another index.
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
            self.table.describer.rename(ifindex, name);
            self.handle(Input::LinkUp { ifindex, was });
        }
        if was != ifindex {
            self.table.describer.forget(was);
        }
        if state != InterfaceState::Up {
            self.handle(Input::LinkDown { ifindex });
        }
        if matches!(state, InterfaceState::Detached | InterfaceState::Gone) {
            self.alarm(GatewayAlarm::Displaced, name, None);
            self.alarm(GatewayAlarm::Merged, name, None);
            self.replies.forget(ifindex);
        }
    }

    /// Raises or clears the alarm about LAN interfaces on which requests get no replies.
    fn look_for_replies(&mut self) {
        let overdue = self.replies.overdue(Clock::now(), |ifindex| self.parts.programs.last_reply(ifindex));
        let lan = self.parts.facts.interfaces.iter().filter(|(_, known)| known.side == dataplane::Side::Lan.label());
        let forwards_foreign = |ifindex| {
            let last = self.parts.programs.last_foreign_reply(ifindex);
            last.is_some_and(|last| last + replies::MEMORY > Clock::now())
        };
        let judge = |(ifindex, interface): &(u32, Interface)| {
            let egress = interface.hooks.iter().find(|hook| hook.program == Hook::LanEgress.label());
            let in_front = egress.map(|hook| hook.in_front.as_slice()).unwrap_or_default();
            let is_overdue = overdue.contains(ifindex);
            let why = || alarms::why_no_replies(&interface.name, in_front, forwards_foreign(*ifindex));
            (interface.name.clone(), is_overdue.then(why))
        };
        let judged: Vec<_> = lan.map(judge).collect();
        for (name, detail) in judged {
            self.alarm(GatewayAlarm::NoReplies, &name, detail);
        }
    }

    /// Raises or clears the alarm about LAN interfaces that merge datagrams.
    fn look_for_merged(&mut self) {
        let now = Clock::now();
        let mut judged = Vec::new();
        for (ifindex, interface) in &self.parts.facts.interfaces {
            let is_lan =
                [dataplane::Side::Lan, dataplane::Side::Port].iter().any(|side| side.label() == interface.side);
            let has_programs =
                [InterfaceState::Up, InterfaceState::Down].iter().any(|state| state.label() == interface.state);
            let last = self.parts.programs.last_merged(*ifindex).filter(|_| is_lan && has_programs);
            let is_merged = last.is_some_and(|last| last + MERGED > now);
            if is_merged != self.alarms.stands(GatewayAlarm::Merged, &interface.name) {
                let why = || alarms::why_merged(&merging_interfaces());
                judged.push((interface.name.clone(), is_merged.then(why)));
            }
        }
        for (name, detail) in judged {
            self.alarm(GatewayAlarm::Merged, &name, detail);
        }
    }

    /// Takes the order of the programs in the TC chains of an interface.
    fn stand(&mut self, standing: Standing) {
        let Standing { interface, hooks, displaced } = standing;
        let mut interfaces = self.parts.facts.interfaces.iter_mut();
        if let Some((_, known)) = interfaces.find(|(_, known)| known.name == interface) {
            for (program, neighbours) in hooks {
                if let Some(hook) = known.hooks.iter_mut().find(|hook| hook.program == program) {
                    (hook.in_front, hook.behind) = (neighbours.in_front, neighbours.behind);
                }
            }
        }
        self.alarm(GatewayAlarm::Displaced, &interface, displaced);
    }

    /// Raises an alarm with the reason `detail`, or clears it if `detail` is `None`.
    fn alarm(&mut self, alarm: GatewayAlarm, interface: &str, detail: Option<String>) {
        let now = Clock::now();
        if let Some(told) = self.alarms.set(now, alarm, interface, detail)
            && self.management.is_watched()
        {
            let time = self.management.clock().rfc3339(now);
            self.management.tell(message::Event { time, what: Happening::Alarm(told) });
        }
    }

    fn tell_telemetry(&self) {
        self.parts.telemetry.set_table(|table| {
            table.rows = self.table.core.rows().into();
            table.bindings = self.table.core.bindings().into();
            table.counts.clone_from(self.table.core.counts());
        });
    }

    /// Answers with the bindings of this machine, then those of LAN devices. The connection tracker is read in another
    /// task.
    fn bindings(&mut self, reply: oneshot::Sender<Vec<NatBinding>>) {
        let mut bindings = self.management.own_bindings();
        let known = self.parts.programs.flows();
        let listed = self.flows.list(known, &self.table.core, self.management.clock());
        self.parts.telemetry.nat_bindings.set(i64::try_from(self.flows.len()).unwrap_or(i64::MAX));
        let look = self.parts.nat.as_ref().map(Look::new);
        tokio::spawn(async move {
            bindings.extend(flows::look_up(listed, look).await);
            let _ = reply.send(bindings);
        });
    }

    /// Answers a request. A failed reply is ignored: the client has gone.
    fn answer(&mut self, ask: Ask) {
        let ask = match ask {
            Ask::Bindings(reply) => return self.bindings(reply),
            Ask::Sighted(Sighting::Alive { client, sign }) => return self.handle(Input::Alive { client, sign }),
            Ask::Sighted(Sighting::Answer { segment, ip, mac }) => {
                return self.handle(Input::Answer { segment, ip, mac });
            }
            other => other,
        };
        let Some(ask) = self.management.answer(&self.table, ask) else { return };
        match ask {
            Ask::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Ask::Devices { after, reply } => {
                let page = self.devices(after);
                self.management.answer_devices(reply, page);
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
            // The other requests were answered before, or stop the task in `run`.
            _ => {}
        }
    }

    /// A keep-alive of a device's NAT binding was seen.
    fn flow(&mut self, event: &Event<'_>) {
        let Some(key) = self.flows.take(event) else { return };
        if self.flows.is_crowded() {
            self.flows.retain(&self.parts.programs.flows().into_iter().collect());
        }
        self.parts.telemetry.nat_bindings.set(i64::try_from(self.flows.len()).unwrap_or(i64::MAX));
        let (Some(nat), Some(leave)) = (&self.parts.nat, self.flows.leave_to_look()) else { return };
        let (look, extended) = (Look::new(nat), self.parts.telemetry.nat_bindings_extended.clone());
        tokio::spawn(async move {
            if look.is_extended(&key).await {
                extended.inc();
            }
            drop(leave);
        });
    }

    /// Applies the knobs.
    fn apply(&mut self) {
        if let Some(nat) = &self.parts.nat {
            nat.set(&self.parts.knobs.traffic());
        }
        self.parts.log.set(self.parts.knobs.log());
        self.management.set_knobs(self.parts.knobs.cpe());
        self.management.set_store_interval(self.parts.knobs.store_interval());
        let settings = settings(&self.parts.knobs.association(), &self.parts.knobs.traffic(), self.table.seed);
        self.handle(Input::Settings(Box::new(settings)));
        let written = self.parts.programs.set_config(&self.table.core.settings().kernel);
        self.parts.note_write("config", written);
    }

    fn status(&mut self) -> Status {
        let last_notification = self.management.last_notification();
        let facts = &self.parts.facts;
        let read = |counter| self.parts.counters.read(counter);
        Status {
            role: facts.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.management.clock().rfc3339(facts.started),
            uptime_s: Clock::now().since(facts.started).unwrap_or_default().as_secs(),
            interfaces: facts.interfaces.iter().map(|(_, interface)| interface.clone()).collect(),
            table: message::Table {
                rows: self.table.core.rows().into(),
                bindings: self.table.core.bindings().into(),
                max_rows: self.table.core.settings().max_rows.into(),
                waiting: self.table.core.waiting().len() as u64,
            },
            rings: Ring::ALL
                .into_iter()
                .map(|ring| message::Ring {
                    name: ring.label().to_owned(),
                    events: read(Counter::RingEvents(ring)),
                    lost: read(Counter::RingLost(ring)),
                })
                .collect(),
            last_notification,
            store_relearned: self.parts.telemetry.relearned().map(str::to_owned),
            pin_dir: facts.pin_dir.clone(),
            metrics: facts.metrics.clone(),
            tcp_connection_requests: facts.tcp_connection_requests.clone(),
            nat_timeouts: self.parts.nat.as_ref().map(|nat| nat.extension().to_string()),
            alarms: self.alarms.list(self.management.clock()),
            acs: None,
        }
    }

    fn devices(&mut self, after: u32) -> Vec<Device> {
        let clock = self.management.clock();
        let page = self.table.core.devices_after(after).take(PAGE);
        page.map(|device| self.table.describer.device(clock, &self.table.core, &device)).collect()
    }
}
