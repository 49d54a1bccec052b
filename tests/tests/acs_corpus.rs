//! Requests to the STUN server through the line-rate path: what it answers, what it leaves to the socket, and with what
//! bytes.

use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use tr111_common::counter::{Hook, Outcome};
use tr111_core::{
    acs::{Cpe, Credentials, Ends, First, Judged, Now, Remembered, Seen, Server, Settings, State},
    short::Short,
    time::{BootTime, UnixTime},
};
use tr111_tests::{
    corpus::{
        self, Frame,
        acs::{NAMES, SERVERS, SOURCE, answer_frame},
    },
    line_rate::Program,
    vectors::{S5, hex},
};

/// Bytes of Ethernet, IPv4 and UDP headers in an untagged frame.
const HEADERS: usize = 42;

fn frames() -> Result<Vec<Frame>> {
    let mut frames = corpus::load()?;
    frames.retain(|frame| frame.hook().is_ok_and(|hook| hook == Hook::AcsStun));
    ensure!(frames.len() > 60, "the corpus has lost its requests");
    Ok(frames)
}

fn judge(program: &mut Program, frame: &Frame) -> Result<()> {
    let expected = frame.class()?;
    let bytes = frame.bytes()?;
    let verdict = program.run(&bytes)?;
    ensure!(verdict.classes == [(expected, 1)], "counted as {:?} instead of {expected:?}", verdict.classes);
    if expected.outcome() == Outcome::Answered {
        ensure!(verdict.is_sent_back, "it is not answered");
        let answer = answer_frame(frame)?;
        ensure!(verdict.frame == answer, "the answer is\n{:02x?}\ninstead of\n{answer:02x?}", verdict.frame);
    } else {
        ensure!(!verdict.is_sent_back, "it is answered");
        ensure!(verdict.frame == bytes, "the frame was changed");
    }
    Ok(())
}

/// STUN-2, STUN-15, STUN-25, STUN-29, T-63: plain requests and keep-alives of registered bindings get S5 in a frame to
/// their sender, with both checksums, in the VLAN that they came by; every other frame goes on as it came, counted by why.
#[test]
fn every_request_is_answered_or_left_to_the_socket() -> Result<()> {
    let mut program = Program::load()?;
    let wrong: Vec<_> = frames()?
        .iter()
        .filter_map(|frame| Some(format!("{}: {:#}", frame.name, judge(&mut program, frame).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} frames:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// The server behind the socket, with the same CPEs registered.
fn server() -> Result<Server> {
    let mut server = Server::new(7, Settings::default());
    for name in NAMES {
        let name = Short::from(name.as_bytes());
        let credentials = Credentials { stun_password: Short::from(b"secret".as_slice()), ..Credentials::default() };
        let (since, last_seen) = (UnixTime(1), UnixTime(1));
        let seen = Seen { address: SOURCE, server: SERVERS[0], since, last_seen };
        let state = State { authenticated: Some(seen), ..State::default() };
        server.registry_mut().add(Cpe { name, credentials, state })?;
    }
    Ok(server)
}

/// STUN-11, STUN-29: what is answered at line rate gets the very bytes that the socket would give, to the same address,
/// and teaches the registry nothing but that the binding is there.
#[test]
fn the_socket_gives_the_same_bytes() -> Result<()> {
    let mut program = Program::load()?;
    let mut server = server()?;
    let now = Now { boot: BootTime(1), unix: UnixTime(2) };
    let mut compared = 0;
    for frame in frames()? {
        let bytes = frame.bytes()?;
        let verdict = program.run(&bytes)?;
        if !verdict.is_sent_back {
            continue;
        }
        compared += 1;
        let ip = HEADERS - 28 + 4 * frame.tags.len();
        let address = |at: usize, port: usize| -> Result<SocketAddrV4> {
            let octets: [u8; 4] = *bytes.get(ip + at..).and_then(<[u8]>::first_chunk).context("an address")?;
            let port = u16::from_be_bytes([bytes[ip + port], bytes[ip + port + 1]]);
            Ok(SocketAddrV4::new(octets.into(), port))
        };
        let ends = Ends { source: address(12, 20)?, server: address(16, 22)? };
        let length = usize::from(u16::from_be_bytes([bytes[ip + 24], bytes[ip + 25]]));
        let mut answer = Vec::new();
        let outcome = match server.settings().judge(ends, &bytes[ip + 28..ip + 20 + length], &mut answer) {
            First::Settled(outcome) => outcome,
            First::Pending(request) => match server.judge(now, &request, None, &mut answer) {
                Judged::Settled(outcome) => outcome,
                Judged::Accepted(accepted) => server.conclude(now, &accepted, Remembered::Now, &answer),
            },
        };
        let name = &frame.name;
        assert_eq!((outcome.to, outcome.learned), (Some(ends.source), None), "{name}");
        assert_eq!(&verdict.frame[ip + 28..], answer, "{name}");
    }
    assert!(compared > 15, "only {compared} were answered");
    Ok(())
}

/// SEC-7: whatever is asked, what is answered is S5's 56 bytes, at most 2.8 times the request.
#[test]
fn an_answer_is_never_longer_than_stated() -> Result<()> {
    let mut program = Program::load()?;
    let mut answered = 0;
    for frame in frames()?.iter().filter(|frame| frame.tags.is_empty()) {
        let verdict = program.run(&frame.bytes()?)?;
        if verdict.is_sent_back {
            assert_eq!(verdict.frame.len() - HEADERS, hex(S5).len(), "{}", frame.name);
            answered += 1;
        }
    }
    assert!(answered > 10, "only {answered} were answered");
    Ok(())
}

/// No answer is a request again, so nobody's server and ours can be made to talk to each other (SEC-7).
#[test]
fn an_answer_is_not_answered() -> Result<()> {
    let mut program = Program::load()?;
    let frames = frames()?;
    let frame = frames.iter().find(|frame| frame.name == "acs_from_stun_port").context("the frame")?;
    let answer = program.run(&frame.bytes()?)?;
    ensure!(answer.is_sent_back, "the request is not answered");
    // The same way back, as if the other side had reflected it.
    let mut reflected = answer.frame.clone();
    reflected[..6].copy_from_slice(&answer.frame[6..12]);
    reflected[6..12].copy_from_slice(&answer.frame[..6]);
    reflected[26..30].copy_from_slice(&answer.frame[30..34]);
    reflected[30..34].copy_from_slice(&answer.frame[26..30]);
    assert!(!program.run(&reflected)?.is_sent_back);
    Ok(())
}

/// A keep-alive says that its binding is there, and nobody else's does (STUN-29, STUN-31).
#[test]
fn a_keep_alive_refreshes_its_own_binding() -> Result<()> {
    let mut program = Program::load()?;
    let frames = frames()?;
    let frame = |name: &str| frames.iter().find(|frame| frame.name == name).context("the frame")?.bytes();
    let seen = |program: &Program| NAMES.map(|name| program.bindings().last_seen(name.as_bytes(), SOURCE, SERVERS[0]));
    let started = Some(BootTime(1));
    assert!(!program.run(&frame("acs_changed_port")?)?.is_sent_back);
    assert!(program.run(&frame("acs_plain")?)?.is_sent_back);
    assert_eq!(seen(&program), [started; 2]);
    assert!(program.run(&frame("acs_s2")?)?.is_sent_back);
    let [heard, silent] = seen(&program);
    assert!(heard > started && silent == started, "{heard:?}, {silent:?}");
    // One that is forgotten is the socket's.
    assert_eq!(program.bindings().forget(NAMES[0].as_bytes(), SOURCE, SERVERS[0]), heard);
    assert_eq!(seen(&program), [None, started]);
    assert!(!program.run(&frame("acs_s2")?)?.is_sent_back);
    Ok(())
}
