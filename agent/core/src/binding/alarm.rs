//! What an operator should look at.

/// Something that is wrong, until it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// STUN is enabled, and neither `STUNServerAddress` with `STUNServerPort` nor the ACS URL names a server.
    NoServer,
    /// The server's name has no IPv4 address.
    Unresolved,
    /// The server does not answer (T-44).
    ServerUnreachable,
    /// 400.
    BadRequest,
    /// 401, without credentials or in spite of them (T-38).
    Unauthorized,
    /// 420 for an attribute that TR-111 demands.
    UnknownAttribute,
    /// 430.
    StaleCredentials,
    /// 431.
    IntegrityCheckFailure,
    /// 432.
    MissingUsername,
    /// 500 to 599.
    ServerError,
    /// 600 to 699.
    GlobalFailure,
    /// Any other error.
    Refused,
    /// Responses contradict each other, so somebody forges them (SEC-3).
    Contradiction,
    /// Every request is seen with another public address, so no Connection Request can come through.
    Unstable,
    /// The server does not honour RESPONSE-ADDRESS, so the period cannot be learned (T-46).
    ProbeUnsupported,
    /// The binding does not survive `STUNMinimumKeepAlivePeriod`.
    MinimumTooLong,
}

impl Alarm {
    /// That of an error code, 400 to 699.
    pub(super) fn of_code(code: u16) -> Self {
        match code {
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            420 => Self::UnknownAttribute,
            430 => Self::StaleCredentials,
            431 => Self::IntegrityCheckFailure,
            432 => Self::MissingUsername,
            500..=599 => Self::ServerError,
            600.. => Self::GlobalFailure,
            _ => Self::Refused,
        }
    }

    /// Those that a usable answer of the server takes back.
    pub(super) const UNTIL_ANSWERED: [Self; 10] = [
        Self::ServerUnreachable,
        Self::BadRequest,
        Self::Unauthorized,
        Self::UnknownAttribute,
        Self::StaleCredentials,
        Self::IntegrityCheckFailure,
        Self::MissingUsername,
        Self::ServerError,
        Self::GlobalFailure,
        Self::Refused,
    ];

    /// The name for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::Unresolved => "server_unresolved",
            Self::ServerUnreachable => "server_unreachable",
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::UnknownAttribute => "unknown_attribute",
            Self::StaleCredentials => "stale_credentials",
            Self::IntegrityCheckFailure => "integrity_check_failure",
            Self::MissingUsername => "missing_username",
            Self::ServerError => "server_error",
            Self::GlobalFailure => "global_failure",
            Self::Refused => "refused",
            Self::Contradiction => "contradiction",
            Self::Unstable => "binding_unstable",
            Self::ProbeUnsupported => "probe_unsupported",
            Self::MinimumTooLong => "minimum_too_long",
        }
    }
}
