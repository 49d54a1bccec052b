//! The configuration of the device role.

use std::{net::SocketAddrV4, time::Duration};

use tr111_core::{identity::DeviceIdentity, model::Root};

use super::{Agent, Error, ManagementServer, Values, cpe::listen};

/// Value of `interface` for the interface of the default route.
const AUTO: &str = "auto";

/// How the device speaks DHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMode {
    /// The device sends INFORM next to another DHCP client on the machine.
    Inform,
    /// The device is the DHCP client.
    Dhcp,
    /// The device sends no DHCP messages.
    Off,
}

/// Configuration of `tr111 run device`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Interface towards the gateway. `None`: the interface of the default route (T-35).
    pub interface: Option<String>,
    /// How the device speaks DHCP.
    pub mode: DeviceMode,
    /// Time from an ACK to the next INFORM.
    pub inform_interval: Duration,
    /// Identity of the device, from its `DeviceInfo`.
    pub identity: DeviceIdentity,
    /// Root of the data model.
    pub data_model: Root,
    /// Local address for UDP Connection Requests.
    pub connection_request_listen: SocketAddrV4,
    /// `[management_server]`
    pub management_server: ManagementServer,
    /// `[agent]`
    pub agent: Agent,
}

impl TryFrom<&Values> for Device {
    type Error = Error;

    fn try_from(values: &Values) -> Result<Self, Error> {
        const SECTION: &str = "device";
        let missing = |name, flag| Error::Missing { name, section: SECTION, flag };
        // An unset value reads as an empty string. The form of a set value was checked when it was read.
        let text = |name| values.text(SECTION, name);
        let given = |name, flag| Some(text(name)).filter(|text| !text.is_empty()).ok_or_else(|| missing(name, flag));
        let interface = Some(text("interface")).filter(|name| *name != AUTO).map(str::to_owned);
        // The default route appears only after the device has a lease.
        if interface.is_none() && text("mode") == "dhcp" {
            return Err(missing("interface", "--interface IF"));
        }
        Ok(Self {
            interface,
            mode: match text("mode") {
                "dhcp" => DeviceMode::Dhcp,
                "off" => DeviceMode::Off,
                _ => DeviceMode::Inform,
            },
            inform_interval: Duration::from_secs(values.integer(SECTION, "inform_interval_s").unsigned_abs()),
            identity: DeviceIdentity {
                manufacturer_oui: given("manufacturer_oui", "--oui HEX6")?
                    .parse()
                    .map_err(|_| missing("manufacturer_oui", "--oui HEX6"))?,
                serial_number: given("serial_number", "--serial S")?
                    .parse()
                    .map_err(|_| missing("serial_number", "--serial S"))?,
                product_class: text("product_class").parse().unwrap_or_default(),
            },
            data_model: match text("data_model") {
                "igd" => Root::Igd,
                "device2" => Root::Device2,
                _ => Root::Device1,
            },
            connection_request_listen: listen(values, SECTION),
            management_server: values.try_into()?,
            agent: values.into(),
        })
    }
}
