//! Frames made and read by hand: independent of the code under test, and able to lie about every field.

use std::net::Ipv4Addr;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// All stations.
pub const BROADCAST: Mac = [0xff; 6];

const FRAGMENT_OFFSET: u16 = 0x1fff;

/// DHCP message types (RFC 2132 9.6).
pub mod kind {
    /// DHCPDISCOVER
    pub const DISCOVER: u8 = 1;
    /// DHCPOFFER
    pub const OFFER: u8 = 2;
    /// DHCPREQUEST
    pub const REQUEST: u8 = 3;
    /// DHCPDECLINE
    pub const DECLINE: u8 = 4;
    /// DHCPACK
    pub const ACK: u8 = 5;
    /// DHCPNAK
    pub const NAK: u8 = 6;
    /// DHCPRELEASE
    pub const RELEASE: u8 = 7;
    /// DHCPINFORM
    pub const INFORM: u8 = 8;
}

/// The message type with `name`, as corpus and tests write it.
pub fn kind_by_name(name: &str) -> Option<u8> {
    let names = ["discover", "offer", "request", "decline", "ack", "nak", "release", "inform"];
    names.iter().position(|known| *known == name).map(|index| index as u8 + 1)
}

/// A DHCP message (RFC 2131 2); every field as it shall stand on the wire.
#[derive(Clone, Debug)]
pub struct Message {
    /// 1 from clients, 2 from servers.
    pub op: u8,
    /// Hardware type.
    pub htype: u8,
    /// Hardware address length.
    pub hlen: u8,
    /// Transaction.
    pub xid: u32,
    /// 0x8000 asks for replies by broadcast.
    pub flags: u16,
    /// The client's address.
    pub ciaddr: Ipv4Addr,
    /// The address that a server gives.
    pub yiaddr: Ipv4Addr,
    /// The relay's address.
    pub giaddr: Ipv4Addr,
    /// Client hardware address.
    pub chaddr: [u8; 16],
    /// First bytes of `sname`.
    pub sname: Vec<u8>,
    /// First bytes of `file`.
    pub file: Vec<u8>,
    /// Magic cookie.
    pub cookie: [u8; 4],
    /// The options, without END.
    pub options: Vec<u8>,
    /// END follows the options.
    pub end: bool,
    /// Padded with zeros up to this.
    pub minimum: usize,
}

impl Message {
    /// A client's message of type `kind` from `mac`.
    pub fn client(kind: u8, mac: Mac, xid: u32) -> Self {
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&mac);
        Self {
            op: 1,
            htype: 1,
            hlen: 6,
            xid,
            flags: 0x8000,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr,
            sname: Vec::new(),
            file: Vec::new(),
            cookie: [0x63, 0x82, 0x53, 0x63],
            options: vec![53, 1, kind],
            end: true,
            minimum: 300,
        }
    }

    /// The answer of type `kind` to `request`.
    pub fn answer(request: &Received, kind: u8, server: Ipv4Addr) -> Self {
        let mut message = Self::client(kind, BROADCAST, request.xid);
        message.op = 2;
        message.htype = request.htype;
        message.hlen = request.hlen;
        message.flags = request.flags;
        message.giaddr = request.giaddr;
        message.chaddr = request.chaddr;
        message.option(54, &server.octets())
    }

    /// Adds an option.
    #[must_use]
    pub fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.options.extend([code, value.len() as u8]);
        self.options.extend(value);
        self
    }

    /// Adds bytes to the options field as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.options.extend(bytes);
        self
    }

    /// The message as it goes into a datagram.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.op, self.htype, self.hlen, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, Ipv4Addr::UNSPECIFIED, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.chaddr);
        bytes.extend(&self.sname);
        bytes.resize(44 + 64, 0);
        bytes.extend(&self.file);
        bytes.resize(44 + 64 + 128, 0);
        bytes.extend(self.cookie);
        bytes.extend(&self.options);
        if self.end {
            bytes.push(255);
        }
        bytes.resize(bytes.len().max(self.minimum), 0);
        bytes
    }
}

/// Everything around a payload, from Ethernet to UDP.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Ethernet destination.
    pub to: Mac,
    /// Ethernet source.
    pub from: Mac,
    /// VLAN tags as they stand: protocol and control information, outermost first.
    pub tags: Vec<(u16, u16)>,
    /// Type behind the tags.
    pub ethertype: u16,
    /// Options of the IPv4 header, a multiple of four bytes.
    pub ip_options: Vec<u8>,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// IP protocol.
    pub protocol: u8,
    /// Identification of the datagram.
    pub identification: u16,
    /// Flags and offset of the fragment.
    pub fragment: u16,
    /// Source and destination port.
    pub ports: (u16, u16),
    /// IP total length, if not the true one.
    pub total_length: Option<u16>,
    /// UDP length, if not the true one.
    pub udp_length: Option<u16>,
    /// The UDP checksum is computed, else 0.
    pub checksum: bool,
    /// Bytes behind the datagram, as Ethernet pads.
    pub trailer: usize,
    /// UDP payload; without ports, for other protocols, the IP payload.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A broadcast from a client without an address.
    pub fn from_client(mac: Mac, payload: Vec<u8>) -> Self {
        Self {
            to: BROADCAST,
            from: mac,
            tags: Vec::new(),
            ethertype: 0x0800,
            ip_options: Vec::new(),
            source: Ipv4Addr::UNSPECIFIED,
            destination: Ipv4Addr::BROADCAST,
            protocol: 17,
            identification: 0x1234,
            fragment: 0,
            ports: (68, 67),
            total_length: None,
            udp_length: None,
            checksum: true,
            trailer: 0,
            payload,
        }
    }

    /// A broadcast from a server.
    pub fn from_server(mac: Mac, server: Ipv4Addr, payload: Vec<u8>) -> Self {
        Self { source: server, ports: (67, 68), ..Self::from_client(mac, payload) }
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.protocol == 17 && self.fragment & FRAGMENT_OFFSET == 0 {
            let length = self.payload.len() as u16 + 8;
            body.extend(self.ports.0.to_be_bytes());
            body.extend(self.ports.1.to_be_bytes());
            body.extend(self.udp_length.unwrap_or(length).to_be_bytes());
            body.extend([0, 0]);
            body.extend(&self.payload);
            if self.checksum {
                let mut pseudo = self.source.octets().to_vec();
                pseudo.extend(self.destination.octets());
                pseudo.extend([0, 17]);
                pseudo.extend(length.to_be_bytes());
                pseudo.extend(&body);
                let sum = match internet_checksum(&pseudo) {
                    0 => 0xffff,
                    sum => sum,
                };
                body[6..8].copy_from_slice(&sum.to_be_bytes());
            }
        } else {
            body.extend(&self.payload);
        }

        let header_length = 20 + self.ip_options.len();
        let mut ip = vec![0x40 | (header_length / 4) as u8, 0];
        ip.extend(self.total_length.unwrap_or((header_length + body.len()) as u16).to_be_bytes());
        ip.extend(self.identification.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([64, self.protocol, 0, 0]);
        ip.extend(self.source.octets());
        ip.extend(self.destination.octets());
        ip.extend(&self.ip_options);
        let sum = internet_checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let mut frame = self.to.to_vec();
        frame.extend(self.from);
        for (protocol, control) in &self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(ip);
        frame.extend(body);
        frame.resize(frame.len() + self.trailer, 0);
        frame
    }
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A DHCP message that was received, untagged and complete.
#[derive(Clone, Debug)]
pub struct Received {
    /// Ethernet source.
    pub from: Mac,
    /// 1 from clients, 2 from servers.
    pub op: u8,
    /// Hardware type.
    pub htype: u8,
    /// Hardware address length.
    pub hlen: u8,
    /// Transaction.
    pub xid: u32,
    /// Flags.
    pub flags: u16,
    /// The client's address.
    pub ciaddr: Ipv4Addr,
    /// The address that a server gives.
    pub yiaddr: Ipv4Addr,
    /// The relay's address.
    pub giaddr: Ipv4Addr,
    /// Client hardware address.
    pub chaddr: [u8; 16],
    /// Options in order.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Received {
    /// Reads a frame with a datagram to or from the DHCP server's port.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if *frame.get(12..14)? != [8, 0] || *frame.get(23)? != 17 {
            return None;
        }
        let udp = 14 + usize::from(frame[14] & 15) * 4;
        let ports = [frame.get(udp..udp + 2)?, frame.get(udp + 2..udp + 4)?];
        if !ports.contains(&[0, 67].as_slice()) {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([*frame.get(udp + 4)?, *frame.get(udp + 5)?]));
        let message = frame.get(udp + 8..udp + length)?;
        let options = message.get(240..)?;
        let address = |at: usize| Ipv4Addr::new(message[at], message[at + 1], message[at + 2], message[at + 3]);
        Some(Self {
            from: *frame[6..].first_chunk()?,
            op: message[0],
            htype: message[1],
            hlen: message[2],
            xid: u32::from_be_bytes(*message[4..].first_chunk()?),
            flags: u16::from_be_bytes([message[10], message[11]]),
            ciaddr: address(12),
            yiaddr: address(16),
            giaddr: address(24),
            chaddr: *message[28..].first_chunk()?,
            options: split_options(options),
        })
    }

    /// Value of the first option with `code`.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    /// Option 53, or 0.
    pub fn kind(&self) -> u8 {
        self.option(53).and_then(|value| value.first().copied()).unwrap_or(0)
    }

    /// An option that holds one address.
    pub fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(*self.option(code)?.first_chunk::<4>()?))
    }
}

fn split_options(mut rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut options = Vec::new();
    while let [code, after @ ..] = rest {
        let code = *code;
        if code == 0 {
            rest = after;
            continue;
        }
        let [length, after @ ..] = after else { break };
        let Some((value, after)) = after.split_at_checked(usize::from(*length)).filter(|_| code != 255) else { break };
        options.push((code, value.to_vec()));
        rest = after;
    }
    options
}
