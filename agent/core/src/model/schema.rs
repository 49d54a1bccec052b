//! The parameters of the data model.

use super::{Fault, Kind, Root, Value};
use crate::device::GatewayParameter;

/// Placeholder for an instance number in a path.
pub(super) const INSTANCE: &str = "{i}";

/// Path of the number of rows, below the root.
pub(super) const NUMBER_OF_ENTRIES: &str = "ManagementServer.ManageableDeviceNumberOfEntries";

/// Path of the address for UDP Connection Requests, below the root.
pub(super) const UDP_CONNECTION_REQUEST_ADDRESS: &str = "ManagementServer.UDPConnectionRequestAddress";

/// Path of the NAT detection, below the root.
pub(super) const NAT_DETECTED: &str = "ManagementServer.NATDetected";

/// `DeviceSummary`: the version of the data model, and the profiles that are supported completely (GW-15, DM-30; TR-098
/// 2.4.1, TR-106 2.2). A CWMP client with further profiles has to merge the lists. Device:2 has no such parameter.
pub(super) const fn device_summary(side: Side, root: Root) -> &'static str {
    match (side, root) {
        (Side::Gateway, Root::Igd) => "InternetGatewayDevice:1.2[](DeviceAssociation:1, UDPConnReq:1)",
        (Side::Device, Root::Igd) => "InternetGatewayDevice:1.2[](UDPConnReq:1)",
        (_, Root::Device1) => "Device:1.1[](UDPConnReq:1)",
        (_, Root::Device2) => "",
    }
}

/// A parameter of the schema.
#[derive(Debug)]
pub(super) struct Entry {
    /// Path below the root, with [`INSTANCE`] for instance numbers; at most one table.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) writable: bool,
    pub(super) leaf: Leaf,
    /// Roots below which gateways have the parameter.
    gateway: &'static [Root],
    /// Roots below which devices have the parameter.
    device: &'static [Root],
}

/// The value that a parameter represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    DeviceSummary,
    ManufacturerOui,
    SerialNumber,
    ProductClass,
    NumberOfEntries,
    Url,
    ConnectionRequestUsername,
    ConnectionRequestPassword,
    UdpConnectionRequestAddress,
    UdpConnectionRequestAddressNotificationLimit,
    StunEnable,
    StunServerAddress,
    StunServerPort,
    StunUsername,
    StunPassword,
    StunMaximumKeepAlivePeriod,
    StunMinimumKeepAlivePeriod,
    NatDetected,
    NotificationLimit,
    DeviceManufacturerOui,
    DeviceSerialNumber,
    DeviceProductClass,
    GatewayInfo(GatewayParameter),
}

/// The two kinds of devices in TR-111 Part 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A gateway, with a table of the devices behind it.
    Gateway,
    /// A device behind a gateway.
    Device,
}

/// A validated write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `ManageableDeviceNotificationLimit`, in seconds (DM-3).
    NotificationLimit(u32),
    /// `URL` of the ACS.
    Url(String),
    /// `ConnectionRequestUsername`.
    ConnectionRequestUsername(String),
    /// `ConnectionRequestPassword`, which reads as an empty string.
    ConnectionRequestPassword(String),
    /// `UDPConnectionRequestAddressNotificationLimit`, in seconds (DM-21).
    UdpConnectionRequestAddressNotificationLimit(u32),
    /// `STUNEnable` (DM-22).
    StunEnable(bool),
    /// `STUNServerAddress` (DM-23).
    StunServerAddress(String),
    /// `STUNServerPort` (DM-24).
    StunServerPort(u16),
    /// `STUNUsername` (DM-25).
    StunUsername(String),
    /// `STUNPassword`, which reads as an empty string (DM-26).
    StunPassword(String),
    /// `STUNMaximumKeepAlivePeriod` in seconds; -1 for no maximum (DM-27).
    StunMaximumKeepAlivePeriod(i32),
    /// `STUNMinimumKeepAlivePeriod`, in seconds (DM-28).
    StunMinimumKeepAlivePeriod(u32),
}

/// Longest writable string in bytes (TR-098 and TR-111 Table 6: `string(256)`).
const STRING_MAXIMUM: usize = 256;

const ALL: &[Root] = &[Root::Igd, Root::Device1, Root::Device2];
/// Root objects of gateways.
const GATEWAY: &[Root] = &[Root::Igd, Root::Device2];

/// A read-only parameter that neither gateways nor devices have yet.
const fn read_only(path: &'static str, kind: Kind, leaf: Leaf) -> Entry {
    Entry { path, kind, writable: false, leaf, gateway: &[], device: &[] }
}

const fn writable(path: &'static str, kind: Kind, leaf: Leaf) -> Entry {
    Entry { writable: true, ..read_only(path, kind, leaf) }
}

impl Entry {
    const fn gateway(mut self, roots: &'static [Root]) -> Self {
        self.gateway = roots;
        self
    }

    const fn device(mut self, roots: &'static [Root]) -> Self {
        self.device = roots;
        self
    }

    /// Adds the parameter to gateways and devices.
    const fn both(self) -> Self {
        self.gateway(GATEWAY).device(ALL)
    }
}

/// Parameters of one object, and of one table, have to be adjacent.
const SCHEMA: &[Entry] = &[
    // Device:2 has no such parameter, and its DeviceAssociation:1 requires `Host` as well.
    read_only("DeviceSummary", Kind::String, Leaf::DeviceSummary)
        .gateway(&[Root::Igd])
        .device(&[Root::Igd, Root::Device1]),
    read_only("DeviceInfo.ManufacturerOUI", Kind::String, Leaf::ManufacturerOui).gateway(ALL).device(ALL),
    read_only("DeviceInfo.SerialNumber", Kind::String, Leaf::SerialNumber).gateway(ALL).device(ALL),
    read_only("DeviceInfo.ProductClass", Kind::String, Leaf::ProductClass).gateway(ALL).device(ALL),
    writable("ManagementServer.URL", Kind::String, Leaf::Url).both(),
    writable("ManagementServer.ConnectionRequestUsername", Kind::String, Leaf::ConnectionRequestUsername).both(),
    writable("ManagementServer.ConnectionRequestPassword", Kind::String, Leaf::ConnectionRequestPassword).both(),
    // TR-111 Table 6.
    read_only(UDP_CONNECTION_REQUEST_ADDRESS, Kind::String, Leaf::UdpConnectionRequestAddress).both(),
    writable(
        "ManagementServer.UDPConnectionRequestAddressNotificationLimit",
        Kind::UnsignedInt,
        Leaf::UdpConnectionRequestAddressNotificationLimit,
    )
    .both(),
    writable("ManagementServer.STUNEnable", Kind::Boolean, Leaf::StunEnable).both(),
    writable("ManagementServer.STUNServerAddress", Kind::String, Leaf::StunServerAddress).both(),
    writable("ManagementServer.STUNServerPort", Kind::UnsignedInt, Leaf::StunServerPort).both(),
    writable("ManagementServer.STUNUsername", Kind::String, Leaf::StunUsername).both(),
    writable("ManagementServer.STUNPassword", Kind::String, Leaf::StunPassword).both(),
    writable("ManagementServer.STUNMaximumKeepAlivePeriod", Kind::Int, Leaf::StunMaximumKeepAlivePeriod).both(),
    writable("ManagementServer.STUNMinimumKeepAlivePeriod", Kind::UnsignedInt, Leaf::StunMinimumKeepAlivePeriod).both(),
    read_only(NAT_DETECTED, Kind::Boolean, Leaf::NatDetected).both(),
    read_only(NUMBER_OF_ENTRIES, Kind::UnsignedInt, Leaf::NumberOfEntries).gateway(GATEWAY),
    // T-33: not in the profile DeviceAssociation:1, although TR-111 1.2.1 needs it.
    writable("ManagementServer.ManageableDeviceNotificationLimit", Kind::UnsignedInt, Leaf::NotificationLimit)
        .gateway(GATEWAY),
    read_only("ManagementServer.ManageableDevice.{i}.ManufacturerOUI", Kind::String, Leaf::DeviceManufacturerOui)
        .gateway(GATEWAY),
    read_only("ManagementServer.ManageableDevice.{i}.SerialNumber", Kind::String, Leaf::DeviceSerialNumber)
        .gateway(GATEWAY),
    read_only("ManagementServer.ManageableDevice.{i}.ProductClass", Kind::String, Leaf::DeviceProductClass)
        .gateway(GATEWAY),
    gateway_info(GatewayParameter::ManufacturerOui),
    gateway_info(GatewayParameter::ProductClass),
    gateway_info(GatewayParameter::SerialNumber),
];

const fn gateway_info(parameter: GatewayParameter) -> Entry {
    read_only(parameter.path(), Kind::String, Leaf::GatewayInfo(parameter)).device(ALL)
}

/// The parameters of this side below this root.
pub(super) fn entries(side: Side, root: Root) -> impl Iterator<Item = &'static Entry> {
    SCHEMA.iter().filter(move |entry| match side {
        Side::Gateway => entry.gateway.contains(&root),
        Side::Device => entry.device.contains(&root),
    })
}

impl Entry {
    /// The names in the path.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('.')
    }

    /// Position of the instance number among the names.
    pub(super) fn instance_at(&self) -> Option<usize> {
        self.parts().position(|part| part == INSTANCE)
    }

    /// Path of the table that contains the parameter, with its dot.
    pub(super) fn table(&self) -> Option<&'static str> {
        self.path.split_once(INSTANCE).map(|(table, _)| table)
    }
}

impl Leaf {
    /// Whether a CPE may refuse Active notification (TR-111 1.2.6.1, table 3).
    pub(super) fn may_refuse_active(self) -> bool {
        matches!(self, Self::DeviceManufacturerOui | Self::DeviceSerialNumber | Self::DeviceProductClass)
    }

    /// Whether the parameter always reads as an empty string (TR-069).
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, Self::ConnectionRequestPassword | Self::StunPassword)
    }

    /// The setting for a value of the right type; `None` for a parameter that cannot be set.
    pub(super) fn setting(self, value: Value) -> Option<Result<Setting, Fault>> {
        let out_of_range = Fault::InvalidParameterValue;
        Some(match (self, value) {
            (Self::NotificationLimit, Value::UnsignedInt(seconds)) => Ok(Setting::NotificationLimit(seconds)),
            (Self::UdpConnectionRequestAddressNotificationLimit, Value::UnsignedInt(seconds)) => {
                Ok(Setting::UdpConnectionRequestAddressNotificationLimit(seconds))
            }
            (Self::StunEnable, Value::Boolean(on)) => Ok(Setting::StunEnable(on)),
            (Self::StunServerPort, Value::UnsignedInt(port)) => {
                u16::try_from(port).map(Setting::StunServerPort).map_err(|_| out_of_range)
            }
            (Self::StunMaximumKeepAlivePeriod, Value::Int(seconds)) if seconds < -1 => Err(out_of_range),
            (Self::StunMaximumKeepAlivePeriod, Value::Int(seconds)) => Ok(Setting::StunMaximumKeepAlivePeriod(seconds)),
            (Self::StunMinimumKeepAlivePeriod, Value::UnsignedInt(seconds)) => {
                Ok(Setting::StunMinimumKeepAlivePeriod(seconds))
            }
            (leaf, Value::String(text)) => {
                let setting = match leaf {
                    Self::Url => Setting::Url,
                    Self::ConnectionRequestUsername => Setting::ConnectionRequestUsername,
                    Self::ConnectionRequestPassword => Setting::ConnectionRequestPassword,
                    Self::StunServerAddress => Setting::StunServerAddress,
                    Self::StunUsername => Setting::StunUsername,
                    Self::StunPassword => Setting::StunPassword,
                    _ => return None,
                };
                if text.len() > STRING_MAXIMUM { Err(out_of_range) } else { Ok(setting(text)) }
            }
            _ => return None,
        })
    }
}
