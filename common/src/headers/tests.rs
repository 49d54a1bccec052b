//! Tests with frames that are built by hand, so that only this module is tested.

extern crate std;

use std::{vec, vec::Vec};

use super::*;

const PAYLOAD: &[u8] = b"payload";

/// The parts of a frame. The default is an untagged datagram from port 68 to port 67.
#[derive(Clone)]
struct Parts {
    tags: Vec<(u16, u16)>,
    ip_options: usize,
    total_length: Option<u16>,
    fragmentation: u16,
    protocol: u8,
    ports: [u16; 2],
    udp_length: Option<u16>,
    trailer: usize,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            ip_options: 0,
            total_length: None,
            fragmentation: 0,
            protocol: PROTOCOL_UDP,
            ports: [68, 67],
            udp_length: None,
            trailer: 0,
        }
    }
}

impl Parts {
    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for (protocol, control) in &self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        let udp_length = (UDP_HEADER + PAYLOAD.len()) as u16;
        let header_length = IPV4_MINIMUM + self.ip_options;
        let total_length = self.total_length.unwrap_or(header_length as u16 + udp_length);
        let mut ip = vec![0; header_length];
        ip[0] = 0x40 | (header_length / 4) as u8;
        ip[2..4].copy_from_slice(&total_length.to_be_bytes());
        ip[6..8].copy_from_slice(&self.fragmentation.to_be_bytes());
        ip[9] = self.protocol;
        frame.extend(ip);
        for word in [self.ports[0], self.ports[1], self.udp_length.unwrap_or(udp_length), 0] {
            frame.extend(word.to_be_bytes());
        }
        frame.extend(PAYLOAD);
        frame.extend(vec![0xee; self.trailer]);
        frame
    }

    fn find(&self) -> Result<Udp, Class> {
        find(&self.frame(), None)
    }
}

fn find(frame: &[u8], metadata_tag: Option<u16>) -> Result<Udp, Class> {
    find_udp(frame, metadata_tag, Wanted::DestinationPort(67))
}

fn payload(frame: &[u8], udp: &Udp) -> Vec<u8> {
    frame[udp.payload as usize..udp.end as usize].to_vec()
}

const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;

/// GW-1: tagged and untagged frames are found; VLAN identifiers are ordered outermost first, without their priorities.
#[test]
fn finds_datagrams_below_up_to_two_tags() {
    for (tags, vlan) in [
        (vec![], [0, 0]),
        (vec![(CUSTOMER, 0x6005)], [5, 0]),
        (vec![(SERVICE, 6), (CUSTOMER, 0xe007)], [6, 7]),
        (vec![(CUSTOMER, 0xe000)], [0, 0]),
        (vec![(CUSTOMER, 0xe000), (CUSTOMER, 9)], [9, 0]),
    ] {
        let parts = Parts { tags: tags.clone(), ..Parts::default() };
        let udp = parts.find().unwrap();
        assert_eq!((udp.vlan, udp.source_port, udp.destination_port, udp.fragment), (vlan, 68, 67, false), "{tags:?}");
        assert_eq!(payload(&parts.frame(), &udp), PAYLOAD);
    }
    let tags = vec![(SERVICE, 6), (CUSTOMER, 7), (CUSTOMER, 8)];
    assert_eq!(Parts { tags, ..Parts::default() }.find(), Err(Class::NotIpv4));
}

/// The kernel removes the outermost tag from a frame.
#[test]
fn a_tag_in_metadata_stands_outside_those_in_the_frame() {
    let with = |tags| Parts { tags, ..Parts::default() }.frame();
    assert_eq!(find(&with(vec![]), Some(0x2005)).unwrap().vlan, [5, 0]);
    assert_eq!(find(&with(vec![(CUSTOMER, 7)]), Some(6)).unwrap().vlan, [6, 7]);
    assert_eq!(find(&with(vec![(CUSTOMER, 7)]), Some(0xe000)).unwrap().vlan, [7, 0]);
    assert_eq!(find(&with(vec![(CUSTOMER, 7), (CUSTOMER, 8)]), Some(6)), Err(Class::NotIpv4));
}

/// T-28: IP options before the payload and Ethernet padding after it are not part of it.
#[test]
fn lengths_say_where_the_payload_is() {
    for (ip_options, trailer) in [(0, 40), (4, 0), (40, 3)] {
        let parts = Parts { ip_options, trailer, ..Parts::default() };
        assert_eq!(payload(&parts.frame(), &parts.find().unwrap()), PAYLOAD);
    }
    // The UDP length may end before the IP packet does.
    let parts = Parts { udp_length: Some(8 + 3), ..Parts::default() };
    assert_eq!(payload(&parts.frame(), &parts.find().unwrap()), &PAYLOAD[..3]);
}

#[test]
fn lengths_that_lie_are_refused() {
    let whole = (IPV4_MINIMUM + UDP_HEADER + PAYLOAD.len()) as u16;
    for parts in [
        Parts { total_length: Some(whole + 1), ..Parts::default() },
        Parts { total_length: Some(u16::MAX), ..Parts::default() },
        Parts { total_length: Some(27), ..Parts::default() },
        Parts { total_length: Some(0), ..Parts::default() },
        Parts { udp_length: Some(7), ..Parts::default() },
        Parts { udp_length: Some(0), ..Parts::default() },
        Parts { udp_length: Some(u16::MAX), ..Parts::default() },
        Parts { total_length: Some(whole - 1), ..Parts::default() },
        // Inside the Ethernet padding, but beyond the IP packet.
        Parts { udp_length: Some(8 + 9), trailer: 20, ..Parts::default() },
    ] {
        assert_eq!(parts.find(), Err(Class::BadLength));
        // Lengths of traffic with other ports are not checked.
        assert_eq!(Parts { ports: [68, 68], ..parts }.find(), Err(Class::OtherPort));
    }
}

#[test]
fn a_header_shorter_than_ipv4s_is_refused() {
    // With a header length of 4 words, the destination address would be read as the ports.
    let mut frame = Parts::default().frame();
    frame[14] = 0x44;
    frame[14 + 18..14 + 20].copy_from_slice(&67u16.to_be_bytes());
    assert_eq!(find(&frame, None), Err(Class::BadLength));
}

/// T-28: a first fragment extends to the end of its IP packet; later fragments have no ports.
#[test]
fn fragments_are_told_apart() {
    let first = Parts { fragmentation: 0x2000, udp_length: Some(1_400), trailer: 5, ..Parts::default() };
    let udp = first.find().unwrap();
    assert!(udp.fragment);
    assert_eq!(payload(&first.frame(), &udp), PAYLOAD);
    for fragmentation in [0x2001, 0x0001, 0x1fff] {
        assert_eq!(Parts { fragmentation, ..Parts::default() }.find(), Err(Class::LaterFragment));
    }
    // "Do not fragment" does not make a fragment.
    assert!(!Parts { fragmentation: 0x4000, ..Parts::default() }.find().unwrap().fragment);
}

#[test]
fn other_traffic_is_not_ours() {
    let class = |parts: Parts| parts.find().unwrap_err();
    assert_eq!(class(Parts { protocol: 6, ..Parts::default() }), Class::NotUdp);
    assert_eq!(class(Parts { ports: [67, 68], ..Parts::default() }), Class::OtherPort);
    assert_eq!(class(Parts { ports: [67, 53], ..Parts::default() }), Class::OtherPort);
    let mut frame = Parts::default().frame();
    frame[14] = 0x65;
    assert_eq!(find(&frame, None), Err(Class::NotIpv4));
    for (ethertype, class) in [(0x86dd, Class::NotIpv4), (0x0806, Class::Arp), (0x8863, Class::NotIpv4)] {
        frame[12..14].copy_from_slice(&u16::to_be_bytes(ethertype));
        assert_eq!(find(&frame, None), Err(class));
    }
    let wanted = Wanted::DestinationPorts(&[68, 67, 0, 69, 0, 0, 0, 0]);
    for (ports, class) in [([67, 68], None), ([40067, 67], None), ([68, 69], Some(Class::OtherPort))] {
        let frame = Parts { ports, ..Parts::default() }.frame();
        assert_eq!(find_udp(frame.as_slice(), None, wanted).err(), class, "{ports:?}");
    }
}

/// A truncated frame yields a class, never a panic, and no datagram extends beyond its frame.
#[test]
fn frames_cut_anywhere_are_refused() {
    for tags in [vec![], vec![(CUSTOMER, 5)], vec![(SERVICE, 6), (CUSTOMER, 7)]] {
        for ip_options in [0, 8] {
            let frame = Parts { tags: tags.clone(), ip_options, ..Parts::default() }.frame();
            for length in 0..frame.len() {
                let expected = [Class::NotIpv4, Class::OtherPort, Class::BadLength];
                assert!(expected.contains(&find(&frame[..length], None).unwrap_err()), "{length}");
            }
        }
    }
}

/// T-6: the sender of an ARP message is found with its segment; other kinds of ARP are ignored.
#[test]
fn the_sender_of_an_arp_message_is_found() {
    let arp = [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 192, 168, 1, 50, 2, 0, 0, 0, 0, 0xfe, 192, 168, 1, 1];
    let untagged = [&[0xff; 12][..], &[8, 6], &arp].concat();
    let sender = find_arp(untagged.as_slice(), None).unwrap();
    assert_eq!(sender, ArpSender { vlan: [0, 0], mac: [2, 0, 0, 0, 0, 1], ip: [192, 168, 1, 50] });
    let tagged = [&[0xff; 12][..], &[0x81, 0, 0x60, 7, 8, 6], &arp].concat();
    assert_eq!(find_arp(tagged.as_slice(), Some(9)).unwrap().vlan, [9, 7]);
    let mut token_ring = untagged;
    token_ring[15] = 6;
    assert_eq!(find_arp(token_ring.as_slice(), None), None);
    assert_eq!(find_arp(token_ring[..20].as_ref(), None), None);
}
