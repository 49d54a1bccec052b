//! Ethernet, VLAN, IPv4 and UDP headers: finds the UDP payload of a frame.

use crate::{counter::Class, frame::Frame};

/// Offset of the source address in the Ethernet header.
pub const ETHERNET_SOURCE: u32 = 6;
const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const IPV4_MINIMUM: usize = 20;
/// Offset of the total length in the IPv4 header.
pub const IPV4_LENGTH: u32 = 2;
/// Offset of the source address in the IPv4 header; the destination address follows it.
pub const IPV4_ADDRESSES: usize = 12;
const UDP_HEADER: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Protocol number of UDP in the IPv4 header.
pub const PROTOCOL_UDP: u8 = 17;

const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
const VLAN_ID: u16 = 0x0fff;

/// VLAN identifiers of a frame, outermost first; 0 for an absent tag.
///
/// Priority bits are not included, because a reply may have a different priority than its request. A priority tag (VLAN
/// identifier 0) is treated as no tag.
pub type VlanIds = [u16; 2];

/// The LAN segment of a frame: the interface through which it arrives or leaves, and its VLANs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// VLAN identifiers, outermost first; 0 for an absent tag.
    pub vlan: VlanIds,
}

/// A UDP datagram in a frame. Offsets are in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// VLAN identifiers, including the tag that the kernel keeps in metadata.
    pub vlan: VlanIds,
    /// Offset of the IPv4 header.
    pub ip: u32,
    /// Offset of the UDP payload.
    pub payload: u32,
    /// End of the UDP payload according to the UDP length; for a first fragment, the end of the IP payload.
    pub end: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Whether this is the first fragment of a datagram.
    pub fragment: bool,
}

/// Most ports that a hook can look for.
pub const PORTS: usize = 8;

/// The UDP ports that a hook looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// All datagrams.
    Any,
    /// Any of these destination ports; the list ends at the first 0.
    DestinationPorts(&'a [u16; PORTS]),
    /// This destination port.
    DestinationPort(u16),
}

/// The network protocol of a frame, and the offset of its header.
enum Network {
    Ipv4 { vlan: VlanIds, start: usize },
    Arp { vlan: VlanIds, start: usize },
}

/// Parses the Ethernet header and the VLAN tags.
#[inline(always)]
fn find_network<F: Frame + ?Sized>(frame: &F, metadata_tag: Option<u16>) -> Result<Network, Class> {
    let mut vlan = [0u16; 2];
    let mut tags = 0;
    if let Some(tag) = metadata_tag {
        vlan[0] = tag & VLAN_ID;
        tags = 1;
    }
    let mut start = ETHERNET_HEADER;
    let mut ethertype = u16::from_be_bytes(frame.load::<2>(12).ok_or(Class::NotIpv4)?);
    if is_vlan(ethertype) && tags < 2 {
        let [a, b, c, d] = frame.load::<4>(start).ok_or(Class::NotIpv4)?;
        vlan[tags] = u16::from_be_bytes([a, b]) & VLAN_ID;
        tags += 1;
        ethertype = u16::from_be_bytes([c, d]);
        start += VLAN_TAG;
        if is_vlan(ethertype) && tags < 2 {
            let [a, b, c, d] = frame.load::<4>(start).ok_or(Class::NotIpv4)?;
            vlan[tags] = u16::from_be_bytes([a, b]) & VLAN_ID;
            ethertype = u16::from_be_bytes([c, d]);
            start += VLAN_TAG;
        }
    }
    // A priority tag does not name a VLAN, so it must not precede a tag that does.
    if vlan[0] == 0 {
        vlan = [vlan[1], 0];
    }
    match ethertype {
        ETHERTYPE_IPV4 => Ok(Network::Ipv4 { vlan, start }),
        ETHERTYPE_ARP => Ok(Network::Arp { vlan, start }),
        _ => Err(Class::NotIpv4),
    }
}

/// The sender of an ARP message (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpSender {
    /// VLAN identifiers.
    pub vlan: VlanIds,
    /// Sender hardware address.
    pub mac: [u8; 6],
    /// Sender protocol address; 0.0.0.0 in a probe (RFC 5227).
    pub ip: [u8; 4],
}

/// Finds the sender of an ARP message for Ethernet and IPv4; `None` for any other frame.
#[inline(always)]
pub fn find_arp<F: Frame + ?Sized>(frame: &F, metadata_tag: Option<u16>) -> Option<ArpSender> {
    let Ok(Network::Arp { vlan, start }) = find_network(frame, metadata_tag) else { return None };
    let arp: [u8; 18] = frame.load(start)?;
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    Some(ArpSender {
        vlan,
        mac: [arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]],
        ip: [arp[14], arp[15], arp[16], arp[17]],
    })
}

/// Finds the UDP datagram of a frame if it has the wanted port.
///
/// `metadata_tag` is the tag control information of the VLAN tag that the kernel removed from the frame
/// (`skb->vlan_tci`); it is outside the tags in the frame. Ports are compared before lengths are checked, so that other
/// traffic costs as little as possible and is never counted as malformed.
///
/// # Errors
/// The class of the frame: unrelated traffic, or wanted traffic with invalid lengths.
#[inline(always)]
pub fn find_udp<F: Frame + ?Sized>(frame: &F, metadata_tag: Option<u16>, wanted: Wanted<'_>) -> Result<Udp, Class> {
    let (ids, ip) = match find_network(frame, metadata_tag)? {
        Network::Ipv4 { vlan, start } => (vlan, start),
        Network::Arp { .. } => return Err(Class::Arp),
    };

    let header: [u8; IPV4_MINIMUM] = frame.load(ip).ok_or(Class::NotIpv4)?;
    if header[0] >> 4 != 4 {
        return Err(Class::NotIpv4);
    }
    if header[9] != PROTOCOL_UDP {
        return Err(Class::NotUdp);
    }
    let fragmentation = u16::from_be_bytes([header[6], header[7]]);
    if fragmentation & FRAGMENT_OFFSET != 0 {
        return Err(Class::LaterFragment);
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let udp = ip + header_length;
    let ports = frame.load::<UDP_HEADER>(udp).ok_or(Class::OtherPort)?;
    let source_port = u16::from_be_bytes([ports[0], ports[1]]);
    let destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    let matches = match wanted {
        Wanted::Any => true,
        Wanted::DestinationPorts(ports) => is_among(destination_port, ports),
        Wanted::DestinationPort(port) => destination_port == port,
    };
    if !matches {
        return Err(Class::OtherPort);
    }

    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let udp_length = usize::from(u16::from_be_bytes([ports[4], ports[5]]));
    if header_length < IPV4_MINIMUM
        || total_length < header_length + UDP_HEADER
        || ip + total_length > frame.len()
        || udp_length < UDP_HEADER
    {
        return Err(Class::BadLength);
    }
    let fragment = fragmentation & MORE_FRAGMENTS != 0;
    let end = if fragment { ip + total_length } else { udp + udp_length };
    if end > ip + total_length {
        return Err(Class::BadLength);
    }
    Ok(Udp {
        vlan: ids,
        ip: ip as u32,
        payload: (udp + UDP_HEADER) as u32,
        end: end as u32,
        source_port,
        destination_port,
        fragment,
    })
}

/// Whether `port` is in the list, which ends at the first 0.
#[inline(always)]
pub fn is_among(port: u16, ports: &[u16; PORTS]) -> bool {
    ports.iter().take_while(|known| **known != 0).any(|known| *known == port)
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN
}

#[cfg(test)]
mod tests;
