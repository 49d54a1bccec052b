//! The data model (TR-111 1.2.6, TR-098, TR-106, TR-181) by path, with the types and faults of TR-069.
//!
//! [`schema`] defines the parameters. A [`Source`] provides their current values, so the model has no state of its own:
//! [`get`] and [`names`] read, and [`check`] converts a write to a [`Setting`] that the owner of the values performs.

mod path;
mod schema;
#[cfg(test)]
mod tests;
mod value;

pub use path::Root;
pub use schema::{Setting, Side};
pub use value::{Kind, Value};

use std::collections::HashSet;

use thiserror::Error;

use self::{
    path::Path,
    schema::{Entry, Leaf},
};
use crate::{
    binding::{self, Report},
    device::GatewayInfo,
    identity::{DeviceIdentity, GatewayIdentity},
};

/// A fault of TR-069 A.5.1. Displayed as its code and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{} {}", self.code(), self.name())]
pub enum Fault {
    /// Fault 9000.
    MethodNotSupported,
    /// Fault 9001.
    RequestDenied,
    /// Fault 9002.
    InternalError,
    /// Fault 9003.
    InvalidArguments,
    /// Fault 9004.
    ResourcesExceeded,
    /// Fault 9005.
    InvalidParameterName,
    /// Fault 9006.
    InvalidParameterType,
    /// Fault 9007.
    InvalidParameterValue,
    /// Fault 9008.
    NonWritable,
    /// Fault 9009.
    NotificationRejected,
}

impl Fault {
    /// The fault code.
    pub const fn code(self) -> u16 {
        9000 + self as u16
    }

    /// The name of the fault.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MethodNotSupported => "Method not supported",
            Self::RequestDenied => "Request denied",
            Self::InternalError => "Internal error",
            Self::InvalidArguments => "Invalid arguments",
            Self::ResourcesExceeded => "Resources exceeded",
            Self::InvalidParameterName => "Invalid parameter name",
            Self::InvalidParameterType => "Invalid parameter type",
            Self::InvalidParameterValue => "Invalid parameter value",
            Self::NonWritable => "Attempt to set a non-writable parameter",
            Self::NotificationRejected => "Notification request rejected",
        }
    }
}

/// The notification attribute of a parameter (TR-069 A.3.2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Notification {
    /// 0: changes are not reported.
    #[default]
    Off,
    /// 1: changes are reported in the next session.
    Passive,
    /// 2: a change opens a session.
    Active,
}

impl Notification {
    /// Name on the command line and in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Passive => "passive",
            Self::Active => "active",
        }
    }
}

/// Provides the current values of the parameters.
pub trait Source {
    /// The root object.
    fn root(&self) -> Root;

    /// Whether the parameters are those of a gateway or of a device.
    fn side(&self) -> Side {
        Side::Gateway
    }

    /// `DeviceInfo.`: the identity of this device itself.
    fn device_info(&self) -> &GatewayIdentity;

    /// `ManagementServer.ManageableDeviceNumberOfEntries` (DM-2).
    fn number_of_entries(&self) -> u32;

    /// `ManagementServer.ManageableDeviceNotificationLimit`, in seconds (DM-3).
    fn notification_limit(&self) -> u32;

    /// `ManagementServer.URL`, and the writable parameters of TR-111 Table 6 (DM-21 to DM-28).
    fn binding(&self) -> &binding::Parameters;

    /// `ManagementServer.UDPConnectionRequestAddress` and `ManagementServer.NATDetected` (DM-20, DM-29).
    fn report(&self) -> Report {
        Report::default()
    }

    /// `ManagementServer.ConnectionRequestUsername`.
    #[expect(clippy::unnecessary_literal_bound, reason = "sources lend what they own")]
    fn connection_request_username(&self) -> &str {
        ""
    }

    /// Instance numbers of `ManagementServer.ManageableDevice.{i}.`, in increasing order (DM-4).
    fn instances(&self) -> Vec<u32>;

    /// The row with this instance number (DM-5 to DM-7).
    fn device(&self, instance: u32) -> Option<&DeviceIdentity>;

    /// `GatewayInfo.`; `None` on a gateway (DM-12 to DM-14).
    fn gateway_info(&self) -> Option<&GatewayInfo> {
        None
    }

    /// The notification attribute of the parameter with this full name.
    fn notification(&self, name: &str) -> Notification {
        let _ = name;
        Notification::Off
    }
}

/// A parameter with its value and attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Full name.
    pub name: String,
    /// Value with its type.
    pub value: Value,
    /// Whether the ACS may set the parameter.
    pub writable: bool,
    /// Notification attribute.
    pub notification: Notification,
}

/// The name of an object, which ends in a dot, or of a parameter, as in `GetParameterNames`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Full name.
    pub name: String,
    /// Whether the parameter can be set, or instances can be added to the object.
    pub writable: bool,
}

/// The parameter with the full name `path`; or all parameters below the partial path `path`, which ends in a dot or is
/// empty (TR-069 A.3.2.2).
pub fn get(source: &dyn Source, path: &str) -> Result<Vec<Parameter>, Fault> {
    let path = Path::parse(source.root(), path)?;
    let found = find(source, &path)?;
    let parameters = found.into_iter().filter_map(|place| {
        let value = value(source, place.entry.leaf, place.instance)?;
        let name = place.name(source.root());
        Some(Parameter { notification: source.notification(&name), writable: place.entry.writable, value, name })
    });
    Ok(parameters.collect())
}

/// The objects and parameters at and below `path`; with `next_level`, only its immediate children (TR-069 A.3.2.3).
pub fn names(source: &dyn Source, path: &str, next_level: bool) -> Result<Vec<Name>, Fault> {
    let path = Path::parse(source.root(), path)?;
    if next_level && !path.is_partial() {
        return Err(Fault::InvalidArguments);
    }
    let (mut names, mut known) = (Vec::new(), HashSet::new());
    let mut add = |name: &str, writable| {
        let depth = path::depth(name);
        let wanted = if next_level { depth == path.depth() + 1 } else { depth >= path.depth() };
        if wanted && known.insert(name.to_owned()) {
            names.push(Name { name: name.to_owned(), writable });
        }
    };
    for place in find(source, &path)? {
        let name = place.name(source.root());
        path::objects(&name).for_each(|object| add(object, false));
        add(&name, place.entry.writable);
    }
    // A table without rows is an object, too.
    for entry in schema::entries(source.side(), source.root()).filter(|entry| path.reaches(entry)) {
        if let Some(table) = entry.table() {
            add(&format!("{}{table}", source.root().prefix()), false);
        }
    }
    Ok(names)
}

/// A parameter whose notification attribute can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Full name.
    pub name: String,
    /// Whether Active notification may be refused (DM-9).
    pub may_refuse_active: bool,
}

/// The parameter with the full name `path`, or all parameters below the partial path `path`.
pub fn targets(source: &dyn Source, path: &str) -> Result<Vec<Target>, Fault> {
    let path = Path::parse(source.root(), path)?;
    let target = |place: Place| Target {
        name: place.name(source.root()),
        may_refuse_active: place.entry.leaf.may_refuse_active(),
    };
    Ok(find(source, &path)?.into_iter().map(target).collect())
}

/// Full name of `ManageableDeviceNumberOfEntries` below this root (DM-2).
pub fn number_of_entries(root: Root) -> String {
    format!("{}{}", root.prefix(), schema::NUMBER_OF_ENTRIES)
}

/// Full name of `UDPConnectionRequestAddress` below this root (DM-20).
pub fn udp_connection_request_address(root: Root) -> String {
    format!("{}{}", root.prefix(), schema::UDP_CONNECTION_REQUEST_ADDRESS)
}

/// Full name of `NATDetected` below this root (DM-29).
pub fn nat_detected(root: Root) -> String {
    format!("{}{}", root.prefix(), schema::NAT_DETECTED)
}

/// Whether the parameter `path`, below any root, is a secret that reads as an empty string.
pub fn is_hidden(path: &str) -> bool {
    is_parameter(path, Leaf::is_hidden)
}

/// Whether `path`, below any root, is `ManagementServer.ConnectionRequestUsername`.
pub fn is_connection_request_username(path: &str) -> bool {
    is_parameter(path, |leaf| matches!(leaf, Leaf::ConnectionRequestUsername))
}

/// Whether `path`, below any root, is the full name of a parameter that `is_meant` accepts.
fn is_parameter(path: &str, is_meant: fn(Leaf) -> bool) -> bool {
    [Root::Igd, Root::Device1, Root::Device2].into_iter().any(|root| {
        Path::parse(root, path).is_ok_and(|path| {
            !path.is_partial()
                && schema::entries(Side::Gateway, root).any(|entry| is_meant(entry.leaf) && path.reaches(entry))
        })
    })
}

/// Validates a write of `text` to the parameter `path`. Partial paths cannot be set.
pub fn check(source: &dyn Source, path: &str, text: &str) -> Result<Setting, Fault> {
    let path = Path::parse(source.root(), path)?;
    if path.is_partial() {
        return Err(Fault::InvalidParameterName);
    }
    let place = find(source, &path)?.pop().ok_or(Fault::InvalidParameterName)?;
    if !place.entry.writable {
        return Err(Fault::NonWritable);
    }
    place.entry.leaf.setting(Value::parse(place.entry.kind, text)?).unwrap_or(Err(Fault::NonWritable))
}

/// Validates all `writes`. One fault refuses all of them (TR-069 A.3.2.1); every fault is returned with its path.
///
/// # Errors
/// 9003 alone if a name occurs twice, whatever the values are; otherwise the faults of [`check`].
pub fn check_all<'a>(
    source: &dyn Source,
    writes: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<Setting>, Vec<(&'a str, Fault)>> {
    let (mut settings, mut faults) = (Vec::new(), Vec::new());
    let writes: Vec<(&str, &str)> = writes.into_iter().collect();
    let mut names = HashSet::new();
    if let Some((path, _)) = writes.iter().find(|(path, _)| !names.insert(*path)) {
        return Err(vec![(*path, Fault::InvalidArguments)]);
    }
    for (path, text) in writes {
        match check(source, path, text) {
            Ok(setting) => settings.push(setting),
            Err(fault) => faults.push((path, fault)),
        }
    }
    if faults.is_empty() { Ok(settings) } else { Err(faults) }
}

/// An existing parameter: its schema, and its instance number in a table.
struct Place {
    entry: &'static Entry,
    instance: Option<u32>,
}

impl Place {
    fn name(&self, root: Root) -> String {
        let relative = match self.instance {
            Some(instance) => self.entry.path.replace(schema::INSTANCE, &instance.to_string()),
            None => self.entry.path.to_owned(),
        };
        format!("{}{relative}", root.prefix())
    }
}

/// The parameters at and below `path`; the rows of a table one after the other.
fn find(source: &dyn Source, path: &Path<'_>) -> Result<Vec<Place>, Fault> {
    let reached: Vec<&'static Entry> =
        schema::entries(source.side(), source.root()).filter(|entry| path.reaches(entry)).collect();
    if reached.is_empty() {
        return Err(Fault::InvalidParameterName);
    }
    let mut places = Vec::new();
    for group in reached.chunk_by(|one, other| one.table() == other.table()) {
        let instances = match (group[0].instance_at(), path.instance(group[0])) {
            (None, _) => vec![None],
            (Some(_), Some(named)) => {
                source.device(named).ok_or(Fault::InvalidParameterName)?;
                vec![Some(named)]
            }
            (Some(_), None) => source.instances().into_iter().map(Some).collect(),
        };
        places.extend(
            instances.into_iter().flat_map(|instance| group.iter().map(move |entry| Place { entry, instance })),
        );
    }
    Ok(places)
}

/// The value of a parameter; `None` if the row does not exist.
fn value(source: &dyn Source, leaf: Leaf, instance: Option<u32>) -> Option<Value> {
    let info = source.device_info();
    let row = || source.device(instance?);
    let binding = source.binding();
    let text = |text: &str| Value::String(text.to_owned());
    Some(match leaf {
        Leaf::DeviceSummary => text(schema::device_summary(source.side(), source.root())),
        Leaf::ManufacturerOui => text(info.manufacturer_oui.as_str()),
        Leaf::SerialNumber => text(info.serial_number.as_str()),
        Leaf::ProductClass => text(info.product_class.as_str()),
        Leaf::Url => text(&binding.url),
        Leaf::ConnectionRequestUsername => text(source.connection_request_username()),
        Leaf::ConnectionRequestPassword | Leaf::StunPassword => text(""),
        Leaf::UdpConnectionRequestAddress => Value::String(source.report().udp_connection_request_address()),
        Leaf::UdpConnectionRequestAddressNotificationLimit => Value::UnsignedInt(binding.notification_limit),
        Leaf::StunEnable => Value::Boolean(binding.stun_enable),
        Leaf::StunServerAddress => text(&binding.stun_server_address),
        Leaf::StunServerPort => Value::UnsignedInt(binding.stun_server_port.into()),
        Leaf::StunUsername => text(&binding.stun_username),
        Leaf::StunMaximumKeepAlivePeriod => Value::Int(binding.stun_maximum_keep_alive_period),
        Leaf::StunMinimumKeepAlivePeriod => Value::UnsignedInt(binding.stun_minimum_keep_alive_period),
        Leaf::NatDetected => Value::Boolean(source.report().nat_detected),
        Leaf::NumberOfEntries => Value::UnsignedInt(source.number_of_entries()),
        Leaf::NotificationLimit => Value::UnsignedInt(source.notification_limit()),
        Leaf::GatewayInfo(parameter) => text(source.gateway_info()?.get(parameter)),
        Leaf::DeviceManufacturerOui => text(row()?.manufacturer_oui.as_str()),
        Leaf::DeviceSerialNumber => text(row()?.serial_number.as_str()),
        Leaf::DeviceProductClass => text(row()?.product_class.as_str()),
    })
}
