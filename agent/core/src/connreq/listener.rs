//! The CPE that a request is for: what it remembers, and the checks in the order of their cost (T-62).

use std::time::Duration;

use subtle::ConstantTimeEq;

use super::{
    Datagram, Encoded, Field, Number, ParsedRequest, Refusal, Settings, TimestampUnit, must_be_encoded, query::Query,
};
use crate::{secret::SharedSecret, time::UnixTime};

/// How far a `ts` may be ahead of a trusted clock. Wide for clocks that drift, and far below the factor of ten by
/// which a digit moved from `id` to `ts` would raise it (SEC-5, UCR-10).
const AHEAD: Duration = Duration::from_hours(24);

/// The bound without a trusted clock (T-56).
const LATEST: u64 = u32::MAX as u64;

/// Digits of a `ts` in milliseconds, from 2001 to 2286.
const MILLISECOND_DIGITS: usize = 13;

/// Longest ConnectionRequestUsername (TR-069 table 47), in bytes.
const USERNAME_MAXIMUM: usize = 256;

/// ConnectionRequestUsername and ConnectionRequestPassword.
#[derive(Clone, Debug)]
pub struct Credential {
    username: Box<[u8]>,
    /// The username has a character that must be encoded ([`must_be_encoded`]).
    is_never_sent_raw: bool,
    secret: SharedSecret,
}

impl Credential {
    /// The two parameters' values.
    pub fn new(username: &[u8], password: &[u8]) -> Self {
        let is_never_sent_raw = std::str::from_utf8(username).map_or(true, |name| must_be_encoded(name).is_some());
        Self { username: username.into(), is_never_sent_raw, secret: SharedSecret::new(password) }
    }

    fn is_named(&self, name: &[u8]) -> bool {
        name.ct_eq(&self.username).into()
    }

    /// Whether the username stands behind `un=` in the datagram as it is, although it must be encoded there.
    fn is_sent_raw(&self, Datagram(bytes): Datagram<'_>) -> bool {
        let is_here = |at: &[u8]| {
            let name = at.strip_prefix(b"?un=").or_else(|| at.strip_prefix(b"&un="));
            let behind = name.and_then(|name| name.strip_prefix(&*self.username));
            behind.is_some_and(|behind| matches!(behind, [b'&' | b' ', ..]))
        };
        self.is_never_sent_raw && (0..bytes.len()).any(|start| is_here(&bytes[start..]))
    }
}

/// What stays of the last accepted request, over restarts of the agent too (UCR-7, T-57).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastAccepted {
    /// Its `ts` in seconds; 0 before the first.
    pub timestamp: u64,
    /// The last accepted `ts` that counted milliseconds; 0 before the first (T-55).
    pub milliseconds: u64,
    /// Its `id`; `None` before the first.
    pub id: Option<u64>,
}

impl LastAccepted {
    /// What a record from the disk is worth now: all of it after a restart of the agent, which is no reboot (T-57), and
    /// after a reboot if the knob `connreq.keep_over_reboot` says so, as it does by default: else an old request that
    /// somebody kept would be accepted once (UCR-9, T-58).
    #[must_use]
    pub fn restored(self, same_boot: bool, keep_over_reboot: bool) -> Self {
        if same_boot || keep_over_reboot { self } else { Self::default() }
    }
}

/// A request that is newer than the last accepted one, and for this CPE.
#[derive(Clone, Copy, Debug)]
pub struct ValidRequest<'a> {
    query: Query<'a>,
    timestamp: Timestamp,
    readings: Readings,
}

/// The ways to read `un` and `cn` by which `un` is ConnectionRequestUsername (T-51). The signature has to prove one of
/// them: by no way is one value decoded and another not, or a name compared in one form and signed in the other.
#[derive(Clone, Copy, Debug)]
struct Readings {
    /// Both values are decoded, as TR-111 2.2.2.3 has it.
    decoded: bool,
    /// Both stand as they are, from an ACS that does not encode. Only where that is another reading.
    raw: bool,
}

/// A request that was signed with ConnectionRequestPassword: the CPE shall call its ACS (UCR-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticRequest {
    timestamp: Timestamp,
    id: u64,
}

impl AuthenticRequest {
    /// `ts` as it came, in whichever unit.
    pub fn timestamp(&self) -> u64 {
        match self.timestamp {
            Timestamp::Seconds(value) | Timestamp::Milliseconds(value) => value,
        }
    }

    /// `id`.
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

/// Takes the requests for one CPE.
#[derive(Clone, Debug)]
pub struct Listener {
    credential: Credential,
    settings: Settings,
    last: LastAccepted,
}

impl Listener {
    /// A listener that remembers `last`.
    pub fn new(credential: Credential, settings: Settings, last: LastAccepted) -> Self {
        Self { credential, settings, last }
    }

    /// What a restart has to be given.
    pub fn last_accepted(&self) -> LastAccepted {
        self.last
    }

    /// Forgets the last accepted request, by an operator's word (T-55).
    pub fn reset(&mut self) {
        self.last = LastAccepted::default();
    }

    /// Takes other credentials.
    pub fn set_credential(&mut self, credential: Credential) {
        self.credential = credential;
    }

    /// Takes other knobs.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Goes through all checks, and remembers a request that passes them. `now` is `None` where the clock is not
    /// trusted (T-56).
    pub fn receive(&mut self, now: Option<UnixTime>, datagram: Datagram<'_>) -> Result<AuthenticRequest, Refusal> {
        let authentic = self.judge(now, datagram).map_err(|refusal| self.explain(refusal, datagram))?;
        self.remember(authentic);
        Ok(authentic)
    }

    /// Tells a username that was not encoded from other causes of what it does to a request.
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

    /// The checks that cost no HMAC (UCR-6, UCR-10 to UCR-12).
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

    /// Remembers what was accepted: only this changes the state (UCR-8, SEC-6).
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
        // Each unit has its own last value, and rises over the seconds of the other: else three digits moved from `id`
        // would make milliseconds of an accepted request in seconds (SEC-5).
        let newer = match timestamp {
            Timestamp::Seconds(value) => value > self.last.timestamp && value > self.last.milliseconds / 1000,
            Timestamp::Milliseconds(value) => value > self.last.milliseconds && value / 1000 > self.last.timestamp,
        };
        if newer { Ok(timestamp) } else { Err(Refusal::StaleTimestamp) }
    }

    /// How the request may be read; an error where it is for another user, or can be read by no way.
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

    /// Whether `username` is ConnectionRequestUsername once it is decoded.
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

    /// Whether the signature is that over ts, id, un and cn, with nothing between them (UCR-41).
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
