//! Alarms: conditions that need an operator.

/// A condition that needs an operator, for as long as it persists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// STUN is enabled, but neither `STUNServerAddress` and `STUNServerPort` nor the ACS URL names a server.
    NoServer,
    /// The server's name has no IPv4 address.
    Unresolved,
    /// The server does not answer (T-44).
    ServerUnreachable,
    /// The server answers with error 400.
    BadRequest,
    /// The server answers with error 401, although the request was signed or because no credentials are provisioned
    /// (T-38).
    Unauthorized,
    /// The server answers with error 420 for an attribute that TR-111 requires.
    UnknownAttribute,
    /// The server answers with error 430.
    StaleCredentials,
    /// The server answers with error 431.
    IntegrityCheckFailure,
    /// The server answers with error 432.
    MissingUsername,
    /// The server answers with an error from 500 to 599.
    ServerError,
    /// The server answers with an error from 600 to 699.
    GlobalFailure,
    /// The server answers with another error.
    Refused,
    /// The server's responses contradict each other; some of them are forged (SEC-3).
    Contradiction,
    /// The public address differs in every response, so Connection Requests cannot reach the CPE.
    Unstable,
    /// The server ignores RESPONSE-ADDRESS, so the keep-alive period cannot be learned (T-46).
    ProbeUnsupported,
    /// The binding expires within `STUNMinimumKeepAlivePeriod`.
    MinimumTooLong,
}

impl Alarm {
    /// The alarm of an error code from 400 to 699.
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

    /// Alarms that a valid answer of the server clears.
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

    /// Name in logs and metrics.
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
