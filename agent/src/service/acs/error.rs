//! Errors of requests to the ACS.

use tr111_core::{acs::association, connreq::DatagramTooLong};

/// Why the ACS refused or failed a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The STUNUsername belongs to another CPE (STUN-21).
    #[error("another CPE has this STUNUsername")]
    Taken,
    /// There are as many CPEs as there may be.
    #[error("the registry has room for {maximum} CPEs (acs.max_cpes)")]
    Full {
        /// How many those are.
        maximum: u32,
    },
    /// Nobody has this name.
    #[error("no CPE has this STUNUsername")]
    Unknown,
    /// A string that TR-111 Table 6 does not allow.
    #[error("{what} must have {least} to 256 bytes and no control characters")]
    Text {
        /// The name of the parameter.
        what: &'static str,
        /// The smallest permitted length in bytes.
        least: usize,
    },
    /// No address of the CPE is known yet.
    #[error("no address of this CPE is known")]
    NoDestination,
    /// The CPE lacks the credentials for Connection Requests.
    #[error("this CPE has no ConnectionRequestUsername or no ConnectionRequestPassword")]
    NoCredentials,
    /// The CPE's host name has no IPv4 address.
    #[error("the host name {host} has no IPv4 address")]
    Unresolved {
        /// The host name.
        host: String,
    },
    /// The request does not fit into one packet.
    #[error("{0}")]
    TooLong(#[from] DatagramTooLong),
    /// The datagram could not be sent.
    #[error("the Connection Request was not sent: {0}")]
    NotSent(String),
    /// A report about an association was refused.
    #[error("{0}")]
    Association(association::Refusal),
    /// The registry cannot be read.
    #[error("the registry cannot be read: {0}")]
    Unreadable(String),
    /// The store could not write the change.
    #[error("the change was not stored: {0}")]
    Store(String),
}

impl Error {
    /// The value of the metrics' `result` label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Full { .. } => "registry_full",
            Self::Unknown => "unknown_cpe",
            Self::Text { .. } => "bad_text",
            Self::NoDestination => "no_destination",
            Self::NoCredentials => "no_credentials",
            Self::Unresolved { .. } => "unresolved",
            Self::TooLong(_) => "too_long",
            Self::NotSent(_) => "not_sent",
            Self::Association(refusal) => refusal.label(),
            Self::Unreadable(_) => "unreadable_registry",
            Self::Store(_) => "not_kept",
        }
    }
}
