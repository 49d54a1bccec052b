use super::vectors::*;
use crate::{connreq::*, secret::SharedSecret, time::UnixTime};

const STALE: Result<AuthenticRequest, Refusal> = Err(Refusal::StaleTimestamp);

fn malformed(from: &str, to: &str) {
    let refused = changed(from, to).unwrap_err();
    assert!(matches!(refused, Refusal::Malformed { offset, length } if offset <= length), "{to:?}: {refused}");
}

/// UCR-3, UCR-13: U1 is accepted, and its signature may be in lower case.
#[test]
fn accepts_a_genuine_request() {
    let mut listener = listener();
    let accepted = receive(&mut listener, U1).unwrap();
    assert_eq!((accepted.timestamp(), accepted.id()), (1_700_000_000, 1234));
    assert_eq!(listener.last_accepted(), LastAccepted { timestamp: 1_700_000_000, milliseconds: 0, id: Some(1234) });
    let signature = "A326A08B40711E38DE468EF86B9C21B0B3C3EAAC";
    assert!(changed(signature, &signature.to_lowercase()).is_ok());
}

/// T-22: the example of TR-111 is parsed, and is authentic under no password we have.
#[test]
fn parses_the_example_of_the_specification() {
    let datagram = format!("GET {SPEC} HTTP/1.1\r\nHost: 10.1.1.1:8080\r\n\r\n");
    let parsed = Datagram(datagram.as_bytes()).parse(Settings::default()).unwrap();
    assert_eq!((parsed.timestamp().value, parsed.id().digits), (1_120_673_700, &b"1234"[..]));
    assert_eq!((parsed.username().wire(), parsed.nonce().wire()), (&b"CPE57689"[..], &b"XTGRWIPC6D3IPXS3"[..]));
    assert_eq!(parsed.signature()[..2], [0x35, 0x45]);
    assert_eq!(receive(&mut listener(), &datagram), Err(Refusal::BadSignature));
}

/// UCR-17: STUN and Connection Requests are told apart by their first byte.
#[test]
fn tells_requests_from_stun() {
    assert_eq!(Payload::of(&[0, 1, 0, 0]), Payload::Stun(&[0, 1, 0, 0]));
    assert_eq!(Payload::of(&[1, 1]), Payload::Stun(&[1, 1]));
    assert_eq!(Payload::of(b"GET "), Payload::ConnectionRequest(Datagram(b"GET ")));
    assert_eq!(Payload::of(b"post"), Payload::ConnectionRequest(Datagram(b"post")));
    for other in [&b""[..], b"\r\nGET", b"@", b"\x02", b"\x40\x00", b"\xff"] {
        assert_eq!(Payload::of(other), Payload::Other);
    }
}

/// UCR-5: the method is GET, in capitals.
#[test]
fn refuses_other_methods() {
    for method in ["get ", "POST ", "GETS ", "HEAD "] {
        assert_eq!(changed("GET ", method), Err(Refusal::WrongMethod));
    }
    malformed("GET ", "GET");
    malformed("GET ", "GET  ");
    malformed("GET ", "GET\t");
}

/// UCR-4, T-74: what is no HTTP/1.1 request is ignored, and each deviation has its own name.
#[test]
fn refuses_what_breaks_http() {
    assert_eq!(changed("HTTP/1.1", "HTTP/1.0"), Err(Refusal::WrongVersion));
    assert_eq!(changed("HTTP/1.1", "HTTP/2"), Err(Refusal::WrongVersion));
    malformed(" HTTP/1.1", "");
    malformed("HTTP/1.1", "HTTP/1.11");
    malformed("HTTP/1.1", "http/1.1");
    malformed("HTTP/1.1", " HTTP/1.1");
    malformed("Host: ", "Host ");
    malformed("Host: ", "Host : ");
    malformed("Host: ", ": ");
    malformed("Host: ", "\u{e9}: ");
    malformed("Host: ", "Host: \u{0}");
    malformed("Host: ", "Host: \r");
    malformed("\r\nHost", "\r\n Host");
    malformed("&un=", "&un=\"");
    malformed("&un=", "&un=#");
    malformed("&un=", "&un=\u{e9}");
    let bare = U1.replace("\r\n", "\n");
    assert_eq!(receive(&mut listener(), &bare), Err(Refusal::BareLineFeed { offset: U1.find('\r').unwrap() }));
    assert!(matches!(changed("40001\r\n\r\n", "40001\n\n"), Err(Refusal::BareLineFeed { .. })));
    assert!(matches!(changed("40001\r\n\r\n", "40001\r\n\n"), Err(Refusal::BareLineFeed { .. })));
}

/// UCR-4: headers are names in any case, values with blanks, and values that go on in the next line.
#[test]
fn accepts_what_http_allows() {
    assert!(changed("Host: ", "hOsT:").is_ok());
    assert!(changed("\r\n\r\n", "\r\nUser-Agent:\r\nX-Y: a\tb \u{e9}\r\n  more\r\n\r\n").is_ok());
}

/// UCR-4, T-49, T-74: one Host, unless the knob asks for none.
#[test]
fn wants_one_host() {
    let hostless = U1.replace("Host: 198.51.100.7:40001\r\n", "");
    assert_eq!(receive(&mut listener(), &hostless), Err(Refusal::NoHost));
    assert!(receive(&mut with(Settings { require_host: false, ..Settings::default() }), &hostless).is_ok());
    assert_eq!(changed("Host: 198.51.100.7:40001\r\n", "Host: a\r\nhost: b\r\n"), Err(Refusal::DuplicateHost));
    // Its value is not compared (RFC 2616 5.2).
    assert!(changed("Host: 198.51.100.7:40001", "Host: elsewhere").is_ok());
}

/// UCR-4, T-74: a datagram that ends before the empty line is ignored, wherever it ends.
#[test]
fn refuses_a_datagram_that_was_cut() {
    for end in 0..U1.len() {
        assert!(receive(&mut listener(), &U1[..end]).is_err(), "{end}");
    }
    let length = U1.len() - 2;
    assert_eq!(receive(&mut listener(), &U1[..length]), Err(Refusal::NoBlankLine { length }));
}

/// T-50: the path is empty or a slash; a Request-URI without scheme is taken only when told.
#[test]
fn accepts_no_other_path() {
    assert!(changed(":40001?", ":40001/?").is_ok());
    assert_eq!(changed(":40001?", ":40001/x?"), Err(Refusal::WrongPath));
    assert_eq!(changed(":40001?", ":40001//?"), Err(Refusal::WrongPath));
    let tolerant = Settings { accept_relative: true, ..Settings::default() };
    for relative in ["GET ?ts", "GET /?ts"] {
        let datagram = U1.replace("GET http://198.51.100.7:40001?ts", relative);
        assert_eq!(receive(&mut listener(), &datagram), Err(Refusal::RelativeUri));
        assert!(receive(&mut with(tolerant), &datagram).is_ok());
    }
}

/// T-22, T-64: scheme in any case, an authority that is not empty, its port not compared.
#[test]
fn reads_scheme_and_authority() {
    assert!(changed("http://", "HTTP://").is_ok());
    assert!(changed("198.51.100.7:40001?", "[2001:db8::1]:7547?").is_ok());
    assert!(changed("198.51.100.7:40001?", "cpe.example?").is_ok());
    assert_eq!(changed("http://", "https://"), Err(Refusal::WrongScheme));
    malformed("http://", "http:/");
    malformed("198.51.100.7:40001?", "?");
    malformed("198.51.100.7:40001?", ":40001?");
    malformed("198.51.100.7:40001?", "<>?");
}

/// T-52: each of the five fields once, in any order, others ignored.
#[test]
fn wants_each_field_once() {
    for (field, text) in [
        (Field::Ts, "ts=1700000000&"),
        (Field::Id, "id=1234&"),
        (Field::Un, "un=CPE57689&"),
        (Field::Cn, "cn=XTGRWIPC6D3IPXS3&"),
    ] {
        assert_eq!(changed(text, ""), Err(Refusal::MissingField(field)));
        assert_eq!(changed(text, &text.repeat(2)), Err(Refusal::DuplicateField(field)));
    }
    assert_eq!(changed("&sig=", "&Sig="), Err(Refusal::MissingField(Field::Sig)));
    assert_eq!(changed("id=1234&un=CPE57689&", "un=CPE57689&id=1234&").map(|accepted| accepted.id()), Ok(1234));
    assert!(changed("?ts", "?&x&y=1&un&=&=2&TS=3&a=b=c&ts").is_ok());
    assert_eq!(changed("&cn=XTGRWIPC6D3IPXS3", "&cn="), Err(Refusal::BadSignature));
    assert_eq!(changed("?ts=1700000000", " "), Err(Refusal::MissingField(Field::Ts)));
}

/// T-52, T-74, UCR-13: sig is forty hexadecimal digits, and the right ones.
#[test]
fn wants_the_right_signature() {
    assert_eq!(changed("EAAC ", "EAAD "), Err(Refusal::BadSignature));
    assert_eq!(changed("sig=A326", "sig=A327"), Err(Refusal::BadSignature));
    assert_eq!(changed("EAAC ", "EAA "), Err(Refusal::SignatureForm));
    assert_eq!(changed("EAAC ", "EAAC0 "), Err(Refusal::SignatureForm));
    assert_eq!(changed("EAAC ", "EAAG "), Err(Refusal::SignatureForm));
    assert_eq!(changed("EAAC ", &format!("EAAC{} ", "0".repeat(24))), Err(Refusal::Sha256Signature));
}

/// T-53, SEC-5: numbers are canonical decimals of 64 bits.
#[test]
fn wants_canonical_numbers() {
    for number in ["01700000000", "+1700000000", "-1", "", "0x10", "1e9", "%31", "18446744073709551616"] {
        assert_eq!(changed("ts=1700000000", &format!("ts={number}")), Err(Refusal::BadNumber(Field::Ts)), "{number}");
        assert_eq!(changed("id=1234", &format!("id={number}")), Err(Refusal::BadNumber(Field::Id)), "{number}");
    }
    assert!(receive(&mut listener(), &signed(1_700_000_000, u64::MAX)).is_ok());
    assert!(receive(&mut listener(), &signed(1_700_000_000, 0)).is_ok());
    assert_eq!(receive(&mut listener(), &signed(0, 1)), STALE);
}

/// SEC-5, T-60: digits that are moved from id to ts keep the signature, and are refused.
#[test]
fn refuses_the_shifted_replay() {
    let shift = U1.replace("ts=1700000000&id=1234", "ts=17000000001&id=234");
    assert_eq!(receive(&mut listener(), &shift), Err(Refusal::FutureTimestamp));
    assert_eq!(listener().receive(None, Datagram(shift.as_bytes())), Err(Refusal::FutureTimestamp));
    // The signature itself holds: only the bound stops it.
    let later = Some(UnixTime(17_000_000_000));
    assert!(listener().receive(later, Datagram(shift.as_bytes())).is_ok());
    // Three digits make milliseconds, and are stopped where those are taken too.
    let milliseconds = U1.replace("ts=1700000000&id=1234", "ts=1700000000123&id=4");
    assert_eq!(receive(&mut listener(), &milliseconds), Err(Refusal::MillisecondTimestamp));
    let mut any = with(Settings { timestamp_unit: TimestampUnit::Any, ..Settings::default() });
    assert!(receive(&mut any, U1).is_ok());
    assert_eq!(receive(&mut any, &milliseconds), STALE);
}

/// UCR-6: ts is strictly greater than the last accepted one; the same datagram twice wakes once.
#[test]
fn rejects_ts_equal_to_last_accepted() {
    let mut listener = listener();
    assert!(receive(&mut listener, U1).is_ok());
    assert_eq!(receive(&mut listener, U1), STALE);
    assert_eq!(receive(&mut listener, &signed(1_700_000_000, 1)), STALE);
    assert_eq!(receive(&mut listener, &signed(1_699_999_999, 2)), STALE);
    assert!(receive(&mut listener, &signed(1_700_000_001, 3)).is_ok());
}

/// UCR-11, T-59: id differs from that of the last accepted request only.
#[test]
fn rejects_the_last_accepted_id() {
    let mut listener = listener();
    assert!(receive(&mut listener, U1).is_ok());
    assert_eq!(receive(&mut listener, &signed(1_700_000_010, 1234)), Err(Refusal::SameId));
    assert!(receive(&mut listener, &signed(1_700_000_010, 5)).is_ok());
    assert!(receive(&mut listener, &signed(1_700_000_011, 1234)).is_ok());
    assert_eq!(receive(&mut listener, &signed(1_700_000_010, 5)), STALE);
}

/// T-62: what is old is refused for that, whatever stands behind it: a flood of replays costs no more than their ts.
#[test]
fn an_old_request_is_not_read_to_its_end() {
    let mut listener = listener();
    assert!(receive(&mut listener, U1).is_ok());
    assert_eq!(receive(&mut listener, "GET http://h?ts=1700000000&un=\0"), STALE);
    assert_eq!(receive(&mut listener, "GET http://h?ts=1700000001&id=1234&un=\0"), Err(Refusal::SameId));
    let garbage = receive(&mut listener, "GET http://h?ts=1700000001&id=5&un=\0");
    assert!(matches!(garbage, Err(Refusal::Malformed { .. })), "{garbage:?}");
}

/// UCR-7, T-57: a restarted listener that is given what the old one remembered refuses the replay.
#[test]
fn remembers_over_a_restart() {
    let mut before = listener();
    assert!(receive(&mut before, U1).is_ok());
    let credential = Credential::new(b"CPE57689", PASSWORD);
    let mut after = Listener::new(credential, Settings::default(), before.last_accepted());
    assert_eq!(receive(&mut after, U1), STALE);
    assert_eq!(receive(&mut after, &signed(1_700_000_001, 1234)), Err(Refusal::SameId));
    after.reset();
    assert!(receive(&mut after, U1).is_ok());
}

/// UCR-9, T-57, T-58: a reboot forgets only when told, and then starts from 0.
#[test]
fn a_reboot_forgets_only_when_told() {
    let last = LastAccepted { timestamp: 1_700_000_000, milliseconds: 0, id: Some(1234) };
    assert_eq!(last.restored(true, false), last);
    assert_eq!(last.restored(false, true), last);
    assert_eq!(last.restored(false, false), LastAccepted { timestamp: 0, milliseconds: 0, id: None });
}

/// UCR-8, SEC-6: a message that fails the last check leaves nothing behind.
#[test]
fn a_forged_timestamp_leaves_no_trace() {
    let mut listener = listener();
    let forged = U1.replace("ts=1700000000&id=1234", "ts=1700086460&id=99");
    assert_eq!(receive(&mut listener, &forged), Err(Refusal::BadSignature));
    assert_eq!(listener.last_accepted(), LastAccepted::default());
    assert!(receive(&mut listener, U1).is_ok());
}

/// UCR-10, T-56: no lower bound; a day ahead of a trusted clock, else 32 bits.
#[test]
fn bounds_ts_by_the_clock() {
    let bound = 1_700_000_060 + 24 * 3600;
    assert_eq!(receive(&mut listener(), &signed(bound + 1, 1)), Err(Refusal::FutureTimestamp));
    assert!(receive(&mut listener(), &signed(bound, 1)).is_ok());
    assert!(receive(&mut listener(), &signed(1_120_673_700, 1)).is_ok());
    let untrusted = |timestamp| listener().receive(None, Datagram(signed(timestamp, 1).as_bytes()));
    assert!(untrusted(4_294_967_295).is_ok());
    assert_eq!(untrusted(4_294_967_296), Err(Refusal::FutureTimestamp));
}

/// T-55: milliseconds are refused by their own name, or have their own last value.
#[test]
fn milliseconds_do_not_poison_seconds() {
    assert_eq!(receive(&mut listener(), &signed(1_700_000_000_123, 1)), Err(Refusal::MillisecondTimestamp));
    let mut any = with(Settings { timestamp_unit: TimestampUnit::Any, ..Settings::default() });
    assert!(receive(&mut any, &signed(1_700_000_000_123, 1)).is_ok());
    assert_eq!(receive(&mut any, &signed(1_700_000_000_123, 2)), STALE);
    assert!(receive(&mut any, &signed(1_700_000_000_124, 2)).is_ok());
    assert!(receive(&mut any, &signed(1_700_000_001, 3)).is_ok());
    assert!(receive(&mut any, &signed(1_700_000_002_000, 4)).is_ok());
    assert_eq!(receive(&mut any, &signed(1_700_086_461_000, 5)), Err(Refusal::FutureTimestamp));
}

/// UCR-12: un is `ConnectionRequestUsername`, byte for byte.
#[test]
fn refuses_other_users() {
    for un in ["cpe57689", "CPE57689+", "CPE57689%00", "CPE5768", "", "%43PE57688"] {
        assert_eq!(changed("un=CPE57689", &format!("un={un}")), Err(Refusal::UnknownUser), "{un}");
    }
    let long = "%41".repeat(300);
    assert_eq!(changed("un=CPE57689", &format!("un={long}")), Err(Refusal::UnknownUser));
    // However it is encoded.
    assert!(changed("un=CPE57689", "un=%43%50E5768%39").is_ok());
}

/// T-51: the signature is over decoded values; over those on the wire only when told.
#[test]
fn verifies_decoded_values() {
    let datagram = |signature| {
        format!(
            "GET http://h?ts=1700000001&id=7&un=a+b%2Bc%26d%25e&cn=N0nce&sig={signature} HTTP/1.1\r\nHost: h\r\n\r\n"
        )
    };
    let take = |raw_fallback, signature| {
        let settings = Settings { raw_fallback, ..Settings::default() };
        let credential = Credential::new(b"a b+c&d%e", PASSWORD);
        receive(&mut Listener::new(credential, settings, LastAccepted::default()), &datagram(signature))
    };
    let (decoded, raw) = ("0A8D17D62B2919780688835C52EA825AD4069EE8", "04FA6AA72A459499D8592B249A6AA3C5DDED4F76");
    assert!(take(false, decoded).is_ok() && take(true, decoded).is_ok());
    assert_eq!(take(false, raw), Err(Refusal::BadSignature));
    assert!(take(true, raw).is_ok());
    for damaged in ["%", "%4", "%4g", "a%%41"] {
        let field = format!("un={damaged}");
        assert_eq!(changed("un=CPE57689", &field), Err(Refusal::BadEncoding(Field::Un)), "{damaged}");
    }
}

/// T-51: a sender that does not encode may leave a bare percent sign, which is taken only when told.
#[test]
fn takes_a_bare_percent_sign_when_told() {
    let mut signature = SharedSecret::new(PASSWORD).signature();
    signature.cover(b"17000000017100%+N0nce");
    let signature = signature.finish().map(|byte| format!("{byte:02X}")).concat();
    let datagram =
        format!("GET http://h?ts=1700000001&id=7&un=100%+&cn=N0nce&sig={signature} HTTP/1.1\r\nHost: h\r\n\r\n");
    let take = |raw_fallback| {
        let settings = Settings { raw_fallback, ..Settings::default() };
        let credential = Credential::new(b"100%+", PASSWORD);
        receive(&mut Listener::new(credential, settings, LastAccepted::default()), &datagram)
    };
    assert_eq!(take(false), Err(Refusal::BadEncoding(Field::Un)));
    assert!(take(true).is_ok());
}

/// T-61: an empty password refuses everything, but for a knob.
#[test]
fn an_empty_password_refuses_everything() {
    let take =
        |allow_empty_password| {
            let settings = Settings { allow_empty_password, ..Settings::default() };
            let listener = Listener::new(Credential::new(b"CPE57689", b""), settings, LastAccepted::default());
            receive(&mut { listener }, &U1.replace(
            "ts=1700000000&id=1234&un=CPE57689&cn=XTGRWIPC6D3IPXS3&sig=A326A08B40711E38DE468EF86B9C21B0B3C3EAAC",
            "ts=1120673700&id=1234&un=CPE57689&cn=XTGRWIPC6D3IPXS3&sig=5F944EAEB0FB75E6B16C804E2CFF5C8382AA446E",
        ))
        };
    assert_eq!(take(false), Err(Refusal::NoPassword));
    assert!(take(true).is_ok());
}

/// UCR-16: a body is ignored, whatever it is.
#[test]
fn ignores_a_body() {
    assert!(changed("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nxyz").is_ok());
    let mut listener = listener();
    let two = signed(1_700_000_001, 1) + &signed(1_700_000_002, 2);
    assert_eq!(receive(&mut listener, &two).map(|accepted| accepted.id()), Ok(1));
    assert_eq!(listener.last_accepted().timestamp, 1_700_000_001);
}

/// T-62: everything that costs no HMAC is looked at before it.
#[test]
fn cheap_checks_come_first() {
    let wrong = U1.replace("EAAC ", "EAAD ");
    let mut listener = listener();
    assert!(receive(&mut listener, U1).is_ok());
    assert_eq!(receive(&mut listener, &wrong), STALE);
    assert_eq!(receive(&mut listener, &wrong.replace("17000000", "17000001")), Err(Refusal::SameId));
    let foreign = wrong.replace("17000000", "17000001").replace("1234", "1").replace("un=C", "un=D");
    assert_eq!(receive(&mut listener, &foreign), Err(Refusal::UnknownUser));
}
