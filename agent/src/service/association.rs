//! The task that owns the association table: it hands the core what happens, and carries out what follows.

use std::{io, net::Ipv4Addr, path::PathBuf, sync::Arc};

use tokio::sync::{broadcast, mpsc, oneshot};
use tr111_common::{
    counter::{Counter, Ring},
    event::{Event, RecordError},
};
use tr111_core::{
    association::{Association, Input, Output, Settings},
    time::BootTime,
};

use super::{
    Ask, Clock, Model, NetworkChange,
    describe::Describer,
    kernel::{Events, Programs},
    knobs::Knobs,
    timer::Timer,
};
use crate::{
    config,
    control::message::{self, Device, Interface, Status},
    dataplane,
    telemetry::{KernelCounters, Telemetry, log::Log},
};

/// Rows in one answer to [`Ask::Devices`].
const PAGE: usize = 256;

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
}

/// Owns the table.
pub struct Owner<K, C> {
    core: Association,
    parts: Parts<K, C>,
    clock: Clock,
    describer: Describer,
    /// Seed of the programs' hash; it stays while the maps do.
    seed: u64,
    /// Kept between events, for its memory.
    outputs: Vec<Output>,
}

/// The core's settings.
pub fn settings(association: &config::Association, seed: u64) -> Settings {
    Settings {
        max_rows: association.max_rows,
        max_identities_per_mac: association.max_identities_per_mac,
        nak_grace: association.nak_grace,
        expiry_guard: association.expiry_grace,
        inform_maximum_age: association.inform_maximum_age,
        accept_foreign_server: association.accept_foreign_server,
        kernel: association.kernel(seed),
        ..Settings::default()
    }
}

impl<K: Programs, C: KernelCounters> Owner<K, C> {
    /// With an empty table. `seed` is the one that the programs have.
    pub fn new(parts: Parts<K, C>, seed: u64) -> Self {
        let interfaces = &parts.facts.interfaces;
        let describer = Describer::new(interfaces.iter().map(|(ifindex, at)| (*ifindex, at.name.clone())).collect());
        Self {
            core: Association::new(settings(&parts.knobs.association(), seed)),
            parts,
            clock: Clock::new(),
            describer,
            seed,
            outputs: Vec::new(),
        }
    }

    /// Works until a signal or a client ends it.
    pub async fn run(
        mut self,
        mut ring: impl Events,
        mut asks: mpsc::Receiver<Ask>,
        mut network: mpsc::Receiver<NetworkChange>,
    ) -> io::Result<Ended> {
        let mut timer = Timer::new()?;
        let mut network_is_watched = true;
        self.parts.telemetry.set_ready();
        loop {
            timer.set(self.core.next_deadline())?;
            tokio::select! {
                taken = ring.next_batch(|event| self.take(event)) => {
                    taken?;
                    // A full ring must not keep others from their turn: clients, watchers, metrics.
                    tokio::task::yield_now().await;
                }
                reached = timer.ring() => {
                    reached?;
                    self.handle(Input::Tick);
                }
                change = network.recv(), if network_is_watched => match change {
                    Some(NetworkChange::Addresses(addresses)) => self.addresses(addresses),
                    Some(NetworkChange::LinkGone { ifindex }) => self.link_gone(ifindex),
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
                            _ => return Ok(Ended::Detached { reply, answered }),
                        }
                    }
                    Some(Ask::Stop) | None => return Ok(Ended::Stopped),
                    Some(ask) => self.answer(ask),
                },
            }
            self.tell_telemetry();
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
            outputs.push(output);
        }
        if outputs.is_empty() {
            self.outputs = outputs;
            return;
        }
        self.write(&outputs);
        if self.parts.events.receiver_count() > 0 {
            self.clock.follow();
            for event in self.describer.events(&self.clock, now, &self.core, &outputs) {
                // Without receivers nobody misses it.
                let _ = self.parts.events.send(Arc::new(event));
            }
        }
        outputs.clear();
        self.outputs = outputs;
    }

    /// Writes to the programs' maps.
    fn write(&self, outputs: &[Output]) {
        for output in outputs {
            let (map, written) = match output {
                Output::MarkExchange(key) => ("exchanges", self.parts.programs.mark_exchange(key)),
                Output::Stick(client) => ("sticky", self.parts.programs.stick(client)),
                Output::Unstick(client) => {
                    self.parts.programs.unstick(client);
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

    fn link_gone(&mut self, ifindex: u32) {
        let interfaces = &mut self.parts.facts.interfaces;
        let Some((_, interface)) = interfaces.iter_mut().find(|(index, _)| *index == ifindex) else { return };
        tracing::warn!(
            interface = interface.name,
            "the interface is gone, and the programs with it; restart the agent when it is back"
        );
        interface.hooks.clear();
        self.handle(Input::LinkGone { ifindex });
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
                let _ = reply.send(self.parts.model.get(&self.core, &paths));
            }
            Ask::Set { parameters, reply } => {
                let _ = reply.send(self.parts.model.set(&self.core, &parameters));
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
            last_notification: None,
            pin_dir: facts.pin_dir.clone(),
            metrics: facts.metrics.clone(),
        }
    }

    fn devices(&self, after: u32) -> Vec<Device> {
        let page = self.core.devices_after(after).take(PAGE);
        page.map(|device| self.describer.device(&self.clock, &device)).collect()
    }
}
