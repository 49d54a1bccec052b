//! The gateway: LAN ring to table, table to clients, metrics and log.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use nix::net::if_::if_nametoindex;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{broadcast, mpsc},
    time::timeout,
};
use tr111_common::counter::Counter;

use super::privileges;
use crate::{
    config::{self, Gateway, Values},
    control::{self, BindError, Limits, Listener, message},
    dataplane::{self, Attachment, Counters, Dataplane, Pins},
    service::{
        Ask, Clock, Knobs, Model, Prober, Written,
        association::{Ended, Facts, Owner, Parts},
        open_store, watch_network,
    },
    store,
    telemetry::{
        KernelCounters, Telemetry,
        http::{self, HttpError},
        log::Log,
    },
};

const ROLE: &str = "gateway";
/// Questions that wait for the owner of the table.
const ASKS: usize = 64;
/// Happenings that a watcher may be behind before it misses some.
const EVENTS: usize = 4_096;
/// How long a client may take to read that the agent stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the gateway does not run, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Capabilities are missing.
    #[error("{} missing; {}", missing.join(", "), privileges::HINT)]
    Privileges {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// The packet path.
    #[error("{0}")]
    Dataplane(#[from] dataplane::Error),
    /// The control socket.
    #[error("{0}")]
    Control(#[from] BindError),
    /// The address of the metrics.
    #[error("{0}")]
    Http(#[from] HttpError),
    /// The store.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// The metrics contradict each other.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system refuses.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl KernelCounters for Counters {
    fn read(&self, counter: Counter) -> u64 {
        Self::read(self, counter).unwrap_or_else(|error| {
            tracing::debug!(%error, ?counter, "a counter of the programs was not read");
            0
        })
    }
}

/// Runs the gateway until a signal or `tr111 detach` ends it. `reload` reads the configuration again, for SIGHUP.
pub fn run(
    gateway: &Gateway,
    values: Values,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    let log = Log::start(&gateway.agent.log);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System { what: "start the runtime", source })?;
    runtime.block_on(serve(gateway, values, log, reload))
}

async fn serve(
    gateway: &Gateway,
    values: Values,
    log: Log,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    let system = |what| move |source| Error::System { what, source };
    let started = Clock::now();
    let agent = &gateway.agent;

    if let Some(missing) = privileges::missing().filter(|missing| !missing.is_empty()) {
        return Err(Error::Privileges { missing });
    }
    // Everything that may be taken is taken before anything is attached.
    let pins = Pins::open(&agent.pin_dir)?;
    dataplane::refuse_second_agent(&gateway.lan, pins.as_ref())?;
    let listener = Listener::bind(&agent.control)?;
    let http = match agent.metrics {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let state_dir = agent.state_dir.clone();
    let indices: HashMap<String, u32> =
        gateway.lan.iter().filter_map(|name| Some((name.clone(), if_nametoindex(name.as_str()).ok()?))).collect();
    let (store, kept) = tokio::task::spawn_blocking(move || open_store(&state_dir, |name| indices.get(name).copied()))
        .await
        .map_err(|error| Error::System { what: "read the store", source: io::Error::other(error) })??;
    let written = written(&gateway.management_server)?;
    let signals = Signals::new().map_err(system("listen for signals"))?;
    let network = watch_network().map_err(system("watch addresses by netlink"))?;

    let options = dataplane::Options {
        lan: gateway.lan.clone(),
        xdp_mode: agent.xdp_mode,
        config: gateway.association.kernel(kept.seed.unwrap_or_else(seed)),
        gateway: gateway.identity.encode(),
        log_programs: agent.log_programs,
    };
    let mut dataplane = Dataplane::start(&options, pins)?;
    let seed = dataplane.marks().seed();
    let Some(ring) = dataplane.take_lan_ring() else {
        return Err(dataplane::Error::Missing("LAN ring").into());
    };

    let telemetry = Arc::new(Telemetry::new(ROLE, dataplane.counters())?);
    let metrics = http.as_ref().and_then(|listener| listener.local_addr().ok());
    let (asks, asked) = mpsc::channel(ASKS);
    let (events, _) = broadcast::channel(EVENTS);
    let service = control::Service {
        role: ROLE,
        asks: asks.clone(),
        events: events.clone(),
        clients: telemetry.control_clients.clone(),
        limits: Limits::default(),
    };
    let names = dataplane.attachments().iter().map(|one| (one.ifindex, one.interface.clone())).collect();
    let owner = Owner::new(
        Parts {
            facts: Facts {
                role: ROLE,
                started,
                interfaces: dataplane.attachments().iter().map(describe).collect(),
                pin_dir: agent.pin_dir.clone(),
                metrics: metrics.as_ref().map(SocketAddr::to_string),
            },
            programs: dataplane.marks(),
            counters: dataplane.counters(),
            telemetry: Arc::clone(&telemetry),
            events,
            knobs: Knobs::new(values),
            model: Model::new(gateway.data_model, gateway.identity.clone(), written),
            log,
            prober: Prober::start(names, telemetry.probes_sent.clone()),
        },
        kept,
        seed,
        store,
    );

    let clients = tokio::spawn(control::serve(listener, service));
    if let Some(http) = http {
        tokio::spawn(async move {
            if let Err(error) = http::serve(http, telemetry).await {
                tracing::error!(%error, "metrics are not served any more");
            }
        });
    }
    tokio::spawn(signals.pass_on(asks, reload));
    tracing::info!(
        interfaces = gateway.lan.join(","),
        control = %agent.control.display(),
        metrics = metrics.map(tracing::field::display),
        "gateway runs"
    );

    let ended = owner.run(ring, asked, network).await.map_err(system("wait for events"))?;
    if dataplane.is_pinned() && !agent.detach_on_exit && matches!(ended, Ended::Stopped) {
        drop(dataplane);
        tracing::info!("gateway ends, its programs go on; `tr111 detach` takes them off");
    } else {
        dataplane.detach();
        tracing::info!("programs are off, gateway ends");
    }
    if let Ended::Detached { reply, answered } = ended {
        let _ = reply.send(Ok(()));
        let _ = timeout(FAREWELL, answered).await;
    }
    // Ends with its listener, which takes its socket away.
    clients.abort();
    let _ = clients.await;
    Ok(())
}

/// What holds until somebody writes it.
fn written(server: &config::ManagementServer) -> Result<Written, Error> {
    let password = match &server.connection_request_password_file {
        None => String::new(),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|source| Error::System {
                what: "read management_server.connection_request_password_file",
                source,
            })?;
            // Editors end the last line.
            text.strip_suffix('\n').unwrap_or(&text).to_owned()
        }
    };
    Ok(Written {
        notification_limit: 0,
        url: server.url.clone(),
        connection_request_username: server.connection_request_username.clone(),
        connection_request_password: password,
    })
}

/// A seed that nobody on the LAN knows: the keys of std's hasher come from the system's randomness.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn describe(attachment: &Attachment) -> (u32, message::Interface) {
    let hooks = attachment
        .programs
        .iter()
        .map(|program| message::Hook { program: program.program.to_owned(), mode: program.mode.label().to_owned() });
    let interface = message::Interface {
        name: attachment.interface.clone(),
        side: attachment.side.label().to_owned(),
        hooks: hooks.collect(),
    };
    (attachment.ifindex, interface)
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Tells the owner of the table, until it has ended.
    pub(super) async fn pass_on(mut self, asks: mpsc::Sender<Ask>, reload: impl Fn() -> Result<Values, config::Error>) {
        loop {
            let ask = tokio::select! {
                _ = self.terminate.recv() => Ask::Stop,
                _ = self.interrupt.recv() => Ask::Stop,
                _ = self.hang_up.recv() => match reload() {
                    Ok(values) => Ask::Reload(Box::new(values)),
                    Err(error) => {
                        tracing::error!(%error, "the configuration stays as it was");
                        continue;
                    }
                },
            };
            if asks.send(ask).await.is_err() {
                return;
            }
        }
    }
}
