//! Access control.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::{document, problem::Problem};
use crate::http::Visit;

/// The access rule in force. Clones share it, so a changed token applies to all of them.
#[derive(Clone, Debug)]
pub(super) struct Access(Arc<watch::Sender<Gate>>);

/// An access rule.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Gate {
    /// Requests must carry this token.
    Token(Box<[u8]>),
    /// Requests must come over the loopback interface. There is no token.
    Loopback,
    /// All requests are refused, because the token could not be created.
    Closed,
}

/// The sender of an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// A client with access to all resources.
    Known,
    /// Any client, for the public OpenAPI document.
    Stranger,
}

/// The access rule of a request, for responses that continue after it.
#[derive(Clone, Debug)]
pub(super) struct Session(watch::Receiver<Gate>);

impl Session {
    /// Waits until the access rule changes.
    pub(super) async fn end(mut self) {
        // An error means that the listener has ended, which ends the session as well.
        drop(self.0.changed().await);
    }
}

impl Access {
    pub(super) fn new(gate: Gate) -> Self {
        Self(Arc::new(watch::Sender::new(gate)))
    }

    /// Replaces the access rule. Returns whether the new rule differs from the old one.
    pub(super) fn change(&self, gate: Gate) -> bool {
        self.0.send_if_modified(|current| {
            let is_other = *current != gate;
            *current = gate;
            is_other
        })
    }

    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<Asker, Problem> {
        if is_foreign(headers) {
            return Err(Problem::forbidden("requests from web pages of another origin are refused"));
        }
        match &*self.0.borrow() {
            // The OpenAPI document is public.
            Gate::Token(_) | Gate::Closed if uri.path() == document::PATH => Ok(Asker::Stranger),
            Gate::Token(token) => {
                let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
                let given =
                    given.ok_or_else(|| Problem::unauthorized("send the token: Authorization: Bearer TOKEN"))?;
                let is_right = bearer(given).is_some_and(|given| bool::from(given.ct_eq(token)));
                is_right.then_some(Asker::Known).ok_or_else(|| Problem::unauthorized("the token is wrong"))
            }
            Gate::Closed => Err(Problem::unauthorized("the server has no token; its log says why")),
            // A web page in a local browser may use a host name that resolves to this machine (DNS rebinding).
            Gate::Loopback => {
                let is_ours = host(headers).is_some_and(names_loopback);
                let reason = "without a token, the Host header must be localhost or a loopback address";
                is_ours.then_some(Asker::Known).ok_or_else(|| Problem::forbidden(reason))
            }
        }
    }
}

/// Refuses requests without access.
pub(super) async fn check(
    State(access): State<Access>,
    Extension(visit): Extension<Visit>,
    mut request: Request,
    next: Next,
) -> Response {
    // Subscribe before the check, so that no change in between is missed.
    let session = Session(access.0.subscribe());
    let judged = access.judge(request.uri(), request.headers());
    visit.set_trusted(judged.as_ref().is_ok_and(|asker| *asker == Asker::Known));
    match judged {
        Ok(_) => {
            request.extensions_mut().insert(session);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|value| value.to_str().ok())
}

/// Whether a browser sends the request for a web page of another origin (RFC 6454 7). Other clients send no `Origin`.
fn is_foreign(headers: &HeaderMap) -> bool {
    let ours = |origin: &HeaderValue| {
        let (_, authority) = origin.to_str().ok()?.split_once("://")?;
        Some(authority.eq_ignore_ascii_case(host(headers)?))
    };
    headers.get_all(header::ORIGIN).iter().any(|origin| ours(origin) != Some(true))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn names_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Omits the token.
impl std::fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::Loopback => "Loopback",
            Self::Closed => "Closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "LOCALHOST:8111", "127.0.0.1", "127.8.8.8:1", "[::1]:8111", "[::1]"] {
            assert!(names_loopback(host), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com", "192.0.2.1:80", "[::2]", "127.0.0.1.example.com:8111"]
        {
            assert!(!names_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_taken_by_its_scheme_only() {
        assert_eq!(bearer(b"Bearer abc"), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"bearer  abc "), Some(b"abc".as_slice()));
        for other in [b"Basic abc".as_slice(), b"abc", b"", b"Bearer"] {
            assert_eq!(bearer(other), None);
        }
    }

    #[test]
    fn a_page_of_another_origin_is_foreign() {
        let foreign = |host: Option<&'static str>, origins: &[&'static str]| {
            let mut headers = HeaderMap::new();
            host.map(|host| headers.insert(header::HOST, HeaderValue::from_static(host)));
            for origin in origins {
                headers.append(header::ORIGIN, HeaderValue::from_static(origin));
            }
            is_foreign(&headers)
        };
        assert!(!foreign(None, &[]) && !foreign(Some("127.0.0.1:8111"), &[]));
        assert!(!foreign(Some("127.0.0.1:8111"), &["http://127.0.0.1:8111"]));
        assert!(!foreign(Some("ACS.example"), &["https://acs.example"]));
        for origin in ["null", "http://attacker.example", "http://127.0.0.1", "http://127.0.0.1:8112", "127.0.0.1:8111"]
        {
            assert!(foreign(Some("127.0.0.1:8111"), &[origin]), "{origin}");
            assert!(foreign(Some("127.0.0.1:8111"), &["http://127.0.0.1:8111", origin]), "{origin}");
        }
        assert!(foreign(None, &["http://127.0.0.1:8111"]));
    }

    #[test]
    fn a_changed_token_lets_in_whoever_has_the_new_one() {
        let access = Access::new(Gate::Token((*b"0123456789abcdef").into()));
        let uri = Uri::from_static("/v1/cpes");
        let judge = |token: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(token));
            access.judge(&uri, &headers).is_ok()
        };
        assert!(judge("Bearer 0123456789abcdef") && !judge("Bearer fedcba9876543210"));
        assert!(!access.change(Gate::Token((*b"0123456789abcdef").into())));
        assert!(access.change(Gate::Token((*b"fedcba9876543210").into())));
        assert!(!judge("Bearer 0123456789abcdef") && judge("Bearer fedcba9876543210"));
        access.change(Gate::Closed);
        assert!(!judge("Bearer fedcba9876543210") && !judge("Bearer "));
    }
}
