//! Devices that the operator excludes from the table (GW-16).

use std::{fmt, str::FromStr};

use crate::{
    dhcp::HardwareAddress,
    identity::{DeviceIdentity, Oui, Text},
};

/// A rule that excludes devices: by identity or by hardware address.
///
/// The text form is `OUI/SERIAL` for any product class, `OUI/SERIAL/CLASS` for this class (empty for devices without
/// one), or a hardware address such as `02:00:00:00:00:01`. In serial number and class, `%2F` stands for a slash, `%2C`
/// for a comma and `%25` for a per cent sign (RFC 3986 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deny {
    /// A device identity.
    Identity {
        /// Manufacturer OUI.
        manufacturer_oui: Oui,
        /// Serial number.
        serial_number: Text,
        /// Product class; `None` for any.
        product_class: Option<Text>,
    },
    /// A hardware address.
    Address([u8; 6]),
}

/// Error: the text is not a valid rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected OUI/SERIAL, OUI/SERIAL/CLASS or a MAC address")]
pub struct DenyError;

impl Deny {
    /// Whether the rule excludes this device.
    pub fn matches(&self, identity: &DeviceIdentity, mac: &HardwareAddress) -> bool {
        match self {
            Self::Identity { manufacturer_oui, serial_number, product_class } => {
                *manufacturer_oui == identity.manufacturer_oui
                    && *serial_number == identity.serial_number
                    && product_class.as_ref().is_none_or(|class| *class == identity.product_class)
            }
            Self::Address(address) => mac.as_bytes() == address,
        }
    }
}

impl FromStr for Deny {
    type Err = DenyError;

    fn from_str(text: &str) -> Result<Self, DenyError> {
        if !text.contains('/') {
            let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2));
            let bytes: Option<Vec<u8>> = bytes.collect();
            return bytes.and_then(|bytes| bytes.try_into().ok()).map(Self::Address).ok_or(DenyError);
        }
        let mut parts = text.split('/');
        let mut next = || parts.next().map(decoded).transpose();
        let (oui, serial, class) = (next()?.unwrap_or_default(), next()?.unwrap_or_default(), next()?);
        if serial.is_empty() || parts.next().is_some() {
            return Err(DenyError);
        }
        Ok(Self::Identity {
            manufacturer_oui: oui.parse().map_err(|_| DenyError)?,
            serial_number: serial.parse().map_err(|_| DenyError)?,
            product_class: class.map(|class| class.parse().map_err(|_| DenyError)).transpose()?,
        })
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity { manufacturer_oui, serial_number, product_class } => {
                write!(f, "{manufacturer_oui}/{}", encoded(serial_number))?;
                product_class.as_ref().map_or(Ok(()), |class| write!(f, "/{}", encoded(class)))
            }
            Self::Address(mac) => HardwareAddress::from(*mac).fmt(f),
        }
    }
}

fn encoded(text: &Text) -> String {
    text.as_str().replace('%', "%25").replace('/', "%2F").replace(',', "%2C")
}

fn decoded(text: &str) -> Result<String, DenyError> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or(DenyError)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| DenyError)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| DenyError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_read_and_written_alike() {
        for text in
            ["00256D/DEV0001", "00256D/DEV0001/STB", "00256D/DEV0001/", "02:00:00:00:00:0a", "00256D/a%2Fb%2C%25/c"]
        {
            assert_eq!(text.parse::<Deny>().map(|deny| deny.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("00256d/A".parse::<Deny>(), "00256D/A".parse());
        for wrong in [
            "",
            "00256D",
            "00256D/",
            "GG256D/A",
            "00256D/A/B/C",
            "02:00:00:00:00",
            "2:0:0:0:0:1",
            "00256D/%2",
            "00256D/%ff",
        ] {
            assert_eq!(wrong.parse::<Deny>(), Err(DenyError), "{wrong}");
        }
    }
}
