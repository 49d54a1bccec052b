use std::net::SocketAddrV4;

use proptest::{collection::vec, prelude::*};

use super::lab::*;
use crate::{
    acs::{Challenge, ResponseAddress, Settings},
    identity::tests::bytes,
    stun::Message,
};

/// SEC-7: an answer is at most this many bytes longer than its request; a request of 20 bytes gets 56.
const GROWTH: usize = 36;

fn settings() -> impl Strategy<Value = Settings> {
    let challenge = prop_oneof![Just(Challenge::Moved), Just(Challenge::All), Just(Challenge::Binding)];
    let response_address = prop_oneof![Just(ResponseAddress::Own), Just(ResponseAddress::Any)];
    (challenge, response_address).prop_map(|(challenge, response_address)| Settings {
        challenge,
        response_address,
        ..Settings::default()
    })
}

/// Datagrams that often are nearly requests.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let vectors = [S1, S2, S3, S4, S9].map(bytes);
    let near = (prop::sample::select(vectors.to_vec()), vec((any::<prop::sample::Index>(), any::<u8>()), 0..4));
    let near = near.prop_map(|(mut message, changes)| {
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        message
    });
    let built =
        vec((prop::sample::select(vec![1_u16, 2, 3, 6, 8, 0x7777, 0x0077, 0xc001, 0xc002]), 0_usize..24), 0..40);
    let built = built.prop_map(|attributes| {
        let mut message = vec![0, 1, 0, 0];
        message.extend([7; 16]);
        for (code, length) in attributes {
            message.extend(code.to_be_bytes());
            message.extend((length as u16).to_be_bytes());
            message.extend(vec![1; length]);
        }
        let length = (message.len() - 20) as u16;
        message[2..4].copy_from_slice(&length.to_be_bytes());
        message
    });
    prop_oneof![vec(any::<u8>(), 0..200), near, built]
}

proptest! {
    /// SEC-7, STUN-11: any datagram gets at most one answer; the answer is well-formed, has the request's transaction
    /// identifier, and is at most [`GROWTH`] bytes longer.
    #[test]
    fn no_answer_is_much_longer_than_its_request(
        settings in settings(),
        datagrams in vec((datagram(), 1_u16..), 1..20),
    ) {
        let mut lab = Lab::with(settings);
        for (datagram, port) in datagrams {
            let source = SocketAddrV4::new([198, 51, 100, 7].into(), port);
            if let Some((_, answer)) = lab.ask_from(source, &datagram).sent {
                prop_assert!(answer.len() <= datagram.len() + GROWTH, "{} to {}", answer.len(), datagram.len());
                let message = Message::parse(&answer);
                prop_assert!(message.is_ok(), "{message:?}");
                prop_assert_eq!(&answer[4..20], &datagram[4..20]);
            }
        }
    }
}

/// SEC-7: the sizes that `docs/acs.md` states.
#[test]
fn answers_are_as_long_as_documented() {
    let mut lab = Lab::new();
    let lengths: Vec<_> = [S1, S2, S3, S4, S9]
        .map(bytes)
        .iter()
        .map(|request| (request.len(), lab.ask(request).sent.expect("an answer").1.len()))
        .collect();
    assert_eq!(lengths, [(44, 56), (56, 56), (60, 40), (84, 80), (32, 68)]);
}
