//! Test vectors that several programs use: option 125 with code and length, and STUN messages.

use tr111_core::stun::Attribute;

/// Device 00256D / DEV0001 / STB.
pub const D1: &str = "7d1b00000de91601063030323536440207444556303030310303535442";
/// Device 00256D / DEV0001 without a class.
pub const D2: &str = "7d1600000de9110106303032353644020744455630303031";

/// Gateway 00256D / GW0001 / IGD.
pub const G1: &str = "7d1a00000de915040630303235364405064757303030310603494744";
/// Gateway 00256D / GW0001 without a class.
pub const G2: &str = "7d1500000de91004063030323536440506475730303031";

/// The answer of 203.0.113.10:3478 to a Binding Request from 198.51.100.7:40001 with transaction 0102...10.
pub const S5: &str = "010100240102030405060708090a0b0c0d0e0f100001000800019c41c6336407\
                      0004000800010d96cb00710a0005000800010d96cb00710a";

/// H.2, S1: CONNECTION-REQUEST-BINDING.
pub const S1: &str = "000100180102030405060708090a0b0c0d0e0f10c001001464736c666f72756d2e6f72672f54522d31313120";
/// H.2, S2: The same with USERNAME.
pub const S2: &str = "000100240102030405060708090a0b0c0d0e0f10c001001464736c666f72756d2e6f72672f54522d3131312000 \
                      0600084350453537363839";
/// H.2, S3: The same with BINDING-CHANGE.
pub const S3: &str = "000100280102030405060708090a0b0c0d0e0f10c001001464736c666f72756d2e6f72672f54522d31313120c0 \
                      020000000600084350453537363839";
/// H.2, S4: Signed.
pub const S4: &str = "000100401112131415161718191a1b1c1d1e1f20c001001464736c666f72756d2e6f72672f54522d31313120c0 \
                      0200000006000843504535373638390008001466fe75f37a9b2ac104f5947c80ed24973c4f6730";
/// H.2, S6: Success, signed.
pub const S6: &str = "0101003c1112131415161718191a1b1c1d1e1f200001000800019c41c63364070004000800010d96cb00710a00 \
                      05000800010d96cb00710a000800145d9aac88a3b8fefee4866d84f1b46c11a7297f91";
/// H.2, S7: 401.
pub const S7: &str = "011100140102030405060708090a0b0c0d0e0f100009001000000401556e617574686f72697a6564";
/// H.2, S8: 420 for attribute 0x7777.
pub const S8: &str = "011100240102030405060708090a0b0c0d0e0f100009001800000414556e6b6e6f776e20417474726962757465 \
                      202020000a000477777777";
/// H.2, S9: A lifetime probe.
pub const S9: &str = "0001000c2122232425262728292a2b2c2d2e2f300002000800019c41c6336407";
/// H.2, S10: The answer to it: seen from port 40002, sent to 40001.
pub const S10: &str = "010100302122232425262728292a2b2c2d2e2f300001000800019c42c63364070004000800010d96cb00710a00 \
                      05000800010d96cb00710a000b000800019c42c6336407";
/// H.2, S12: 433 to a Shared Secret Request over UDP.
pub const S12: &str = "011200100102030405060708090a0b0c0d0e0f100009000c0000042155736520544c5320";

/// CONNECTION-REQUEST-BINDING as set-top boxes write it, with NUL for the blank at its end.
pub const NUL_BINDING: Attribute<'_> = Attribute::Other { code: 0xc001, value: b"dslforum.org/TR-111\0" };
/// Attributes of its type with another text or another length.
pub const WRONG_BINDINGS: [Attribute<'_>; 3] = [
    Attribute::Other { code: 0xc001, value: b"dslforum.org/TR-112 " },
    Attribute::Other { code: 0xc001, value: b"dslforum.org/TR-111\0\0\0\0\0" },
    Attribute::Other { code: 0xc001, value: b"dslforum.org/TR-" },
];

/// A name as those boxes write it: padded with NULs to 32 bytes.
///
/// # Panics
/// On a longer name: names are part of the tests.
pub fn padded_with_nuls(name: &[u8]) -> [u8; 32] {
    let mut field = [0; 32];
    field[..name.len()].copy_from_slice(name);
    field
}

/// Bytes of hexadecimal digits; blanks are ignored.
///
/// # Panics
/// On anything else: vectors are part of the tests.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: String = digits.chars().filter(|character| !character.is_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {digits}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Option 125 with a Device Identity.
pub fn identity(oui: &str, serial_number: &str, product_class: &str) -> Vec<u8> {
    let mut element = Vec::new();
    for (code, text) in [(1, oui), (2, serial_number), (3, product_class)] {
        if code != 3 || !text.is_empty() {
            element.extend([code, text.len() as u8]);
            element.extend(text.bytes());
        }
    }
    let mut option = vec![0x7d, element.len() as u8 + 5, 0, 0, 0x0d, 0xe9, element.len() as u8];
    option.extend(element);
    option
}
