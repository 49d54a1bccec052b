//! Why a request does not wake anybody.

use thiserror::Error;

/// The fields of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Timestamp.
    Ts,
    /// Message ID.
    Id,
    /// Username.
    Un,
    /// Cnonce.
    Cn,
    /// Signature.
    Sig,
}

/// Why a UDP Connection Request is ignored. Offsets count from the start of the datagram, in bytes.
///
/// Each has its own count, so that an operator sees why a CPE is silent (T-74).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No HTTP request, or none that RFC 2616 allows.
    #[error("not an HTTP/1.1 request at byte {offset} of {length}")]
    Malformed {
        /// Where it stops being one.
        offset: usize,
        /// Length of the datagram.
        length: usize,
    },
    /// The method is another than GET (UCR-5).
    #[error("the method is not GET")]
    WrongMethod,
    /// The version is another than HTTP/1.1.
    #[error("the version is not HTTP/1.1")]
    WrongVersion,
    /// The scheme is another than http.
    #[error("the scheme is not http")]
    WrongScheme,
    /// The Request-URI has no scheme and authority (T-50).
    #[error("the Request-URI is not absolute")]
    RelativeUri,
    /// The path is neither empty nor a slash (T-50).
    #[error("the path is not empty")]
    WrongPath,
    /// Lines end without a carriage return.
    #[error("a line ends without carriage return at byte {offset}")]
    BareLineFeed {
        /// Where the line feed is.
        offset: usize,
    },
    /// No header Host (T-49).
    #[error("there is no Host")]
    NoHost,
    /// More than one header Host.
    #[error("there is more than one Host")]
    DuplicateHost,
    /// The empty line is missing behind the headers.
    #[error("the datagram of {length} bytes ends before the empty line")]
    NoBlankLine {
        /// Length of the datagram.
        length: usize,
    },
    /// The body is not as long as Content-Length or Transfer-Encoding say (RFC 2616 4.4).
    #[error("the body does not have the length that the headers say")]
    BodyLength,
    /// A field is missing.
    #[error("there is no field {0:?}")]
    MissingField(Field),
    /// A field came twice (T-52).
    #[error("there is more than one field {0:?}")]
    DuplicateField(Field),
    /// `ts` or `id` is no canonical decimal of 64 bits (T-53).
    #[error("the number in {0:?} is not canonical")]
    BadNumber(Field),
    /// A `%` without two hexadecimal digits, where the field is not what an ACS that does not encode would send (T-51).
    #[error("the encoding of {0:?} is damaged")]
    BadEncoding(Field),
    /// `sig` is not forty hexadecimal digits.
    #[error("the signature is not forty hexadecimal digits")]
    SignatureForm,
    /// `sig` has the length of SHA-256 (T-74).
    #[error("the signature has the length of SHA-256")]
    Sha256Signature,
    /// `ts` is beyond what a clock could say (SEC-5).
    #[error("the timestamp is too far ahead")]
    FutureTimestamp,
    /// `ts` counts milliseconds (T-55).
    #[error("the timestamp counts milliseconds")]
    MillisecondTimestamp,
    /// `ts` is not greater than the last accepted one (UCR-6).
    #[error("the timestamp is not newer than the last accepted one")]
    StaleTimestamp,
    /// `id` is the last accepted one (UCR-11).
    #[error("the id is that of the last accepted request")]
    SameId,
    /// `un` is not ConnectionRequestUsername (UCR-12).
    #[error("the username is another")]
    UnknownUser,
    /// ConnectionRequestUsername stands in the Request-URI as it is, and has a character that must be encoded there
    /// ([`super::must_be_encoded`]).
    #[error("the username is not encoded, and has a character that must be")]
    UnencodedName,
    /// ConnectionRequestPassword is empty (T-61).
    #[error("no password is set")]
    NoPassword,
    /// `sig` is not the signature (UCR-13).
    #[error("the signature is wrong")]
    BadSignature,
}

impl Refusal {
    /// The value of the metric's `result` label for a request that is not refused.
    pub const ACCEPTED: &'static str = "accepted";

    /// One of each kind, for those who name all labels.
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

    /// The value of the metric's `result` label.
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
