//! The parts of starting and stopping that all roles share: runtime, log, endpoints of clients, and signals.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{broadcast, mpsc},
    task::{self, JoinHandle},
    time::timeout,
};
use tr111_core::binding;

use super::privileges;
#[cfg(feature = "acs")]
use crate::{
    api, registry,
    service::acs::{Acs, BindError as StunError},
};
use crate::{
    config::{self, Agent, ManagementServer, Values},
    control::{self, BindError, Limits, Listener, message::Event},
    dataplane, essential, random,
    service::{
        self, Ask, Kept, Knobs, Written,
        cpe::{self, BindError as ListenError, Tcp, Udp},
    },
    store::{self, Store},
    telemetry::{
        CpeMetrics, Telemetry,
        http::{self, HttpError},
        log::Log,
    },
};
#[cfg(feature = "device")]
use crate::{os::packet_socket::SocketError, service::link::LinkError};

/// Requests that may wait for the owner of a role.
const ASKS: usize = 64;
/// Events by which a watcher may lag before it loses some.
const EVENTS: usize = 4_096;
/// How long clients may take to receive the last events.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// Why a role did not start, or stopped with an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks capabilities.
    #[error("{} missing; {}", missing.join(", "), privileges::HINT)]
    Privileges {
        /// The names of the capabilities.
        missing: Vec<&'static str>,
    },
    /// The kernel programs cannot be loaded or attached.
    #[error("{0}")]
    Dataplane(#[from] dataplane::Error),
    /// The interface cannot be used.
    #[cfg(feature = "device")]
    #[error("{0}")]
    Link(#[from] LinkError),
    /// The packet socket cannot be opened.
    #[cfg(feature = "device")]
    #[error("{0}")]
    Socket(#[from] SocketError),
    /// The control socket cannot be bound.
    #[error("{0}")]
    Control(#[from] BindError),
    /// The address for Connection Requests cannot be bound.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// An address of the STUN server cannot be bound.
    #[cfg(feature = "acs")]
    #[error("{0}")]
    Stun(#[from] StunError),
    /// The metrics address cannot be bound.
    #[error("{0}")]
    Http(#[from] HttpError),
    /// The address of the HTTP interface cannot be bound.
    #[cfg(feature = "acs")]
    #[error("{0}")]
    Api(#[from] api::Error),
    /// The store cannot be opened.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// The registry cannot be opened.
    #[cfg(feature = "acs")]
    #[error("{0}")]
    Registry(#[from] registry::Error),
    /// The registry's encryption key cannot be used.
    #[cfg(feature = "acs")]
    #[error("cannot use acs.registry_encryption_key_file {}: {error}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The reason.
        error: registry::BadKey,
    },
    /// Two metrics have the same name but different definitions.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A part of the agent panicked.
    #[error("{0}")]
    Failed(essential::Failure),
    /// The system refuses.
    #[error("cannot {what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

/// Returns a function that makes an [`Error::System`] of an I/O error. `what` completes the sentence "cannot ...".
pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}

/// Opens and reads the store. `interface` returns the kernel index of a LAN interface by name.
pub(super) async fn open_store(
    agent: &Agent,
    interface: impl Fn(&str) -> Option<u32> + Send + 'static,
) -> Result<(Store, Kept), Error> {
    let directory = agent.state_dir.clone();
    let opened = task::spawn_blocking(move || service::open_store(&directory, interface)).await;
    Ok(opened.map_err(|error| system("read the store")(io::Error::other(error)))??)
}

/// Reads a password from a file.
pub(super) fn secret(file: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(file)?;
    // Editors terminate the last line with a newline.
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// The values of the configuration, which are in force until they are written by the ACS or the operator.
pub(super) fn written(server: &ManagementServer) -> Result<Written, Error> {
    let password = |file: &Option<PathBuf>, what| {
        let Some(file) = file else { return Ok(String::new()) };
        secret(file).map_err(system(what))
    };
    let connection_request_password =
        password(&server.connection_request_password_file, "read management_server.connection_request_password_file")?;
    let stun_password = password(&server.stun_password_file, "read management_server.stun_password_file")?;
    Ok(Written {
        notification_limit: 0,
        connection_request_username: server.connection_request_username.clone(),
        connection_request_password,
        binding: binding::Parameters { stun_password, ..server.stun.clone() },
    })
}

/// Binds the sockets for Connection Requests.
pub(super) async fn sockets(server: &ManagementServer, address: SocketAddrV4) -> Result<(Udp, Option<Tcp>), Error> {
    let tcp = if server.is_tcp_builtin { Some(Tcp::bind(address).await?) } else { None };
    Ok((Udp::bind(address)?, tcp))
}

/// Which program listens for TCP Connection Requests, as text for the status.
pub(super) fn tcp_connection_requests(server: &ManagementServer, address: SocketAddrV4) -> String {
    if server.is_tcp_builtin { format!("builtin at {address}") } else { "external".to_owned() }
}

/// The parts of the service that receives Connection Requests.
pub(super) fn cpe(
    (socket, tcp): (Udp, Option<Tcp>),
    kept: &Kept,
    knobs: &Knobs,
    endpoints: &Endpoints,
    telemetry: &Telemetry,
) -> Result<cpe::Parts, Error> {
    Ok(cpe::Parts {
        socket,
        tcp,
        kept: kept.cpe,
        knobs: knobs.cpe(),
        seed: random::words().map_err(system("read random bytes"))?,
        owner: endpoints.asks.clone(),
        events: endpoints.events.clone(),
        metrics: CpeMetrics::register(telemetry, endpoints.role)?,
    })
}

/// A secret seed that differs at each start: std's hasher takes its keys from the system's random source.
pub(super) fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Starts the log, which `directives` say what of, and runs `role` to its end, or until an essential part of it panics.
pub(super) fn run(directives: &str, role: impl AsyncFnOnce(Log) -> Result<(), Error>) -> Result<(), Error> {
    let log = Log::start(directives);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(system("start the runtime"))?;
    let ended = runtime.block_on(unless_failed(role(log)));
    // A name that is still looked up must not hold up the end.
    runtime.shutdown_background();
    ended
}

/// Runs a role, unless an essential part of it panics.
async fn unless_failed(role: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::select! {
        ended = role => ended,
        failure = essential::failed() => Err(Error::Failed(failure)),
    }
}

/// What clients, scrapers and the init system meet a role by. All of it is taken before anything on the network
/// changes, and none of it answers yet.
pub(super) struct Endpoints {
    role: &'static str,
    listener: Listener,
    http: Option<TcpListener>,
    signals: Signals,
    pub(super) asks: mpsc::Sender<Ask>,
    asked: mpsc::Receiver<Ask>,
    /// The event stream of the owner.
    pub(super) events: broadcast::Sender<Arc<Event>>,
}

impl Endpoints {
    /// Acquires the endpoints.
    pub(super) async fn take(role: &'static str, agent: &Agent) -> Result<Self, Error> {
        let listener = Listener::bind(&agent.control)?;
        let http = match agent.metrics {
            Some(address) => Some(http::bind(address).await?),
            None => None,
        };
        let signals = Signals::new().map_err(system("listen for signals"))?;
        let (asks, asked) = mpsc::channel(ASKS);
        let (events, _) = broadcast::channel(EVENTS);
        Ok(Self { role, listener, http, signals, asks, asked, events })
    }

    /// The address of the metrics endpoint, if there is one.
    pub(super) fn metrics(&self) -> Option<String> {
        self.http.as_ref()?.local_addr().ok().map(|address| address.to_string())
    }

    /// Starts to answer clients. Returns the receiver of requests to the owner of the role. `reload` reads the
    /// configuration again, for SIGHUP.
    pub(super) fn serve(
        self,
        telemetry: Arc<Telemetry>,
        reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
    ) -> (Served, mpsc::Receiver<Ask>) {
        let service = self.service(&telemetry);
        self.serve_by(service, telemetry, reload)
    }

    /// Starts to answer clients of an ACS, which answers requests about its registry itself.
    #[cfg(feature = "acs")]
    pub(super) fn serve_for(
        self,
        acs: Acs,
        telemetry: Arc<Telemetry>,
        reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
    ) -> (Served, mpsc::Receiver<Ask>) {
        let service = control::Service { acs: Some(acs), ..self.service(&telemetry) };
        self.serve_by(service, telemetry, reload)
    }

    fn service(&self, telemetry: &Arc<Telemetry>) -> control::Service {
        control::Service {
            role: self.role,
            asks: self.asks.clone(),
            #[cfg(feature = "acs")]
            acs: None,
            events: self.events.clone(),
            telemetry: Arc::clone(telemetry),
            limits: Limits::default(),
        }
    }

    fn serve_by(
        self,
        service: control::Service,
        telemetry: Arc<Telemetry>,
        reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
    ) -> (Served, mpsc::Receiver<Ask>) {
        let Self { listener, http, signals, asks, asked, events, .. } = self;
        let clients = essential::task("control", control::serve(listener, service));
        if let Some(http) = http {
            essential::task("metrics", http::serve(http, telemetry));
        }
        essential::task("signals", signals.pass_on(asks, reload));
        (Served { clients, events }, asked)
    }
}

/// Endpoints that answer clients.
pub(super) struct Served {
    clients: JoinHandle<()>,
    events: broadcast::Sender<Arc<Event>>,
}

impl Served {
    /// Waits until watchers have received the last events, and closes the endpoints.
    pub(super) async fn close(self) {
        let heard = async {
            while !self.events.is_empty() {
                task::yield_now().await;
            }
            // The task of a client writes the last event one turn after it was taken.
            task::yield_now().await;
        };
        let _ = timeout(FAREWELL, heard).await;
        // The task drops the listener, which removes the socket.
        self.clients.abort();
        let _ = self.clients.await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Passes signals to the owner of the role until the owner has ended.
    async fn pass_on(mut self, asks: mpsc::Sender<Ask>, reload: impl Fn() -> Result<Values, config::Error>) {
        loop {
            let ask = tokio::select! {
                _ = self.terminate.recv() => Ask::Stop,
                _ = self.interrupt.recv() => Ask::Stop,
                _ = self.hang_up.recv() => match reload() {
                    Ok(values) => Ask::Reload(Box::new(values)),
                    Err(error) => {
                        tracing::error!(%error, "cannot reload the configuration; the former one stays in force");
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A role that goes on without one of its parts ends, with an error that says which.
    #[tokio::test]
    async fn a_role_ends_with_a_part_that_panics() {
        let role = async {
            essential::task("its part", async { panic!("out of cheese") });
            std::future::pending().await
        };
        let ended = timeout(Duration::from_secs(10), unless_failed(role)).await.expect("it ends");
        assert!(matches!(ended, Err(Error::Failed(_))), "{ended:?}");
    }
}
