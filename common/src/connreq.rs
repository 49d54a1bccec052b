//! UDP Connection Requests on the wire (TR-111 2.2.2.3): what an observer tells them by.

/// Bytes that [`starts`] looks at.
pub const START: usize = 8;

/// Whether a datagram that starts with these bytes is meant as a Connection Request: GET of an `http` URI (UCR-28 to
/// UCR-30). Methods are case-sensitive, schemes are not. STUN starts with a byte of 0 or 1 (UCR-17).
#[inline(always)]
pub fn starts(bytes: [u8; START]) -> bool {
    // Bit 5 is what tells lower from upper case; no other bytes than letters become the letters of `http` by it.
    const LOWER: u64 = 0x0000_0000_2020_2020;
    u64::from_be_bytes(bytes) | LOWER == u64::from_be_bytes(*b"GET http")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UCR-5, UCR-17, UCR-30: only GET of an http URI starts a Connection Request.
    #[test]
    fn knows_the_start_of_a_connection_request() {
        for good in [b"GET http", b"GET HTTP", b"GET HttP"] {
            assert!(starts(*good));
        }
        for bad in [b"get http", b"GET /abc", b"GET httq", b"POST htt", b"\0\x01\0\x18\x01\x02\x03\x04", b"GET\0http"] {
            assert!(!starts(*bad), "{bad:?}");
        }
        for place in 4..8 {
            for byte in 0..=u8::MAX {
                let mut start = *b"GET http";
                start[place] = byte;
                assert_eq!(starts(start), byte.eq_ignore_ascii_case(&b"GET http"[place]), "{byte} at {place}");
            }
        }
    }
}
