//! A connection to a Redis server.
//!
//! The connection sends no commands of its own except for AUTH and SELECT, so the Redis user needs no further
//! permissions. Certificates are read for each connection, so that renewed ones are used without a restart.

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

/// Time limit for the TCP connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Time limit for a reply. The scripts of [`super::script`] take less for the largest batch.
const ANSWER: Duration = Duration::from_secs(5);
/// CA certificates of the system on Debian, Alpine and OpenWrt.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// A system call failed.
    #[error("{0}")]
    System(#[from] io::Error),
    /// Redis returned an error or an invalid reply.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// A certificate or a key cannot be read.
    #[error("{}: {source}", file.display())]
    Pem {
        /// Path of the file.
        file: PathBuf,
        /// Reason.
        source: pem::Error,
    },
    /// Only one of the two files is set.
    #[error("acs.registry_certificate_file and acs.registry_key_file go together: set both, or none")]
    Half,
    /// The host is not a valid name for a certificate.
    #[error("{0}")]
    Name(#[from] InvalidDnsNameError),
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// A connection that sends one command at a time.
pub(super) struct Connection {
    stream: Stream,
    parser: Parser,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Connects, authenticates and selects the database.
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

    /// Sends a command and waits for the reply.
    pub(super) fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, ConnectError> {
        self.stream.write_all(&command.get_packed_command())?;
        self.stream.flush()?;
        let answer = self.parser.parse_value(&mut self.stream)?.extract_error()?;
        Ok(T::from_redis_value(answer).map_err(RedisError::from)?)
    }
}

/// Connects to the first address of a host that accepts the connection.
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

/// TLS client for a host.
fn client(host: &str, TlsFiles { ca, certificate, key }: &TlsFiles) -> Result<ClientConnection, ConnectError> {
    let mut authorities = RootCertStore::empty();
    // Unsupported certificates among those of the system are skipped.
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
