//! Tests of the scan over option 125, as the kernel programs run it.

extern crate std;

use std::vec::Vec;

use super::{Found, Joined, Refusal, Scan, sub_option, vectors::*};
use crate::{
    config::{Config, Dialect},
    dhcp4::{Options, option},
    frame::{GATHERED_MAXIMUM, PlainLoop},
};

/// The joined value of all instances of option 125 in `wire`, which is hexadecimal.
fn joined(wire: &str) -> Vec<u8> {
    let digits: Vec<u8> = wire.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let mut joined = Vec::new();
    for (code, value) in Options::new(&bytes) {
        assert_eq!(code, option::VENDOR_IDENTIFYING);
        joined.extend(value);
    }
    joined
}

fn scan(option: &[u8], config: &Config) -> Scan {
    let mut scan = Scan::new();
    scan.read(option, option.len() as u32, config, PlainLoop);
    scan
}

fn conclude(wire: &str) -> Result<Found, Refusal> {
    let config = Config::default();
    scan(&joined(wire), &config).conclude(&config)
}

/// OUI (normalised), serial number and product class.
fn parts(wire: &str, config: &Config) -> Result<[Vec<u8>; 3], Refusal> {
    let option = joined(wire);
    let found = scan(&option, config).conclude(config)?;
    let text = |span: super::Span| option[span.start as usize..][..span.length as usize].to_vec();
    Ok([found.oui.to_vec(), text(found.serial_number), text(found.product_class)])
}

fn expect(wire: &str, [oui, serial, class]: [&str; 3]) {
    assert_eq!(parts(wire, &Config::default()), Ok([oui.into(), serial.into(), class.into()]), "{wire}");
}

/// A sub-option.
fn sub(code: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![code, data.len() as u8];
    bytes.extend(data);
    bytes
}

/// An element of enterprise 3561 with these sub-options.
fn element(sub_options: &[Vec<u8>]) -> Vec<u8> {
    let data = sub_options.concat();
    let mut bytes = std::vec![0, 0, 0x0d, 0xe9, data.len() as u8];
    bytes.extend(data);
    bytes
}

/// OPT-2, OPT-4: enterprise 3561 with the codes 1, 2 and 3 is read.
#[test]
fn reads_oui_serial_number_and_class() {
    expect(D1, ["00256D", "DEV0001", "STB"]);
}

/// OPT-8, OPT-9, DM-7: the product class may be missing and is then empty.
#[test]
fn reads_an_identity_without_a_class() {
    expect(D2, ["00256D", "DEV0001", ""]);
}

/// OPT-3: sub-options are read in any order.
#[test]
fn order_of_sub_options_does_not_matter() {
    let config = Config::default();
    let option = element(&[sub(3, b"STB"), sub(2, b"DEV0001"), sub(1, b"00256D")]);
    let found = scan(&option, &config).conclude(&config).unwrap();
    assert_eq!(&found.oui, b"00256D");
    assert_eq!(found.product_class.start, 7);
}

#[test]
fn instances_cut_anywhere_read_as_one_option() {
    expect(D1_SPLIT, ["00256D", "DEV0001", "STB"]);
    let config = Config::default();
    for wire in [D1, NUL, TWO_ENTERPRISES, TR124, OVER_1, OVER_2] {
        let option = joined(wire);
        let whole = scan(&option, &config).conclude(&config);
        for cut in 0..=option.len() as u32 {
            let mut joined = Joined::default();
            joined.append(option.as_slice(), 0, cut);
            joined.append(option.as_slice(), cut, option.len() as u32 - cut);
            assert_eq!((joined.instances(), joined.last()), (2, cut));
            let mut scan = Scan::new();
            scan.read_joined(&joined, &config, PlainLoop);
            assert_eq!(scan.conclude(&config), whole, "{wire} cut at {cut}");
        }
    }
}

/// GW-2: elements of other enterprises are skipped; without one of 3561 there is no identity.
#[test]
fn skips_other_enterprises() {
    expect(TWO_ENTERPRISES, ["00256D", "DEV0001", "STB"]);
    assert_eq!(conclude("7d090000118b040102aabb"), Err(Refusal::WrongEnterprise));
}

/// OPT-2: the byte-swapped enterprise number is another enterprise. T-23: it is accepted only if the operator
/// configures it.
#[test]
fn accepts_other_enterprises_only_when_told() {
    assert_eq!(conclude(LE), Err(Refusal::WrongEnterprise));
    let config = Config { enterprises: [3561, 0xe90d_0000, 0, 0], ..Config::default() };
    assert_eq!(parts(LE, &config).unwrap()[1], b"DEV0001");
    // Enterprise number 0 marks unused entries of the list and is never accepted.
    assert_eq!(conclude("7d1b000000001601063030323536440207444556303030310303535442"), Err(Refusal::WrongEnterprise));
}

/// T-19b: a length overrun discards the whole element, including its complete sub-options.
#[test]
fn refuses_lengths_that_run_over() {
    assert_eq!(conclude(OVER_1), Err(Refusal::Damaged));
    assert_eq!(conclude(OVER_2), Err(Refusal::Damaged));
    assert_eq!(conclude("7d0300000d"), Err(Refusal::Damaged));
}

/// T-19b: elements before the damaged one are kept.
#[test]
fn a_damaged_element_leaves_earlier_ones_alone() {
    let config = Config::default();
    let mut option = element(&[sub(1, b"00256D"), sub(2, b"DEV0001")]);
    option.extend([0, 0, 0x0d, 0xe9, 40, 3, 20]);
    let found = scan(&option, &config).conclude(&config).unwrap();
    assert_eq!((&found.oui, found.product_class.length), (b"00256D", 0));
}

/// T-18: trailing NULs are removed and recorded.
#[test]
fn strips_trailing_nuls() {
    expect(NUL, ["00256D", "DEV0001", ""]);
    assert!(scan(&joined(NUL), &Config::default()).has_trailing_nul());
    assert!(!scan(&joined(D2), &Config::default()).has_trailing_nul());
}

/// T-18, SEC-9: inner NULs and control characters are refused.
#[test]
fn refuses_control_characters() {
    let config = Config::default();
    for serial in [b"A\0B".as_slice(), b"A\nB", b"\x7f", b"\x1b[2J"] {
        let option = element(&[sub(1, b"00256D"), sub(2, serial)]);
        assert_eq!(scan(&option, &config).conclude(&config), Err(Refusal::ControlCharacter), "{serial:?}");
    }
}

/// DM-5, T-16: lower-case digits are converted to upper case.
#[test]
fn raises_the_oui_to_upper_case() {
    expect(LOWER, ["00D09E", "SN1", ""]);
}

/// DM-5: an OUI is six hexadecimal digits. T-16: raw bytes and separators are accepted only with `lenient_oui`.
#[test]
fn other_forms_of_an_oui_need_the_lenient_setting() {
    let strict = Config::default();
    let lenient = Config { lenient_oui: 1, ..strict };
    for (oui, leniently) in [
        (b"GG0000".as_slice(), false),
        (b"00256", false),
        (b"00256DA", false),
        (b"00:25-6D", false),
        (b"00:25:6D", true),
        (b"00-25-6d", true),
        (&[0x00, 0x25, 0x6d], true),
    ] {
        let option = element(&[sub(1, oui), sub(2, b"S")]);
        assert_eq!(scan(&option, &strict).conclude(&strict), Err(Refusal::BadOui), "{oui:?}");
        let found = scan(&option, &lenient).conclude(&lenient);
        assert_eq!(found.ok().map(|found| found.oui), leniently.then_some(*b"00256D"), "{oui:?}");
    }
    // The last raw byte may be 0, which is then not a trailing NUL.
    let option = element(&[sub(1, &[0xac, 0x10, 0x00]), sub(2, b"S")]);
    assert_eq!(scan(&option, &lenient).conclude(&lenient).map(|found| found.oui), Ok(*b"AC1000"));
}

/// OPT-8: without OUI or serial number there is no identity. T-14: an empty value counts as missing.
#[test]
fn refuses_incomplete_identities() {
    let config = Config::default();
    for sub_options in
        [std::vec![sub(1, b"00256D")], std::vec![sub(2, b"DEV0001")], std::vec![sub(1, b""), sub(2, b"S")]]
    {
        let option = element(&sub_options);
        assert_eq!(scan(&option, &config).conclude(&config), Err(Refusal::Incomplete));
    }
    assert_eq!(conclude(ZERO), Err(Refusal::Incomplete));
    assert_eq!(conclude(EMPTY), Err(Refusal::Incomplete));
    assert_eq!(Scan::new().conclude(&config), Err(Refusal::Absent));
}

/// OPT-5: the gateway's codes are not a Device Identity.
#[test]
fn a_gateway_identity_is_no_device_identity() {
    for wire in [G1, G2, LIVEBOX] {
        assert_eq!(conclude(wire), Err(Refusal::Incomplete), "{wire}");
    }
    let option = joined(G1);
    let span = scan(&option, &Config::default()).span(sub_option::GATEWAY_SERIAL_NUMBER).unwrap();
    assert_eq!(&option[span.start as usize..][..span.length as usize], b"GW0001");
}

/// DM-6, DM-7, T-17: texts of 64 bytes are accepted, texts of 65 bytes are refused, and none is truncated.
#[test]
fn limits_texts_to_64_bytes() {
    let config = Config::default();
    for (length, accepted) in [(1, true), (64, true), (65, false), (200, false)] {
        let text = std::vec![b'x'; length];
        for sub_options in
            [std::vec![sub(1, b"00256D"), sub(2, &text)], std::vec![sub(1, b"00256D"), sub(2, b"S"), sub(3, &text)]]
        {
            let found = scan(&element(&sub_options), &config).conclude(&config);
            assert_eq!(found.is_ok(), accepted, "{length}");
            if !accepted {
                assert_eq!(found, Err(Refusal::TooLong));
            }
        }
    }
}

/// T-19a: the first value of a code is used; elements of one enterprise are combined; the codes 0, 255 and unknown ones
/// are skipped.
#[test]
fn takes_the_first_of_repeated_codes() {
    let config = Config::default();
    let mut option = element(&[sub(1, b"00256D"), sub(2, b"FIRST"), sub(2, b"SECOND"), sub(9, b"?")]);
    option.extend(element(&[sub(2, b"THIRD"), sub(3, b"STB")]));
    let scan = scan(&option, &config);
    let found = scan.conclude(&config).unwrap();
    assert_eq!(&option[found.serial_number.start as usize..][..found.serial_number.length as usize], b"FIRST");
    assert_eq!(found.product_class.length, 3);
    assert!(scan.has_duplicate());
    expect(SUB0_255, ["00256D", "DEV0001", ""]);
}

/// T-21: the layout of TR-124 is detected, forced or disabled, depending on the dialect.
#[test]
fn reads_the_layout_of_tr124_as_the_dialect_says() {
    let with = |dialect| Config { dialect: dialect as u8, ..Config::default() };
    let tr124 = ["00D09E", "15171N098922", "homeportal"].map(|part| part.as_bytes().to_vec());
    let literal = ["00D09E", "homeportal", "5268AC"].map(|part| part.as_bytes().to_vec());
    assert_eq!(parts(TR124, &with(Dialect::Auto)), Ok(tr124.clone()));
    assert_eq!(parts(TR124, &with(Dialect::Tr124)), Ok(tr124));
    assert_eq!(parts(TR124, &with(Dialect::Tr111)), Ok(literal));
    // With code 5 present, code 4 is a gateway's OUI.
    let config = with(Dialect::Auto);
    let option = element(&[sub(1, b"00256D"), sub(2, b"S"), sub(4, b"00256D"), sub(5, b"GW")]);
    assert!(!scan(&option, &config).conclude(&config).unwrap().tr124);
}

/// SEC-9: every byte value is classified correctly at every position of a text longer than two words.
#[test]
fn every_byte_is_judged_at_every_place() {
    let config = Config::default();
    for place in 0..17 {
        for byte in 0..=u8::MAX {
            let mut serial = [b'x'; 17];
            serial[place] = byte;
            let option = element(&[sub(1, b"00256D"), sub(2, &serial)]);
            let scan = scan(&option, &config);
            let found = scan.conclude(&config);
            let at = (byte, place);
            if byte == 0 && place == 16 {
                assert_eq!(found.map(|found| found.serial_number.length), Ok(16), "{at:?}");
                assert!(scan.has_trailing_nul(), "{at:?}");
            } else if byte < 0x20 || byte == 0x7f {
                assert_eq!(found, Err(Refusal::ControlCharacter), "{at:?}");
            } else {
                assert_eq!(found.map(|found| found.serial_number.length), Ok(17), "{at:?}");
                assert!(!scan.has_trailing_nul(), "{at:?}");
            }
        }
    }
}

/// T-18: trailing NULs may fill whole words; a byte after them makes them inner NULs.
#[test]
fn nuls_over_several_words_are_trailing_or_inner() {
    let config = Config::default();
    let mut serial = [0; 30];
    serial[0] = b'a';
    let found = scan(&element(&[sub(1, b"00256D"), sub(2, &serial)]), &config).conclude(&config);
    assert_eq!(found.map(|found| found.serial_number.length), Ok(1));
    serial[29] = b'b';
    let found = scan(&element(&[sub(1, b"00256D"), sub(2, &serial)]), &config).conclude(&config);
    assert_eq!(found, Err(Refusal::ControlCharacter));
}

/// RFC 3396: a value that is too long to be joined is damaged, and not an identity.
#[test]
fn an_option_above_the_limit_is_damaged() {
    let config = Config::default();
    let identity = element(&[sub(1, b"00256D"), sub(2, b"DEV0001")]);
    let mut joined = Joined::default();
    joined.append(identity.as_slice(), 0, identity.len() as u32);
    let filler = [0, 0, 0x0d, 0xea, 250].into_iter().chain([0; 250]).collect::<Vec<_>>();
    while joined.length() + 255 <= GATHERED_MAXIMUM {
        joined.append(filler.as_slice(), 0, 255);
    }
    let mut scan = Scan::new();
    scan.read_joined(&joined, &config, PlainLoop);
    assert!(!scan.is_damaged() && scan.conclude(&config).is_ok());
    joined.append(filler.as_slice(), 0, 255);
    let mut scan = Scan::new();
    scan.read_joined(&joined, &config, PlainLoop);
    assert!(scan.is_damaged());
}
