//! Messages of the control protocol. `tr111 ... --json` prints the same JSON.
//!
//! An unknown value is `null`; its key is never omitted. Times are RFC 3339 in UTC.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
#[cfg(feature = "acs")]
use utoipa::ToSchema;

mod acs;

pub use acs::{AcsStatus, Alarm, BulkProgress, BulkSummary, NewCpe, RegisteredCpe, SentRequest, WeakCpe};

/// Version of this protocol. An agent refuses a client of another version.
pub const VERSION: u32 = 1;

/// A request of a client. The first request of a connection is [`Request::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Opens the connection.
    Hello {
        /// The client's [`VERSION`].
        version: u32,
    },
    /// Reads the state of the agent.
    Status,
    /// Lists all ManageableDevice rows.
    Devices,
    /// Lists NAT bindings: those of the agent and, on a gateway, those of its LAN devices.
    Bindings,
    /// Reads parameters of the data model.
    Get {
        /// Full paths, or partial paths that end in a dot.
        paths: Vec<String>,
    },
    /// Writes parameters of the data model. If one cannot be written, none is.
    Set {
        /// Pairs of full path and value.
        parameters: Vec<(String, String)>,
        /// The ACS is the writer. The ACS gets no notification of a change that it made itself.
        by_acs: bool,
    },
    /// Sets the notification attribute of parameters.
    Notify {
        /// A full path, or a partial path that ends in a dot.
        path: String,
        /// The new attribute.
        attribute: Attribute,
    },
    /// Subscribes to notifications: first the unacknowledged ones, then new ones, in order of their sequence numbers.
    Subscribe {
        /// Lowest sequence number to send.
        from_sequence: u64,
    },
    /// Acknowledges a notification and all earlier ones; they are not sent again. A CWMP client sends this at the start
    /// of the session that reports them, because a Connection Request that is accepted later raises another
    /// notification (TR-069 3.2.2).
    Acknowledge {
        /// Sequence number of the notification.
        sequence: u64,
    },
    /// Reads all counters.
    Counters,
    /// Subscribes to events.
    Watch {
        /// Send all existing rows first.
        devices: bool,
    },
    /// Lists the configuration keys that can be changed at run time.
    Knobs,
    /// Changes configuration keys at run time. If one cannot be changed, none is.
    Tune {
        /// Pairs of key and value.
        settings: Vec<(String, String)>,
    },
    /// Detaches the kernel programs and stops the agent.
    Detach {
        /// Refuse the request if the agent uses another pin directory.
        pin_dir: Option<PathBuf>,
    },
    /// Makes an ACS send a UDP Connection Request to a registered CPE.
    Send {
        /// `STUNUsername`
        username: String,
        /// Identical copies of the datagram to send (TR-111 2.2.2.3).
        copies: usize,
    },
    /// Makes an ACS send a UDP Connection Request to an address.
    SendTo {
        /// `HOST` or `HOST:PORT`.
        to: String,
        /// `ConnectionRequestUsername`
        user: String,
        /// `ConnectionRequestPassword`
        password: String,
        /// Identical copies of the datagram to send (TR-111 2.2.2.3).
        copies: usize,
    },
    /// Makes an ACS send UDP Connection Requests to many registered CPEs. The job is cancelled when the client closes
    /// the connection.
    SendMany {
        /// `STUNUsername` of each CPE. `None`: all registered CPEs.
        usernames: Option<Vec<String>>,
        /// CPEs per second.
        rate: u32,
        /// Identical copies of each datagram.
        copies: usize,
    },
    /// Adds CPEs to the registry. A list that is longer than a message is sent in several messages, all but the last
    /// with `more`. If one CPE cannot be added, none is.
    AddCpes {
        /// A part of the list.
        cpes: Vec<NewCpe>,
        /// Another part follows.
        more: bool,
        /// Replace the credentials of CPEs that are registered already. Without it the whole list is refused. The value
        /// in the last message applies to the list.
        #[serde(default)]
        upsert: bool,
    },
    /// Removes a CPE from the registry.
    RemoveCpe {
        /// `STUNUsername` of the CPE.
        username: String,
    },
    /// Requires a CPE to sign its next Binding Request.
    VerifyCpe {
        /// `STUNUsername` of the CPE.
        username: String,
    },
    /// Forgets the `ts` of the last Connection Request. The next Connection Request carries the current time.
    ResetTimestamp {
        /// `STUNUsername` of the CPE. `None`: all CPEs; the ACS then also accepts its system clock as correct.
        username: Option<String>,
    },
    /// Lists the CPEs of the registry, without passwords.
    Cpes,
    /// Lists the credentials of all CPEs, passwords included.
    CpeCredentials,
    /// Lists weak or unusable credentials in the registry.
    LintCpes,
    /// Lists the gateway of each device. ACS only.
    Associations,
}

/// A reply of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The connection is open.
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
        /// Role of the agent: `gateway`, `device` or `acs`.
        role: String,
    },
    /// Reply to [`Request::Status`].
    Status(Box<Status>),
    /// Reply to [`Request::Devices`] and [`Request::Watch`]: a part of the table. A row that does not fit into the
    /// message is continued in the next one, with the same instance number.
    Devices {
        /// Rows in ascending order of instance numbers.
        devices: Vec<Device>,
        /// Another part follows.
        more: bool,
    },
    /// Reply to [`Request::Bindings`]: a part of the list.
    Bindings {
        /// NAT bindings. The agent's own binding is the first.
        bindings: Vec<NatBinding>,
        /// Another part follows.
        more: bool,
    },
    /// Reply to [`Request::Get`]: a part of the list.
    Parameters {
        /// Parameters in the order of the request.
        parameters: Vec<Parameter>,
        /// Another part follows.
        more: bool,
    },
    /// Reply to [`Request::Counters`].
    Counters {
        /// All counters of the metrics.
        counters: Vec<Counter>,
    },
    /// Reply to [`Request::Get`] and [`Request::Set`] that failed: a fault of TR-069 A.5.
    Fault {
        /// Fault code, such as 9005.
        code: u16,
        /// Name of the fault code.
        name: String,
        /// Path that caused the fault.
        path: String,
    },
    /// An event, sent after [`Request::Watch`] and [`Request::Subscribe`].
    Event(Event),
    /// Sent after [`Request::Watch`]: events were dropped because the client read too slowly.
    Lagged {
        /// Number of dropped events.
        missed: u64,
    },
    /// Reply to [`Request::Knobs`].
    Knobs {
        /// All keys that can be changed at run time.
        knobs: Vec<Knob>,
    },
    /// Reply to [`Request::Send`] and [`Request::SendTo`].
    Sent(Box<SentRequest>),
    /// Progress of [`Request::SendMany`]. Sent repeatedly.
    Progress(BulkProgress),
    /// Last reply to [`Request::SendMany`].
    Summary(BulkSummary),
    /// Reply to [`Request::Associations`]: a part of the list.
    Associations {
        /// Devices, sorted by identity.
        associations: Vec<Association>,
        /// Another part follows.
        more: bool,
    },
    /// The request succeeded, and there is no data to return.
    Done,
    /// The request was refused or failed.
    Refused {
        /// Class of the reason.
        refusal: Refusal,
        /// Reason as text for the user.
        reason: String,
    },
    /// Reply to [`Request::Cpes`]: a part of the list.
    Cpes {
        /// CPEs in no particular order.
        cpes: Vec<RegisteredCpe>,
        /// Another part follows.
        more: bool,
    },
    /// Reply to [`Request::CpeCredentials`]: a part of the list.
    CpeCredentials {
        /// CPEs in no particular order.
        cpes: Vec<NewCpe>,
        /// Another part follows.
        more: bool,
    },
    /// Reply to [`Request::LintCpes`]: a part of the list.
    WeakCpes {
        /// Findings, grouped by CPE.
        findings: Vec<WeakCpe>,
        /// Another part follows.
        more: bool,
    },
}

/// Notification attribute of a parameter (TR-069 A.3.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// Changes are not reported.
    Off,
    /// Changes are reported in the next session.
    Passive,
    /// A change starts a session.
    Active,
}

/// Class of the reason for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Client and agent speak different versions of this protocol.
    Version,
    /// The user of the client lacks the permission.
    NotPermitted,
    /// Too many clients, or too many of their kind.
    Busy,
    /// The message is malformed, or not allowed at this point.
    BadRequest,
    /// The agent did not answer in time.
    Deadline,
    /// The agent could not carry out the request.
    Failed,
}

/// A row of the ManageableDevice table (TR-111 Part 1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Instance number of the row.
    pub instance: u32,
    /// Six upper-case hexadecimal digits.
    pub manufacturer_oui: String,
    /// 1 to 64 bytes.
    pub serial_number: String,
    /// At most 64 bytes; empty if the device sends none.
    pub product_class: String,
    /// When the row was added.
    pub first_seen: String,
    /// When the last DHCP message or sign of life of the device was seen.
    pub last_seen: String,
    /// DHCP clients with this identity; at least one.
    pub bindings: Vec<Binding>,
}

/// A DHCP client with the identity of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Hardware address: lower-case hexadecimal bytes, separated by colons.
    pub mac: String,
    /// Sender hardware address of the last ARP message from `ip`, at most one probe interval old. It differs from `mac`
    /// if the client is behind a repeater. `null` until an ARP message was seen.
    pub answered_by: Option<String>,
    /// DHCP client identifier (option 61) in hexadecimal digits.
    pub client_id: Option<String>,
    /// IPv4 address.
    pub ip: String,
    /// Name of the LAN interface.
    pub interface: String,
    /// VLAN identifiers, the outermost first.
    pub vlan: Vec<u16>,
    /// DHCP message that created the binding: `request` or `inform`.
    pub source: String,
    /// When the lease expires.
    pub lease_expires: Option<String>,
}

/// A NAT binding over which a CPE receives UDP Connection Requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct NatBinding {
    /// `STUNUsername` of the CPE, if it has one.
    #[cfg_attr(feature = "acs", schema(required))]
    pub username: Option<String>,
    /// Public address and port.
    pub address: String,
    /// Whether the most recent message that confirmed the binding was signed.
    pub authenticated: bool,
    /// When the address or its state last changed.
    #[cfg_attr(feature = "acs", schema(required))]
    pub changed: Option<String>,
    /// When a message last confirmed the binding.
    #[cfg_attr(feature = "acs", schema(required))]
    pub last_seen: Option<String>,
    /// Keep-alive period in seconds.
    #[cfg_attr(feature = "acs", schema(required))]
    pub period_s: Option<u64>,
    /// On a gateway: the LAN device that uses the binding.
    #[cfg_attr(feature = "acs", schema(required))]
    pub device: Option<String>,
    /// On a gateway: timeout of the NAT's flow in seconds.
    #[cfg_attr(feature = "acs", schema(required))]
    pub timeout_s: Option<u64>,
    /// On a gateway: whether the agent extended the timeout.
    #[cfg_attr(feature = "acs", schema(required))]
    pub extended: Option<bool>,
    /// On a gateway: why the timeout was not extended.
    #[cfg_attr(feature = "acs", schema(required))]
    pub why: Option<String>,
    /// On an ACS: how the address was learned. `authenticated`: from a signed Binding Request, `reported`: from a
    /// notification, `tentative`: from an unsigned Binding Request.
    #[cfg_attr(feature = "acs", schema(required))]
    pub way: Option<String>,
}

/// A parameter of the data model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// Full path.
    pub name: String,
    /// Value in the text form of CWMP.
    pub value: String,
    /// `string`, `unsignedInt`, `int`, `boolean` or `dateTime`; `object` for an object, which has no value.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether `SetParameterValues` may write the parameter.
    pub writable: bool,
    /// Notification attribute: `off`, `passive` or `active`.
    pub notification: String,
}

/// A counter of the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Name of the metric.
    pub name: String,
    /// Names and values of the labels.
    pub labels: Vec<(String, String)>,
    /// Current value.
    pub value: u64,
}

/// The state of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Role of the agent: `gateway`, `device` or `acs`.
    pub role: String,
    /// Version of the agent.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// When the agent started.
    pub started: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Interfaces with kernel programs.
    pub interfaces: Vec<Interface>,
    /// The ManageableDevice table.
    pub table: Table,
    /// Ring buffers from the kernel programs to the agent.
    pub rings: Vec<Ring>,
    /// When the ACS was last notified.
    pub last_notification: Option<String>,
    /// Why the agent discarded a damaged store and started with an empty one. `null` if it did not.
    #[serde(default)]
    pub store_relearned: Option<String>,
    /// Directory of the pinned programs and maps.
    pub pin_dir: PathBuf,
    /// Address of the metrics endpoint.
    pub metrics: Option<String>,
    /// Listener for TCP Connection Requests: `external`, or `builtin` followed by its address.
    pub tcp_connection_requests: String,
    /// On a gateway: whether the agent extends the NAT timeouts of flows over which devices wait for Connection
    /// Requests.
    pub nat_timeouts: Option<String>,
    /// On a gateway: active alarms.
    pub alarms: Vec<StandingAlarm>,
    /// State of the ACS role. `null` for other roles.
    pub acs: Option<AcsStatus>,
}

/// An interface with kernel programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of the interface.
    pub name: String,
    /// `lan` or `wan`.
    pub side: String,
    /// `up`, `down` (no carrier), `detached` (the programs are not attached), `gone` or `missing` (not there since the
    /// start).
    pub state: String,
    /// Attached programs.
    pub hooks: Vec<Hook>,
}

/// An attached kernel program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Name of the program.
    pub program: String,
    /// How the program is attached: `native` or `generic` (XDP), or `tc`.
    pub mode: String,
    /// At TC: foreign programs and filters that run before this program and may end the chain.
    pub in_front: Vec<String>,
    /// At TC: foreign programs and filters that run after this program and may still drop a frame that it passed.
    pub behind: Vec<String>,
}

/// An active alarm of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingAlarm {
    /// Name of the alarm, as in the metric.
    pub alarm: String,
    /// Interface that the alarm is about.
    pub interface: String,
    /// When the alarm was raised.
    pub since: String,
    /// Reason as text for the user.
    pub detail: String,
}

/// Size of the ManageableDevice table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Number of rows.
    pub rows: u64,
    /// Number of bindings of all rows.
    pub bindings: u64,
    /// Maximum number of rows.
    pub max_rows: u64,
    /// Clients whose next change is delayed because they changed too often.
    #[serde(default)]
    pub waiting: u64,
}

/// A ring buffer from the kernel programs to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Name of the ring: `lan`.
    pub name: String,
    /// Events written to the ring.
    pub events: u64,
    /// Events lost because the ring was full.
    pub lost: u64,
}

/// A configuration key that can be changed at run time, as `tr111 tune` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knob {
    /// Full name: `SECTION.NAME`.
    pub key: String,
    /// Current value.
    pub value: String,
    /// Default value.
    pub default: Option<String>,
    /// Allowed values.
    pub range: String,
    /// Unit of a number.
    pub unit: Option<String>,
    /// Source of the value: `default`, the file and line, a flag, or `tune`.
    pub origin: String,
    /// Description.
    pub help: String,
}

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Time of the event.
    pub time: String,
    /// Kind and fields of the event.
    #[serde(flatten)]
    pub what: Happening,
}

/// Kind and fields of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// A row was added, with its first binding.
    DeviceAdded(Change),
    /// A row was removed, with its last binding.
    DeviceRemoved(Removal),
    /// A client with an identity got an address, but no row was added for it.
    DeviceRefused(Refused),
    /// A binding was added to an existing row.
    DeviceBindingAdded(Change),
    /// A binding was removed from a row that still has others.
    DeviceBindingRemoved(Removal),
    /// A notification for the ACS.
    Notification(Notification),
    /// The address for UDP Connection Requests changed.
    BindingChanged(BindingChange),
    /// A Connection Request was received or, on an ACS, sent.
    ConnectionRequest(ConnectionRequest),
    /// A condition that needs an operator.
    Alarm(Alarm),
    /// On an ACS: the association of a device with a gateway changed, or a device claimed another one.
    Association(Box<AssociationChange>),
}

/// Change of the address for UDP Connection Requests: of the agent or, on an ACS, of one of its CPEs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingChange {
    /// `UDPConnectionRequestAddress`. `null` while the agent has no address, or if a CPE reported an empty one.
    pub address: Option<String>,
    /// `NATDetected`, if known.
    pub nat_detected: Option<bool>,
    /// On an ACS: `STUNUsername` of the CPE.
    pub username: Option<String>,
    /// On an ACS: whether the address was learned from a signed Binding Request.
    pub authenticated: Option<bool>,
}

/// Transport of a Connection Request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP (TR-111 Part 2).
    Udp,
    /// TCP (TR-069 3.2.2).
    Tcp,
}

/// A Connection Request and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRequest {
    /// `accepted`, or the reason why the request was ignored or refused, as in the metric of its transport.
    pub result: String,
    /// Source address and port. The source of a request that was not accepted may be forged. On an ACS: the local
    /// address that the request was sent from.
    pub from: String,
    /// Number of earlier ignored requests that were not reported because of the rate limit.
    pub omitted: u64,
    /// Transport of the request.
    pub transport: Transport,
    /// On an ACS: `STUNUsername` of the CPE, if it is registered.
    pub username: Option<String>,
    /// On an ACS: destination of the request.
    pub to: Option<String>,
}

/// Identity of a device or a gateway (TR-111 1.2.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct Identity {
    /// Six upper-case hexadecimal digits.
    pub manufacturer_oui: String,
    /// 1 to 64 bytes.
    pub serial_number: String,
    /// At most 64 bytes; empty if there is none.
    pub product_class: String,
}

/// Association of a device with a gateway, as the ACS knows it (TR-111 1.2.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct Association {
    /// Identity of the device.
    pub device: Identity,
    /// Gateway that the device is associated with. `null` if there is none.
    #[cfg_attr(feature = "acs", schema(required))]
    pub gateway: Option<Identity>,
    /// Whether the gateway's ManageableDevice table contains the device.
    #[cfg_attr(feature = "acs", schema(required))]
    pub validated: Option<bool>,
    /// When the device was associated with the gateway.
    #[cfg_attr(feature = "acs", schema(required))]
    pub since: Option<String>,
    /// Another gateway that the device reports and that is not confirmed.
    #[cfg_attr(feature = "acs", schema(required))]
    pub claim: Option<Claim>,
}

/// A gateway that a device reports and that no ManageableDevice table confirms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "acs", derive(ToSchema))]
pub struct Claim {
    /// Gateway that the device reports.
    pub gateway: Identity,
    /// `pending`: the gateway's table is not known. `refused`: the table does not contain the device.
    pub state: String,
    /// When the device first reported the gateway.
    pub since: String,
}

/// Change of the association of a device with a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssociationChange {
    /// `validated`, `unvalidated`, `pending`, `refused`, `unchanged` (the device withdrew its claim) or `withdrawn`.
    pub result: String,
    /// Whether the report of the device may be forged.
    pub alarm: bool,
    /// Identity of the device.
    pub device: Identity,
    /// Gateway that the device reports.
    pub gateway: Identity,
    /// Gateway that the device is associated with after the change.
    pub associated: Option<Identity>,
}

/// A device that gets no row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// `denied`, `table_full`, `mac_cap` or `row_cap`, as in the metric `tr111_device_identities_total`.
    pub result: String,
    /// Six upper-case hexadecimal digits.
    pub manufacturer_oui: String,
    /// 1 to 64 bytes.
    pub serial_number: String,
    /// At most 64 bytes; empty if the device sends none.
    pub product_class: String,
    /// The binding that the row would have had.
    pub bindings: Vec<Binding>,
}

/// A notification for the ACS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Sequence number, one more than that of the previous notification. Argument of `tr111 ack`.
    pub sequence: u64,
    /// Event code: `4 VALUE CHANGE`.
    pub kind: String,
    /// Parameters that changed since the previous notification.
    pub parameters: Vec<ChangedParameter>,
}

/// A parameter in a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedParameter {
    /// Full path.
    pub name: String,
    /// Value in the text form of CWMP.
    pub value: String,
}

/// A row and the binding that was added or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Instance number of the row.
    pub instance: u32,
    /// Six upper-case hexadecimal digits.
    pub manufacturer_oui: String,
    /// 1 to 64 bytes.
    pub serial_number: String,
    /// At most 64 bytes; empty if the device sends none.
    pub product_class: String,
    /// The binding that was added or removed.
    pub bindings: Vec<Binding>,
}

/// The removal of a row or of a binding, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// `released`, `expired`, `declined`, `refused`, `disconnected`, `identity_changed` or `denied`.
    pub reason: String,
    /// The row and the binding that was removed.
    #[serde(flatten)]
    pub change: Change,
}

impl From<Device> for Change {
    fn from(device: Device) -> Self {
        let Device { instance, manufacturer_oui, serial_number, product_class, bindings, .. } = device;
        Self { instance, manufacturer_oui, serial_number, product_class, bindings }
    }
}
