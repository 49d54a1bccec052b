//! The association record of a device as the registry stores it.
//!
//! The key is the device's identity: its three parts, separated by NUL, which no part contains. The value is a version
//! byte and [`Kept`] in postcard encoding.

use serde::{Deserialize, Serialize};
use tr111_core::{
    acs::association::{Association, Claim, Record},
    identity::{DeviceIdentity, GatewayIdentity},
    short::Short,
    time::UnixTime,
};

const VERSION: u8 = 1;

type Parts = [String; 3];

/// A gateway, whether it is validated (association) or refused (claim), and the time.
type Word = (Parts, bool, u64);

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    association: Option<Word>,
    claim: Option<Word>,
}

/// The key of a device's record.
pub(super) fn key(device: &DeviceIdentity) -> Short {
    let DeviceIdentity { manufacturer_oui, serial_number, product_class } = device;
    let parts = [manufacturer_oui.as_str(), serial_number.as_str(), product_class.as_str()];
    Short::from(parts.join("\0").as_bytes())
}

/// The device that a key names; `None` if the key is not valid.
pub(super) fn device(key: &[u8]) -> Option<DeviceIdentity> {
    let mut parts = std::str::from_utf8(key).ok()?.split('\0');
    let mut next = || parts.next().map(str::to_owned);
    let GatewayIdentity { manufacturer_oui, serial_number, product_class } = identity([next()?, next()?, next()?])?;
    parts.next().is_none().then_some(DeviceIdentity { manufacturer_oui, serial_number, product_class })
}

/// The value of a record.
pub(super) fn encode(record: &Record) -> Box<[u8]> {
    let word = |gateway: &GatewayIdentity, flag, since: UnixTime| -> Word {
        let GatewayIdentity { manufacturer_oui, serial_number, product_class } = gateway;
        ([manufacturer_oui.to_string(), serial_number.to_string(), product_class.to_string()], flag, since.0)
    };
    let kept = Kept {
        association: record.association.as_ref().map(|one| word(&one.gateway, one.validated, one.since)),
        claim: record.claim.as_ref().map(|one| word(&one.gateway, one.refused, one.since)),
    };
    // Serialising plain data into memory cannot fail.
    postcard::to_extend(&kept, vec![VERSION]).unwrap_or_default().into()
}

/// Decodes a record; `None` if it is damaged or has another version.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Record> {
    let (&VERSION, value) = value.split_first()? else { return None };
    let kept: Kept = postcard::from_bytes(value).ok()?;
    let association = |(parts, validated, since): Word| {
        Some(Association { gateway: identity(parts)?, validated, since: UnixTime(since) })
    };
    let claim =
        |(parts, refused, since): Word| Some(Claim { gateway: identity(parts)?, refused, since: UnixTime(since) });
    Some(Record {
        device: device(key)?,
        association: kept.association.and_then(association),
        claim: kept.claim.and_then(claim),
    })
}

fn identity([oui, serial, class]: Parts) -> Option<GatewayIdentity> {
    Some(GatewayIdentity {
        manufacturer_oui: oui.parse().ok()?,
        serial_number: serial.parse().ok()?,
        product_class: class.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_does_not() {
        let gateway = |serial: &str| {
            let parts = ["00256D", serial, ""].map(str::to_owned);
            identity(parts).expect("an identity")
        };
        let device = DeviceIdentity {
            manufacturer_oui: "00256D".parse().expect("an OUI"),
            serial_number: "Gerät-7".parse().expect("a text"),
            product_class: "".parse().expect("a text"),
        };
        let record = Record {
            device: device.clone(),
            association: Some(Association { gateway: gateway("GW1"), validated: true, since: UnixTime(7) }),
            claim: Some(Claim { gateway: gateway("GW2"), refused: true, since: UnixTime(9) }),
        };
        let (key, value) = (key(&device), encode(&record));
        assert_eq!(decode(&key, &value), Some(record));
        for end in 0..value.len() {
            assert_eq!(decode(&key, &value[..end]), None);
        }
        assert_eq!(decode(b"00256D\0S", &value), None);
        assert_eq!(decode(b"00256D\0S\0C\0", &value), None);
    }
}
