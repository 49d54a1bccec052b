//! ARP over Ethernet and IPv4 (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// The Ethernet broadcast address.
pub const EVERYBODY: [u8; 6] = [0xff; 6];
/// Hardware type, protocol type and their address lengths.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const ARP_REPLY: [u8; 2] = [0, 2];

/// An ARP request for an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpRequest {
    /// Hardware address and IPv4 address of the sender.
    pub sender: ([u8; 6], Ipv4Addr),
    /// The requested address.
    pub target: Ipv4Addr,
}

impl ArpRequest {
    /// Parses an untagged Ethernet frame; `None` if it is not an ARP request for an IPv4 address.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (header, packet) = frame.split_at_checked(14)?;
        let packet: &[u8; 28] = packet.first_chunk()?;
        if header[12..] != ETHERTYPE_ARP.to_be_bytes()
            || packet[..6] != ARP_ETHERNET_IPV4
            || packet[6..8] != ARP_REQUEST
        {
            return None;
        }
        let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        Some(Self { sender: (*packet[8..].first_chunk()?, address(14)), target: address(24) })
    }

    /// An Ethernet frame with the request, to `mac`, tagged with the VLANs in `vlan`: outermost first, 0 for none.
    pub fn to_frame(self, mac: [u8; 6], vlan: [u16; 2]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(64);
        frame.extend(mac);
        frame.extend(self.sender.0);
        let tags: Vec<u16> = vlan.into_iter().filter(|id| *id != 0).collect();
        for (index, id) in tags.iter().enumerate() {
            // The outer tag of two is a service tag (IEEE 802.1ad).
            let is_service = index + 1 < tags.len();
            frame.extend(if is_service { ETHERTYPE_SERVICE_VLAN } else { ETHERTYPE_VLAN }.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        frame.extend(ETHERTYPE_ARP.to_be_bytes());
        frame.extend(ARP_ETHERNET_IPV4);
        frame.extend(ARP_REQUEST);
        frame.extend(self.sender.0);
        frame.extend(self.sender.1.octets());
        frame.extend(mac);
        frame.extend(self.target.octets());
        frame
    }

    /// An untagged broadcast frame with the request.
    pub fn to_everybody(self) -> Vec<u8> {
        self.to_frame(EVERYBODY, [0, 0])
    }

    /// A frame with the reply that the requested address belongs to `mac`.
    pub fn reply(&self, mac: [u8; 6]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(64);
        frame.extend(self.sender.0);
        frame.extend(mac);
        frame.extend(ETHERTYPE_ARP.to_be_bytes());
        frame.extend(ARP_ETHERNET_IPV4);
        frame.extend(ARP_REPLY);
        frame.extend(mac);
        frame.extend(self.target.octets());
        frame.extend(self.sender.0);
        frame.extend(self.sender.1.octets());
        frame
    }
}
