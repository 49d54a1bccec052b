//! Encoding of rows and times: compact, versioned, and valid after a reboot. Interfaces are stored by name, because a
//! reboot changes their indices.
//!
//! A time is stored as the boottime clock's value with the number of its [`Boot`]. Within the same boot it is read back
//! unchanged, even if the system time was set meanwhile; after a reboot it is converted through Unix time (T-30, T-31).

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use tr111_common::{abi::ClientKey, headers::Segment};
use tr111_core::{
    association::{Binding, Device, Record, Source},
    dhcp::HardwareAddress,
    identity::DeviceIdentity,
    short::Short,
    time::BootTime,
};

/// First byte of every value. Other versions are not read.
const VERSION: u8 = 1;

/// Why a value cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another version of the program wrote the value.
    #[error("the record has version {0}, which this program cannot read")]
    Version(u8),
    /// The value is empty.
    #[error("the record is empty")]
    Empty,
    /// The value is truncated or altered.
    #[error("the record cannot be decoded: {0}")]
    Damaged(#[from] postcard::Error),
    /// The value contains an invalid identity.
    #[error("the record has no valid identity")]
    Identity,
}

/// One boot of the machine, which defines the meaning of its boottime clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub id: String,
    /// Unix time of the boot in nanoseconds, as last known.
    pub unix: u64,
}

/// The boots that records refer to, by number.
pub type Boots = BTreeMap<u32, Boot>;

/// Converts times of earlier boots to the clock of this boot.
#[derive(Clone, Debug)]
pub struct Times<'a> {
    boots: &'a Boots,
    now: &'a Boot,
}

impl<'a> Times<'a> {
    /// Converts times of `boots` to times of the boot `now`.
    pub fn new(boots: &'a Boots, now: &'a Boot) -> Self {
        Self { boots, now }
    }

    /// Converts `time` of boot number `boot` to the clock of this boot. A time before this boot becomes 0.
    pub fn translate(&self, boot: u32, time: BootTime) -> BootTime {
        match self.boots.get(&boot) {
            Some(then) if then.id != self.now.id && time != BootTime::NEVER => {
                BootTime(then.unix.saturating_add(time.0).saturating_sub(self.now.unix))
            }
            _ => time,
        }
    }

    /// Converts T1, T2 and the end of a lease of boot number `boot` to the clock of this boot. If the clock is behind
    /// after a reboot, these times would be years ahead; they are moved so that the lease begins no later than this
    /// boot (T-56). T1 is half of the lease time (RFC 2131 4.4.5).
    pub fn translate_lease(&self, boot: u32, lease: [BootTime; 3]) -> [BootTime; 3] {
        let [renew, _, end] = lease;
        let translated = lease.map(|time| self.translate(boot, time));
        let is_other = translated[2] != end;
        let latest = BootTime::default() + end.since(renew).unwrap_or_default() * 2;
        let Some(excess) = translated[2].since(latest).filter(|_| is_other) else { return translated };
        translated.map(|time| BootTime::default() + time.since(BootTime::default() + excess).unwrap_or_default())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredRow<'a> {
    boot: u32,
    manufacturer_oui: &'a str,
    serial_number: &'a str,
    product_class: &'a str,
    first_seen: u64,
    last_seen: u64,
    #[serde(borrow)]
    bindings: Vec<StoredBinding<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredBinding<'a> {
    interface: &'a str,
    vlan: [u16; 2],
    /// The fields of [`ClientKey`] without its segment: `hash`, `client_id_length` and `htype`.
    hash: u64,
    client_id_length: u16,
    htype: u8,
    #[serde(borrow)]
    mac: &'a [u8],
    client_id: Option<&'a [u8]>,
    ip: [u8; 4],
    inform: bool,
    lease_expires: Option<u64>,
    server: Option<[u8; 4]>,
    relayed: bool,
    last_seen: u64,
}

/// Encodes `value`, with the version as first byte.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising plain data into memory fails only for a sequence of unknown length, and there is none.
    postcard::to_extend(value, vec![VERSION]).unwrap_or_default()
}

/// Decodes a value of [`encode`].
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    Ok(postcard::from_bytes(unversioned(bytes)?)?)
}

fn unversioned(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes {
        [VERSION, rest @ ..] => Ok(rest),
        [version, ..] => Err(DecodeError::Version(*version)),
        [] => Err(DecodeError::Empty),
    }
}

/// Encodes a row, as of boot number `boot`. `interface` returns the name of a kernel index.
pub fn encode_row<'a>(boot: u32, device: &Device<'a>, interface: impl Fn(u32) -> &'a str) -> Vec<u8> {
    encode(&StoredRow {
        boot,
        manufacturer_oui: device.identity.manufacturer_oui.as_str(),
        serial_number: device.identity.serial_number.as_str(),
        product_class: device.identity.product_class.as_str(),
        first_seen: device.first_seen.0,
        last_seen: device.last_seen.0,
        bindings: device
            .bindings
            .clone()
            .map(|binding| StoredBinding {
                interface: interface(binding.segment().ifindex),
                vlan: binding.segment().vlan,
                hash: binding.client.hash,
                client_id_length: binding.client.client_id_length,
                htype: binding.client.htype,
                mac: binding.mac.as_bytes(),
                client_id: binding.client_id.as_deref(),
                ip: binding.ip.octets(),
                inform: binding.source == Source::Inform,
                lease_expires: binding.lease_expires.map(|end| end.0),
                server: binding.server.map(|server| server.octets()),
                relayed: binding.relayed,
                last_seen: binding.last_seen.0,
            })
            .collect(),
    })
}

/// A stored row, on the clock of this boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The boot in which the row was written.
    pub boot: u32,
    /// The row, without bindings on interfaces that do not exist any more.
    pub record: Record,
}

/// Decodes the row with the number `instance`. `interface` returns the kernel index of a LAN interface by name.
pub fn decode_row(
    instance: u32,
    bytes: &[u8],
    times: &Times<'_>,
    interface: impl Fn(&str) -> Option<u32>,
) -> Result<Row, DecodeError> {
    let row: StoredRow<'_> = decode(bytes)?;
    let at = |time| times.translate(row.boot, BootTime(time));
    let identity = DeviceIdentity {
        manufacturer_oui: row.manufacturer_oui.parse().map_err(|_| DecodeError::Identity)?,
        serial_number: row.serial_number.parse().map_err(|_| DecodeError::Identity)?,
        product_class: row.product_class.parse().map_err(|_| DecodeError::Identity)?,
    };
    let bindings = row.bindings.iter().filter_map(|stored| {
        let segment = Segment { ifindex: interface(stored.interface)?, vlan: stored.vlan };
        Some(Binding {
            client: ClientKey {
                segment,
                hash: stored.hash,
                client_id_length: stored.client_id_length,
                htype: stored.htype,
                reserved: [0; 5],
            },
            mac: HardwareAddress::from_bytes(stored.mac)?,
            client_id: stored.client_id.map(Short::from),
            sender: None,
            ip: Ipv4Addr::from(stored.ip),
            source: if stored.inform { Source::Inform } else { Source::Request },
            lease_expires: stored.lease_expires.map(at),
            server: stored.server.map(Ipv4Addr::from),
            relayed: stored.relayed,
            last_seen: at(stored.last_seen),
        })
    });
    let record = Record {
        instance,
        identity,
        first_seen: at(row.first_seen),
        last_seen: at(row.last_seen),
        bindings: bindings.collect(),
    };
    Ok(Row { boot: row.boot, record })
}
