//! What clients and agent say to each other, and what `--json` prints: the types below serialise to the JSON of the
//! documentation, word for word. Unknown is `null`, never a missing key; times are RFC 3339 in UTC.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
#[cfg(feature = "acs")]
use utoipa::ToSchema;

mod acs;

pub use acs::{AcsStatus, Alarm, BulkProgress, BulkSummary, NewCpe, RegisteredCpe, SentRequest, WeakCpe};

/// Version of this protocol. Agent and client of different versions do not talk.
pub const VERSION: u32 = 1;

/// What a client asks. The first is always [`Request::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Opens the conversation.
    Hello {
        /// The client's [`VERSION`].
        version: u32,
    },
    /// The state of the agent.
    Status,
    /// Every ManageableDevice row.
    Devices,
    /// NAT bindings: the agent's own.
    Bindings,
    /// Parameters of the data model.
    Get {
        /// Full paths, or partial ones that end in a dot.
        paths: Vec<String>,
    },
    /// Sets parameters of the data model, all or none.
    Set {
        /// Pairs of path and value.
        parameters: Vec<(String, String)>,
        /// The ACS does it, and is not told of what it knows.
        by_acs: bool,
    },
    /// Sets the notification attribute of parameters.
    Notify {
        /// A full path, or a partial one that ends in a dot.
        path: String,
        /// The attribute.
        attribute: Attribute,
    },
    /// Notifications, in order: first those that nobody acknowledged, then those to come.
    Subscribe {
        /// Those from this sequence number on.
        from_sequence: u64,
    },
    /// The ACS has a notification and all before it. Due at the start of the session that tells of them: a Connection
    /// Request that is accepted later raises another notification (TR-069 3.2.2).
    Acknowledge {
        /// Its sequence number.
        sequence: u64,
    },
    /// What the agent counts.
    Counters,
    /// Everything that happens from now on.
    Watch {
        /// First every row that exists.
        devices: bool,
    },
    /// The knobs.
    Knobs,
    /// Changes knobs, all or none.
    Tune {
        /// Pairs of key and value.
        settings: Vec<(String, String)>,
    },
    /// Takes the programs off and stops the agent.
    Detach {
        /// Only if the agent works with this directory.
        pin_dir: Option<PathBuf>,
    },
    /// An ACS sends a Connection Request to one of its CPEs.
    Send {
        /// `STUNUsername`
        username: String,
        /// Copies of it.
        copies: usize,
    },
    /// An ACS sends a Connection Request to an address.
    SendTo {
        /// `HOST` or `HOST:PORT`.
        to: String,
        /// `ConnectionRequestUsername`
        user: String,
        /// `ConnectionRequestPassword`
        password: String,
        /// Copies of it.
        copies: usize,
    },
    /// An ACS sends Connection Requests to many of its CPEs. The client goes, and it ends.
    SendMany {
        /// Their `STUNUsername`s; `None`: all.
        usernames: Option<Vec<String>>,
        /// CPEs a second.
        rate: u32,
        /// Copies of each.
        copies: usize,
    },
    /// Adds CPEs to the registry: those of this message and of those before it that had `more`, all or none.
    AddCpes {
        /// Some of them.
        cpes: Vec<NewCpe>,
        /// Others follow.
        more: bool,
        /// CPEs that are there get the credentials of the message, instead of being refused. The last message decides.
        #[serde(default)]
        upsert: bool,
    },
    /// Takes a CPE out of the registry.
    RemoveCpe {
        /// Its STUNUsername.
        username: String,
    },
    /// Has the next Binding Request of a CPE signed.
    VerifyCpe {
        /// Its STUNUsername.
        username: String,
    },
    /// Forgets the `ts` of the last Connection Request.
    ResetTimestamp {
        /// STUNUsername of the CPE; `None`: of all, and the clock is taken for good as it is.
        username: Option<String>,
    },
    /// CPEs of the registry, without passwords.
    Cpes,
    /// What was provisioned of them, passwords included.
    CpeCredentials,
    /// What is weak in what was provisioned.
    LintCpes,
    /// On an ACS: which gateway each device is behind.
    Associations,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The conversation is open.
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
        /// Its role.
        role: String,
    },
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Devices`] and [`Request::Watch`]: some rows. A row that does not fit is continued in the next
    /// message, with the same instance number.
    Devices {
        /// Rows, by rising instance number.
        devices: Vec<Device>,
        /// Others follow.
        more: bool,
    },
    /// To [`Request::Bindings`]: some bindings.
    Bindings {
        /// Bindings, this machine's own first.
        bindings: Vec<NatBinding>,
        /// Others follow.
        more: bool,
    },
    /// To [`Request::Get`]: some parameters.
    Parameters {
        /// Parameters, in the order of the request.
        parameters: Vec<Parameter>,
        /// Others follow.
        more: bool,
    },
    /// To [`Request::Counters`].
    Counters {
        /// Every counter among the metrics.
        counters: Vec<Counter>,
    },
    /// To [`Request::Get`] and [`Request::Set`]: a fault of TR-069.
    Fault {
        /// Its number.
        code: u16,
        /// Its name.
        name: String,
        /// The path that caused it.
        path: String,
    },
    /// To [`Request::Watch`]: something happened.
    Event(Event),
    /// To [`Request::Watch`]: the client was too slow, and this many events are not coming.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// To [`Request::Knobs`].
    Knobs {
        /// Every knob.
        knobs: Vec<Knob>,
    },
    /// To [`Request::Send`] and [`Request::SendTo`].
    Sent(Box<SentRequest>),
    /// To [`Request::SendMany`]: it goes on.
    Progress(BulkProgress),
    /// To [`Request::SendMany`]: all have left.
    Summary(BulkSummary),
    /// To [`Request::Associations`]: some devices.
    Associations {
        /// Devices, in the order of their identities.
        associations: Vec<Association>,
        /// Others follow.
        more: bool,
    },
    /// It is done.
    Done,
    /// It is not done.
    Refused {
        /// Why, as a class.
        refusal: Refusal,
        /// Why, in words.
        reason: String,
    },
    /// To [`Request::Cpes`]: some CPEs.
    Cpes {
        /// CPEs, in no order.
        cpes: Vec<RegisteredCpe>,
        /// Others follow.
        more: bool,
    },
    /// To [`Request::CpeCredentials`]: some CPEs.
    CpeCredentials {
        /// CPEs, in no order.
        cpes: Vec<NewCpe>,
        /// Others follow.
        more: bool,
    },
    /// To [`Request::LintCpes`]: some findings.
    WeakCpes {
        /// Findings, those of a CPE one after the other.
        findings: Vec<WeakCpe>,
        /// Others follow.
        more: bool,
    },
}

/// A notification attribute (TR-069 A.3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// A change is not told.
    Off,
    /// A change is told in the next session.
    Passive,
    /// A change opens a session.
    Active,
}

/// Classes of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Client and agent are of different versions.
    Version,
    /// The client's user may not.
    NotPermitted,
    /// Too many clients, or too many of their kind.
    Busy,
    /// A message that is none, or came out of order.
    BadRequest,
    /// The agent did not answer in time.
    Deadline,
    /// The agent could not do it.
    Failed,
}

/// One ManageableDevice row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Instance number.
    pub instance: u32,
    /// Six upper-case hexadecimal digits.
    pub manufacturer_oui: String,
    /// 1 to 64 bytes.
    pub serial_number: String,
    /// At most 64 bytes; empty where the device gives none.
    pub product_class: String,
    /// When the row came.
    pub first_seen: String,
    /// When the device last spoke.
    pub last_seen: String,
    /// Where the device is; at least one.
    pub bindings: Vec<Binding>,
}

/// One client that has the identity of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Hardware address, lower-case, colons between bytes.
    pub mac: String,
    /// Hardware address of the last ARP message from `ip`, at most a probe interval old: another one than `mac` where a
    /// repeater stands in front of the client. `null` until one came.
    pub answered_by: Option<String>,
    /// Client identifier in hexadecimal digits.
    pub client_id: Option<String>,
    /// IPv4 address.
    pub ip: String,
    /// Name of the LAN interface.
    pub interface: String,
    /// VLAN identifiers, outermost first.
    pub vlan: Vec<u16>,
    /// `request` or `inform`.
    pub source: String,
    /// When the lease ends.
    pub lease_expires: Option<String>,
}

/// A NAT binding on which a CPE hears UDP Connection Requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct NatBinding {
    /// `STUNUsername`, where there is one.
    #[cfg_attr(feature = "acs", schema(required))]
    pub username: Option<String>,
    /// Public address and port.
    pub address: String,
    /// Whether the last word of it was signed.
    pub authenticated: bool,
    /// Since when it is what it is.
    #[cfg_attr(feature = "acs", schema(required))]
    pub changed: Option<String>,
    /// When it was last heard of.
    #[cfg_attr(feature = "acs", schema(required))]
    pub last_seen: Option<String>,
    /// Seconds from one keep-alive to the next.
    #[cfg_attr(feature = "acs", schema(required))]
    pub period_s: Option<u64>,
    /// On a gateway: the device that it belongs to.
    #[cfg_attr(feature = "acs", schema(required))]
    pub device: Option<String>,
    /// On a gateway: seconds until the NAT forgets it.
    #[cfg_attr(feature = "acs", schema(required))]
    pub timeout_s: Option<u64>,
    /// On a gateway: whether that was made longer.
    #[cfg_attr(feature = "acs", schema(required))]
    pub extended: Option<bool>,
    /// Why it was not.
    #[cfg_attr(feature = "acs", schema(required))]
    pub why: Option<String>,
    /// On an ACS, from where it is known: `authenticated` (a signed Binding Request), `reported` (a notification) or
    /// `tentative` (an unsigned one).
    #[cfg_attr(feature = "acs", schema(required))]
    pub way: Option<String>,
}

/// One parameter of the data model, as TR-069 has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Full path.
    pub name: String,
    /// Value as CWMP text.
    pub value: String,
    /// `string`, `unsignedInt`, `int`, `boolean`, `dateTime`, or `object` for an object without a value.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether `SetParameterValues` may write it.
    pub writable: bool,
    /// `off`, `passive` or `active`.
    pub notification: String,
}

/// A counter, as the metrics have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Name of the metric.
    pub name: String,
    /// Names and values of its labels.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: u64,
}

/// The state of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `gateway`.
    pub role: String,
    /// Version of the agent.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started: String,
    /// Seconds since.
    pub uptime_s: u64,
    /// Where programs are attached.
    pub interfaces: Vec<Interface>,
    /// The ManageableDevice table.
    pub table: Table,
    /// Rings between the programs and the agent.
    pub rings: Vec<Ring>,
    /// Last notification to the ACS.
    pub last_notification: Option<String>,
    /// Why the store was started empty, and everything is learned anew; nothing where it was not.
    #[serde(default)]
    pub store_relearned: Option<String>,
    /// Directory of what is pinned.
    pub pin_dir: PathBuf,
    /// Address of the metrics.
    pub metrics: Option<String>,
    /// Who hears TCP Connection Requests: `external`, or `builtin` with its address.
    pub tcp_connection_requests: String,
    /// On a gateway: what happens to NAT timeouts of flows by which devices wait for Connection Requests.
    pub nat_timeouts: Option<String>,
    /// On a gateway: alarms that stand.
    pub alarms: Vec<StandingAlarm>,
    /// What only an ACS has.
    pub acs: Option<AcsStatus>,
}

/// An interface with programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `lan` or `wan`.
    pub side: String,
    /// `up`, `down` (no carrier), `detached` (the programs are not on it) or `gone`.
    pub state: String,
    /// What is attached.
    pub hooks: Vec<Hook>,
}

/// An attached program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its name.
    pub program: String,
    /// `native`, `generic` or `tc`.
    pub mode: String,
    /// At TC: programs and filters of others that run before it, and may end the chain.
    pub in_front: Vec<String>,
    /// At TC: those that run after it, and may still drop a frame that it saw.
    pub behind: Vec<String>,
}

/// An alarm of a gateway that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingAlarm {
    /// What, as in the metric.
    pub alarm: String,
    /// The interface that it is about.
    pub interface: String,
    /// Since when.
    pub since: String,
    /// Why, in words.
    pub detail: String,
}

/// The size of the ManageableDevice table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Rows.
    pub rows: u64,
    /// Bindings of all rows.
    pub bindings: u64,
    /// Rows that it takes.
    pub max_rows: u64,
    /// Clients that changed too often, and wait for their next row.
    #[serde(default)]
    pub waiting: u64,
}

/// A ring between the programs and the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// `lan`.
    pub name: String,
    /// Events that it took.
    pub events: u64,
    /// Events that found it full.
    pub lost: u64,
}

/// A configuration key as `tr111 tune` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knob {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Its preset.
    pub default: Option<String>,
    /// What it may hold.
    pub range: String,
    /// Unit of a number.
    pub unit: Option<String>,
    /// Where the value is from.
    pub origin: String,
    /// What it does.
    pub help: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// A row came, with its first binding.
    DeviceAdded(Change),
    /// A row went, with its last binding.
    DeviceRemoved(Removal),
    /// A client gave an identity, has its address, and gets no row.
    DeviceRefused(Refused),
    /// A row has one binding more.
    DeviceBindingAdded(Change),
    /// A row has one binding less, and others left.
    DeviceBindingRemoved(Removal),
    /// The ACS is to be told of something.
    Notification(Notification),
    /// The agent is reached by another address.
    BindingChanged(BindingChange),
    /// A Connection Request came; or an ACS sent one, from the address `from`.
    ConnectionRequest(ConnectionRequest),
    /// Somebody should look at something.
    Alarm(Alarm),
    /// On an ACS: something else is held of a device and its gateway.
    Association(Box<AssociationChange>),
}

/// Where Connection Requests reach the agent, or on an ACS one of its CPEs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingChange {
    /// `UDPConnectionRequestAddress`; nothing while the agent has no address, or where a CPE reported an empty one.
    pub address: Option<String>,
    /// `NATDetected`, where it is known.
    pub nat_detected: Option<bool>,
    /// On an ACS: `STUNUsername` of the CPE.
    pub username: Option<String>,
    /// On an ACS: whether a signed Binding Request told of it.
    pub authenticated: Option<bool>,
}

/// By which way a Connection Request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TR-111 Part 2
    Udp,
    /// TR-069 3.2.2
    Tcp,
}

/// What became of a Connection Request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRequest {
    /// `accepted`, or why it was ignored or refused, as in the metric of this way.
    pub result: String,
    /// Address and port that it came from, as far as one may believe that.
    pub from: String,
    /// Requests before it that were ignored and are not shown, because there were too many.
    pub omitted: u64,
    /// By which way.
    pub transport: Transport,
    /// On an ACS, which sent it: `STUNUsername` of the CPE, where the registry has it.
    pub username: Option<String>,
    /// On an ACS: where it was sent.
    pub to: Option<String>,
}

/// Who a device or a gateway is (TR-111 1.2.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct Identity {
    /// Six upper-case hexadecimal digits.
    pub manufacturer_oui: String,
    /// 1 to 64 bytes.
    pub serial_number: String,
    /// At most 64 bytes; empty where there is none.
    pub product_class: String,
}

/// What an ACS holds of a device and its gateway (TR-111 1.2.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct Association {
    /// The device.
    pub device: Identity,
    /// The gateway that it is associated with.
    #[cfg_attr(feature = "acs", schema(required))]
    pub gateway: Option<Identity>,
    /// Whether that gateway's table confirmed it.
    #[cfg_attr(feature = "acs", schema(required))]
    pub validated: Option<bool>,
    /// Since when.
    #[cfg_attr(feature = "acs", schema(required))]
    pub since: Option<String>,
    /// What the device says otherwise.
    #[cfg_attr(feature = "acs", schema(required))]
    pub claim: Option<Claim>,
}

/// What a device says, and nothing confirms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct Claim {
    /// The gateway that it names.
    pub gateway: Identity,
    /// `pending`, or `refused` where that gateway's table contradicts.
    pub state: String,
    /// Since when it says so.
    pub since: String,
}

/// Something else is held of a device and its gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssociationChange {
    /// `validated`, `unvalidated`, `pending`, `refused`, `unchanged` (a claim was given up) or `withdrawn`.
    pub result: String,
    /// Whether the device may have been forged.
    pub alarm: bool,
    /// The device.
    pub device: Identity,
    /// The gateway that it names.
    pub gateway: Identity,
    /// The gateway that it is associated with now.
    pub associated: Option<Identity>,
}

/// A device without a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// `denied`, `table_full`, `mac_cap` or `row_cap`, as in the metric of identities.
    pub result: String,
    /// Six upper-case hexadecimal digits.
    pub manufacturer_oui: String,
    /// 1 to 64 bytes.
    pub serial_number: String,
    /// At most 64 bytes; empty where the device gives none.
    pub product_class: String,
    /// What would have been its binding.
    pub bindings: Vec<Binding>,
}

/// What the ACS is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Grows by one; what `tr111 ack` takes.
    pub sequence: u64,
    /// `4 VALUE CHANGE`
    pub kind: String,
    /// What changed since the last notification.
    pub parameters: Vec<ChangedParameter>,
}

/// A parameter in a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedParameter {
    /// Full path.
    pub name: String,
    /// Value as CWMP text.
    pub value: String,
}

/// A row, and the binding by which it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Instance number.
    pub instance: u32,
    /// Six upper-case hexadecimal digits.
    pub manufacturer_oui: String,
    /// 1 to 64 bytes.
    pub serial_number: String,
    /// At most 64 bytes; empty where the device gives none.
    pub product_class: String,
    /// The binding that came or went.
    pub bindings: Vec<Binding>,
}

/// A change, and its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// `released`, `expired`, `declined`, `refused`, `disconnected`, `identity_changed` or `denied`.
    pub reason: String,
    /// What went.
    #[serde(flatten)]
    pub change: Change,
}

impl From<Device> for Change {
    fn from(device: Device) -> Self {
        let Device { instance, manufacturer_oui, serial_number, product_class, bindings, .. } = device;
        Self { instance, manufacturer_oui, serial_number, product_class, bindings }
    }
}
