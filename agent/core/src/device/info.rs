use tr111_common::config::Config;

use crate::{
    dhcp::Message,
    identity::{GatewayParts, Oui, Text, decode_gateway_parts},
};

/// `GatewayInfo`: the gateway that the device is behind. All parameters are empty if none is known (DM-12 to DM-14).
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
    /// All parameters.
    pub const ALL: [Self; 3] = [Self::ManufacturerOui, Self::ProductClass, Self::SerialNumber];

    /// Name of the parameter in its object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ManufacturerOui => "ManufacturerOUI",
            Self::ProductClass => "ProductClass",
            Self::SerialNumber => "SerialNumber",
        }
    }

    /// Path of the parameter below the root.
    pub const fn path(self) -> &'static str {
        match self {
            Self::ManufacturerOui => "GatewayInfo.ManufacturerOUI",
            Self::ProductClass => "GatewayInfo.ProductClass",
            Self::SerialNumber => "GatewayInfo.SerialNumber",
        }
    }
}

impl GatewayInfo {
    /// A gateway identity; without an OUI if that is unknown.
    pub fn new(manufacturer_oui: Option<Oui>, serial_number: Text, product_class: Text) -> Self {
        Self { manufacturer_oui, serial_number, product_class }
    }

    /// Value of a parameter; empty if it is unknown.
    pub fn get(&self, parameter: GatewayParameter) -> &str {
        match parameter {
            GatewayParameter::ManufacturerOui => self.manufacturer_oui.as_ref().map_or("", Oui::as_str),
            GatewayParameter::ProductClass => self.product_class.as_str(),
            GatewayParameter::SerialNumber => self.serial_number.as_str(),
        }
    }

    /// The parameters whose values differ.
    pub fn changes<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = GatewayParameter> + 'a {
        GatewayParameter::ALL.into_iter().filter(|parameter| self.get(*parameter) != other.get(*parameter))
    }

    /// The Gateway Identity in a reply; missing elements are empty (DEV-5).
    ///
    /// `None` if the reply has no information about the gateway: it has no element of enterprise 3561, or the server
    /// echoed the device's own identity (DEV-3). An empty element of 3561 means that there is no gateway identity.
    pub(super) fn of(reply: &Message<'_>, config: &Config) -> Option<Self> {
        let option = reply.vendor_identifying()?;
        // A refused identity counts as none.
        let GatewayParts { manufacturer_oui, serial_number, product_class } =
            decode_gateway_parts(&option, config).unwrap_or_default()?;
        Some(Self { manufacturer_oui, serial_number, product_class })
    }
}
