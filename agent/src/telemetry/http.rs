//! `/metrics`, `/healthz` and `/readyz`.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::Telemetry;

/// Connections at a time; others wait in the kernel.
const CONNECTIONS: usize = 16;
/// How long the headers of a request may take, and how long a connection may rest between two.
const HEADERS: Duration = Duration::from_secs(30);
/// Pause after the kernel had no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

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
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, from)) => {
                let telemetry = Arc::clone(&telemetry);
                tokio::spawn(async move {
                    let answer = service_fn(async |request| Ok::<_, Infallible>(answer(&telemetry, &request)));
                    let mut http = http1::Builder::new();
                    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
                    if let Err(error) = http.serve_connection(TokioIo::new(stream), answer).await {
                        tracing::debug!(%from, %error, "a scraper left");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a scraper was not accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

fn answer(telemetry: &Telemetry, request: &Request<Incoming>) -> Response<String> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
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
        "/readyz" if telemetry.is_ready() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "programs are not attached yet\n"),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
