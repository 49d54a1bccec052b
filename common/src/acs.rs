//! What the line-rate path of the STUN server decides: which requests it may answer in place, and by what they are found
//! to be as they were. The socket answers everything else, and would answer these with the same bytes.

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

/// Longest request that is read here: CONNECTION-REQUEST-BINDING with the longest USERNAME, and room for what may be
/// ignored.
pub const REQUEST_MAXIMUM: usize = 512;

/// Headers of IPv4, without options, and of UDP.
const IPV4_AND_UDP: u32 = 28;

/// From where and to where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it comes in.
    pub listener: ListenerKey,
    /// Who sent it.
    pub source: Endpoint,
    /// Ethernet source.
    mac: [u8; 6],
}

/// Finds a datagram towards one of the server's ports.
///
/// # Errors
/// The class of any other frame.
#[inline(always)]
pub fn find<F: Frame + ?Sized>(frame: &F, ifindex: u32, config: &Config) -> Result<(Udp, Route), Class> {
    let udp = classify::find_stun(frame, None, config)?;
    // Whether there is an interface for the VLAN, the stack knows.
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
    /// Where the answer comes from.
    #[inline(always)]
    pub fn destination(&self) -> Endpoint {
        Endpoint::new(self.listener.address, self.listener.port)
    }

    /// Whether an answer to the source may go out: not to a group, to nobody, to this machine or to port 0. Whoever gets
    /// an answer that he did not ask for has no reason to answer it: it is no request, also not to another STUN server.
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

/// Whether the checksums of IPv4 and UDP are as the stack would have them; `payload` holds what `udp` is about. UDP may
/// have none (0), and a local sender's may be the bare sum of the pseudo-header, which the hardware would complete.
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

/// A request that may be answered in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// It asks for its address. CONNECTION-REQUEST-BINDING without a name is no more than that.
    Plain,
    /// Its [`Demands`] say through which binding Connection Requests reach whom: may be answered if that is registered.
    KeepAlive,
}

/// Judges the datagram of `length` bytes in `octets`, and leaves in `demands` what it asks for.
///
/// # Errors
/// The class of a request that the socket answers.
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
    // The socket counts them by form, and answers.
    if signals.binding_form() == Some(BindingForm::Wrong) {
        return Err(Class::WrongBinding);
    }
    // A name without CONNECTION-REQUEST-BINDING has no meaning that could be known here.
    if demands.demanding || (demands.has_username() && !signals.connection_request_binding) {
        return Err(Class::Demanding);
    }
    if signals.binding_change {
        return Err(Class::BindingChange);
    }
    Ok(if demands.has_username() { Question::KeepAlive } else { Question::Plain })
}

/// The class of a keep-alive whose binding is registered.
#[inline(always)]
pub fn keep_alive_class(demands: &Demands) -> Class {
    if demands.signals.nul_binding { Class::NulKeepAlive } else { Class::KeepAlive }
}

/// By what the binding of a keep-alive is registered.
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

/// The answer to the request in `octets`.
#[inline(always)]
pub fn answer<O: Octets + ?Sized>(octets: &O, route: &Route, changed: Endpoint) -> stun::Answer {
    let mut transaction_id = [0; 16];
    transaction_id[..4].copy_from_slice(&octets.four(4));
    transaction_id[4..8].copy_from_slice(&octets.four(8));
    transaction_id[8..12].copy_from_slice(&octets.four(12));
    transaction_id[12..].copy_from_slice(&octets.four(16));
    stun::Answer { transaction_id, mapped: route.source, source: route.destination(), changed }
}
