//! Which parameters there are.

use super::{Fault, Kind, Root, Value};
use crate::device::GatewayParameter;

/// Stands for an instance number in a path.
pub(super) const INSTANCE: &str = "{i}";

/// The number of rows, below a root.
pub(super) const NUMBER_OF_ENTRIES: &str = "ManagementServer.ManageableDeviceNumberOfEntries";

/// `DeviceSummary`: the version of the data model and the profiles that are served whole (GW-15; TR-098 2.4.1). A CWMP
/// client that serves others beside them joins the lists.
pub(super) const DEVICE_SUMMARY: &str = "InternetGatewayDevice:1.2[](DeviceAssociation:1)";

/// A parameter of the schema.
#[derive(Debug)]
pub(super) struct Entry {
    /// Path below the root, with [`INSTANCE`] for instance numbers. At most one table lies on the way.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) writable: bool,
    pub(super) leaf: Leaf,
    roots: &'static [Root],
}

/// What a parameter stands for.
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
    NotificationLimit,
    DeviceManufacturerOui,
    DeviceSerialNumber,
    DeviceProductClass,
    GatewayInfo(GatewayParameter),
}

/// Which of TR-111's two ends has the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A gateway, with a table of the devices behind it.
    Gateway,
    /// A device behind a gateway.
    Device,
}

/// A write that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `ManageableDeviceNotificationLimit`, in seconds (DM-3).
    NotificationLimit(u32),
    /// `URL` of the ACS.
    Url(String),
    /// `ConnectionRequestUsername`
    ConnectionRequestUsername(String),
    /// `ConnectionRequestPassword`, which nobody reads back.
    ConnectionRequestPassword(String),
}

/// Most bytes of the strings that may be set (TR-098: `string(256)`).
const STRING_MAXIMUM: usize = 256;

const ALL: &[Root] = &[Root::Igd, Root::Device1, Root::Device2];
/// Roots of gateways.
const GATEWAY: &[Root] = &[Root::Igd, Root::Device2];

const fn read_only(path: &'static str, kind: Kind, leaf: Leaf, roots: &'static [Root]) -> Entry {
    Entry { path, kind, writable: false, leaf, roots }
}

const fn writable(path: &'static str, kind: Kind, leaf: Leaf, roots: &'static [Root]) -> Entry {
    Entry { path, kind, writable: true, leaf, roots }
}

/// Parameters of one object stand together, and so do those of one table.
const SCHEMA: &[Entry] = &[
    // Device:2 has no such parameter, and its DeviceAssociation:1 asks for `Host` as well.
    read_only("DeviceSummary", Kind::String, Leaf::DeviceSummary, &[Root::Igd]),
    read_only("DeviceInfo.ManufacturerOUI", Kind::String, Leaf::ManufacturerOui, ALL),
    read_only("DeviceInfo.SerialNumber", Kind::String, Leaf::SerialNumber, ALL),
    read_only("DeviceInfo.ProductClass", Kind::String, Leaf::ProductClass, ALL),
    writable("ManagementServer.URL", Kind::String, Leaf::Url, GATEWAY),
    writable("ManagementServer.ConnectionRequestUsername", Kind::String, Leaf::ConnectionRequestUsername, GATEWAY),
    writable("ManagementServer.ConnectionRequestPassword", Kind::String, Leaf::ConnectionRequestPassword, GATEWAY),
    read_only(NUMBER_OF_ENTRIES, Kind::UnsignedInt, Leaf::NumberOfEntries, GATEWAY),
    // T-33: not in the profile DeviceAssociation:1, though 1.2.1 needs it.
    writable("ManagementServer.ManageableDeviceNotificationLimit", Kind::UnsignedInt, Leaf::NotificationLimit, GATEWAY),
    read_only(
        "ManagementServer.ManageableDevice.{i}.ManufacturerOUI",
        Kind::String,
        Leaf::DeviceManufacturerOui,
        GATEWAY,
    ),
    read_only("ManagementServer.ManageableDevice.{i}.SerialNumber", Kind::String, Leaf::DeviceSerialNumber, GATEWAY),
    read_only("ManagementServer.ManageableDevice.{i}.ProductClass", Kind::String, Leaf::DeviceProductClass, GATEWAY),
];

/// Parameters of devices.
const DEVICE: &[Entry] = &[
    read_only("DeviceInfo.ManufacturerOUI", Kind::String, Leaf::ManufacturerOui, ALL),
    read_only("DeviceInfo.SerialNumber", Kind::String, Leaf::SerialNumber, ALL),
    read_only("DeviceInfo.ProductClass", Kind::String, Leaf::ProductClass, ALL),
    writable("ManagementServer.URL", Kind::String, Leaf::Url, ALL),
    gateway_info(GatewayParameter::ManufacturerOui),
    gateway_info(GatewayParameter::ProductClass),
    gateway_info(GatewayParameter::SerialNumber),
];

const fn gateway_info(parameter: GatewayParameter) -> Entry {
    read_only(parameter.path(), Kind::String, Leaf::GatewayInfo(parameter), ALL)
}

/// The parameters of a side below a root.
pub(super) fn entries(side: Side, root: Root) -> impl Iterator<Item = &'static Entry> {
    let schema = match side {
        Side::Gateway => SCHEMA,
        Side::Device => DEVICE,
    };
    schema.iter().filter(move |entry| entry.roots.contains(&root))
}

impl Entry {
    /// The parts of the path, between its dots.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('.')
    }

    /// Which part is an instance number.
    pub(super) fn instance_at(&self) -> Option<usize> {
        self.parts().position(|part| part == INSTANCE)
    }

    /// The path of the table that the parameter lies in, with its dot.
    pub(super) fn table(&self) -> Option<&'static str> {
        self.path.split_once(INSTANCE).map(|(table, _)| table)
    }
}

impl Leaf {
    /// TR-111 1.2.6.1, table 3: a CPE need not support Active notification of these.
    pub(super) fn may_refuse_active(self) -> bool {
        matches!(self, Self::DeviceManufacturerOui | Self::DeviceSerialNumber | Self::DeviceProductClass)
    }

    /// Reads as an empty string, whatever it holds (TR-069).
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, Self::ConnectionRequestPassword)
    }

    /// What to do for a value of the right type; `None` for what nobody sets.
    pub(super) fn setting(self, value: Value) -> Option<Result<Setting, Fault>> {
        let short = |text: String, setting: fn(String) -> Setting| {
            if text.len() > STRING_MAXIMUM { Err(Fault::InvalidParameterValue) } else { Ok(setting(text)) }
        };
        match (self, value) {
            (Self::NotificationLimit, Value::UnsignedInt(seconds)) => Some(Ok(Setting::NotificationLimit(seconds))),
            (Self::Url, Value::String(text)) => Some(short(text, Setting::Url)),
            (Self::ConnectionRequestUsername, Value::String(text)) => {
                Some(short(text, Setting::ConnectionRequestUsername))
            }
            (Self::ConnectionRequestPassword, Value::String(text)) => {
                Some(short(text, Setting::ConnectionRequestPassword))
            }
            _ => None,
        }
    }
}
