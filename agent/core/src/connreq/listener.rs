//! Receiver of Connection Requests: state of the CPE, and the checks in the order of their cost (T-62).

use std::time::Duration;

use subtle::ConstantTimeEq;

use super::{
    Datagram, Encoded, Field, Number, ParsedRequest, Refusal, Settings, TimestampUnit, must_be_encoded, query::Query,
};
use crate::{secret::SharedSecret, time::UnixTime};

/// Greatest lead of a `ts` over a trusted clock. It tolerates drifting clocks, and is far less than the factor of ten
/// by which a digit that is moved from `id` to `ts` would increase the value (SEC-5, UCR-10).
const AHEAD: Duration = Duration::from_hours(24);

/// Greatest `ts` without a trusted clock (T-56).
const LATEST: u64 = u32::MAX as u64;

/// Number of digits of a `ts` in milliseconds, from 2001 to 2286.
const MILLISECOND_DIGITS: usize = 13;

/// Longest ConnectionRequestUsername in bytes (TR-069 table 47).
const USERNAME_MAXIMUM: usize = 256;

/// ConnectionRequestUsername and ConnectionRequestPassword.
#[derive(Clone, Debug)]
pub struct Credential {
    username: Box<[u8]>,
    /// Whether the username has a character that must be encoded ([`must_be_encoded`]).
    is_never_sent_raw: bool,
    secret: SharedSecret,
}

impl Credential {
    /// A credential of the two parameters' values.
    pub fn new(username: &[u8], password: &[u8]) -> Self {
        let is_never_sent_raw = std::str::from_utf8(username).map_or(true, |name| must_be_encoded(name).is_some());
        Self { username: username.into(), is_never_sent_raw, secret: SharedSecret::new(password) }
    }

    fn is_named(&self, name: &[u8]) -> bool {
        name.ct_eq(&self.username).into()
    }

    /// Whether the datagram has the unencoded username after `un=`, although it must be encoded.
    fn is_sent_raw(&self, Datagram(bytes): Datagram<'_>) -> bool {
        let is_here = |at: &[u8]| {
            let name = at.strip_prefix(b"?un=").or_else(|| at.strip_prefix(b"&un="));
            let behind = name.and_then(|name| name.strip_prefix(&*self.username));
            behind.is_some_and(|behind| matches!(behind, [b'&' | b' ', ..]))
        };
        self.is_never_sent_raw && (0..bytes.len()).any(|start| is_here(&bytes[start..]))
    }
}

/// State after the last accepted request. It is kept across restarts of the agent (UCR-7, T-57).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastAccepted {
    /// `ts` of the last request in seconds; 0 before the first one.
    pub timestamp: u64,
    /// The last accepted `ts` in milliseconds; 0 before the first one (T-55).
    pub milliseconds: u64,
    /// `id` of the last request; `None` before the first one.
    pub id: Option<u64>,
}

impl LastAccepted {
    /// The state to use after a start. A stored state is kept after a restart of the agent, which is no reboot (T-57).
    /// After a reboot it is kept if `connreq.keep_over_reboot` is set, which is the default. Otherwise a recorded old
    /// request would be accepted once (UCR-9, T-58).
    #[must_use]
    pub fn restored(self, same_boot: bool, keep_over_reboot: bool) -> Self {
        if same_boot || keep_over_reboot { self } else { Self::default() }
    }
}

/// A request for this CPE that is newer than the last accepted one.
#[derive(Clone, Copy, Debug)]
pub struct ValidRequest<'a> {
    query: Query<'a>,
    timestamp: Timestamp,
    readings: Readings,
}

/// The readings of `un` and `cn` under which `un` equals ConnectionRequestUsername (T-51). The signature has to match
/// one of them. In each reading both values are decoded or neither is, for the comparison as for the signature.
#[derive(Clone, Copy, Debug)]
struct Readings {
    /// Both values are decoded, as TR-111 2.2.2.3 specifies.
    decoded: bool,
    /// Both values are used as on the wire, for an ACS that does not encode. Only set if that differs from the decoded
    /// reading.
    raw: bool,
}

/// A request with a valid signature: the CPE has to open a session with its ACS (UCR-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticRequest {
    timestamp: Timestamp,
    id: u64,
}

impl AuthenticRequest {
    /// `ts` as received, in its unit.
    pub fn timestamp(&self) -> u64 {
        match self.timestamp {
            Timestamp::Seconds(value) | Timestamp::Milliseconds(value) => value,
        }
    }

    /// `id` as received.
    pub fn id(&self) -> u64 {
        self.id
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timestamp {
    Seconds(u64),
    Milliseconds(u64),
}

impl Timestamp {
    fn seconds(self) -> u64 {
        match self {
            Self::Seconds(value) => value,
            Self::Milliseconds(value) => value / 1000,
        }
    }
}

/// Receiver of the Connection Requests for one CPE.
#[derive(Clone, Debug)]
pub struct Listener {
    credential: Credential,
    settings: Settings,
    last: LastAccepted,
}

impl Listener {
    /// A receiver with the state `last`.
    pub fn new(credential: Credential, settings: Settings, last: LastAccepted) -> Self {
        Self { credential, settings, last }
    }

    /// The state that has to be stored across restarts.
    pub fn last_accepted(&self) -> LastAccepted {
        self.last
    }

    /// Resets the state, on an operator's request (T-55).
    pub fn reset(&mut self) {
        self.last = LastAccepted::default();
    }

    /// Replaces the credentials.
    pub fn set_credential(&mut self, credential: Credential) {
        self.credential = credential;
    }

    /// Replaces the settings.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Performs all checks, and updates the state if the request passes. `now` is `None` if the clock is not trusted
    /// (T-56).
    pub fn receive(&mut self, now: Option<UnixTime>, datagram: Datagram<'_>) -> Result<AuthenticRequest, Refusal> {
        let authentic = self.judge(now, datagram).map_err(|refusal| self.explain(refusal, datagram))?;
        self.remember(authentic);
        Ok(authentic)
    }

    /// Replaces a refusal that an unencoded username caused by [`Refusal::UnencodedName`].
    fn explain(&self, refusal: Refusal, datagram: Datagram<'_>) -> Refusal {
        match refusal {
            Refusal::Malformed { .. } | Refusal::DuplicateField(_) | Refusal::BadEncoding(_) | Refusal::UnknownUser
                if self.credential.is_sent_raw(datagram) =>
            {
                Refusal::UnencodedName
            }
            other => other,
        }
    }

    #[inline]
    fn judge(&self, now: Option<UnixTime>, datagram: Datagram<'_>) -> Result<AuthenticRequest, Refusal> {
        let parsed = datagram.parse_while(self.settings, |field, number| match field {
            Field::Ts => self.timestamp(now, number).map(drop),
            Field::Id => self.id(number),
            Field::Un | Field::Cn | Field::Sig => Ok(()),
        })?;
        self.authenticate(&self.validate(now, parsed)?)
    }

    /// Performs the checks that need no HMAC (UCR-6, UCR-10 to UCR-12).
    pub fn validate<'a>(
        &self,
        now: Option<UnixTime>,
        ParsedRequest(query): ParsedRequest<'a>,
    ) -> Result<ValidRequest<'a>, Refusal> {
        let timestamp = self.timestamp(now, query.timestamp)?;
        self.id(query.id)?;
        let readings = self.readings(&query)?;
        if self.credential.secret.is_empty() && !self.settings.allow_empty_password {
            return Err(Refusal::NoPassword);
        }
        Ok(ValidRequest { query, timestamp, readings })
    }

    /// Compares the signature in constant time (UCR-13).
    pub fn authenticate(
        &self,
        ValidRequest { query, timestamp, readings }: &ValidRequest<'_>,
    ) -> Result<AuthenticRequest, Refusal> {
        let decoded = || readings.decoded && self.verifies(query, |value, sink| value.decode(sink));
        let raw = || readings.raw && self.verifies(query, |value, sink| sink(value.wire()));
        if decoded() || raw() {
            Ok(AuthenticRequest { timestamp: *timestamp, id: query.id.value })
        } else {
            Err(Refusal::BadSignature)
        }
    }

    /// Updates the state. Only authentic requests get here (UCR-8, SEC-6).
    pub fn remember(&mut self, AuthenticRequest { timestamp, id }: AuthenticRequest) {
        match timestamp {
            Timestamp::Seconds(value) => self.last.timestamp = value,
            Timestamp::Milliseconds(value) => self.last.milliseconds = value,
        }
        self.last.id = Some(id);
    }

    fn id(&self, id: Number<'_>) -> Result<(), Refusal> {
        if self.last.id == Some(id.value) { Err(Refusal::SameId) } else { Ok(()) }
    }

    #[inline]
    fn timestamp(&self, now: Option<UnixTime>, Number { digits, value }: Number<'_>) -> Result<Timestamp, Refusal> {
        let timestamp = match (digits.len(), self.settings.timestamp_unit) {
            (MILLISECOND_DIGITS, TimestampUnit::Any) => Timestamp::Milliseconds(value),
            (MILLISECOND_DIGITS, TimestampUnit::Seconds) => return Err(Refusal::MillisecondTimestamp),
            _ => Timestamp::Seconds(value),
        };
        let latest = now.map_or(LATEST, |UnixTime(now)| now.saturating_add(AHEAD.as_secs()));
        if timestamp.seconds() > latest {
            return Err(Refusal::FutureTimestamp);
        }
        // Each unit has its own last value, and has to exceed the seconds of the other one. Otherwise an accepted
        // request in seconds could be turned into one in milliseconds, by moving three digits from `id` (SEC-5).
        let newer = match timestamp {
            Timestamp::Seconds(value) => value > self.last.timestamp && value > self.last.milliseconds / 1000,
            Timestamp::Milliseconds(value) => value > self.last.milliseconds && value / 1000 > self.last.timestamp,
        };
        if newer { Ok(timestamp) } else { Err(Refusal::StaleTimestamp) }
    }

    /// The possible readings of a request; an error if it is for another user or cannot be decoded.
    fn readings(&self, query: &Query<'_>) -> Result<Readings, Refusal> {
        let Query { username, nonce, .. } = query;
        let (is_username_sound, is_nonce_sound) = (username.is_sound(), nonce.is_sound());
        let readings = Readings {
            decoded: is_username_sound && is_nonce_sound && self.is_mine(*username),
            raw: (username.is_escaped() || nonce.is_escaped()) && self.credential.is_named(username.wire()),
        };
        match readings {
            Readings { decoded: false, raw: false } if !is_username_sound => Err(Refusal::BadEncoding(Field::Un)),
            Readings { decoded: false, raw: false } if !is_nonce_sound => Err(Refusal::BadEncoding(Field::Cn)),
            Readings { decoded: false, raw: false } => Err(Refusal::UnknownUser),
            _ => Ok(readings),
        }
    }

    /// Whether the decoded `username` equals ConnectionRequestUsername.
    fn is_mine(&self, username: Encoded<'_>) -> bool {
        if !username.is_escaped() {
            return self.credential.is_named(username.wire());
        }
        let mut decoded = [0; USERNAME_MAXIMUM];
        let mut length = 0;
        username.decode(|piece| {
            if let Some(room) = decoded.get_mut(length..length + piece.len()) {
                room.copy_from_slice(piece);
            }
            length += piece.len();
        });
        decoded.get(..length).is_some_and(|name| self.credential.is_named(name))
    }

    /// Whether the signature covers ts, id, un and cn, concatenated (UCR-41).
    fn verifies(&self, query: &Query<'_>, value: impl Fn(Encoded<'_>, &mut dyn FnMut(&[u8]))) -> bool {
        let mut signature = self.credential.secret.signature();
        signature.cover(query.timestamp.digits);
        signature.cover(query.id.digits);
        for part in [query.username, query.nonce] {
            value(part, &mut |piece| signature.cover(piece));
        }
        signature.verifies(&query.signature.value())
    }
}
