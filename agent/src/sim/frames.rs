//! The frames of a simulated device: DHCP client messages, and what it reads from replies.

use std::net::Ipv4Addr;

use tr111_common::{
    classify,
    dhcp4::{self, Fixed, MessageType, Options, option},
    identity::{DSL_FORUM, sub_option},
};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// All stations.
pub const BROADCAST: Mac = [0xff; 6];

const ETHERTYPE_IPV4: u16 = 0x0800;
/// BOOTP pads requests to 300 bytes, and some servers still expect it (RFC 1542 2.1).
const BOOTP_MINIMUM: usize = 300;
const BROADCAST_FLAG: u16 = 0x8000;

/// Option 125 with a Device Identity (TR-111 1.2.5); the product class is left out when empty (OPT-9).
pub fn device_identity(oui: &str, serial_number: &str, product_class: &str) -> Vec<u8> {
    let mut element = Vec::new();
    let mut sub_option = |code: u8, text: &str| {
        element.extend([code, text.len() as u8]);
        element.extend(text.bytes());
    };
    sub_option(sub_option::DEVICE_MANUFACTURER_OUI, oui);
    sub_option(sub_option::DEVICE_SERIAL_NUMBER, serial_number);
    if !product_class.is_empty() {
        sub_option(sub_option::DEVICE_PRODUCT_CLASS, product_class);
    }
    let mut value = DSL_FORUM.to_be_bytes().to_vec();
    value.push(element.len() as u8);
    value.extend(element);
    value
}

/// A client's message, complete as an Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// DHCPDISCOVER, DHCPREQUEST, DHCPINFORM or DHCPRELEASE.
    pub message: MessageType,
    /// The device's Ethernet address.
    pub mac: Mac,
    /// Transaction.
    pub xid: u32,
    /// Where it goes: [`BROADCAST`] and 255.255.255.255, or a server.
    pub to: (Mac, Ipv4Addr),
    /// The address that the device has, or 0.0.0.0.
    pub address: Ipv4Addr,
    /// Asks for replies by broadcast.
    pub broadcast_replies: bool,
    /// Requested address (option 50).
    pub requested: Option<Ipv4Addr>,
    /// Server identifier (option 54).
    pub server: Option<Ipv4Addr>,
    /// Host name (option 12).
    pub host_name: &'a str,
    /// Value of option 125; empty to leave it out.
    pub identity: &'a [u8],
}

impl Request<'_> {
    /// The frame.
    pub fn to_frame(self) -> Vec<u8> {
        let mut message = vec![0; dhcp4::OPTIONS as usize];
        message[..4].copy_from_slice(&[dhcp4::BOOTREQUEST, 1, 6, 0]);
        message[4..8].copy_from_slice(&self.xid.to_be_bytes());
        let flags = if self.broadcast_replies { BROADCAST_FLAG } else { 0 };
        message[10..12].copy_from_slice(&flags.to_be_bytes());
        message[12..16].copy_from_slice(&self.address.octets());
        message[28..34].copy_from_slice(&self.mac);
        message[236..240].copy_from_slice(&dhcp4::COOKIE);
        put(&mut message, option::MESSAGE_TYPE, &[self.message as u8]);
        if let Some(requested) = self.requested {
            put(&mut message, option::REQUESTED_IP, &requested.octets());
        }
        if let Some(server) = self.server {
            put(&mut message, option::SERVER_ID, &server.octets());
        }
        if self.message != MessageType::Release {
            put(&mut message, 12, self.host_name.as_bytes());
            // Subnet mask, router, name server, and the identity's own option.
            put(&mut message, option::PARAMETER_LIST, &[1, 3, 6, option::VENDOR_IDENTIFYING]);
            if !self.identity.is_empty() {
                put(&mut message, option::VENDOR_IDENTIFYING, self.identity);
            }
        }
        message.push(option::END);
        message.resize(message.len().max(BOOTP_MINIMUM), 0);
        self.datagram(&message)
    }

    fn datagram(&self, payload: &[u8]) -> Vec<u8> {
        let udp_length = (payload.len() + 8) as u16;
        let mut frame = ethernet(self.to.0, self.mac, ETHERTYPE_IPV4);
        let mut header = [0u8; 20];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&(udp_length + 20).to_be_bytes());
        header[8] = 64;
        header[9] = 17;
        header[12..16].copy_from_slice(&self.address.octets());
        header[16..20].copy_from_slice(&self.to.1.octets());
        let sum = checksum(0, &header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);

        let mut udp = Vec::with_capacity(usize::from(udp_length));
        udp.extend(dhcp4::CLIENT_PORT.to_be_bytes());
        udp.extend(dhcp4::SERVER_PORT.to_be_bytes());
        udp.extend(udp_length.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(payload);
        let pseudo = 17 + u32::from(udp_length);
        let sum = checksum(pseudo + partial_sum(&header[12..20]), &udp);
        // A computed 0 is sent as all ones; 0 on the wire means that there is no sum (RFC 768).
        let sum = if sum == 0 { 0xffff } else { sum };
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        frame.extend(udp);
        frame
    }
}

fn put(message: &mut Vec<u8>, code: u8, value: &[u8]) {
    message.extend([code, value.len() as u8]);
    message.extend(value);
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(400);
    frame.extend(to);
    frame.extend(from);
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn partial_sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(word).sum()
}

/// The Internet checksum (RFC 1071) of `bytes`, on top of `sum`.
fn checksum(sum: u32, bytes: &[u8]) -> u16 {
    let mut sum = sum + partial_sum(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What a device reads from a server's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// DHCPOFFER, DHCPACK, DHCPNAK.
    pub message: MessageType,
    /// Hardware address of the client that it is for.
    pub mac: Mac,
    /// Transaction.
    pub xid: u32,
    /// The address that the server gives.
    pub address: Ipv4Addr,
    /// Server identifier (option 54).
    pub server: Option<Ipv4Addr>,
    /// Ethernet address that the frame came from.
    pub server_mac: Mac,
    /// Lease time in seconds (option 51).
    pub lease: Option<u32>,
}

impl Reply {
    /// Reads `frame`; `None` where it is no server's message for an Ethernet client.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let udp = classify::find_reply(frame, None).ok()?;
        let fixed: Fixed = classify::reply_fixed(frame, &udp).ok()?;
        let mut reply = Self {
            message: MessageType::Offer,
            mac: fixed.chaddr.first(),
            xid: fixed.xid,
            address: fixed.yiaddr.into(),
            server: None,
            server_mac: *frame.get(6..)?.first_chunk()?,
            lease: None,
        };
        let mut message = None;
        for (code, value) in Options::new(frame.get((udp.payload + dhcp4::OPTIONS) as usize..udp.end as usize)?) {
            match code {
                option::MESSAGE_TYPE => message = MessageType::from_wire(*value.first()?),
                option::SERVER_ID => reply.server = Some(Ipv4Addr::from(*value.first_chunk::<4>()?)),
                option::LEASE_TIME => reply.lease = Some(u32::from_be_bytes(*value.first_chunk()?)),
                _ => {}
            }
        }
        reply.message = message?;
        Some(reply)
    }
}
