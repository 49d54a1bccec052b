//! What the server learns from the requests of CPEs.

use std::time::Duration;

use super::{lab::*, seen as seen_at};
use crate::{
    acs::{
        Approach, Challenge, Credentials, Duplicates, Judged, Learned, Registry, Remembered, Settings, State, Verdict,
    },
    identity::tests::bytes,
    stun::Variant,
};

const NEW: Option<Learned> = Some(Learned::Authenticated { number: 0, is_new: true });

/// STUN-23, STUN-24, STUN-26, STUN-31: a change is answered with 401 and accepted once it is signed; until then it is
/// tentative.
#[test]
fn a_change_has_to_be_signed() {
    let mut lab = Lab::new();
    let refused = lab.ask(&bytes(S3));
    assert_eq!((refused.verdict, refused.sent), (Verdict::Unauthorized, Some((MAPPED, bytes(S7)))));
    assert_eq!(refused.learned, Some(Learned::Tentative { number: 0 }));
    assert_eq!((lab.state().authenticated, lab.state().tentative), (None, Some(seen_at(40_001, 1_700_000_000))));
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.ask(&bytes(S4)).learned, NEW);
    assert_eq!((lab.state().authenticated, lab.state().tentative), (Some(seen_at(40_001, 1_700_000_005)), None));
    assert_eq!(lab.server.registry().authenticated(), 1);
    // BINDING-CHANGE without CONNECTION-REQUEST-BINDING is ignored (STUN-3).
    let alone = bytes("000100101112131415161718191a1b1c1d1e1f20c0020000000600084350453537363839");
    assert_eq!(lab.ask(&alone).verdict, Verdict::Answered);
}

/// STUN-27, STUN-28, T-25: nine copies are one change, and each gets the same answer.
#[test]
fn copies_are_one_change() {
    let mut lab = Lab::new();
    let answers: Vec<_> = (0..9).map(|_| lab.ask(&bytes(S4))).collect();
    assert!(answers.iter().all(|answer| answer.sent == Some((MAPPED, bytes(S6)))));
    assert_eq!(answers.iter().filter(|answer| answer.learned.is_some()).count(), 1);
    assert_eq!(answers[8].verdict, Verdict::Copy);
    // A lost 401 is repeated.
    let refused: Vec<_> = (0..3).map(|_| lab.ask_from(moved(7), &bytes(S3)).sent).collect();
    assert_eq!(refused, vec![Some((moved(7), bytes(S7))); 3]);
}

/// T-25: if copies are dropped, each request is answered once.
#[test]
fn copies_may_be_dropped() {
    let mut lab = Lab::with(Settings { duplicates: Duplicates::Drop, ..Settings::default() });
    for request in [S3, S4] {
        assert!(lab.told(request).is_some());
        assert_eq!(lab.ask(&bytes(request)).verdict, Verdict::CopyIgnored);
    }
}

/// T-67: a signed request that arrives again from another address, at once or hours later, changes nothing and gets no
/// answer.
#[test]
fn a_signed_request_counts_once() {
    let mut lab = Lab::new();
    lab.ask(&bytes(S4));
    let known = lab.state().clone();
    for (pause, port) in [(1, 7), (60, 7), (3_600, 40_001), (80_000, 8), (900_000, 9)] {
        lab.pass(Duration::from_secs(pause));
        let replay = lab.ask_from(moved(port), &bytes(S4));
        assert_eq!((replay.verdict, replay.sent), (Verdict::Replayed, None));
        assert_eq!(replay.learned, Some(Learned::Replayed { number: 0 }));
        assert_eq!(*lab.state(), known);
    }
    assert_eq!(lab.ask_from(moved(7), &signed(41)).learned, NEW);
}

/// T-67: the answer waits until the store remembers the request. Meanwhile, copies from the same source are one change;
/// copies from another source are replays.
#[test]
fn an_answer_waits_for_the_store() {
    let mut lab = Lab::new();
    let (judged, answer) = lab.judge(MAPPED, &bytes(S4), None);
    let Judged::Accepted(accepted) = judged else { panic!("{judged:?}") };
    assert_eq!((lab.state().authenticated, lab.ask(&bytes(S4)).verdict), (None, Verdict::CopyIgnored));
    let replay = lab.ask_from(moved(7), &bytes(S4));
    assert_eq!((replay.verdict, replay.sent), (Verdict::Replayed, None));
    let concluded = lab.conclude(&accepted, answer);
    assert_eq!((concluded.learned, concluded.sent), (NEW, Some((MAPPED, bytes(S6)))));
    assert_eq!(lab.ask(&bytes(S4)).sent, Some((MAPPED, bytes(S6))));
    // The CPE may be removed while the store is asked.
    let (judged, answer) = lab.judge(moved(7), &signed(41), None);
    let Judged::Accepted(accepted) = judged else { panic!("{judged:?}") };
    lab.server.registry_mut().remove(USER);
    assert_eq!(lab.conclude(&accepted, answer).learned, None);
}

/// T-67: a request that another server or an earlier process accepted is a replay.
#[test]
fn a_request_that_the_store_knows_is_a_replay() {
    let mut lab = Lab::new();
    lab.remembered = Remembered::Before;
    for _ in 0..2 {
        let replay = lab.ask(&bytes(S4));
        assert_eq!((replay.verdict, replay.sent), (Verdict::Replayed, None));
        assert_eq!(replay.learned, Some(Learned::Replayed { number: 0 }));
        lab.remembered = Remembered::Now;
    }
    assert_eq!(*lab.state(), State::default());
    // The same after a restart of the process.
    let mut lab = Lab::new();
    lab.ask(&bytes(S4));
    let mut again = Lab::new();
    lab.server.remembered().for_each(|request| again.server.remember(request));
    assert_eq!(again.ask_from(moved(7), &bytes(S4)).verdict, Verdict::Replayed);
}

/// T-67: while the store is unavailable, a signed request is answered and changes no binding; the CPE has to sign
/// again.
#[test]
fn nothing_moves_while_the_store_is_away() {
    let mut lab = Lab::with(Settings { challenge: Challenge::Change, ..Settings::default() });
    lab.ask(&bytes(S4));
    let known = lab.state().authenticated;
    lab.remembered = Remembered::NotAtAll;
    let elsewhere = lab.ask_from(moved(7), &signed(41));
    assert_eq!((elsewhere.verdict, elsewhere.learned), (Verdict::NotKept, Some(Learned::NotKept { number: 0 })));
    let copy = lab.ask_from(moved(7), &signed(41));
    assert_eq!((copy.verdict, copy.sent), (Verdict::Copy, elsewhere.sent.clone()));
    assert_eq!(elsewhere.sent.map(|(to, _)| to), Some(moved(7)));
    assert_eq!((lab.state().authenticated, lab.state().must_verify), (known, true));
    assert_eq!(lab.ask_from(moved(7), &keep_alive(51).build()).verdict, Verdict::Unauthorized);
    lab.remembered = Remembered::Now;
    assert_eq!(lab.ask_from(moved(8), &signed(41)).verdict, Verdict::Replayed);
    assert_eq!(lab.ask_from(moved(7), &signed(61)).learned, NEW);
    // At its known address the CPE is seen and has nothing to prove.
    lab.remembered = Remembered::NotAtAll;
    lab.pass(Duration::from_secs(30));
    lab.ask_from(moved(7), &signed(71));
    let seen = lab.state().authenticated.expect("signed");
    assert_eq!((seen.last_seen.0 - seen.since.0, lab.state().must_verify), (30, false));
}

/// A CPE whose record cannot be read is not told that it is unknown.
#[test]
fn a_cpe_whose_record_cannot_be_read_gets_no_answer() {
    let mut lab = Lab::new();
    let cpe = lab.server.registry_mut().remove(USER).expect("it is there");
    lab.server.registry_mut().set_unreadable(&cpe.name, true);
    for request in [S2, S4] {
        let answer = lab.ask(&bytes(request));
        assert_eq!((answer.verdict, answer.sent), (Verdict::Unreadable, None));
    }
    // A known CPE is served until its record can be read again.
    lab.server.registry_mut().add(cpe.clone()).expect("a free name");
    assert_eq!(lab.ask(&bytes(S4)).learned, NEW);
    lab.server.registry_mut().remove(USER);
    lab.server.registry_mut().set_unreadable(&cpe.name, false);
    assert_eq!(lab.ask(&signed(41)).verdict, Verdict::StaleCredentials);
}

/// STUN-29, STUN-30: a keep-alive proves nothing. From the CPE's known address it is answered; from another address it
/// has to be signed, unless the operator decides otherwise.
#[test]
fn a_keep_alive_from_elsewhere_has_to_be_signed() {
    for (challenge, from_there, from_elsewhere) in [
        (Challenge::Change, Verdict::Answered, Verdict::Answered),
        (Challenge::Moved, Verdict::Answered, Verdict::Unauthorized),
        (Challenge::Binding, Verdict::Unauthorized, Verdict::Unauthorized),
    ] {
        let mut lab = Lab::with(Settings { challenge, ..Settings::default() });
        assert_eq!(lab.ask(&keep_alive(1).build()).verdict == Verdict::Answered, challenge != Challenge::Binding);
        lab.ask(&bytes(S4));
        lab.pass(Duration::from_secs(30));
        assert_eq!(lab.ask(&keep_alive(21).build()).verdict, from_there, "{challenge:?}");
        let seen = lab.state().authenticated.expect("signed");
        assert_eq!(seen.last_seen.0 - seen.since.0, 30);
        let elsewhere = lab.ask_from(moved(7), &keep_alive(31).build());
        assert_eq!((elsewhere.verdict, elsewhere.learned), (from_elsewhere, Some(Learned::Tentative { number: 0 })));
        // T-65: it replaces no authenticated binding.
        assert_eq!(lab.state().authenticated, Some(seen));
        assert_eq!(lab.ask_from(moved(7), &keep_alive(41).build()).learned, None);
    }
}

/// STUN-30: a CPE that has to be verified gets one 401 to its next request.
#[test]
fn a_binding_is_verified_when_asked() {
    let mut lab = Lab::new();
    lab.ask(&bytes(S4));
    lab.server.registry_mut().update(0, |state| state.must_verify = true);
    assert_eq!(lab.ask(&keep_alive(21).build()).verdict, Verdict::Unauthorized);
    let verified = lab.ask(&keep_alive(31).sign(&secret(), Variant::A));
    assert_eq!(verified.learned, Some(Learned::Authenticated { number: 0, is_new: false }));
    assert!(!lab.state().must_verify);
    assert_eq!(lab.ask(&keep_alive(41).build()).verdict, Verdict::Answered);
}

/// STUN-18, STUN-46, T-66: a CPE without password, or one that uses notifications, is never asked for a signature.
#[test]
fn only_who_can_sign_is_asked_to() {
    let mut lab = Lab::with(Settings { approach: Approach::Notification, ..Settings::default() });
    assert_eq!(lab.told(S3), Some(bytes(S5)));
    assert_eq!(lab.state().tentative, None);
    let mut lab = Lab::new();
    lab.server.registry_mut().set_credentials(0, Credentials::default());
    assert_eq!(lab.told(S3), Some(bytes(S5)));
    assert_eq!(lab.state().tentative, Some(seen_at(40_001, 1_700_000_000)));
    assert_eq!(lab.ask(&bytes(S4)).verdict, Verdict::StaleCredentials);
    *lab.server.registry_mut() = Registry::new(7);
    assert_eq!(lab.told(S3), Some(bytes(S5)));
}
