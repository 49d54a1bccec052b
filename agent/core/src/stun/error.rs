//! Why bytes are not a STUN message.

use thiserror::Error;

/// Why a datagram is not a STUN message. Offsets count from the start of the datagram, lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// There is no room for the header.
    #[error("{length} bytes are too few for a STUN header")]
    Truncated {
        /// Length of the datagram.
        length: usize,
    },
    /// The message type is none of RFC 3489's.
    #[error("no message of RFC 3489 has type {0:#06x}")]
    UnknownType(u16),
    /// The header's length is not that of what follows.
    #[error("the header declares {declared} bytes, and {remaining} follow it")]
    Length {
        /// What the header says.
        declared: usize,
        /// What follows the header.
        remaining: usize,
    },
    /// An attribute is longer than what is left of the message.
    #[error("the attribute at {offset} declares {declared} bytes, and {remaining} are left")]
    Overrun {
        /// Start of the attribute.
        offset: usize,
        /// What its length says; 0 where there is no room for a length.
        declared: usize,
        /// What is left behind its header.
        remaining: usize,
    },
    /// An attribute of fixed form has another length.
    #[error(
        "attribute {code:#06x} at {offset} declares {declared} bytes, {remaining} are left, and its form is another"
    )]
    Form {
        /// Start of the attribute.
        offset: usize,
        /// Type of the attribute.
        code: u16,
        /// What its length says.
        declared: usize,
        /// What is left behind its header.
        remaining: usize,
    },
    /// An address is not of IPv4 (T-64).
    #[error("the address at {offset} has family {family}")]
    Family {
        /// Start of the attribute.
        offset: usize,
        /// The family; IPv4 is 1.
        family: u8,
    },
    /// An ERROR-CODE outside 100 to 699.
    #[error("the error code at {offset} has class {class} and number {number}")]
    ErrorNumber {
        /// Start of the attribute.
        offset: usize,
        /// Hundreds.
        class: u8,
        /// The rest.
        number: u8,
    },
}

impl ParseError {
    /// The value of the metric's `result` label.
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
