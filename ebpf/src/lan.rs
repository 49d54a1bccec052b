//! The LAN hooks: classify a frame, mark its exchange, insert the Gateway Identity, send events.
//!
//! # Theory of operation
//!
//! * [`ingress`]: DHCP requests. A request with a Device Identity, or from a client that identified itself before,
//!   marks its exchange in `EXCHANGES` and is sent to the agent. ARP messages update the time of their sender in
//!   `NEIGHBOURS`.
//! * [`egress`]: DHCP replies. If the exchange is marked, OFFER and ACK receive the Gateway Identity, an ACK is
//!   recorded in `LAST_ACK`, and ACK and NAK are sent to the agent.
//! * [`forwarded`]: DHCP messages that a LAN bridge forwards from one port to another and that the two hooks above do
//!   not see. The interface of the exchange is the bridge.
//! * [`merged`]: a frame in which the kernel merged several datagrams (GRO). The datagrams are processed one by one,
//!   with tail calls between them.
//!
//! An error leads to a counter, never to a drop. Only messages above the rate that the operator set are dropped.

use crate::{
    emit, insert,
    maps::{self, Scratch},
    police,
    seen::{self, Parts},
};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_log_ebpf::debug;
use tr111_common::{
    abi::{ClientKey, IDENTITY_WORDS, NeighbourKey},
    classify::{self, Request},
    config::Config,
    counter::{Class, Counter, Hook, Outcome},
    dhcp4::{self, Fixed, MessageType},
    frame::{Frame as _, Octets as _, first_bytes},
    headers::{self, ETHERNET_SOURCE, Segment, Udp},
    words::WORD,
};
use tr111_ebpf::frame::{Captured, KernelLoop, Packet, SkbFrame};

/// LAN ingress: counts the frame, marks its exchange, sends an event. Returns `false` if the frame has to be dropped.
#[inline(always)]
pub fn ingress<P: Packet>(packet: &P) -> bool {
    let class = match classify::find_request(packet, packet.metadata_tag()) {
        Ok(udp) => on_request(packet, udp),
        Err(class) => {
            if matches!(class, Class::Arp) {
                on_arp(packet);
            }
            class
        }
    };
    maps::count(Counter::Packet(Hook::LanIngress, class));
    // `Policed` is the only class with the outcome `Dropped`. Comparing the class saves a table look-up per frame.
    !matches!(class, Class::Policed)
}

/// LAN ingress at TC, where the kernel may have merged the datagrams of a flow. Merged DHCP datagrams continue in
/// [`merged`].
#[inline(always)]
pub fn ingress_at_tc(packet: &SkbFrame<'_>) -> bool {
    if packet.stride() == 0 {
        return ingress(packet);
    }
    let class = match classify::find_request(packet, packet.metadata_tag()) {
        Ok(udp) => {
            if let Some(scratch) = maps::scratch() {
                scratch.parts = Parts { udp, next: 0, is_one_policed: false };
                maps::go_on_with_parts(packet);
            }
            maps::note_merged(packet.ifindex());
            Class::Merged
        }
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::LanIngress, class));
    true
}

/// Datagrams that one call of [`merged`] processes. The kernel allows 33 tail calls (`MAX_TAIL_CALL_CNT`) and merges at
/// most 64 datagrams (`UDP_GRO_CNT_MAX`). Each further datagram adds another verification of the body.
const PARTS_A_TURN: u32 = 2;

/// Processes and counts the next datagrams of a merged frame, then tail-calls itself. A single program that processes
/// all datagrams takes the verifier far longer (Linux 7.3: 456,000 instructions). Returns `false` if the frame, with
/// all its datagrams, has to be dropped.
#[inline(always)]
pub fn merged(packet: &SkbFrame<'_>) -> bool {
    for _ in 0..PARTS_A_TURN {
        let Some(scratch) = maps::scratch() else { return true };
        let Some(seen) = seen::look_at_part(packet, scratch) else { return !scratch.parts.is_one_policed };
        let class = on_part(packet, seen);
        maps::count(Counter::Packet(Hook::LanIngress, class));
        if matches!(class, Class::Policed)
            && let Some(scratch) = maps::scratch()
        {
            scratch.parts.is_one_policed = true;
        }
    }
    maps::go_on_with_parts(packet);
    // The limit of tail calls is reached.
    maps::note_merged(packet.ifindex());
    maps::count(Counter::Packet(Hook::LanIngress, Class::Merged));
    maps::scratch().is_none_or(|scratch| !scratch.parts.is_one_policed)
}

/// LAN egress: counts the frame, adds the Gateway Identity to it, and sends an event at the end of a marked exchange.
#[inline(always)]
pub fn egress(packet: &SkbFrame<'_>) {
    let class = match classify::find_reply(packet, packet.metadata_tag()) {
        // Merged replies that a relay agent on this machine forwards. The identity would have to be added to each of
        // them.
        Ok(udp) if packet.stride() != 0 => {
            if is_reply(packet, &udp) {
                unseparated(packet)
            } else {
                Class::OtherMessage
            }
        }
        Ok(udp) => on_reply(packet, udp),
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::LanEgress, class));
}

/// Egress of a LAN bridge port: counts the frame, and processes a DHCP message from another port like one that the
/// bridge received or sent itself. Returns `false` if the frame has to be dropped.
#[inline(always)]
pub fn forwarded(packet: &SkbFrame<'_>) -> bool {
    let class = match classify::find_reply(packet, packet.metadata_tag()) {
        Ok(udp) => on_forwarded(packet, udp),
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::LanPort, class));
    !matches!(class, Class::Policed)
}

/// Whether the first of the merged datagrams is a server's message.
#[inline(always)]
fn is_reply(packet: &SkbFrame<'_>, udp: &Udp) -> bool {
    packet.load::<2>(udp.payload as usize).is_some_and(|[op, _]| op == dhcp4::BOOTREPLY)
}

/// Records merged datagrams that should be separated and cannot be.
#[inline(always)]
fn unseparated(packet: &SkbFrame<'_>) -> Class {
    maps::note_merged(packet.ifindex());
    Class::Merged
}

#[inline(always)]
fn on_forwarded(packet: &SkbFrame<'_>, udp: Udp) -> Class {
    let (Some(scratch), Some(config)) = (maps::scratch(), maps::config()) else { return Class::OtherPort };
    let Some(bridge) = maps::bridge_of(packet.ifindex()) else { return Class::OtherPort };
    // A frame that did not enter through another port of the bridge has passed the bridge's egress hook.
    if maps::bridge_of(packet.came_by()) != Some(bridge) {
        return Class::Repeated;
    }
    if packet.stride() != 0 {
        return on_forwarded_and_merged(packet, &udp, config);
    }
    let (Ok(class) | Err(class)) = seen::look(packet, udp, scratch).and_then(|()| {
        scratch.seen.segment.ifindex = bridge;
        if scratch.frame.octet(udp.payload) == dhcp4::BOOTREQUEST {
            forwarded_request(packet, scratch, config)
        } else {
            reply::<FORWARDED>(packet, scratch, config)
        }
    });
    class
}

#[inline(always)]
fn on_forwarded_and_merged(packet: &SkbFrame<'_>, udp: &Udp, config: &Config) -> Class {
    if config.accept_foreign_server == 0 {
        return Class::OtherMessage;
    }
    let is_to_group = packet.load::<2>(0).is_some_and(|[first, _]| is_group(first));
    if is_to_group && !is_reply(packet, udp) { Class::Repeated } else { unseparated(packet) }
}

/// Whether an Ethernet address with this first byte is a group address. Frames to a group reach the bridge too.
#[inline(always)]
fn is_group(first: u8) -> bool {
    first & 1 != 0
}

/// A request to a server behind another port. If renewals were not seen, the device would lose its row at the end of
/// its first lease.
#[inline(always)]
fn forwarded_request(packet: &SkbFrame<'_>, scratch: &mut Scratch, config: &Config) -> Result<Class, Class> {
    if config.accept_foreign_server == 0 {
        return Err(Class::OtherMessage);
    }
    if is_group(scratch.frame.octet(0)) {
        return Err(Class::Repeated);
    }
    request(packet, scratch, config)
}

#[inline(always)]
fn on_request<P: Packet>(packet: &P, udp: Udp) -> Class {
    let (Some(scratch), Some(config)) = (maps::scratch(), maps::config()) else { return Class::OtherPort };
    let (Ok(class) | Err(class)) = seen::look(packet, udp, scratch).and_then(|()| request(packet, scratch, config));
    debug!(packet.context(), "lan_ingress: class {}, {} bytes", class as u8, packet.len());
    class
}

#[inline(always)]
fn on_part(packet: &SkbFrame<'_>, seen: Result<(), Class>) -> Class {
    let (Some(scratch), Some(config)) = (maps::scratch(), maps::config()) else { return Class::OtherPort };
    let (Ok(class) | Err(class)) = seen.and_then(|()| request(packet, scratch, config));
    class
}

#[inline(always)]
fn on_reply(packet: &SkbFrame<'_>, udp: Udp) -> Class {
    let (Some(scratch), Some(config)) = (maps::scratch(), maps::config()) else { return Class::OtherPort };
    let (Ok(class) | Err(class)) =
        seen::look(packet, udp, scratch).and_then(|()| reply::<SENT>(packet, scratch, config));
    debug!(packet.context(), "lan_egress: class {}, {} bytes", class as u8, packet.len());
    class
}

// A separate function: the verifier verifies it once, not once per path through the headers.
#[inline(never)]
fn request<P: Packet>(packet: &P, scratch: &mut Scratch, config: &Config) -> Result<Class, Class> {
    let fixed = classify::request_fixed(&scratch.frame, &scratch.seen.udp)?;
    let source = first_bytes(scratch.frame.be64(ETHERNET_SOURCE), 6);
    if !police::may_pass_dhcp(source, &fixed, scratch.seen.time, config) {
        return Err(Class::Policed);
    }
    walk(packet, scratch, config);
    let Scratch { seen, walk, .. } = scratch;
    let client = classify::client_key(seen.segment, &fixed, walk);
    let (class, identified) = match classify::judge_request(&seen.udp, walk, config) {
        Request::Pass(class) => return Err(class),
        Request::Ends(class) => (class, None),
        Request::Tell { class, identified } => (class, Some(identified)),
        Request::Unidentified(message, refusal) => {
            maps::count(Counter::Refused(message, refusal));
            if !maps::is_sticky(&client, seen.time) {
                return Err(classify::unidentified(refusal));
            }
            (Class::Sticky, Some(true))
        }
    };
    let is_told = police::may_tell_dhcp(source, &fixed, seen.time, config);
    match identified {
        // The budget limits the events to the agent. It does not affect the replies to a known client and the records
        // of its ACKs, so another host cannot interfere with these.
        Some(identified) => {
            let is_known = matches!(class, Class::Sticky) || (!is_told && maps::is_sticky(&client, seen.time));
            let key = classify::exchange_key(seen.segment, &fixed);
            if is_told || is_known {
                keep_mark(scratch, &client, identified);
                maps::mark_exchange(&key, &scratch.mark);
            }
            if is_told && identified && !is_known {
                maps::remember_newcomer(&client, scratch.seen.time);
            }
        }
        None => end_lease(scratch, &fixed, &client),
    }
    if !is_told {
        return Err(Class::OverBudget);
    }
    emit::lan(scratch, Hook::LanIngress, class);
    Ok(class)
}

/// A reply that the interface sends.
const SENT: bool = false;
/// A reply that the bridge forwards from one port to another.
const FORWARDED: bool = true;

// A separate function, for the same reason as `request`.
#[inline(never)]
fn reply<const IS_FORWARDED: bool>(
    packet: &SkbFrame<'_>,
    scratch: &mut Scratch,
    config: &Config,
) -> Result<Class, Class> {
    let fixed = classify::reply_fixed(&scratch.frame, &scratch.seen.udp)?;
    if !find_mark(scratch, &fixed) {
        return Err(Class::Unmarked);
    }
    if IS_FORWARDED && config.accept_foreign_server == 0 {
        maps::note_foreign_reply(scratch.seen.segment.ifindex, scratch.seen.time);
        return Err(Class::ForeignServer);
    }
    walk(packet, scratch, config);
    if IS_FORWARDED && scratch.walk.identity.has_gateway_part() {
        return Err(Class::Repeated);
    }
    let class = classify::judge_reply(&scratch.seen.udp, &scratch.walk);
    // A bridge floods a reply to several ports. Every copy receives the identity, but only the first one is counted.
    let is_repeated = IS_FORWARDED && is_answered(scratch, &fixed);
    if let Some(message) = takes_identity(class)
        && scratch.mark.identified != 0
    {
        let result = insert::gateway_identity(packet, scratch);
        if !is_repeated {
            maps::count(Counter::Insertion(message, result));
        }
    }
    if is_repeated {
        return Err(Class::Repeated);
    }
    match class {
        Class::Ack => keep_ack(scratch, &fixed),
        // A NAK only answers a REQUEST (RFC 2131 4.3.2).
        Class::Nak if scratch.mark.message_type == MessageType::Request as u8 => {
            maps::forget_ack(&scratch.mark.client, scratch.mark.source);
        }
        _ => {}
    }
    maps::note_reply(scratch.seen.segment.ifindex, scratch.seen.time);
    if matches!(class.outcome(), Outcome::HandedUp) {
        emit::lan(scratch, Hook::LanEgress, class);
    }
    Ok(class)
}

/// Copies the mark of the reply's exchange to the scratch buffer; `false` if the exchange is not marked.
// A separate function has a stack frame of its own.
#[inline(never)]
fn find_mark(scratch: &mut Scratch, fixed: &Fixed) -> bool {
    maps::find_exchange(&classify::exchange_key(scratch.seen.segment, fixed), &mut scratch.mark)
}

/// Whether a reply of this message type was forwarded before, since the last request of its exchange.
// A separate function has a stack frame of its own.
#[inline(never)]
fn is_answered(scratch: &mut Scratch, fixed: &Fixed) -> bool {
    let key = classify::exchange_key(scratch.seen.segment, fixed);
    maps::note_answer(&key, scratch.walk.message_type)
}

/// Composes the mark of an exchange. It includes the identity, which the agent needs if the ring loses the request.
#[inline(always)]
fn keep_mark(scratch: &mut Scratch, client: &ClientKey, identified: bool) {
    let Scratch { frame, seen, walk, mark, .. } = scratch;
    mark.time = seen.time;
    mark.identified = u8::from(identified);
    mark.identity_length = 0;
    mark.maximum_size = walk.maximum_size;
    mark.message_type = walk.message_type;
    mark.answered = 0;
    mark.client = *client;
    mark.source = frame.mac(ETHERNET_SOURCE);
    let length = walk.joined.length() as usize;
    if length <= IDENTITY_WORDS * WORD
        && let Some(identity) = walk.joined.first()
    {
        mark.identity = identity;
        mark.identity_length = length as u8;
    }
}

/// Records the ACK of an exchange, field by field, because the record is too large for the stack. A renewal without an
/// identity (T-9) keeps the known identity.
// A separate function has a stack frame of its own.
#[inline(never)]
fn keep_ack(scratch: &mut Scratch, fixed: &Fixed) {
    let Scratch { seen, walk, mark, last_ack: record, .. } = scratch;
    record.time = seen.time;
    record.lease = walk.lease;
    record.address = if fixed.yiaddr == [0; 4] { fixed.ciaddr } else { fixed.yiaddr };
    record.server = walk.server;
    record.giaddr = fixed.giaddr;
    record.chaddr = fixed.chaddr;
    record.htype = fixed.htype;
    record.hlen = fixed.hlen;
    record.message_type = mark.message_type;
    record.source = mark.source;
    record.ended_by = 0;
    record.identity_length = mark.identity_length;
    record.identity = mark.identity;
    if mark.identity_length == 0 {
        maps::recall_identity(&mark.client, record);
    }
    maps::remember_ack(&mark.client, record);
}

/// RELEASE or DECLINE: records in `LAST_ACK` that the client's lease has ended. The agent deletes the record once its
/// store has no row for it. The message has to name the address and the server of the lease, and to come from the
/// Ethernet source that requested the lease.
#[inline(always)]
fn end_lease(scratch: &Scratch, fixed: &Fixed, client: &ClientKey) {
    let Scratch { frame, seen, walk, .. } = scratch;
    let Some(record) = maps::last_ack(client) else { return };
    let is_release = walk.message_type == MessageType::Release as u8;
    let address = if is_release { fixed.ciaddr } else { walk.requested };
    let is_server = record.server == [0; 4] || walk.server == [0; 4] || record.server == walk.server;
    if record.address == address && is_server && record.source == frame.mac(ETHERNET_SOURCE) {
        record.ended_by = walk.message_type;
        record.time = seen.time;
    }
}

/// Updates the time of an ARP sender, if the agent tracks it. Every station on an IPv4 LAN sends ARP (T-6).
#[inline(always)]
fn on_arp<P: Packet>(packet: &P) {
    if let Some(sender) = headers::find_arp(packet, packet.metadata_tag()) {
        // SAFETY: the helper has no arguments and reads a clock.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        let segment = Segment { ifindex: packet.ifindex(), vlan: sender.vlan };
        maps::refresh_neighbour(&NeighbourKey { segment, address: sender.ip }, sender.mac, now);
    }
}

/// GW-5: OFFER and ACK carry the Gateway Identity. RFC 2131 table 3 excludes options like it from NAK.
#[inline(always)]
fn takes_identity(class: Class) -> Option<MessageType> {
    match class {
        Class::Offer => Some(MessageType::Offer),
        Class::Ack => Some(MessageType::Ack),
        _ => None,
    }
}

#[inline(always)]
fn walk<P: Packet>(packet: &P, scratch: &mut Scratch, config: &Config) {
    let Scratch { frame, seen, walk, .. } = scratch;
    classify::walk_again(walk, &Captured { copy: frame, packet }, &seen.udp, config, KernelLoop);
}
