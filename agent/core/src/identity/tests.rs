use tr111_common::{
    config::{Config, Dialect},
    dhcp4::Options,
    identity::Refusal,
};

use super::*;

#[path = "../../../../common/src/identity/vectors.rs"]
#[expect(dead_code, reason = "the vectors that only the scan's own tests read")]
mod vectors;
use vectors::{D1, D1_SPLIT, D2, EMPTY, G1, G2, LIVEBOX, LOWER, NUL, OVER_2, SUB0_255, TR124, TWO_ENTERPRISES};

pub(crate) fn bytes(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len()).step_by(2).map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap()).collect()
}

fn joined(wire: &str) -> Vec<u8> {
    Options::new(&bytes(wire)).flat_map(|(_, value)| value.to_vec()).collect()
}

fn device(wire: &str) -> Result<Decoded, IdentityError> {
    decode_device(&joined(wire), &Config::default())
}

fn parts(wire: &str) -> [String; 3] {
    let DeviceIdentity { manufacturer_oui, serial_number, product_class } = device(wire).unwrap().identity;
    [manufacturer_oui.to_string(), serial_number.to_string(), product_class.to_string()]
}

/// OPT-4, OPT-8, DM-5: the three elements are decoded; the OUI is in upper case.
#[test]
fn decodes_device_identities() {
    assert_eq!(parts(D1), ["00256D", "DEV0001", "STB"]);
    assert_eq!(parts(D2), ["00256D", "DEV0001", ""]);
    assert_eq!(parts(D1_SPLIT), parts(D1));
    assert_eq!(parts(TWO_ENTERPRISES), parts(D1));
    assert_eq!(parts(SUB0_255), parts(D2));
    assert_eq!(parts(LOWER), ["00D09E", "SN1", ""]);
    assert_eq!(device(OVER_2), Err(Refusal::Damaged.into()));
}

/// T-18, T-19a, T-21: tolerated deviations are recorded.
#[test]
fn notes_what_was_tolerated() {
    assert_eq!(device(D1).unwrap().notes, Notes::default());
    assert_eq!(device(NUL).unwrap().notes, Notes { nul_stripped: true, ..Notes::default() });
    let tr124 = device(TR124).unwrap();
    assert_eq!(tr124.notes, Notes { dialect_tr124: true, ..Notes::default() });
    assert_eq!(tr124.identity.serial_number.as_str(), "15171N098922");
    assert_eq!(tr124.identity.product_class.as_str(), "homeportal");
    let twice = bytes("00000de914010630303235364402035331410201530102585801");
    assert!(decode_device(&twice[..25], &Config::default()).unwrap().notes.duplicate);
}

/// T-21: identities are never encoded in the layout of TR-124.
#[test]
fn reads_tr124_literally_when_told() {
    let config = Config { dialect: Dialect::Tr111 as u8, ..Config::default() };
    let identity = decode_device(&joined(TR124), &config).unwrap().identity;
    assert_eq!(identity.serial_number.as_str(), "homeportal");
    assert_eq!(identity.encode()[5..7], [1, 6]);
}

/// SEC-9: only UTF-8 without control characters is accepted, including those of two bytes.
#[test]
fn refuses_text_that_is_not_clean_utf8() {
    let decode = |serial: &[u8]| {
        let mut option = vec![0, 0, 0x0d, 0xe9, 10 + serial.len() as u8, 1, 6];
        option.extend(b"00256D");
        option.extend([2, serial.len() as u8]);
        option.extend(serial);
        decode_device(&option, &Config::default()).map(|decoded| decoded.identity.serial_number.to_string())
    };
    assert_eq!(decode("Gerät 7".as_bytes()).as_deref(), Ok("Gerät 7"));
    assert_eq!(decode(b"\"}\\# HELP x").as_deref(), Ok("\"}\\# HELP x"));
    assert_eq!(decode(b"\xff\xfe"), Err(IdentityError::NotUtf8));
    assert_eq!(decode(b"abc\xc3"), Err(IdentityError::NotUtf8));
    assert_eq!(decode("a\u{9b}2J".as_bytes()), Err(Refusal::ControlCharacter.into()));
    assert_eq!(decode(b"a\nb"), Err(Refusal::ControlCharacter.into()));
}

/// OPT-5, OPT-10, OPT-11: codes 4, 5 and 6 are decoded; only the product class may be missing.
#[test]
fn decodes_gateway_identities() {
    let gateway = |wire| decode_gateway(&joined(wire), &Config::default());
    let parts = |wire| {
        let GatewayIdentity { manufacturer_oui, serial_number, product_class } = gateway(wire).unwrap();
        [manufacturer_oui.to_string(), serial_number.to_string(), product_class.to_string()]
    };
    assert_eq!(parts(G1), ["00256D", "GW0001", "IGD"]);
    assert_eq!(parts(G2), ["00256D", "GW0001", ""]);
    assert_eq!(parts(LIVEBOX), ["6475DA", "JA12345AV000000", "Livebox Nautilus"]);
    assert_eq!(gateway(D1), Err(Refusal::Incomplete.into()));
    assert_eq!(gateway(EMPTY), Err(Refusal::Incomplete.into()));
    assert_eq!(decode_gateway(&[], &Config::default()), Err(Refusal::Absent.into()));
}

/// OPT-2, OPT-4, OPT-5, OPT-7, OPT-9, OPT-11: encoded byte for byte, without NULs; an empty product class is omitted.
#[test]
fn encodes_what_it_decodes() {
    let config = Config::default();
    for wire in [D1, D2] {
        assert_eq!(device(wire).unwrap().identity.encode(), joined(wire));
    }
    for wire in [G1, G2] {
        assert_eq!(decode_gateway(&joined(wire), &config).unwrap().encode(), joined(wire));
    }
}

#[test]
fn the_longest_identity_takes_145_bytes() {
    let text: Text = "x".repeat(64).parse().unwrap();
    let identity = DeviceIdentity {
        manufacturer_oui: "00256d".parse().unwrap(),
        serial_number: text.clone(),
        product_class: text,
    };
    let encoded = identity.encode();
    assert_eq!(encoded.len(), 145);
    assert_eq!(decode_device(&encoded, &Config::default()).unwrap().identity, identity);
}

/// DM-5, DM-6, DM-7: an OUI has six digits; a text has at most 64 bytes and no control characters.
#[test]
fn types_hold_only_what_passes() {
    assert_eq!("00d09e".parse::<Oui>().unwrap().as_str(), "00D09E");
    for wrong in ["", "00D09", "00D09EA", "GG0000", "0é000"] {
        assert_eq!(wrong.parse::<Oui>(), Err(OuiError), "{wrong}");
    }
    assert_eq!("x".repeat(65).parse::<Text>(), Err(TextError::TooLong { length: 65 }));
    assert_eq!("ab\u{7f}".parse::<Text>(), Err(TextError::ControlCharacter { offset: 2 }));
    assert!("".parse::<Text>().unwrap().is_empty());
}

#[test]
fn displays_as_cwmp_names_devices() {
    assert_eq!(device(D1).unwrap().identity.to_string(), "00256D-STB-DEV0001");
    assert_eq!(device(D2).unwrap().identity.to_string(), "00256D-DEV0001");
}
