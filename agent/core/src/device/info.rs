use tr111_common::config::Config;

use crate::{
    dhcp::Message,
    identity::{GatewayParts, Oui, Text, decode_gateway_parts},
};

/// `GatewayInfo`: the gateway that the device is behind; all empty where none is known (DM-12 to DM-14).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayInfo {
    manufacturer_oui: Option<Oui>,
    serial_number: Text,
    product_class: Text,
}

/// A parameter of `GatewayInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayParameter {
    /// `GatewayInfo.ManufacturerOUI`
    ManufacturerOui,
    /// `GatewayInfo.ProductClass`
    ProductClass,
    /// `GatewayInfo.SerialNumber`
    SerialNumber,
}

impl GatewayParameter {
    /// Every parameter.
    pub const ALL: [Self; 3] = [Self::ManufacturerOui, Self::ProductClass, Self::SerialNumber];

    /// The name of the parameter in its object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ManufacturerOui => "ManufacturerOUI",
            Self::ProductClass => "ProductClass",
            Self::SerialNumber => "SerialNumber",
        }
    }

    /// The path below the root.
    pub const fn path(self) -> &'static str {
        match self {
            Self::ManufacturerOui => "GatewayInfo.ManufacturerOUI",
            Self::ProductClass => "GatewayInfo.ProductClass",
            Self::SerialNumber => "GatewayInfo.SerialNumber",
        }
    }
}

impl GatewayInfo {
    /// A gateway of these parts; without OUI where it is not known.
    pub fn new(manufacturer_oui: Option<Oui>, serial_number: Text, product_class: Text) -> Self {
        Self { manufacturer_oui, serial_number, product_class }
    }

    /// The value of a parameter.
    pub fn get(&self, parameter: GatewayParameter) -> &str {
        match parameter {
            GatewayParameter::ManufacturerOui => self.manufacturer_oui.as_ref().map_or("", Oui::as_str),
            GatewayParameter::ProductClass => self.product_class.as_str(),
            GatewayParameter::SerialNumber => self.serial_number.as_str(),
        }
    }

    /// Parameters whose values differ.
    pub fn changes<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = GatewayParameter> + 'a {
        GatewayParameter::ALL.into_iter().filter(|parameter| self.get(*parameter) != other.get(*parameter))
    }

    /// The Gateway Identity of a reply, elements that are missing as empty texts (DEV-5).
    ///
    /// `None`: the reply says nothing of a gateway. It has no element of enterprise 3561, or a server gave the
    /// device's own identity back (DEV-3). An element without anything in it says that there is no gateway.
    pub(super) fn of(reply: &Message<'_>, config: &Config) -> Option<Self> {
        let option = reply.vendor_identifying()?;
        // An identity that is refused is none.
        let GatewayParts { manufacturer_oui, serial_number, product_class } =
            decode_gateway_parts(&option, config).unwrap_or_default()?;
        Some(Self { manufacturer_oui, serial_number, product_class })
    }
}
