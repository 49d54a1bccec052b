//! TCP Connection Requests (UCR-2, TR-069 3.2.2): an HTTP GET with digest authentication, at the address of the UDP ones.

use std::{
    convert::Infallible,
    net::{SocketAddr, SocketAddrV4},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntCounterVec;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tr111_core::digest::{self, Credential, Gate, Refusal};

use super::{Ask, BindError, Clock, Demands, Refused};
use crate::{random, telemetry::CpeMetrics};

/// Connections at a time; others wait in the kernel.
const CONNECTIONS: usize = 16;
/// How long a connection may last: a challenge, its answer, and some time between them.
const CONNECTION: Duration = Duration::from_secs(10);
/// How long the headers of a request may take.
const HEADERS: Duration = Duration::from_secs(5);
/// Most bytes of the headers, and of what a client sends ahead.
const BUFFER: usize = 8_192;
/// Pause after the kernel had no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The port, which nobody reads yet.
#[derive(Debug)]
pub struct Tcp {
    listener: TcpListener,
    gate: Gate,
}

impl Tcp {
    /// Takes the port.
    pub async fn bind(address: SocketAddrV4) -> Result<Self, BindError> {
        let open = async {
            let gate = Gate::new(&random::bytes::<16>()?);
            Ok(Self { listener: TcpListener::bind(address).await?, gate })
        };
        open.await.map_err(|source| BindError { transport: "TCP", address, source })
    }

    /// Answers until the agent ends.
    pub(super) async fn serve(
        self,
        demands: watch::Receiver<Demands>,
        owner: mpsc::Sender<Ask>,
        metrics: CpeMetrics,
        refused: Refused,
    ) {
        let Self { listener, gate } = self;
        let (gate, refused) = (Mutex::new(gate), Mutex::new(refused));
        let door = Arc::new(Door { gate, refused, demands, owner, counter: metrics.tcp_requests });
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let door = Arc::clone(&door);
                    tokio::spawn(async move {
                        if timeout(CONNECTION, door.talk(stream, from)).await.is_err() {
                            tracing::debug!(%from, "a TCP Connection Request took too long");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a TCP connection was not accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// What all connections share.
struct Door {
    gate: Mutex<Gate>,
    refused: Mutex<Refused>,
    demands: watch::Receiver<Demands>,
    owner: mpsc::Sender<Ask>,
    counter: IntCounterVec,
}

impl Door {
    async fn talk(&self, stream: TcpStream, from: SocketAddr) {
        let answer = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request, from)));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
            tracing::debug!(%from, %error, "a TCP Connection Request broke off");
        }
    }

    fn answer(&self, request: &Request<Incoming>, from: SocketAddr) -> Response<String> {
        let now = Clock::now();
        let (result, response) = if request.method() == Method::GET {
            // Nothing in here panics, and a gate is whole between two requests.
            let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            match self.judge(&mut gate, request, from) {
                Ok(()) => (CpeMetrics::ACCEPTED, empty(StatusCode::OK)),
                // TR-069 3.2.2: so is a request answered that is refused for how many there are.
                Err(refusal @ Refusal::TooMany) => (refusal.label(), empty(StatusCode::SERVICE_UNAVAILABLE)),
                Err(refusal) => {
                    let mut response = empty(StatusCode::UNAUTHORIZED);
                    if let Ok(challenge) = HeaderValue::try_from(gate.challenge(now, refusal)) {
                        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                    }
                    (refusal.label(), response)
                }
            }
        } else {
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            (CpeMetrics::WRONG_METHOD, response)
        };
        self.counter.with_label_values(&[result]).inc();
        // Everybody's first one has no credentials yet: it is a question, and its answer no refusal.
        if ![CpeMetrics::ACCEPTED, Refusal::Unauthenticated.label()].contains(&result) {
            self.refused().tell(now, result, &from);
        }
        response
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        // Nothing in there panics, either.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in, and tells the owner of the role.
    fn judge(&self, gate: &mut Gate, request: &Request<Incoming>, from: SocketAddr) -> Result<(), Refusal> {
        let demands = self.demands.borrow();
        let credential = Credential {
            username: &demands.connection_request_username,
            password: &demands.connection_request_password,
        };
        let target = request.uri().to_string();
        let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let request = digest::Request { method: request.method().as_str(), target: &target, authorization };
        gate.judge(Clock::now(), credential, request)?;
        // An owner that is behind so far has more than enough to do.
        let omitted = self.refused().omitted();
        self.owner.try_send(Ask::Woken { from, omitted }).map_err(|_| Refusal::TooMany)
    }
}

fn empty(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}
