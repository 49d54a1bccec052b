//! Results of a datagram at the STUN server.

use std::net::SocketAddrV4;

use tr111_common::stun::BindingForm;

use crate::stun::{ErrorCode, MessageType};

/// How the server handled a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// A request without signature, answered.
    Answered,
    /// A request with a valid signature, answered with a signature (STUN-24).
    Authenticated,
    /// A copy of an answered request; the answer was repeated (T-25).
    Copy,
    /// A copy of an answered request, ignored.
    CopyIgnored,
    /// Answered with error 400.
    BadRequest,
    /// Answered with error 401: the request has to be signed (STUN-23).
    Unauthorized,
    /// Answered with error 420.
    UnknownAttribute,
    /// Answered with error 430: the USERNAME is unknown.
    StaleCredentials,
    /// Answered with error 431.
    IntegrityCheckFailure,
    /// Answered with error 432.
    MissingUsername,
    /// Answered with error 433: shared secrets are not issued over UDP (STUN-12).
    UseTls,
    /// A signed request that was accepted before, possibly from another address; ignored (T-67).
    Replayed,
    /// The source exceeds its rate; ignored.
    Limited,
    /// A response; ignored.
    NotARequest,
    /// Not a STUN message, or with a wrong length; ignored (T-63).
    NotStun,
    /// From port 0, which cannot be answered; ignored.
    BadSource,
    /// The CPE's record in the store cannot be read; ignored.
    Unreadable,
    /// A request with a valid signature, answered with a signature. The binding is unchanged, because the store cannot
    /// remember the request.
    NotKept,
}

impl Verdict {
    /// All verdicts, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Answered,
        Self::Authenticated,
        Self::Copy,
        Self::CopyIgnored,
        Self::BadRequest,
        Self::Unauthorized,
        Self::UnknownAttribute,
        Self::StaleCredentials,
        Self::IntegrityCheckFailure,
        Self::MissingUsername,
        Self::UseTls,
        Self::Replayed,
        Self::Limited,
        Self::NotARequest,
        Self::NotStun,
        Self::BadSource,
        Self::Unreadable,
        Self::NotKept,
    ];

    /// Value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Authenticated => "authenticated",
            Self::Copy => "copy",
            Self::CopyIgnored => "copy_ignored",
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::UnknownAttribute => "unknown_attribute",
            Self::StaleCredentials => "stale_credentials",
            Self::IntegrityCheckFailure => "bad_integrity",
            Self::MissingUsername => "missing_username",
            Self::UseTls => "use_tls",
            Self::Replayed => "replayed",
            Self::Limited => "limited",
            Self::NotARequest => "not_a_request",
            Self::NotStun => "not_stun",
            Self::BadSource => "bad_source",
            Self::Unreadable => "unreadable",
            Self::NotKept => "not_kept",
        }
    }

    /// The error code of the answer; `None` for a response or no answer.
    pub fn error(self) -> Option<ErrorCode<'static>> {
        Some(match self {
            Self::BadRequest => ErrorCode::BAD_REQUEST,
            Self::Unauthorized => ErrorCode::UNAUTHORIZED,
            Self::UnknownAttribute => ErrorCode::UNKNOWN_ATTRIBUTE,
            Self::StaleCredentials => ErrorCode::STALE_CREDENTIALS,
            Self::IntegrityCheckFailure => ErrorCode::INTEGRITY_CHECK_FAILURE,
            Self::MissingUsername => ErrorCode::MISSING_USERNAME,
            Self::UseTls => ErrorCode::USE_TLS,
            _ => return None,
        })
    }
}

/// The result of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Type of the message; `None` if the datagram is not STUN.
    pub message_type: Option<MessageType>,
    /// How the datagram was handled.
    pub verdict: Verdict,
    /// Destination of the answer; `None` if there is no answer.
    pub to: Option<SocketAddrV4>,
    /// The change in the registry that has to be stored or reported.
    pub learned: Option<Learned>,
    /// The form of CONNECTION-REQUEST-BINDING; `None` if the attribute is absent or the message is no Binding Request.
    pub binding: Option<BindingForm>,
}

impl Outcome {
    /// A datagram that gets no answer.
    pub(super) fn silent(message_type: Option<MessageType>, verdict: Verdict) -> Self {
        Self { message_type, verdict, to: None, learned: None, binding: None }
    }
}

/// A change of a CPE in the registry that has to be stored or reported. The last-seen time of a binding is not among
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The binding is authenticated, and it changed or had to be verified.
    Authenticated {
        /// Number of the CPE.
        number: u32,
        /// Whether the address changed.
        is_new: bool,
    },
    /// The CPE claimed a new binding without a signature (STUN-31).
    Tentative {
        /// Number of the CPE.
        number: u32,
    },
    /// A signed request of the CPE was sent again from another address (T-67).
    Replayed {
        /// Number of the CPE.
        number: u32,
    },
    /// The CPE signed a request that the store could not remember; the binding is unchanged.
    NotKept {
        /// Number of the CPE.
        number: u32,
    },
}
