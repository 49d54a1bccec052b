//! UDP Connection Requests on the wire (TR-111 2.2.2.3), as an observer recognises them.

/// Length of the prefix that [`starts`] examines, in bytes.
pub const START: usize = 8;

/// Whether a datagram with this prefix is a Connection Request: a GET of an `http` URI (UCR-28 to UCR-30). Methods are
/// case-sensitive, schemes are not. STUN messages start with a byte of 0 or 1 (UCR-17).
#[inline(always)]
pub fn starts(bytes: [u8; START]) -> bool {
    // Bit 5 distinguishes lower from upper case. No bytes other than letters become the letters of `http` when it is
    // set.
    const LOWER: u64 = 0x0000_0000_2020_2020;
    u64::from_be_bytes(bytes) | LOWER == u64::from_be_bytes(*b"GET http")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UCR-5, UCR-17, UCR-30: only a GET of an http URI starts a Connection Request.
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
