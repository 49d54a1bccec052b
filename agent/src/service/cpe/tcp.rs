//! TCP Connection Requests (UCR-2, TR-069 3.2.2): an HTTP GET with digest authentication, at the same address as UDP.

use std::{
    future::ready,
    net::{SocketAddr, SocketAddrV4},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use prometheus::IntCounterVec;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tr111_core::digest::{self, Credential, Gate, Refusal};

use super::{Ask, BindError, Clock, Demands, Refused};
use crate::{
    http::{Limits, Server, Transport},
    random,
    telemetry::CpeMetrics,
};

/// Limits of the server. A Connection Request consists of a challenge and its answer, with a delay in between.
const LIMITS: Limits = Limits {
    connections: 32,
    per_source: 16,
    streams: 0,
    streams_per_source: 0,
    grace: Duration::ZERO,
    headers: Duration::from_secs(5),
    idle: Duration::from_secs(10),
    stall: Duration::from_secs(10),
    header_bytes: 8 << 10,
};

/// A bound listener that does not accept connections yet.
#[derive(Debug)]
pub struct Tcp {
    listener: TcpListener,
    gate: Gate,
}

impl Tcp {
    /// Binds the listener.
    pub async fn bind(address: SocketAddrV4) -> Result<Self, BindError> {
        let open = async {
            let gate = Gate::new(&random::bytes::<16>()?);
            Ok(Self { listener: TcpListener::bind(address).await?, gate })
        };
        open.await.map_err(|source| BindError { transport: "TCP", address, source })
    }

    /// Serves requests until the agent ends.
    pub(super) async fn serve(
        self,
        demands: watch::Receiver<Demands>,
        owner: mpsc::Sender<Ask>,
        metrics: CpeMetrics,
        refused: Refused,
    ) {
        let Self { listener, gate } = self;
        let server = Server::new(listener, Transport::Plain, LIMITS, metrics.tcp_connections);
        let (gate, refused) = (Mutex::new(gate), Mutex::new(refused));
        let door = Arc::new(Door { gate, refused, demands, owner, counter: metrics.tcp_requests });
        server.serve(move |request, visit| ready(door.answer(&request, visit.from))).await;
    }
}

/// State that all connections share.
struct Door {
    gate: Mutex<Gate>,
    refused: Mutex<Refused>,
    demands: watch::Receiver<Demands>,
    owner: mpsc::Sender<Ask>,
    counter: IntCounterVec,
}

impl Door {
    fn answer(&self, request: &Request<Incoming>, from: SocketAddr) -> Response<String> {
        let now = Clock::now();
        let (result, response) = if request.method() == Method::GET {
            // A panic cannot leave a half-made change: no code in this block panics.
            let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            match self.judge(&mut gate, request, from) {
                Ok(()) => (CpeMetrics::ACCEPTED, empty(StatusCode::OK)),
                // TR-069 3.2.2: 503 answers a request that is refused because there are too many.
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
        // The first request of a client has no credentials. It asks for a challenge and is not reported as refused.
        if ![CpeMetrics::ACCEPTED, Refusal::Unauthenticated.label()].contains(&result) {
            self.refused().tell(now, result, &from);
        }
        response
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        // A panic cannot leave a half-made change: no code that holds this lock panics.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a request and passes it to the owner of the role.
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
        // If the owner's queue is full, the request is refused.
        let omitted = self.refused().omitted();
        self.owner.try_send(Ask::Woken { from, omitted }).map_err(|_| Refusal::TooMany)
    }
}

fn empty(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}
