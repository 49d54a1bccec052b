//! Answers of the STUN server to the test vectors and to variations of them.

use std::net::{Ipv4Addr, SocketAddrV4};

use tr111_common::stun::{BindingForm, attribute};

use super::lab::*;
use crate::{
    acs::{Challenge, Ends, First, Judged, Learned, ResponseAddress, Settings, SourceLimit, State, Verdict},
    identity::tests::bytes,
    stun::{Attribute, Builder, ChangeRequest, Message, MessageType, SharedSecret, Username, Variant, Variants},
};

fn plain() -> Builder {
    Builder::new(MessageType::BindingRequest, id(1))
}

fn unknown(types: &[u16]) -> Vec<u8> {
    let with = |builder: Builder, &code: &u16| builder.attribute(Attribute::Other { code, value: &[1, 2, 3, 4] });
    types.iter().fold(plain(), with).build()
}

/// STUN-11, STUN-15, STUN-29: a plain request gets MAPPED-, SOURCE- and CHANGED-ADDRESS, and nothing else.
#[test]
fn answers_a_plain_request() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask(&plain().build()).sent, Some((MAPPED, bytes(S5))));
    assert_eq!(lab.told(S1), Some(bytes(S5)));
    assert_eq!(lab.told(S2), Some(bytes(S5)));
}

/// STUN-11: unknown mandatory attributes are listed in an error 420, each type once; unknown optional ones are ignored.
#[test]
fn lists_what_it_does_not_understand() {
    let mut lab = Lab::new();
    assert_eq!(lab.ask(&unknown(&[0x7777])).sent, Some((MAPPED, bytes(S8))));
    for (types, listed) in [
        (&[0x7777, 0x7778][..], &[0x7777, 0x7778][..]),
        (&[0x7777, 0x7777, 0x7778], &[0x7777, 0x7778]),
        (&[0x7777, 0xc0fe, 0x0077, 0x7778], &[0x7777, 0x0077, 0x7778, 0x7778]),
    ] {
        let answer = lab.ask(&unknown(types));
        assert_eq!(answer.verdict, Verdict::UnknownAttribute);
        let (_, answer) = answer.sent.expect("an error");
        let message = Message::parse(&answer).expect("whole");
        assert_eq!(message.unknown_attributes().expect("the list").iter().collect::<Vec<_>>(), listed);
        assert_eq!(message.transaction_id(), id(1));
    }
    assert_eq!(lab.ask(&unknown(&[0xc0fe])).sent, Some((MAPPED, bytes(S5))));
    // FINGERPRINT, which newer clients send.
    assert_eq!(lab.ask(&unknown(&[0x8028])).sent, Some((MAPPED, bytes(S5))));
    // MAPPED-ADDRESS is not defined for requests.
    let odd = plain().attribute(Attribute::MappedAddress(SERVER)).build();
    assert_eq!(lab.ask(&odd).sent, Some((MAPPED, bytes(S5))));
}

/// While the registry is unavailable, a request that names a CPE gets no answer, because a 430 would tell the CPE that
/// it is unknown. Other requests are answered.
#[test]
fn ignores_who_names_a_cpe_while_no_cpe_can_be_read() {
    let mut lab = Lab::with(Settings { is_registry_readable: false, ..Settings::default() });
    let named = plain().attribute(Attribute::Username(Username(USER))).build();
    for request in [bytes(S2), bytes(S3), bytes(S4), named] {
        let answer = lab.ask(&request);
        assert_eq!((answer.verdict, answer.sent), (Verdict::Unreadable, None));
    }
    assert_eq!(lab.told(S1), Some(bytes(S5)));
    let unnamed = lab.ask(&plain().sign(&secret(), Variant::A));
    assert_eq!(unnamed.verdict, Verdict::MissingUsername);
}

/// STUN-1, STUN-4: a request of RFC 5389 is handled like one of RFC 3489 whose transaction identifier begins with the
/// magic cookie.
#[test]
fn answers_newer_clients_like_older_ones() {
    let mut request = plain().build();
    request[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    let (_, answer) = Lab::new().ask(&request).sent.expect("an answer");
    assert_eq!(answer[4..20], request[4..20]);
    assert_eq!(answer[20..], bytes(S5)[20..]);
}

/// STUN-14, STUN-16: with one address and one port, CHANGE-REQUEST is ignored.
#[test]
fn ignores_change_request() {
    let mut lab = Lab::new();
    for (ip, port) in [(false, false), (false, true), (true, false), (true, true)] {
        let request = plain().attribute(Attribute::ChangeRequest(ChangeRequest { ip, port })).build();
        if ip && port {
            assert_eq!(request[20..], bytes(CHANGE_BOTH));
        }
        assert_eq!(lab.ask(&request).sent, Some((MAPPED, bytes(S5))));
    }
}

/// SEC-7, STUN-11: an answer is sent to another port of the sender if it asks for that, with REFLECTED-FROM. It is sent
/// to another address only if the operator allows it.
#[test]
fn sends_answers_only_to_who_asked() {
    let own = bytes(S9);
    let reflected = Some((MAPPED, bytes(S10)));
    let foreign = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 8), 53);
    let to_foreign = plain().attribute(Attribute::ResponseAddress(foreign)).build();
    for (response_address, is_own_heeded, is_foreign_heeded) in
        [(ResponseAddress::Own, true, false), (ResponseAddress::Any, true, true), (ResponseAddress::Off, false, false)]
    {
        let mut lab = Lab::with(Settings { response_address, ..Settings::default() });
        let sent = lab.ask_from(moved(40_002), &own).sent;
        if is_own_heeded {
            assert_eq!(sent, reflected);
        } else {
            let (to, answer) = sent.expect("an answer");
            assert_eq!((to, answer.len()), (moved(40_002), 56));
        }
        let (to, answer) = lab.ask(&to_foreign).sent.expect("an answer");
        let message = Message::parse(&answer).expect("whole");
        let wanted = if is_foreign_heeded { (foreign, Some(MAPPED)) } else { (MAPPED, None) };
        assert_eq!((to, message.reflected_from()), wanted);
    }
    let nowhere = plain().attribute(Attribute::ResponseAddress(moved(0))).build();
    assert_eq!(Lab::new().ask(&nowhere).sent, Some((MAPPED, bytes(S5))));
    // An error is sent to the source of the request, whatever RESPONSE-ADDRESS says.
    let wrong = plain()
        .attribute(Attribute::ResponseAddress(moved(9)))
        .attribute(Attribute::Other { code: 0x7777, value: &[] })
        .build();
    assert_eq!(Lab::new().ask(&wrong).sent.expect("an error").0, MAPPED);
}

/// STUN-1, T-37: a device that ends the attribute in NUL and pads its name with NULs is recognised by its name. The
/// signature covers the received bytes, so a copy with other padding is neither authentic nor another request.
#[test]
fn knows_who_pads_with_nuls() {
    let mut lab = Lab::new();
    let mut field = [0; 32];
    field[..USER.len()].copy_from_slice(USER);
    let padded = |first| {
        Builder::new(MessageType::BindingRequest, id(first))
            .attribute(Attribute::ConnectionRequestBindingNul)
            .attribute(Attribute::Username(Username(&field)))
    };
    let heard = lab.ask(&padded(1).build());
    assert_eq!((heard.verdict, heard.sent), (Verdict::Answered, Some((MAPPED, bytes(S5)))));
    assert_eq!(heard.learned, Some(Learned::Tentative { number: 0 }));
    let signed = padded(2).sign(&secret(), Variant::A);
    let mut shorter = padded(2).build();
    let digest = signed[signed.len() - 24..].to_vec();
    shorter.truncate(shorter.len() - 4);
    shorter[3] -= 4;
    shorter[20 + 24 + 3] -= 4;
    let mut forged = shorter;
    forged.extend(digest);
    forged[3] += 24;
    assert_eq!(lab.ask(&forged).verdict, Verdict::IntegrityCheckFailure);
    let answer = lab.ask(&signed);
    assert_eq!(answer.learned, Some(Learned::Authenticated { number: 0, is_new: true }));
    assert!(Message::parse(&answer.sent.expect("an answer").1).expect("whole").is_signed());
    assert_eq!(lab.ask_from(moved(40_002), &signed).verdict, Verdict::Replayed);
}

/// STUN-1: each request is counted by the form of CONNECTION-REQUEST-BINDING, whether the registry is needed or not;
/// with another text or length it counts as a request without the attribute.
#[test]
fn says_how_the_attribute_is_written() {
    let code = attribute::CONNECTION_REQUEST_BINDING;
    let named = Attribute::Username(Username(USER));
    let wrong = |value| Attribute::Other { code, value };
    for (attributes, form, is_pending) in [
        (&[][..], None, false),
        (&[named], None, false),
        (&[Attribute::ConnectionRequestBinding], Some(BindingForm::Exact), false),
        (&[Attribute::ConnectionRequestBinding, named], Some(BindingForm::Exact), true),
        (&[Attribute::ConnectionRequestBindingNul], Some(BindingForm::Nul), false),
        (&[Attribute::ConnectionRequestBindingNul, named], Some(BindingForm::Nul), true),
        (&[wrong(b"dslforum.org/TR-112 "), named], Some(BindingForm::Wrong), false),
        (&[wrong(b"dslforum.org/TR-111\0\0\0\0\0"), named], Some(BindingForm::Wrong), false),
        (&[wrong(b""), Attribute::ConnectionRequestBinding, named], Some(BindingForm::Exact), true),
    ] {
        let request = attributes.iter().fold(plain(), |request, attribute| request.attribute(*attribute)).build();
        let mut answer = Vec::new();
        let ends = Ends { source: MAPPED, server: SERVER };
        let mut lab = Lab::new();
        let (outcome, was_pending) = match lab.server.settings().judge(ends, &request, &mut answer) {
            First::Settled(outcome) => (outcome, false),
            First::Pending(request) => match lab.server.judge(lab.now, &request, None, &mut answer) {
                Judged::Settled(outcome) => (outcome, true),
                Judged::Accepted(accepted) => panic!("{accepted:?}"),
            },
        };
        assert_eq!((outcome.binding, was_pending), (form, is_pending), "{attributes:?}");
        assert_eq!(answer, bytes(S5), "{attributes:?}");
    }
}

/// STUN-24, STUN-25, STUN-13: USERNAME, credentials and signature are checked in this order; a failure records nothing.
#[test]
fn judges_signatures_in_order() {
    let mut lab = Lab::new();
    let error = |lab: &mut Lab, datagram: &[u8]| {
        let (_, answer) = lab.ask(datagram).sent.expect("an answer");
        let message = Message::parse(&answer).expect("whole");
        (message.error_code().map(|error| error.code), message.is_signed())
    };
    let unknown = Attribute::Other { code: 0x7777, value: &[] };
    let nobody = Attribute::Username(Username(b"CPE00000"));
    let guess = SharedSecret::new(b"guess");
    let nameless = plain().attribute(unknown).sign(&secret(), Variant::A);
    assert_eq!(error(&mut lab, &nameless), (Some(432), false));
    let stranger = plain().attribute(nobody).attribute(unknown).sign(&secret(), Variant::A);
    assert_eq!(error(&mut lab, &stranger), (Some(430), false));
    let guessed = change(1).attribute(unknown).sign(&guess, Variant::A);
    assert_eq!(error(&mut lab, &guessed), (Some(431), false));
    let too_new = change(1).attribute(unknown).sign(&secret(), Variant::A);
    assert_eq!(error(&mut lab, &too_new), (Some(420), false));
    assert_eq!(lab.state(), &State::default());

    assert_eq!(lab.ask(&bytes(S4)).sent, Some((MAPPED, bytes(S6))));
    // Attributes after MESSAGE-INTEGRITY are ignored.
    let mut more = signed(21);
    more.extend([0x77, 0x77, 0, 0]);
    let length = (more.len() - 20) as u16;
    more[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(error(&mut lab, &more), (None, true));
    let exact = Builder::new(MessageType::BindingRequest, id(31)).attribute(Attribute::Username(Username(USER)));
    let (_, answer) = lab.ask(&exact.sign(&secret(), Variant::A)).sent.expect("an answer");
    let answer = Message::parse(&answer).expect("whole");
    assert_eq!(answer.verify(&secret(), Variants::STRICT), Ok(Variant::A));
}

/// T-19: the answer is signed with the variant of the request, if that variant is accepted.
#[test]
fn signs_as_the_request_was_signed() {
    for variant in [Variant::A, Variant::B, Variant::E] {
        let request = change(11).sign(&secret(), variant);
        let (_, answer) = Lab::new().ask(&request).sent.expect("an answer");
        let answer = Message::parse(&answer).expect("whole");
        assert_eq!(answer.verify(&secret(), Variants::FIELD), Ok(variant));

        let mut strict = Lab::with(Settings { variants: Variants::STRICT, ..Settings::default() });
        let verdict = if variant == Variant::A { Verdict::Authenticated } else { Verdict::IntegrityCheckFailure };
        assert_eq!(strict.ask(&request).verdict, verdict);
    }
    for (variant, digest) in DIGESTS {
        let mut request = bytes(S4);
        let at = request.len() - 20;
        request[at..].copy_from_slice(&bytes(digest));
        let is_known = "ABE".contains(variant);
        assert_eq!(Lab::new().ask(&request).verdict == Verdict::Authenticated, is_known, "{variant}");
    }
}

/// STUN-12, T-63: Shared Secret Requests are refused over UDP, and messages that are not requests get no answer.
#[test]
fn answers_nothing_but_requests() {
    let mut lab = Lab::new();
    let shared = Builder::new(MessageType::SharedSecretRequest, id(1)).build();
    let answer = lab.ask(&shared);
    assert_eq!((answer.verdict, answer.sent), (Verdict::UseTls, Some((MAPPED, bytes(S12)))));
    for response in [S5, S7, S12] {
        let answer = lab.ask(&bytes(response));
        assert_eq!((answer.verdict, answer.sent), (Verdict::NotARequest, None));
    }
    let mut long = bytes(S1);
    long.push(0);
    let mut channel = bytes(S1);
    channel[0] = 0x40;
    for other in [&bytes(S1)[..19], &long, &channel, b"GET http://198.51.100.7 HTTP/1.1\r\n\r\n", b""] {
        let answer = lab.ask(other);
        assert_eq!((answer.verdict, answer.sent), (Verdict::NotStun, None));
    }
    let answer = lab.ask_from(moved(0), &bytes(S1));
    assert_eq!((answer.verdict, answer.sent), (Verdict::BadSource, None));
}

/// STUN-11: attributes that do not end at the end of the message lead to an error 400 with the request's identifier.
#[test]
fn refuses_damaged_attributes() {
    let mut lab = Lab::new();
    let mut overrun = bytes(S1);
    overrun[23] = 0xff;
    let short_address = plain().attribute(Attribute::Other { code: 0x0002, value: &[0, 1, 0, 80] }).build();
    for damaged in [overrun, short_address] {
        let (to, answer) = lab.ask(&damaged).sent.expect("an error");
        let message = Message::parse(&answer).expect("whole");
        assert_eq!((to, message.error_code().map(|error| error.code)), (MAPPED, Some(400)));
        assert_eq!((message.transaction_id(), message.message_type()), (id(1), MessageType::BindingErrorResponse));
    }
}

/// STUN-17: an operator may require every request to be signed.
#[test]
fn may_have_every_request_signed() {
    let mut lab = Lab::with(Settings { challenge: Challenge::All, ..Settings::default() });
    for request in [plain().build(), bytes(S1), bytes(S2)] {
        assert_eq!(lab.ask(&request).sent, Some((MAPPED, bytes(S7))));
    }
    assert_eq!(lab.ask(&bytes(S4)).sent, Some((MAPPED, bytes(S6))));
}

/// SEC-7: a source that sends too much is heard only where its CPE is known to be, and that CPE within a limit of its own.
#[test]
fn hears_known_cpes_from_sources_that_send_too_much() {
    let (mut lab, mut limit) = (Lab::new(), SourceLimit::new(7, 10));
    let limited = lab.ask_limited(MAPPED, &bytes(S2), Some(&mut limit));
    assert_eq!((limited.verdict, limited.sent), (Verdict::Limited, None));
    lab.ask(&bytes(S4));
    assert_eq!(lab.ask_limited(MAPPED, &bytes(S2), Some(&mut limit)).verdict, Verdict::Answered);
    assert_eq!(lab.ask_limited(moved(7), &signed(41), Some(&mut limit)).verdict, Verdict::Authenticated);
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7);
    assert_eq!(lab.ask_limited(elsewhere, &signed(51), Some(&mut limit)).verdict, Verdict::Limited);

    // Whoever spoofs the address of a known CPE, or that CPE itself, floods in vain.
    let mut flood =
        || (0..1_000).filter(|_| lab.ask_limited(MAPPED, &bytes(S2), Some(&mut limit)).sent.is_some()).count();
    assert_eq!(flood(), 18, "twenty at once, without those before");
    let mut free = SourceLimit::new(7, 0);
    assert!((0..1_000).all(|_| lab.ask_limited(MAPPED, &bytes(S2), Some(&mut free)).sent.is_some()));
}
