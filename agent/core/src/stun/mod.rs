//! STUN (RFC 3489) as TR-111 Part 2 uses it, with the attributes of TR-111 Table 5.
//!
//! | type | purpose |
//! | --- | --- |
//! | [`Header`] | message type and [`TransactionId`] |
//! | [`Message`] | a parsed message; it borrows the datagram and allocates no memory |
//! | [`Attribute`] | one attribute, for parsing and building |
//! | [`Builder`] | builds a message, optionally signed with a [`SharedSecret`] |
//! | [`Transaction`] | a request, its retransmissions and the checks of its responses (RFC 3489 9.3, 12; SEC-3) |
//! | [`Replies`] | a server's recent answers, for copies of a request (T-25) |
//!
//! Messages of RFC 3489 are parsed, which has no magic cookie. A request of RFC 5389 is parsed as well: the cookie is
//! then the first four bytes of the transaction identifier. A client that accepts XOR-MAPPED-ADDRESS sends identifiers
//! with the cookie, so that both forms of this attribute are unambiguous (T-20).

mod attribute;
mod builder;
mod error;
mod integrity;
mod message;
mod replies;
mod transaction;

use tr111_common::stun::{MAGIC_COOKIE, message as wire};

pub use attribute::{Attribute, ChangeRequest, ErrorCode, UnknownAttributes, Username};
pub use builder::Builder;
pub use error::ParseError;
pub use integrity::{IntegrityError, Variant, Variants};
pub use message::{Attributes, Header, Message};
pub use replies::{Replies, Seen};
pub use transaction::{Attack, Discarded, GIVE_UP, INTERVALS, LISTEN, Progress, Response, Transaction};

pub use crate::secret::SharedSecret;

/// The 128-bit identifier of a request and its responses (RFC 3489 11.1). The owner of a core provides random ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 16]);

impl TransactionId {
    /// The identifier with its first four bytes replaced by the magic cookie of RFC 5389.
    #[must_use]
    pub fn with_cookie(mut self) -> Self {
        self.0[..MAGIC_COOKIE.len()].copy_from_slice(&MAGIC_COOKIE);
        self
    }

    /// Whether the identifier begins with the magic cookie of RFC 5389.
    pub fn has_cookie(&self) -> bool {
        self.0.starts_with(&MAGIC_COOKIE)
    }
}

/// Message types (RFC 3489 11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum MessageType {
    /// Binding Request.
    BindingRequest = wire::BINDING_REQUEST,
    /// Binding Response.
    BindingResponse = wire::BINDING_RESPONSE,
    /// Binding Error Response.
    BindingErrorResponse = wire::BINDING_ERROR_RESPONSE,
    /// Shared Secret Request.
    SharedSecretRequest = wire::SHARED_SECRET_REQUEST,
    /// Shared Secret Response.
    SharedSecretResponse = wire::SHARED_SECRET_RESPONSE,
    /// Shared Secret Error Response.
    SharedSecretErrorResponse = wire::SHARED_SECRET_ERROR_RESPONSE,
}

impl MessageType {
    /// The type with the number `value`; `None` if there is none.
    pub fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            wire::BINDING_REQUEST => Self::BindingRequest,
            wire::BINDING_RESPONSE => Self::BindingResponse,
            wire::BINDING_ERROR_RESPONSE => Self::BindingErrorResponse,
            wire::SHARED_SECRET_REQUEST => Self::SharedSecretRequest,
            wire::SHARED_SECRET_RESPONSE => Self::SharedSecretResponse,
            wire::SHARED_SECRET_ERROR_RESPONSE => Self::SharedSecretErrorResponse,
            _ => return None,
        })
    }

    /// Value of the metric label `type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::BindingRequest => "binding_request",
            Self::BindingResponse => "binding_response",
            Self::BindingErrorResponse => "binding_error_response",
            Self::SharedSecretRequest => "shared_secret_request",
            Self::SharedSecretResponse => "shared_secret_response",
            Self::SharedSecretErrorResponse => "shared_secret_error_response",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
