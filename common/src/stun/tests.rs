//! Datagrams on the STUN port, as the programs see them.

extern crate std;

use std::{vec, vec::Vec};

use super::*;
use crate::frame::PlainLoop;

const CRB: &[u8] = b"\xc0\x01\0\x14dslforum.org/TR-111 ";
const CHANGE: &[u8] = &[0xc0, 2, 0, 0];
const USERNAME: &[u8] = b"\0\x06\0\x08CPE57689";
const INTEGRITY: &[u8] = b"\0\x08\0\x1401234567890123456789";
const LISTENS: Binding = Binding { connection_request: true, change: false, signed: false };

/// Headers of the lower layers in front, and bytes of the link behind.
const BEFORE: usize = 42;
const BEHIND: usize = 6;

fn message(message_type: u16, attributes: &[&[u8]]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut message = message_type.to_be_bytes().to_vec();
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend(1..=16);
    message.extend(attributes);
    message
}

fn udp(payload: &[u8]) -> Udp {
    let (payload, end) = (BEFORE as u32, (BEFORE + payload.len()) as u32);
    Udp { vlan: [0; 2], ip: 14, payload, end, source_port: 7547, destination_port: PORT, fragment: false }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0xaa; BEFORE], payload, &[0xbb; BEHIND]].concat()
}

fn find(payload: &[u8]) -> Option<Binding> {
    Binding::find(frame(payload).as_slice(), &udp(payload), PlainLoop)
}

fn request(attributes: &[&[u8]]) -> Option<Binding> {
    find(&message(message::BINDING_REQUEST, attributes))
}

/// STUN-1, STUN-5: the attribute is found wherever it stands.
#[test]
fn finds_the_binding_attribute() {
    assert_eq!(request(&[CRB]), Some(LISTENS));
    assert_eq!(request(&[CRB, USERNAME]), Some(LISTENS));
    assert_eq!(request(&[USERNAME, CRB]), Some(LISTENS));
    assert_eq!(request(&[CRB, CHANGE, USERNAME]), Some(Binding { change: true, ..LISTENS }));
    assert_eq!(request(&[CRB, USERNAME, INTEGRITY]), Some(Binding { signed: true, ..LISTENS }));
    assert_eq!(CRB[4..], CONNECTION_REQUEST_BINDING);
}

/// STUN-1, STUN-2: another value or another length is another attribute.
#[test]
fn takes_only_the_exact_values() {
    assert_eq!(request(&[]), Some(Binding::default()));
    assert_eq!(request(&[USERNAME]), Some(Binding::default()));
    for at in 4..CRB.len() {
        let mut other = CRB.to_vec();
        other[at] ^= 0x20;
        assert_eq!(request(&[&other]), Some(Binding::default()), "{at}");
    }
    assert_eq!(request(&[b"\xc0\x01\0\x18dslforum.org/TR-111     "]), Some(Binding::default()));
    assert_eq!(request(&[b"\xc0\x02\0\x04\0\0\0\0"]), Some(Binding::default()));
}

/// STUN-5: what stands behind MESSAGE-INTEGRITY is not looked at, and what stands in another value neither.
#[test]
fn looks_only_where_attributes_are() {
    let signed = Some(Binding { signed: true, ..Binding::default() });
    assert_eq!(request(&[INTEGRITY, CRB]), signed);
    assert_eq!(request(&[INTEGRITY, &[0xff; 3]]), signed);
    assert_eq!(request(&[b"\0\x06\0\x18", CRB]), Some(Binding::default()));
}

/// T-37: names that are padded behind their length hide nothing.
#[test]
fn reads_padding_behind_the_length() {
    assert_eq!(request(&[b"\0\x06\0\x07CPE5768\0", CRB]), Some(LISTENS));
    assert_eq!(request(&[b"\0\x06\0\x07CPE5768", CRB]), Some(LISTENS));
}

/// T-63: first byte and length tell STUN from everything else.
#[test]
fn knows_stun_by_first_byte_and_length() {
    let whole = message(message::BINDING_REQUEST, &[CRB, USERNAME]);
    let load = |payload: &[u8]| Header::load(frame(payload).as_slice(), &udp(payload));
    let header = load(&whole).unwrap();
    assert_eq!(header.message_type, message::BINDING_REQUEST);
    assert_eq!(header.transaction_id[..], (1..=16).collect::<Vec<u8>>());
    let answer = message(message::BINDING_RESPONSE, &[]);
    assert_eq!(load(&answer).unwrap().message_type, message::BINDING_RESPONSE);
    assert_eq!(find(&answer), None);
    for length in 0..whole.len() {
        assert_eq!(load(&whole[..length]), None, "{length}");
    }
    assert_eq!(load(&[&whole[..], &[0; 4]].concat()), None);
    for first in [2, 0x40, b'G'] {
        let mut other = whole.clone();
        other[0] = first;
        assert_eq!(load(&other), None);
    }
    let fragment = Udp { fragment: true, ..udp(&whole) };
    assert_eq!(Header::load(frame(&whole).as_slice(), &fragment), None);
}

/// STUN-5: a damaged message is not recognised, and a frame that is shorter than its headers say is no matter.
#[test]
fn leaves_damaged_messages_alone() {
    assert_eq!(request(&[CRB, b"\0\x06\0\x0cCPE57689"]), None);
    assert_eq!(request(&[CRB, b"\0\x06"]), None);
    assert_eq!(request(&[b"\xc0\x01\0\x14dslforum.org"]), None);
    let whole = message(message::BINDING_REQUEST, &[CRB, USERNAME]);
    let frame = frame(&whole);
    for length in 0..BEFORE + whole.len() - USERNAME.len() {
        assert_eq!(Binding::find(&frame[..length], &udp(&whole), PlainLoop), None, "{length}");
    }
}

/// STUN-5: the walk is bounded: a message with more attributes than any CPE sends is left alone.
#[test]
fn the_walk_is_bounded() {
    let attributes = |count: usize| [vec![CHANGE; count - 1], vec![CRB]].concat();
    let most = ATTRIBUTES_MAXIMUM as usize;
    assert_eq!(request(&attributes(most)), Some(Binding { change: true, ..LISTENS }));
    assert_eq!(request(&attributes(most + 1)), None);
}
