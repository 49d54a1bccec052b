//! Reads the state that an earlier agent process stored.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tr111_core::{
    association::Record,
    binding::{self, Memory, Report},
    connreq::LastAccepted,
    device::{self, Address, GatewayInfo, GatewayParameter, Lease},
    model::Notification,
    notification::{Kind, Notifications, Pending, State, Waiting},
    time::BootTime,
};

use super::{Clock, cpe, parameters::Written};
use crate::store::{self, Boot, Boots, Contents, DecodeError, Store, Times, decode, decode_row, encode, meta};

/// State of the notification core, without the notifications that wait for an acknowledgement.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredState {
    pub(super) boot: u32,
    pub(super) attributes: Vec<(String, u8)>,
    /// Name, former value, latest value.
    pub(super) waiting: Vec<(String, String, String)>,
    pub(super) next_sequence: u64,
    pub(super) last_notification: Option<u64>,
    pub(super) last_told: Option<u64>,
}

/// A notification that waits for an acknowledgement.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredNotification {
    pub(super) boot: u32,
    pub(super) time: u64,
    pub(super) parameters: Vec<(String, String)>,
}

/// State of Connection Requests and of the binding.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredCpe {
    boot: u32,
    timestamp: u64,
    milliseconds: u64,
    id: Option<u64>,
    /// Sequence number of the pending notification of an accepted Connection Request; there is at most one (T-27).
    notification: Option<u64>,
    /// The learned NAT timeout, in milliseconds.
    learned: Option<u64>,
    told: Option<StoredReport>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredReport {
    address: Option<SocketAddrV4>,
    nat_detected: bool,
}

impl StoredCpe {
    /// The state as of boot number `boot`.
    pub(super) fn new(boot: u32, state: &cpe::State, notifications: &Notifications) -> Self {
        let cpe::State { last, memory } = state;
        let told = |Report { address, nat_detected }| StoredReport { address, nat_detected };
        Self {
            boot,
            timestamp: last.timestamp,
            milliseconds: last.milliseconds,
            id: last.id,
            notification: notifications
                .pending(0)
                .find(|pending| pending.kind == Kind::ConnectionRequest)
                .map(|pending| pending.sequence),
            learned: memory.learned.map(|period| u64::try_from(period.as_millis()).unwrap_or(u64::MAX)),
            told: memory.told.map(told),
        }
    }

    /// Converts the stored state; `now` is the current boot.
    fn read(self, boots: &Boots, now: &Boot) -> KeptCpe {
        let report = |StoredReport { address, nat_detected }| Report { address, nat_detected };
        let memory = Memory { learned: self.learned.map(Duration::from_millis), told: self.told.map(report) };
        let last = LastAccepted { timestamp: self.timestamp, milliseconds: self.milliseconds, id: self.id };
        let is_same_boot = boots.get(&self.boot).is_some_and(|boot| boot.id == now.id);
        KeptCpe { state: cpe::State { last, memory }, is_same_boot }
    }
}

/// Stored state of Connection Requests and of the binding.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeptCpe {
    /// The state.
    pub state: cpe::State,
    /// Whether the state was stored since the last reboot of the machine.
    pub is_same_boot: bool,
}

/// Stored form of [`device::State`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredDevice {
    boot: u32,
    mac: [u8; 6],
    manufacturer_oui: String,
    serial_number: String,
    product_class: String,
    lease: Option<StoredLease>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredLease {
    address: [u8; 4],
    prefix_length: u8,
    router: Option<[u8; 4]>,
    server: [u8; 4],
    station: [u8; 6],
    renew: u64,
    rebind: u64,
    end: u64,
}

impl StoredDevice {
    /// The state as of boot number `boot`.
    pub(super) fn new(boot: u32, state: &device::State) -> Self {
        let lease = state.lease.as_ref().map(|lease| StoredLease {
            address: lease.address.address.octets(),
            prefix_length: lease.address.prefix_length,
            router: lease.address.router.map(|router| router.octets()),
            server: lease.server.octets(),
            station: lease.station,
            renew: lease.renew.0,
            rebind: lease.rebind.0,
            end: lease.end.0,
        });
        let text = |parameter| state.info.get(parameter).to_owned();
        Self {
            boot,
            mac: state.mac,
            manufacturer_oui: text(GatewayParameter::ManufacturerOui),
            serial_number: text(GatewayParameter::SerialNumber),
            product_class: text(GatewayParameter::ProductClass),
            lease,
        }
    }

    /// Converts the stored state, with its times on this boot's clock.
    fn read(self, times: &Times<'_>) -> Result<device::State, DecodeError> {
        let lease = self.lease.map(|lease| {
            let ends = [lease.renew, lease.rebind, lease.end].map(BootTime);
            let [renew, rebind, end] = times.translate_lease(self.boot, ends);
            let address = Address {
                address: lease.address.into(),
                prefix_length: lease.prefix_length,
                router: lease.router.map(Ipv4Addr::from),
            };
            Lease { address, server: lease.server.into(), station: lease.station, renew, rebind, end }
        });
        let oui = Some(&self.manufacturer_oui).filter(|oui| !oui.is_empty());
        let info = GatewayInfo::new(
            oui.map(|oui| oui.parse()).transpose().map_err(|_| DecodeError::Identity)?,
            self.serial_number.parse().map_err(|_| DecodeError::Identity)?,
            self.product_class.parse().map_err(|_| DecodeError::Identity)?,
        );
        Ok(device::State { mac: self.mac, info, lease })
    }
}

/// Stored form of the fields of [`Written`] that the first version had.
#[derive(Serialize, Deserialize)]
struct StoredParameters {
    notification_limit: u32,
    url: String,
    connection_request_username: String,
    connection_request_password: String,
}

/// Stored form of the other fields of [`Written`]: the writable parameters of TR-111 Table 6.
#[derive(Serialize, Deserialize)]
struct StoredStun {
    enable: bool,
    server_address: String,
    server_port: u16,
    username: String,
    password: String,
    maximum_keep_alive_period: i32,
    minimum_keep_alive_period: u32,
    notification_limit: u32,
}

/// Encodes the written values for the store.
pub(super) fn stored_parameters(written: &Written) -> [(&'static str, Vec<u8>); 2] {
    let Written { notification_limit, connection_request_username, connection_request_password, binding } =
        written.clone();
    let parameters = StoredParameters {
        notification_limit,
        url: binding.url,
        connection_request_username,
        connection_request_password,
    };
    let stun = StoredStun {
        enable: binding.stun_enable,
        server_address: binding.stun_server_address,
        server_port: binding.stun_server_port,
        username: binding.stun_username,
        password: binding.stun_password,
        maximum_keep_alive_period: binding.stun_maximum_keep_alive_period,
        minimum_keep_alive_period: binding.stun_minimum_keep_alive_period,
        notification_limit: binding.notification_limit,
    };
    [(meta::PARAMETERS, encode(&parameters)), (meta::STUN, encode(&stun))]
}

/// Stored values of writable parameters.
#[derive(Clone, Debug)]
pub struct KeptParameters {
    written: Written,
    /// The record is of a version without TR-111 Table 6; those values are taken from the configuration.
    is_without_stun: bool,
}

impl KeptParameters {
    fn read(contents: &Contents) -> Result<Option<Self>, DecodeError> {
        let Some(parameters) = contents.meta::<StoredParameters>(meta::PARAMETERS)? else { return Ok(None) };
        let stun: Option<StoredStun> = contents.meta(meta::STUN)?;
        let is_without_stun = stun.is_none();
        let url = parameters.url;
        let binding = match stun {
            Some(stun) => binding::Parameters {
                url,
                stun_enable: stun.enable,
                stun_server_address: stun.server_address,
                stun_server_port: stun.server_port,
                stun_username: stun.username,
                stun_password: stun.password,
                stun_maximum_keep_alive_period: stun.maximum_keep_alive_period,
                stun_minimum_keep_alive_period: stun.minimum_keep_alive_period,
                notification_limit: stun.notification_limit,
            },
            None => binding::Parameters { url, ..binding::Parameters::default() },
        };
        let written = Written {
            notification_limit: parameters.notification_limit,
            connection_request_username: parameters.connection_request_username,
            connection_request_password: parameters.connection_request_password,
            binding,
        };
        Ok(Some(Self { written, is_without_stun }))
    }

    /// The values in force. `first` are the values of the configuration, used for those that were never stored.
    pub(super) fn over(self, first: &Written) -> Written {
        let Self { mut written, is_without_stun } = self;
        if is_without_stun {
            written.binding = binding::Parameters { url: written.binding.url, ..first.binding.clone() };
        }
        written
    }
}

/// Contents of the store, with times on this boot's clock.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Rows of the ManageableDevice table.
    pub rows: Vec<Record>,
    /// The next instance number.
    pub next_instance: u32,
    /// State of the device role; `None` at the first start.
    pub device: Option<device::State>,
    /// Values of writable parameters; `None` at the first start.
    pub written: Option<KeptParameters>,
    /// Notification attributes, and notifications that wait for an acknowledgement.
    pub notifications: State,
    /// Time of the last notification.
    pub last_told: Option<BootTime>,
    /// Seed of the hash over clients.
    pub seed: Option<u64>,
    /// The boots that the records refer to, and the current one.
    pub boots: Boots,
    /// The number of the current boot.
    pub boot: u32,
    /// State of Connection Requests and of the binding.
    pub cpe: KeptCpe,
}

/// Opens the store in `directory` and reads it. `interface` returns the kernel index of a LAN interface by name. Blocks
/// the thread.
///
/// # Errors
/// The store can be neither opened nor created. A damaged store is not an error: it is set aside and replaced.
pub fn open(directory: &Path, interface: impl Fn(&str) -> Option<u32>) -> Result<(Store, Kept), store::Error> {
    let now = Boot { id: boot_id(), unix: Clock::new().boot_unix() };
    Store::open(directory, |contents| read(&contents, &now, &interface))
}

fn boot_id() -> String {
    // If the boot id cannot be read, every start counts as a reboot, and stored times are converted by the system
    // clock.
    let unknown = || format!("unknown-{}", std::process::id());
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| unknown(), |id| id.trim().to_owned())
}

fn read(contents: &Contents, now: &Boot, interface: impl Fn(&str) -> Option<u32>) -> Result<Kept, DecodeError> {
    let mut boots: Boots = contents.meta(meta::BOOTS)?.unwrap_or_default();
    let times = Times::new(&boots, now);
    let mut used = BTreeSet::new();
    let mut rows = Vec::with_capacity(contents.rows.len());
    for (instance, bytes) in &contents.rows {
        let row = decode_row(*instance, bytes, &times, &interface)?;
        used.insert(row.boot);
        rows.push(row.record);
    }
    let state: Option<StoredState> = contents.meta(meta::NOTIFICATION_STATE)?;
    let mut notifications = State::default();
    let written = KeptParameters::read(contents)?;
    notifications.limit = written.as_ref().map_or(0, |kept| kept.written.notification_limit);
    let mut last_told = None;
    if let Some(state) = state {
        used.insert(state.boot);
        let at = |time| times.translate(state.boot, BootTime(time));
        let attribute = |value| if value == 2 { Notification::Active } else { Notification::Passive };
        let waiting = state.waiting.into_iter().map(|(name, before, value)| Waiting { name, before, value });
        notifications.waiting = waiting.collect();
        notifications.attributes = state.attributes.into_iter().map(|(name, value)| (name, attribute(value))).collect();
        notifications.next_sequence = state.next_sequence;
        notifications.last_notification = state.last_notification.map(at);
        last_told = state.last_told.map(at);
    }
    let cpe: Option<StoredCpe> = contents.meta(meta::CPE)?;
    let requested = cpe.as_ref().and_then(|cpe| cpe.notification);
    for (sequence, bytes) in &contents.notifications {
        let stored: StoredNotification = decode(bytes)?;
        used.insert(stored.boot);
        notifications.pending.push(Pending {
            sequence: *sequence,
            time: times.translate(stored.boot, BootTime(stored.time)),
            parameters: stored.parameters,
            kind: if requested == Some(*sequence) { Kind::ConnectionRequest } else { Kind::ActiveValueChange },
        });
    }
    let device: Option<StoredDevice> = contents.meta(meta::DEVICE)?;
    used.extend(device.as_ref().map(|device| device.boot));
    let device = device.map(|device| device.read(&times)).transpose()?;
    let cpe = cpe.map(|cpe| cpe.read(&boots, now)).unwrap_or_default();
    let (next_instance, seed) = (contents.meta(meta::NEXT_INSTANCE)?, contents.meta(meta::SEED)?);
    let known = boots.iter().find(|(_, boot)| boot.id == now.id).map(|(number, _)| *number);
    let boot = known.unwrap_or_else(|| boots.keys().last().map_or(1, |last| last.wrapping_add(1)));
    boots.retain(|number, _| used.contains(number));
    boots.insert(boot, now.clone());
    let next_instance = next_instance.unwrap_or(1);
    Ok(Kept { rows, next_instance, device, written, notifications, last_told, seed, boots, boot, cpe })
}
