//! The address of the HTTP interface, and what clients may take of it.

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
    /// Where the token is.
    pub token: Token,
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
    #[error("acs.api is {address}, which others reach: let acs.api_token_file name a token, or listen on 127.0.0.1")]
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
    /// The directory of the token.
    #[error("{0}")]
    Directory(#[from] store::Error),
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
    tls: Option<Tls>,
    settings: Settings,
}

impl Listening {
    /// Takes the address.
    pub async fn bind(settings: &Settings) -> Result<Self, Error> {
        let address = settings.address;
        let access = Access::new(gate(settings)?);
        let tls = match (&settings.certificate_file, &settings.key_file) {
            (Some(certificate), Some(key)) => Some(Tls::read(certificate, key)?),
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
        Ok(Self { listener, access, tls, settings: settings.clone() })
    }

    /// What reads token and certificates again, and puts them into force.
    pub fn renewal(&self) -> Renewal {
        let certificate = self.tls.as_ref().map(|tls| Arc::clone(&tls.certificate));
        Renewal { settings: self.settings.clone(), access: self.access.clone(), certificate }
    }

    /// The address as a URL.
    pub fn url(&self) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.listener.local_addr().ok().map(|address| format!("{scheme}://{address}"))
    }

    /// Answers until the agent ends.
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

/// What lets clients in, by the token as it is now.
fn gate(settings: &Settings) -> Result<Gate, Error> {
    let file = match &settings.token {
        Token::Made(file) => {
            if let Err(error) = token::make(file)? {
                // A full disk stops no STUN server.
                tracing::error!(file = %file.display(), %error, "nobody may use the HTTP interface: its token cannot be made");
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

/// Token and certificates, which their owner may change while the agent runs.
pub struct Renewal {
    settings: Settings,
    access: Access,
    certificate: Option<Arc<Certificate>>,
}

impl Renewal {
    /// Reads them again, each by itself. What cannot be read, or does not serve, stays as it was.
    pub fn renew(&self) {
        match gate(&self.settings) {
            Ok(gate) => {
                if self.access.change(gate) {
                    tracing::info!("another token of the HTTP interface is in force");
                }
            }
            Err(error) => tracing::error!(%error, "the token of the HTTP interface stays as it was"),
        }
        let Some(certificate) = &self.certificate else { return };
        let (Some(chain), Some(key)) = (&self.settings.certificate_file, &self.settings.key_file) else { return };
        match certified(chain, key) {
            Ok(key) => {
                if certificate.change(key) {
                    tracing::info!("another certificate of the HTTP interface is in force");
                }
            }
            Err(error) => tracing::error!(%error, "the certificate of the HTTP interface stays as it was"),
        }
    }
}

/// TLS with a certificate that may be changed.
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

/// The certificate that clients are shown.
#[derive(Debug)]
struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// Shows another one from the next handshake on; whether it is another one.
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

/// A certificate with the key that belongs to it.
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

/// Answers a request when its turn comes, and in time, or says that it came too slowly.
pub(super) async fn in_time(State(turns): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let turn = turns.acquire().await;
    let late = |_| Problem::request_timeout("the request did not come in time").into_response();
    let response = timeout(REQUEST, next.run(request)).await.unwrap_or_else(late);
    drop(turn);
    response
}
