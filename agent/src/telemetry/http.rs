//! `/metrics`, `/healthz` and `/readyz`.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use super::Telemetry;

/// Why the metrics have no address.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Another process has the port.
    #[error("the metrics address {address} is in use by another process; give another one with --metrics")]
    Busy {
        /// The address.
        address: SocketAddr,
    },
    /// The system refuses.
    #[error("cannot listen for metrics on {address}: {source}")]
    System {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Takes the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HttpError::Busy { address },
        _ => HttpError::System { address, source },
    })
}

/// Answers until the agent ends.
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>) -> io::Result<()> {
    axum::serve(listener, router(telemetry)).await
}

fn router(telemetry: Arc<Telemetry>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(telemetry)
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    match telemetry.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(telemetry): State<Arc<Telemetry>>) -> Response {
    if telemetry.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "programs are not attached yet\n").into_response()
    }
}
