use std::{net::SocketAddrV4, time::Duration};

use super::vectors::*;
use crate::{identity::tests::bytes, stun::*, time::BootTime};

const START: BootTime = BootTime(1_000_000_000);

fn at(milliseconds: u64) -> BootTime {
    START + Duration::from_millis(milliseconds)
}

fn asking(request: &str) -> Transaction {
    let mut transaction = Transaction::new(START, SERVER, bytes(request)).unwrap();
    assert_eq!(transaction.poll(START), Progress::Transmit(&bytes(request)));
    transaction
}

fn hear(transaction: &mut Transaction, now: BootTime, from: SocketAddrV4, wire: &str) -> Result<Response, Discarded> {
    transaction.receive(now, from, &Message::parse(&bytes(wire)).unwrap())
}

const BOUND: Response = Response::Bound { mapped_address: MAPPED };

/// S5 with another mapped port.
fn other_mapping() -> String {
    S5.replace("00019c41", "00019c42")
}

/// CPE-35: nine identical copies are sent, and no more.
#[test]
fn copies_leave_when_rfc_3489_says() {
    let mut transaction = Transaction::new(START, SERVER, bytes(S3)).unwrap();
    let mut sent = Vec::new();
    let mut now = START;
    let end = loop {
        match transaction.poll(now) {
            Progress::Transmit(copy) => {
                assert_eq!(copy, bytes(S3));
                sent.push(now.since(START).unwrap().as_millis());
            }
            Progress::Wait(deadline) => now = deadline,
            end => break end,
        }
    };
    assert_eq!(sent, [0, 100, 300, 700, 1500, 3100, 4700, 6300, 7900]);
    assert_eq!(end, Progress::TimedOut);
    assert_eq!(now, START + GIVE_UP);
    assert_eq!(hear(&mut transaction, at(9600), SERVER, S5), Err(Discarded::Late));
}

/// CPE-35: after a late timer, copies are not sent in a burst.
#[test]
fn a_late_poll_sends_one_copy() {
    let mut transaction = asking(S3);
    assert!(matches!(transaction.poll(at(5000)), Progress::Transmit(_)));
    assert_eq!(transaction.poll(at(5000)), Progress::Wait(at(5200)));
}

/// CPE-35: no copy is sent after an answer.
#[test]
fn an_answer_ends_the_copies() {
    let mut transaction = asking(S3);
    assert_eq!(hear(&mut transaction, at(50), SERVER, S5), Ok(BOUND));
    assert_eq!(transaction.poll(at(100)), Progress::Wait(at(10_050)));
    assert_eq!(transaction.poll(at(10_050)), Progress::Done);
    assert_eq!(hear(&mut transaction, at(10_051), SERVER, &other_mapping()), Err(Discarded::Late));
}

/// SEC-3: only the server's answer to this request is accepted.
#[test]
fn foreign_responses_are_not_used() {
    let mut transaction = asking(S3);
    let forged = SocketAddrV4::new(*SERVER.ip(), 3479);
    assert_eq!(hear(&mut transaction, at(1), forged, S5), Err(Discarded::OtherSource));
    assert_eq!(hear(&mut transaction, at(1), SERVER, S10), Err(Discarded::OtherTransaction));
    assert_eq!(hear(&mut transaction, at(1), SERVER, S3), Err(Discarded::NotAResponse));
    assert_eq!(hear(&mut transaction, at(1), SERVER, S12), Err(Discarded::NotAResponse));
    assert_eq!(hear(&mut transaction, at(2), SERVER, S5), Ok(BOUND));
}

/// SEC-3: if a second response contradicts the first one within 10 s, neither is used.
#[test]
fn a_contradicting_response_is_an_attack() {
    let contradictions = [
        (S5.to_owned(), other_mapping(), Attack::OtherMapping),
        (S5.to_owned(), S7.to_owned(), Attack::OtherType),
        (S7.to_owned(), S5.to_owned(), Attack::OtherType),
    ];
    for (first, second, attack) in contradictions {
        let mut transaction = asking(S3);
        assert!(hear(&mut transaction, at(1), SERVER, &first).is_ok());
        assert_eq!(hear(&mut transaction, at(2), SERVER, &first), Err(Discarded::Copy));
        let mut later = transaction.clone();
        assert_eq!(hear(&mut transaction, at(9_999), SERVER, &second), Err(Discarded::Attack(attack)));
        assert_eq!(transaction.poll(at(9_999)), Progress::Done);
        assert_eq!(hear(&mut transaction, at(9_999), SERVER, &first), Err(Discarded::Late));
        assert_eq!(hear(&mut later, at(10_001), SERVER, &second), Err(Discarded::Late));
    }
}

/// SEC-3: more than twice as many responses as requests are an attack, even if they agree.
#[test]
fn too_many_responses_are_an_attack() {
    let mut transaction = asking(S3);
    assert_eq!(hear(&mut transaction, at(1), SERVER, S5), Ok(BOUND));
    assert_eq!(hear(&mut transaction, at(2), SERVER, S5), Err(Discarded::Copy));
    let attack = Discarded::Attack(Attack::TooManyResponses);
    assert_eq!(hear(&mut transaction, at(3), SERVER, S5), Err(attack));
    assert_eq!(attack.label(), "attack_too_many");
}

/// CPE-14: the answer to a signed request needs a valid signature; an error response never has one.
#[test]
fn a_signed_request_wants_a_signed_answer() {
    let mut transaction = asking(S4).signed(secret(), Variants::STRICT);
    let unsigned = S5.replace("0102030405060708090a0b0c0d0e0f10", "1112131415161718191a1b1c1d1e1f20");
    assert_eq!(hear(&mut transaction, at(1), SERVER, &unsigned), Err(IntegrityError::Missing.into()));
    let missigned = S6.replace("7f91", "7f92");
    assert_eq!(hear(&mut transaction, at(2), SERVER, &missigned), Err(IntegrityError::Mismatch.into()));
    let mut refused = transaction.clone();
    assert_eq!(hear(&mut transaction, at(3), SERVER, S6), Ok(BOUND));
    let error = S7.replace("0102030405060708090a0b0c0d0e0f10", "1112131415161718191a1b1c1d1e1f20");
    assert_eq!(hear(&mut refused, at(3), SERVER, &error), Ok(Response::Refused { code: 401 }));
}

/// T-20: an answer with an unknown mandatory attribute is not used, and ends the retransmissions.
#[test]
fn an_answer_that_is_not_understood_ends_the_transaction() {
    let mut transaction = asking(S3);
    let strange = S5.replace("01010024", "01010028") + "77770000";
    assert_eq!(hear(&mut transaction, at(1), SERVER, &strange), Err(Discarded::NotUnderstood(0x7777)));
    assert_eq!(transaction.poll(at(100)), Progress::Done);
}

/// The identifier of S1 to S5, without and with the magic cookie of RFC 5389.
const ID: &str = "0102030405060708090a0b0c0d0e0f10";
const COOKIE_ID: &str = "2112a44205060708090a0b0c0d0e0f10";
/// The mapped address as MAPPED-ADDRESS, `XORed` with the cookie, and `XORed` with `ID`.
const PLAIN: &str = "0001000800019c41c6336407";
const BY_COOKIE: &str = "002000080001bd53e721c045";
const BY_ID: &str = "0020000800019d43c7316703";

/// A Binding Response with these attributes.
fn response(id: &str, attributes: &[&str]) -> String {
    format!("0101{:04x}{id}{}", attributes.concat().len() / 2, attributes.concat())
}

fn asking_with_cookie() -> Transaction {
    asking(&S3.replace(ID, COOKIE_ID)).with_xor_mapped_address(true)
}

/// T-20: if enabled, XOR-MAPPED-ADDRESS of RFC 5389 or of the drafts before it is used when MAPPED-ADDRESS is missing.
#[test]
fn takes_the_xor_form_when_told() {
    let draft = BY_COOKIE.replace("0020", "8020");
    for modern in [BY_COOKIE, &draft] {
        let answer = response(COOKIE_ID, &[modern]);
        assert_eq!(hear(&mut asking(&S3.replace(ID, COOKIE_ID)), at(1), SERVER, &answer), Err(Discarded::Incomplete));
        assert_eq!(hear(&mut asking_with_cookie(), at(1), SERVER, &answer), Ok(BOUND));
    }
    let all = response(COOKIE_ID, &[PLAIN, BY_COOKIE, &draft]);
    assert_eq!(hear(&mut asking_with_cookie(), at(1), SERVER, &all), Ok(BOUND));
}

/// T-20: without the cookie in the identifier, the operand of the XOR is unknown, so XOR-MAPPED-ADDRESS is not used.
#[test]
fn the_xor_form_means_nothing_without_the_cookie() {
    for modern in [BY_COOKIE, BY_ID, &BY_ID.replace("0020", "8020")] {
        let mut transaction = asking(S3).with_xor_mapped_address(true);
        assert_eq!(hear(&mut transaction, at(1), SERVER, &response(ID, &[modern])), Err(Discarded::Incomplete));
    }
}

/// T-20: a response whose address attributes differ is not used, because either may be wrong. If XOR-MAPPED-ADDRESS is
/// not enabled, only MAPPED-ADDRESS is read (TR-111 2.2.1.1).
#[test]
fn forms_that_differ_are_not_used() {
    let draft = BY_ID.replace("0020", "8020");
    for other in [BY_ID, &draft] {
        let attributes = [[PLAIN, other], [other, PLAIN], [BY_COOKIE, &draft]];
        for attributes in attributes {
            let answer = response(COOKIE_ID, &attributes);
            assert_eq!(hear(&mut asking_with_cookie(), at(1), SERVER, &answer), Err(Discarded::AddressesDiffer));
        }
        let mut plain = asking(S3);
        assert_eq!(hear(&mut plain, at(1), SERVER, &response(ID, &[PLAIN, BY_COOKIE, other])), Ok(BOUND));
    }
}

/// RFC 3489 9.4: a client ignores errors with codes below 400.
#[test]
fn an_error_of_a_low_class_says_nothing() {
    let low = S7.replace("00000401", "00000301");
    assert_eq!(hear(&mut asking(S3), at(1), SERVER, &low), Err(Discarded::Incomplete));
}
