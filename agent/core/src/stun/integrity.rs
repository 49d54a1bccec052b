//! MESSAGE-INTEGRITY (RFC 3489 11.2.8), in the variants that are in use (T-19).

use std::{fmt, str::FromStr};

use thiserror::Error;
use tr111_common::stun::{ATTRIBUTE_HEADER, HEADER};

use crate::secret::{DIGEST, SharedSecret, Signature};

const BLOCK: usize = 64;

/// A way to compute MESSAGE-INTEGRITY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Variant {
    /// RFC 3489: the length field includes MESSAGE-INTEGRITY, and the text is zero-padded to a multiple of 64 bytes.
    A = 1,
    /// RFC 5389: the length field includes MESSAGE-INTEGRITY, and the text is not padded.
    B = 2,
    /// Servers derived from the Vovida server: the length field is 0, and the text is not padded.
    E = 4,
}

impl Variant {
    const ALL: [Self; 3] = [Self::A, Self::B, Self::E];

    /// Letter in configuration and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::E => "E",
        }
    }
}

/// A set of accepted [`Variant`]s; as text, for example `A,B,E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variants(u8);

impl Variants {
    /// Only the variant of RFC 3489.
    pub const STRICT: Self = Self(Variant::A as u8);
    /// All variants.
    pub const FIELD: Self = Self(Variant::A as u8 | Variant::B as u8 | Variant::E as u8);

    /// The variants in the set, that of RFC 3489 first.
    pub fn iter(self) -> impl Iterator<Item = Variant> {
        Variant::ALL.into_iter().filter(move |&variant| self.0 & variant as u8 != 0)
    }
}

impl From<Variant> for Variants {
    fn from(variant: Variant) -> Self {
        Self(variant as u8)
    }
}

impl fmt::Display for Variants {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, variant) in self.iter().enumerate() {
            formatter.write_str(if position == 0 { "" } else { "," })?;
            formatter.write_str(variant.label())?;
        }
        Ok(())
    }
}

/// Error: the text is not a set of [`Variant`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected A, B and E, separated by commas")]
pub struct NotVariants;

impl FromStr for Variants {
    type Err = NotVariants;

    fn from_str(text: &str) -> Result<Self, NotVariants> {
        text.split(',').try_fold(Self(0), |Self(set), letter| {
            let named = |variant: &Variant| letter.trim().eq_ignore_ascii_case(variant.label());
            let variant = Variant::ALL.into_iter().find(named).ok_or(NotVariants)?;
            Ok(Self(set | variant as u8))
        })
    }
}

/// Reasons for which a message is not authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IntegrityError {
    /// The message has no MESSAGE-INTEGRITY.
    #[error("the message has no MESSAGE-INTEGRITY")]
    Missing,
    /// MESSAGE-INTEGRITY does not match the message and the password.
    #[error("MESSAGE-INTEGRITY is wrong")]
    Mismatch,
}

impl IntegrityError {
    /// Value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "unsigned",
            Self::Mismatch => "bad_integrity",
        }
    }
}

/// The HMAC over `message`, which ends before MESSAGE-INTEGRITY.
pub(super) fn digest(secret: &SharedSecret, message: &[u8], variant: Variant) -> [u8; DIGEST] {
    hmac(secret, message, variant).finish()
}

/// Whether `digest` is the HMAC over `message`; compared in constant time.
pub(super) fn verifies(secret: &SharedSecret, message: &[u8], variant: Variant, digest: &[u8; DIGEST]) -> bool {
    hmac(secret, message, variant).verifies(digest)
}

fn hmac(secret: &SharedSecret, message: &[u8], variant: Variant) -> Signature {
    let length = match variant {
        Variant::A | Variant::B => message.len() - HEADER + ATTRIBUTE_HEADER + DIGEST,
        Variant::E => 0,
    };
    let fill = match variant {
        Variant::A => message.len().next_multiple_of(BLOCK) - message.len(),
        Variant::B | Variant::E => 0,
    };
    let mut signature = secret.signature();
    signature.cover(&message[..2]);
    // A message fits into a datagram, so its length has 16 bits.
    signature.cover(&(length as u16).to_be_bytes());
    signature.cover(&message[4..]);
    signature.cover(&[0; BLOCK][..fill]);
    signature
}
