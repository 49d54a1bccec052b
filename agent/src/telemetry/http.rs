//! The endpoints `/metrics`, `/healthz` and `/readyz`.

use std::{future::ready, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use tokio::net::TcpListener;

use super::Telemetry;
use crate::http::{Limits, Server, Transport};

/// Limits of the listener.
const LIMITS: Limits = Limits {
    connections: 32,
    per_source: 16,
    streams: 0,
    streams_per_source: 0,
    grace: Duration::ZERO,
    headers: Duration::from_secs(10),
    // Scrapers reuse a connection, at least once a minute.
    idle: Duration::from_secs(90),
    stall: Duration::from_secs(30),
    header_bytes: 16 << 10,
};

/// Why the metrics address cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Another process uses the address.
    #[error("the metrics address {address} is in use by another process; choose another one with --metrics")]
    Busy {
        /// The address.
        address: SocketAddr,
    },
    /// Any other error.
    #[error("cannot listen for metrics on {address}: {source}")]
    System {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
}

/// Binds the metrics address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HttpError::Busy { address },
        _ => HttpError::System { address, source },
    })
}

/// Serves requests until the agent ends.
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>) {
    let server = Server::new(listener, Transport::Plain, LIMITS, telemetry.connections("metrics"));
    server.serve(move |request, _| ready(answer(&telemetry, &request))).await;
}

fn answer(telemetry: &Telemetry, request: &Request<Incoming>) -> Response<String> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => match telemetry.render() {
            Ok(metrics) => {
                let mut response = Response::new(metrics);
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT));
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match telemetry.readiness() {
            Ok(said) => text(StatusCode::OK, format!("{said}\n")),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "not found; the endpoints are /metrics, /healthz and /readyz\n"),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
