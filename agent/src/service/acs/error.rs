//! Why an ACS does not do what it was asked.

use tr111_core::{acs::association, connreq::DatagramTooLong};

/// Why an ACS does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// STUN-21: two CPEs cannot have one STUNUsername.
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
    /// A text that no parameter of TR-111 Table 6 holds.
    #[error("{what} has to have {least} to 256 bytes, without control characters")]
    Text {
        /// Which.
        what: &'static str,
        /// Fewest bytes.
        least: usize,
    },
    /// The CPE was not heard of yet.
    #[error("nothing is known of where this CPE is")]
    NoDestination,
    /// The CPE cannot be woken by anybody.
    #[error("this CPE has no ConnectionRequestUsername or no ConnectionRequestPassword")]
    NoCredentials,
    /// The host of its address has no IPv4 address.
    #[error("{host}: no IPv4 address")]
    Unresolved {
        /// The host.
        host: String,
    },
    /// The request would not travel in one packet.
    #[error("{0}")]
    TooLong(#[from] DatagramTooLong),
    /// It did not leave.
    #[error("it was not sent: {0}")]
    NotSent(String),
    /// A report about an association that is not taken.
    #[error("{0}")]
    Association(association::Refusal),
    /// The registry cannot be read.
    #[error("the registry cannot be read: {0}")]
    Unreadable(String),
    /// The store did not keep it.
    #[error("the store did not keep it: {0}")]
    Store(String),
}

impl Error {
    /// The value of a metric's `result` label.
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
