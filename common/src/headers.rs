//! Ethernet, VLAN, IPv4 and UDP headers: from a frame to the span of its UDP payload.

use crate::{counter::Class, frame::Frame};

/// Where the source address stands in the Ethernet header.
pub const ETHERNET_SOURCE: u32 = 6;
const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const IPV4_MINIMUM: usize = 20;
/// Where the total length stands in the IPv4 header.
pub const IPV4_LENGTH: u32 = 2;
/// Where source and destination address stand in the IPv4 header.
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

/// Identifiers of the VLAN tags of a frame, outermost first; 0 where there is none.
///
/// Priority bits are left out: a reply may carry others than its request. A priority tag (identifier 0) equals no tag.
pub type VlanIds = [u16; 2];

/// The LAN segment of a frame: the interface and the VLANs that it came in by, or leaves by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// VLAN identifiers, outermost first, 0 for none.
    pub vlan: VlanIds,
}

/// A UDP datagram inside a frame. All offsets count bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// VLAN identifiers, the tag that the kernel keeps in metadata included.
    pub vlan: VlanIds,
    /// Start of the IPv4 header.
    pub ip: u32,
    /// Start of the UDP payload.
    pub payload: u32,
    /// End of the UDP payload by the UDP length field; for a first fragment, the end of the IP payload.
    pub end: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// First fragment of a datagram whose rest travels in other frames.
    pub fragment: bool,
}

/// Ports that a hook can look for at once.
pub const PORTS: usize = 8;

/// Which UDP ports a hook asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Every datagram.
    Any,
    /// One of these destination ports, up to the first 0.
    DestinationPorts(&'a [u16; PORTS]),
    /// The datagram's destination port.
    DestinationPort(u16),
}

/// What a frame carries behind its tags, and where that starts.
enum Network {
    Ipv4 { vlan: VlanIds, start: usize },
    Arp { vlan: VlanIds, start: usize },
}

/// Steps over Ethernet header and VLAN tags.
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
    // A priority tag names no VLAN, so it must not stand before one that does.
    if vlan[0] == 0 {
        vlan = [vlan[1], 0];
    }
    match ethertype {
        ETHERTYPE_IPV4 => Ok(Network::Ipv4 { vlan, start }),
        ETHERTYPE_ARP => Ok(Network::Arp { vlan, start }),
        _ => Err(Class::NotIpv4),
    }
}

/// Who sent an ARP message (RFC 826): a station that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpSender {
    /// VLAN identifiers.
    pub vlan: VlanIds,
    /// Sender hardware address.
    pub mac: [u8; 6],
    /// Sender protocol address; 0.0.0.0 in a probe (RFC 5227).
    pub ip: [u8; 4],
}

/// Finds the sender of an ARP message over Ethernet and IPv4.
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

/// Finds the UDP datagram of a frame, where its port is the wanted one.
///
/// `metadata_tag` is the VLAN tag control information that the kernel took out of the frame (`skb->vlan_tci`); it
/// stands outside the tags in the frame. Ports are compared before lengths are judged, so that other traffic costs
/// as little as possible and is never called damaged.
///
/// # Errors
/// The class to count the frame under: not ours, or ours with lengths that lie.
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

/// Whether the port is one of those before the first 0. Mostly there is one, and what follows costs nothing.
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
