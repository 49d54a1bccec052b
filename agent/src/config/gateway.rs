//! The configuration of the gateway role.

use std::{
    net::{SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use tr111_common::{
    config::{Config as Kernel, Dialect, Rate},
    headers::PORTS,
};
use tr111_core::{association::Deny, binding, identity::GatewayIdentity, model::Root};

use super::{Error, Origin, Values, cpe::listen, form, key};
use crate::dataplane::{TcOrder, XdpMode};

const NANOSECONDS: u64 = 1_000_000_000;

/// Nanoseconds per message at a rate in messages per second; 0 for no limit.
fn interval(rate: u32) -> u64 {
    NANOSECONDS.checked_div(rate.into()).unwrap_or_default()
}

/// `[gateway.association]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// Maximum rows of the ManageableDevice table.
    pub max_rows: u32,
    /// Devices that get no row.
    pub deny: Vec<Deny>,
    /// Maximum identities per MAC address at a time.
    pub max_identities_per_mac: u32,
    /// Maximum bindings per row at a time.
    pub max_bindings_per_row: u32,
    /// Numbering of the sub-options.
    pub dialect: Dialect,
    /// Accept an OUI that is three raw bytes or has separators.
    pub lenient_oui: bool,
    /// Accepted enterprise numbers. Unused entries are 0.
    pub enterprises: [u32; 4],
    /// Accept ACKs from DHCP servers other than this gateway.
    pub accept_foreign_server: bool,
    /// Rate of DHCP messages per MAC address that reach the agent.
    pub budget: Rate,
    /// Rate of DHCP messages per relay that reach the agent.
    pub relay_budget: Rate,
    /// Time that a binding is kept after its lease expired.
    pub expiry_grace: Duration,
    /// Maximum age of a binding that was created by an INFORM. `None`: no limit.
    pub inform_maximum_age: Option<Duration>,
    /// Time that a row is kept after a NAK.
    pub nak_grace: Duration,
    /// Time of silence after which a device is probed; also how long signs of life of a device that does not answer are
    /// checked for.
    pub probe_interval: Duration,
    /// Unanswered ARP probes after which other signs of life are checked.
    pub probe_count: u32,
}

impl Association {
    /// The settings of the kernel programs. `seed` seeds their hash over client identifiers.
    pub fn kernel(&self, seed: u64) -> Kernel {
        Kernel {
            seed,
            budget: self.budget,
            relay_budget: self.relay_budget,
            dialect: self.dialect as u8,
            lenient_oui: u8::from(self.lenient_oui),
            accept_foreign_server: u8::from(self.accept_foreign_server),
            enterprises: self.enterprises,
            ..Kernel::default()
        }
    }
}

/// `[gateway.binding]` and `[gateway.police]`: NAT timeouts and rate limits of forwarded and received traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// NAT timeout of flows over which devices wait for Connection Requests. `None`: the timeouts are left unchanged.
    pub extended_timeout: Option<Duration>,
    /// Packet mark of such flows.
    pub mark: u32,
    /// The bits of the packet mark that the agent uses.
    pub mark_mask: u32,
    /// UDP ports of STUN servers. Unused entries are 0.
    pub stun_ports: [u16; PORTS],
    /// UDP Connection Requests per second and source on the WAN; 0: no limit.
    pub wan_connreq_pps: u32,
    /// DHCP messages per second and client on the LAN; 0: no limit.
    pub lan_dhcp_pps: u32,
}

impl Traffic {
    /// Adds these settings to those of [`Association::kernel`].
    pub fn complete(&self, kernel: Kernel) -> Kernel {
        Kernel {
            stun_ports: self.stun_ports,
            mark: self.mark,
            mark_mask: self.extended_timeout.map_or(0, |_| self.mark_mask),
            wan_connreq_interval: interval(self.wan_connreq_pps),
            lan_dhcp_interval: interval(self.lan_dhcp_pps),
            ..kernel
        }
    }
}

impl From<&Values> for Traffic {
    fn from(values: &Values) -> Self {
        const BINDING: &str = "gateway.binding";
        const POLICE: &str = "gateway.police";
        let mut stun_ports = [0; PORTS];
        for (slot, &port) in stun_ports.iter_mut().zip(values.integers(BINDING, "stun_ports")) {
            *slot = u16::try_from(port).unwrap_or(0);
        }
        let rate = |name| u32::try_from(values.integer(POLICE, name)).unwrap_or(u32::MAX);
        // The form of the value was checked when it was read.
        let (mark, mark_mask) = form::mark_and_mask(values.text(BINDING, "mark")).unwrap_or_default();
        Self {
            extended_timeout: Some(values.integer(BINDING, "extend_nat_timeout_s"))
                .filter(|seconds| *seconds > 0)
                .map(|seconds| Duration::from_secs(seconds.unsigned_abs())),
            mark,
            mark_mask,
            stun_ports,
            wan_connreq_pps: rate("wan_connreq_pps"),
            lan_dhcp_pps: rate("lan_dhcp_pps"),
        }
    }
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Directory of the persistent state.
    pub state_dir: PathBuf,
    /// Directory in a bpffs for pinned programs and maps.
    pub pin_dir: PathBuf,
    /// Path of the control socket.
    pub control: PathBuf,
    /// Address of `/metrics`, `/healthz` and `/readyz`; `None`: off.
    pub metrics: Option<SocketAddr>,
    /// Log level, or directives of the log.
    pub log: String,
    /// How programs attach at LAN ingress.
    pub xdp_mode: XdpMode,
    /// Position of the TC programs among other TC programs.
    pub tc_order: TcOrder,
    /// Log the diagnostics of the kernel programs.
    pub log_programs: bool,
    /// Detach the kernel programs when the agent stops.
    pub detach_on_exit: bool,
}

impl From<&Values> for Agent {
    fn from(values: &Values) -> Self {
        let text = |name| values.text("agent", name);
        Self {
            state_dir: text("state_dir").into(),
            pin_dir: text("pin_dir").into(),
            control: text("control").into(),
            // Empty or an address: the form was checked when the value was read.
            metrics: text("metrics").parse().ok(),
            log: text("log").to_owned(),
            xdp_mode: match text("xdp_mode") {
                "native" => XdpMode::Native,
                "generic" => XdpMode::Generic,
                "tc" => XdpMode::Tc,
                _ => XdpMode::Auto,
            },
            tc_order: if text("tc_order") == "last" { TcOrder::Last } else { TcOrder::First },
            log_programs: values.boolean("agent", "log_programs"),
            detach_on_exit: values.boolean("agent", "detach_on_exit"),
        }
    }
}

impl From<&Values> for Association {
    fn from(values: &Values) -> Self {
        const SECTION: &str = "gateway.association";
        // The range of each key fits its type here. A test reads both ends of each range.
        let count = |name| u32::try_from(values.integer(SECTION, name)).unwrap_or(u32::MAX);
        let seconds = |name| Duration::from_secs(values.integer(SECTION, name).unsigned_abs());
        let mut enterprises = [0; 4];
        for (slot, &number) in enterprises.iter_mut().zip(values.integers(SECTION, "enterprises")) {
            *slot = u32::try_from(number).unwrap_or(0);
        }
        Self {
            max_rows: count("max_rows"),
            // The form of the values was checked when they were read.
            deny: values.texts(SECTION, "deny").iter().filter_map(|deny| deny.parse().ok()).collect(),
            max_identities_per_mac: count("max_identities_per_mac"),
            max_bindings_per_row: count("max_bindings_per_row"),
            dialect: match values.text(SECTION, "dialect") {
                "tr111" => Dialect::Tr111,
                "tr124" => Dialect::Tr124,
                _ => Dialect::Auto,
            },
            lenient_oui: values.boolean(SECTION, "lenient_oui"),
            enterprises,
            accept_foreign_server: values.boolean(SECTION, "accept_foreign_server"),
            budget: Rate::new(interval(count("mac_budget_pps")), count("mac_budget_burst")),
            // The burst of a relay is what it may send in a second.
            relay_budget: Rate::new(interval(count("relay_budget_pps")), count("relay_budget_pps")),
            expiry_grace: seconds("expiry_grace_s"),
            inform_maximum_age: Some(seconds("inform_maximum_age_s")).filter(|age| !age.is_zero()),
            nak_grace: seconds("nak_grace_s"),
            probe_interval: seconds("probe_interval_s"),
            probe_count: count("probe_count"),
        }
    }
}

/// Configuration of `tr111 run gateway`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// LAN interfaces, at least one.
    pub lan: Vec<String>,
    /// Watch the ports of LAN interfaces that are bridges.
    pub bridge_ports: bool,
    /// WAN interfaces.
    pub wan: Vec<String>,
    /// `[gateway.binding]` and `[gateway.police]`
    pub traffic: Traffic,
    /// Identity of the gateway, from its `DeviceInfo`.
    pub identity: GatewayIdentity,
    /// Root of the data model.
    pub data_model: Root,
    /// `[gateway.association]`
    pub association: Association,
    /// Local address for UDP Connection Requests.
    pub connection_request_listen: SocketAddrV4,
    /// `[management_server]`: values of the data model at the first start.
    pub management_server: ManagementServer,
    /// `[agent]`
    pub agent: Agent,
}

/// `[management_server]`: values of the data model until the ACS or `tr111 set` writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagementServer {
    /// `ConnectionRequestUsername`
    pub connection_request_username: String,
    /// File with `ConnectionRequestPassword`.
    pub connection_request_password_file: Option<PathBuf>,
    /// This agent listens for TCP Connection Requests. `false`: another process does.
    pub is_tcp_builtin: bool,
    /// Parameters of STUN, without the password.
    pub stun: binding::Parameters,
    /// File with `STUNPassword`.
    pub stun_password_file: Option<PathBuf>,
}

impl TryFrom<&Values> for ManagementServer {
    type Error = Error;

    fn try_from(values: &Values) -> Result<Self, Error> {
        const SECTION: &str = "management_server";
        const MAXIMUM: &str = "stun_maximum_keep_alive_period";
        let text = |name| values.text(SECTION, name).to_owned();
        let file = |name| Some(text(name)).filter(|file| !file.is_empty()).map(PathBuf::from);
        // The range of each key fits its type here.
        let number = |name| values.integer(SECTION, name);
        let server = Self {
            connection_request_username: text("connection_request_username"),
            connection_request_password_file: file("connection_request_password_file"),
            is_tcp_builtin: text("tcp_connection_requests") == "builtin",
            stun: binding::Parameters {
                url: text("url"),
                stun_enable: values.boolean(SECTION, "stun_enable"),
                stun_server_address: text("stun_server_address"),
                stun_server_port: u16::try_from(number("stun_server_port")).unwrap_or_default(),
                stun_username: text("stun_username"),
                stun_password: String::new(),
                stun_maximum_keep_alive_period: i32::try_from(number(MAXIMUM)).unwrap_or(-1),
                stun_minimum_keep_alive_period: u32::try_from(number("stun_minimum_keep_alive_period"))
                    .unwrap_or(u32::MAX),
                notification_limit: 0,
            },
            stun_password_file: file("stun_password_file"),
        };
        if server.stun.has_consistent_periods() {
            return Ok(server);
        }
        // The same rule as for values that the ACS sets (T-45).
        let origin = key::find(SECTION, MAXIMUM).and_then(|key| values.get(key));
        Err(Error::WrongValue {
            origin: origin.map_or(Origin::Preset, |(_, origin)| origin.clone()),
            name: MAXIMUM,
            section: SECTION,
            reason: format!(
                "{} is below stun_minimum_keep_alive_period, which is {}",
                server.stun.stun_maximum_keep_alive_period, server.stun.stun_minimum_keep_alive_period
            ),
        })
    }
}

impl TryFrom<&Values> for Gateway {
    type Error = Error;

    fn try_from(values: &Values) -> Result<Self, Error> {
        const SECTION: &str = "gateway";
        let missing = |name, flag| Error::Missing { name, section: SECTION, flag };
        if values.texts(SECTION, "lan").is_empty() {
            return Err(missing("lan", "--lan IF"));
        }
        // An unset value reads as an empty string, which is not an OUI. The form of a set value was checked when it was
        // read.
        let text = |name| values.text(SECTION, name);
        let serial_number = Some(text("serial_number")).filter(|serial| !serial.is_empty());
        Ok(Self {
            lan: values.texts(SECTION, "lan").to_vec(),
            bridge_ports: values.boolean(SECTION, "bridge_ports"),
            wan: values.texts(SECTION, "wan").to_vec(),
            traffic: values.into(),
            identity: GatewayIdentity {
                manufacturer_oui: text("manufacturer_oui")
                    .parse()
                    .map_err(|_| missing("manufacturer_oui", "--oui HEX6"))?,
                serial_number: serial_number
                    .and_then(|serial| serial.parse().ok())
                    .ok_or_else(|| missing("serial_number", "--serial S"))?,
                product_class: text("product_class").parse().unwrap_or_default(),
            },
            data_model: if text("data_model") == "igd" { Root::Igd } else { Root::Device2 },
            association: values.into(),
            connection_request_listen: listen(values, SECTION),
            management_server: values.try_into()?,
            agent: values.into(),
        })
    }
}
