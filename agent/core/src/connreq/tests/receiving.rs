use super::vectors::*;
use crate::{connreq::*, time::UnixTime};

const STALE: Result<AuthenticRequest, Refusal> = Err(Refusal::StaleTimestamp);

fn malformed(from: &str, to: &str) {
    let refused = changed(from, to).unwrap_err();
    assert!(matches!(refused, Refusal::Malformed { offset, length } if offset <= length), "{to:?}: {refused}");
}

/// UCR-3, UCR-13: U1 is accepted, also with a signature in lower case.
#[test]
fn accepts_a_genuine_request() {
    let mut listener = listener();
    let accepted = receive(&mut listener, U1).unwrap();
    assert_eq!((accepted.timestamp(), accepted.id()), (1_700_000_000, 1234));
    assert_eq!(listener.last_accepted(), LastAccepted { timestamp: 1_700_000_000, milliseconds: 0, id: Some(1234) });
    let signature = "A326A08B40711E38DE468EF86B9C21B0B3C3EAAC";
    assert!(changed(signature, &signature.to_lowercase()).is_ok());
}

/// T-22: the example of TR-111 is parsed; its password is not published, so it is not authentic.
#[test]
fn parses_the_example_of_the_specification() {
    let datagram = format!("GET {SPEC} HTTP/1.1\r\nHost: 10.1.1.1:8080\r\n\r\n");
    let parsed = Datagram(datagram.as_bytes()).parse(Settings::default()).unwrap();
    assert_eq!((parsed.timestamp().value, parsed.id().digits), (1_120_673_700, &b"1234"[..]));
    assert_eq!((parsed.username().wire(), parsed.nonce().wire()), (&b"CPE57689"[..], &b"XTGRWIPC6D3IPXS3"[..]));
    assert_eq!(parsed.signature()[..2], [0x35, 0x45]);
    assert_eq!(receive(&mut listener(), &datagram), Err(Refusal::BadSignature));
}

/// UCR-17: STUN and Connection Requests are distinguished by their first byte.
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

/// UCR-5: the method is GET, in upper case.
#[test]
fn refuses_other_methods() {
    for method in ["get ", "POST ", "GETS ", "HEAD "] {
        assert_eq!(changed("GET ", method), Err(Refusal::WrongMethod));
    }
    malformed("GET ", "GET");
    malformed("GET ", "GET  ");
    malformed("GET ", "GET\t");
}

/// UCR-4, T-74: datagrams that are not HTTP/1.1 requests are ignored, and each deviation is counted separately.
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

/// UCR-4: header names in any case, values with spaces, and values that continue in the next line are accepted.
#[test]
fn accepts_what_http_allows() {
    assert!(changed("Host: ", "hOsT:").is_ok());
    assert!(changed("\r\n\r\n", "\r\nUser-Agent:\r\nX-Y: a\tb \u{e9}\r\n  more\r\n\r\n").is_ok());
}

/// UCR-4, T-49, T-74: one Host header is required, unless the setting allows none.
#[test]
fn wants_one_host() {
    let hostless = U1.replace("Host: 198.51.100.7:40001\r\n", "");
    assert_eq!(receive(&mut listener(), &hostless), Err(Refusal::NoHost));
    assert!(receive(&mut with(Settings { require_host: false, ..Settings::default() }), &hostless).is_ok());
    assert_eq!(changed("Host: 198.51.100.7:40001\r\n", "Host: a\r\nhost: b\r\n"), Err(Refusal::DuplicateHost));
    // The value of Host is not compared (RFC 2616 5.2).
    assert!(changed("Host: 198.51.100.7:40001", "Host: elsewhere").is_ok());
}

/// UCR-4, T-74: a datagram that ends before the empty line is ignored.
#[test]
fn refuses_a_datagram_that_was_cut() {
    for end in 0..U1.len() {
        assert!(receive(&mut listener(), &U1[..end]).is_err(), "{end}");
    }
    let length = U1.len() - 2;
    assert_eq!(receive(&mut listener(), &U1[..length]), Err(Refusal::NoBlankLine { length }));
}

/// T-50: the path is empty or a slash; a Request-URI without scheme is accepted only with the setting.
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

/// T-22, T-64: the scheme in any case and any non-empty authority are accepted; the port is not compared.
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

/// UCR-4: the authority is a host, optionally with userinfo and port (RFC 3986 3.2).
#[test]
fn refuses_what_is_no_authority() {
    let host = "198.51.100.7:40001?";
    for authority in [
        "host:4x1",
        "host:1:2",
        "host:-1",
        "host:%31",
        "[::1",
        "::1]",
        "::1",
        "[]",
        "[::1]1",
        "[::1]a:1",
        "[::g]",
        "[1:2:3:4:5:6:7:8:9]",
        "[fe80::1%25eth0]",
        "[v.a]",
        "[v1.]",
        "[vg.a]",
        "a[b]",
        "a%zz",
        "a%4",
        "a%",
        "a@b@c",
        "@",
        "a@",
        "a@:1",
        "[a]@b",
        "%zz@b",
    ] {
        malformed(host, &format!("{authority}?"));
    }
    for authority in [
        "host",
        "host:",
        "host.:65535",
        "h%41st:1",
        "a:b@c:1",
        "@c",
        "[::]",
        "[2001:db8::192.0.2.1]:1",
        "[v1.a:b]:",
        "a_b~c!$&'()*+,;=d",
    ] {
        assert!(changed(host, &format!("{authority}?")).is_ok(), "{authority}");
    }
}

/// UCR-4: a `%` has to be followed by two hexadecimal digits in ignored fields, too (RFC 3986 2.1).
#[test]
fn refuses_a_damaged_percent_sign_anywhere() {
    for field in ["x=%zz", "x=%4", "x=%", "x=a%41%4g", "%zz=1", "%zz", "%4=1", "x%", "%=41"] {
        malformed("&un=", &format!("&{field}&un="));
        malformed("?ts=", &format!("?{field}&ts="));
        malformed("EAAC ", &format!("EAAC&{field} "));
    }
    for field in ["x=%5a", "%5A=1", "%5a", "x=%25zz", "+=+"] {
        assert!(changed("&un=", &format!("&{field}&un=")).is_ok(), "{field}");
    }
}

/// UCR-4: Content-Length is a number, and the body is not shorter (RFC 2616 4.4, 14.13).
#[test]
fn refuses_a_body_of_another_length() {
    let with = |headers: &str, body: &str| changed("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n{body}"));
    for length in
        ["abc", "-1", "+3", "0x3", "3.0", "3,3", "3 3", "3;a", "", " \t", "1\r\n 1", "4", "18446744073709551619"]
    {
        assert_eq!(with(&format!("Content-Length: {length}"), "xyz"), Err(Refusal::BodyLength), "{length}");
    }
    assert_eq!(with("content-length:1", ""), Err(Refusal::BodyLength));
    assert_eq!(with("Content-Length: 3\r\nCONTENT-LENGTH: 3", "xyz"), Err(Refusal::BodyLength));
    assert_eq!(Refusal::BodyLength.label(), "body_length");
    // Bytes after the body are not part of the message, as without a body.
    for length in ["0", "1", "003", " \t3 ", "\r\n 3"] {
        assert!(with(&format!("Content-Length:{length}"), "xyz").is_ok(), "{length}");
    }
    assert!(with("X-Content-Length: abc", "").is_ok());
}

/// UCR-4, UCR-16: a chunked body has to be complete; its content is ignored (RFC 2616 3.6, 4.4).
#[test]
fn refuses_chunks_that_are_not_whole() {
    let with = |headers: &str, body: &str| changed("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n{body}"));
    let chunked = "Transfer-Encoding: chunked";
    for body in ["0\r\n\r\n", "3\r\nxyz\r\n0\r\n\r\n", "00A;a=b\r\n0123456789\r\n0 \r\nX: y\r\n\r\nmore"] {
        assert!(with(chunked, body).is_ok(), "{body:?}");
    }
    for body in [
        "",
        "0\r\n",
        "0\r\nX: y\r\n",
        "3\r\nxyz\r\n",
        "4\r\nxyz\r\n0\r\n\r\n",
        "2\r\nxyz\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "+0\r\n\r\n",
        "\r\n\r\n",
        "g\r\n\r\n",
        "ffffffffffffffffff\r\n\r\n",
        "ffffffffffffffff\r\n\r\n",
    ] {
        assert_eq!(with(chunked, body), Err(Refusal::BodyLength), "{body:?}");
    }
    let last = "0\r\n\r\n";
    assert!(with("Transfer-Encoding: gzip, Chunked", last).is_ok());
    assert!(with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", last).is_ok());
    assert!(with("Transfer-Encoding: identity\r\nContent-Length: 3", "xyz").is_ok());
    // No other coding delimits a body in a request, and a request must not have both headers.
    assert_eq!(with("Transfer-Encoding: gzip", last), Err(Refusal::BodyLength));
    assert_eq!(with("Transfer-Encoding: chunked, gzip", last), Err(Refusal::BodyLength));
    assert_eq!(with("Content-Length: 5\r\nTransfer-Encoding: chunked", last), Err(Refusal::BodyLength));
}

/// T-52: each of the five fields occurs once, in any order; other fields are ignored.
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

/// T-52, T-74, UCR-13: sig has forty hexadecimal digits and is correct.
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

/// SEC-5, T-60: digits that are moved from id to ts keep the signature valid; the request is refused.
#[test]
fn refuses_the_shifted_replay() {
    let shift = U1.replace("ts=1700000000&id=1234", "ts=17000000001&id=234");
    assert_eq!(receive(&mut listener(), &shift), Err(Refusal::FutureTimestamp));
    assert_eq!(listener().receive(None, Datagram(shift.as_bytes())), Err(Refusal::FutureTimestamp));
    // The signature is valid; only the bound of ts prevents acceptance.
    let later = Some(UnixTime(17_000_000_000));
    assert!(listener().receive(later, Datagram(shift.as_bytes())).is_ok());
    // Moving three digits gives milliseconds, which are refused even where milliseconds are accepted.
    let milliseconds = U1.replace("ts=1700000000&id=1234", "ts=1700000000123&id=4");
    assert_eq!(receive(&mut listener(), &milliseconds), Err(Refusal::MillisecondTimestamp));
    let mut any = with(Settings { timestamp_unit: TimestampUnit::Any, ..Settings::default() });
    assert!(receive(&mut any, U1).is_ok());
    assert_eq!(receive(&mut any, &milliseconds), STALE);
}

/// UCR-6: ts has to exceed the last accepted one; a repeated datagram is accepted once.
#[test]
fn rejects_ts_equal_to_last_accepted() {
    let mut listener = listener();
    assert!(receive(&mut listener, U1).is_ok());
    assert_eq!(receive(&mut listener, U1), STALE);
    assert_eq!(receive(&mut listener, &signed(1_700_000_000, 1)), STALE);
    assert_eq!(receive(&mut listener, &signed(1_699_999_999, 2)), STALE);
    assert!(receive(&mut listener, &signed(1_700_000_001, 3)).is_ok());
}

/// UCR-11, T-59: id has to differ from that of the last accepted request only.
#[test]
fn rejects_the_last_accepted_id() {
    let mut listener = listener();
    assert!(receive(&mut listener, U1).is_ok());
    assert_eq!(receive(&mut listener, &signed(1_700_000_010, 1234)), Err(Refusal::SameId));
    assert!(receive(&mut listener, &signed(1_700_000_010, 5)).is_ok());
    assert!(receive(&mut listener, &signed(1_700_000_011, 1234)).is_ok());
    assert_eq!(receive(&mut listener, &signed(1_700_000_010, 5)), STALE);
}

/// T-62: an old request is refused before the rest of it is parsed, so replays cost no more than their ts.
#[test]
fn an_old_request_is_not_read_to_its_end() {
    let mut listener = listener();
    assert!(receive(&mut listener, U1).is_ok());
    assert_eq!(receive(&mut listener, "GET http://h?ts=1700000000&un=\0"), STALE);
    assert_eq!(receive(&mut listener, "GET http://h?ts=1700000001&id=1234&un=\0"), Err(Refusal::SameId));
    let garbage = receive(&mut listener, "GET http://h?ts=1700000001&id=5&un=\0");
    assert!(matches!(garbage, Err(Refusal::Malformed { .. })), "{garbage:?}");
}

/// UCR-7, T-57: a restarted listener with the stored state refuses the replay.
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

/// UCR-9, T-57, T-58: a reboot resets the state only if configured, and then to 0.
#[test]
fn a_reboot_forgets_only_when_told() {
    let last = LastAccepted { timestamp: 1_700_000_000, milliseconds: 0, id: Some(1234) };
    assert_eq!(last.restored(true, false), last);
    assert_eq!(last.restored(false, true), last);
    assert_eq!(last.restored(false, false), LastAccepted { timestamp: 0, milliseconds: 0, id: None });
}

/// UCR-8, SEC-6: a message that fails the last check does not change the state.
#[test]
fn a_forged_timestamp_leaves_no_trace() {
    let mut listener = listener();
    let forged = U1.replace("ts=1700000000&id=1234", "ts=1700086460&id=99");
    assert_eq!(receive(&mut listener, &forged), Err(Refusal::BadSignature));
    assert_eq!(listener.last_accepted(), LastAccepted::default());
    assert!(receive(&mut listener, U1).is_ok());
}

/// UCR-10, T-56: ts has no lower bound; the upper one is 24 h ahead of a trusted clock, else 32 bits.
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

/// T-55: milliseconds have a refusal of their own, or a last value of their own.
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

/// UCR-12: un has to equal `ConnectionRequestUsername`, byte for byte.
#[test]
fn refuses_other_users() {
    for un in ["cpe57689", "CPE57689+", "CPE57689%00", "CPE5768", "", "%43PE57688"] {
        assert_eq!(changed("un=CPE57689", &format!("un={un}")), Err(Refusal::UnknownUser), "{un}");
    }
    let long = "%41".repeat(300);
    assert_eq!(changed("un=CPE57689", &format!("un={long}")), Err(Refusal::UnknownUser));
    // In any encoding.
    assert!(changed("un=CPE57689", "un=%43%50E5768%39").is_ok());
}

/// Result of a request to a CPE with the username `user`, with `un` and `cn` as on the wire.
fn take(user: &str, un: &str, cn: &str, signature: &str) -> Result<AuthenticRequest, Refusal> {
    let mut listener =
        Listener::new(Credential::new(user.as_bytes(), PASSWORD), Settings::default(), LastAccepted::default());
    let query = format!("ts=1700000001&id=7&un={un}&cn={cn}&sig={signature}");
    receive(&mut listener, &format!("GET http://h?{query} HTTP/1.1\r\nHost: h\r\n\r\n"))
}

/// T-51: the signature covers decoded values.
#[test]
fn verifies_decoded_values() {
    assert!(take("a b+c&d%e", U2_WIRE, "N0nce", "0A8D17D62B2919780688835C52EA825AD4069EE8").is_ok());
    for damaged in ["%", "%4", "%4g", "a%%41"] {
        let field = format!("un={damaged}");
        assert_eq!(changed("un=CPE57689", &field), Err(Refusal::BadEncoding(Field::Un)), "{damaged}");
        assert_eq!(take("CPE57689", "CPE5768", damaged, U2_RAW), Err(Refusal::BadEncoding(Field::Cn)), "{damaged}");
        let field = format!("ts={damaged}");
        assert_eq!(changed("ts=1700000000", &field), Err(Refusal::BadEncoding(Field::Ts)), "{damaged}");
    }
}

/// T-51: an ACS that does not encode signs the name as on the wire; `%` and `+` then are ordinary characters.
#[test]
fn takes_a_name_that_was_not_encoded() {
    let name = "00256D-Home%20Box-0001";
    assert!(take(name, name, "N0nce", "B1F6A498ADAC0C928F79F43917EF7AEED7A48387").is_ok());
    assert!(take(name, "00256D-Home%2520Box-0001", "N0nce", "B1F6A498ADAC0C928F79F43917EF7AEED7A48387").is_ok());
    assert!(take("100%+", "100%+", "N0nce", "BB0ECDE9E942C35F49D149E30E4951EA9C848DD3").is_ok());
    assert!(take(U2_WIRE, U2_WIRE, "N0nce", U2_RAW).is_ok());
    // The nonce is read in the same way as the name.
    assert!(take("CPE57689", "CPE57689", "a+b/c%3D==", "79969DB5013967E220F341FAE7F21F5DE35EDC0A").is_ok());
    assert!(take("CPE57689", "CPE57689", "a+b/c%3D==", "BE0B549D645972292D734458E9B4F6CBCDD75800").is_ok());
    assert!(take("CPE57689", "CPE57689", "50%", "D990B2512B6E458508EE9F8AD9C2858A7F49A766").is_ok());
}

/// T-51: name and signature are read in the same way: either both as on the wire or both decoded.
#[test]
fn never_mixes_two_readings() {
    let signatures = [
        ("a+b", "c+d", "6F575B4F2FAD2A397B7D39153385F2E7D315B8F8"),
        ("a b", "c d", "DF55083B19D86E74069EA125024208904C964689"),
        ("a b", "c+d", "E8F088D1DEF12DBF35D72B42D14EAA62A8D5FC12"),
        ("a+b", "c d", "DA1CB5BC432BAEFFB2C0EB19ED29E8C6231DC672"),
    ];
    for user in ["a+b", "a b"] {
        for (name, nonce, signature) in signatures {
            let is_one_reading = [("a+b", "c+d"), ("a b", "c d")].contains(&(name, nonce));
            let expected = user == name && is_one_reading;
            let taken = take(user, "a+b", "c+d", signature);
            assert_eq!(taken.is_ok(), expected, "{user}, signed over {name} and {nonce}");
            assert!(expected || taken == Err(Refusal::BadSignature), "{taken:?}");
        }
    }
    // The decoded name matches, but the signature covers the encoded text.
    assert_eq!(take("a b+c&d%e", U2_WIRE, "N0nce", U2_RAW), Err(Refusal::BadSignature));
    // The encoded name matches, but the signature covers the decoded text.
    let decoded = "C2D4F4151B9BEBDF10D6594A2299758E77AD417B";
    let name = "00256D-Home%20Box-0001";
    assert_eq!(take(name, name, "N0nce", decoded), Err(Refusal::BadSignature));
    assert!(take("00256D-Home Box-0001", name, "N0nce", decoded).is_ok());
}

/// T-51, T-74: a name that must be encoded has a refusal of its own if an ACS sends it unencoded.
#[test]
fn a_name_that_must_be_encoded_has_its_own_refusal() {
    let (ampersand, letter) = ("B80EF6F2949EC784991D003A46A3DE26E610F57A", "1E217D2D1FBC7C4A8FAB8DFEA0B343958521D68A");
    assert_eq!(take("a&b", "a&b", "N0nce", ampersand), Err(Refusal::UnencodedName));
    assert!(take("a&b", "a%26b", "N0nce", ampersand).is_ok());
    assert_eq!(take("Ger\u{e4}t", "Ger\u{e4}t", "N0nce", letter), Err(Refusal::UnencodedName));
    assert!(take("Ger\u{e4}t", "Ger%C3%A4t", "N0nce", letter).is_ok());
    assert_eq!(take("a b", "a b", "N0nce", ampersand), Err(Refusal::UnencodedName));
    assert_eq!(take("a&id=1", "a&id=1", "N0nce", ampersand), Err(Refusal::UnencodedName));
    assert_eq!(take("a#b", "a#b", "N0nce", ampersand), Err(Refusal::UnencodedName));
    // Only if the name itself is in the datagram.
    assert_eq!(take("a&b", "a", "N0nce", ampersand), Err(Refusal::UnknownUser));
    assert_eq!(take("a&b", "a&bc", "N0nce", ampersand), Err(Refusal::UnknownUser));
    assert!(matches!(take("CPE57689", "a b", "N0nce", ampersand), Err(Refusal::Malformed { .. })));
    assert_eq!(Refusal::UnencodedName.label(), "unencoded_name");
    for (name, character) in [("a&b", '&'), ("a b", ' '), ("Ger\u{e4}t", '\u{e4}'), ("a#%", '#'), ("a\"b", '"')] {
        assert_eq!(must_be_encoded(name), Some(character), "{name}");
    }
    for name in ["", "00256D-Home%20Box-0001", "a+b%", "a/b?c=d:e@f", "A.b_c~d!$'()*,;"] {
        assert_eq!(must_be_encoded(name), None, "{name}");
    }
}

/// T-61: with an empty password everything is refused, unless the setting allows it.
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

/// UCR-16: any body is ignored.
#[test]
fn ignores_a_body() {
    assert!(changed("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nxyz").is_ok());
    let mut listener = listener();
    let two = signed(1_700_000_001, 1) + &signed(1_700_000_002, 2);
    assert_eq!(receive(&mut listener, &two).map(|accepted| accepted.id()), Ok(1));
    assert_eq!(listener.last_accepted().timestamp, 1_700_000_001);
}

/// T-62: all checks that need no HMAC come first.
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
