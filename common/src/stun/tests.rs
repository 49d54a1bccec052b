//! Tests of the signals that an observer reads from Binding Requests.

extern crate std;

use std::vec::Vec;

use super::*;
use crate::frame::PlainLoop;

/// A Binding Request with these attributes, given as type and value.
fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = Vec::from(message::BINDING_REQUEST.to_be_bytes());
    message.extend((body.len() as u16).to_be_bytes());
    message.extend([7; 16]);
    message.extend(body);
    message
}

fn signals(message: &[u8]) -> Option<Signals> {
    let mut demands = Demands::default();
    demands.read_leniently(message, 0, message.len() as u32, PlainLoop).then_some(demands.signals)
}

fn read(message: &[u8]) -> Option<(bool, bool)> {
    let signals = signals(message)?;
    Some((signals.connection_request_binding, signals.binding_change))
}

const CRB: (u16, &[u8]) = (attribute::CONNECTION_REQUEST_BINDING, &CONNECTION_REQUEST_BINDING);
const CHANGE: (u16, &[u8]) = (attribute::BINDING_CHANGE, &[]);

/// STUN-1, STUN-2, STUN-5: the attributes of TR-111 Table 5 are read in any position.
#[test]
fn reads_binding_and_change() {
    assert_eq!(read(&request(&[])), Some((false, false)));
    assert_eq!(read(&request(&[CRB])), Some((true, false)));
    assert_eq!(read(&request(&[CRB, CHANGE])), Some((true, true)));
    assert_eq!(read(&request(&[CHANGE, (attribute::USERNAME, b"CPE57689"), CRB])), Some((true, true)));
    assert_eq!(read(&request(&[(0x8022, b"abc"), CRB])), Some((true, false)));
}

/// STUN-1: another value or length makes another attribute.
#[test]
fn refuses_values_that_are_nearly_right() {
    for value in
        [&b"dslforum.org/TR-111"[..], b"dslforum.org/TR-111  ", b"dslforum.org/TR-112 ", b"Dslforum.org/TR-111 "]
    {
        assert_eq!(read(&request(&[(attribute::CONNECTION_REQUEST_BINDING, value)])), Some((false, false)));
    }
    for place in 0..20 {
        let mut value = CONNECTION_REQUEST_BINDING;
        value[place] ^= 1;
        assert_eq!(read(&request(&[(attribute::CONNECTION_REQUEST_BINDING, &value)])), Some((false, false)));
    }
}

/// The form that is read from a request with these values of CONNECTION-REQUEST-BINDING.
fn form(values: &[&[u8]]) -> Option<BindingForm> {
    let attributes: Vec<_> = values.iter().map(|value| (attribute::CONNECTION_REQUEST_BINDING, *value)).collect();
    signals(&request(&attributes)).expect("a Binding Request").binding_form()
}

/// STUN-1: NUL instead of the trailing space is accepted and reported; another text or length is ignored, also beside a
/// valid attribute.
#[test]
fn tells_the_forms_of_the_attribute_apart() {
    const NUL: &[u8] = &CONNECTION_REQUEST_BINDING_NUL;
    const EXACT: &[u8] = &CONNECTION_REQUEST_BINDING;
    assert_eq!(form(&[]), None);
    assert_eq!(form(&[EXACT]), Some(BindingForm::Exact));
    assert_eq!(form(&[NUL]), Some(BindingForm::Nul));
    for wrong in [
        &b"dslforum.org/TR-111"[..],
        b"dslforum.org/TR-111\0\0\0\0\0",
        b"dslforum.org/TR-11\0\0",
        b"dslforum.org/TR-111\t",
        b"dslforum.org/TR-112\0",
        b"Dslforum.org/TR-111\0",
        b"",
    ] {
        assert_eq!(form(&[wrong]), Some(BindingForm::Wrong), "{wrong:?}");
        assert_eq!(form(&[EXACT, wrong]), Some(BindingForm::Exact), "{wrong:?}");
        assert_eq!(form(&[wrong, NUL]), Some(BindingForm::Nul), "{wrong:?}");
    }
    assert_eq!(form(&[NUL, EXACT]), Some(BindingForm::Nul));
    let changed = request(&[(attribute::CONNECTION_REQUEST_BINDING, NUL), CHANGE]);
    assert_eq!(read(&changed), Some((true, true)));
}

/// T-37: if the attribute ends in NUL, NULs after the name are padding, as spaces are; inside the name, and with the
/// exact attribute, they are part of the name.
#[test]
fn nuls_are_padding_where_the_attribute_ends_with_one() {
    const SEED: u64 = 7;
    let hash_in = |value: &[u8], name: &[u8]| {
        let message = request(&[(attribute::CONNECTION_REQUEST_BINDING, value), (attribute::USERNAME, name)]);
        let mut demands = Demands::default();
        assert!(demands.read(message.as_slice(), 0, message.len() as u32, PlainLoop));
        demands.username_hash(message.as_slice(), SEED, PlainLoop)
    };
    let nul = |name: &[u8]| hash_in(&CONNECTION_REQUEST_BINDING_NUL, name);
    let exact = |name: &[u8]| hash_in(&CONNECTION_REQUEST_BINDING, name);
    let padded = |name: &[u8], length| {
        let mut padded = Vec::from(name);
        padded.resize(length, 0);
        padded
    };
    for (name, as_blanks) in [
        (&b"C"[..], &b"C   "[..]),
        (b"CP", b"CP  "),
        (b"CPE", b"CPE "),
        (b"CPE5", b"CPE5"),
        (b"CPE57689", b"CPE57689"),
        (b"CPE\0x", b"CPE\0x   "),
        (b"CPE\0\0\0\0\0x", b"CPE\0\0\0\0\0x   "),
        (&[b'x'; 32], &[b'x'; 32]),
    ] {
        let expected = exact(as_blanks);
        assert_eq!(nul(as_blanks), expected, "{name:?}");
        for length in [name.len().next_multiple_of(4), 32, 256] {
            assert_eq!(nul(&padded(name, length)), expected, "{name:?} in {length} bytes");
        }
        assert_ne!(exact(&padded(name, 36)), expected, "{name:?}");
        assert_ne!(nul(&padded(name, 260)), expected, "{name:?}: longer than any STUNUsername");
    }
    assert_ne!(nul(b"CPE\0x\0\0\0"), nul(b"CPE x\0\0\0"));
    assert_eq!(nul(&[0; 32]), nul(b""));
}

/// STUN-3: BINDING-CHANGE without CONNECTION-REQUEST-BINDING is ignored; with a value it is another attribute.
#[test]
fn a_change_alone_is_no_signal() {
    assert_eq!(read(&request(&[CHANGE])), Some((false, false)));
    assert_eq!(read(&request(&[CRB, (attribute::BINDING_CHANGE, &[0; 4])])), Some((true, false)));
}

/// RFC 3489 11.2.8: attributes after MESSAGE-INTEGRITY are not read.
#[test]
fn stops_at_the_signature() {
    assert_eq!(read(&request(&[(attribute::MESSAGE_INTEGRITY, &[0; 20]), CRB])), Some((false, false)));
    assert_eq!(read(&request(&[CRB, (attribute::MESSAGE_INTEGRITY, &[0; 20]), CHANGE])), Some((true, false)));
}

/// STUN-4: other messages and messages with wrong lengths are not Binding Requests.
#[test]
fn other_messages_are_none() {
    let good = request(&[CRB]);
    let mut other = good.clone();
    other[1] = 2;
    assert_eq!(read(&other), None);
    let mut long = good.clone();
    long[3] += 4;
    assert_eq!(read(&long), None);
    assert_eq!(read(&good[..good.len() - 1]), None);
    assert_eq!(read(&good[..19]), None);
    assert_eq!(read(b""), None);
}

/// T-37: an attribute of RFC 3489 may have any length, and all its bytes belong to the value.
#[test]
fn reads_lengths_that_count_no_padding() {
    let mut message = request(&[]);
    message.extend([0x00, 0x06, 0x00, 0x03]);
    message.extend(b"CPE");
    message.extend([0xc0, 0x01, 0x00, 0x14]);
    message.extend(CONNECTION_REQUEST_BINDING);
    message[3] = (message.len() - HEADER) as u8;
    assert_eq!(read(&message), Some((true, false)));
}

#[test]
fn an_attribute_past_the_end_is_damage() {
    let mut message = request(&[CRB, (attribute::USERNAME, b"CPE57689")]);
    let at = HEADER + ATTRIBUTE_HEADER + 20 + 3;
    message[at] += 1;
    assert!(signals(&message).expect("a Binding Request").damaged);
}
