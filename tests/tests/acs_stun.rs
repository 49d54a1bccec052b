//! The STUN server of `tr111 run acs`, on the wire: the list of D.1 and the vectors of H.2.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use tr111_core::{
    secret::SharedSecret,
    stun::{Attribute, Builder, ChangeRequest, Message, MessageType, TransactionId, Username, Variant, Variants},
};
use tr111_tests::{
    acs,
    agent::{Agent, SOON},
    cpe::{self, STUN_PASSWORD, USERNAME},
    lab::Lab,
    metrics::Metrics,
    process::{output, text},
    redis::Redis,
    vectors::{NUL_BINDING, S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S12, WRONG_BINDINGS, hex, padded_with_nuls},
};

/// The addresses of H.2.
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 3478);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const STUN: &str = "tr111_stun_messages_total";
/// How long silence is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// The server's host and the client's, with the addresses of H.2 on the wire between them.
fn lab() -> Result<Lab> {
    let lab = Lab::new()?;
    lab.gateway.ip("addr add 203.0.113.10/24 dev lan0")?;
    lab.gateway.ip("route add 198.51.100.0/24 dev lan0")?;
    lab.lan.ip(&format!("addr add {CLIENT}/24 dev eth0"))?;
    lab.lan.ip("route add 203.0.113.0/24 dev eth0")?;
    Ok(lab)
}

struct Client {
    socket: UdpSocket,
    /// The server.
    to: SocketAddrV4,
}

impl Client {
    fn new(lab: &Lab, port: u16) -> Result<Self> {
        let socket = lab.lan.enter(|| UdpSocket::bind((CLIENT, port)))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Self { socket, to: SERVER })
    }

    fn send(&self, request: &[u8]) -> Result<()> {
        self.socket.send_to(request, self.to)?;
        Ok(())
    }

    /// The next datagram, which has to come from the server.
    fn receive(&self) -> Result<Vec<u8>> {
        let mut buffer = [0; 1_500];
        let (length, from) = self.socket.recv_from(&mut buffer).context("no answer")?;
        assert_eq!(from, self.to.into());
        Ok(buffer[..length].to_vec())
    }

    fn ask(&self, request: &[u8]) -> Result<Vec<u8>> {
        self.send(request)?;
        self.receive()
    }

    /// Whether nothing comes.
    fn is_silent(&self, request: &[u8]) -> Result<bool> {
        self.send(request)?;
        self.socket.set_read_timeout(Some(SILENCE))?;
        let is_silent = self.socket.recv(&mut [0; 1_500]).is_err();
        self.socket.set_read_timeout(Some(SOON))?;
        Ok(is_silent)
    }
}

fn request(first: u8) -> Builder {
    Builder::new(MessageType::BindingRequest, TransactionId([first; 16]))
}

fn with(code: u16, value: &[u8]) -> Vec<u8> {
    request(1).attribute(Attribute::Other { code, value }).build()
}

fn error(answer: &[u8]) -> Result<(u16, Vec<u16>)> {
    let message = Message::parse(answer)?;
    let code = message.error_code().context("no error")?.code;
    Ok((code, message.unknown_attributes().map(|list| list.iter().collect()).unwrap_or_default()))
}

fn secret() -> SharedSecret {
    SharedSecret::new(STUN_PASSWORD.as_bytes())
}

fn bindings(acs: &Agent<'_>) -> Result<Vec<(String, bool)>> {
    let listing = acs.json(&["bindings"])?;
    let bindings = listing["bindings"].as_array().context("no bindings")?;
    let of = |binding: &serde_json::Value| {
        Some((binding["address"].as_str()?.to_owned(), binding["authenticated"].as_bool()?))
    };
    bindings.iter().map(|binding| of(binding).context("no address")).collect()
}

/// STUN-1, STUN-2, STUN-10, STUN-15, STUN-23, STUN-24, STUN-26, STUN-27, STUN-29, STUN-31, T-25: every vector of H.2, byte for
/// byte, and what the registry makes of it; at one address, and at all.
#[test]
fn vectors() -> Result<()> {
    for listen in ["203.0.113.10:3478", "0.0.0.0:3478"] {
        let lab = lab()?;
        let acs = acs::start(&lab.gateway, lab.path(), "acs", &format!("listen = [\"{listen}\"]"))?;
        acs::add_cpe(&acs, lab.path())?;
        let client = Client::new(&lab, 40_001)?;
        let ask = |request: &str, answer: &str| -> Result<()> {
            assert_eq!(client.ask(&hex(request))?, hex(answer), "{request}");
            Ok(())
        };
        ask(S1, S5)?;
        ask(S2, S5)?;
        ask(S3, S7)?;
        assert_eq!(bindings(&acs)?, [("198.51.100.7:40001".to_owned(), false)]);
        // Nine copies are one change (STUN-28).
        for _ in 0..9 {
            ask(S4, S6)?;
        }
        assert_eq!(bindings(&acs)?, [("198.51.100.7:40001".to_owned(), true)]);
        ask("000100080102030405060708090a0b0c0d0e0f107777000400000000", S8)?;
        ask("000200000102030405060708090a0b0c0d0e0f10", S12)?;
        ask("000100080102030405060708090a0b0c0d0e0f100003000400000006", S5)?;

        Client::new(&lab, 40_002)?.send(&hex(S9))?;
        assert_eq!(client.receive()?, hex(S10));

        let metrics = acs.metrics()?;
        let count = |result| metrics.sum(STUN, &[("role", "acs"), ("type", "binding_request"), ("result", result)]);
        assert_eq!(["authenticated", "copy", "unauthorized"].map(count), [1, 8, 1]);
    }
    Ok(())
}

/// STUN-1, STUN-23, STUN-26, T-37: a set-top box that writes NUL for the blank of CONNECTION-REQUEST-BINDING and pads its name
/// with NULs to 32 bytes has its binding, under its name, by a signature over the bytes that it sent. Another text or
/// length binds nothing. The forms are counted.
#[test]
fn a_box_that_pads_with_nuls_is_known() -> Result<()> {
    let lab = lab()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    acs::add_cpe(&acs, lab.path())?;
    let client = Client::new(&lab, 40_001)?;
    for wrong in WRONG_BINDINGS {
        let named = request(1).attribute(wrong).attribute(Attribute::Username(Username(USERNAME.as_bytes())));
        assert_eq!(client.ask(&named.build())?[20..], hex(S5)[20..], "{wrong:?}");
    }
    assert_eq!(bindings(&acs)?, []);

    let name = padded_with_nuls(USERNAME.as_bytes());
    let keep_alive = |first| request(first).attribute(NUL_BINDING).attribute(Attribute::Username(Username(&name)));
    assert_eq!(client.ask(&keep_alive(2).build())?[20..], hex(S5)[20..]);
    assert_eq!(bindings(&acs)?, [("198.51.100.7:40001".to_owned(), false)]);
    let changed = || keep_alive(3).attribute(Attribute::BindingChange);
    assert_eq!(error(&client.ask(&changed().build())?)?.0, 401);
    // Two bytes of padding that became blanks are no padding for a signature.
    let signed = changed().sign(&secret(), Variant::A);
    let mut repadded = signed.clone();
    repadded[20 + 24 + 4 + 30..][..2].fill(b' ');
    assert_eq!(error(&client.ask(&repadded)?)?.0, 431);
    assert!(Message::parse(&client.ask(&signed)?)?.verify(&secret(), Variants::STRICT).is_ok());
    assert_eq!(bindings(&acs)?, [("198.51.100.7:40001".to_owned(), true)]);
    assert_eq!(acs.json(&["bindings"])?["bindings"][0]["username"], USERNAME);
    assert_eq!(client.ask(&hex(S2))?, hex(S5));

    let metrics = acs.metrics()?;
    let count = |form| metrics.sum("tr111_stun_binding_forms_total", &[("role", "acs"), ("form", form)]);
    assert_eq!(["exact", "nul", "wrong"].map(count), [1, 4, 3]);
    Ok(())
}

/// STUN-11, STUN-16, STUN-25, T-63: the list of D.1.
#[test]
fn answers_in_the_order_of_rfc_3489() -> Result<()> {
    let lab = lab()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    acs::add_cpe(&acs, lab.path())?;
    let client = Client::new(&lab, 40_001)?;

    assert_eq!(error(&client.ask(&with(0x7777, &[0; 4]))?)?, (420, vec![0x7777, 0x7777]));
    let two = request(1).attribute(Attribute::Other { code: 0x7777, value: &[] });
    let two = two.attribute(Attribute::Other { code: 0x7778, value: &[] }).build();
    assert_eq!(error(&client.ask(&two)?)?, (420, vec![0x7777, 0x7778]));
    for optional in [0xc0fe, 0x8028] {
        assert_eq!(
            Message::parse(&client.ask(&with(optional, &[0; 4]))?)?.message_type(),
            MessageType::BindingResponse
        );
    }
    for (ip, port) in [(false, true), (true, false), (true, true)] {
        let change = request(1).attribute(Attribute::ChangeRequest(ChangeRequest { ip, port })).build();
        assert_eq!(client.ask(&change)?.len(), 56);
    }
    let named = |name| request(1).attribute(Attribute::Username(Username(name)));
    let guess = SharedSecret::new(b"guess");
    assert_eq!(error(&client.ask(&request(1).sign(&secret(), Variant::A))?)?.0, 432);
    assert_eq!(error(&client.ask(&named(b"CPE00000").sign(&secret(), Variant::A))?)?.0, 430);
    assert_eq!(error(&client.ask(&named(USERNAME.as_bytes()).sign(&guess, Variant::A))?)?.0, 431);
    assert_eq!(bindings(&acs)?, []);
    for variant in [Variant::A, Variant::B, Variant::E] {
        let answer = client.ask(&named(USERNAME.as_bytes()).sign(&secret(), variant))?;
        assert_eq!(Message::parse(&answer)?.verify(&secret(), Variants::FIELD), Ok(variant));
    }

    let mut overrun = hex(S1);
    overrun[23] = 0xff;
    assert_eq!(error(&client.ask(&overrun)?)?.0, 400);
    let mut newer = hex(S1);
    newer[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    let answer = client.ask(&newer)?;
    assert_eq!((&answer[4..20], Message::parse(&answer)?.xor_mapped_address()), (&newer[4..20], None));
    let mut long = hex(S1);
    long.push(0);
    for silent in [&long, &hex(S1)[..19].to_vec(), &hex(S5), &b"GET http://x HTTP/1.1\r\n\r\n".to_vec()] {
        assert!(client.is_silent(silent)?, "{silent:x?}");
    }
    Ok(())
}

/// SEC-7: nobody is sent what another one asked for, unless an operator says so; and a source has its limit.
#[test]
fn nobody_gets_what_another_one_asked_for() -> Result<()> {
    let lab = lab()?;
    lab.lan.ip("addr add 198.51.100.8/24 dev eth0")?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    let client = Client::new(&lab, 40_001)?;
    let other = lab.lan.enter(|| UdpSocket::bind("198.51.100.8:40001"))?;
    other.set_read_timeout(Some(SILENCE))?;
    let reflected = request(1).attribute(Attribute::ResponseAddress("198.51.100.8:40001".parse()?)).build();
    assert_eq!(client.ask(&reflected)?.len(), 56);
    assert!(other.recv(&mut [0; 100]).is_err());

    acs.print(&["tune", "acs.response_address=any"])?;
    client.send(&reflected)?;
    other.set_read_timeout(Some(SOON))?;
    assert_eq!(other.recv(&mut [0; 100])?, 68);

    acs.print(&["tune", "acs.source_pps=10"])?;
    for _ in 0..100 {
        client.send(&hex(S1))?;
    }
    acs.wait_for_metrics("the limit", |metrics| metrics.sum(STUN, &[("result", "limited")]) >= 80)?;
    Ok(())
}

/// SEC-7: a CPE that is known to be at an address is heard there though others spend the address's limit, and neither it nor
/// whoever spoofs it floods the registry.
#[test]
fn a_known_cpe_has_a_limit_of_its_own() -> Result<()> {
    let lab = lab()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "threads = 1\nsource_pps = 10")?;
    acs::add_cpe(&acs, lab.path())?;
    let client = Client::new(&lab, 40_001)?;
    assert_eq!(client.ask(&hex(S4))?, hex(S6));
    let limited = |metrics: &Metrics| metrics.sum(STUN, &[("result", "limited")]);
    let stranger = Client::new(&lab, 40_002)?;
    for _ in 0..1_000 {
        stranger.send(&hex(S1))?;
    }
    acs.wait_for_metrics("the limit of the address", |metrics| limited(metrics) >= 900)?;
    assert_eq!(client.ask(&hex(S2))?, hex(S5), "the neighbour's flood");

    let before = limited(&acs.metrics()?);
    for _ in 0..1_000 {
        client.send(&hex(S2))?;
    }
    acs.wait_for_metrics("the limit of the CPE", |metrics| limited(metrics) >= before + 800)?;
    Ok(())
}

/// STUN-17, STUN-30: a binding is verified when an operator asks; and he may ask it of everybody, always.
#[test]
fn bindings_are_verified_when_asked() -> Result<()> {
    let lab = lab()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    acs::add_cpe(&acs, lab.path())?;
    let client = Client::new(&lab, 40_001)?;
    assert_eq!(client.ask(&hex(S4))?, hex(S6));
    assert_eq!(client.ask(&hex(S2))?, hex(S5));
    acs.print(&["cpe", "verify", USERNAME])?;
    assert_eq!(client.ask(&hex(S2))?, hex(S7));
    let signed = |first| {
        let keep_alive = request(first).attribute(Attribute::ConnectionRequestBinding);
        keep_alive.attribute(Attribute::Username(Username(USERNAME.as_bytes()))).sign(&secret(), Variant::A)
    };
    let answer = client.ask(&signed(9))?;
    assert!(Message::parse(&answer)?.verify(&secret(), Variants::STRICT).is_ok());
    assert_eq!(client.ask(&hex(S2))?, hex(S5));

    acs.print(&["tune", "acs.challenge=all"])?;
    assert_eq!(client.ask(&hex(S1))?, hex(S7));
    Ok(())
}

/// T-67: who saw a signed request and sends it from elsewhere gets nothing, and somebody hears of it.
#[test]
fn a_signed_request_is_worth_nothing_to_another_one() -> Result<()> {
    let lab = lab()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    acs::add_cpe(&acs, lab.path())?;
    let mut watcher = cpe::watch(&acs, &lab)?;
    assert_eq!(Client::new(&lab, 40_001)?.ask(&hex(S4))?, hex(S6));
    watcher.wait_for_line("\"event\":\"binding_changed\",\"address\":\"198.51.100.7:40001\"", SOON)?;
    assert!(Client::new(&lab, 40_002)?.is_silent(&hex(S4))?);
    watcher.wait_for_line("\"event\":\"alarm\",\"alarm\":\"replayed_request\",\"username\":\"CPE57689\"", SOON)?;
    assert_eq!(bindings(&acs)?, [("198.51.100.7:40001".to_owned(), true)]);
    let alarms = acs.metrics()?.sum("tr111_acs_alarms_total", &[("alarm", "replayed_request")]);
    assert_eq!(alarms, 1);
    Ok(())
}

/// A signed request from 40001, which moves the binding there; then the alarms of `acs` as often as `count`.
fn replay(client: &Client, acs: &Agent<'_>, count: u64) -> Result<()> {
    assert!(client.is_silent(&hex(S4))?);
    acs.wait_for_metrics("the alarm", |metrics| {
        metrics.sum("tr111_acs_alarms_total", &[("alarm", "replayed_request")]) == count
    })?;
    assert_eq!(bindings(acs)?, [("198.51.100.7:40001".to_owned(), true)]);
    Ok(())
}

/// T-67: a signed request is worth nothing to another one after the server was killed, either.
#[test]
fn a_signed_request_is_worth_nothing_after_a_restart() -> Result<()> {
    let lab = lab()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    acs::add_cpe(&acs, lab.path())?;
    assert_eq!(Client::new(&lab, 40_001)?.ask(&hex(S4))?, hex(S6));
    let listed = || bindings(&acs).map(|bindings| (bindings.len() == 1).then_some(()));
    tr111_tests::wait::wait_for("the binding", SOON, listed)?;
    // What the binding is may be written some time after the answer.
    acs.print(&["cpe", "verify", USERNAME])?;
    let acs = acs::start_with(&lab.gateway, acs.kill()?, lab.path(), "")?;
    replay(&Client::new(&lab, 40_002)?, &acs, 1)
}

/// T-67: at a second server of the same Redis a signed request is worth nothing, at once. While the Redis is away, a signed
/// request is answered, no binding moves, and there is an alarm.
#[test]
fn a_signed_request_counts_at_one_server_of_a_redis() -> Result<()> {
    let lab = lab()?;
    let mut redis = Redis::start_in(&lab.gateway, *SERVER.ip(), Some("correct-horse"))?;
    let password = lab.write("redis.key", "correct-horse\n")?;
    let keys = format!("registry = \"{}\"\nregistry_password_file = \"{password}\"", redis.url());
    let one = acs::start(&lab.gateway, lab.path(), "one", &keys)?;
    let other = acs::start(&lab.lan, lab.path(), "other", &keys)?;
    acs::add_cpe(&one, lab.path())?;
    assert_eq!(Client::new(&lab, 40_001)?.ask(&hex(S4))?, hex(S6));
    tr111_tests::wait::wait_for("the binding at the other server", SOON, || {
        Ok((bindings(&other)? == [("198.51.100.7:40001".to_owned(), true)]).then_some(()))
    })?;
    let there = SocketAddrV4::new(CLIENT, 3478);
    replay(&Client { to: there, ..Client::new(&lab, 40_002)? }, &other, 1)?;

    redis.kill()?;
    let client = Client::new(&lab, 40_003)?;
    let signed = |first| {
        let change = request(first).attribute(Attribute::ConnectionRequestBinding).attribute(Attribute::BindingChange);
        change.attribute(Attribute::Username(Username(USERNAME.as_bytes()))).sign(&secret(), Variant::A)
    };
    for first in [77, 78] {
        let answer = client.ask(&signed(first))?;
        assert!(Message::parse(&answer)?.verify(&secret(), Variants::STRICT).is_ok());
    }
    one.wait_for_metrics("the alarm", |metrics| {
        metrics.sum("tr111_acs_alarms_total", &[("alarm", "binding_not_kept")]) == 2
    })?;
    assert_eq!(one.metrics()?.sum(STUN, &[("result", "not_kept")]), 2);
    assert!(bindings(&one)?.contains(&("198.51.100.7:40001".to_owned(), true)));
    assert!(!bindings(&one)?.contains(&("198.51.100.7:40003".to_owned(), true)));

    // Nor does it count later.
    redis.resume()?;
    let mut ids = 79..;
    let moved = || {
        let answer = client.ask(&signed(ids.next().context("a new id")?))?;
        let is_moved = bindings(&one)?.contains(&("198.51.100.7:40003".to_owned(), true));
        Ok((is_moved && Message::parse(&answer)?.verify(&secret(), Variants::STRICT).is_ok()).then_some(()))
    };
    one.wait_for_metrics("a registry that works", |metrics| metrics.value("tr111_registry_up") > 0.5)?;
    tr111_tests::wait::wait_for("the binding", SOON, moved)?;
    let late = Client { to: there, ..Client::new(&lab, 40_004)? };
    assert!(late.is_silent(&signed(77))?);
    Ok(())
}

/// A registry that is damaged, or of a newer version: the server answers who names nobody, is silent to its CPEs, is not
/// ready and says so everywhere; the file stays as it is, until somebody asks for an empty one.
#[test]
fn a_registry_that_cannot_be_read_is_no_empty_one() -> Result<()> {
    let lab = lab()?;
    let acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    acs::add_cpe(&acs, lab.path())?;
    let mut files = acs.kill()?;
    let path = files.state().join("registry.redb");
    let whole = std::fs::read(&path)?;
    let newer = {
        let database = redb::Database::open(&path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(redb::TableDefinition::<&str, u64>::new("meta"))?.insert("schema", 99)?;
        transaction.commit()?;
        drop(database);
        std::fs::read(&path)?
    };
    for (port, (bytes, words)) in
        (41_000..).zip([(&whole[..whole.len() / 3], "is damaged"), (&newer, "another version")])
    {
        std::fs::write(&path, bytes)?;
        let acs = acs::start_with(&lab.gateway, files, lab.path(), "")?;
        let (status, why) = acs.fetch("/readyz")?;
        assert!(status == 503 && why.contains(words) && why.contains("--start-empty"), "{status} {why}");
        assert_eq!(acs.fetch("/healthz")?.0, 200);
        assert!(acs.metrics()?.value("tr111_registry_up") < 0.5);
        let client = Client::new(&lab, port)?;
        for request in [S2, S3, S4] {
            assert!(client.is_silent(&hex(request))?, "{request}");
        }
        assert_eq!(client.ask(&hex(S1))?.len(), 56);
        assert_eq!(acs.metrics()?.sum(STUN, &[("result", "unreadable")]), 3);
        let password = lab.write("password", "cr-secret-01")?;
        let credentials = ["--connection-request-username", "u", "--connection-request-password-file", &password];
        for command in [
            &["cpe", "list"][..],
            &[&["cpe", "add", "--stun-username", "CPE00002"][..], &credentials].concat(),
            &["cpe", "remove", USERNAME],
            &["cpe", "verify", USERNAME],
            &["cpe", "export"],
            &["cpe", "lint"],
            &["bindings"],
            &["association", "list"],
            &["connreq", "send", "--cpe", USERNAME],
            &["connreq", "send", "--all", "--rate", "10"],
        ] {
            let said = acs.ask(command)?;
            let why = text(&said.stderr);
            assert!(said.status.code() == Some(1) && why.contains(words), "{command:?}: {:?} {why}", said.status);
        }
        assert!(acs.print(&["status"])?.contains(words));
        assert!(acs.json(&["status"])?["acs"]["registry_unreadable"].as_str().is_some_and(|why| why.contains(words)));
        files = acs.kill()?;
        assert_eq!(std::fs::read(&path)?, bytes, "the file was changed");
        let names =
            std::fs::read_dir(files.state())?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
        let others = names.iter().filter(|name| *name != "registry.redb" && *name != "api.token");
        assert_eq!(others.count(), 0, "{names:?}");
    }

    let mut command = files.run_acs(&lab.gateway, &["--start-empty"])?;
    let acs = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    assert_eq!(acs.fetch("/readyz")?.0, 200);
    acs::add_cpe(&acs, lab.path())?;
    let aside = std::fs::read_dir(acs.files().state())?.filter_map(Result::ok).map(|entry| entry.path());
    let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains(".damaged-")).collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(std::fs::read(&aside[0])?, newer);
    assert_eq!(Client::new(&lab, 41_002)?.ask(&hex(S4))?.len(), 80);
    Ok(())
}

/// STUN-4, STUN-11: the client of RFC 3489's authors finds out what it is behind.
#[test]
fn vovidas_client_is_content() -> Result<()> {
    let lab = lab()?;
    let _acs = acs::start(&lab.gateway, lab.path(), "acs", "")?;
    // Test 1 of RFC 3489: a plain request.
    let mut stun = lab.lan.command("stun");
    let said = output(stun.args([&SERVER.ip().to_string(), "1", "-v", "-p", "40009"]))?;
    let said = text(&[said.stdout, said.stderr].concat());
    assert!(said.contains("MappedAddress = 198.51.100.7:40009"), "{said}");
    assert!(said.contains("ChangedAddress = 203.0.113.10:3478"), "{said}");
    Ok(())
}
