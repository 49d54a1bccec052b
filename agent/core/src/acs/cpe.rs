//! One CPE: credentials, bindings, and the destination of its Connection Requests.

use std::{fmt, net::SocketAddrV4};

use crate::{connreq::Authority, short::Short, time::UnixTime};

/// A CPE as the ACS knows it (TR-111 2.2.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpe {
    /// STUNUsername, unique among all CPEs (STUN-21). A CPE that only uses notifications has no STUNUsername (STUN-46);
    /// its name is then any text that no other CPE has.
    pub name: Short,
    /// Credentials that the operator provisioned.
    pub credentials: Credentials,
    /// State that the ACS learned.
    pub state: State,
}

/// Secrets that a CPE shares with its ACS.
///
/// An ACS has millions of them, so passwords are stored as text; HMAC keys are derived when they are used.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// STUNPassword; empty if the CPE has none.
    pub stun_password: Short,
    /// ConnectionRequestUsername (UCR-39).
    pub connection_request_username: Short,
    /// ConnectionRequestPassword (UCR-41).
    pub connection_request_password: Short,
}

/// What the ACS learned about a CPE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Source of the last Binding Request that was signed with STUNPassword (STUN-26).
    pub authenticated: Option<Seen>,
    /// Source of a later, unsigned Binding Request that named the CPE (STUN-31).
    pub tentative: Option<Seen>,
    /// The last report of the CPE to its ACS (STUN-41, STUN-44).
    pub reported: Option<Box<Reported>>,
    /// Whether `reported` is newer than `authenticated` (T-65).
    pub is_reported_last: bool,
    /// `ts` of the last Connection Request to the CPE, as far as this server knows. The value in the store is
    /// authoritative (T-54).
    pub last_timestamp: Option<u64>,
    /// Whether the next Binding Request with CONNECTION-REQUEST-BINDING is answered with 401 (STUN-30).
    pub must_verify: bool,
    /// Revision of this binding in a store that several servers share, or of the binding on which this one is based; 0
    /// if there is none.
    pub revision: u64,
}

/// The public address of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source of the Binding Request.
    pub address: SocketAddrV4,
    /// Destination of the Binding Request, one of this server's addresses. Connection Requests have to come from it
    /// (UCR-20).
    pub server: SocketAddrV4,
    /// Time of the first request from this address. Only shown; no decision depends on it.
    pub since: UnixTime,
    /// Time of the last request from this address.
    pub last_seen: UnixTime,
}

/// The report of a CPE to its ACS, in an Inform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// UDPConnectionRequestAddress; `None` if the CPE reported an empty one, which withdraws the previous report.
    pub address: Option<Authority>,
    /// `NATDetected`, if the CPE reported it.
    pub nat_detected: Option<bool>,
    /// Time of the report. Only shown; no decision depends on it.
    pub at: UnixTime,
    /// Revision of the report in a store that several servers share; 0 if there is none.
    pub revision: u64,
}

/// How the ACS learns bindings (STUN-18).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approach {
    /// From Binding Requests (TR-111 2.2.2.2.1).
    Stun,
    /// From notifications (TR-111 2.2.2.2.2).
    Notification,
    /// From both; the most recent source is used.
    #[default]
    Both,
}

impl Approach {
    /// Whether bindings are learned from Binding Requests, which then have to be authenticated (STUN-23, T-66).
    pub fn is_stun(self) -> bool {
        matches!(self, Self::Stun | Self::Both)
    }

    /// Whether bindings are learned from notifications (STUN-41).
    pub fn is_notification(self) -> bool {
        matches!(self, Self::Notification | Self::Both)
    }
}

/// How the address of a [`Destination`] was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A signed Binding Request.
    Authenticated,
    /// A notification.
    Reported,
    /// An unsigned Binding Request.
    Tentative,
}

impl Way {
    /// Name in JSON, metrics and output.
    pub fn label(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Reported => "reported",
            Self::Tentative => "tentative",
        }
    }
}

/// The address to which Connection Requests are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host and port.
    pub authority: Authority,
    /// How the address was learned.
    pub way: Way,
}

impl State {
    /// The binding that is settled: further keep-alives from it prove and change nothing. `None` if the CPE has no
    /// binding or has to verify it.
    pub fn settled(&self) -> Option<Seen> {
        self.authenticated.or(self.tentative).filter(|_| !self.must_verify)
    }

    /// Updates the time at which the settled binding was last seen, if `at` is later.
    pub fn heard(&mut self, at: UnixTime) {
        if let Some(seen) = self.authenticated.as_mut().or(self.tentative.as_mut()) {
            seen.last_seen = seen.last_seen.max(at);
        }
    }

    /// Limits all times to `now`, after a clock that was ahead was corrected. Returns whether a time was changed.
    pub fn heal(&mut self, now: UnixTime) -> bool {
        let seen = [&mut self.authenticated, &mut self.tentative].into_iter().flatten();
        let seen = seen.flat_map(|seen| [&mut seen.since, &mut seen.last_seen]);
        let times = seen.chain(self.reported.as_mut().map(|told| &mut told.at));
        let mut is_healed = false;
        for time in times.filter(|time| **time > now) {
            *time = now;
            is_healed = true;
        }
        is_healed
    }

    /// The destination of Connection Requests: the most recent authenticated address (from a signed request or a
    /// session with the ACS), else the unauthenticated one (T-65). A CPE that reported an empty address is reached by
    /// its binding only.
    pub fn destination(&self, approach: Approach) -> Option<Destination> {
        let signed = self.authenticated.filter(|_| approach.is_stun());
        let reported = self.reported.as_deref().filter(|_| approach.is_notification());
        let reported = reported.and_then(|told| told.address.clone());
        let (authority, way) = match (signed, reported) {
            (Some(_), Some(address)) if self.is_reported_last => (address, Way::Reported),
            (Some(seen), _) => (seen.address.into(), Way::Authenticated),
            (None, Some(address)) => (address, Way::Reported),
            (None, None) => (self.tentative.filter(|_| approach.is_stun())?.address.into(), Way::Tentative),
        };
        Some(Destination { authority, way })
    }
}

/// Omits the passwords.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("connection_request_username", &self.connection_request_username)
            .finish_non_exhaustive()
    }
}
