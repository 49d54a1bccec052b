//! Device and Gateway Identity (TR-111 1.2.5).
//!
//! Identities from the LAN may be chosen by an attacker, and are passed on to XML, terminals and logs (SEC-9). [`Oui`]
//! and [`Text`] can only hold validated values, so their users need no further checks.

mod codec;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use codec::conclude;
pub use codec::{Decoded, GatewayParts, IdentityError, Notes, decode_device, decode_gateway, decode_gateway_parts};

use std::{fmt, str::FromStr};

use thiserror::Error;
use tr111_common::identity::TEXT_MAXIMUM;

use crate::short::Short;

/// A manufacturer OUI: six upper-case hexadecimal digits (DM-5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oui([u8; 6]);

/// Error: the text is not six hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an OUI is six hexadecimal digits, such as 00256D")]
pub struct OuiError;

impl Oui {
    /// An OUI of six hexadecimal digits in upper or lower case.
    pub fn from_digits(digits: [u8; 6]) -> Result<Self, OuiError> {
        if digits.iter().all(u8::is_ascii_hexdigit) {
            Ok(Self(digits.map(|d| d.to_ascii_uppercase())))
        } else {
            Err(OuiError)
        }
    }

    /// The six digits.
    pub fn as_str(&self) -> &str {
        // Hexadecimal digits are ASCII, so the default is never used.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Oui {
    type Err = OuiError;

    fn from_str(text: &str) -> Result<Self, OuiError> {
        Self::from_digits(text.as_bytes().try_into().map_err(|_| OuiError)?)
    }
}

impl fmt::Display for Oui {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Oui {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Oui({})", self.as_str())
    }
}

/// A serial number or product class: at most 64 bytes of UTF-8 without control characters (DM-6, DM-7, SEC-9).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Short);

/// Reasons for which a string is not a valid [`Text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// The string has more than 64 bytes.
    #[error("{length} bytes; at most {TEXT_MAXIMUM} are allowed")]
    TooLong {
        /// Length of the string in bytes.
        length: usize,
    },
    /// The string has a control character.
    #[error("a control character at byte {offset}")]
    ControlCharacter {
        /// Offset of the character in bytes.
        offset: usize,
    },
}

impl Text {
    /// The text as a string.
    pub fn as_str(&self) -> &str {
        // The bytes come from a string, so the default is never used.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the text is empty, as a missing product class is (DM-7).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Text {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        if text.len() > usize::from(TEXT_MAXIMUM) {
            return Err(TextError::TooLong { length: text.len() });
        }
        match text.char_indices().find(|(_, character)| character.is_control()) {
            Some((offset, _)) => Err(TextError::ControlCharacter { offset }),
            None => Ok(Self(text.as_bytes().into())),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Text({:?})", self.as_str())
    }
}

/// The identity of a device: the unique key of its ManageableDevice row. All elements are compared exactly (T-15).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceIdentity {
    /// Manufacturer OUI.
    pub manufacturer_oui: Oui,
    /// Serial number; never empty if it was received (OPT-8).
    pub serial_number: Text,
    /// Product class; empty if the device sends none.
    pub product_class: Text,
}

/// The identity of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayIdentity {
    /// Manufacturer OUI.
    pub manufacturer_oui: Oui,
    /// Serial number.
    pub serial_number: Text,
    /// Product class; empty if the gateway has none.
    pub product_class: Text,
}

impl fmt::Display for DeviceIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(formatter, self.manufacturer_oui, &self.serial_number, &self.product_class)
    }
}

impl fmt::Display for GatewayIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(formatter, self.manufacturer_oui, &self.serial_number, &self.product_class)
    }
}

/// Writes `OUI-ProductClass-SerialNumber`, or `OUI-SerialNumber` without a product class, as CWMP identifies devices.
fn display(formatter: &mut fmt::Formatter<'_>, oui: Oui, serial: &Text, class: &Text) -> fmt::Result {
    write!(formatter, "{oui}-")?;
    if !class.is_empty() {
        write!(formatter, "{class}-")?;
    }
    write!(formatter, "{serial}")
}
