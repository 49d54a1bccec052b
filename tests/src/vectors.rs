//! The vectors of requirements.md H.1, option 125 with code and length, and those of H.2 that are used in more than one
//! place.

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
