//! Errors of the STUN parser.

use thiserror::Error;

/// Reasons for which a datagram is not a valid STUN message. Offsets are from the start of the datagram, in bytes, as
/// are lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The datagram is shorter than the header.
    #[error("the datagram has {length} bytes, fewer than a STUN header")]
    Truncated {
        /// Length of the datagram.
        length: usize,
    },
    /// The message type is not defined in RFC 3489.
    #[error("message type {0:#06x} is not defined in RFC 3489")]
    UnknownType(u16),
    /// The length in the header is not that of the bytes after it.
    #[error("the header declares {declared} bytes, but {remaining} follow it")]
    Length {
        /// Length in the header.
        declared: usize,
        /// Number of bytes after the header.
        remaining: usize,
    },
    /// An attribute extends past the end of the message.
    #[error("the attribute at {offset} declares {declared} bytes, but {remaining} are left")]
    Overrun {
        /// Offset of the attribute.
        offset: usize,
        /// Length of the attribute's value; 0 if the attribute has no complete header.
        declared: usize,
        /// Number of bytes after the attribute's header.
        remaining: usize,
    },
    /// An attribute with a fixed format has another length.
    #[error("attribute {code:#06x} at {offset} has a wrong format: it declares {declared} bytes, {remaining} are left")]
    Form {
        /// Offset of the attribute.
        offset: usize,
        /// Type of the attribute.
        code: u16,
        /// Length of the attribute's value.
        declared: usize,
        /// Number of bytes after the attribute's header.
        remaining: usize,
    },
    /// The address family is not IPv4 (T-64).
    #[error("the address at {offset} has family {family}, which is not IPv4")]
    Family {
        /// Offset of the attribute.
        offset: usize,
        /// The address family; IPv4 is 1.
        family: u8,
    },
    /// The error code is not from 100 to 699.
    #[error("the error code at {offset} has class {class} and number {number}")]
    ErrorNumber {
        /// Offset of the attribute.
        offset: usize,
        /// Class: hundreds of the code.
        class: u8,
        /// Number: the code modulo 100.
        number: u8,
    },
}

impl ParseError {
    /// Value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::UnknownType(_) => "unknown_type",
            Self::Length { .. } => "bad_length",
            Self::Overrun { .. } => "attribute_overrun",
            Self::Form { .. } => "bad_attribute",
            Self::Family { .. } => "address_family",
            Self::ErrorNumber { .. } => "bad_error_code",
        }
    }
}
