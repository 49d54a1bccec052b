//! Who may ask.

use std::{fs, io, net::IpAddr, path::Path, sync::Arc};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::{document, problem::Problem};
use crate::http::Visit;

/// Fewest bytes of a token: 16 random ones are out of reach for guessing.
const LEAST: usize = 16;

/// Why a token does not serve.
#[derive(Debug, thiserror::Error)]
pub enum BadToken {
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// Anybody guesses it.
    #[error("a token has at least {LEAST} bytes; make one with: openssl rand -hex 32")]
    Short,
    /// No header carries it.
    #[error("a token is one line of printable ASCII characters without blanks")]
    Unprintable,
}

/// Who may ask.
#[derive(Clone)]
pub(super) enum Access {
    /// Whoever knows the token.
    Token(Arc<[u8]>),
    /// Whoever is on this machine.
    Loopback,
}

/// Who asks for something that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// Whoever may ask for everything.
    Known,
    /// Anybody, for what is public.
    Stranger,
}

impl Access {
    /// By the token in a file.
    pub(super) fn read(file: &Path) -> Result<Self, BadToken> {
        let text = fs::read(file)?;
        // Editors end the last line.
        let token = text.trim_ascii_end();
        if token.len() < LEAST {
            return Err(BadToken::Short);
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(BadToken::Unprintable);
        }
        Ok(Self::Token(token.into()))
    }

    fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<Asker, Problem> {
        match self {
            // The document tells nothing that is not public.
            Self::Token(_) if uri.path() == document::PATH => Ok(Asker::Stranger),
            Self::Token(token) => {
                let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
                let given =
                    given.ok_or_else(|| Problem::unauthorized("send the token: Authorization: Bearer TOKEN"))?;
                let is_right = bearer(given).is_some_and(|given| bool::from(given.ct_eq(token)));
                is_right.then_some(Asker::Known).ok_or_else(|| Problem::unauthorized("the token is wrong"))
            }
            // A page in a browser here may ask by a name of its own that leads here (DNS rebinding).
            Self::Loopback => {
                let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
                let is_ours = host.is_some_and(names_loopback);
                let reason = "without acs.api_token_file, only requests for localhost or its address are answered";
                is_ours.then_some(Asker::Known).ok_or_else(|| Problem::forbidden(reason))
            }
        }
    }
}

/// Lets through who may ask.
pub(super) async fn check(
    State(access): State<Access>,
    Extension(visit): Extension<Visit>,
    request: Request,
    next: Next,
) -> Response {
    match access.judge(request.uri(), request.headers()) {
        Ok(asker) => {
            if asker == Asker::Known {
                visit.trust();
            }
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
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
impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::Loopback => "Loopback",
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
}
