//! What becomes of a datagram at the STUN server.

use std::net::SocketAddrV4;

use tr111_common::stun::BindingForm;

use crate::stun::{ErrorCode, MessageType};

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Answered, and nothing was to be proved.
    Answered,
    /// Signed as it should be, and answered with a signature (STUN-24).
    Authenticated,
    /// A copy of a request that is answered already: the same answer again (T-25).
    Copy,
    /// A copy that is ignored.
    CopyIgnored,
    /// 400
    BadRequest,
    /// 401: it has to be signed (STUN-23).
    Unauthorized,
    /// 420
    UnknownAttribute,
    /// 430: nobody has this USERNAME.
    StaleCredentials,
    /// 431
    IntegrityCheckFailure,
    /// 432
    MissingUsername,
    /// 433: shared secrets are not given by UDP (STUN-12).
    UseTls,
    /// A signed request that was accepted before, perhaps from elsewhere: ignored (T-67).
    Replayed,
    /// Its source sends too much: ignored.
    Limited,
    /// A response: ignored.
    NotARequest,
    /// No STUN, or not as long as it says: ignored (T-63).
    NotStun,
    /// From a port that nobody can be answered at: ignored.
    BadSource,
    /// It names a CPE, and what is kept of the CPE cannot be read: ignored.
    Unreadable,
    /// Signed as it should be, and answered with a signature. The binding stays as it is, because the request cannot be
    /// remembered.
    NotKept,
}

impl Verdict {
    /// All of them, in the order of their numbers.
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

    /// The value of the metric's `result` label.
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

    /// The error that the sender gets; `None` where it gets a response, or nothing.
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

/// What became of a datagram, and what is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the datagram was, if it was STUN.
    pub message_type: Option<MessageType>,
    /// What became of it.
    pub verdict: Verdict,
    /// Where the answer goes; `None` where there is none.
    pub to: Option<SocketAddrV4>,
    /// What the registry learned by it.
    pub learned: Option<Learned>,
    /// How its CONNECTION-REQUEST-BINDING is written, where it is a Binding Request with an attribute of that type.
    pub binding: Option<BindingForm>,
}

impl Outcome {
    /// Nothing is sent.
    pub(super) fn silent(message_type: Option<MessageType>, verdict: Verdict) -> Self {
        Self { message_type, verdict, to: None, learned: None, binding: None }
    }
}

/// What a registry learned of a CPE, by its number, that is worth keeping or telling. That a binding is still used is
/// not: it is in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Its binding is authenticated: another one than before, or it had to be verified.
    Authenticated {
        /// The CPE.
        number: u32,
        /// The address is another one.
        is_new: bool,
    },
    /// It says, without a proof, that it has another binding (STUN-31).
    Tentative {
        /// The CPE.
        number: u32,
    },
    /// Somebody sent again what it had signed (T-67).
    Replayed {
        /// The CPE.
        number: u32,
    },
    /// What it signed cannot be remembered, so its binding stays as it is.
    NotKept {
        /// The CPE.
        number: u32,
    },
}
