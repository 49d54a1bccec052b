//! UDP Connection Requests: an HTTP GET in one datagram, upon which a CPE opens a session (TR-111 2.2.1.4, 2.2.2.3).
//!
//! The types mark the progress of a message. Only the last one changes the state of the CPE (UCR-8, SEC-6):
//!
//! | type | meaning |
//! | --- | --- |
//! | [`Datagram`] | starts like a Connection Request, not like STUN (UCR-17) |
//! | [`ParsedRequest`] | an HTTP/1.1 request with the five fields of TR-111, all well-formed |
//! | [`ValidRequest`] | newer than the last accepted request, and for this CPE |
//! | [`AuthenticRequest`] | signed with ConnectionRequestPassword |
//!
//! [`Listener`] is the receiver in the CPE; [`ConnectionRequest`] is what an ACS signs and sends. No memory is
//! allocated before a request is authentic, and no HMAC is computed before all other checks pass (T-62).

mod body;
mod http;
mod listener;
mod query;
mod refusal;
mod request;
mod uri;

pub use http::{Datagram, ParsedRequest, Payload};
pub use listener::{AuthenticRequest, Credential, LastAccepted, Listener, ValidRequest};
pub use query::{Encoded, Number};
pub use refusal::{Field, Refusal};
pub use request::{
    Authority, BadAuthority, COPIES, ConnectionRequest, DatagramTooLong, MAXIMUM_LENGTH, next_timestamp,
};
pub use uri::must_be_encoded;

/// Accepted units of `ts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Seconds, as TR-111 specifies.
    #[default]
    Seconds,
    /// Seconds or milliseconds; the latter are recognised by their thirteen digits (T-55).
    Any,
}

/// The settings `connreq.*`. The defaults follow TR-111 literally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `connreq.require_host`: refuse requests without a Host header (T-49).
    pub require_host: bool,
    /// `connreq.accept_relative`: accept a Request-URI without scheme and authority (T-50).
    pub accept_relative: bool,
    /// `connreq.ts_unit`: accepted units of `ts`.
    pub timestamp_unit: TimestampUnit,
    /// `connreq.allow_empty_password`: accept requests although ConnectionRequestPassword is empty; otherwise they all
    /// are refused (T-61).
    pub allow_empty_password: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            require_host: true,
            accept_relative: false,
            timestamp_unit: TimestampUnit::Seconds,
            allow_empty_password: false,
        }
    }
}

#[cfg(test)]
mod tests;
