use std::{net::SocketAddrV4, time::Duration};

use super::vectors::*;
use crate::{
    identity::tests::bytes,
    stun::{Replies, Seen, TransactionId},
    time::BootTime,
};

const NOW: BootTime = BootTime(1_000_000_000);
const LATER: Duration = Duration::from_secs(10);

fn look<'a>(replies: &'a mut Replies, now: BootTime, source: SocketAddrV4, request: &str) -> Seen<'a> {
    let request = bytes(request);
    replies.look(now, source, id_of(&request), &request)
}

fn id_of(request: &[u8]) -> TransactionId {
    TransactionId(request[4..20].try_into().unwrap())
}

fn noted(capacity: usize) -> Replies {
    let mut replies = Replies::new(capacity, 7);
    assert_eq!(look(&mut replies, NOW, MAPPED, S3), Seen::New);
    replies.note(NOW, MAPPED, id(1), &bytes(S3), &bytes(S7));
    replies
}

/// T-25, STUN-27, STUN-28: a copy gets the first answer again, as long as its client listens.
#[test]
fn a_copy_gets_the_same_answer() {
    let mut replies = noted(8);
    for _ in 0..9 {
        assert_eq!(look(&mut replies, NOW, MAPPED, S3), Seen::Copy(&bytes(S7)));
    }
    assert_eq!(look(&mut replies, NOW, MAPPED, S4), Seen::New);
    let last = BootTime(NOW.0 + LATER.as_nanos() as u64 - 1);
    assert_eq!(look(&mut replies, last, MAPPED, S3), Seen::Copy(&bytes(S7)));
    assert_eq!(look(&mut replies, NOW + LATER, MAPPED, S3), Seen::New);
}

/// T-67: the same bytes from another source are a replay and get no answer.
#[test]
fn a_copy_from_elsewhere_is_a_replay() {
    let elsewhere = SocketAddrV4::new(*MAPPED.ip(), 40002);
    assert_eq!(look(&mut noted(8), NOW, elsewhere, S3), Seen::Replayed);
}

/// T-25: a signed request with the identifier of its 401 is new, and its answer is kept for the full time.
#[test]
fn other_bytes_under_the_same_id_are_another_request() {
    let mut replies = noted(8);
    let signed = S4.replace("1112131415161718191a1b1c1d1e1f20", "0102030405060708090a0b0c0d0e0f10");
    assert_eq!(look(&mut replies, NOW, MAPPED, &signed), Seen::New);
    replies.note(NOW + LATER / 2, MAPPED, id(1), &bytes(&signed), &bytes(S5));
    assert_eq!(look(&mut replies, NOW + LATER, MAPPED, &signed), Seen::Copy(&bytes(S5)));
}

/// T-25: memory is bounded; the oldest answer is discarded first.
#[test]
fn the_oldest_answer_makes_room() {
    let mut replies = noted(2);
    for first in [0x11, 0x21] {
        replies.note(NOW, MAPPED, id(first), b"request", b"reply");
    }
    assert_eq!(look(&mut replies, NOW, MAPPED, S3), Seen::New);
    for first in [0x11, 0x21] {
        assert_eq!(replies.look(NOW, MAPPED, id(first), b"request"), Seen::Copy(b"reply"));
    }
}
