use std::net::{Ipv4Addr, SocketAddrV4};

use super::vectors::*;
use crate::{connreq::*, secret::SharedSecret, time::UnixTime};

fn authority(text: &str) -> Authority {
    text.parse().unwrap()
}

fn example<'a>() -> ConnectionRequest<'a> {
    ConnectionRequest {
        authority: authority("10.1.1.1:8080"),
        timestamp: 1_120_673_700,
        id: 1234,
        username: "CPE57689",
        nonce: "XTGRWIPC6D3IPXS3",
    }
}

fn signature(request: &ConnectionRequest<'_>, key: &str) -> String {
    request.uri(&SharedSecret::new(key.as_bytes())).rsplit_once("&sig=").unwrap().1.to_owned()
}

/// UCR-29, UCR-30, UCR-35, UCR-36: the example of TR-111 2.2.2.3, except for its signature, whose password is not
/// published.
#[test]
fn writes_the_example_of_the_specification() {
    let uri = example().uri(&SharedSecret::new(b"secret"));
    assert_eq!(uri[..uri.len() - 40], SPEC[..SPEC.len() - 40]);
    assert_eq!(uri.len(), 119);
}

/// UCR-41: the signature covers ts, id, un and cn, concatenated; the key is the password.
#[test]
fn signs_like_the_vectors() {
    for (key, expected) in [
        ("", "5F944EAEB0FB75E6B16C804E2CFF5C8382AA446E"),
        ("secret", "FDA44088E52A347CE49D6312521D5621EEB40037"),
        ("password", "F749EE6D9E3BC469FB709EAD2A75EE7535F58552"),
        ("CPE57689", "B61A74621616A85E1361EF43639F42165A1EB1F6"),
    ] {
        assert_eq!(signature(&example(), key), expected);
    }
    let orange = ConnectionRequest {
        timestamp: 1_237_219_762_255,
        id: 1_237_219_762_255,
        username: "openstb",
        nonce: "1237219762255",
        ..example()
    };
    assert_eq!(signature(&orange, "openstb"), "4407D5B2A2B8286E0A635B8D2BCEA6BA8FE9E3AF");
}

/// UCR-21, UCR-25 to UCR-28: U1 is built byte for byte.
#[test]
fn writes_the_whole_datagram() {
    assert_eq!(signed(1_700_000_000, 1234), U1);
    assert_eq!(U1.len(), 167);
}

/// UCR-36, T-51: names are form-encoded, and the signature covers the decoded values.
#[test]
fn encodes_names() {
    let request =
        ConnectionRequest { timestamp: 1_700_000_001, id: 7, username: "a b+c&d%e", nonce: "N0nce", ..example() };
    let uri = request.uri(&SharedSecret::new(PASSWORD));
    assert!(uri.contains("&un=a+b%2Bc%26d%25e&cn=N0nce&sig=0A8D17D62B2919780688835C52EA825AD4069EE8"), "{uri}");
}

/// UCR-31 to UCR-34, STUN-43: port 80 is omitted when written, and is the default when parsed.
#[test]
fn writes_the_port_unless_it_is_80() {
    assert_eq!(authority("198.51.100.7").to_string(), "198.51.100.7");
    assert_eq!(authority("198.51.100.7").port, 80);
    assert_eq!(authority("cpe.example:4000").to_string(), "cpe.example:4000");
    assert_eq!(authority("cpe.example:80").to_string(), "cpe.example");
    assert_eq!(Authority::from(SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 1), 8080)), authority("10.1.1.1:8080"));
    let on_80 = ConnectionRequest { authority: authority("10.1.1.1"), ..example() };
    let datagram = String::from_utf8(on_80.sign(&SharedSecret::new(PASSWORD)).unwrap()).unwrap();
    assert!(datagram.starts_with("GET http://10.1.1.1?ts="));
    assert!(datagram.ends_with(" HTTP/1.1\r\nHost: 10.1.1.1\r\n\r\n"));
    for wrong in ["", ":80", "cpe:0", "cpe:65536", "cpe:+80", "a/b", "a b:80", "u@h:80", "cpe:", "a?b", "x\r\ny:1"] {
        assert_eq!(wrong.parse::<Authority>(), Err(BadAuthority), "{wrong}");
    }
}

/// T-54, UCR-37: two requests within one second have increasing timestamps.
#[test]
fn timestamps_rise_within_a_second() {
    assert_eq!(next_timestamp(UnixTime(1000), None), 1000);
    assert_eq!(next_timestamp(UnixTime(1000), Some(999)), 1000);
    assert_eq!(next_timestamp(UnixTime(1000), Some(1000)), 1001);
    assert_eq!(next_timestamp(UnixTime(1000), Some(1005)), 1006);
}

/// T-69: a request that does not fit into one packet is not built.
#[test]
fn refuses_to_build_what_does_not_fit_a_packet() {
    let fits = "&".repeat(256);
    assert!(ConnectionRequest { username: &fits, ..example() }.sign(&SharedSecret::new(PASSWORD)).is_ok());
    let long = "N".repeat(1400);
    let refused = ConnectionRequest { nonce: &long, ..example() }.sign(&SharedSecret::new(PASSWORD));
    assert!(refused.unwrap_err().length > MAXIMUM_LENGTH);
}
