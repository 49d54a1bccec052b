use std::net::Ipv4Addr;

use tr111_common::dhcp4::{
    BOOTREPLY, BOOTREQUEST, CLIENT_PORT, COOKIE, FILE, MessageType, OPTIONS, SERVER_PORT, SNAME, option,
};

use super::Message;

/// Minimum length of a message in bytes. BOOTP pads messages to it, and some receivers still require that (RFC 1542
/// 2.1).
const BOOTP_MINIMUM: usize = 300;
const ETHERTYPE_IPV4: u16 = 0x0800;
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const TIME_TO_LIVE: u8 = 64;
const PROTOCOL_UDP: u8 = 17;
const BROADCAST_FLAG: [u8; 2] = [0x80, 0];
const ALL_STATIONS: [u8; 6] = [0xff; 6];

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Tag protocol identifier: 0x8100, or 0x88A8 for a service tag.
    pub protocol: u16,
    /// Tag control information: priority and VLAN identifier.
    pub control: u16,
}

/// Builds a DHCP message as a complete Ethernet frame with valid checksums.
#[derive(Clone, Debug)]
pub struct Builder {
    ethernet: [[u8; 6]; 2],
    tags: Vec<Tag>,
    addresses: [Ipv4Addr; 2],
    ports: [u16; 2],
    message: Vec<u8>,
    end: bool,
}

impl Builder {
    /// A client's message, broadcast without a source address.
    pub fn request(message_type: MessageType, mac: [u8; 6], xid: u32) -> Self {
        Self {
            ethernet: [ALL_STATIONS, mac],
            tags: Vec::new(),
            addresses: [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST],
            ports: [CLIENT_PORT, SERVER_PORT],
            message: fixed(BOOTREQUEST, xid, mac),
            end: true,
        }
        .option(option::MESSAGE_TYPE, &[message_type as u8])
    }

    /// A server's message, addressed according to RFC 2131 4.1: to the relay agent, to `ciaddr`, by broadcast, or to
    /// `yiaddr`.
    ///
    /// The server has the IPv4 address `server` and the Ethernet address `mac`; `yiaddr` is the assigned address, or
    /// 0.0.0.0.
    pub fn reply(
        message_type: MessageType,
        to: &Message<'_>,
        mac: [u8; 6],
        server: Ipv4Addr,
        yiaddr: Ipv4Addr,
    ) -> Self {
        let request = &to.fixed;
        let mut message = fixed(BOOTREPLY, request.xid, [0; 6]);
        message[1] = request.htype;
        message[2] = request.hlen;
        message[28..44].copy_from_slice(&request.chaddr.first::<16>());
        if to.broadcast {
            message[10..12].copy_from_slice(&BROADCAST_FLAG);
        }
        if message_type != MessageType::Nak {
            message[12..16].copy_from_slice(&request.ciaddr);
            message[16..20].copy_from_slice(&yiaddr.octets());
        }
        message[24..28].copy_from_slice(&request.giaddr);
        let (ethernet, destination, port) = if !to.giaddr().is_unspecified() {
            (to.ethernet_source, to.giaddr(), SERVER_PORT)
        } else if message_type == MessageType::Nak {
            (ALL_STATIONS, Ipv4Addr::BROADCAST, CLIENT_PORT)
        } else if !to.ciaddr().is_unspecified() {
            (to.ethernet_source, to.ciaddr(), CLIENT_PORT)
        } else if to.broadcast {
            (ALL_STATIONS, Ipv4Addr::BROADCAST, CLIENT_PORT)
        } else {
            (to.ethernet_source, yiaddr, CLIENT_PORT)
        };
        Self {
            ethernet: [ethernet, mac],
            tags: Vec::new(),
            addresses: [server, destination],
            ports: [SERVER_PORT, port],
            message,
            end: true,
        }
        .option(option::MESSAGE_TYPE, &[message_type as u8])
        .option(option::SERVER_ID, &server.octets())
    }

    /// Sets the destination: Ethernet address and IPv4 address.
    #[must_use]
    pub fn to(mut self, mac: [u8; 6], address: Ipv4Addr) -> Self {
        self.ethernet[0] = mac;
        self.addresses[1] = address;
        self
    }

    /// Sets the source: Ethernet address and IPv4 address.
    #[must_use]
    pub fn from(mut self, mac: [u8; 6], address: Ipv4Addr) -> Self {
        self.ethernet[1] = mac;
        self.addresses[0] = address;
        self
    }

    /// Sets the client's address, in the message and as the source of the datagram.
    #[must_use]
    pub fn ciaddr(mut self, address: Ipv4Addr) -> Self {
        self.message[12..16].copy_from_slice(&address.octets());
        self.addresses[0] = address;
        self
    }

    /// Sets the Ethernet source, which is the client's hardware address otherwise.
    #[must_use]
    pub fn ethernet_source(mut self, mac: [u8; 6]) -> Self {
        self.ethernet[1] = mac;
        self
    }

    /// Sets the relay agent's address, in the message and as the source of the datagram.
    #[must_use]
    pub fn giaddr(mut self, address: Ipv4Addr) -> Self {
        self.message[24..28].copy_from_slice(&address.octets());
        self.addresses[0] = address;
        self.ports[0] = SERVER_PORT;
        self
    }

    /// Sets the broadcast flag: replies should be broadcast.
    #[must_use]
    pub fn broadcast(mut self) -> Self {
        self.message[10..12].copy_from_slice(&BROADCAST_FLAG);
        self
    }

    /// Adds an option; a value of more than 255 bytes is split into several instances (RFC 3396).
    #[must_use]
    pub fn option(mut self, code: u8, value: &[u8]) -> Self {
        append(&mut self.message, code, value);
        self
    }

    /// Adds an option with an IPv4 address.
    #[must_use]
    pub fn address(self, code: u8, address: Ipv4Addr) -> Self {
        self.option(code, &address.octets())
    }

    /// Adds options in `file` and `sname` (option 52). Excess bytes are cut off.
    #[must_use]
    pub fn overload(mut self, file: &[(u8, &[u8])], sname: &[(u8, &[u8])]) -> Self {
        let mut which = 0;
        for (bit, (start, length), options) in [(1, FILE, file), (2, SNAME, sname)] {
            if options.is_empty() {
                continue;
            }
            which |= bit;
            let mut field = Vec::new();
            for (code, value) in options {
                append(&mut field, *code, value);
            }
            field.push(option::END);
            field.resize(length as usize, option::PAD);
            self.message[start as usize..][..length as usize].copy_from_slice(&field);
        }
        self.option(option::OVERLOAD, &[which])
    }

    /// Adds bytes after the options, without END.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.message.extend(bytes);
        self.end = false;
        self
    }

    /// Adds a VLAN tag inside the existing ones.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Builds the frame.
    pub fn build(mut self) -> Vec<u8> {
        if self.end {
            self.message.push(option::END);
            if self.message.len() < BOOTP_MINIMUM {
                self.message.resize(BOOTP_MINIMUM, option::PAD);
            }
        }
        let mut frame = self.ethernet.concat();
        for tag in &self.tags {
            frame.extend(tag.protocol.to_be_bytes());
            frame.extend(tag.control.to_be_bytes());
        }
        frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        frame.extend(self.ip_header());
        frame.extend(self.udp_header());
        frame.extend(self.message);
        frame
    }

    fn ip_header(&self) -> [u8; IPV4_HEADER] {
        let mut header = [0; IPV4_HEADER];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&((IPV4_HEADER + UDP_HEADER + self.message.len()) as u16).to_be_bytes());
        header[8] = TIME_TO_LIVE;
        header[9] = PROTOCOL_UDP;
        header[12..16].copy_from_slice(&self.addresses[0].octets());
        header[16..20].copy_from_slice(&self.addresses[1].octets());
        let checksum = !fold(sum(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn udp_header(&self) -> [u8; UDP_HEADER] {
        let length = (UDP_HEADER + self.message.len()) as u16;
        let mut header = [0; UDP_HEADER];
        header[..2].copy_from_slice(&self.ports[0].to_be_bytes());
        header[2..4].copy_from_slice(&self.ports[1].to_be_bytes());
        header[4..6].copy_from_slice(&length.to_be_bytes());
        let pseudo_header = u32::from(PROTOCOL_UDP) + u32::from(length);
        let addresses = self.addresses.iter().map(|address| sum(&address.octets())).sum::<u32>();
        // RFC 768: a checksum of 0 is sent as 0xFFFF, because 0 means that there is none.
        let checksum = match !fold(pseudo_header + addresses + sum(&header) + sum(&self.message)) {
            0 => u16::MAX,
            other => other,
        };
        header[6..].copy_from_slice(&checksum.to_be_bytes());
        header
    }
}

/// The fixed part with the magic cookie, for a client with an Ethernet address.
fn fixed(op: u8, xid: u32, mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![0; OPTIONS as usize];
    message[..3].copy_from_slice(&[op, 1, 6]);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[28..34].copy_from_slice(&mac);
    message[OPTIONS as usize - COOKIE.len()..].copy_from_slice(&COOKIE);
    message
}

fn append(field: &mut Vec<u8>, code: u8, value: &[u8]) {
    let mut rest = value;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(255));
        field.extend([code, piece.len() as u8]);
        field.extend_from_slice(piece);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// Sum of big-endian 16-bit words, for at most 64 KiB.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
