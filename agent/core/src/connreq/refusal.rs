//! Reasons for which a Connection Request is ignored.

use thiserror::Error;

/// The fields of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ts`: timestamp.
    Ts,
    /// `id`: message identifier.
    Id,
    /// `un`: username.
    Un,
    /// `cn`: client nonce.
    Cn,
    /// `sig`: signature.
    Sig,
}

/// The reason for which a UDP Connection Request is ignored. Offsets are in bytes from the start of the datagram.
///
/// Each reason is counted separately, so that an operator sees why a CPE does not respond (T-74).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not an HTTP request according to RFC 2616.
    #[error("not an HTTP/1.1 request at byte {offset} of {length}")]
    Malformed {
        /// Offset of the first invalid byte.
        offset: usize,
        /// Length of the datagram in bytes.
        length: usize,
    },
    /// The method is not GET (UCR-5).
    #[error("the method is not GET")]
    WrongMethod,
    /// The version is not HTTP/1.1.
    #[error("the version is not HTTP/1.1")]
    WrongVersion,
    /// The scheme is not http.
    #[error("the scheme is not http")]
    WrongScheme,
    /// The Request-URI has no scheme and authority (T-50).
    #[error("the Request-URI is not absolute")]
    RelativeUri,
    /// The path is neither empty nor a slash (T-50).
    #[error("the path is not empty")]
    WrongPath,
    /// A line ends without a carriage return.
    #[error("a line ends without carriage return at byte {offset}")]
    BareLineFeed {
        /// Offset of the line feed.
        offset: usize,
    },
    /// The Host header is missing (T-49).
    #[error("the Host header is missing")]
    NoHost,
    /// There is more than one Host header.
    #[error("there is more than one Host header")]
    DuplicateHost,
    /// The datagram ends before the empty line after the headers.
    #[error("the datagram of {length} bytes ends before the empty line")]
    NoBlankLine {
        /// Length of the datagram in bytes.
        length: usize,
    },
    /// The length of the body does not match Content-Length or Transfer-Encoding (RFC 2616 4.4).
    #[error("the length of the body differs from the headers")]
    BodyLength,
    /// A field is missing.
    #[error("the field {0:?} is missing")]
    MissingField(Field),
    /// A field occurs twice (T-52).
    #[error("there is more than one field {0:?}")]
    DuplicateField(Field),
    /// `ts` or `id` is not a canonical decimal number of 64 bits (T-53).
    #[error("the number in {0:?} is not canonical")]
    BadNumber(Field),
    /// A `%` without two hexadecimal digits, in a field that an ACS without encoding would not send like this (T-51).
    #[error("the percent-encoding of {0:?} is invalid")]
    BadEncoding(Field),
    /// `sig` does not have forty hexadecimal digits.
    #[error("the signature is not forty hexadecimal digits")]
    SignatureForm,
    /// `sig` has the length of a SHA-256 signature (T-74).
    #[error("the signature has the length of SHA-256")]
    Sha256Signature,
    /// `ts` is too far in the future (SEC-5).
    #[error("the timestamp is too far in the future")]
    FutureTimestamp,
    /// `ts` is in milliseconds (T-55).
    #[error("the timestamp is in milliseconds")]
    MillisecondTimestamp,
    /// `ts` is not greater than the last accepted one (UCR-6).
    #[error("the timestamp is not newer than the last accepted one")]
    StaleTimestamp,
    /// `id` equals that of the last accepted request (UCR-11).
    #[error("the id equals that of the last accepted request")]
    SameId,
    /// `un` is not ConnectionRequestUsername (UCR-12).
    #[error("the username is unknown")]
    UnknownUser,
    /// The Request-URI has the unencoded ConnectionRequestUsername, which has a character that must be encoded
    /// ([`super::must_be_encoded`]).
    #[error("the username is not percent-encoded, although it has a character that must be")]
    UnencodedName,
    /// ConnectionRequestPassword is empty (T-61).
    #[error("no password is set")]
    NoPassword,
    /// `sig` is wrong (UCR-13).
    #[error("the signature is wrong")]
    BadSignature,
}

impl Refusal {
    /// Value of the metric label `result` for accepted requests.
    pub const ACCEPTED: &'static str = "accepted";

    /// One refusal of each kind, for lists of all labels.
    pub const ALL: [Self; 25] = [
        Self::Malformed { offset: 0, length: 0 },
        Self::WrongMethod,
        Self::WrongVersion,
        Self::WrongScheme,
        Self::RelativeUri,
        Self::WrongPath,
        Self::BareLineFeed { offset: 0 },
        Self::NoHost,
        Self::DuplicateHost,
        Self::NoBlankLine { length: 0 },
        Self::BodyLength,
        Self::MissingField(Field::Ts),
        Self::DuplicateField(Field::Ts),
        Self::BadNumber(Field::Ts),
        Self::BadEncoding(Field::Un),
        Self::SignatureForm,
        Self::Sha256Signature,
        Self::FutureTimestamp,
        Self::MillisecondTimestamp,
        Self::StaleTimestamp,
        Self::SameId,
        Self::UnknownUser,
        Self::UnencodedName,
        Self::NoPassword,
        Self::BadSignature,
    ];

    /// Value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::WrongMethod => "wrong_method",
            Self::WrongVersion => "wrong_version",
            Self::WrongScheme => "wrong_scheme",
            Self::RelativeUri => "relative_uri",
            Self::WrongPath => "wrong_path",
            Self::BareLineFeed { .. } => "bare_line_feed",
            Self::NoHost => "no_host",
            Self::DuplicateHost => "duplicate_host",
            Self::NoBlankLine { .. } => "no_blank_line",
            Self::BodyLength => "body_length",
            Self::MissingField(_) => "missing_field",
            Self::DuplicateField(_) => "duplicate_field",
            Self::BadNumber(_) => "bad_number",
            Self::BadEncoding(_) => "bad_encoding",
            Self::SignatureForm => "signature_form",
            Self::Sha256Signature => "sha256_signature",
            Self::FutureTimestamp => "future_timestamp",
            Self::MillisecondTimestamp => "millisecond_timestamp",
            Self::StaleTimestamp => "stale_timestamp",
            Self::SameId => "same_id",
            Self::UnknownUser => "unknown_user",
            Self::UnencodedName => "unencoded_name",
            Self::NoPassword => "no_password",
            Self::BadSignature => "bad_signature",
        }
    }
}
