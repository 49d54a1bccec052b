use proptest::{collection::vec, prelude::*};

use super::vectors::*;
use crate::{connreq::*, secret::SharedSecret};

proptest! {
    /// UCR-15: no datagram makes the listener panic, accept a request or change its state.
    #[test]
    fn any_bytes_are_refused(datagram in vec(any::<u8>(), 0..256)) {
        let mut listener = listener();
        prop_assert!(listener.receive(NOW, Datagram(&datagram)).is_err());
        prop_assert_eq!(listener.last_accepted(), LastAccepted::default());
    }

    /// UCR-4, UCR-13: a genuine request with one changed byte is either the same request or refused.
    #[test]
    fn a_changed_byte_never_makes_another_request(at in 0..U1.len(), byte: u8) {
        let mut datagram = U1.as_bytes().to_vec();
        datagram[at] = byte;
        if let Ok(accepted) = listener().receive(NOW, Datagram(&datagram)) {
            prop_assert_eq!((accepted.timestamp(), accepted.id()), (1_700_000_000, 1234));
        }
    }

    /// SEC-5, T-60: only one division of the digits between ts and id is accepted.
    #[test]
    fn no_other_border_is_accepted(
        timestamp in 1_000_000_000..1_700_086_460u64,
        id: u64,
        cut in 0..30usize,
        any_unit: bool,
    ) {
        let digits = format!("{timestamp}{id}");
        prop_assume!(cut <= digits.len() && cut != 10);
        let moved = format!("ts={}&id={}&", &digits[..cut], &digits[cut..]);
        let shifted = signed(timestamp, id).replace(&format!("ts={timestamp}&id={id}&"), &moved);
        let timestamp_unit = if any_unit { TimestampUnit::Any } else { TimestampUnit::Seconds };
        let mut listener = with(Settings { timestamp_unit, ..Settings::default() });
        prop_assert!(receive(&mut listener, &signed(timestamp, id)).is_ok());
        prop_assert!(receive(&mut listener, &shifted).is_err());
    }

    /// UCR-25, UCR-36, T-51: a CPE accepts the requests of its ACS, for any username.
    #[test]
    fn what_is_sent_is_accepted(
        username in "\\PC{0,40}",
        nonce in "\\PC{0,40}",
        password in vec(any::<u8>(), 1..100),
        timestamp in 1..1_700_086_460u64,
        id: u64,
        host in "[a-z0-9.-]{1,20}",
        port in 1..=u16::MAX,
    ) {
        let authority = Authority { host, port };
        let request = ConnectionRequest { authority, timestamp, id, username: &username, nonce: &nonce };
        let datagram = request.sign(&SharedSecret::new(&password)).unwrap();
        let credential = Credential::new(username.as_bytes(), &password);
        let mut listener = Listener::new(credential, Settings::default(), LastAccepted::default());
        prop_assert!(listener.receive(NOW, Datagram(&datagram)).is_ok());
        prop_assert_eq!(listener.receive(NOW, Datagram(&datagram)), Err(Refusal::StaleTimestamp));
    }

    /// T-51: a CPE accepts the requests of an ACS that does not encode, unless the username must be encoded.
    #[test]
    fn what_is_sent_raw_is_accepted(username in "\\PC{1,20}", nonce in "[0-9A-Za-z%+=/]{0,20}") {
        let mut signature = SharedSecret::new(PASSWORD).signature();
        signature.cover(format!("17000000001{username}{nonce}").as_bytes());
        let signature = signature.finish().map(|byte| format!("{byte:02x}")).concat();
        let query = format!("ts=1700000000&id=1&un={username}&cn={nonce}&sig={signature}");
        let datagram = format!("GET http://h?{query} HTTP/1.1\r\nHost: h\r\n\r\n");
        let credential = Credential::new(username.as_bytes(), PASSWORD);
        let mut listener = Listener::new(credential, Settings::default(), LastAccepted::default());
        let taken = listener.receive(NOW, Datagram(datagram.as_bytes())).map(|accepted| accepted.id());
        let expected = if must_be_encoded(&username).is_some() { Err(Refusal::UnencodedName) } else { Ok(1) };
        prop_assert_eq!(taken, expected);
    }
}
