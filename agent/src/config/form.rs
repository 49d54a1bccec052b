//! Rules for the strings of the configuration. Each returns the canonical form, or a text that says what was expected.

use std::net::{SocketAddr, SocketAddrV4};

use tr111_core::{association::Deny, identity::Oui, stun::Variants};

use super::redis_address::{BadAddress, RedisAddress};

/// Linux's `IFNAMSIZ` without the terminating NUL.
const INTERFACE_MAXIMUM: usize = 15;
/// Longest serial number and product class, in bytes (TR-111 Table 2).
const TEXT_MAXIMUM: usize = 64;
/// Longest string parameter of ManagementServer, in bytes (TR-111 Table 6).
const PARAMETER_MAXIMUM: usize = 256;

type Judged = Result<String, String>;

fn bounded(text: &str, least: usize, most: usize) -> Judged {
    if text.chars().any(char::is_control) {
        return Err("control characters are not allowed".to_owned());
    }
    match text.len() {
        0 if least > 0 => Err("must not be empty".to_owned()),
        length if length > most => Err(format!("at most {most} bytes, not {length}")),
        _ => Ok(text.to_owned()),
    }
}

/// Any string without control characters.
pub fn any(text: &str) -> Judged {
    bounded(text, 0, usize::MAX)
}

/// A string parameter of the data model, at most 256 bytes.
pub fn parameter(text: &str) -> Judged {
    bounded(text, 0, PARAMETER_MAXIMUM)
}

/// A serial number, 1 to 64 bytes.
pub fn serial_number(text: &str) -> Judged {
    bounded(text, 1, TEXT_MAXIMUM)
}

/// A product class, at most 64 bytes.
pub fn product_class(text: &str) -> Judged {
    bounded(text, 0, TEXT_MAXIMUM)
}

/// An OUI of six hexadecimal digits. The canonical form is upper case.
pub fn oui(text: &str) -> Judged {
    match text.parse::<Oui>() {
        Ok(oui) => Ok(oui.to_string()),
        Err(_) => Err(format!("expected six hexadecimal digits such as \"00256D\", not \"{}\"", text.escape_debug())),
    }
}

/// The name of a network interface, as the kernel allows it (`dev_valid_name`).
pub fn interface(text: &str) -> Judged {
    let allowed = |character: char| !character.is_whitespace() && !character.is_control() && !"/:".contains(character);
    if text.is_empty() || text.len() > INTERFACE_MAXIMUM || matches!(text, "." | "..") || !text.chars().all(allowed) {
        return Err(format!("\"{}\" cannot be the name of an interface", text.escape_debug()));
    }
    Ok(text.to_owned())
}

/// A file system path, 1 to 4096 bytes.
pub fn path(text: &str) -> Judged {
    bounded(text, 1, 4096)
}

/// An IPv4 or IPv6 address with a port.
pub fn address(text: &str) -> Judged {
    match text.parse::<SocketAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("expected ADDRESS:PORT such as \"127.0.0.1:9111\", not \"{}\"", text.escape_debug())),
    }
}

/// An IPv4 address with a port other than 0. TR-111 Part 2 is IPv4 only (T-64).
pub fn address_v4(text: &str) -> Judged {
    match text.parse::<SocketAddrV4>() {
        Ok(address) if address.port() != 0 => Ok(text.to_owned()),
        _ => Err(format!("expected IPV4:PORT such as \"0.0.0.0:7547\", not \"{}\"", text.escape_debug())),
    }
}

/// Forms of MESSAGE-INTEGRITY: letters separated by commas.
pub fn mi_variants(text: &str) -> Judged {
    match text.parse::<Variants>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}, not \"{}\"", text.escape_debug())),
    }
}

/// An address with a port, or an empty string.
pub fn address_or_off(text: &str) -> Judged {
    if text.is_empty() { Ok(text.to_owned()) } else { address(text) }
}

/// Parses a packet mark and its mask: `VALUE/MASK`, each decimal or hexadecimal.
pub fn mark_and_mask(text: &str) -> Option<(u32, u32)> {
    let number = |digits: &str| match digits.strip_prefix("0x") {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok(),
        None => digits.parse().ok(),
    };
    text.split_once('/').and_then(|(value, mask)| Some((number(value)?, number(mask)?)))
}

/// A packet mark and its mask. The mask must contain all bits of the mark and must not be 0.
pub fn mark(text: &str) -> Judged {
    match mark_and_mask(text) {
        Some((value, mask)) if mask != 0 && value & !mask == 0 => Ok(text.to_owned()),
        Some(_) => Err("the mask has to cover the value and must not be 0".to_owned()),
        None => Err(format!("expected VALUE/MASK such as \"0x01000000/0x01000000\", not \"{}\"", text.escape_debug())),
    }
}

/// An entry of `deny`: an identity or a MAC address.
pub fn deny(text: &str) -> Judged {
    match text.parse::<Deny>() {
        Ok(deny) => Ok(deny.to_string()),
        Err(error) => Err(format!("{error} such as \"00256D/DEV0001\", not \"{}\"", text.escape_debug())),
    }
}

/// Location of the registry of an ACS. Errors do not quote the text, which may contain a password.
pub fn registry(text: &str) -> Judged {
    match text {
        "embedded" => Ok(text.to_owned()),
        _ => text.parse().map(|_: RedisAddress| text.to_owned()).map_err(|error| match error {
            BadAddress::Form => format!("expected \"embedded\", or {error}"),
            BadAddress::Password => error.to_string(),
        }),
    }
}

/// A log level, or directives of the log.
pub fn log(text: &str) -> Judged {
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    match text.parse::<tracing_subscriber::filter::Targets>() {
        // A directive without `=` that is not a level is the name of a target. A misspelt level would disable all
        // logging.
        Ok(_) if is_misspelt_level(text) => {
            Err(format!("expected error, warn, info, debug, trace or off, not \"{}\"", text.escape_debug()))
        }
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}")),
    }
}

fn is_misspelt_level(text: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    text.split(',').all(|directive| {
        let directive = directive.trim();
        !directive.contains('=') && !levels.contains(&directive.to_ascii_lowercase().as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oui_is_six_hexadecimal_digits_and_gets_upper_case() {
        assert_eq!(oui("00d09e"), Ok("00D09E".to_owned()));
        for wrong in ["", "00D09", "00D09E1", "GG0000", "00:D0:9E"] {
            assert!(oui(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn serial_numbers_hold_1_to_64_bytes_without_control_characters() {
        assert!(serial_number(&"x".repeat(64)).is_ok());
        assert_eq!(serial_number(&"x".repeat(65)), Err("at most 64 bytes, not 65".to_owned()));
        assert!(serial_number("").is_err());
        assert!(serial_number("a\u{1b}[2J").is_err());
        assert!(product_class("").is_ok());
    }

    #[test]
    fn a_mask_covers_its_mark() {
        assert!(mark("0x01000000/0x01000000").is_ok());
        assert!(mark("1/3").is_ok());
        for wrong in ["0x3/0x1", "0/0", "1", "a/b", "0x1/"] {
            assert!(mark(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_log_level_is_refused() {
        assert!(log("debug").is_ok());
        assert!(log("info,tr111=trace").is_ok());
        for wrong in ["inof", "", "tr111=loud"] {
            assert!(log(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn interface_names_are_what_the_kernel_allows() {
        for right in ["lan0", "br-lan", "eth0.100", "ünï"] {
            assert!(interface(right).is_ok(), "{right}");
        }
        for wrong in ["", "..", "a b", "eth0:1", "a/b", "sixteencharacter"] {
            assert!(interface(wrong).is_err(), "{wrong}");
        }
    }
}
