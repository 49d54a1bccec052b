//! One CPE, and where Connection Requests reach it.

use std::{fmt, net::SocketAddrV4};

use crate::{connreq::Authority, short::Short, time::UnixTime};

/// One CPE as the ACS knows it (TR-111 2.2.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpe {
    /// STUNUsername, unique among all CPEs (STUN-21). A CPE that is reached by notification only has no STUNUsername
    /// (STUN-46); its name is then any text that no other CPE has.
    pub name: Short,
    /// What an operator provisioned.
    pub credentials: Credentials,
    /// What was learned of it.
    pub state: State,
}

/// What a CPE and its ACS share.
///
/// There are millions of them, so passwords are kept as text: the key of an HMAC is worked in when it is used.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// STUNPassword; empty where the CPE has none.
    pub stun_password: Short,
    /// ConnectionRequestUsername (UCR-39).
    pub connection_request_username: Short,
    /// ConnectionRequestPassword (UCR-41).
    pub connection_request_password: Short,
}

/// What an ACS learned of a CPE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The source of the last Binding Request that was signed with STUNPassword (STUN-26).
    pub authenticated: Option<Seen>,
    /// The source of a later Binding Request that named the CPE and was not signed (STUN-31).
    pub tentative: Option<Seen>,
    /// What the CPE told its ACS (STUN-41, STUN-44).
    pub reported: Option<Box<Reported>>,
    /// It told that after `authenticated` became what it is (T-65).
    pub is_reported_last: bool,
    /// `ts` of the last Connection Request to it, as far as this server knows: the store has the one that counts (T-54).
    pub last_timestamp: Option<u64>,
    /// The next Binding Request with CONNECTION-REQUEST-BINDING is answered with 401 (STUN-30).
    pub must_verify: bool,
    /// The number under which a store that several servers share has this binding, or had the one that this is based on;
    /// 0 where there is none.
    pub revision: u64,
}

/// The public address of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The request's source.
    pub address: SocketAddrV4,
    /// The address of ours that it asked, from where Connection Requests have to come (UCR-20).
    pub server: SocketAddrV4,
    /// When it became this. For people: it decides nothing.
    pub since: UnixTime,
    /// When it was last heard of.
    pub last_seen: UnixTime,
}

/// What a CPE told its ACS in an Inform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// UDPConnectionRequestAddress; `None` where the CPE reported an empty one, which takes back what it reported before.
    pub address: Option<Authority>,
    /// `NATDetected`, where it was told.
    pub nat_detected: Option<bool>,
    /// When. For people: it decides nothing.
    pub at: UnixTime,
    /// The number under which a store that several servers share has it; 0 where there is none.
    pub revision: u64,
}

/// How an ACS learns of bindings (STUN-18).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approach {
    /// From Binding Requests (TR-111 2.2.2.2.1).
    Stun,
    /// From notifications (TR-111 2.2.2.2.2).
    Notification,
    /// From whichever told last.
    #[default]
    Both,
}

impl Approach {
    /// Whether Binding Requests are authenticated (STUN-23, T-66).
    pub fn is_stun(self) -> bool {
        matches!(self, Self::Stun | Self::Both)
    }

    /// Whether notifications count (STUN-41).
    pub fn is_notification(self) -> bool {
        matches!(self, Self::Notification | Self::Both)
    }
}

/// From where a [`Destination`] is known.
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
    /// Its name for people and programs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Reported => "reported",
            Self::Tentative => "tentative",
        }
    }
}

/// Where a Connection Request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host and port.
    pub authority: Authority,
    /// From where they are known.
    pub way: Way,
}

impl State {
    /// The binding whose keep-alives say no more than that it is still used: nothing is to be proved or learned by them.
    pub fn settled(&self) -> Option<Seen> {
        self.authenticated.or(self.tentative).filter(|_| !self.must_verify)
    }

    /// Notes that what is settled was heard of, if that is news.
    pub fn heard(&mut self, at: UnixTime) {
        if let Some(seen) = self.authenticated.as_mut().or(self.tentative.as_mut()) {
            seen.last_seen = seen.last_seen.max(at);
        }
    }

    /// Brings times that are later than `now`, by a clock that was ahead, back to it. Gives whether there were any.
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

    /// Where Connection Requests reach the CPE: the latest of what is authenticated, by signature or by a session with
    /// the ACS, else what is not (T-65). A CPE that reported an empty address is reached by its binding alone.
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

/// Without the secrets.
impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("connection_request_username", &self.connection_request_username)
            .finish_non_exhaustive()
    }
}
