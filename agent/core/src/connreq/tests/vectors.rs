//! Test vectors of UDP Connection Requests.

use crate::{connreq::*, time::UnixTime};

/// U1 as a datagram.
pub const U1: &str = "GET http://198.51.100.7:40001?ts=1700000000&id=1234&un=CPE57689&cn=XTGRWIPC6D3IPXS3\
                      &sig=A326A08B40711E38DE468EF86B9C21B0B3C3EAAC HTTP/1.1\r\nHost: 198.51.100.7:40001\r\n\r\n";

/// The example of TR-111 2.2.2.3; its password is not published.
pub const SPEC: &str = "http://10.1.1.1:8080?ts=1120673700&id=1234&un=CPE57689&cn=XTGRWIPC6D3IPXS3\
                        &sig=3545F7B5820D76A3DF45A3A509DA8D8C38F13512";

/// U2: `un` on the wire for the name `a b+c&d%e`.
pub const U2_WIRE: &str = "a+b%2Bc%26d%25e";

/// Signature of U2 over the bytes on the wire.
pub const U2_RAW: &str = "04FA6AA72A459499D8592B249A6AA3C5DDED4F76";

pub const PASSWORD: &[u8] = b"cr-secret-01";

/// One minute after the `ts` of U1.
pub const NOW: Option<UnixTime> = Some(UnixTime(1_700_000_060));

pub fn listener() -> Listener {
    with(Settings::default())
}

pub fn with(settings: Settings) -> Listener {
    Listener::new(Credential::new(b"CPE57689", PASSWORD), settings, LastAccepted::default())
}

/// Result of U1 with `from` replaced by `to`.
pub fn changed(from: &str, to: &str) -> Result<AuthenticRequest, Refusal> {
    assert!(U1.contains(from), "{from}");
    receive(&mut listener(), &U1.replace(from, to))
}

/// Receives a datagram at [`NOW`]; a refused one does not change the state (UCR-8).
pub fn receive(listener: &mut Listener, datagram: &str) -> Result<AuthenticRequest, Refusal> {
    let before = listener.last_accepted();
    let result = listener.receive(NOW, Datagram(datagram.as_bytes()));
    assert_eq!(result.is_err(), listener.last_accepted() == before);
    result
}

/// A request of the CPE's ACS.
pub fn signed(timestamp: u64, id: u64) -> String {
    let authority = "198.51.100.7:40001".parse().unwrap();
    let request = ConnectionRequest { authority, timestamp, id, username: "CPE57689", nonce: "XTGRWIPC6D3IPXS3" };
    String::from_utf8(request.sign(&crate::secret::SharedSecret::new(PASSWORD)).unwrap()).unwrap()
}
