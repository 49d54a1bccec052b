//! What only an ACS says.

use std::{collections::BTreeMap, net::SocketAddrV4};

use serde::{Deserialize, Serialize};

/// The state of an ACS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcsStatus {
    /// Addresses of the STUN server.
    pub listen: Vec<SocketAddrV4>,
    /// CPEs in the registry.
    pub cpes: u64,
    /// Those whose binding was signed.
    pub authenticated: u64,
}

/// Somebody should look at something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What, as in the metric.
    pub alarm: String,
    /// `STUNUsername` of the CPE that it is about.
    pub username: Option<String>,
    /// Address and port that it came from, as far as one may believe that.
    pub from: Option<String>,
}

/// A Connection Request that left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRequest {
    /// `STUNUsername` of the CPE, where the registry has it.
    pub username: Option<String>,
    /// `HOST` or `HOST:PORT`, as it is known.
    pub to: String,
    /// The address that that is.
    pub address: SocketAddrV4,
    /// The address of ours that it left from; 0.0.0.0: the one of the route.
    pub from: SocketAddrV4,
    /// From where `to` is known: `authenticated`, `reported` or `tentative`.
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
pub struct BulkProgress {
    /// CPEs that are done with, one way or the other.
    pub done: u64,
    /// All of them.
    pub cpes: u64,
}

/// What became of a bulk of Connection Requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
