//! HTTP digest authentication (RFC 2617) of TCP Connection Requests (TR-069 3.2.2).
//!
//! A nonce is the time of its challenge with a MAC, so unanswered challenges need no memory. A nonce is valid once:
//! [`Gate`] remembers the newest nonce that was accepted, and accepts no older one. A client with an older nonce is
//! told that it is stale, and repeats its request with a new one.

use std::time::Duration;

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::{
    secret::{DIGEST, SharedSecret},
    time::BootTime,
};

/// The realm of ConnectionRequestUsername and ConnectionRequestPassword.
pub const REALM: &str = "tr111";

/// Lifetime of a challenge.
const AGE: Duration = Duration::from_secs(30);

/// Burst of accepted requests, and the interval at which another one is earned (TR-069 3.2.2).
const BURST: u32 = 10;
const EARNED: Duration = Duration::from_secs(3);

/// Longest `Authorization` header that is parsed, in bytes.
const HEADER_MAXIMUM: usize = 4_096;

/// Reasons for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no `Authorization` header, as in the first request of every client.
    #[error("no credentials")]
    Unauthenticated,
    /// `Authorization` is not a digest response to the challenge.
    #[error("malformed credentials")]
    Malformed,
    /// Wrong username, or another resource than the requested one.
    #[error("unknown username, or another resource")]
    WrongUser,
    /// ConnectionRequestPassword is empty, so it is not secret.
    #[error("no password is set")]
    NoPassword,
    /// Wrong password, or a nonce that was not issued here.
    #[error("wrong credentials")]
    WrongResponse,
    /// The nonce has expired or was used.
    #[error("stale nonce")]
    Stale,
    /// The rate limit is exceeded.
    #[error("too many requests")]
    TooMany,
}

impl Refusal {
    /// All refusals.
    pub const ALL: [Self; 7] = [
        Self::Unauthenticated,
        Self::Malformed,
        Self::WrongUser,
        Self::NoPassword,
        Self::WrongResponse,
        Self::Stale,
        Self::TooMany,
    ];

    /// Value of the metric label `result`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Malformed => "malformed",
            Self::WrongUser => "wrong_user",
            Self::NoPassword => "no_password",
            Self::WrongResponse => "wrong_response",
            Self::Stale => "stale",
            Self::TooMany => "too_many",
        }
    }
}

/// ConnectionRequestUsername and ConnectionRequestPassword.
#[derive(Clone, Copy)]
pub struct Credential<'a> {
    /// The username.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
}

/// The parts of an HTTP request that are authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The Request-URI as received.
    pub target: &'a str,
    /// Value of the `Authorization` header; `None` if it is absent.
    pub authorization: Option<&'a str>,
}

/// Proof of an authentic request with a fresh nonce.
#[derive(Debug)]
pub struct Accepted(());

/// Authenticates requests and limits their rate.
#[derive(Clone, Debug)]
pub struct Gate {
    secret: SharedSecret,
    /// Time in nanoseconds of the newest issued nonce and of the newest accepted one.
    issued: u64,
    used: u64,
    /// Time at which the rate limit's bucket is full again.
    spent: BootTime,
}

impl Gate {
    /// A gate whose nonces are keyed by `secret`, which has to be random and private.
    pub fn new(secret: &[u8]) -> Self {
        Self { secret: SharedSecret::new(secret), issued: 0, used: 0, spent: BootTime::default() }
    }

    /// Authenticates a request. The state changes only if the request is authentic.
    pub fn judge(
        &mut self,
        now: BootTime,
        credential: Credential<'_>,
        request: Request<'_>,
    ) -> Result<Accepted, Refusal> {
        let answer = Answer::parse(request.authorization.ok_or(Refusal::Unauthenticated)?).ok_or(Refusal::Malformed)?;
        if answer.username != credential.username || answer.realm != REALM || answer.uri != request.target {
            return Err(Refusal::WrongUser);
        }
        if credential.password.is_empty() {
            return Err(Refusal::NoPassword);
        }
        let issued = self.issued_at(&answer.nonce).ok_or(Refusal::WrongResponse)?;
        if !answer.proves(credential, request.method) {
            return Err(Refusal::WrongResponse);
        }
        // RFC 2617 3.2.1: a stale nonce is only reported to clients that know the password.
        if issued <= self.used || now.0.saturating_sub(issued) > nanoseconds(AGE) {
            return Err(Refusal::Stale);
        }
        self.used = issued;
        let spent = self.spent.max(now) + EARNED;
        if spent > now + EARNED * BURST {
            return Err(Refusal::TooMany);
        }
        self.spent = spent;
        Ok(Accepted(()))
    }

    /// Value of the `WWW-Authenticate` header after a refusal, with a new nonce.
    pub fn challenge(&mut self, now: BootTime, refusal: Refusal) -> String {
        self.issued = now.0.max(self.issued + 1);
        let mut signature = self.secret.signature();
        signature.cover(&self.issued.to_be_bytes());
        let stale = if refusal == Refusal::Stale { ", stale=true" } else { "" };
        let nonce = format!("{:016x}{}", self.issued, hexadecimal(signature.finish()));
        format!("Digest realm=\"{REALM}\", qop=\"auth\", algorithm=MD5, nonce=\"{nonce}\"{stale}")
    }

    /// Time at which a nonce was issued; `None` if it was not issued here.
    fn issued_at(&self, nonce: &str) -> Option<u64> {
        let (time, digest) = nonce.split_at_checked(16)?;
        let time = u64::from_be_bytes(bytes(time)?);
        let mut signature = self.secret.signature();
        signature.cover(&time.to_be_bytes());
        signature.verifies(&bytes::<DIGEST>(digest)?).then_some(time)
    }
}

/// A parsed `Authorization` header (RFC 2617 3.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: [u8; 16],
    /// `nc` and `cnonce`, if `qop` is `auth`; RFC 2069 has neither.
    qop: Option<(String, String)>,
}

impl Answer {
    fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ')?;
        if header.len() > HEADER_MAXIMUM || !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let mut answer = Self::default();
        let (mut response, [mut qop, mut count, mut client_nonce]) = (None, [const { None }; 3]);
        let mut seen = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, after) = rest.split_once('=')?;
            let name = name.trim_end().to_ascii_lowercase();
            let (value, after) = value(after.trim_start())?;
            rest = after.trim_start();
            if !rest.is_empty() && !rest.starts_with(',') || seen.contains(&name) {
                return None;
            }
            match name.as_str() {
                "username" => answer.username = value,
                "realm" => answer.realm = value,
                "nonce" => answer.nonce = value,
                "uri" => answer.uri = value,
                "response" => response = bytes(&value),
                "qop" => qop = Some(value),
                "nc" => count = Some(value),
                "cnonce" => client_nonce = Some(value),
                "algorithm" if !value.eq_ignore_ascii_case("md5") => return None,
                _ => {}
            }
            seen.push(name);
        }
        answer.response = response?;
        answer.qop = match qop.as_deref() {
            Some("auth") => Some((count?, client_nonce?)),
            Some(_) => return None,
            None => None,
        };
        Some(answer)
    }

    /// Whether the response was computed with the password.
    fn proves(&self, Credential { username, password }: Credential<'_>, method: &str) -> bool {
        let secret = hexadecimal(md5(&[username, &self.realm, password]));
        let what = hexadecimal(md5(&[method, &self.uri]));
        let expected = match &self.qop {
            Some((count, client_nonce)) => md5(&[&secret, &self.nonce, count, client_nonce, "auth", &what]),
            None => md5(&[&secret, &self.nonce, &what]),
        };
        expected.ct_eq(&self.response).into()
    }
}

/// Parses a token or a quoted string; returns it and the rest.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// MD5 over the parts, with colons between them.
fn md5(parts: &[&str]) -> [u8; 16] {
    let mut digest = Md5::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            digest.update(b":");
        }
        digest.update(part);
    }
    digest.finalize().into()
}

fn hexadecimal<const N: usize>(bytes: [u8; N]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).concat()
}

/// Decodes exactly `N` bytes from hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (digits, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digits: &[[u8; 2]; N] = digits.try_into().ok()?;
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(nibble(*high)? << 4 | nibble(*low)?).ok()?;
    }
    Some(bytes)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
