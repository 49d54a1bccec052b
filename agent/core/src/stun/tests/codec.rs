use std::net::SocketAddrV4;

use tr111_common::stun::BindingForm;

use super::vectors::*;
use crate::{identity::tests::bytes, stun::*};

const CRB: Attribute<'_> = Attribute::ConnectionRequestBinding;
const CHANGE: Attribute<'_> = Attribute::BindingChange;
const NAMED: Attribute<'_> = Attribute::Username(Username(USER));

fn build(message_type: MessageType, first: u8, attributes: &[Attribute<'_>]) -> Builder {
    attributes.iter().fold(Builder::new(message_type, id(first)), |builder, &attribute| builder.attribute(attribute))
}

fn request(first: u8, attributes: &[Attribute<'_>]) -> Vec<u8> {
    build(MessageType::BindingRequest, first, attributes).build()
}

fn error(message_type: MessageType, attributes: &[Attribute<'_>]) -> Vec<u8> {
    build(message_type, 1, attributes).build()
}

/// A Binding Request with `attributes`, given in hexadecimal.
fn raw(attributes: &str) -> Vec<u8> {
    let attributes = bytes(attributes);
    let mut message = request(1, &[]);
    message[2..4].copy_from_slice(&(attributes.len() as u16).to_be_bytes());
    message.extend(attributes);
    message
}

fn refused(datagram: &[u8]) -> ParseError {
    Message::parse(datagram).unwrap_err()
}

fn attributes(datagram: &[u8]) -> Vec<Attribute<'_>> {
    Message::parse(datagram).unwrap().attributes().collect()
}

fn success(mapped: u16) -> [Attribute<'static>; 3] {
    let mapped = SocketAddrV4::new(*MAPPED.ip(), mapped);
    [Attribute::MappedAddress(mapped), Attribute::SourceAddress(SERVER), Attribute::ChangedAddress(SERVER)]
}

/// STUN-1, STUN-2, T-36: the requests of a CPE are built byte for byte.
#[test]
fn writes_the_requests_of_a_cpe() {
    assert_eq!(request(1, &[CRB]), bytes(S1));
    assert_eq!(request(1, &[CRB, NAMED]), bytes(S2));
    assert_eq!(request(1, &[CRB, CHANGE, NAMED]), bytes(S3));
    assert_eq!(request(0x21, &[Attribute::ResponseAddress(MAPPED)]), bytes(S9));
    let both = Attribute::ChangeRequest(ChangeRequest { ip: true, port: true });
    assert_eq!(request(1, &[both])[20..], bytes(CHANGE_BOTH));
    // T-37: a USERNAME is padded with spaces, and its length includes them.
    assert_eq!(request(1, &[Attribute::Username(Username(b"CPE5768"))])[20..], bytes(S11));
}

/// T-19: a request is signed with the variant of RFC 3489.
#[test]
fn writes_message_integrity() {
    let signed = build(MessageType::BindingRequest, 0x11, &[CRB, CHANGE, NAMED]).sign(&secret(), Variant::A);
    assert_eq!(signed, bytes(S4));
    let answer = build(MessageType::BindingResponse, 0x11, &success(40001)).sign(&secret(), Variant::A);
    assert_eq!(answer, bytes(S6));
}

/// S5, S7, S8, S10, S12: the answers of a server are built byte for byte.
#[test]
fn writes_the_answers_of_a_server() {
    assert_eq!(build(MessageType::BindingResponse, 1, &success(40001)).build(), bytes(S5));
    let reflected = Attribute::ReflectedFrom(SocketAddrV4::new(*MAPPED.ip(), 40002));
    let probed = build(MessageType::BindingResponse, 0x21, &success(40002)).attribute(reflected).build();
    assert_eq!(probed, bytes(S10));

    let kind = MessageType::BindingErrorResponse;
    assert_eq!(error(kind, &[Attribute::ErrorCode(ErrorCode::UNAUTHORIZED)]), bytes(S7));
    let unknown = Attribute::UnknownAttributes(UnknownAttributes::new(&[0x7777]));
    assert_eq!(error(kind, &[Attribute::ErrorCode(ErrorCode::UNKNOWN_ATTRIBUTE), unknown]), bytes(S8));
    let tls = Attribute::ErrorCode(ErrorCode::USE_TLS);
    assert_eq!(error(MessageType::SharedSecretErrorResponse, &[tls]), bytes(S12));
}

/// STUN-1, STUN-2: the requests of a CPE are parsed.
#[test]
fn reads_the_requests_of_a_cpe() {
    assert_eq!(attributes(&bytes(S1)), [CRB]);
    assert_eq!(attributes(&bytes(S2)), [CRB, NAMED]);
    assert_eq!(attributes(&bytes(S3)), [CRB, CHANGE, NAMED]);
    assert_eq!(attributes(&bytes(S4)), [CRB, CHANGE, NAMED]);
    let datagram = bytes(S4);
    let message = Message::parse(&datagram).unwrap();
    assert_eq!(message.message_type(), MessageType::BindingRequest);
    assert_eq!(message.transaction_id(), id(0x11));
    assert_eq!(message.username().unwrap().trimmed(), USER);
    assert!(message.has_binding_change() && message.is_signed());
}

/// STUN-1: with another text or length it is an unknown optional attribute. NUL instead of the trailing space is
/// accepted and reported.
#[test]
fn takes_only_the_binding_attribute_with_a_blank_or_nul_at_its_end() {
    let exact = "c001001464736c666f72756d2e6f72672f54522d31313120";
    let reads = |hexadecimal: &str| Message::parse(&raw(hexadecimal)).unwrap().has_connection_request_binding();
    assert!(reads(exact));
    let nul = "c001001464736c666f72756d2e6f72672f54522d31313100";
    assert!(reads(nul));
    let form = |hexadecimal: &str| Message::parse(&raw(hexadecimal)).unwrap().binding_form();
    assert_eq!((form(exact), form(nul)), (Some(BindingForm::Exact), Some(BindingForm::Nul)));
    assert_eq!((form("c0010000"), form("80220000")), (Some(BindingForm::Wrong), None));
    let changed = raw(&[nul, "c0020000"].concat());
    assert!(Message::parse(&changed).unwrap().has_binding_change());
    assert!(!reads("c001001364736c666f72756d2e6f72672f54522d31313100"));
    assert!(!reads("c001001464736c666f72756d2e6f72672f54522d31313131"));
    assert!(!reads("c001001064736c666f72756d2e6f72672f54522d"));
    assert!(!reads("c001001864736c666f72756d2e6f72672f54522d3131312000000000"));
    assert!(!reads("c0010000"));
}

/// STUN-2, STUN-3: BINDING-CHANGE has no value, and is ignored without CONNECTION-REQUEST-BINDING.
#[test]
fn takes_a_change_only_with_the_binding_attribute() {
    assert!(Message::parse(&bytes(S3)).unwrap().has_binding_change());
    assert!(!Message::parse(&bytes(S2)).unwrap().has_binding_change());
    assert!(!Message::parse(&raw("c0020000")).unwrap().has_binding_change());
    let valued = raw("c001001464736c666f72756d2e6f72672f54522d31313120c002000400000000");
    assert!(!Message::parse(&valued).unwrap().has_binding_change());
}

/// STUN-4: both attributes are in the range that a server may ignore.
#[test]
fn tells_mandatory_from_optional_attributes() {
    let not_understood = |hexadecimal: &str| Message::parse(&raw(hexadecimal)).unwrap().not_understood().next();
    assert_eq!(not_understood("77770000"), Some(0x7777));
    assert_eq!(not_understood("c0fe0000"), None);
    assert_eq!(not_understood("c001000400000000c002000400000000"), None);
}

/// T-20: SOURCE-ADDRESS, CHANGED-ADDRESS and REFLECTED-FROM are parsed and not required; XOR-MAPPED-ADDRESS is parsed.
#[test]
fn reads_the_answers_of_servers() {
    let datagram = bytes(S10);
    let message = Message::parse(&datagram).unwrap();
    assert_eq!(message.mapped_address().unwrap().port(), 40002);
    assert_eq!(message.source_address(), Some(SERVER));
    assert_eq!(message.changed_address(), Some(SERVER));
    assert_eq!(message.reflected_from().unwrap().port(), 40002);
    assert_eq!(message.not_understood().next(), None);

    let bare = raw("0001000800019c41c6336407");
    assert_eq!(Message::parse(&bare).unwrap().mapped_address(), Some(MAPPED));

    // RFC 5389: the address is XORed with the cookie 0x2112a442, the port 40001 with 0x2112. Drafts: with 0x01020304 of
    // the identifier, and 0x0102.
    for (code, value) in [("0020", "0001bd53e721c045"), ("8020", "00019d43c7316703")] {
        let modern = raw(&format!("{code}0008{value}"));
        let message = Message::parse(&modern).unwrap();
        let found = [message.xor_mapped_address(), message.draft_xor_mapped_address()];
        assert_eq!(found, [(code == "0020").then_some(MAPPED), (code == "8020").then_some(MAPPED)]);
        assert_eq!(message.not_understood().next(), None);
        let sixth = raw(&format!("{code}000800029d43c7316703"));
        assert_eq!(Message::parse(&sixth).unwrap().not_understood().next(), None);
    }
}

/// S7, S8, S12: error codes, padded reason phrases and the list of error 420 are parsed.
#[test]
fn reads_errors() {
    let unauthorized = bytes(S7);
    let message = Message::parse(&unauthorized).unwrap();
    assert_eq!(message.error_code(), Some(ErrorCode::UNAUTHORIZED));
    assert_eq!(message.error_code().unwrap().class(), 4);
    let unknown = bytes(S8);
    let message = Message::parse(&unknown).unwrap();
    assert_eq!(message.error_code().unwrap().code, 420);
    assert_eq!(message.unknown_attributes().unwrap().iter().collect::<Vec<_>>(), [0x7777, 0x7777]);
    let tls = bytes(S12);
    let message = Message::parse(&tls).unwrap();
    assert_eq!(message.message_type(), MessageType::SharedSecretErrorResponse);
    assert_eq!(message.error_code().unwrap().code, 433);
}

/// T-19: of the six digests, those in the set of variants are accepted.
#[test]
fn verifies_the_variants_it_is_told_to() {
    for (letter, digest) in DIGESTS {
        let mut datagram = bytes(S4);
        let end = datagram.len() - 20;
        datagram[end..].copy_from_slice(&bytes(digest));
        let message = Message::parse(&datagram).unwrap();
        let strict = message.verify(&secret(), Variants::STRICT);
        assert_eq!(strict.is_ok(), letter == 'A', "{letter}");
        let field = message.verify(&secret(), Variants::FIELD);
        assert_eq!(field.ok().map(Variant::label), "ABE".contains(letter).then(|| &*letter.to_string().leak()));
        assert_eq!(message.verify(&SharedSecret::new(b"other"), Variants::FIELD), Err(IntegrityError::Mismatch));
    }
    let unsigned = bytes(S3);
    assert_eq!(Message::parse(&unsigned).unwrap().verify(&secret(), Variants::FIELD), Err(IntegrityError::Missing));
}

/// T-19: a server signs with the variant of the request.
#[test]
fn signs_in_every_variant() {
    for (variant, (_, digest)) in [Variant::A, Variant::B, Variant::E].into_iter().zip([0, 1, 4].map(|at| DIGESTS[at]))
    {
        let signed = build(MessageType::BindingRequest, 0x11, &[CRB, CHANGE, NAMED]).sign(&secret(), variant);
        assert_eq!(signed[signed.len() - 20..], bytes(digest));
    }
    assert_eq!("A, b".parse::<Variants>().unwrap().to_string(), "A,B");
    assert_eq!("A,B,E".parse(), Ok(Variants::FIELD));
    assert_eq!("C".parse::<Variants>(), Err(super::super::integrity::NotVariants));
    assert!("".parse::<Variants>().is_err());
}

/// T-19: a change of any covered byte makes the signature invalid, a change after it does not.
#[test]
fn refuses_what_was_changed_under_the_signature() {
    let signed = bytes(S4);
    for at in (0..2).chain(4..signed.len()) {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        if let Ok(message) = Message::parse(&changed) {
            assert!(message.verify(&secret(), Variants::FIELD).is_err(), "byte {at}");
        }
    }
    let mut behind = signed.clone();
    behind[3] += 8;
    behind.extend(bytes("7777000400000000"));
    let message = Message::parse(&behind).unwrap();
    assert_eq!(message.not_understood().next(), None);
    assert!(message.verify(&secret(), Variants::STRICT).is_ok());
    // Even a malformed attribute after the signature is ignored.
    behind[66 + 20] = 0xff;
    assert!(Message::parse(&behind).is_ok());
}

/// STUN-1: the errors of malformed messages have offset, declared length and remaining length.
#[test]
fn says_where_a_message_is_damaged() {
    let datagram = bytes(S2);
    for length in 0..datagram.len() {
        let error = refused(&datagram[..length]);
        let expected = match length {
            0..20 => ParseError::Truncated { length },
            _ => ParseError::Length { declared: 36, remaining: length - 20 },
        };
        assert_eq!(error, expected);
    }
    assert_eq!(refused(&raw("0006000c43504535")), ParseError::Overrun { offset: 20, declared: 12, remaining: 4 });
    assert_eq!(refused(&raw("c00200000006")), ParseError::Overrun { offset: 24, declared: 0, remaining: 2 });
    let form = |code, declared, remaining| ParseError::Form { offset: 20, code, declared, remaining };
    assert_eq!(refused(&raw("0001000400019c41")), form(1, 4, 4));
    assert_eq!(refused(&raw("00080004aabbccdd")), form(8, 4, 4));
    assert_eq!(refused(&raw("0003000000060000")), form(3, 0, 4));
    assert_eq!(refused(&raw("00090002000400000000")), form(9, 2, 6));
    assert_eq!(refused(&raw("000100080002000000000000")), ParseError::Family { offset: 20, family: 2 });
    assert_eq!(refused(&raw("0009000400000764")), ParseError::ErrorNumber { offset: 20, class: 7, number: 100 });
    assert_eq!(refused(&raw("0009000400000464")).label(), "bad_error_code");
    let mut other = datagram.clone();
    other[1] = 3;
    assert_eq!(refused(&other), ParseError::UnknownType(3));
    // An indication of RFC 5389 is not a message of RFC 3489 (T-63).
    other[..2].copy_from_slice(&[0x00, 0x11]);
    assert_eq!(refused(&other).label(), "unknown_type");
}

/// T-37: padding after the length, as in RFC 5389, is accepted if parsing according to RFC 3489 fails.
#[test]
fn reads_padding_behind_the_length() {
    let padded = raw("000600074350453537363800c001001464736c666f72756d2e6f72672f54522d31313120");
    assert_eq!(attributes(&padded), [Attribute::Username(Username(b"CPE5768")), CRB]);
    let exact = raw("0006000743504535373638c001001464736c666f72756d2e6f72672f54522d31313120");
    assert_eq!(attributes(&exact), [Attribute::Username(Username(b"CPE5768")), CRB]);
    assert_eq!(Username(b"CPE5768 \0").trimmed(), b"CPE5768");
    assert_eq!(Username(b"  ").trimmed(), b"");
    assert_eq!(Username(b"CPE5768 \0\0").without_nuls(), b"CPE5768 ");
    assert_eq!(Username(b"\0CPE\0x\0").without_nuls(), b"\0CPE\0x");
}

/// STUN-11: a Binding Request of RFC 5389 is parsed; its cookie is part of the identifier.
#[test]
fn reads_a_request_of_rfc_5389() {
    let modern = bytes("000100082112a4420102030405060708090a0b0c80280004deadbeef");
    let message = Message::parse(&modern).unwrap();
    assert_eq!(message.transaction_id().0[..4], [0x21, 0x12, 0xa4, 0x42]);
    assert_eq!(message.not_understood().next(), None);
}
