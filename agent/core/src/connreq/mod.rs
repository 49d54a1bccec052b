//! UDP Connection Requests: an HTTP GET in one datagram that wakes a CPE (TR-111 2.2.1.4, 2.2.2.3).
//!
//! Types mark how far a message has come, and only the last one changes what the CPE remembers (UCR-8, SEC-6):
//!
//! | type | is |
//! | --- | --- |
//! | [`Datagram`] | bytes that begin like a request, not like STUN (UCR-17) |
//! | [`ParsedRequest`] | an HTTP/1.1 request with the five fields of TR-111, each in its form |
//! | [`ValidRequest`] | newer than the last accepted one, and for this CPE |
//! | [`AuthenticRequest`] | signed with ConnectionRequestPassword |
//!
//! [`Listener`] is the CPE that goes through them; [`ConnectionRequest`] is what an ACS signs and sends. Nothing here allocates
//! before a request is authentic, and no HMAC is computed before everything else is right (T-62).

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

/// Which digits a `ts` may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Seconds, as TR-111 says.
    #[default]
    Seconds,
    /// Milliseconds as well, told by their thirteen digits (T-55).
    Any,
}

/// The knobs `connreq.*`. The defaults are TR-111's letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `connreq.require_host`: a request without Host is refused (T-49).
    pub require_host: bool,
    /// `connreq.accept_relative`: a Request-URI without scheme and authority is taken (T-50).
    pub accept_relative: bool,
    /// `connreq.ts_unit`.
    pub timestamp_unit: TimestampUnit,
    /// `connreq.allow_empty_password`: without it, an empty ConnectionRequestPassword refuses everything (T-61).
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
