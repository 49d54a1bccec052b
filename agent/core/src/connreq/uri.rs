//! Rules of RFC 3986 that involve more than one byte.

use std::net::Ipv6Addr;

use super::http::class;

/// The first character of `name` that has to be encoded in a query (RFC 3986 3.4), such as a space, `&` or a non-ASCII
/// letter. An ACS that does not encode cannot send such a ConnectionRequestUsername.
pub fn must_be_encoded(name: &str) -> Option<char> {
    name.chars().find(|character| !character.is_ascii() || class::OF[*character as usize] & class::VALUE == 0)
}

/// Whether each `%` is followed by two hexadecimal digits (RFC 3986 2.1).
pub(super) fn is_sound(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(at, &byte)| {
        byte != b'%' || text.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Whether `text`, which has bytes of an authority only, is `[userinfo "@"] host [":" port]` (RFC 3986 3.2). The scheme
/// http requires a non-empty host (RFC 2616 3.2.2).
pub(super) fn is_authority(text: &[u8]) -> bool {
    let (userinfo, server) = match text.iter().position(|&byte| byte == b'@') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (&[][..], text),
    };
    let (is_host, port) = if let [b'[', rest @ ..] = server {
        match rest.iter().position(|&byte| byte == b']') {
            Some(end) => (is_ip_literal(&rest[..end]), &rest[end + 1..]),
            None => return false,
        }
    } else {
        let end = server.iter().position(|&byte| byte == b':').unwrap_or(server.len());
        let (name, port) = server.split_at(end);
        (!name.is_empty() && !name.iter().any(|byte| matches!(byte, b'@' | b'[' | b']')), port)
    };
    let is_port = matches!(port, [] | [b':', ..]) && port.iter().skip(1).all(u8::is_ascii_digit);
    let is_userinfo = !userinfo.iter().any(|byte| matches!(byte, b'[' | b']'));
    is_host && is_port && is_userinfo && is_sound(text)
}

/// Whether the text between the brackets of an IP-literal is an `IPv6address` or an `IPvFuture` (RFC 3986 3.2.2).
fn is_ip_literal(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    match text.strip_prefix(['v', 'V']).and_then(|future| future.split_once('.')) {
        Some((version, address)) => {
            !version.is_empty()
                && version.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !address.is_empty()
                && !address.contains(['%', '@', '['])
        }
        None => text.parse::<Ipv6Addr>().is_ok(),
    }
}
