use proptest::prelude::*;

use super::*;

const CREDENTIAL: Credential<'static> = Credential { username: "CPE 1", password: "connreq1234" };

fn at(seconds: u64) -> BootTime {
    BootTime::default() + Duration::from_secs(seconds)
}

fn gate() -> Gate {
    Gate::new(b"random")
}

/// The nonce of a challenge.
fn nonce(challenge: &str) -> String {
    challenge.split_once("nonce=\"").and_then(|(_, rest)| rest.split('"').next()).expect("a nonce").to_owned()
}

/// A client's response to a challenge.
fn answer(challenge: &str, Credential { username, password }: Credential<'_>, uri: &str) -> String {
    let nonce = nonce(challenge);
    let secret = hexadecimal(md5(&[username, REALM, password]));
    let what = hexadecimal(md5(&["GET", uri]));
    let response = hexadecimal(md5(&[&secret, &nonce, "00000001", "abc", "auth", &what]));
    format!(
        "Digest username=\"{username}\", realm=\"{REALM}\", nonce=\"{nonce}\", uri=\"{uri}\", cnonce=\"abc\", nc=00000001, \
         qop=auth, response=\"{response}\", algorithm=MD5"
    )
}

fn judge(gate: &mut Gate, now: BootTime, authorization: Option<&str>) -> Result<(), Refusal> {
    gate.judge(now, CREDENTIAL, Request { method: "GET", target: "/", authorization }).map(|Accepted(())| ())
}

/// RFC 2617 3.5: the example of the RFC.
#[test]
fn the_example_of_the_standard_proves_its_password() {
    let header = "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
                  nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", qop=auth, nc=00000001, \
                  cnonce=\"0a4f113b\", response=\"6629fae49393a05397450978507c4ef1\", \
                  opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
    let answer = Answer::parse(header).expect("well-formed");
    let mufasa = |password| Credential { username: "Mufasa", password };
    assert!(answer.proves(mufasa("Circle Of Life"), "GET"));
    assert!(!answer.proves(mufasa("Circle of Life"), "GET") && !answer.proves(mufasa("Circle Of Life"), "POST"));
}

/// UCR-2: a response with the password is accepted once; a repeated response is stale, as is one to an older challenge.
#[test]
fn a_challenge_is_good_once() {
    let mut gate = gate();
    assert_eq!(judge(&mut gate, at(100), None), Err(Refusal::Unauthenticated));
    let challenges = [1, 2, 3].map(|_| gate.challenge(at(100), Refusal::Unauthenticated));
    assert!(!challenges[0].contains("stale") && nonce(&challenges[0]) != nonce(&challenges[1]));
    let answers = challenges.map(|challenge| answer(&challenge, CREDENTIAL, "/"));
    assert_eq!(judge(&mut gate, at(101), Some(&answers[1])), Ok(()));
    assert_eq!(judge(&mut gate, at(101), Some(&answers[1])), Err(Refusal::Stale));
    assert_eq!(judge(&mut gate, at(101), Some(&answers[0])), Err(Refusal::Stale));
    assert_eq!(judge(&mut gate, at(101), Some(&answers[2])), Ok(()));
    assert!(gate.challenge(at(101), Refusal::Stale).ends_with(", stale=true"));
}

/// UCR-2: a challenge expires after half a minute.
#[test]
fn a_challenge_grows_old() {
    let mut gate = gate();
    let late = answer(&gate.challenge(at(100), Refusal::Unauthenticated), CREDENTIAL, "/");
    assert_eq!(judge(&mut gate.clone(), at(130), Some(&late)), Ok(()));
    assert_eq!(judge(&mut gate, at(131), Some(&late)), Err(Refusal::Stale));
}

/// UCR-2: wrong credentials are refused and change nothing.
#[test]
fn wrong_credentials_are_refused() {
    let mut gate = gate();
    let challenge = gate.challenge(at(100), Refusal::Unauthenticated);
    let right = answer(&challenge, CREDENTIAL, "/");
    let foreign = answer(&Gate::new(b"other").challenge(at(100), Refusal::Unauthenticated), CREDENTIAL, "/");
    for (authorization, refusal) in [
        (answer(&challenge, Credential { password: "other", ..CREDENTIAL }, "/"), Refusal::WrongResponse),
        (answer(&challenge, Credential { username: "CPE 2", ..CREDENTIAL }, "/"), Refusal::WrongUser),
        (answer(&challenge, CREDENTIAL, "/other"), Refusal::WrongUser),
        (foreign, Refusal::WrongResponse),
        (right.replace("algorithm=MD5", "algorithm=SHA-256"), Refusal::Malformed),
        (right.replace("qop=auth", "qop=auth-int"), Refusal::Malformed),
        (right.replace("nc=00000001, ", ""), Refusal::Malformed),
        (right.replace("nc=00000001", "nc=00000002"), Refusal::WrongResponse),
        (format!("{right}, username=\"CPE 1\""), Refusal::Malformed),
        (right.replace("Digest", "Basic"), Refusal::Malformed),
    ] {
        assert_eq!(judge(&mut gate, at(101), Some(&authorization)), Err(refusal), "{authorization}");
    }
    assert_eq!(judge(&mut gate, at(101), Some(&right)), Ok(()));
}

/// T-61: an empty password is not secret, so every request is refused.
#[test]
fn an_empty_password_lets_nobody_in() {
    let mut gate = gate();
    let empty = Credential { username: "", password: "" };
    let authorization = answer(&gate.challenge(at(1), Refusal::Unauthenticated), empty, "/");
    let request = Request { method: "GET", target: "/", authorization: Some(&authorization) };
    assert_eq!(gate.judge(at(1), empty, request).map(drop), Err(Refusal::NoPassword));
}

/// UCR-2 (TR-069 3.2.2): requests above the rate limit are refused until time has passed.
#[test]
fn too_many_are_refused() {
    let mut gate = gate();
    let mut wake = |now| {
        let authorization = answer(&gate.challenge(now, Refusal::Unauthenticated), CREDENTIAL, "/");
        judge(&mut gate, now, Some(&authorization))
    };
    for _ in 0..BURST {
        assert_eq!(wake(at(100)), Ok(()));
    }
    assert_eq!(wake(at(100)), Err(Refusal::TooMany));
    assert_eq!([wake(at(103)), wake(at(103))], [Ok(()), Err(Refusal::TooMany)]);
}

proptest! {
    /// UCR-2: no header makes the gate panic or accept a request.
    #[test]
    fn any_header_is_refused(header in "(Digest )?\\PC{0,200}") {
        prop_assert!(judge(&mut gate(), at(1), Some(&header)).is_err());
    }
}
