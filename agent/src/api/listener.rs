//! The listener of the HTTP API: address, TLS and limits for clients.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

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
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{
    access::{Access, Gate},
    problem::Problem,
    router,
    token::{self, BadToken, Token},
};
use crate::{
    http::{Limits, Server, Transport, Visit},
    service::acs::Acs,
    store,
    telemetry::Connections,
};

/// Limits for clients. An ACS on this machine may open one connection per request, and many at once.
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
/// Maximum requests that are processed at a time, because each may have a large body. Further requests wait.
pub(super) const AT_WORK: usize = 64;
/// Time limit for a request, its body included.
const REQUEST: Duration = Duration::from_secs(15);

/// Settings of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Local address.
    pub address: SocketAddr,
    /// Location of the token.
    pub token: Token,
    /// PEM file with the certificate chain. `None`: no TLS.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_file: Option<PathBuf>,
}

/// The HTTP API cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses the address.
    #[error("the address {address} of acs.api is in use by another process")]
    Busy {
        /// Local address.
        address: SocketAddr,
    },
    /// A system call failed.
    #[error("cannot listen on {address} for acs.api: {source}")]
    System {
        /// Local address.
        address: SocketAddr,
        /// Error of the system.
        source: io::Error,
    },
    /// The address is not a loopback address, and there is no token.
    #[error(
        "acs.api {address} is not a loopback address: name a token with acs.api_token_file, or listen on 127.0.0.1"
    )]
    Open {
        /// Local address.
        address: SocketAddr,
    },
    /// The token is missing or invalid.
    #[error("acs.api_token_file {}: {source}", file.display())]
    Token {
        /// Path of the file.
        file: PathBuf,
        /// Reason.
        source: BadToken,
    },
    /// The directory of the token cannot be used.
    #[error("{0}")]
    Directory(#[from] store::Error),
    /// Only one of the two files is set.
    #[error("acs.api_certificate_file and acs.api_key_file go together: set both, or none")]
    Half,
    /// The certificate or the private key cannot be read.
    #[error("{}: {source}", file.display())]
    Pem {
        /// Path of the file.
        file: PathBuf,
        /// Reason.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the private key cannot be used.
    #[error("acs.api_certificate_file and acs.api_key_file: {0}")]
    Tls(#[from] rustls::Error),
}

/// A bound address. Requests are answered from [`Listening::serve`] on.
pub struct Listening {
    listener: TcpListener,
    access: Access,
    tls: Option<Tls>,
    settings: Settings,
}

impl Listening {
    /// Reads token and certificate, and binds the address.
    pub async fn bind(settings: &Settings) -> Result<Self, Error> {
        let address = settings.address;
        let access = Access::new(gate(settings)?);
        let tls = match (&settings.certificate_file, &settings.key_file) {
            (Some(certificate), Some(key)) => Some(Tls::read(certificate, key)?),
            (None, None) => None,
            _ => return Err(Error::Half),
        };
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "the token of the HTTP API is sent in the clear; set acs.api_certificate_file");
        }
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::Busy { address },
            _ => Error::System { address, source },
        })?;
        Ok(Self { listener, access, tls, settings: settings.clone() })
    }

    /// A handle that reads token and certificate again.
    pub fn renewal(&self) -> Renewal {
        let certificate = self.tls.as_ref().map(|tls| Arc::clone(&tls.certificate));
        Renewal { settings: self.settings.clone(), access: self.access.clone(), certificate }
    }

    /// The address as a URL.
    pub fn url(&self) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.listener.local_addr().ok().map(|address| format!("{scheme}://{address}"))
    }

    /// Answers requests until the agent stops.
    pub async fn serve(self, acs: Acs, counts: Connections) {
        let Self { listener, access, tls, .. } = self;
        let transport = tls.map_or(Transport::Plain, |tls| Transport::Tls(tls.acceptor));
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

/// The access rule for the current token.
fn gate(settings: &Settings) -> Result<Gate, Error> {
    let file = match &settings.token {
        Token::Made(file) => {
            if let Err(error) = token::make(file)? {
                // Not fatal: the STUN server works on a full disk as well.
                tracing::error!(file = %file.display(), %error, "cannot create the API token; requests are refused");
                return Ok(Gate::Closed);
            }
            file
        }
        Token::Named(file) => file,
        Token::None if settings.address.ip().is_loopback() => return Ok(Gate::Loopback),
        Token::None => return Err(Error::Open { address: settings.address }),
    };
    token::read(file).map(Gate::Token).map_err(|source| Error::Token { file: file.clone(), source })
}

/// Reads token and certificate again, because they may change while the agent runs.
pub struct Renewal {
    settings: Settings,
    access: Access,
    certificate: Option<Arc<Certificate>>,
}

impl Renewal {
    /// Reads token and certificate again, independently of each other. One that cannot be read or used is not replaced.
    pub fn renew(&self) {
        match gate(&self.settings) {
            Ok(gate) => {
                if self.access.change(gate) {
                    tracing::info!("token of the HTTP API changed");
                }
            }
            Err(error) => tracing::error!(%error, "cannot renew the token of the HTTP API; the old one is kept"),
        }
        let Some(certificate) = &self.certificate else { return };
        let (Some(chain), Some(key)) = (&self.settings.certificate_file, &self.settings.key_file) else { return };
        match certified(chain, key) {
            Ok(key) => {
                if certificate.change(key) {
                    tracing::info!("certificate of the HTTP API changed");
                }
            }
            Err(error) => tracing::error!(%error, "cannot renew the certificate of the HTTP API; the old one is kept"),
        }
    }
}

/// TLS with a replaceable certificate.
struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
}

impl Tls {
    fn read(certificate_file: &Path, key_file: &Path) -> Result<Self, Error> {
        let certificate = Arc::new(Certificate(RwLock::new(Arc::new(certified(certificate_file, key_file)?))));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::clone(&certificate) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }
}

/// The certificate that is sent to clients.
#[derive(Debug)]
struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// Replaces the certificate from the next handshake on. Returns whether the new one differs from the old one.
    fn change(&self, key: CertifiedKey) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = current.cert != key.cert;
        *current = Arc::new(key);
        is_other
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Reads a certificate chain and its private key.
fn certified(certificate_file: &Path, key_file: &Path) -> Result<CertifiedKey, Error> {
    let unread = |file: &Path| {
        let file = file.to_owned();
        move |source| Error::Pem { file, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(unread(certificate_file))?;
    if chain.is_empty() {
        return Err(Error::Tls(rustls::Error::NoCertificatesPresented));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(unread(key_file))?;
    Ok(CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?)
}

/// Limits the requests that are processed at a time. Answers 503 if a request waits longer than [`REQUEST`] for its turn,
/// and 408 if it takes longer than that.
pub(super) async fn in_time(State(turns): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(Ok(turn)) = timeout(REQUEST, turns.acquire_owned()).await else {
        return Problem::unavailable("too many requests are being processed").into_response();
    };
    // A task of its own, because the client may leave, and the time may be over, while a change is being stored: it is
    // then completed or undone all the same.
    let answer = tokio::spawn(async move {
        let response = next.run(request).await;
        drop(turn);
        response
    });
    match timeout(REQUEST, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Problem::unavailable("the server is stopping").into_response(),
        },
        Err(_) => Problem::request_timeout("the request was not received in time").into_response(),
    }
}
