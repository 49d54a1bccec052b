//! The address of the HTTP interface, and what clients may take of it.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    access::{Access, BadToken},
    problem::Problem,
    router,
};
use crate::service::acs::Acs;

/// Most clients at a time; others wait to be accepted.
const CLIENTS: usize = 64;
/// Most bytes of a request's line and headers.
const HEADERS: usize = 16 << 10;
/// How long a handshake or the headers of a request may take.
const HELLO: Duration = Duration::from_secs(10);
/// How long a request may take, its body included.
const REQUEST: Duration = Duration::from_secs(15);
/// How long a client may take nothing of its answer.
const STALL: Duration = Duration::from_secs(30);
/// How long to wait when the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

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
    pub async fn serve(self, acs: Acs) {
        let Self { listener, access, tls } = self;
        let router = router(acs, access);
        let clients = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(place) = Arc::clone(&clients).acquire_owned().await else { return };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a client of the HTTP interface was not accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let (router, tls) = (router.clone(), tls.clone());
            tokio::spawn(async move {
                if let Err(error) = converse(stream, tls, router).await {
                    tracing::debug!(%from, %error, "a client of the HTTP interface left");
                }
                drop(place);
            });
        }
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

async fn converse(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return serve(stream, router).await };
    let stream = timeout(HELLO, tls.accept(stream)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    serve(stream, router).await
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) -> io::Result<()> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HELLO)
        .max_buf_size(HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream)), TowerToHyperService::new(router));
    connection.await.map_err(io::Error::other)
}

/// Answers a request in time, or says that it came too slowly.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    let late = |_| Problem::request_timeout("the request did not come in time").into_response();
    timeout(REQUEST, next.run(request)).await.unwrap_or_else(late)
}

/// A stream that fails when its peer takes nothing for too long.
struct Patient<S> {
    stream: S,
    /// When patience ends, while something waits to be taken.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> Patient<S> {
    fn new(stream: S) -> Self {
        Self { stream, until: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.until = None;
            return written;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + STALL)));
        match until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = pin!(&mut self.stream).poll_write(context, from);
        self.judge(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = pin!(&mut self.stream).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = pin!(&mut self.stream).poll_shutdown(context);
        self.judge(context, ended)
    }
}
