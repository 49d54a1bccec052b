//! Conversion between option 125 and identities.

use thiserror::Error;
use tr111_common::{
    config::Config,
    frame::PlainLoop,
    identity::{DSL_FORUM, Refusal, Scan, Span, TEXT_MAXIMUM, sub_option},
};

use super::{DeviceIdentity, GatewayIdentity, Oui, Text};

/// Reasons for which an option 125 has no valid identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// A reason that the kernel programs check, too.
    #[error("no identity: {}", .0.label())]
    Refused(Refusal),
    /// The serial number or the product class is not UTF-8 (SEC-9).
    #[error("serial number or product class is not UTF-8")]
    NotUtf8,
}

impl IdentityError {
    /// Value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.label(),
            Self::NotUtf8 => "not_utf8",
        }
    }
}

impl From<Refusal> for IdentityError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Deviations that were tolerated in an accepted identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Trailing NULs were removed (T-18).
    pub nul_stripped: bool,
    /// A sub-option occurred twice; the first value is used (T-19a).
    pub duplicate: bool,
    /// The option has the layout of TR-124 (T-21).
    pub dialect_tr124: bool,
}

/// An accepted Device Identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The identity.
    pub identity: DeviceIdentity,
    /// The tolerated deviations.
    pub notes: Notes,
}

/// Decodes the Device Identity in a joined option 125 (RFC 3396), without code and length.
pub fn decode_device(option: &[u8], config: &Config) -> Result<Decoded, IdentityError> {
    conclude(&scan(option, config), option, config)
}

/// The Device Identity that a scan over `option` found.
pub(crate) fn conclude(scan: &Scan, option: &[u8], config: &Config) -> Result<Decoded, IdentityError> {
    let found = scan.conclude(config)?;
    let identity = DeviceIdentity {
        manufacturer_oui: Oui::from_digits(found.oui).map_err(|_| Refusal::BadOui)?,
        serial_number: text(option, found.serial_number)?,
        product_class: text(option, found.product_class)?,
    };
    let notes =
        Notes { nul_stripped: scan.has_trailing_nul(), duplicate: scan.has_duplicate(), dialect_tr124: found.tr124 };
    Ok(Decoded { identity, notes })
}

/// Decodes the Gateway Identity in a joined option 125 (RFC 3396), without code and length.
///
/// OUI and serial number are required (OPT-10); the product class may be missing (OPT-11).
pub fn decode_gateway(option: &[u8], config: &Config) -> Result<GatewayIdentity, IdentityError> {
    let scan = scan(option, config);
    if !scan.is_present() {
        return Err(Refusal::Absent.into());
    }
    let GatewayParts { manufacturer_oui, serial_number, product_class } = gateway_parts(&scan, option)?;
    match manufacturer_oui {
        Some(manufacturer_oui) if !serial_number.is_empty() => {
            Ok(GatewayIdentity { manufacturer_oui, serial_number, product_class })
        }
        _ => Err(Refusal::Incomplete.into()),
    }
}

/// The elements of a Gateway Identity in a reply; missing ones are empty (DEV-5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayParts {
    /// Manufacturer OUI.
    pub manufacturer_oui: Option<Oui>,
    /// Serial number.
    pub serial_number: Text,
    /// Product class.
    pub product_class: Text,
}

/// Decodes the present elements of a Gateway Identity in a joined option 125, without code and length.
///
/// `None` if the option has no information about a gateway: it has no element of enterprise 3561, an echo of the
/// device's own identity (DEV-3), or a damaged element. An empty element of 3561 gives empty parts.
pub fn decode_gateway_parts(option: &[u8], config: &Config) -> Result<Option<GatewayParts>, IdentityError> {
    let scan = scan(option, config);
    if scan.has_gateway_part() {
        return gateway_parts(&scan, option).map(Some);
    }
    let echo =
        [sub_option::DEVICE_MANUFACTURER_OUI, sub_option::DEVICE_SERIAL_NUMBER, sub_option::DEVICE_PRODUCT_CLASS]
            .into_iter()
            .any(|code| scan.span(code).is_some());
    let empty = scan.element_length_at().is_some() && !echo && !scan.is_damaged();
    Ok(empty.then(GatewayParts::default))
}

fn gateway_parts(scan: &Scan, option: &[u8]) -> Result<GatewayParts, IdentityError> {
    let part = |code| text(option, scan.span(code).unwrap_or_default());
    let oui = part(sub_option::GATEWAY_MANUFACTURER_OUI)?;
    let oui = Some(oui).filter(|oui| !oui.is_empty());
    Ok(GatewayParts {
        manufacturer_oui: oui.map(|oui| oui.as_str().parse()).transpose().map_err(|_| Refusal::BadOui)?,
        serial_number: part(sub_option::GATEWAY_SERIAL_NUMBER)?,
        product_class: part(sub_option::GATEWAY_PRODUCT_CLASS)?,
    })
}

impl DeviceIdentity {
    /// Value of option 125 with this identity, without code and length; at most 145 bytes.
    pub fn encode(&self) -> Vec<u8> {
        element([
            (sub_option::DEVICE_MANUFACTURER_OUI, self.manufacturer_oui.as_str()),
            (sub_option::DEVICE_SERIAL_NUMBER, self.serial_number.as_str()),
            (sub_option::DEVICE_PRODUCT_CLASS, self.product_class.as_str()),
        ])
    }
}

impl GatewayIdentity {
    /// Value of option 125 with this identity, without code and length; at most 145 bytes.
    pub fn encode(&self) -> Vec<u8> {
        element([
            (sub_option::GATEWAY_MANUFACTURER_OUI, self.manufacturer_oui.as_str()),
            (sub_option::GATEWAY_SERIAL_NUMBER, self.serial_number.as_str()),
            (sub_option::GATEWAY_PRODUCT_CLASS, self.product_class.as_str()),
        ])
    }
}

/// An element with these sub-options; an empty product class is omitted (T-14).
fn element(parts: [(u8, &str); 3]) -> Vec<u8> {
    let mut element = DSL_FORUM.to_be_bytes().to_vec();
    element.push(0);
    for (code, text) in parts {
        // An empty product class is omitted (OPT-9, OPT-11); OUI and serial number are not.
        if text.is_empty() && matches!(code, sub_option::DEVICE_PRODUCT_CLASS | sub_option::GATEWAY_PRODUCT_CLASS) {
            continue;
        }
        // A `Text` has at most 64 bytes, so all lengths fit into one byte.
        element.extend([code, text.len() as u8]);
        element.extend(text.as_bytes());
    }
    element[4] = (element.len() - 5) as u8;
    element
}

fn scan(option: &[u8], config: &Config) -> Scan {
    // A UDP datagram cannot have more bytes; the scan has 16-bit offsets.
    let end = option.len().min(usize::from(u16::MAX)) as u32;
    let mut scan = Scan::new();
    scan.read(option, end, config, PlainLoop);
    scan
}

fn text(option: &[u8], span: Span) -> Result<Text, IdentityError> {
    let start = usize::from(span.start);
    let bytes = option.get(start..start + usize::from(span.length)).unwrap_or_default();
    if span.length > TEXT_MAXIMUM {
        return Err(Refusal::TooLong.into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| IdentityError::NotUtf8)?;
    // The scan checks single bytes; U+0080 to U+009F are control characters of two bytes.
    text.parse().map_err(|_| Refusal::ControlCharacter.into())
}
