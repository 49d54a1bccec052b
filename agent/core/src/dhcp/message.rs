use std::{borrow::Cow, net::Ipv4Addr};

use thiserror::Error;
use tr111_common::{
    classify,
    config::Config,
    counter::{Class, Hook},
    dhcp4::{self, FILE, Fixed, MessageType, Options, SNAME, Walk, option},
    event::Event,
    frame::PlainLoop,
    headers::{Udp, VlanIds},
};

use super::{HardwareAddress, Lease};

/// Reasons for which a frame has no valid DHCP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The class under which the kernel programs count the frame.
    #[error("not a DHCP message: {}", .0.label())]
    Class(Class),
    /// Option 53 is missing, or has a type that RFC 2132 does not define.
    #[error("no DHCP message type")]
    NoMessageType,
}

/// A DHCP message in a frame.
///
/// Options in `file` and `sname` (option 52) are read as if they followed those in the options field, in the order of
/// RFC 3396; instances of one code are joined. Of a first fragment, only the present options are read.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// VLAN identifiers, outermost first; 0 for an absent tag.
    pub vlan: VlanIds,
    /// Ethernet source address.
    pub ethernet_source: [u8; 6],
    /// IPv4 source address.
    pub source: Ipv4Addr,
    /// IPv4 destination address.
    pub destination: Ipv4Addr,
    /// The fixed part.
    pub fixed: Fixed,
    /// Whether the client requests that replies are broadcast.
    pub broadcast: bool,
    /// DHCP message type.
    pub message_type: MessageType,
    /// Whether this is the first fragment of a datagram, so that options may be missing.
    pub fragment: bool,
    /// The message from `op` on, up to the end of the options.
    payload: Cow<'a, [u8]>,
}

/// Offset of the flags, and the only defined flag (RFC 2131 2).
const FLAGS: usize = 10;
const BROADCAST: u8 = 0x80;

impl<'a> Message<'a> {
    /// Parses the message of an event: a client's message at LAN ingress, a server's message at LAN egress.
    pub fn from_event(event: &Event<'a>) -> Result<Self, MessageError> {
        match event.hook {
            Hook::LanIngress => Self::parse_request(event.frame, event.metadata_tag),
            Hook::LanEgress => Self::parse_reply(event.frame, event.metadata_tag),
            Hook::LanBinding | Hook::WanIngress | Hook::AcsStun | Hook::LanPort => {
                Err(MessageError::Class(Class::OtherMessage))
            }
        }
    }

    /// Parses a client's message. `metadata_tag` is the VLAN tag that the kernel removed from the frame.
    pub fn parse_request(frame: &'a [u8], metadata_tag: Option<u16>) -> Result<Self, MessageError> {
        let udp = classify::find_request(frame, metadata_tag).map_err(MessageError::Class)?;
        let fixed = classify::request_fixed(frame, &udp).map_err(MessageError::Class)?;
        Self::parse(frame, &udp, fixed)
    }

    /// Parses a server's message. `metadata_tag` is the VLAN tag that the kernel removed from the frame.
    pub fn parse_reply(frame: &'a [u8], metadata_tag: Option<u16>) -> Result<Self, MessageError> {
        let udp = classify::find_reply(frame, metadata_tag).map_err(MessageError::Class)?;
        let fixed = classify::reply_fixed(frame, &udp).map_err(MessageError::Class)?;
        Self::parse(frame, &udp, fixed)
    }

    fn parse(frame: &'a [u8], udp: &Udp, fixed: Fixed) -> Result<Self, MessageError> {
        let truncated = MessageError::Class(Class::Truncated);
        let payload = frame.get(udp.payload as usize..udp.end as usize).ok_or(truncated)?;
        let address = |at: usize| -> Option<Ipv4Addr> {
            let bytes: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
            Some(bytes.into())
        };
        let ip = udp.ip as usize;
        let payload = plain(payload, udp.fragment)?;
        let message_type = message_type(options_field(&payload)).ok_or(MessageError::NoMessageType)?;
        Ok(Self {
            vlan: udp.vlan,
            ethernet_source: frame.get(6..12).and_then(|bytes| bytes.try_into().ok()).ok_or(truncated)?,
            source: address(ip + 12).ok_or(truncated)?,
            destination: address(ip + 16).ok_or(truncated)?,
            fixed,
            broadcast: payload[FLAGS] & BROADCAST != 0,
            message_type,
            fragment: udp.fragment,
            payload,
        })
    }

    /// All option instances, in order.
    pub fn options(&self) -> Options<'_> {
        Options::new(options_field(&self.payload))
    }

    /// The value of option `code`, with all instances joined (RFC 3396).
    pub fn option(&self, code: u8) -> Option<Cow<'_, [u8]>> {
        let mut joined: Option<Cow<'_, [u8]>> = None;
        for (_, piece) in self.options().filter(|(found, _)| *found == code) {
            match &mut joined {
                None => joined = Some(Cow::Borrowed(piece)),
                Some(value) => value.to_mut().extend_from_slice(piece),
            }
        }
        joined
    }

    /// The value of an option of four bytes. If the option occurs several times, the first value is used.
    fn four(&self, code: u8) -> Option<[u8; 4]> {
        let value = self.option(code)?;
        if value.len() % 4 == 0 { value.first_chunk().copied() } else { None }
    }

    /// Server identifier (option 54).
    pub fn server_id(&self) -> Option<Ipv4Addr> {
        self.four(option::SERVER_ID).map(Ipv4Addr::from)
    }

    /// Requested address (option 50).
    pub fn requested_ip(&self) -> Option<Ipv4Addr> {
        self.four(option::REQUESTED_IP).map(Ipv4Addr::from)
    }

    /// Lease time (option 51).
    pub fn lease(&self) -> Option<Lease> {
        self.four(option::LEASE_TIME).map(|seconds| Lease::from_seconds(u32::from_be_bytes(seconds)))
    }

    /// Client identifier (option 61); `None` if it is empty.
    pub fn client_id(&self) -> Option<Cow<'_, [u8]>> {
        self.option(option::CLIENT_ID).filter(|value| !value.is_empty())
    }

    /// Vendor-identifying vendor-specific information (option 125), which carries identities.
    pub fn vendor_identifying(&self) -> Option<Cow<'_, [u8]>> {
        self.option(option::VENDOR_IDENTIFYING)
    }

    /// The client's current address; 0.0.0.0 if it has none.
    pub fn ciaddr(&self) -> Ipv4Addr {
        self.fixed.ciaddr.into()
    }

    /// The address that the server assigns.
    pub fn yiaddr(&self) -> Ipv4Addr {
        self.fixed.yiaddr.into()
    }

    /// Address of the relay agent; 0.0.0.0 if the message was not relayed.
    pub fn giaddr(&self) -> Ipv4Addr {
        self.fixed.giaddr.into()
    }

    /// The client's hardware address.
    pub fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::of(&self.fixed)
    }

    /// The walk of the kernel programs over the options: hash of the client identifier, scan of the identity.
    pub fn walk(&self, config: &Config) -> Walk {
        let mut walk = Walk::new(0, self.payload.len() as u32, config);
        walk.run(&*self.payload, config, PlainLoop);
        walk
    }
}

fn options_field(payload: &[u8]) -> &[u8] {
    payload.get(dhcp4::OPTIONS as usize..).unwrap_or_default()
}

/// The message type, as the kernel programs read it: the last instance of one byte.
fn message_type(options: &[u8]) -> Option<MessageType> {
    let instances = Options::new(options).filter(|(code, value)| *code == option::MESSAGE_TYPE && value.len() == 1);
    instances.last().and_then(|(_, value)| MessageType::from_wire(value[0]))
}

/// The message with all options in the options field; a copy if `file` or `sname` have options.
fn plain(payload: &[u8], fragment: bool) -> Result<Cow<'_, [u8]>, MessageError> {
    let field = options_field(payload);
    let mut overload = 0;
    check(field, fragment, |code, value| {
        if code == option::OVERLOAD && value.len() == 1 {
            overload = value[0];
        }
    })?;
    if overload == 0 {
        return Ok(Cow::Borrowed(payload));
    }
    let mut copy = payload[..dhcp4::OPTIONS as usize].to_vec();
    let mut append = |field, lenient| {
        check(field, lenient, |code, value| {
            if code != option::OVERLOAD {
                copy.extend([code, value.len() as u8]);
                copy.extend_from_slice(value);
            }
        })
    };
    append(field, fragment)?;
    // The fixed part is complete; otherwise the message was refused before.
    for (bit, (start, length)) in [(1, FILE), (2, SNAME)] {
        if overload & bit != 0 {
            append(&payload[start as usize..][..length as usize], false)?;
        }
    }
    copy.push(option::END);
    Ok(Cow::Owned(copy))
}

/// Visits the options of one field. An option that extends past the field is an error, unless `lenient`.
fn check<'a>(field: &'a [u8], lenient: bool, mut visit: impl FnMut(u8, &'a [u8])) -> Result<(), MessageError> {
    let mut options = Options::new(field);
    let mut count = 0;
    for (code, value) in options.by_ref() {
        visit(code, value);
        count += 1;
    }
    if !lenient && (options.is_damaged() || count > dhcp4::OPTIONS_MAXIMUM) {
        return Err(MessageError::Class(Class::DamagedOptions));
    }
    Ok(())
}
