//! A connection to a Redis.
//!
//! It asks nothing of Redis but what it is told to, so a user of Redis needs no more rights than that. Certificates are read
//! for each connection, so that renewed ones are used without a restart.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redis::{Cmd, FromRedisValue, Parser, RedisError, Value, cmd};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
};

use crate::config::{RedisAddress, TlsFiles};

/// How long a connection may take to come.
const CONNECT: Duration = Duration::from_secs(2);
/// How long an answer may take: longer than what [`super::script`] does for the largest batch.
const ANSWER: Duration = Duration::from_secs(5);
/// Where Debian, Alpine and OpenWrt keep the certificates of all authorities.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody hears.
    #[error("{0}")]
    System(#[from] io::Error),
    /// It refuses, or its answer is none.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// A certificate or a key cannot be read.
    #[error("{}: {source}", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// One file of the two.
    #[error("acs.registry_certificate_file and acs.registry_key_file go together: set both, or none")]
    Half,
    /// The host has no name that a certificate can have.
    #[error("{0}")]
    Name(#[from] InvalidDnsNameError),
    /// The certificates do not serve.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// A connection over which one command at a time is asked.
pub(super) struct Connection {
    stream: Stream,
    parser: Parser,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Connects, and logs in.
    pub(super) fn open(address: &RedisAddress) -> Result<Self, ConnectError> {
        let stream = connect(&address.host, address.port)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let stream = match &address.tls {
            Some(files) => Stream::Tls(Box::new(StreamOwned::new(client(&address.host, files)?, stream))),
            None => Stream::Plain(stream),
        };
        let mut connection = Self { stream, parser: Parser::new() };
        if let Some(password) = &address.password {
            let mut login = cmd("AUTH");
            if let Some(username) = &address.username {
                login.arg(username);
            }
            connection.ask::<Value>(login.arg(password))?;
        }
        if address.database != 0 {
            connection.ask::<Value>(cmd("SELECT").arg(address.database))?;
        }
        Ok(connection)
    }

    /// Asks a command, and waits for the answer.
    pub(super) fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, ConnectError> {
        self.stream.write_all(&command.get_packed_command())?;
        self.stream.flush()?;
        let answer = self.parser.parse_value(&mut self.stream)?.extract_error()?;
        Ok(T::from_redis_value(answer).map_err(RedisError::from)?)
    }
}

/// Connects to the first address of a host that answers.
fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The client's side of TLS to a host.
fn client(host: &str, TlsFiles { ca, certificate, key }: &TlsFiles) -> Result<ClientConnection, ConnectError> {
    let mut authorities = RootCertStore::empty();
    // Some of a system's are of a kind that nobody uses.
    authorities.add_parsable_certificates(certificates(ca.as_deref().unwrap_or(Path::new(SYSTEM_CA)))?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(authorities);
    let config = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let unread = |source| ConnectError::Pem { file: key.clone(), source };
            let key = PrivateKeyDer::from_pem_file(key).map_err(unread)?;
            config.with_client_auth_cert(certificates(certificate)?, key)?
        }
        (None, None) => config.with_no_client_auth(),
        _ => return Err(ConnectError::Half),
    };
    Ok(ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned())?)?)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    all.map_err(|source| ConnectError::Pem { file: file.to_owned(), source })
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
