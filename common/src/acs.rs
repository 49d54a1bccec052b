//! Decisions of the STUN server's line-rate path: which requests it may answer, and the key under which the binding of
//! a keep-alive is registered. The socket answers all other requests, and would give the same answers to these.

use crate::{
    abi::{BindingKey, Endpoint, ListenerKey},
    classify,
    config::Config,
    counter::Class,
    frame::{Frame, Octets, Repeat, Step, first_bytes},
    headers::{self, Udp},
    insert::Sum,
    stun::{self, BindingForm, Demands},
};

/// Longest request that this path reads, in bytes: CONNECTION-REQUEST-BINDING, the longest USERNAME, and room for
/// attributes that may be ignored.
pub const REQUEST_MAXIMUM: usize = 512;

/// Length of an IPv4 header without options and a UDP header.
const IPV4_AND_UDP: u32 = 28;

/// Source and destination of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination: the place where it arrived.
    pub listener: ListenerKey,
    /// The source: address and port.
    pub source: Endpoint,
    /// Ethernet source address.
    mac: [u8; 6],
}

/// Finds a datagram to one of the configured STUN ports.
///
/// # Errors
/// The class of any other frame.
#[inline(always)]
pub fn find<F: Frame + ?Sized>(frame: &F, ifindex: u32, config: &Config) -> Result<(Udp, Route), Class> {
    let udp = classify::find_stun(frame, None, config)?;
    // Only the stack knows whether an interface exists for the VLAN.
    if udp.fragment || udp.payload - udp.ip != IPV4_AND_UDP || udp.vlan != [0; 2] {
        return Err(Class::UnusualIp);
    }
    let addresses = udp.ip as usize + headers::IPV4_ADDRESSES;
    let listener = ListenerKey {
        ifindex,
        mac: frame.load(0).ok_or(Class::NotIpv4)?,
        port: udp.destination_port,
        address: frame.load(addresses + 4).ok_or(Class::NotIpv4)?,
    };
    let source = Endpoint::new(frame.load(addresses).ok_or(Class::NotIpv4)?, udp.source_port);
    Ok((udp, Route { listener, source, mac: frame.load(6).ok_or(Class::NotIpv4)? }))
}

impl Route {
    /// The endpoint to which the request was sent; the answer is sent from there.
    #[inline(always)]
    pub fn destination(&self) -> Endpoint {
        Endpoint::new(self.listener.address, self.listener.port)
    }

    /// Whether the source of the request may be answered. Not answerable are multicast and broadcast addresses,
    /// 0.0.0.0/8, loopback, this machine's own address and port 0. A host that receives an unsolicited answer does not
    /// reply to it: an answer is not a request, not even to another STUN server.
    #[inline(always)]
    pub fn is_answerable(&self) -> bool {
        let Self { listener, source, mac } = self;
        let [first, ..] = source.address;
        source.port != 0
            && first != 0
            && first != 127
            && first < 224
            && source.address != listener.address
            && mac[0] & 1 == 0
            && *mac != listener.mac
            && *mac != [0; 6]
    }
}

/// Whether the IPv4 and UDP checksums are valid, by the rules of the kernel's stack. `payload` holds the datagram of
/// `udp`. UDP allows an absent checksum (0), and a local sender's packet may carry the sum over the pseudo-header only,
/// which the hardware would complete.
#[inline(always)]
pub fn is_intact<F: Frame + ?Sized, O: Octets + ?Sized, R: Repeat>(
    frame: &F,
    udp: &Udp,
    payload: &O,
    repeat: R,
) -> bool {
    let ip = udp.ip as usize;
    let parts = (frame.load::<8>(ip), frame.load::<4>(ip + 8), frame.load::<8>(ip + headers::IPV4_ADDRESSES));
    let (Some(start), Some(middle), Some(addresses)) = parts else { return false };
    let Some(header) = frame.load::<8>(ip + 20) else { return false };
    let mut sum = Sum::default();
    sum.add(u64::from_be_bytes(start));
    sum.add(u64::from(u32::from_be_bytes(middle)));
    sum.add(u64::from_be_bytes(addresses));
    if sum.fold() != 0xffff {
        return false;
    }
    let checksum = u16::from_be_bytes([header[6], header[7]]);
    let mut sum = Sum::default();
    sum.add(u64::from_be_bytes(addresses));
    sum.add(u64::from(headers::PROTOCOL_UDP) << 16 | u64::from(udp.end - udp.payload + 8));
    if checksum == 0 || checksum == sum.fold() {
        return true;
    }
    sum.add(u64::from_be_bytes(header));
    let length = udp.end - udp.payload;
    repeat.repeat(length.div_ceil(8), &mut SumStep { sum: &mut sum, octets: payload, length });
    sum.fold() == 0xffff
}

struct SumStep<'a, O: ?Sized> {
    sum: &'a mut Sum,
    octets: &'a O,
    length: u32,
}

impl<O: Octets + ?Sized> Step for SumStep<'_, O> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        let at = index * 8;
        self.sum.add(first_bytes(self.octets.be64(at), self.length - at));
        true
    }
}

/// A request that this path may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// A request for the mapped address only. CONNECTION-REQUEST-BINDING without USERNAME belongs here too.
    Plain,
    /// A request that names the CPE and its binding; [`Demands`] holds the name. It may be answered if the binding is
    /// registered.
    KeepAlive,
}

/// Classifies the request of `length` bytes in `octets`, and writes its attributes to `demands`.
///
/// # Errors
/// The class of a request that is left to the socket.
#[inline(always)]
pub fn judge<O: Octets + ?Sized, R: Repeat>(
    octets: &O,
    length: u32,
    demands: &mut Demands,
    repeat: R,
) -> Result<Question, Class> {
    if !demands.read(octets, 0, length, repeat) {
        return Err(Class::OtherStun);
    }
    let signals = demands.signals;
    if demands.signed {
        return Err(Class::Signed);
    }
    if signals.damaged || demands.unaligned {
        return Err(Class::MalformedStun);
    }
    // The socket counts the malformed attributes by their form, and answers the request.
    if signals.binding_form() == Some(BindingForm::Wrong) {
        return Err(Class::WrongBinding);
    }
    // USERNAME without CONNECTION-REQUEST-BINDING has no meaning that this path knows.
    if demands.demanding || (demands.has_username() && !signals.connection_request_binding) {
        return Err(Class::Demanding);
    }
    if signals.binding_change {
        return Err(Class::BindingChange);
    }
    Ok(if demands.has_username() { Question::KeepAlive } else { Question::Plain })
}

/// The class of a keep-alive from a registered binding.
#[inline(always)]
pub fn keep_alive_class(demands: &Demands) -> Class {
    if demands.signals.nul_binding { Class::NulKeepAlive } else { Class::KeepAlive }
}

/// The key under which the binding of a keep-alive is registered.
#[inline(always)]
pub fn binding_key<O: Octets + ?Sized, R: Repeat>(
    octets: &O,
    demands: &mut Demands,
    route: &Route,
    config: &Config,
    repeat: R,
) -> BindingKey {
    let username = demands.username_hash(octets, config.seed, repeat);
    BindingKey { username, source: route.source, server: route.destination() }
}

/// The Binding Response to the request in `octets`.
#[inline(always)]
pub fn answer<O: Octets + ?Sized>(octets: &O, route: &Route, changed: Endpoint) -> stun::Answer {
    let mut transaction_id = [0; 16];
    transaction_id[..4].copy_from_slice(&octets.four(4));
    transaction_id[4..8].copy_from_slice(&octets.four(8));
    transaction_id[8..12].copy_from_slice(&octets.four(12));
    transaction_id[12..].copy_from_slice(&octets.four(16));
    stun::Answer { transaction_id, mapped: route.source, source: route.destination(), changed }
}
