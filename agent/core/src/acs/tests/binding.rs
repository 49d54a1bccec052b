//! What the server learns of its CPEs.

use std::time::Duration;

use super::{lab::*, seen as seen_at};
use crate::{
    acs::{Approach, Challenge, Credentials, Duplicates, Learned, Registry, Settings, Verdict},
    identity::tests::bytes,
    stun::Variant,
};

const NEW: Option<Learned> = Some(Learned::Authenticated { number: 0, is_new: true });

/// STUN-23, STUN-24, STUN-26, STUN-31: a change is answered with 401 and believed when it is signed; until then it is a
/// claim.
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
    // BINDING-CHANGE alone says nothing (STUN-3).
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
    // A 401 that was lost is given again.
    let refused: Vec<_> = (0..3).map(|_| lab.ask_from(moved(7), &bytes(S3)).sent).collect();
    assert_eq!(refused, vec![Some((moved(7), bytes(S7))); 3]);
}

/// T-25: where copies are dropped, each request is answered once.
#[test]
fn copies_may_be_dropped() {
    let mut lab = Lab::with(Settings { duplicates: Duplicates::Drop, ..Settings::default() });
    for request in [S3, S4] {
        assert!(lab.told(request).is_some());
        assert_eq!(lab.ask(&bytes(request)).verdict, Verdict::CopyIgnored);
    }
}

/// T-67: a signed request that comes from elsewhere, at once or hours later, changes nothing and gets no answer.
#[test]
fn a_signed_request_counts_once() {
    let mut lab = Lab::new();
    lab.ask(&bytes(S4));
    let known = lab.state().clone();
    for (pause, port) in [(1, 7), (60, 7), (3_600, 40_001), (80_000, 8)] {
        lab.pass(Duration::from_secs(pause));
        let replay = lab.ask_from(moved(port), &bytes(S4));
        assert_eq!((replay.verdict, replay.sent), (Verdict::Replayed, None));
        assert_eq!(replay.learned, Some(Learned::Replayed { number: 0 }));
        assert_eq!(*lab.state(), known);
    }
    assert_eq!(lab.ask_from(moved(7), &signed(41)).learned, NEW);
}

/// STUN-29, STUN-30: a keep-alive is no proof. From where the CPE is known to be it is answered; from elsewhere it has to
/// be signed, if the operator does not say otherwise.
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
        // T-65: it overrides nothing.
        assert_eq!(lab.state().authenticated, Some(seen));
        assert_eq!(lab.ask_from(moved(7), &keep_alive(41).build()).learned, None);
    }
}

/// STUN-30: a CPE that is to be verified gets 401 to its next request, and then no more.
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

/// STUN-18, STUN-46, T-66: who has no password, or is reached by notification, is never asked for a signature.
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
