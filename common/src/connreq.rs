//! What the programs need to know of a UDP Connection Request (TR-111 2.2.1.4): how it begins.

use crate::{frame::Frame, headers::Udp};

/// The method, and the space that ends it. Methods are case-sensitive (RFC 2616 5.1.1).
const GET: [u8; 4] = *b"GET ";

/// Whether the UDP payload begins like a Connection Request (T-63). The agent judges the rest.
///
/// A fragment is not looked at: a request travels in one packet (UCR-21).
#[inline(always)]
pub fn begins_request<F: Frame + ?Sized>(frame: &F, udp: &Udp) -> bool {
    !udp.fragment && udp.payload + GET.len() as u32 <= udp.end && frame.load(udp.payload as usize) == Some(GET)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `payload` behind two other bytes, with a trailer of the link, begins a request.
    fn begins(payload: &[u8], fragment: bool) -> bool {
        let mut frame = [0; 64];
        frame[2..2 + payload.len()].copy_from_slice(payload);
        let end = 2 + payload.len() as u32;
        let udp = Udp { vlan: [0; 2], ip: 0, payload: 2, end, source_port: 1, destination_port: 2, fragment };
        begins_request(&frame[..], &udp)
    }

    /// UCR-17, T-63: what begins with `GET ` is a Connection Request, and nothing else.
    #[test]
    fn knows_a_request_by_its_first_bytes() {
        assert!(begins(b"GET http://198.51.100.7:40001?ts=1", false));
        assert!(begins(b"GET ", false));
        assert!(!begins(b"GET http://198.51.100.7:40001?ts=1", true));
        for other in [&b"GET"[..], b"", b"get http://h", b"POST http://h", b"\0\x01\0\0", b"\x01\x01\0\0", b"GETS"] {
            assert!(!begins(other, false));
        }
    }

    /// UCR-17: a payload that ends before the method does is none, whatever the link put behind it.
    #[test]
    fn looks_at_nothing_behind_the_payload() {
        let udp = Udp { vlan: [0; 2], ip: 0, payload: 0, end: 3, source_port: 1, destination_port: 2, fragment: false };
        assert!(!begins_request(&b"GET http"[..], &udp));
        assert!(!begins_request(&b"GE"[..], &Udp { end: 4, ..udp }));
    }
}
