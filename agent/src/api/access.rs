//! Who may ask.

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

/// Who may ask. Every copy is the same, and follows a token that is changed.
#[derive(Clone, Debug)]
pub(super) struct Access(Arc<watch::Sender<Gate>>);

/// What lets somebody in.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Gate {
    /// The token.
    Token(Box<[u8]>),
    /// To be on this machine.
    Loopback,
    /// Nothing: there should be a token, and there is none.
    Closed,
}

/// Who asks for something that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// Whoever may ask for everything.
    Known,
    /// Anybody, for what is public.
    Stranger,
}

/// What a request is let in by, for answers that outlast it.
#[derive(Clone, Debug)]
pub(super) struct Session(watch::Receiver<Gate>);

impl Session {
    /// Waits until that lets nobody in any more.
    pub(super) async fn end(mut self) {
        // Without the listener it is the end, too.
        drop(self.0.changed().await);
    }
}

impl Access {
    pub(super) fn new(gate: Gate) -> Self {
        Self(Arc::new(watch::Sender::new(gate)))
    }

    /// Lets nobody in by an old token any more; whether it is another one.
    pub(super) fn change(&self, gate: Gate) -> bool {
        self.0.send_if_modified(|current| {
            let is_other = *current != gate;
            *current = gate;
            is_other
        })
    }

    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<Asker, Problem> {
        if is_foreign(headers) {
            return Err(Problem::forbidden("pages of another origin are not answered"));
        }
        match &*self.0.borrow() {
            // The document tells nothing that is not public.
            Gate::Token(_) | Gate::Closed if uri.path() == document::PATH => Ok(Asker::Stranger),
            Gate::Token(token) => {
                let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
                let given =
                    given.ok_or_else(|| Problem::unauthorized("send the token: Authorization: Bearer TOKEN"))?;
                let is_right = bearer(given).is_some_and(|given| bool::from(given.ct_eq(token)));
                is_right.then_some(Asker::Known).ok_or_else(|| Problem::unauthorized("the token is wrong"))
            }
            Gate::Closed => Err(Problem::unauthorized("the server has no token; its log says why")),
            // A page in a browser here may ask by a name of its own that leads here (DNS rebinding).
            Gate::Loopback => {
                let is_ours = host(headers).is_some_and(names_loopback);
                let reason = "without a token, only requests for localhost or its address are answered";
                is_ours.then_some(Asker::Known).ok_or_else(|| Problem::forbidden(reason))
            }
        }
    }
}

/// Lets through who may ask.
pub(super) async fn check(
    State(access): State<Access>,
    Extension(visit): Extension<Visit>,
    mut request: Request,
    next: Next,
) -> Response {
    // Before it is judged: no change is missed.
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

/// Whether a browser sends the request for a page of another origin (RFC 6454 7). Whatever is no browser names none.
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

/// Without the token.
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
