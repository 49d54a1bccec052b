//! Tests of classification behind the headers: fixed part, option walk, classes.

extern crate std;

use std::{vec, vec::Vec};

use super::*;
use crate::{
    dhcp4::{OPTIONS, Options, option},
    frame::PlainLoop,
};

/// Option 125 with device 00256D / DEV0001 / STB.
const D1: &[u8] = b"\x7d\x1b\0\0\x0d\xe9\x16\x01\x0600256D\x02\x07DEV0001\x03\x03STB";
const REQUEST: &[u8] = &[option::MESSAGE_TYPE, 1, 3];
const END: &[u8] = &[option::END];

fn message(op: u8, options: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; OPTIONS as usize];
    bytes[..3].copy_from_slice(&[op, 1, 6]);
    bytes[4..8].copy_from_slice(&0x1234_5678u32.to_be_bytes());
    bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    // The bytes after the address are undefined, so the parser must ignore them.
    bytes[34..44].fill(0xaa);
    bytes[236..240].copy_from_slice(&dhcp4::COOKIE);
    bytes.extend(options.concat());
    bytes
}

fn request(options: &[&[u8]]) -> Vec<u8> {
    message(dhcp4::BOOTREQUEST, options)
}

fn datagram(message: &[u8]) -> Udp {
    let end = message.len() as u32;
    Udp { vlan: [0; 2], ip: 0, payload: 0, end, source_port: 68, destination_port: 67, fragment: false }
}

fn walked(message: &[u8]) -> Walk {
    walk(message, &datagram(message), &Config::default(), PlainLoop)
}

fn judge(options: &[&[u8]]) -> Request {
    let message = request(options);
    judge_request(&datagram(&message), &walked(&message), &Config::default())
}

fn key(message: &[u8], config: &Config) -> ClientKey {
    let udp = datagram(message);
    let fixed = request_fixed(message, &udp).unwrap();
    client_key(Segment::default(), &fixed, &walk(message, &udp, config, PlainLoop))
}

#[test]
fn reads_the_fixed_part() {
    let message = request(&[REQUEST, END]);
    let fixed = request_fixed(message.as_slice(), &datagram(&message)).unwrap();
    assert_eq!((fixed.op, fixed.htype, fixed.hlen, fixed.xid), (1, 1, 6, 0x1234_5678));
    assert_eq!(fixed.chaddr.first(), [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "zero behind its length");
}

#[test]
fn refuses_a_damaged_fixed_part() {
    let fixed = |bytes: &[u8]| request_fixed(bytes, &datagram(bytes)).unwrap_err();
    let good = request(&[REQUEST, END]);
    assert_eq!(fixed(&good[..239]), Class::Truncated);
    assert_eq!(fixed(&[]), Class::Truncated);
    assert_eq!(fixed(&message(dhcp4::BOOTREPLY, &[])), Class::OtherMessage);
    for (at, value, class) in [(2, 17, Class::BadHlen), (2, 255, Class::BadHlen), (239, 0, Class::WrongCookie)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert_eq!(fixed(&bytes), class);
    }
    let mut longest = good.clone();
    longest[2] = 16;
    assert!(request_fixed(longest.as_slice(), &datagram(&longest)).is_ok());
}

/// GW-3: DISCOVER, REQUEST and INFORM are inspected; RELEASE and DECLINE produce events; all other types pass.
#[test]
fn only_three_messages_are_inspected() {
    for (number, expected) in [
        (1, Some(Class::Discover)),
        (3, Some(Class::Request)),
        (8, Some(Class::Inform)),
        (2, None),
        (5, None),
        (6, None),
        (13, None),
    ] {
        let judged = judge(&[&[option::MESSAGE_TYPE, 1, number], D1, END]);
        let passed = Request::Pass(Class::OtherMessage);
        assert_eq!(judged, expected.map_or(passed, |class| Request::Tell { class, identified: true }), "{number}");
    }
    assert_eq!(judge(&[&[option::MESSAGE_TYPE, 1, 7], D1, END]), Request::Ends(Class::Release));
    assert_eq!(judge(&[&[option::MESSAGE_TYPE, 1, 4], D1, END]), Request::Ends(Class::Decline));
    assert_eq!(judge(&[D1, END]), Request::Pass(Class::Bootp));
}

/// GW-2, OPT-1: the same bytes in option 43 or 124 are not an identity.
#[test]
fn only_option_125_carries_an_identity() {
    for code in [43, 124] {
        let mut other = D1.to_vec();
        other[0] = code;
        assert_eq!(judge(&[REQUEST, &other, END]), Request::Unidentified(MessageType::Request, Refusal::Absent));
    }
    assert_eq!(unidentified(Refusal::Absent), Class::NoIdentity);
    assert_eq!(unidentified(Refusal::Damaged), Class::RefusedIdentity);
}

/// T-28: a first fragment is passed to the agent, whatever it contains.
#[test]
fn what_is_undetermined_is_told() {
    let message = request(&[REQUEST, &[option::VENDOR_IDENTIFYING, 200]]);
    let udp = Udp { fragment: true, ..datagram(&message) };
    let told = Request::Tell { class: Class::Fragment, identified: false };
    assert_eq!(judge_request(&udp, &walked(&message), &Config::default()), told);
}

/// T-28: options continue in `file`, then in `sname`; each field has an END of its own (RFC 2131 4.1, RFC 3396 5).
#[test]
fn the_walk_goes_on_in_overloaded_fields() {
    let overloaded = |which: u8, file: &[&[u8]], sname: &[&[u8]]| {
        let mut message = request(&[&[option::OVERLOAD, 1, which], REQUEST, END]);
        for ((start, _), field) in [(dhcp4::FILE, file), (dhcp4::SNAME, sname)] {
            let field = field.concat();
            message[start as usize..][..field.len()].copy_from_slice(&field);
        }
        message
    };
    let judge = |message: &[u8]| judge_request(&datagram(message), &walked(message), &Config::default());
    let told = Request::Tell { class: Class::Request, identified: true };
    let nothing = Request::Unidentified(MessageType::Request, Refusal::Absent);
    let [first, second] = [&D1[..9], &[&[option::VENDOR_IDENTIFYING, 20], &D1[9..]].concat()];
    let first = [&[option::VENDOR_IDENTIFYING, 7], &first[2..]].concat();
    for (which, expected) in [(0, nothing), (1, told), (2, nothing), (3, told), (4, nothing)] {
        assert_eq!(judge(&overloaded(which, &[D1, END], &[])), expected, "file, {which}");
    }
    assert_eq!(judge(&overloaded(2, &[], &[D1, END])), told, "sname");
    assert_eq!(judge(&overloaded(3, &[&first, END], &[second, END])), told, "half in each");
    assert_eq!(judge(&overloaded(3, &[second, END], &[&first, END])), nothing_of(Refusal::Damaged), "sname comes last");
    assert_eq!(judge(&overloaded(1, &[&[0; 128]], &[])), nothing, "padding up to the end of the field");
    let damaged = Request::Pass(Class::DamagedOptions);
    assert_eq!(judge(&overloaded(1, &[&[0; 100], &[option::CLIENT_ID, 27]], &[])), damaged, "past the field");
    assert_eq!(judge(&overloaded(1, &[&[0; 127], &[option::CLIENT_ID]], &[])), damaged);
    // Option 52 in `file` has no effect.
    assert_eq!(judge(&overloaded(1, &[&[option::OVERLOAD, 1, 3], END], &[D1, END])), nothing);
    let walk = walked(&overloaded(1, &[&[option::RELAY_AGENT, 1, 0], END], &[]));
    assert_eq!((walk.relay_agent, walk.ended), (0, WalkEnd::End));
    assert_eq!(walk.end_option(), Some(OPTIONS + 6), "END of the options field");
}

fn nothing_of(refusal: Refusal) -> Request {
    Request::Unidentified(MessageType::Request, refusal)
}

#[test]
fn a_walk_ends_at_end_or_at_the_message() {
    assert_eq!(walked(&request(&[REQUEST, END, &[1, 200]])).ended, WalkEnd::End);
    assert_eq!(walked(&request(&[REQUEST, &[0; 60]])).ended, WalkEnd::Exhausted);
    assert_eq!(walked(&request(&[&[0; 60], REQUEST, END])).message_type, 3, "padding may stand in front");
    for damaged in [&[61][..], &[61, 1], &[61, 200, 1], &[125, 255, 0, 0]] {
        assert_eq!(walked(&request(&[REQUEST, damaged])).ended, WalkEnd::Damaged);
        assert_eq!(judge(&[REQUEST, damaged]), Request::Pass(Class::DamagedOptions), "{damaged:?}");
    }
}

#[test]
fn options_one_by_one_agree_with_the_walk() {
    for options in [&[REQUEST, END][..], &[REQUEST, &[0, 0], D1], &[REQUEST, &[61]], &[REQUEST, &[61, 9, 1]], &[]] {
        let field = options.concat();
        let mut iterator = Options::new(&field);
        let found = iterator.by_ref().count();
        let walk = walked(&request(options));
        assert_eq!(iterator.is_damaged(), walk.ended == WalkEnd::Damaged, "{options:?}");
        assert_eq!(found > 0, walk.message_type != 0);
    }
}

/// GW-2: several instances of option 125 are joined, wherever the value is split (RFC 3396).
#[test]
fn the_walk_joins_an_identity_that_was_split() {
    let value = &D1[2..];
    for cut in 0..=value.len() {
        let piece = |bytes: &[u8]| [&[option::VENDOR_IDENTIFYING, bytes.len() as u8], bytes].concat();
        let (first, second) = (piece(&value[..cut]), piece(&value[cut..]));
        let judged = judge(&[&first, REQUEST, &second, END]);
        assert_eq!(judged, Request::Tell { class: Class::Request, identified: true }, "{cut}");
    }
}

/// T-4: a client is a hardware address with its client identifier, if it has one, on one segment.
#[test]
fn clients_are_told_apart() {
    let config = Config { seed: 1, ..Config::default() };
    let id = |bytes: &[u8]| [&[option::CLIENT_ID, bytes.len() as u8], bytes].concat();
    let with = |id: &[u8]| key(&request(&[REQUEST, id, END]), &config);
    let without = with(&[]);
    assert_eq!(without.client_id_length, 0);
    let ids: Vec<_> =
        [&b"\x01abcdef"[..], b"\x01abcdeg", b"\x01abcdef\0", b"12345678", b"123456789", b"1"].map(id).into();
    for (index, one) in ids.iter().enumerate() {
        assert_eq!(with(one), with(one));
        assert_ne!(with(one), without);
        assert!(ids[..index].iter().all(|other| with(other) != with(one)), "{one:?}");
    }
    let mut other_address = request(&[REQUEST, &ids[0], END]);
    other_address[33] = 2;
    assert_ne!(key(&other_address, &config), with(&ids[0]), "boxes of one image may share an identifier");
    let mut other_address = request(&[REQUEST, END]);
    other_address[33] = 2;
    assert_ne!(key(&other_address, &config), without);
    let mut other_type = request(&[REQUEST, END]);
    other_type[1] = 6;
    assert_ne!(key(&other_type, &config), without);
    assert_ne!(key(&request(&[REQUEST, END]), &Config { seed: 2, ..config }), without);
    let fixed = request_fixed(other_type.as_slice(), &datagram(&other_type)).unwrap();
    let elsewhere = Segment { ifindex: 1, vlan: [5, 0] };
    assert_ne!(exchange_key(elsewhere, &fixed), exchange_key(Segment::default(), &fixed));
}

#[test]
fn replies_are_judged_by_their_message_type() {
    let judge = |options: &[&[u8]]| {
        let message = message(dhcp4::BOOTREPLY, options);
        assert!(reply_fixed(message.as_slice(), &datagram(&message)).is_ok());
        judge_reply(&datagram(&message), &walked(&message))
    };
    for (number, class) in [(2, Class::Offer), (5, Class::Ack), (6, Class::Nak), (1, Class::OtherMessage)] {
        assert_eq!(judge(&[&[option::MESSAGE_TYPE, 1, number], END]), class);
    }
    assert_eq!(judge(&[END]), Class::Bootp);
    assert_eq!(judge(&[&[option::MESSAGE_TYPE, 1, 5], &[1, 9]]), Class::DamagedOptions);
}
