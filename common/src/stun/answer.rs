//! The response to a Binding Request for the mapped address only, as sent by a server without a second address and port
//! (TR-111 2.2.2.1, RFC 3489 8.1).

use super::{HEADER, attribute, message};
use crate::abi::Endpoint;

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Length of an address attribute in bytes, including its header.
const ADDRESS: usize = 12;

/// Length of the response in bytes. The shortest request has 20 bytes, so the amplification factor is at most 2.8 (84
/// bytes for 48 with the IP and UDP headers, 98 for 60 with Ethernet).
pub const ANSWER: usize = HEADER + 3 * ADDRESS;
/// Length of the response in bytes, including the IPv4 and UDP headers.
pub const DATAGRAM: usize = IPV4_HEADER + UDP_HEADER + ANSWER;

/// The default TTL of Linux.
const TIME_TO_LIVE: u16 = 64;
const PROTOCOL_UDP: u16 = 17;
const DO_NOT_FRAGMENT: u16 = 0x4000;
const FAMILY_IPV4: u16 = 1;

/// A Binding Response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Transaction identifier of the request.
    pub transaction_id: [u8; 16],
    /// Source of the request.
    pub mapped: Endpoint,
    /// Destination of the request.
    pub source: Endpoint,
    /// The endpoint from which a response with both changes of RFC 3489 8.1 would be sent.
    pub changed: Endpoint,
}

/// The response as an IPv4 datagram: 16-bit words in memory order.
pub type Datagram = [u16; DATAGRAM / 2];

impl Answer {
    /// The response as an IPv4 datagram from [`Answer::source`] to [`Answer::mapped`], with both checksums.
    ///
    /// The datagram is one literal of 16-bit words in network order; Internet checksums do not depend on the byte order
    /// (RFC 1071 2). An array that is filled piece by piece costs the kernel program a quarter of its time.
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
        // The constant parts of the sums. The UDP length counts twice, once for the pseudo-header.
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
        // The addresses and ports of both ends are in the headers and again in the attributes.
        let twice = addresses + sum(&[source_port, mapped_port]);
        let once = sum(&[changed_port, changed_high, changed_low, id0, id1, id2, id3, id4, id5, id6, id7]);
        let udp_checksum = match !folded(UDP_SUM + 2 * twice + once) {
            // A checksum of 0 would mean "no checksum" (RFC 768).
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

/// The sum of a few words; 32 bits hold all carries.
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

/// Folds a sum with its carries in the upper half into 16 bits (RFC 1071).
#[inline(always)]
const fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
