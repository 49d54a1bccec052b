use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;
use tr111_common::{
    abi::{ClientKey, ExchangeKey},
    headers::Segment,
    identity::TEXT_MAXIMUM,
};

use crate::{dhcp::HardwareAddress, identity::DeviceIdentity};

/// Keyed hashes for the indices. Identities, addresses and client identifiers come from the LAN, and a LAN host must
/// not be able to choose colliding ones. `SipHash` with a random key from the agent; the core has no source of
/// randomness.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    hasher: SipHasher13,
}

impl Keys {
    pub(super) fn new(seed: u64) -> Self {
        Self { hasher: SipHasher13::new_with_keys(seed, seed.rotate_left(32) ^ 0x7472_3131_3100_0000) }
    }

    pub(super) fn client(&self, key: &ClientKey) -> u64 {
        let ClientKey { segment, hash, client_id_length, htype, .. } = *key;
        self.words([pack(segment), hash, u64::from(client_id_length) << 8 | u64::from(htype)])
    }

    pub(super) fn exchange(&self, key: &ExchangeKey) -> u64 {
        let ExchangeKey { segment, chaddr, xid, htype, .. } = *key;
        let [high, low] = halves(chaddr.first());
        self.words([pack(segment), high, low, u64::from(xid) << 8 | u64::from(htype)])
    }

    pub(super) fn address(&self, segment: Segment, ip: Ipv4Addr) -> u64 {
        self.words([pack(segment), u64::from(u32::from(ip))])
    }

    pub(super) fn mac(&self, mac: &HardwareAddress) -> u64 {
        let mut chaddr = [0; 16];
        let bytes = mac.as_bytes();
        chaddr[..bytes.len()].copy_from_slice(bytes);
        let [high, low] = halves(chaddr);
        self.words([high, low, bytes.len() as u64])
    }

    /// The hash of an Ethernet source on a segment.
    pub(super) fn sender(&self, segment: Segment, sender: [u8; 6]) -> u64 {
        let mut bytes = [0; 8];
        bytes[..sender.len()].copy_from_slice(&sender);
        self.words([pack(segment), u64::from_ne_bytes(bytes)])
    }

    pub(super) fn identity(&self, identity: &DeviceIdentity) -> u64 {
        let parts = [
            identity.manufacturer_oui.as_str().as_bytes(),
            identity.serial_number.as_bytes(),
            identity.product_class.as_bytes(),
        ];
        let mut bytes = [0; 3 * (TEXT_MAXIMUM as usize + 1)];
        let mut at = 0;
        // The length precedes each part, so that different identities never have equal encodings.
        for part in parts {
            bytes[at] = part.len() as u8;
            bytes[at + 1..][..part.len()].copy_from_slice(part);
            at += 1 + part.len();
        }
        self.hasher.hash(&bytes[..at])
    }

    fn words<const N: usize>(&self, words: [u64; N]) -> u64 {
        self.hasher.hash(words.map(u64::to_ne_bytes).as_flattened())
    }
}

fn pack(segment: Segment) -> u64 {
    let [outer, inner] = segment.vlan;
    u64::from(segment.ifindex) << 32 | u64::from(outer) << 16 | u64::from(inner)
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let both = u128::from_ne_bytes(bytes);
    [(both >> 64) as u64, both as u64]
}
