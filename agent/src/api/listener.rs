//! The address of the HTTP interface, and what clients may take of it.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{
    access::{Access, BadToken},
    problem::Problem,
    router,
};
use crate::{
    http::{Limits, Server, Transport, Visit},
    service::acs::Acs,
    telemetry::Connections,
};

/// What clients get at most. An ACS on this machine may open a connection for each request, and many at once.
const LIMITS: Limits = Limits {
    connections: 512,
    per_source: 256,
    streams: 32,
    streams_per_source: 16,
    grace: Duration::from_millis(100),
    headers: Duration::from_secs(10),
    idle: Duration::from_mins(1),
    stall: Duration::from_secs(30),
    header_bytes: 16 << 10,
};
/// Requests that are worked on at a time, each of which may have a large body; others wait.
pub(super) const AT_WORK: usize = 64;
/// How long a request may take, its body included.
const REQUEST: Duration = Duration::from_secs(15);

/// Where and how to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The address.
    pub address: SocketAddr,
    /// The file with the token.
    pub token_file: Option<PathBuf>,
    /// The chain of certificates, in PEM.
    pub certificate_file: Option<PathBuf>,
    /// The private key, in PEM.
    pub key_file: Option<PathBuf>,
}

/// Why there is no HTTP interface.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the port.
    #[error("the address {address} of acs.api is in use by another process")]
    Busy {
        /// The address.
        address: SocketAddr,
    },
    /// The system refuses.
    #[error("cannot listen on {address}, which is acs.api: {source}")]
    System {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Anybody on the network could ask.
    #[error("acs.api is {address}, which others reach: set acs.api_token_file, or listen on 127.0.0.1")]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// The token.
    #[error("acs.api_token_file {}: {source}", file.display())]
    Token {
        /// The file.
        file: PathBuf,
        /// Why.
        source: BadToken,
    },
    /// One file of the two.
    #[error("acs.api_certificate_file and acs.api_key_file go together: set both, or none")]
    Half,
    /// The certificate or the key cannot be read.
    #[error("{}: {source}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// They do not serve.
    #[error("acs.api_certificate_file and acs.api_key_file: {0}")]
    Tls(#[from] rustls::Error),
}

/// An address that does not answer yet.
pub struct Listening {
    listener: TcpListener,
    access: Access,
    tls: Option<TlsAcceptor>,
}

impl Listening {
    /// Takes the address.
    pub async fn bind(settings: &Settings) -> Result<Self, Error> {
        let address = settings.address;
        let access = match &settings.token_file {
            Some(file) => Access::read(file).map_err(|source| Error::Token { file: file.clone(), source })?,
            None if address.ip().is_loopback() => Access::Loopback,
            None => return Err(Error::Open { address }),
        };
        let tls = match (&settings.certificate_file, &settings.key_file) {
            (Some(certificate), Some(key)) => Some(tls(certificate, key)?),
            (None, None) => None,
            _ => return Err(Error::Half),
        };
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "the token of the HTTP interface travels in the clear; set acs.api_certificate_file");
        }
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::Busy { address },
            _ => Error::System { address, source },
        })?;
        Ok(Self { listener, access, tls })
    }

    /// The address as a URL.
    pub fn url(&self) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.listener.local_addr().ok().map(|address| format!("{scheme}://{address}"))
    }

    /// Answers until the agent ends.
    pub async fn serve(self, acs: Acs, counts: Connections) {
        let Self { listener, access, tls } = self;
        let transport = tls.map_or(Transport::Plain, Transport::Tls);
        let router = TowerToHyperService::new(router(acs, access));
        let server = Server::new(listener, transport, LIMITS, counts);
        let answer = move |mut request: hyper::Request<_>, visit: &Visit| {
            request.extensions_mut().insert(visit.clone());
            let answer = router.call(request);
            async move {
                let Ok(response) = answer.await;
                response
            }
        };
        server.serve(answer).await;
    }
}

fn tls(certificate_file: &PathBuf, key_file: &PathBuf) -> Result<TlsAcceptor, Error> {
    let unread = |file: &PathBuf| {
        let file = file.clone();
        move |source| Error::Pem { file, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(unread(certificate_file))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(unread(key_file))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers a request when its turn comes, and in time, or says that it came too slowly.
pub(super) async fn in_time(State(turns): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let turn = turns.acquire().await;
    let late = |_| Problem::request_timeout("the request did not come in time").into_response();
    let response = timeout(REQUEST, next.run(request)).await.unwrap_or_else(late);
    drop(turn);
    response
}
