//! The answer to a Binding Request that asks for its address and for nothing else, as a server without second address and
//! port gives it (TR-111 2.2.2.1, RFC 3489 8.1).

use super::{HEADER, attribute, message};
use crate::abi::Endpoint;

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// An address attribute, its header included.
const ADDRESS: usize = 12;

/// Bytes of the answer. The shortest request has 20, so what is sent is at most 2.8 times what came; with the headers of
/// IP and UDP 84 bytes for 48, with Ethernet 98 for 60.
pub const ANSWER: usize = HEADER + 3 * ADDRESS;
/// Bytes of the answer with IPv4 and UDP headers.
pub const DATAGRAM: usize = IPV4_HEADER + UDP_HEADER + ANSWER;

/// What Linux gives its datagrams.
const TIME_TO_LIVE: u16 = 64;
const PROTOCOL_UDP: u16 = 17;
const DO_NOT_FRAGMENT: u16 = 0x4000;
const FAMILY_IPV4: u16 = 1;

/// A Binding Response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Transaction of the request.
    pub transaction_id: [u8; 16],
    /// Source of the request.
    pub mapped: Endpoint,
    /// Destination of the request.
    pub source: Endpoint,
    /// Where it would come from with both changes of RFC 3489 8.1.
    pub changed: Endpoint,
}

impl Answer {
    /// The answer as an IPv4 datagram, both checksums included, from [`Answer::source`] to [`Answer::mapped`].
    #[inline(always)]
    pub fn datagram(&self) -> [u8; DATAGRAM] {
        let Self { transaction_id: id, mapped, source, changed } = self;
        let pair = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let address = |endpoint: &Endpoint| [pair(&endpoint.address, 0), pair(&endpoint.address, 2)];
        let [source_high, source_low] = address(source);
        let [mapped_high, mapped_low] = address(mapped);
        let attribute = |kind: u16, endpoint: &Endpoint| {
            let [high, low] = address(endpoint);
            [kind, 8, FAMILY_IPV4, endpoint.port, high, low]
        };
        let udp_length = (UDP_HEADER + ANSWER) as u16;
        let mut words = [0u16; DATAGRAM / 2];
        words[..10].copy_from_slice(&[
            0x4500,
            DATAGRAM as u16,
            0,
            DO_NOT_FRAGMENT,
            TIME_TO_LIVE << 8 | PROTOCOL_UDP,
            0,
            source_high,
            source_low,
            mapped_high,
            mapped_low,
        ]);
        words[10..14].copy_from_slice(&[source.port, mapped.port, udp_length, 0]);
        words[14..16].copy_from_slice(&[message::BINDING_RESPONSE, (3 * ADDRESS) as u16]);
        let mut at = 0;
        while at < 8 {
            words[16 + at] = pair(id, 2 * at);
            at += 1;
        }
        words[24..30].copy_from_slice(&attribute(attribute::MAPPED_ADDRESS, mapped));
        words[30..36].copy_from_slice(&attribute(attribute::SOURCE_ADDRESS, source));
        words[36..42].copy_from_slice(&attribute(attribute::CHANGED_ADDRESS, changed));

        words[5] = !folded(sum(&words[..10]));
        // The pseudo header: both addresses, the protocol and the length once more.
        let pseudo = sum(&words[6..10]) + u32::from(PROTOCOL_UDP) + u32::from(udp_length);
        words[13] = match !folded(pseudo + sum(&words[10..])) {
            // 0 would say that there is none (RFC 768).
            0 => 0xffff,
            checksum => checksum,
        };

        let mut bytes = [0; DATAGRAM];
        let mut at = 0;
        while at < DATAGRAM / 2 {
            [bytes[2 * at], bytes[2 * at + 1]] = words[at].to_be_bytes();
            at += 1;
        }
        bytes
    }
}

/// At most 42 words, so there is room for every carry.
#[inline(always)]
fn sum(words: &[u16]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at < words.len() {
        sum += u32::from(words[at]);
        at += 1;
    }
    sum
}

/// The sum of RFC 1071 from one with its carries still in the upper half.
#[inline(always)]
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
