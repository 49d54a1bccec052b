//! Messages of the ACS role.

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
    /// CPEs with an authenticated binding.
    pub authenticated: u64,
    /// Records of the registry that cannot be read. They are kept unchanged.
    #[serde(default)]
    pub unreadable_records: u64,
    /// Location of the registry.
    pub registry: String,
    /// Why the registry cannot be written at the moment. `null` if it can.
    pub registry_failure: Option<String>,
    /// Seconds by which the system clock is ahead of the last known good time. `null` if the clock is accepted as
    /// correct.
    pub clock_ahead_s: Option<u64>,
    /// Why the registry cannot be read; no CPE is known then. `null` if it can.
    #[serde(default)]
    pub registry_unreadable: Option<String>,
}

/// A condition that needs an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Name of the alarm, as in the metric.
    pub alarm: String,
    /// `STUNUsername` of the CPE that the alarm is about.
    pub username: Option<String>,
    /// Source address and port of the message that caused the alarm. They may be forged.
    pub from: Option<String>,
    /// On a gateway: the interface that the alarm is about.
    pub interface: Option<String>,
    /// On a gateway: reason as text for the user.
    pub detail: Option<String>,
    /// On a gateway: the condition has ended.
    pub cleared: bool,
}

/// A UDP Connection Request that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct SentRequest {
    /// `STUNUsername` of the CPE, if it is registered.
    #[cfg_attr(feature = "acs", schema(required))]
    pub username: Option<String>,
    /// Destination as it was given or learned: `HOST` or `HOST:PORT`.
    pub to: String,
    /// Address and port that the datagram was sent to.
    #[cfg_attr(feature = "acs", schema(value_type = String))]
    pub address: SocketAddrV4,
    /// Local address and port that the datagram was sent from. 0.0.0.0: the address was chosen by the routing table.
    #[cfg_attr(feature = "acs", schema(value_type = String))]
    pub from: SocketAddrV4,
    /// How the destination was learned: `authenticated`, `reported` or `tentative`.
    #[cfg_attr(feature = "acs", schema(required))]
    pub way: Option<String>,
    /// Value of `ts`.
    pub timestamp: u64,
    /// Value of `id`.
    pub id: u64,
    /// Identical copies that were sent.
    pub copies: usize,
    /// Content of the datagram.
    pub request: String,
}

/// Progress of a bulk job of Connection Requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct BulkProgress {
    /// CPEs that were processed, whether a request was sent or not.
    pub done: u64,
    /// CPEs of the job.
    pub cpes: u64,
}

/// Result of a bulk job of Connection Requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct BulkSummary {
    /// CPEs of the job.
    pub cpes: u64,
    /// CPEs to which a request was sent.
    pub sent: u64,
    /// Datagrams that were sent, copies included.
    pub datagrams: u64,
    /// CPEs to which no request was sent, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Duration in milliseconds.
    pub duration_ms: u64,
}

/// Credentials of a CPE, passwords included, as sent to an ACS and as exported to a file.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCpe {
    /// `STUNUsername` of the CPE.
    pub stun_username: String,
    /// `STUNPassword`; empty if the CPE has none.
    pub stun_password: String,
    /// `ConnectionRequestUsername` of the CPE.
    pub connection_request_username: String,
    /// `ConnectionRequestPassword` of the CPE.
    pub connection_request_password: String,
}

/// Omits the passwords.
impl fmt::Debug for NewCpe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NewCpe").field("stun_username", &self.stun_username).finish_non_exhaustive()
    }
}

/// A CPE of the registry, without passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredCpe {
    /// `STUNUsername` of the CPE.
    pub stun_username: String,
    /// `ConnectionRequestUsername` of the CPE.
    pub connection_request_username: String,
    /// Destination of the next UDP Connection Request. `null` if none is known.
    pub address: Option<String>,
    /// How the destination was learned: `authenticated`, `reported` or `tentative`.
    pub way: Option<String>,
    /// When the destination last changed.
    pub changed: Option<String>,
    /// When a message last confirmed the binding.
    pub last_seen: Option<String>,
    /// `NATDetected`, as the CPE reported it.
    pub nat_detected: Option<bool>,
    /// `ts` of the last Connection Request.
    pub last_timestamp: Option<u64>,
    /// Whether the next Binding Request with CONNECTION-REQUEST-BINDING must be signed.
    pub must_verify: bool,
}

/// A weakness in the credentials of a CPE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeakCpe {
    /// `STUNUsername` of the CPE.
    pub stun_username: String,
    /// `no_stun_password`, `weak_stun_password`, `duplicate_stun_password`, `no_connection_request_password`,
    /// `weak_connection_request_password`, `password_from_username`, `username_length` or `username_blank`.
    pub finding: String,
    /// Explanation as text for the user.
    pub meaning: String,
}
