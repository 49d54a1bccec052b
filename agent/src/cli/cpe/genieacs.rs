//! Reads the credentials of CPEs from the north-bound interface (NBI) of a `GenieACS`: `GET /devices/` with `query`,
//! `projection`, `sort` and `limit`.
//!
//! `GenieACS` stores each parameter that it set in a CPE, passwords included, as `_value` below the name of the
//! parameter in the document of the device. Devices are read in pages, sorted by `_id`, which is the `DeviceID.ID` of a
//! provision.

use std::{fmt, io, path::Path, str::FromStr, sync::Arc, time::Duration};

use axum::body::{self, Body};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header,
    http::uri::{Authority, Scheme},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::file::Entries;
use crate::{api::escape, cli::output::printable, control::message::NewCpe};

/// Devices per page.
const PAGE: usize = 500;
/// Maximum bytes of a page. A device with its credentials has about 1 KB.
const BYTES: usize = 16 << 20;
/// Maximum devices; an ACS accepts as many in one request.
const MOST: usize = 4_000_000;
/// Time limit for connecting, TLS handshake included.
const CONNECT: Duration = Duration::from_secs(10);
/// Time limit for a page. `MongoDB` may have to sort a million devices for the first one.
const ANSWER: Duration = Duration::from_mins(1);
/// Default port of the NBI.
const PORT: u16 = 7557;
/// Maximum characters of an error response that are shown.
const SHOWN: usize = 200;

const ROOTS: [&str; 2] = ["InternetGatewayDevice", "Device"];
const MANAGEMENT_SERVER: &str = "ManagementServer";
const STUN_USERNAME: &str = "STUNUsername";
const STUN_PASSWORD: &str = "STUNPassword";
const USERNAME: &str = "ConnectionRequestUsername";
const PASSWORD: &str = "ConnectionRequestPassword";
const PARAMETERS: [&str; 4] = [STUN_USERNAME, STUN_PASSWORD, USERNAME, PASSWORD];

/// URL of an NBI: `http://HOST[:PORT]` or `https://HOST[:PORT]`, with an optional path prefix.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Nbi {
    is_tls: bool,
    authority: Authority,
    /// Without the trailing slash.
    path: String,
}

impl FromStr for Nbi {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| "write http://HOST:PORT")?;
        let parts = uri.into_parts();
        let is_tls = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTP => false,
            Some(scheme) if scheme == Scheme::HTTPS => true,
            _ => return Err("write http://HOST:PORT or https://HOST:PORT"),
        };
        let authority = parts.authority.ok_or("name the host")?;
        if authority.as_str().contains('@') {
            return Err("leave out the user and the password");
        }
        let path = parts.path_and_query.ok_or("name the host")?;
        if path.query().is_some() {
            return Err("leave out the query");
        }
        Ok(Self { is_tls, authority, path: path.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Nbi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { Scheme::HTTPS } else { Scheme::HTTP };
        write!(formatter, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl Nbi {
    /// The host for the resolver and for TLS: an IPv6 address has no brackets.
    fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Path and query of the page of devices whose `_id` is greater than `after`.
    fn page(&self, after: Option<&str>) -> String {
        let names = ROOTS
            .iter()
            .flat_map(|root| PARAMETERS.iter().map(move |parameter| format!("{root}.{MANAGEMENT_SERVER}.{parameter}")));
        let projection = names.collect::<Vec<_>>().join(",");
        let query = after.map_or_else(|| json!({}), |id| json!({"_id": {"$gt": id}}));
        format!(
            "{}/devices/?query={}&projection={projection}&sort={}&limit={PAGE}",
            self.path,
            escape(&query.to_string()),
            escape(&json!({"_id": 1}).to_string()),
        )
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The response is not HTTP.
    #[error("no answer of an NBI: {0}")]
    Http(#[from] hyper::Error),
    #[error("a page of {PAGE} devices is incomplete, or has more than {BYTES} bytes: {0}")]
    Body(axum::Error),
    #[error("the NBI answers {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("the answer is no list of devices: {0}")]
    Form(String),
    /// The NBI ignores `sort`, `query` or `limit`. Without this error the same devices would be read repeatedly.
    #[error("the devices do not come in pages: {0}")]
    Order(String),
    #[error("there are more than {MOST} devices")]
    TooMany,
    #[error("for https, name a file with CA certificates with --ca-file")]
    NoCa,
    #[error("--ca-file is for https, but the URL is http")]
    NotTls,
    #[error("{file}: {reason}")]
    Ca { file: String, reason: String },
}

/// Reads the credentials of all devices. A CPE without STUNUsername gets its `DeviceID.ID` as STUNUsername: its address
/// can be learned from notifications only (STUN-46).
pub(super) fn fetch(nbi: &Nbi, ca_file: Option<&Path>) -> Result<Entries, Error> {
    let tls = match (nbi.is_tls, ca_file) {
        (true, Some(ca_file)) => Some(connector(ca_file)?),
        (true, None) => return Err(Error::NoCa),
        (false, Some(_)) => return Err(Error::NotTls),
        (false, None) => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut read = Entries::default();
        let mut last: Option<String> = None;
        loop {
            let page = parse(&get(nbi, tls.as_ref(), last.as_deref()).await?)?;
            if page.len() > PAGE {
                return Err(Error::Order(format!("a page has {} devices instead of {PAGE}", page.len())));
            }
            let is_last = page.len() < PAGE;
            for (id, cpe) in page {
                if last.as_ref().is_some_and(|last| *last >= id) {
                    return Err(Error::Order(format!("{} is not greater than the _id before it", printable(&id))));
                }
                if read.cpes.len() == MOST {
                    return Err(Error::TooMany);
                }
                read.cpes.push(cpe);
                read.places.push(format!("device {}", printable(&id)));
                last = Some(id);
            }
            if is_last {
                return Ok(read);
            }
        }
    })
}

fn connector(ca_file: &Path) -> Result<TlsConnector, Error> {
    let failed = |reason: String| Error::Ca { file: ca_file.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("no certificates".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| failed(error.to_string()))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

/// Requests a page on a new connection.
async fn get(nbi: &Nbi, tls: Option<&TlsConnector>, after: Option<&str>) -> Result<Vec<u8>, Error> {
    let address = (nbi.host(), nbi.authority.port_u16().unwrap_or(PORT));
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
        let name = ServerName::try_from(nbi.host().to_owned()).map_err(io::Error::other)?;
        Ok::<_, io::Error>(Stream::Tls(Box::new(tls.connect(name, stream).await?)))
    };
    match timeout(CONNECT, connect).await.map_err(|_| Error::Late(CONNECT))?? {
        Stream::Plain(stream) => converse(nbi, stream, after).await,
        Stream::Tls(stream) => converse(nbi, *stream, after).await,
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn converse(
    nbi: &Nbi,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    after: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let answer = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The task ends with the connection. Its errors are returned by `send_request` and the body.
        let connection = tokio::spawn(connection);
        let request = Request::get(nbi.page(after)).header(header::HOST, nbi.authority.as_str());
        let request = request.header(header::CONNECTION, "close").body(Body::empty()).map_err(io::Error::other)?;
        let body = whole(sender.send_request(request).await?).await;
        connection.abort();
        body
    };
    timeout(ANSWER, answer).await.map_err(|_| Error::Late(ANSWER))?
}

async fn whole(response: Response<Incoming>) -> Result<Vec<u8>, Error> {
    let status = response.status();
    let body = body::to_bytes(Body::new(response.into_body()), BYTES).await.map_err(Error::Body)?;
    if status != StatusCode::OK {
        let text: String = String::from_utf8_lossy(&body).trim().chars().take(SHOWN).collect();
        return Err(Error::Refused { status, text: printable(&text).into_owned() });
    }
    Ok(body.into())
}

/// The `_id` and the credentials of each device. Errors do not quote the answer, which contains passwords.
fn parse(body: &[u8]) -> Result<Vec<(String, NewCpe)>, Error> {
    let wrong = |error: serde_json::Error| {
        Error::Form(format!("not JSON as expected at line {} column {}", error.line(), error.column()))
    };
    let devices: Vec<Value> = serde_json::from_slice(body).map_err(wrong)?;
    devices
        .iter()
        .map(|device| {
            let id = device["_id"].as_str().ok_or_else(|| Error::Form("a device has no _id".to_owned()))?;
            let [stun_username, stun_password, username, password] = PARAMETERS.map(|name| value(device, name));
            let stun_username = Some(stun_username).filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_owned());
            let cpe = NewCpe {
                stun_username,
                stun_password,
                connection_request_username: username,
                connection_request_password: password,
            };
            Ok((id.to_owned(), cpe))
        })
        .collect()
}

/// The value of a parameter of ManagementServer. Empty if `GenieACS` has none.
fn value(device: &Value, parameter: &str) -> String {
    let values = ROOTS.iter().map(|root| match &device[root][MANAGEMENT_SERVER][parameter]["_value"] {
        Value::String(text) => text.clone(),
        number @ Value::Number(_) => number.to_string(),
        _ => String::new(),
    });
    values.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_of_an_nbi_and_no_others() {
        for (text, host, page) in [
            ("http://127.0.0.1:7557", "127.0.0.1", "/devices/?query=%7B%7D&"),
            ("http://nbi.example/", "nbi.example", "/devices/?query=%7B%7D&"),
            ("https://[::1]:7557/genieacs/", "::1", "/genieacs/devices/?query=%7B%7D&"),
        ] {
            let nbi: Nbi = text.parse().expect(text);
            assert_eq!(nbi.host(), host);
            assert!(nbi.page(None).starts_with(page), "{}", nbi.page(None));
        }
        for wrong in
            ["", "127.0.0.1:7557", "ftp://a", "http://", "http://u:p@a", "http://a/?x=1", "http:/a", "/devices"]
        {
            assert!(wrong.parse::<Nbi>().is_err(), "{wrong}");
        }
    }

    /// A device as the NBI returns it: each parameter has a string, a number or no `_value`. If the first root has no
    /// value, that of the other root is used.
    #[test]
    fn finds_credentials_in_a_device() {
        let device = json!([
            {"_id": "00256D-IGD-1", "InternetGatewayDevice": {"_object": true, "ManagementServer": {
                "_object": true,
                "ConnectionRequestUsername": {"_object": false, "_type": "xsd:string", "_value": "user", "_writable": true},
                "ConnectionRequestPassword": {"_object": false, "_type": "xsd:string", "_value": 12345},
                "STUNPassword": {"_object": false, "_writable": true},
            }}},
            {"_id": "00256D-1", "Device": {"ManagementServer": {"STUNUsername": {"_value": "stun"}}}},
        ]);
        let found = parse(device.to_string().as_bytes()).expect("a list");
        let cpe = |stun_username: &str, username: &str, password: &str| NewCpe {
            stun_username: stun_username.to_owned(),
            stun_password: String::new(),
            connection_request_username: username.to_owned(),
            connection_request_password: password.to_owned(),
        };
        let expected = [
            ("00256D-IGD-1".to_owned(), cpe("00256D-IGD-1", "user", "12345")),
            ("00256D-1".to_owned(), cpe("stun", "", "")),
        ];
        assert!(found == expected, "{found:?}");
    }

    #[test]
    fn no_error_repeats_the_answer() {
        for wrong in ["{\"secret\": 1}", "[{\"secret\": \"x\"}]", "[\"secret\"]", "secret", "[1, \"secret\""] {
            let error = parse(wrong.as_bytes()).expect_err("no devices").to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
