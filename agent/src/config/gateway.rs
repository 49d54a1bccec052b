//! The configuration of the gateway role, as its parts take it.

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

/// Nanoseconds in which one message is earned at so many a second; 0 without a limit.
fn interval(rate: u32) -> u64 {
    NANOSECONDS.checked_div(rate.into()).unwrap_or_default()
}

/// `[gateway.association]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// Rows of the table.
    pub max_rows: u32,
    /// Who gets no row.
    pub deny: Vec<Deny>,
    /// Identities that one MAC address may hold at a time.
    pub max_identities_per_mac: u32,
    /// Bindings that one row may have at a time.
    pub max_bindings_per_row: u32,
    /// How sub-options are read.
    pub dialect: Dialect,
    /// Accept an OUI of three raw bytes, or with separators.
    pub lenient_oui: bool,
    /// Accepted enterprise numbers, 0 where there is none.
    pub enterprises: [u32; 4],
    /// Count acknowledgements of servers that are not this gateway.
    pub accept_foreign_server: bool,
    /// What a MAC address may bring to the agent.
    pub budget: Rate,
    /// What a relay may.
    pub relay_budget: Rate,
    /// How long after its end a lease still counts.
    pub expiry_grace: Duration,
    /// Age at which a binding that came by INFORM ends.
    pub inform_maximum_age: Option<Duration>,
    /// How long a row outlives a NAK.
    pub nak_grace: Duration,
    /// Silence after which a device is probed, and how long one that does not answer is searched for.
    pub probe_interval: Duration,
    /// Unanswered probes after which the search begins.
    pub probe_count: u32,
}

impl Association {
    /// What the kernel programs are told. `seed` is of their hash over client identifiers.
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

/// `[gateway.binding]` and `[gateway.police]`: what happens to Binding Requests and Connection Requests on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// NAT timeout of flows that carry Binding Requests for Connection Requests; `None`: theirs stays what it is.
    pub extended_timeout: Option<Duration>,
    /// Packet mark of such flows.
    pub mark: u32,
    /// The bits of the mark that are ours.
    pub mark_mask: u32,
    /// UDP ports on which STUN servers are expected, 0 where there is none.
    pub stun_ports: [u16; PORTS],
    /// Connection Requests a second that one source on the WAN may send; 0: as many as it likes.
    pub wan_connreq_pps: u32,
    /// DHCP messages a second that one client may send; 0: as many as it likes.
    pub lan_dhcp_pps: u32,
}

impl Traffic {
    /// The programs' settings, completed.
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
        // The form was checked when the value was read.
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
    /// Directory of the store.
    pub state_dir: PathBuf,
    /// Directory in a bpffs.
    pub pin_dir: PathBuf,
    /// The control socket.
    pub control: PathBuf,
    /// Address of `/metrics`; `None`: off.
    pub metrics: Option<SocketAddr>,
    /// Directives of the log.
    pub log: String,
    /// How LAN ingress attaches.
    pub xdp_mode: XdpMode,
    /// Where TC programs run among those of others.
    pub tc_order: TcOrder,
    /// Write the programs' diagnostics to the log.
    pub log_programs: bool,
    /// Take programs off the interfaces when the agent stops.
    pub detach_on_exit: bool,
}

impl From<&Values> for Agent {
    fn from(values: &Values) -> Self {
        let text = |name| values.text("agent", name);
        Self {
            state_dir: text("state_dir").into(),
            pin_dir: text("pin_dir").into(),
            control: text("control").into(),
            // Empty, or an address: its form was checked when it was read.
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
        // Every range fits its type: the table of keys says so, and a test reads all ends of it.
        let count = |name| u32::try_from(values.integer(SECTION, name)).unwrap_or(u32::MAX);
        let seconds = |name| Duration::from_secs(values.integer(SECTION, name).unsigned_abs());
        let mut enterprises = [0; 4];
        for (slot, &number) in enterprises.iter_mut().zip(values.integers(SECTION, "enterprises")) {
            *slot = u32::try_from(number).unwrap_or(0);
        }
        Self {
            max_rows: count("max_rows"),
            // Their form was checked when they were read.
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
            // What a relay saved up in a second it may send at once.
            relay_budget: Rate::new(interval(count("relay_budget_pps")), count("relay_budget_pps")),
            expiry_grace: seconds("expiry_grace_s"),
            inform_maximum_age: Some(seconds("inform_maximum_age_s")).filter(|age| !age.is_zero()),
            nak_grace: seconds("nak_grace_s"),
            probe_interval: seconds("probe_interval_s"),
            probe_count: count("probe_count"),
        }
    }
}

/// Everything that `tr111 run gateway` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Interfaces that face the devices, at least one.
    pub lan: Vec<String>,
    /// Watch the ports of those that are bridges.
    pub bridge_ports: bool,
    /// Interfaces that face the ACS.
    pub wan: Vec<String>,
    /// Binding Requests and Connection Requests on their way.
    pub traffic: Traffic,
    /// `DeviceInfo` of the gateway.
    pub identity: GatewayIdentity,
    /// Root of the data model.
    pub data_model: Root,
    /// The association table.
    pub association: Association,
    /// Where UDP Connection Requests arrive.
    pub connection_request_listen: SocketAddrV4,
    /// Values of the data model at the first start.
    pub management_server: ManagementServer,
    /// The process.
    pub agent: Agent,
}

/// `[management_server]`, as far as the gateway serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagementServer {
    /// User of Connection Requests.
    pub connection_request_username: String,
    /// File with their password.
    pub connection_request_password_file: Option<PathBuf>,
    /// This agent listens for TCP Connection Requests, and no other process on the box.
    pub is_tcp_builtin: bool,
    /// STUN as it is at the first start, without the password.
    pub stun: binding::Parameters,
    /// File with its password.
    pub stun_password_file: Option<PathBuf>,
}

impl TryFrom<&Values> for ManagementServer {
    type Error = Error;

    fn try_from(values: &Values) -> Result<Self, Error> {
        const SECTION: &str = "management_server";
        const MAXIMUM: &str = "stun_maximum_keep_alive_period";
        let text = |name| values.text(SECTION, name).to_owned();
        let file = |name| Some(text(name)).filter(|file| !file.is_empty()).map(PathBuf::from);
        // Every range fits its type: the table of keys says so.
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
        // T-45, as for the ACS.
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
        // Unset values read as empty texts, which are no OUI; whatever is set was checked when it was read.
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
