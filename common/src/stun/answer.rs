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

/// The answer as an IPv4 datagram: its bytes, two by two as they lie in memory.
pub type Datagram = [u16; DATAGRAM / 2];

impl Answer {
    /// The answer as an IPv4 datagram, both checksums included, from [`Answer::source`] to [`Answer::mapped`].
    ///
    /// All of it is one literal over halves of words in network order, which is the order in which sums do not care
    /// (RFC 1071 2): an array that is filled piece by piece costs the kernel program a quarter of its time.
    #[inline(always)]
    pub fn datagram(&self) -> Datagram {
        const TYPE: u16 = message::BINDING_RESPONSE.to_be();
        const ATTRIBUTES: u16 = ((3 * ADDRESS) as u16).to_be();
        const MAPPED: u16 = attribute::MAPPED_ADDRESS.to_be();
        const SOURCE: u16 = attribute::SOURCE_ADDRESS.to_be();
        const CHANGED: u16 = attribute::CHANGED_ADDRESS.to_be();
        const VALUE: u16 = 8u16.to_be();
        const FAMILY: u16 = FAMILY_IPV4.to_be();
        const VERSION: u16 = 0x4500u16.to_be();
        const LENGTH: u16 = (DATAGRAM as u16).to_be();
        const FLAGS: u16 = DO_NOT_FRAGMENT.to_be();
        const PROTOCOL: u16 = PROTOCOL_UDP.to_be();
        const LIFE: u16 = (TIME_TO_LIVE << 8 | PROTOCOL_UDP).to_be();
        const UDP_LENGTH: u16 = ((UDP_HEADER + ANSWER) as u16).to_be();
        // What is the same in all answers: the length counts twice, once of them for the pseudo header.
        const IP_SUM: u32 = sum(&[VERSION, LENGTH, FLAGS, LIFE]);
        const UDP_SUM: u32 = sum(&[PROTOCOL, UDP_LENGTH, UDP_LENGTH, TYPE, ATTRIBUTES])
            + sum(&[MAPPED, SOURCE, CHANGED, VALUE, VALUE, VALUE, FAMILY, FAMILY, FAMILY]);

        let half = |[high, low]: [u8; 2]| u16::from_ne_bytes([high, low]);
        let ends = |endpoint: &Endpoint| {
            let [a, b, c, d] = endpoint.address;
            [endpoint.port.to_be(), half([a, b]), half([c, d])]
        };
        let [source_port, source_high, source_low] = ends(&self.source);
        let [mapped_port, mapped_high, mapped_low] = ends(&self.mapped);
        let [changed_port, changed_high, changed_low] = ends(&self.changed);
        let id = &self.transaction_id;
        let [id0, id1, id2, id3, id4, id5, id6, id7] = [
            half([id[0], id[1]]),
            half([id[2], id[3]]),
            half([id[4], id[5]]),
            half([id[6], id[7]]),
            half([id[8], id[9]]),
            half([id[10], id[11]]),
            half([id[12], id[13]]),
            half([id[14], id[15]]),
        ];

        let addresses = sum(&[source_high, source_low, mapped_high, mapped_low]);
        let ip_checksum = !folded(IP_SUM + addresses);
        // Addresses and ports of both ends stand in the headers, and once more in the attributes.
        let twice = addresses + sum(&[source_port, mapped_port]);
        let once = sum(&[changed_port, changed_high, changed_low, id0, id1, id2, id3, id4, id5, id6, id7]);
        let udp_checksum = match !folded(UDP_SUM + 2 * twice + once) {
            // 0 would say that there is none (RFC 768).
            0 => 0xffff,
            checksum => checksum,
        };
        #[rustfmt::skip]
        let datagram = [
            VERSION, LENGTH, 0, FLAGS, LIFE, ip_checksum, source_high, source_low, mapped_high, mapped_low,
            source_port, mapped_port, UDP_LENGTH, udp_checksum,
            TYPE, ATTRIBUTES, id0, id1, id2, id3, id4, id5, id6, id7,
            MAPPED, VALUE, FAMILY, mapped_port, mapped_high, mapped_low,
            SOURCE, VALUE, FAMILY, source_port, source_high, source_low,
            CHANGED, VALUE, FAMILY, changed_port, changed_high, changed_low,
        ];
        datagram
    }
}

/// The words are few, so there is room for every carry.
#[inline(always)]
const fn sum(words: &[u16]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at < words.len() {
        sum += words[at] as u32;
        at += 1;
    }
    sum
}

/// The sum of RFC 1071 from one with its carries still in the upper half.
#[inline(always)]
const fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
