//! The line-rate path of a running ACS: who is answered by XDP, who by the socket, and nobody once the ACS is gone.

use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tr111_core::{
    secret::SharedSecret,
    stun::{Attribute, Builder, ChangeRequest, ErrorCode, Message, MessageType, TransactionId, Username, Variant},
};
use tr111_tests::{
    acs,
    agent::{Agent, Files, SOON},
    cpe::{self, STUN_PASSWORD, USERNAME},
    line_rate::Passing,
    nat::{NatLab, PUBLIC, SERVER},
    vectors::{NUL_BINDING, WRONG_BINDINGS, padded_with_nuls},
    wait::wait_for,
};

const HOOK: &str = "acs_stun";
const ADDRESS: SocketAddrV4 = SocketAddrV4::new(SERVER, 3478);
/// Longer than an answer takes, where one is expected or not.
const PATIENCE: Duration = Duration::from_secs(2);

/// An ACS with the line-rate path on the far side of a NAT, and a directory for what it writes.
struct Lab {
    net: NatLab,
    directory: TempDir,
    _peer: Passing,
}

impl Lab {
    fn new() -> Result<Self> {
        let net = NatLab::new("masquerade")?;
        let peer = Passing::attach(&net.lab.gateway, "wan0")?;
        Ok(Self { net, directory: tempfile::Builder::new().prefix("tr111-xdp-").tempdir()?, _peer: peer })
    }

    /// Starts the ACS, which answers at line rate from when this returns, and knows the CPE.
    fn acs(&self) -> Result<Agent<'_>> {
        let keys = format!("listen = [\"{ADDRESS}\"]\nthreads = 1\nxdp = [\"eth0\"]");
        let acs = acs::start(&self.net.wan, self.directory.path(), "acs", &keys)?;
        acs::add_cpe(&acs, self.directory.path())?;
        let client = self.client(40_000)?;
        let counted = |class: &str| anyhow::Ok(acs.metrics()?.packets(HOOK, class));
        wait_for("the line-rate path", SOON, || {
            client.ask(&plain([9; 16]))?;
            Ok((counted("plain")? > 0).then_some(()))
        })?;
        Ok(acs)
    }

    /// A socket on the gateway, as what the far side sees of a NAT.
    fn client(&self, port: u16) -> Result<Client> {
        let socket = self.net.lab.gateway.enter(|| UdpSocket::bind((PUBLIC, port)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { socket })
    }
}

struct Client {
    socket: UdpSocket,
}

impl Client {
    /// Sends a request; the answer.
    fn ask(&self, request: &[u8]) -> Result<Vec<u8>> {
        self.socket.send_to(request, ADDRESS)?;
        let mut answer = vec![0; 1500];
        let (length, from) = self.socket.recv_from(&mut answer).context("no answer")?;
        ensure!(from == SocketAddr::V4(ADDRESS), "the answer comes from {from}");
        answer.truncate(length);
        Ok(answer)
    }
}

fn plain(id: [u8; 16]) -> Vec<u8> {
    Builder::new(MessageType::BindingRequest, TransactionId(id)).build()
}

fn keep_alive(id: [u8; 16]) -> Builder {
    Builder::new(MessageType::BindingRequest, TransactionId(id))
        .attribute(Attribute::ConnectionRequestBinding)
        .attribute(Attribute::Username(Username(USERNAME.as_bytes())))
}

fn signed(id: [u8; 16]) -> Vec<u8> {
    keep_alive(id).sign(&SharedSecret::new(STUN_PASSWORD.as_bytes()), Variant::A)
}

/// Whether an answer is 401.
fn is_challenge(answer: &[u8]) -> Result<bool> {
    let code = Message::parse(answer)?.error_code().map(|error| error.code);
    Ok(code == Some(ErrorCode::UNAUTHORIZED.code))
}

fn last_seen(acs: &Agent<'_>) -> Result<String> {
    let bindings = acs.json(&["bindings"])?;
    Ok(bindings["bindings"][0]["last_seen"].as_str().with_context(|| bindings.to_string())?.to_owned())
}

/// STUN-15, STUN-23, STUN-25, STUN-26, STUN-29, STUN-30: XDP answers what the socket would, byte for byte; a keep-alive
/// of a signed binding refreshes it; one from elsewhere and one that is to be verified get their 401 from the socket.
#[test]
fn xdp_answers_keep_alives_and_the_socket_the_rest() -> Result<()> {
    let lab = Lab::new()?;
    let acs = lab.acs()?;
    let status = acs.json(&["status"])?;
    let hook = &status["interfaces"][0]["hooks"][0];
    assert_eq!((hook["program"].as_str(), hook["mode"].as_str()), (Some(HOOK), Some("native")), "{status}");
    let counted = |class: &str| anyhow::Ok(acs.metrics()?.packets(HOOK, class));

    // The same transaction by XDP and, with a CHANGE-REQUEST that asks for no change, by the socket.
    let client = lab.client(40_001)?;
    let asked = Builder::new(MessageType::BindingRequest, TransactionId([1; 16]))
        .attribute(Attribute::ChangeRequest(ChangeRequest::default()))
        .build();
    let before = (counted("plain")?, counted("demanding")?);
    assert_eq!(client.ask(&plain([1; 16]))?, client.ask(&asked)?);
    assert_eq!((counted("plain")?, counted("demanding")?), (before.0 + 1, before.1 + 1));

    // Not known yet, then signed, then settled.
    client.ask(&keep_alive([2; 16]).build())?;
    assert_eq!((counted("unregistered_binding")?, counted("keep_alive")?), (1, 0));
    assert!(Message::parse(&client.ask(&signed([3; 16]))?)?.is_signed());
    assert_eq!(counted("signed")?, 1);
    let since = last_seen(&acs)?;
    wait_for("a keep-alive that refreshes the binding", SOON, || {
        let answer = client.ask(&keep_alive([4; 16]).build())?;
        assert!(!is_challenge(&answer)?);
        Ok((last_seen(&acs)? > since).then_some(()))
    })?;
    assert_eq!(counted("unregistered_binding")?, 1);
    assert!(counted("keep_alive")? > 0);

    // BINDING-CHANGE, another port of the NAT, and an operator who wants to know.
    let changed = keep_alive([5; 16]).attribute(Attribute::BindingChange).build();
    assert!(is_challenge(&client.ask(&changed)?)?);
    let elsewhere = lab.client(40_002)?;
    assert!(is_challenge(&elsewhere.ask(&keep_alive([6; 16]).build())?)?);
    assert_eq!((counted("binding_change")?, counted("unregistered_binding")?), (1, 2));
    acs.print(&["cpe", "verify", USERNAME])?;
    assert!(is_challenge(&client.ask(&keep_alive([7; 16]).build())?)?);
    client.ask(&signed([8; 16]))?;
    let before = counted("keep_alive")?;
    assert!(!is_challenge(&client.ask(&keep_alive([9; 16]).build())?)?);
    assert_eq!(counted("keep_alive")?, before + 1);

    // A CPE that is removed is nobody's.
    acs.print(&["cpe", "remove", USERNAME])?;
    client.ask(&keep_alive([10; 16]).build())?;
    assert_eq!(counted("keep_alive")?, before + 1);
    Ok(())
}

/// STUN-1, STUN-29, T-37: the keep-alives of a set-top box that writes NUL for the blank of CONNECTION-REQUEST-BINDING and pads
/// its name with NULs are answered by XDP once it signed, and counted apart. Another text or length goes to the socket.
#[test]
fn a_box_that_pads_with_nuls_is_kept_at_line_rate() -> Result<()> {
    let lab = Lab::new()?;
    let acs = lab.acs()?;
    let name = padded_with_nuls(USERNAME.as_bytes());
    let with = |id: u8, binding| {
        Builder::new(MessageType::BindingRequest, TransactionId([id; 16]))
            .attribute(binding)
            .attribute(Attribute::Username(Username(&name)))
    };
    let counted = |class: &str| anyhow::Ok(acs.metrics()?.packets(HOOK, class));
    let client = lab.client(40_001)?;
    let signature = with(1, NUL_BINDING).sign(&SharedSecret::new(STUN_PASSWORD.as_bytes()), Variant::A);
    assert!(Message::parse(&client.ask(&signature)?)?.is_signed());
    let since = last_seen(&acs)?;
    wait_for("a keep-alive that refreshes the binding", SOON, || {
        let answer = client.ask(&with(2, NUL_BINDING).build())?;
        assert!(!is_challenge(&answer)?);
        Ok((last_seen(&acs)? > since).then_some(()))
    })?;
    assert!(counted("nul_keep_alive")? > 0);
    assert_eq!((counted("keep_alive")?, counted("unregistered_binding")?), (0, 0));
    for wrong in WRONG_BINDINGS {
        client.ask(&with(3, wrong).build())?;
    }
    assert_eq!(counted("wrong_binding")?, 3);
    let wrong = acs.metrics()?.sum("tr111_stun_binding_forms_total", &[("form", "wrong")]);
    assert_eq!(wrong, 3);
    Ok(())
}

/// STUN-25, STUN-29: our own CPE signs once, behind a real NAT, and is served by XDP from then on.
#[test]
fn a_device_behind_a_nat_is_kept_at_line_rate() -> Result<()> {
    let lab = Lab::new()?;
    let acs = lab.acs()?;
    let device = cpe::start(
        &lab.net.lab,
        Files::new(lab.net.lab.path(), "device")?,
        &format!(
            "stun_enable = true\nstun_server_address = \"{SERVER}\"\nstun_minimum_keep_alive_period = 1\n\
             stun_maximum_keep_alive_period = 1\n"
        ),
    )?;
    cpe::wait_for_address(&device, |address| *address.ip() == PUBLIC)?;
    acs.wait_for_metrics("keep-alives by XDP", |metrics| metrics.packets(HOOK, "keep_alive") >= 2)?;
    let bindings = acs.json(&["bindings"])?;
    assert_eq!(bindings["bindings"][0]["authenticated"], true, "{bindings}");
    Ok(())
}

/// STUN-10: where the server is gone, nothing speaks for it: not by SIGTERM, and not by SIGKILL.
#[test]
fn nothing_answers_for_a_server_that_is_gone() -> Result<()> {
    let lab = Lab::new()?;
    for is_killed in [false, true] {
        let mut acs = lab.acs()?;
        if is_killed {
            acs.kill()?;
        } else {
            acs.stop()?;
            drop(acs);
        }
        let link = lab.net.wan.ip("link show dev eth0")?;
        assert!(!link.contains("xdp"), "{link}");
        assert!(lab.client(40_003)?.ask(&plain([1; 16])).is_err(), "somebody answers");
        std::fs::remove_dir_all(lab.directory.path().join("acs"))?;
    }
    Ok(())
}
