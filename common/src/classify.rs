//! Classification of frames at each hook. Pure functions: the caller looks up the maps, in the order of the functions
//! below.

use crate::{
    abi::{ClientKey, ExchangeKey, FlowKey},
    config::Config,
    connreq,
    counter::Class,
    dhcp4::{self, Fixed, FixedError, MessageType, Walk, WalkEnd},
    frame::{Frame, Octets, Repeat, Source},
    headers::{self, Segment, Udp, Wanted},
    identity::Refusal,
    stun::{self, BindingForm, Demands, Signals},
};

/// Finds a UDP datagram to the DHCP server port (67).
///
/// # Errors
/// The class of any other frame.
#[inline(always)]
pub fn find_request<F: Frame + ?Sized>(frame: &F, metadata_tag: Option<u16>) -> Result<Udp, Class> {
    headers::find_udp(frame, metadata_tag, Wanted::DestinationPort(dhcp4::SERVER_PORT))
}

/// Finds a UDP datagram to the DHCP client port (68) or to a relay agent (67). The source port is not checked, because
/// a server may choose it (RFC 2131 4.1); the field `op` tells requests from replies.
///
/// # Errors
/// The class of any other frame.
#[inline(always)]
pub fn find_reply<F: Frame + ?Sized>(frame: &F, metadata_tag: Option<u16>) -> Result<Udp, Class> {
    headers::find_udp(frame, metadata_tag, Wanted::DestinationPorts(&dhcp4::REPLY_PORTS))
}

/// Finds a UDP datagram to one of the configured STUN ports.
///
/// # Errors
/// The class of any other frame.
#[inline(always)]
pub fn find_stun<F: Frame + ?Sized>(frame: &F, metadata_tag: Option<u16>, config: &Config) -> Result<Udp, Class> {
    headers::find_udp(frame, metadata_tag, Wanted::DestinationPorts(&config.stun_ports))
}

/// Reads the signals of a Binding Request with CONNECTION-REQUEST-BINDING. `demands` is overwritten.
///
/// # Errors
/// The class of any other message.
#[inline(always)]
pub fn judge_stun<O: Octets + ?Sized, R: Repeat>(
    octets: &O,
    udp: &Udp,
    demands: &mut Demands,
    repeat: R,
) -> Result<Signals, Class> {
    if udp.fragment || !demands.read_leniently(octets, udp.payload, udp.end, repeat) {
        return Err(Class::OtherStun);
    }
    let signals = demands.signals;
    if signals.damaged {
        return Err(Class::OtherStun);
    }
    match signals.binding_form() {
        Some(BindingForm::Exact | BindingForm::Nul) => Ok(signals),
        Some(BindingForm::Wrong) => Err(Class::WrongBinding),
        None => Err(Class::OtherStun),
    }
}

/// The class of a Binding Request with CONNECTION-REQUEST-BINDING; `is_told` says whether the agent receives an event.
#[inline(always)]
pub fn binding_class(signals: Signals, is_told: bool) -> Class {
    match (is_told, signals.nul_binding) {
        (true, false) => Class::Binding,
        (true, true) => Class::NulBinding,
        (false, false) => Class::BindingRefresh,
        (false, true) => Class::NulBindingRefresh,
    }
}

/// The flow that the datagram belongs to.
#[inline(always)]
pub fn flow_key<O: Octets + ?Sized>(octets: &O, segment: Segment, udp: &Udp) -> FlowKey {
    let addresses = udp.ip + headers::IPV4_ADDRESSES as u32;
    FlowKey {
        segment,
        source: octets.four(addresses),
        destination: octets.four(addresses + 4),
        source_port: udp.source_port,
        destination_port: udp.destination_port,
    }
}

/// Classifies a datagram from the WAN: a Connection Request, a response of a STUN server, or other traffic.
#[inline(always)]
pub fn judge_wan<F: Frame + ?Sized>(frame: &F, udp: &Udp, config: &Config) -> Class {
    if udp.fragment || udp.payload + connreq::START as u32 > udp.end {
        return Class::OtherPort;
    }
    let Some(start) = frame.load::<{ connreq::START }>(udp.payload as usize) else { return Class::OtherPort };
    if connreq::starts(start) {
        return Class::ConnectionRequest;
    }
    let is_from_server = headers::is_among(udp.source_port, &config.stun_ports);
    if is_from_server && stun::is_binding_answer(u16::from_be_bytes([start[0], start[1]])) {
        return Class::StunAnswer;
    }
    Class::OtherPort
}

impl From<FixedError> for Class {
    fn from(error: FixedError) -> Self {
        match error {
            FixedError::Truncated => Self::Truncated,
            FixedError::BadHlen => Self::BadHlen,
            FixedError::WrongCookie => Self::WrongCookie,
        }
    }
}

/// The fixed part of a DHCP request (`op` 1).
///
/// # Errors
/// The class of a message that is malformed or has another `op`.
#[inline(always)]
pub fn request_fixed<O: Octets + ?Sized>(octets: &O, udp: &Udp) -> Result<Fixed, Class> {
    fixed(octets, udp, dhcp4::BOOTREQUEST)
}

/// The fixed part of a DHCP reply (`op` 2).
///
/// # Errors
/// The class of a message that is malformed or has another `op`.
#[inline(always)]
pub fn reply_fixed<O: Octets + ?Sized>(octets: &O, udp: &Udp) -> Result<Fixed, Class> {
    fixed(octets, udp, dhcp4::BOOTREPLY)
}

#[inline(always)]
fn fixed<O: Octets + ?Sized>(octets: &O, udp: &Udp, op: u8) -> Result<Fixed, Class> {
    let fixed = Fixed::parse(octets, udp.payload, udp.end)?;
    if fixed.op == op { Ok(fixed) } else { Err(Class::OtherMessage) }
}

/// Classification of a client's message before the client is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The message carries a Device Identity or cannot be parsed here (a fragment): send an event, mark the exchange.
    Tell {
        /// The class under which the frame is counted.
        class: Class,
        /// Whether a Device Identity was found in the message.
        identified: bool,
    },
    /// RELEASE or DECLINE: send an event.
    Ends(Class),
    /// DISCOVER, REQUEST or INFORM without a Device Identity. The class is [`Class::Sticky`] if the client is known,
    /// else it follows from the refusal.
    Unidentified(MessageType, Refusal),
    /// No action other than counting.
    Pass(Class),
}

/// Classifies a client's message whose options were walked.
#[inline(always)]
pub fn judge_request(udp: &Udp, walk: &Walk, config: &Config) -> Request {
    if udp.fragment {
        return Request::Tell { class: Class::Fragment, identified: false };
    }
    if walk.ended == WalkEnd::Damaged {
        return Request::Pass(Class::DamagedOptions);
    }
    if walk.message_type == 0 {
        return Request::Pass(Class::Bootp);
    }
    let Some(message) = MessageType::from_wire(walk.message_type) else {
        return Request::Pass(Class::OtherMessage);
    };
    let class = match message {
        MessageType::Discover => Class::Discover,
        MessageType::Request => Class::Request,
        MessageType::Inform => Class::Inform,
        MessageType::Release => return Request::Ends(Class::Release),
        MessageType::Decline => return Request::Ends(Class::Decline),
        _ => return Request::Pass(Class::OtherMessage),
    };
    match walk.identity.conclude(config) {
        Ok(_) => Request::Tell { class, identified: true },
        Err(refusal) => Request::Unidentified(message, refusal),
    }
}

/// The class of a message without a valid identity from an unknown client.
#[inline(always)]
pub fn unidentified(refusal: Refusal) -> Class {
    match refusal {
        Refusal::Absent => Class::NoIdentity,
        _ => Class::RefusedIdentity,
    }
}

/// Classifies a server's message of a marked exchange whose options were walked.
#[inline(always)]
pub fn judge_reply(udp: &Udp, walk: &Walk) -> Class {
    if udp.fragment {
        return Class::Fragment;
    }
    if walk.ended == WalkEnd::Damaged {
        return Class::DamagedOptions;
    }
    match walk.message_type {
        kind if kind == MessageType::Offer as u8 => Class::Offer,
        kind if kind == MessageType::Ack as u8 => Class::Ack,
        kind if kind == MessageType::Nak as u8 => Class::Nak,
        0 => Class::Bootp,
        _ => Class::OtherMessage,
    }
}

/// Walks the options of the DHCP message in `udp`.
#[inline(always)]
pub fn walk<S: Source + ?Sized, R: Repeat>(source: &S, udp: &Udp, config: &Config, repeat: R) -> Walk {
    let mut walk = Walk::new(udp.payload, udp.end, config);
    walk.run(source, config, repeat);
    walk
}

/// Like [`walk`], reusing the memory of an earlier walk.
#[inline(always)]
pub fn walk_again<S: Source + ?Sized, R: Repeat>(walk: &mut Walk, source: &S, udp: &Udp, config: &Config, repeat: R) {
    walk.start(udp.payload, udp.end, config);
    walk.run(source, config, repeat);
}

/// The key of the message's exchange. A request and its reply have the same key.
#[inline(always)]
pub fn exchange_key(segment: Segment, fixed: &Fixed) -> ExchangeKey {
    ExchangeKey { segment, chaddr: fixed.chaddr, xid: fixed.xid, htype: fixed.htype, reserved: [0; 3] }
}

/// The key of the client that sent the message.
#[inline(always)]
pub fn client_key(segment: Segment, fixed: &Fixed, walk: &Walk) -> ClientKey {
    let mut hash = walk.client_id;
    let [high, low] = fixed.chaddr_words();
    hash.add(high);
    hash.add(low);
    ClientKey {
        segment,
        hash: hash.value(),
        client_id_length: walk.client_id_length,
        htype: fixed.htype,
        reserved: [0; 5],
    }
}

#[cfg(test)]
mod tests;
