//! Every configuration key once: its form, default, range and meaning. The file parser, the flags, `tr111 tune`,
//! `tr111 check` and the man page all read this table.

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

/// As `tr111 tune` takes it: lists with commas.
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

/// What a key holds unless somebody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// No value; the role that needs the key says so.
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

/// Judges a string and gives it in its canonical form, or says what was expected.
pub type Rule = fn(&str) -> Result<String, String>;

/// What a key may hold.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// A string that the rule accepts.
    Text(Rule),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number in this range, both ends included.
    Integer(i64, i64),
    /// `true` or `false`.
    Boolean,
    /// Strings that the rule accepts.
    Texts(Rule),
    /// At most so many whole numbers in this range, both ends included.
    Integers(usize, i64, i64),
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At the next start.
    Start,
    /// At once, by `tr111 tune` or when SIGHUP reloads the file.
    Live,
    /// Never: accepted and checked, so that the files of earlier versions stay valid, with a warning where it is set.
    Obsolete,
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name of its table in the file.
    pub section: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it may hold.
    pub form: Form,
    /// What it holds unless somebody says otherwise.
    pub preset: Preset,
    /// Unit of a number; empty where it counts things.
    pub unit: &'static str,
    /// When a change takes effect.
    pub effect: Effect,
    /// What it does.
    pub help: &'static str,
}

impl Key {
    /// The name by which `tr111 tune` knows it.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The preset as a value.
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

    /// What the key may hold, in words.
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
/// Each row may have two clients, and all clients have to fit the kernel's map of them.
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

/// Every key, in the order in which it is shown.
pub const KEYS: &[Key] = &[
    key(GATEWAY, "lan", Texts(form::interface), Preset::Texts(&[]), Start)
        .help("interfaces that face the devices; of a bridge, the bridge itself, not its ports"),
    key(GATEWAY, "bridge_ports", Boolean, Preset::Boolean(true), Start)
        .help("watch what a bridge in lan forwards from port to port: the replies of a DHCP server behind a port"),
    key(GATEWAY, "wan", Texts(form::interface), Preset::Texts(&[]), Start).help("interfaces that face the ACS"),
    key(GATEWAY, "manufacturer_oui", Text(form::oui), Preset::Unset, Start)
        .help("DeviceInfo.ManufacturerOUI of this gateway: six hexadecimal digits"),
    key(GATEWAY, "serial_number", Text(form::serial_number), Preset::Unset, Start)
        .help("DeviceInfo.SerialNumber of this gateway: 1 to 64 bytes"),
    key(GATEWAY, "product_class", Text(form::product_class), Preset::Text(""), Start)
        .help("DeviceInfo.ProductClass of this gateway: at most 64 bytes; empty: it has none"),
    key(GATEWAY, "data_model", Choice(&["igd", "device2"]), Preset::Text("igd"), Start)
        .help("root of the data model: InternetGatewayDevice. or Device."),
    key(GATEWAY, "connection_request_listen", Text(form::address_v4), Preset::Text("0.0.0.0:7547"), Start)
        .help("where UDP Connection Requests arrive; STUN leaves from here"),
    key(ASSOCIATION, "max_rows", Integer(1, MAX_ROWS), Preset::Integer(MAX_ROWS), Live)
        .help("rows of the ManageableDevice table; a full table refuses newcomers"),
    key(ASSOCIATION, "deny", Texts(form::deny), Preset::Texts(&[]), Live)
        .help("devices that get no row: OUI/SERIAL, OUI/SERIAL/CLASS or a MAC address"),
    key(ASSOCIATION, "max_identities_per_mac", Integer(1, 65_535), Preset::Integer(16), Live)
        .help("identities that one MAC address may hold at a time"),
    key(ASSOCIATION, "max_bindings_per_row", Integer(1, 65_535), Preset::Integer(32), Live)
        .help("DHCP clients that one identity may have at a time; a full row refuses newcomers"),
    key(ASSOCIATION, "dialect", Choice(&["auto", "tr111", "tr124"]), Preset::Text("auto"), Live)
        .help("how sub-options of enterprise 3561 are read; auto takes client messages with code 4 as TR-124"),
    key(ASSOCIATION, "lenient_oui", Boolean, Preset::Boolean(false), Live)
        .help("accept an OUI of three raw bytes, or with separators"),
    key(ASSOCIATION, "enterprises", Integers(4, 1, UNSIGNED_INT), Preset::Integers(&[3561]), Live)
        .help("enterprise numbers whose elements are read"),
    key(ASSOCIATION, "accept_foreign_server", Boolean, Preset::Boolean(false), Live)
        .help("count acknowledgements of DHCP servers that are not this gateway"),
    key(ASSOCIATION, "mac_budget_pps", Integer(0, 1_000_000), Preset::Integer(10), Live)
        .unit("messages/s")
        .help("DHCP messages a second that one MAC address may bring to the agent; 0: no limit"),
    key(ASSOCIATION, "mac_budget_burst", Integer(1, 1_000_000), Preset::Integer(50), Live)
        .help("DHCP messages that one MAC address may bring at once"),
    key(ASSOCIATION, "relay_budget_pps", Integer(0, 1_000_000), Preset::Integer(1000), Live)
        .unit("messages/s")
        .help("DHCP messages a second that one relay may bring to the agent; 0: no limit"),
    key(ASSOCIATION, "expiry_grace_s", Integer(0, 60), Preset::Integer(1), Live)
        .unit("s")
        .help("how long after its end a lease still counts, for a renewal that is under way"),
    key(ASSOCIATION, "inform_maximum_age_s", Integer(0, SECONDS_MAXIMUM), Preset::Integer(0), Live)
        .unit("s")
        .help("age at which a binding that came by INFORM ends; 0: none"),
    key(ASSOCIATION, "nak_grace_s", Integer(0, 3_600), Preset::Integer(10), Live)
        .unit("s")
        .help("how long a row outlives a NAK, so that the client can ask again"),
    key(ASSOCIATION, "probe_interval_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(60), Live)
        .unit("s")
        .help("silence after which a device is probed, and how long one that does not answer is searched for"),
    key(ASSOCIATION, "probe_count", Integer(1, 100), Preset::Integer(3), Live)
        .help("unanswered probes after which other signs of life of a device are searched for"),
    key(BINDING, "extend_nat_timeout_s", Integer(0, SECONDS_MAXIMUM), Preset::Integer(300), Live)
        .unit("s")
        .help("NAT timeout of flows that carry STUN for Connection Requests; 0: off"),
    key(BINDING, "mark", Text(form::mark), Preset::Text("0x01000000/0x01000000"), Live)
        .help("packet mark of such flows, value/mask"),
    key(BINDING, "stun_ports", Integers(8, 1, 65_535), Preset::Integers(&[3478]), Live)
        .help("UDP ports on which STUN servers are expected"),
    key(POLICE, "wan_connreq_pps", Integer(0, UNSIGNED_INT), Preset::Integer(0), Live)
        .unit("packets/s")
        .help("Connection Requests a second from one source; 0: not policed"),
    key(POLICE, "lan_dhcp_pps", Integer(0, UNSIGNED_INT), Preset::Integer(0), Live)
        .unit("packets/s")
        .help("DHCP messages a second from one client; 0: not policed"),
    key(MANAGEMENT, "url", Text(form::any), Preset::Text(""), Start).help("ManagementServer.URL at the first start"),
    key(MANAGEMENT, "connection_request_username", Text(form::parameter), Preset::Text(""), Start)
        .help("ManagementServer.ConnectionRequestUsername at the first start"),
    key(MANAGEMENT, "connection_request_password_file", Text(form::any), Preset::Text(""), Start)
        .help("file with ManagementServer.ConnectionRequestPassword"),
    key(MANAGEMENT, "tcp_connection_requests", Choice(&["external", "builtin"]), Preset::Text("external"), Start)
        .help("who listens for TCP Connection Requests: another process; or this one, at connection_request_listen"),
    key(MANAGEMENT, "stun_enable", Boolean, Preset::Boolean(false), Start)
        .help("ManagementServer.STUNEnable at the first start"),
    key(MANAGEMENT, "stun_server_address", Text(form::parameter), Preset::Text(""), Start)
        .help("ManagementServer.STUNServerAddress at the first start; empty: the host of the ACS URL"),
    key(MANAGEMENT, "stun_server_port", Integer(0, 65_535), Preset::Integer(3478), Start)
        .help("ManagementServer.STUNServerPort at the first start"),
    key(MANAGEMENT, "stun_username", Text(form::parameter), Preset::Text(""), Start)
        .help("ManagementServer.STUNUsername at the first start"),
    key(MANAGEMENT, "stun_password_file", Text(form::any), Preset::Text(""), Start)
        .help("file with ManagementServer.STUNPassword"),
    key(MANAGEMENT, "stun_maximum_keep_alive_period", Integer(-1, i32::MAX as i64), Preset::Integer(-1), Start)
        .unit("s")
        .help("ManagementServer.STUNMaximumKeepAlivePeriod at the first start; -1: none"),
    key(MANAGEMENT, "stun_minimum_keep_alive_period", Integer(0, UNSIGNED_INT), Preset::Integer(30), Start)
        .unit("s")
        .help("ManagementServer.STUNMinimumKeepAlivePeriod at the first start"),
    key(CONNREQ, "require_host", Boolean, Preset::Boolean(true), Live)
        .help("ignore UDP Connection Requests without the header Host, as HTTP/1.1 asks for"),
    key(CONNREQ, "accept_relative", Boolean, Preset::Boolean(false), Live)
        .help("take UDP Connection Requests whose URI has neither scheme nor authority"),
    key(CONNREQ, "raw_fallback", Boolean, Preset::Boolean(false), Obsolete)
        .help("usernames that an ACS did not encode are accepted where the signature proves them"),
    key(CONNREQ, "ts_unit", Choice(&["seconds", "any"]), Preset::Text("seconds"), Live)
        .help("unit of ts in UDP Connection Requests; any: milliseconds, too"),
    key(CONNREQ, "allow_empty_password", Boolean, Preset::Boolean(false), Live)
        .help("accept UDP Connection Requests while ConnectionRequestPassword is empty: from anybody"),
    key(CONNREQ, "keep_over_reboot", Boolean, Preset::Boolean(true), Start)
        .help("remember the last accepted UDP Connection Request over a reboot, so that it is not accepted again"),
    key(STUN, "default_period_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(30), Live)
        .unit("s")
        .help("keep-alive period where none can be learned; the ACS's minimum and maximum bound it"),
    key(STUN, "shortest_period_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(1), Live)
        .unit("s")
        .help("no keep-alive period is shorter, whatever the ACS's minimum says"),
    key(STUN, "longest_period_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(3_600), Live)
        .unit("s")
        .help("no keep-alive period is longer where the ACS sets no maximum"),
    key(STUN, "longest_pause_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(600), Live)
        .unit("s")
        .help("longest pause between attempts to reach a STUN server that is silent or refuses"),
    key(STUN, "look_higher_s", Integer(1, SECONDS_MAXIMUM), Preset::Integer(86_400), Live)
        .unit("s")
        .help("how often it is looked whether the NAT's timeout grew"),
    key(STUN, "damping_s", Integer(0, SECONDS_MAXIMUM), Preset::Integer(300), Live)
        .unit("s")
        .help("longest delay of a notification because the binding is likely to change again soon"),
    key(STUN, "mi_variants", Text(form::mi_variants), Preset::Text("A"), Live)
        .help("forms of MESSAGE-INTEGRITY that answers may have: A (RFC 3489), B (no padding), E (length 0)"),
    key(STUN, "xor_mapped_address", Boolean, Preset::Boolean(false), Live)
        .help("take XOR-MAPPED-ADDRESS from STUN servers that send no MAPPED-ADDRESS; requests carry the cookie of RFC 5389"),
    key(DEVICE, "interface", Text(form::interface), Preset::Text("auto"), Start)
        .help("interface that faces the gateway; auto: whichever has the default route, not in mode dhcp"),
    key(DEVICE, "mode", Choice(&["inform", "dhcp", "off"]), Preset::Text("inform"), Start)
        .help("INFORM beside an existing DHCP client, a full exchange, or no DHCP"),
    key(DEVICE, "inform_interval_s", Integer(60, SECONDS_MAXIMUM), Preset::Integer(3_600), Start)
        .unit("s")
        .help("time from an answer to the next INFORM"),
    key(DEVICE, "manufacturer_oui", Text(form::oui), Preset::Unset, Start)
        .help("DeviceInfo.ManufacturerOUI of this device: six hexadecimal digits"),
    key(DEVICE, "serial_number", Text(form::serial_number), Preset::Unset, Start)
        .help("DeviceInfo.SerialNumber of this device: 1 to 64 bytes"),
    key(DEVICE, "product_class", Text(form::product_class), Preset::Text(""), Start)
        .help("DeviceInfo.ProductClass of this device: at most 64 bytes; empty: it has none"),
    key(DEVICE, "data_model", Choice(&["device1", "igd", "device2"]), Preset::Text("device1"), Start)
        .help("root of the data model"),
    key(DEVICE, "connection_request_listen", Text(form::address_v4), Preset::Text("0.0.0.0:7547"), Start)
        .help("where UDP Connection Requests arrive; STUN leaves from here"),
    key(ACS, "listen", Texts(form::address_v4), Preset::Texts(&["0.0.0.0:3478"]), Start)
        .help("addresses of the STUN server, from which Connection Requests leave, too"),
    key(ACS, "threads", Integer(0, 256), Preset::Integer(0), Start)
        .help("threads that answer at each address; 0: one for each core"),
    key(ACS, "approach", Choice(&["stun", "notification", "both"]), Preset::Text("both"), Live)
        .help("how bindings are learned: by STUN, by what CPEs tell their ACS, or both"),
    key(ACS, "challenge", Choice(&["change", "moved", "binding", "all"]), Preset::Text("moved"), Live)
        .help("which unsigned Binding Requests of CPEs with a STUNPassword get 401: with BINDING-CHANGE; also from elsewhere than the last signed one; all with CONNECTION-REQUEST-BINDING; all of everybody"),
    key(ACS, "mi_variants", Text(form::mi_variants), Preset::Text("A,B,E"), Live)
        .help("forms of MESSAGE-INTEGRITY that requests may have: A (RFC 3489), B (no padding), E (length 0)"),
    key(ACS, "response_address", Choice(&["own", "any", "off"]), Preset::Text("own"), Live)
        .help("where RESPONSE-ADDRESS may have answers sent: other ports of the sender, anywhere (a reflector), nowhere"),
    key(ACS, "dup", Choice(&["replay", "drop"]), Preset::Text("replay"), Live)
        .help("copies of a request within 10 s get its answer again, or are ignored"),
    key(ACS, "source_pps", Integer(0, 1_000_000), Preset::Integer(500), Live)
        .unit("requests/s")
        .help("Binding Requests a second of one source address; beyond it, each CPE that is known to be there is heard 20 times a second, and all of them together four times the limit; 0: no limit"),
    key(ACS, "max_cpes", Integer(1, 16_000_000), Preset::Integer(2_000_000), Live)
        .unit("CPEs")
        .help("CPEs of the registry, beyond which none is added; some 320 bytes of memory each, and 600 more while they are imported"),
    key(ACS, "xdp", Texts(form::interface), Preset::Texts(&[]), Start)
        .help("interfaces at which plain Binding Requests and keep-alives are answered by XDP, before any firewall"),
    key(ACS, "registry", Text(form::registry), Preset::Text("embedded"), Start)
        .help("where CPEs are kept: embedded (a file in state_dir), or redis://HOST[:PORT][/DB], which servers share, or rediss:// for TLS"),
    key(ACS, "registry_password_file", Text(form::any), Preset::Text(""), Start)
        .help("file with the password of the Redis; empty: it asks for none"),
    key(ACS, "registry_ca_file", Text(form::any), Preset::Text(""), Start)
        .help("with rediss://, PEM file with the certificates of the authorities that are believed; empty: those of the system"),
    key(ACS, "registry_certificate_file", Text(form::any), Preset::Text(""), Start)
        .help("with rediss://, PEM file with our certificate chain, where the Redis asks for one"),
    key(ACS, "registry_key_file", Text(form::any), Preset::Text(""), Start)
        .help("PEM file with the private key of acs.registry_certificate_file"),
    key(ACS, "registry_encryption_key_file", Text(form::any), Preset::Text(""), Start)
        .help("file with 64 hexadecimal digits, the key under which passwords of CPEs are kept; empty: they are kept in clear"),
    key(ACS, "api", Text(form::address_or_off), Preset::Text("127.0.0.1:8111"), Start)
        .help("address of the HTTP interface; empty: off"),
    key(ACS, "api_token_file", Text(form::any), Preset::Text(""), Start)
        .help("file with the token of the HTTP interface; empty: api.token in state_dir, made at the first start; none: whoever is on this machine may ask"),
    key(ACS, "api_certificate_file", Text(form::any), Preset::Text(""), Start)
        .help("PEM file with the certificate chain of the HTTP interface; empty: no TLS"),
    key(ACS, "api_key_file", Text(form::any), Preset::Text(""), Start)
        .help("PEM file with the private key of the HTTP interface"),
    key(ACS_ASSOCIATION, "validation", Boolean, Preset::Boolean(true), Live)
        .help("hold what devices say of their gateway against the gateway's own table"),
    key(ACS_ASSOCIATION, "notification_delay_s", Integer(0, 86_400), Preset::Integer(0), Live)
        .unit("s")
        .help("how long gateways may delay notifications, and a device may be missing in a table for that"),
    key(ACS_ASSOCIATION, "max_devices", Integer(1, UNSIGNED_INT), Preset::Integer(4_000_000), Live)
        .help("most devices with a gateway"),
    key(ACS_ASSOCIATION, "max_claims", Integer(1, UNSIGNED_INT), Preset::Integer(65_536), Live)
        .help("most devices whose word nothing confirms; the oldest is forgotten for a new one"),
    key(ACS_ASSOCIATION, "max_table_rows", Integer(1, UNSIGNED_INT), Preset::Integer(65_536), Live)
        .help("most rows of one ManageableDevice table"),
    key(ACS_ASSOCIATION, "max_kept_rows", Integer(1, UNSIGNED_INT), Preset::Integer(4_000_000), Live)
        .help("most rows of all tables that are kept; the oldest table is forgotten for a new one"),
    key(AGENT, "state_dir", Text(form::path), Preset::Text("/var/lib/tr111"), Start).help("directory of the store"),
    key(AGENT, "store_interval_ms", Integer(0, 86_400_000), Preset::Integer(100), Live)
        .unit("ms")
        .help("how long renewals of leases wait to be written to the store together; nothing else waits"),
    key(AGENT, "pin_dir", Text(form::path), Preset::Text("/sys/fs/bpf/tr111"), Start)
        .help("directory in a bpffs for what outlives the agent; two agents on one box use two"),
    key(AGENT, "control", Text(form::path), Preset::Text("/run/tr111/control.sock"), Start).help("the control socket"),
    key(AGENT, "metrics", Text(form::address_or_off), Preset::Text("127.0.0.1:9111"), Start)
        .help("address of /metrics, /healthz and /readyz; empty: off"),
    key(AGENT, "log", Text(form::log), Preset::Text("info"), Live)
        .help("error, warn, info, debug or trace, or directives such as info,tr111=debug"),
    key(AGENT, "xdp_mode", Choice(&["auto", "native", "generic", "tc"]), Preset::Text("auto"), Start)
        .help("how LAN ingress attaches; auto: native XDP, else TC; generic copies every frame"),
    key(AGENT, "tc_order", Choice(&["first", "last"]), Preset::Text("first"), Start)
        .help("TC programs run before those of others, and take that place again; last: behind them at egress"),
    key(AGENT, "log_programs", Boolean, Preset::Boolean(false), Start)
        .help("write the kernel programs' diagnostics to the log"),
    key(AGENT, "detach_on_exit", Boolean, Preset::Boolean(false), Start)
        .help("take programs off the interfaces when the agent stops"),
];
