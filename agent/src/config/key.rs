//! The table of configuration keys: type, default, range, unit and description of each key. The file parser, the flags,
//! `tr111 tune`, `tr111 check` and the man page read this table.

use std::fmt;

use super::form;

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A list of strings.
    Texts(Vec<String>),
    /// A list of whole numbers.
    Integers(Vec<i64>),
}

/// The form that `tr111 tune` accepts and shows: the items of a list are separated by commas.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Boolean(flag) => flag.fmt(f),
            Self::Texts(texts) => f.write_str(&texts.join(",")),
            Self::Integers(numbers) => f.write_str(&numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

/// Default value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// No default. A role that needs the key does not start without it.
    Unset,
    /// A string.
    Text(&'static str),
    /// A whole number.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A list of strings.
    Texts(&'static [&'static str]),
    /// A list of whole numbers.
    Integers(&'static [i64]),
}

/// Checks a string. Returns its canonical form, or a text that says what was expected.
pub type Rule = fn(&str) -> Result<String, String>;

/// Type and range of the values of a key.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// A string that passes the rule.
    Text(Rule),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number in this range, both ends included.
    Integer(i64, i64),
    /// `true` or `false`.
    Boolean,
    /// A list of strings that pass the rule.
    Texts(Rule),
    /// A list of whole numbers: its maximum length, and the range of each number, both ends included.
    Integers(usize, i64, i64),
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At the next start of the agent.
    Start,
    /// Immediately, when `tr111 tune` sets the value or SIGHUP reloads the file.
    Live,
    /// Never. The key is accepted, so that files of earlier versions stay valid. The agent warns if it is set.
    Obsolete,
}

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name of the table in the file, without brackets.
    pub section: &'static str,
    /// Name of the key within its table.
    pub name: &'static str,
    /// Type and range of its values.
    pub form: Form,
    /// Default value.
    pub preset: Preset,
    /// Unit of a number. Empty for plain counts and for other types.
    pub unit: &'static str,
    /// When a change takes effect.
    pub effect: Effect,
    /// Description for the user.
    pub help: &'static str,
}

impl Key {
    /// Full name: `section.name`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The default as a value. `None` if the key has no default.
    pub fn preset_value(&self) -> Option<Value> {
        Some(match self.preset {
            Preset::Unset => return None,
            Preset::Text(text) => Value::Text(text.to_owned()),
            Preset::Integer(number) => Value::Integer(number),
            Preset::Boolean(flag) => Value::Boolean(flag),
            Preset::Texts(texts) => Value::Texts(texts.iter().map(|&text| text.to_owned()).collect()),
            Preset::Integers(numbers) => Value::Integers(numbers.to_vec()),
        })
    }

    /// The allowed values as text for the user.
    pub fn range(&self) -> String {
        match self.form {
            Form::Text(_) => "text".to_owned(),
            Form::Choice(words) => words.join(" | "),
            Form::Integer(least, i64::MAX) => format!("{least} and above"),
            Form::Integer(least, most) => format!("{least} to {most}"),
            Form::Boolean => "true | false".to_owned(),
            Form::Texts(_) => "list of texts".to_owned(),
            Form::Integers(count, least, most) => format!("list of at most {count}, each {least} to {most}"),
        }
    }
}

/// The key named `name` in `section`.
pub fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

const SECONDS_MAXIMUM: i64 = 86_400 * 365;
const UNSIGNED_INT: i64 = u32::MAX as i64;
/// The kernel map of clients must hold two clients for each row.
const MAX_ROWS: i64 = tr111_common::abi::STICKY_MAXIMUM as i64 / 2;

const fn key(section: &'static str, name: &'static str, form: Form, preset: Preset, effect: Effect) -> Key {
    Key { section, name, form, preset, unit: "", effect, help: "" }
}

impl Key {
    const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }
}

use Effect::{Live, Obsolete, Start};
use Form::{Boolean, Choice, Integer, Integers, Text, Texts};

const GATEWAY: &str = "gateway";
const ASSOCIATION: &str = "gateway.association";
const BINDING: &str = "gateway.binding";
const POLICE: &str = "gateway.police";
const MANAGEMENT: &str = "management_server";
const CONNREQ: &str = "connreq";
const STUN: &str = "stun";
const DEVICE: &str = "device";
const ACS: &str = "acs";
const ACS_ASSOCIATION: &str = "acs.association";
const AGENT: &str = "agent";

/// All keys in the order in which they are shown.
pub const KEYS: &[Key] = &[
    key(GATEWAY, "lan", Texts(form::interface), Preset::Texts(&[]), Start)
        .help("LAN interfaces; for a bridge, name the bridge, not its ports"),
    key(GATEWAY, "bridge_ports", Boolean, Preset::Boolean(true), Start).help(
        "for a bridge in lan, also watch frames between its ports, such as replies of a DHCP server behind a port",
    ),
    key(GATEWAY, "wan", Texts(form::interface), Preset::Texts(&[]), Start)
        .help("WAN interfaces, where UDP Connection Requests arrive"),
    key(GATEWAY, "manufacturer_oui", Text(form::oui), Preset::Unset, Start)
        .help("DeviceInfo.ManufacturerOUI of this gateway, six hexadecimal digits"),
    key(GATEWAY, "serial_number", Text(form::serial_number), Preset::Unset, Start)
        .help("DeviceInfo.SerialNumber of this gateway, 1 to 64 bytes"),
    key(GATEWAY, "product_class", Text(form::product_class), Preset::Text(""), Start)
        .help("DeviceInfo.ProductClass of this gateway, at most 64 bytes; empty: none"),
    key(GATEWAY, "data_model", Choice(&["igd", "device2"]), Preset::Text("igd"), Start)
        .help("root of the data model: InternetGatewayDevice. or Device."),
    key(GATEWAY, "connection_request_listen", Text(form::address_v4), Preset::Text("0.0.0.0:7547"), Start)
        .help("local address for UDP Connection Requests; also the source address of STUN requests"),
    key(ASSOCIATION, "max_rows", Integer(1, MAX_ROWS), Preset::Integer(MAX_ROWS), Live)
        .help("maximum rows of the ManageableDevice table; when the table is full, new devices are refused"),
    key(ASSOCIATION, "deny", Texts(form::deny), Preset::Texts(&[]), Live)
        .help("devices to leave out of the table: OUI/SERIAL, OUI/SERIAL/CLASS or a MAC address"),
    key(ASSOCIATION, "max_identities_per_mac", Integer(1, 65_535), Preset::Integer(16), Live)
        .help("maximum identities per MAC address at a time"),
    key(ASSOCIATION, "max_bindings_per_row", Integer(1, 65_535), Preset::Integer(32), Live)
        .help("maximum DHCP clients per identity; further clients are refused, existing ones are kept"),
    key(ASSOCIATION, "dialect", Choice(&["auto", "tr111", "tr124"]), Preset::Text("auto"), Live)
        .help("numbering of the sub-options of enterprise 3561; auto: a client message with sub-option 4 is TR-124"),
    key(ASSOCIATION, "lenient_oui", Boolean, Preset::Boolean(false), Live)
        .help("accept an OUI that is three raw bytes or has separators"),
    key(ASSOCIATION, "enterprises", Integers(4, 1, UNSIGNED_INT), Preset::Integers(&[3561]), Live)
        .help("enterprise numbers in DHCP option 125 whose sub-options are read"),
    key(ASSOCIATION, "accept_foreign_server", Boolean, Preset::Boolean(false), Live)
        .help("accept ACKs from DHCP servers other than this gateway"),
    key(ASSOCIATION, "mac_budget_pps", Integer(0, 1_000_000), Preset::Integer(10), Live)
        .unit("messages/s")
        .help("DHCP messages per second and MAC address that reach the agent; 0: no limit"),
    key(ASSOCIATION, "mac_budget_burst", Integer(1, 1_000_000), Preset::Integer(50), Live)
        .help("DHCP messages per MAC address that reach the agent in a burst"),
    key(ASSOCIATION, "relay_budget_pps", Integer(0, 1_000_000), Preset::Integer(1000), Live)
        .unit("messages/s")
        .help("DHCP messages per second and DHCP relay that reach the agent; 0: no limit"),
    key(ASSOCIATION, "expiry_grace_s", Integer(0, 60), Preset::Integer(1), Live)
        .unit("s")
        .help("time that a binding is kept after its lease expired, for a renewal in progress"),
    key(ASSOCIATION, "inform_maximum_age_s", Integer(0, SECONDS_MAXIMUM), Preset::Integer(0), Live)
        .unit("s")
        .help("maximum age of a binding that was created by an INFORM; 0: no limit"),
    key(ASSOCIATION, "nak_grace_s", Integer(0, 3_600), Preset::Integer(10), Live)
        .unit("s")
        .help("time that a row is kept after a NAK, so that the client can request an address again"),
    key(ASSOCIATION, "probe_interval_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(60), Live).unit("s").help(
        "a device is probed after this time of silence, and removed if it shows no sign of life for as long again",
    ),
    key(ASSOCIATION, "probe_count", Integer(1, 100), Preset::Integer(3), Live)
        .help("unanswered ARP probes after which other signs of life of a device are checked"),
    key(BINDING, "extend_nat_timeout_s", Integer(0, SECONDS_MAXIMUM), Preset::Integer(300), Live).unit("s").help(
        "NAT timeout of flows over which devices wait for UDP Connection Requests; 0: leave the timeouts \
             unchanged",
    ),
    key(BINDING, "mark", Text(form::mark), Preset::Text("0x01000000/0x01000000"), Live)
        .help("packet mark of such flows, VALUE/MASK"),
    key(BINDING, "stun_ports", Integers(8, 1, 65_535), Preset::Integers(&[3478]), Live)
        .help("UDP ports of STUN servers"),
    key(POLICE, "wan_connreq_pps", Integer(0, UNSIGNED_INT), Preset::Integer(0), Live)
        .unit("packets/s")
        .help("UDP Connection Requests per second from one source on the WAN; more are dropped; 0: no limit"),
    key(POLICE, "lan_dhcp_pps", Integer(0, UNSIGNED_INT), Preset::Integer(0), Live)
        .unit("packets/s")
        .help("DHCP messages per second from one client on the LAN; more are dropped; 0: no limit"),
    key(MANAGEMENT, "url", Text(form::any), Preset::Text(""), Start).help("ManagementServer.URL at the first start"),
    key(MANAGEMENT, "connection_request_username", Text(form::parameter), Preset::Text(""), Start)
        .help("ManagementServer.ConnectionRequestUsername at the first start"),
    key(MANAGEMENT, "connection_request_password_file", Text(form::any), Preset::Text(""), Start)
        .help("file with ManagementServer.ConnectionRequestPassword at the first start"),
    key(MANAGEMENT, "tcp_connection_requests", Choice(&["external", "builtin"]), Preset::Text("external"), Start).help(
        "listener for TCP Connection Requests: external (another process), or builtin, at \
             connection_request_listen",
    ),
    key(MANAGEMENT, "stun_enable", Boolean, Preset::Boolean(false), Start)
        .help("ManagementServer.STUNEnable at the first start"),
    key(MANAGEMENT, "stun_server_address", Text(form::parameter), Preset::Text(""), Start)
        .help("ManagementServer.STUNServerAddress at the first start; empty: the host of the ACS URL"),
    key(MANAGEMENT, "stun_server_port", Integer(0, 65_535), Preset::Integer(3478), Start)
        .help("ManagementServer.STUNServerPort at the first start"),
    key(MANAGEMENT, "stun_username", Text(form::parameter), Preset::Text(""), Start)
        .help("ManagementServer.STUNUsername at the first start"),
    key(MANAGEMENT, "stun_password_file", Text(form::any), Preset::Text(""), Start)
        .help("file with ManagementServer.STUNPassword at the first start"),
    key(MANAGEMENT, "stun_maximum_keep_alive_period", Integer(-1, i32::MAX as i64), Preset::Integer(-1), Start)
        .unit("s")
        .help("ManagementServer.STUNMaximumKeepAlivePeriod at the first start; -1: none"),
    key(MANAGEMENT, "stun_minimum_keep_alive_period", Integer(0, UNSIGNED_INT), Preset::Integer(30), Start)
        .unit("s")
        .help("ManagementServer.STUNMinimumKeepAlivePeriod at the first start"),
    key(CONNREQ, "require_host", Boolean, Preset::Boolean(true), Live)
        .help("ignore UDP Connection Requests without a Host header, which HTTP/1.1 requires"),
    key(CONNREQ, "accept_relative", Boolean, Preset::Boolean(false), Live)
        .help("accept UDP Connection Requests whose URI has neither scheme nor authority"),
    key(CONNREQ, "raw_fallback", Boolean, Preset::Boolean(false), Obsolete)
        .help("usernames that an ACS did not encode are always accepted if the signature matches"),
    key(CONNREQ, "ts_unit", Choice(&["seconds", "any"]), Preset::Text("seconds"), Live)
        .help("unit of ts in UDP Connection Requests; any: seconds or milliseconds"),
    key(CONNREQ, "allow_empty_password", Boolean, Preset::Boolean(false), Live)
        .help("accept UDP Connection Requests while ConnectionRequestPassword is empty; anybody can send one then"),
    key(CONNREQ, "keep_over_reboot", Boolean, Preset::Boolean(true), Start)
        .help("remember the last accepted UDP Connection Request across reboots, so that a replay is refused"),
    key(STUN, "default_period_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(30), Live)
        .unit("s")
        .help("keep-alive period if the NAT's timeout cannot be measured; limited by the ACS's minimum and maximum"),
    key(STUN, "shortest_period_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(1), Live)
        .unit("s")
        .help("lower limit of the keep-alive period, even if the ACS's minimum is lower"),
    key(STUN, "longest_period_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(3_600), Live)
        .unit("s")
        .help("upper limit of the keep-alive period if the ACS sets no maximum"),
    key(STUN, "longest_pause_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(600), Live)
        .unit("s")
        .help("longest pause between attempts while the STUN server does not answer or refuses"),
    key(STUN, "look_higher_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(86_400), Live)
        .unit("s")
        .help("interval between tests whether the NAT's timeout has become longer"),
    key(STUN, "damping_s", Integer(0, SECONDS_MAXIMUM), Preset::Integer(300), Live)
        .unit("s")
        .help("longest delay of a notification while the binding changes often"),
    key(STUN, "mi_variants", Text(form::mi_variants), Preset::Text("A"), Live)
        .help("accepted forms of MESSAGE-INTEGRITY in responses: A (RFC 3489), B (no padding), E (length 0)"),
    key(STUN, "xor_mapped_address", Boolean, Preset::Boolean(false), Live).help(
        "use XOR-MAPPED-ADDRESS if a STUN server sends no MAPPED-ADDRESS; requests carry the magic cookie of RFC \
             5389",
    ),
    key(DEVICE, "interface", Text(form::interface), Preset::Text("auto"), Start)
        .help("interface towards the gateway; auto: the interface of the default route, not allowed in mode dhcp"),
    key(DEVICE, "mode", Choice(&["inform", "dhcp", "off"]), Preset::Text("inform"), Start)
        .help("inform: send INFORM next to another DHCP client; dhcp: act as the DHCP client; off: no DHCP"),
    key(DEVICE, "inform_interval_s", Integer(60, SECONDS_MAXIMUM), Preset::Integer(3_600), Start)
        .unit("s")
        .help("time from an ACK to the next INFORM"),
    key(DEVICE, "manufacturer_oui", Text(form::oui), Preset::Unset, Start)
        .help("DeviceInfo.ManufacturerOUI of this device, six hexadecimal digits"),
    key(DEVICE, "serial_number", Text(form::serial_number), Preset::Unset, Start)
        .help("DeviceInfo.SerialNumber of this device, 1 to 64 bytes"),
    key(DEVICE, "product_class", Text(form::product_class), Preset::Text(""), Start)
        .help("DeviceInfo.ProductClass of this device, at most 64 bytes; empty: none"),
    key(DEVICE, "data_model", Choice(&["device1", "igd", "device2"]), Preset::Text("device1"), Start)
        .help("root of the data model: Device. (device1, device2) or InternetGatewayDevice. (igd)"),
    key(DEVICE, "connection_request_listen", Text(form::address_v4), Preset::Text("0.0.0.0:7547"), Start)
        .help("local address for UDP Connection Requests; also the source address of STUN requests"),
    key(ACS, "listen", Texts(form::address_v4), Preset::Texts(&["0.0.0.0:3478"]), Start)
        .help("addresses of the STUN server; also the source addresses of UDP Connection Requests"),
    key(ACS, "threads", Integer(0, 256), Preset::Integer(0), Start).help("threads per address; 0: one per core"),
    key(ACS, "approach", Choice(&["stun", "notification", "both"]), Preset::Text("both"), Live)
        .help("how bindings are learned: from STUN, from notifications of the CPEs, or both"),
    key(ACS, "challenge", Choice(&["change", "moved", "binding", "all"]), Preset::Text("moved"), Live).help(
        "unsigned Binding Requests that get a 401 if the CPE has a STUNPassword: change: with BINDING-CHANGE; \
             moved: also from a new address; binding: all with CONNECTION-REQUEST-BINDING; all: all, of any sender",
    ),
    key(ACS, "mi_variants", Text(form::mi_variants), Preset::Text("A,B,E"), Live)
        .help("accepted forms of MESSAGE-INTEGRITY in requests: A (RFC 3489), B (no padding), E (length 0)"),
    key(ACS, "response_address", Choice(&["own", "any", "off"]), Preset::Text("own"), Live).help(
        "accepted targets of RESPONSE-ADDRESS: own: other ports of the sender; any: any address (a reflector); \
             off: none",
    ),
    key(ACS, "dup", Choice(&["replay", "drop"]), Preset::Text("replay"), Live)
        .help("copies of a request within 10 s get its answer again, or are ignored"),
    key(ACS, "source_pps", Integer(0, 1_000_000), Preset::Integer(500), Live)
        .unit("requests/s")
        .help("Binding Requests a second of one source address; beyond it, each CPE that is known to be there is heard 20 times a second, and all of them together four times the limit; 0: no limit"),
    key(ACS, "max_cpes", Integer(1, 16_000_000), Preset::Integer(2_000_000), Live)
        .unit("CPEs")
        .help("CPEs of the registry, beyond which none is added; some 320 bytes of memory each, and 600 more while they are imported"),
    key(ACS, "xdp", Texts(form::interface), Preset::Texts(&[]), Start)
        .help("interfaces where XDP answers plain Binding Requests and keep-alives, before any firewall rule"),
    key(ACS, "registry", Text(form::registry), Preset::Text("embedded"), Start).help(
        "registry of CPEs: embedded (a file in state_dir), or redis://HOST[:PORT][/DB], shared by several \
             servers; rediss:// for TLS",
    ),
    key(ACS, "registry_password_file", Text(form::any), Preset::Text(""), Start)
        .help("file with the password of the Redis server; empty: no password"),
    key(ACS, "registry_ca_file", Text(form::any), Preset::Text(""), Start)
        .help("with rediss://, PEM file with the trusted CA certificates; empty: those of the system"),
    key(ACS, "registry_certificate_file", Text(form::any), Preset::Text(""), Start)
        .help("with rediss://, PEM file with the client certificate chain; empty: none"),
    key(ACS, "registry_key_file", Text(form::any), Preset::Text(""), Start)
        .help("PEM file with the private key of acs.registry_certificate_file"),
    key(ACS, "registry_encryption_key_file", Text(form::any), Preset::Text(""), Start).help(
        "file with the key that encrypts the passwords of CPEs, 64 hexadecimal digits; empty: passwords are \
             stored in clear",
    ),
    key(ACS, "api", Text(form::address_or_off), Preset::Text("127.0.0.1:8111"), Start)
        .help("address of the HTTP API; empty: off"),
    key(ACS, "api_token_file", Text(form::any), Preset::Text(""), Start).help(
        "file with the bearer token of the HTTP API; empty: api.token in state_dir, created at the first start; \
             none: no token, every local user has access",
    ),
    key(ACS, "api_certificate_file", Text(form::any), Preset::Text(""), Start)
        .help("PEM file with the certificate chain of the HTTP API; empty: no TLS"),
    key(ACS, "api_key_file", Text(form::any), Preset::Text(""), Start)
        .help("PEM file with the private key of the HTTP API"),
    key(ACS_ASSOCIATION, "validation", Boolean, Preset::Boolean(true), Live)
        .help("check the gateway that a device reports against the ManageableDevice table of that gateway"),
    key(ACS_ASSOCIATION, "notification_delay_s", Integer(0, 86_400), Preset::Integer(0), Live).unit("s").help(
        "longest delay of a gateway's notifications; a device may be missing from the gateway's table for as long",
    ),
    key(ACS_ASSOCIATION, "max_devices", Integer(1, UNSIGNED_INT), Preset::Integer(4_000_000), Live)
        .help("maximum devices that are associated with a gateway"),
    key(ACS_ASSOCIATION, "max_claims", Integer(1, UNSIGNED_INT), Preset::Integer(65_536), Live)
        .help("maximum unconfirmed reports of devices; a new one replaces the oldest"),
    key(ACS_ASSOCIATION, "max_table_rows", Integer(1, UNSIGNED_INT), Preset::Integer(65_536), Live)
        .help("maximum rows of the ManageableDevice table of one gateway"),
    key(ACS_ASSOCIATION, "max_kept_rows", Integer(1, UNSIGNED_INT), Preset::Integer(4_000_000), Live)
        .help("maximum rows of all ManageableDevice tables together; a new table replaces the oldest"),
    key(AGENT, "state_dir", Text(form::path), Preset::Text("/var/lib/tr111"), Start)
        .help("directory of the persistent state"),
    key(AGENT, "store_interval_ms", Integer(0, 86_400_000), Preset::Integer(100), Live).unit("ms").help(
        "longest delay before lease renewals are written to the store, in batches; other changes are not delayed",
    ),
    key(AGENT, "pin_dir", Text(form::path), Preset::Text("/sys/fs/bpf/tr111"), Start)
        .help("directory in a bpffs for pinned programs and maps; each agent on a machine needs its own"),
    key(AGENT, "control", Text(form::path), Preset::Text("/run/tr111/control.sock"), Start)
        .help("path of the control socket"),
    key(AGENT, "metrics", Text(form::address_or_off), Preset::Text("127.0.0.1:9111"), Start)
        .help("address of /metrics, /healthz and /readyz; empty: off"),
    key(AGENT, "log", Text(form::log), Preset::Text("info"), Live)
        .help("log level: error, warn, info, debug or trace; or directives such as info,tr111=debug"),
    key(AGENT, "xdp_mode", Choice(&["auto", "native", "generic", "tc"]), Preset::Text("auto"), Start).help(
        "how programs attach at LAN ingress; auto: native XDP if possible, else TC; generic: generic XDP, copies \
             every frame",
    ),
    key(AGENT, "tc_order", Choice(&["first", "last"]), Preset::Text("first"), Start).help(
        "first: TC programs run before other programs and restore this order; last: after other programs at \
             egress",
    ),
    key(AGENT, "log_programs", Boolean, Preset::Boolean(false), Start)
        .help("log the diagnostics of the kernel programs"),
    key(AGENT, "detach_on_exit", Boolean, Preset::Boolean(false), Start)
        .help("detach the kernel programs when the agent stops"),
];
