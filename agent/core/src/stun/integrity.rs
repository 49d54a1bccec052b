//! MESSAGE-INTEGRITY (RFC 3489 11.2.8) in the forms that are in the field (T-19).

use std::{fmt, str::FromStr};

use thiserror::Error;
use tr111_common::stun::{ATTRIBUTE_HEADER, HEADER};

use crate::secret::{DIGEST, SharedSecret, Signature};

const BLOCK: usize = 64;

/// How a sender computes MESSAGE-INTEGRITY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Variant {
    /// RFC 3489's: the length counts MESSAGE-INTEGRITY, and zeros fill the text to a multiple of 64 bytes.
    A = 1,
    /// RFC 5389's: the length counts MESSAGE-INTEGRITY, and nothing is filled.
    B = 2,
    /// Of the servers that descend from Vovida's: the length is 0, and nothing is filled.
    E = 4,
}

impl Variant {
    const ALL: [Self; 3] = [Self::A, Self::B, Self::E];

    /// The letter by which configuration and metrics name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::E => "E",
        }
    }
}

/// A set of [`Variant`]s to accept; written `A,B,E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variants(u8);

impl Variants {
    /// RFC 3489's alone.
    pub const STRICT: Self = Self(Variant::A as u8);
    /// All three.
    pub const FIELD: Self = Self(Variant::A as u8 | Variant::B as u8 | Variant::E as u8);

    /// The members, RFC 3489's first.
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

/// A text is no set of [`Variant`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("write A, B and E, with commas between them")]
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

/// Why a message is not authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IntegrityError {
    /// There is no MESSAGE-INTEGRITY.
    #[error("the message has no MESSAGE-INTEGRITY")]
    Missing,
    /// It is that of another message or of another password.
    #[error("MESSAGE-INTEGRITY is wrong")]
    Mismatch,
}

impl IntegrityError {
    /// The value of the metric's `result` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "unsigned",
            Self::Mismatch => "bad_integrity",
        }
    }
}

/// The digest over `message`, which ends where MESSAGE-INTEGRITY begins.
pub(super) fn digest(secret: &SharedSecret, message: &[u8], variant: Variant) -> [u8; DIGEST] {
    hmac(secret, message, variant).finish()
}

/// Whether `digest` is that of `message`, compared in constant time.
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
    // A message fits a datagram, so its length fits 16 bits.
    signature.cover(&(length as u16).to_be_bytes());
    signature.cover(&message[4..]);
    signature.cover(&[0; BLOCK][..fill]);
    signature
}
