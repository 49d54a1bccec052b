//! The device: DHCP on one interface to `GatewayInfo`, and `GatewayInfo` to clients, metrics and log.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime,
    sync::{broadcast, mpsc},
    task,
    time::timeout,
};
use tr111_core::device::{Mode, Settings};

use super::gateway::Signals;
use crate::{
    config::{self, Device, DeviceMode, Values},
    control::{self, BindError, Limits, Listener, message},
    service::{
        Clock, Knobs,
        device::{Owner, Parts},
        link::{Link, LinkError},
    },
    sim::socket::{PacketSocket, SocketError},
    telemetry::{
        DeviceMetrics, Telemetry,
        http::{self, HttpError},
        log::Log,
    },
};

const ROLE: &str = "device";
/// Questions that wait for the owner of the device.
const ASKS: usize = 64;
/// Happenings that a watcher may be behind before it misses some.
const EVENTS: usize = 256;
/// How long watchers may take to hear of the release.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the device does not run, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The interface.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// The packet socket.
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// The control socket.
    #[error("{0}")]
    Control(#[from] BindError),
    /// The address of the metrics.
    #[error("{0}")]
    Http(#[from] HttpError),
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

/// Runs the device until a signal ends it. `reload` reads the configuration again, for SIGHUP.
pub fn run(
    device: &Device,
    values: Values,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    let log = Log::start(&device.agent.log);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System { what: "start the runtime", source })?;
    runtime.block_on(serve(device, values, log, reload))
}

async fn serve(
    device: &Device,
    values: Values,
    log: Log,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    let system = |what| move |source| Error::System { what, source };
    let agent = &device.agent;
    let link = Link::watch(&device.interface).await?;
    if device.mode != DeviceMode::Off {
        // Says in time what is missing. An interface that is down comes up later.
        match PacketSocket::open_for_dhcp_replies(&device.interface) {
            Ok(_) | Err(SocketError::Down(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let listener = Listener::bind(&agent.control)?;
    let http = match agent.metrics {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let signals = Signals::new().map_err(system("listen for signals"))?;
    let telemetry = Arc::new(Telemetry::plain(ROLE)?);
    let metrics = DeviceMetrics::register(&telemetry)?;
    let address = http.as_ref().and_then(|listener| listener.local_addr().ok()).as_ref().map(SocketAddr::to_string);
    let (asks, asked) = mpsc::channel(ASKS);
    let (events, _) = broadcast::channel(EVENTS);
    let happened = events.clone();
    let service = control::Service {
        role: ROLE,
        asks: asks.clone(),
        events: events.clone(),
        clients: telemetry.control_clients.clone(),
        limits: Limits::default(),
    };
    let mode = match device.mode {
        DeviceMode::Inform => Some(Mode::Inform { interval: device.inform_interval }),
        DeviceMode::Dhcp => Some(Mode::Dhcp),
        DeviceMode::Off => None,
    };
    let mac = link.first.mac;
    let owner = Owner::new(Parts {
        status: status(device, address),
        started: Clock::now(),
        interface: device.interface.clone(),
        link,
        device: mode.map(|mode| Settings { mac, identity: device.identity.clone(), mode, seed: seed() }),
        identity: device.identity.clone(),
        root: device.data_model,
        url: device.url.clone(),
        knobs: Knobs::new(values),
        log,
        telemetry: Arc::clone(&telemetry),
        metrics,
        events,
    });

    let clients = tokio::spawn(control::serve(listener, service));
    if let Some(http) = http {
        tokio::spawn(async move {
            if let Err(error) = http::serve(http, telemetry).await {
                tracing::error!(%error, "metrics are not served any more");
            }
        });
    }
    tokio::spawn(signals.pass_on(asks, reload));
    tracing::info!(interface = device.interface, mode = ?device.mode, control = %agent.control.display(), "device runs");

    owner.run(asked).await.map_err(system("wait for events"))?;
    // Watchers hear of the release.
    let heard = async {
        while !happened.is_empty() {
            task::yield_now().await;
        }
        task::yield_now().await;
    };
    let _ = timeout(FAREWELL, heard).await;
    tracing::info!("device ends");
    // Ends with its listener, which takes its socket away.
    clients.abort();
    let _ = clients.await;
    Ok(())
}

/// A device has neither table nor rings.
fn status(device: &Device, metrics: Option<String>) -> message::Status {
    let interface = message::Interface { name: device.interface.clone(), side: "wan".to_owned(), hooks: Vec::new() };
    message::Status {
        role: ROLE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: String::new(),
        uptime_s: 0,
        interfaces: vec![interface],
        table: message::Table { rows: 0, bindings: 0, max_rows: 0 },
        rings: Vec::new(),
        last_notification: None,
        pin_dir: device.agent.pin_dir.clone(),
        metrics,
    }
}

/// Differs between devices and starts: the keys of std's hasher come from the system's randomness.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
