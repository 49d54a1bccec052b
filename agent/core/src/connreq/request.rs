//! Connection Requests that an ACS sends (TR-111 2.2.2.3).

use std::{fmt, net::SocketAddrV4, str::FromStr, time::Duration};

use thiserror::Error;

use crate::{secret::SharedSecret, time::UnixTime};

/// Longest datagram that is built, in bytes: it fits into one packet on any path (UCR-21, T-69).
pub const MAXIMUM_LENGTH: usize = 1400;

/// Times at which the copies of a request are sent, relative to the first one (UCR-22, T-70).
pub const COPIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(600)];

/// Port of a CPE that reports none (STUN-43); it is omitted when written (UCR-34).
const DEFAULT_PORT: u16 = 80;

/// Host and port of a CPE: the value of UDPConnectionRequestAddress, or the destination address (UCR-31 to UCR-33).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// IPv4 address or host name.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// Error: a text is neither `host` nor `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected HOST or HOST:PORT")]
pub struct BadAuthority;

impl FromStr for Authority {
    type Err = BadAuthority;

    fn from_str(text: &str) -> Result<Self, BadAuthority> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, digits.parse().ok().filter(|&port| port != 0).ok_or(BadAuthority)?)
            }
            Some(_) => return Err(BadAuthority),
            None => (text, DEFAULT_PORT),
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || !host.bytes().all(named) {
            return Err(BadAuthority);
        }
        Ok(Self { host: host.into(), port })
    }
}

impl From<SocketAddrV4> for Authority {
    fn from(address: SocketAddrV4) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            DEFAULT_PORT => formatter.write_str(&self.host),
            port => write!(formatter, "{}:{port}", self.host),
        }
    }
}

/// `ts` of the next request to a CPE: the current time, increased if necessary to exceed the last `ts` (UCR-37, T-54).
pub fn next_timestamp(now: UnixTime, last: Option<u64>) -> u64 {
    last.map_or(now.0, |last| now.0.max(last.saturating_add(1)))
}

/// Error: the request does not fit into one packet (T-69).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the request has {length} bytes; at most {MAXIMUM_LENGTH} are allowed")]
pub struct DatagramTooLong {
    /// Length of the datagram in bytes.
    pub length: usize,
}

/// A request to a CPE. Its copies have identical bytes (UCR-23); a new request has a new `id` (UCR-38).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRequest<'a> {
    /// Host and port of the CPE.
    pub authority: Authority,
    /// Unix time in seconds, from [`next_timestamp`].
    pub timestamp: u64,
    /// Message identifier.
    pub id: u64,
    /// The CPE's ConnectionRequestUsername.
    pub username: &'a str,
    /// A random string of hexadecimal digits, so that it is the same encoded and decoded (T-51).
    pub nonce: &'a str,
}

impl ConnectionRequest<'_> {
    /// The signed, absolute Request-URI with an empty path (UCR-29 to UCR-41).
    pub fn uri(&self, secret: &SharedSecret) -> String {
        let Self { authority, timestamp, id, username, nonce } = self;
        let mut signature = secret.signature();
        for part in [&timestamp.to_string(), &id.to_string(), *username, nonce] {
            signature.cover(part.as_bytes());
        }
        let signature = signature.finish().map(|byte| format!("{byte:02X}")).concat();
        let (username, nonce) = (form_encoded(username), form_encoded(nonce));
        format!("http://{authority}?ts={timestamp}&id={id}&un={username}&cn={nonce}&sig={signature}")
    }

    /// The signed datagram: a GET without a body (UCR-25 to UCR-28).
    pub fn sign(&self, secret: &SharedSecret) -> Result<Vec<u8>, DatagramTooLong> {
        let datagram = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", self.uri(secret), self.authority).into_bytes();
        match datagram.len() {
            0..=MAXIMUM_LENGTH => Ok(datagram),
            length => Err(DatagramTooLong { length }),
        }
    }
}

/// Encodes as `application/x-www-form-urlencoded` (HTML 4.01 17.13.4): spaces as `+`, reserved bytes as `%XX`.
fn form_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b' ' => encoded.push('+'),
            b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => encoded.push(byte.into()),
            _ => encoded.extend(format!("%{byte:02X}").chars()),
        }
        encoded
    })
}
