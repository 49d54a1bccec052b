//! Address and credentials of a Redis server.

use std::{fmt, path::PathBuf, str::FromStr};

/// Scheme of the URL without TLS.
const SCHEME: &str = "redis://";
/// Scheme of the URL with TLS.
const TLS_SCHEME: &str = "rediss://";
const PORT: u16 = 6379;

/// Address and credentials of a Redis or Valkey server.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database number.
    pub database: u16,
    /// Username for Redis ACLs. `None`: the default user.
    pub username: Option<String>,
    /// Password. `None`: no authentication.
    pub password: Option<String>,
    /// Files for TLS. `None`: no TLS.
    pub tls: Option<TlsFiles>,
}

/// PEM files of a TLS client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Trusted CA certificates. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Client certificate chain. `None`: no client authentication.
    pub certificate: Option<PathBuf>,
    /// Private key of the client certificate.
    pub key: Option<PathBuf>,
}

/// The text is not an address of a Redis server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// The text is not a `redis://` or `rediss://` URL.
    #[error("write redis://HOST[:PORT][/DB], or rediss:// for TLS")]
    Form,
    /// The URL contains a password. It would appear in logs and listings.
    #[error("the URL must not contain a password: put it into a file and set acs.registry_password_file")]
    Password,
}

impl FromStr for RedisAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (rest, tls) = match (text.strip_prefix(SCHEME), text.strip_prefix(TLS_SCHEME)) {
            (Some(rest), _) => (rest, None),
            (None, Some(rest)) => (rest, Some(TlsFiles::default())),
            (None, None) => return Err(BadAddress::Form),
        };
        let (username, rest) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(BadAddress::Password),
            Some((user, rest)) => (Some(user).filter(|user| !user.is_empty()).map(str::to_owned), rest),
            None => (None, rest),
        };
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = if database.is_empty() { Ok(0) } else { database.parse() };
        // An IPv6 address is enclosed in brackets.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse()),
            _ => (place, Ok(PORT)),
        };
        let (Ok(database), Ok(port)) = (database, port) else { return Err(BadAddress::Form) };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(named) {
            return Err(BadAddress::Form);
        }
        Ok(Self { host: host.to_owned(), port, database, username, password: None, tls })
    }
}

impl RedisAddress {
    /// Sets the password.
    #[must_use]
    pub fn with_password(self, password: String) -> Self {
        Self { password: Some(password), ..self }
    }

    /// Sets the files for TLS. Without TLS they are ignored.
    #[must_use]
    pub fn with_tls_files(self, files: TlsFiles) -> Self {
        let tls = self.tls.map(|_| files);
        Self { tls, ..self }
    }
}

/// Omits the username and the password.
impl fmt::Display for RedisAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, database, .. } = self;
        let scheme = if self.tls.is_some() { TLS_SCHEME } else { SCHEME };
        if host.contains(':') {
            write!(formatter, "{scheme}[{host}]:{port}/{database}")
        } else {
            write!(formatter, "{scheme}{host}:{port}/{database}")
        }
    }
}

/// Omits the username and the password.
impl fmt::Debug for RedisAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RedisAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_with_what_it_leaves_out_and_never_with_a_password() {
        let read = |text: &str| text.parse::<RedisAddress>().map(|address| address.to_string());
        for (text, whole) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379/0"),
            ("redis://acs@cache.example:7000/3", "redis://cache.example:7000/3"),
            ("redis://[::1]:7000", "redis://[::1]:7000/0"),
            ("redis://[::1]", "redis://[::1]:6379/0"),
            ("rediss://cache.example", "rediss://cache.example:6379/0"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(whole));
        }
        assert_eq!(read("redis://:secret@127.0.0.1:7000/0"), Err(BadAddress::Password));
        for bad in ["redis://", "http://a", "redis://a:port", "redis://a/b", "redis://a b", "redis://a:0x1"] {
            assert_eq!(read(bad), Err(BadAddress::Form), "{bad}");
        }
        let address: RedisAddress = "redis://a".parse().expect("an address");
        assert!(!format!("{0:?} {0}", address.with_password("secret".to_owned())).contains("secret"));
    }
}
