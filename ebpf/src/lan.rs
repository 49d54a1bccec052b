//! The LAN hooks: from a frame to its class, its mark and its event.

use crate::{
    emit::{self, Facts},
    frame::{KernelLoop, Packet, SkbFrame},
    insert,
    maps::{self, Scratch},
    police,
};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_log_ebpf::debug;
use tr111_common::{
    abi::Mark,
    classify::{self, Request},
    config::Config,
    counter::{Class, Counter, Hook, Outcome},
    dhcp4::MessageType,
    frame::{FRAME_CAPACITY, Frame as _},
    headers::{Segment, Udp},
};

/// A frame that turned out to hold a DHCP message.
struct Seen {
    udp: Udp,
    segment: Segment,
    metadata_tag: Option<u16>,
    time: u64,
    captured: u32,
}

/// LAN ingress: counts the frame, marks its exchange, tells the agent.
#[inline(always)]
pub fn ingress<P: Packet>(packet: &P) {
    let class = match classify::find_request(packet, packet.metadata_tag()) {
        Ok(udp) => on_request(packet, udp),
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::LanIngress, class));
}

/// LAN egress: counts the frame, adds the Gateway Identity to it, tells the agent how an exchange of an identified client ended.
#[inline(always)]
pub fn egress(packet: &SkbFrame<'_>) {
    let class = match classify::find_reply(packet, packet.metadata_tag()) {
        Ok(udp) => on_reply(packet, udp),
        Err(class) => class,
    };
    maps::count(Counter::Packet(Hook::LanEgress, class));
}

#[inline(always)]
fn on_request<P: Packet>(packet: &P, udp: Udp) -> Class {
    let (Some(scratch), Some(config)) = (maps::scratch(), maps::config()) else { return Class::OtherPort };
    let (Ok(class) | Err(class)) = look(packet, udp, scratch).and_then(|seen| request(scratch, &seen, config));
    debug!(packet.context(), "lan_ingress: class {}, {} bytes", class as u8, packet.len());
    class
}

#[inline(always)]
fn on_reply(packet: &SkbFrame<'_>, udp: Udp) -> Class {
    let (Some(scratch), Some(config)) = (maps::scratch(), maps::config()) else { return Class::OtherPort };
    let (Ok(class) | Err(class)) = look(packet, udp, scratch).and_then(|seen| reply(packet, scratch, &seen, config));
    debug!(packet.context(), "lan_egress: class {}, {} bytes", class as u8, packet.len());
    class
}

/// Copies the frame into the scratch buffer.
#[inline(always)]
fn look<P: Packet>(packet: &P, udp: Udp, scratch: &mut Scratch) -> Result<Seen, Class> {
    // Bounded as 64 bits: the verifier (Linux 6.18) loses bounds that were learned of a truncated copy.
    let length = packet.len();
    if length == 0 || length > FRAME_CAPACITY || !packet.copy(&mut scratch.frame, length) {
        return Err(Class::Oversize);
    }
    let captured = length as u32;
    // SAFETY: the helper takes nothing and reads a clock.
    let time = unsafe { bpf_ktime_get_boot_ns() };
    let segment = Segment { ifindex: packet.ifindex(), vlan: udp.vlan };
    Ok(Seen { udp, segment, metadata_tag: packet.metadata_tag(), time, captured })
}

#[inline(always)]
fn request(scratch: &mut Scratch, seen: &Seen, config: &Config) -> Result<Class, Class> {
    let fixed = classify::request_fixed(&scratch.frame, &seen.udp)?;
    walk(scratch, seen, config);
    let client = classify::client_key(seen.segment, &fixed, &scratch.walk, config);
    let (class, identified) = match classify::judge_request(&seen.udp, &scratch.walk, config) {
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
    if !police::allow(&fixed, seen.time, config) {
        return Err(Class::OverBudget);
    }
    if let Some(identified) = identified {
        let mark = Mark {
            time: seen.time,
            identified: u8::from(identified),
            reserved: 0,
            maximum_size: scratch.walk.maximum_size,
            reserved_too: 0,
        };
        maps::mark_exchange(&classify::exchange_key(seen.segment, &fixed), &mark);
        if identified && !matches!(class, Class::Sticky) {
            maps::remember_newcomer(&client, seen.time);
        }
    }
    tell(scratch, seen, Hook::LanIngress, class);
    Ok(class)
}

#[inline(always)]
fn reply(packet: &SkbFrame<'_>, scratch: &mut Scratch, seen: &Seen, config: &Config) -> Result<Class, Class> {
    let fixed = classify::reply_fixed(&scratch.frame, &seen.udp)?;
    let Some(mark) = maps::find_exchange(&classify::exchange_key(seen.segment, &fixed)) else {
        return Err(Class::Unmarked);
    };
    walk(scratch, seen, config);
    let class = classify::judge_reply(&seen.udp, &scratch.walk);
    if let Some(message) = takes_identity(class)
        && mark.identified != 0
    {
        let result = insert::gateway_identity(packet, scratch, &seen.udp, &mark, config);
        maps::count(Counter::Insertion(message, result));
    }
    if matches!(class.outcome(), Outcome::HandedUp) {
        tell(scratch, seen, Hook::LanEgress, class);
    }
    Ok(class)
}

/// GW-5: OFFER and ACK carry the Gateway Identity; RFC 2131 table 3 keeps it out of NAK.
#[inline(always)]
fn takes_identity(class: Class) -> Option<MessageType> {
    match class {
        Class::Offer => Some(MessageType::Offer),
        Class::Ack => Some(MessageType::Ack),
        _ => None,
    }
}

#[inline(always)]
fn walk(scratch: &mut Scratch, seen: &Seen, config: &Config) {
    scratch.walk = classify::new_walk(&seen.udp, config);
    scratch.walk.run(&scratch.frame, config, KernelLoop);
}

#[inline(always)]
fn tell(scratch: &mut Scratch, seen: &Seen, hook: Hook, class: Class) {
    let facts = Facts {
        time: seen.time,
        segment: seen.segment,
        metadata_tag: seen.metadata_tag,
        hook,
        class,
        captured: seen.captured,
    };
    emit::lan(scratch, &facts);
}
