//! What only an ACS says.

use std::{collections::BTreeMap, fmt, net::SocketAddrV4};

use serde::{Deserialize, Serialize};
#[cfg(feature = "acs")]
use utoipa::ToSchema;

/// The state of an ACS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcsStatus {
    /// Addresses of the STUN server.
    pub listen: Vec<SocketAddrV4>,
    /// CPEs in the registry.
    pub cpes: u64,
    /// Those whose binding was signed.
    pub authenticated: u64,
    /// Records of the registry that cannot be read, and are left alone.
    #[serde(default)]
    pub unreadable_records: u64,
    /// Where they are kept.
    pub registry: String,
    /// Why they cannot be kept at the moment; nothing where they are.
    pub registry_failure: Option<String>,
    /// Seconds by which the clock is ahead of the last known good time, where it is not believed; nothing where it is.
    pub clock_ahead_s: Option<u64>,
    /// Why no CPE is known, though there is a registry: it cannot be read. Nothing where it can.
    #[serde(default)]
    pub registry_unreadable: Option<String>,
}

/// Somebody should look at something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What, as in the metric.
    pub alarm: String,
    /// `STUNUsername` of the CPE that it is about.
    pub username: Option<String>,
    /// Address and port that it came from, as far as one may believe that.
    pub from: Option<String>,
    /// On a gateway: the interface that it is about.
    pub interface: Option<String>,
    /// On a gateway: why, in words.
    pub detail: Option<String>,
    /// On a gateway: it is over.
    pub cleared: bool,
}

/// A Connection Request that left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct SentRequest {
    /// `STUNUsername` of the CPE, where the registry has it.
    #[cfg_attr(feature = "acs", schema(required))]
    pub username: Option<String>,
    /// `HOST` or `HOST:PORT`, as it is known.
    pub to: String,
    /// The address that that is.
    #[cfg_attr(feature = "acs", schema(value_type = String))]
    pub address: SocketAddrV4,
    /// The address of ours that it left from; 0.0.0.0: the one of the route.
    #[cfg_attr(feature = "acs", schema(value_type = String))]
    pub from: SocketAddrV4,
    /// From where `to` is known: `authenticated`, `reported` or `tentative`.
    #[cfg_attr(feature = "acs", schema(required))]
    pub way: Option<String>,
    /// `ts`
    pub timestamp: u64,
    /// `id`
    pub id: u64,
    /// Copies that left.
    pub copies: usize,
    /// The datagram.
    pub request: String,
}

/// How far a bulk of Connection Requests is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct BulkProgress {
    /// CPEs that are done with, one way or the other.
    pub done: u64,
    /// All of them.
    pub cpes: u64,
}

/// What became of a bulk of Connection Requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct BulkSummary {
    /// CPEs that were to be woken.
    pub cpes: u64,
    /// Those to which a request left.
    pub sent: u64,
    /// Datagrams that left, copies included.
    pub datagrams: u64,
    /// CPEs to which none left, by reason.
    pub failed: BTreeMap<String, u64>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// What an operator provisions of a CPE, passwords included: on its way to an ACS, and to a file.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCpe {
    /// `STUNUsername`
    pub stun_username: String,
    /// `STUNPassword`; empty where it has none.
    pub stun_password: String,
    /// `ConnectionRequestUsername`
    pub connection_request_username: String,
    /// `ConnectionRequestPassword`
    pub connection_request_password: String,
}

/// Without the passwords.
impl fmt::Debug for NewCpe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NewCpe").field("stun_username", &self.stun_username).finish_non_exhaustive()
    }
}

/// A CPE as everybody may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredCpe {
    /// `STUNUsername`
    pub stun_username: String,
    /// `ConnectionRequestUsername`
    pub connection_request_username: String,
    /// Where a Connection Request would go.
    pub address: Option<String>,
    /// From where that is known: `authenticated`, `reported` or `tentative`.
    pub way: Option<String>,
    /// Since when.
    pub changed: Option<String>,
    /// When its binding was last heard of.
    pub last_seen: Option<String>,
    /// `NATDetected`, as the CPE told it.
    pub nat_detected: Option<bool>,
    /// `ts` of the last Connection Request.
    pub last_timestamp: Option<u64>,
    /// The next Binding Request with CONNECTION-REQUEST-BINDING has to be signed.
    pub must_verify: bool,
}

/// Something weak in what was provisioned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeakCpe {
    /// `STUNUsername`
    pub stun_username: String,
    /// `no_stun_password`, `weak_stun_password`, `duplicate_stun_password`, `no_connection_request_password`,
    /// `weak_connection_request_password`, `password_from_username`, `username_length` or `username_blank`.
    pub finding: String,
    /// What that means.
    pub meaning: String,
}
