//! Connection Requests from a running ACS: where they leave from, where they go, and how many.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tr111_core::{
    connreq::{Credential, Datagram, LastAccepted, Listener, Settings},
    secret::SharedSecret,
    stun::{Attribute, Builder, MessageType, TransactionId, Username, Variant},
    time::UnixTime,
};
use tr111_tests::{
    acs,
    agent::{Agent, SOON},
    cpe::{PASSWORD, STUN_PASSWORD, USERNAME, unix_now},
    lab::Lab,
    process::text,
};

/// CPEs of the bulk.
const MANY: usize = 500;

fn bind(lab: &Lab, address: &str) -> Result<UdpSocket> {
    let socket = lab.lan.enter(|| UdpSocket::bind(address))?;
    socket.set_read_timeout(Some(SOON))?;
    Ok(socket)
}

/// The next Connection Request. STUN answers are passed over.
fn receive(socket: &UdpSocket) -> Result<(String, SocketAddr)> {
    let mut buffer = [0; 2_048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("no request")?;
        if buffer[0] == b'G' {
            return Ok((text(&buffer[..length]), from));
        }
    }
}

/// Registers the CPE `name` from `socket` with the ACS at `server`.
fn register(socket: &UdpSocket, server: &str, name: &str, id: u128) -> Result<()> {
    let request = Builder::new(MessageType::BindingRequest, TransactionId(id.to_be_bytes()))
        .attribute(Attribute::ConnectionRequestBinding)
        .attribute(Attribute::BindingChange)
        .attribute(Attribute::Username(Username(name.as_bytes())));
    socket.send_to(&request.sign(&SharedSecret::new(STUN_PASSWORD.as_bytes()), Variant::A), server)?;
    let length = socket.recv(&mut [0; 2_048]).context("no answer")?;
    anyhow::ensure!(length == 80, "no signed response for {name}");
    Ok(())
}

fn start(lab: &Lab) -> Result<Agent<'_>> {
    lab.gateway.ip("addr add 10.111.0.2/16 dev lan0")?;
    for address in ["10.111.2.5", "10.111.2.6"] {
        lab.lan.ip(&format!("addr add {address}/16 dev eth0"))?;
    }
    acs::start(&lab.gateway, lab.path(), "acs", "")
}

/// UCR-20, UCR-21, UCR-23, UCR-32, UCR-33, UCR-35, UCR-39, UCR-41, T-70: a request leaves from the address that the CPE asked,
/// on a host with several, in spaced identical copies; the CPE takes the first.
#[test]
fn requests_leave_from_the_address_that_the_cpe_knows() -> Result<()> {
    let lab = Lab::new()?;
    let acs = start(&lab)?;
    acs::add_cpe(&acs, lab.path())?;
    let cpe = bind(&lab, "10.111.2.5:7547")?;
    for (id, server) in [(1, "10.111.0.2:3478"), (2, "10.111.0.1:3478")] {
        register(&cpe, server, USERNAME, id)?;
        let begin = Instant::now();
        let sent = acs.json(&["connreq", "send", "--cpe", USERNAME])?;
        assert!(begin.elapsed() >= Duration::from_millis(600));
        let copies = [receive(&cpe)?, receive(&cpe)?, receive(&cpe)?];
        let (request, from) = &copies[0];
        assert_eq!((from.to_string().as_str(), sent["from"].as_str()), (server, Some(server)));
        assert!(copies.iter().all(|copy| copy == &copies[0]), "{copies:?}");
        assert!(request.starts_with("GET http://10.111.2.5:7547?ts="), "{request}");
        let credential = Credential::new(USERNAME.as_bytes(), PASSWORD.as_bytes());
        let mut listener = Listener::new(credential, Settings::default(), LastAccepted::default());
        let accepted = listener.receive(Some(UnixTime(unix_now()?)), Datagram(request.as_bytes()));
        assert!(accepted.is_ok(), "{request}");
    }
    Ok(())
}

/// UCR-31, UCR-34, STUN-41: to an address that the registry need not know, from the STUN server's port as well; and what
/// cannot be sent is told.
#[test]
fn an_address_is_reached_too() -> Result<()> {
    let lab = Lab::new()?;
    let acs = start(&lab)?;
    let file = lab.write("password", PASSWORD)?;
    let cpe = bind(&lab, "10.111.2.6:80")?;
    let arguments = ["--user", USERNAME, "--password-file", &file, "--copies", "1", "--by-acs"];
    let sent = acs.json(&[&["connreq", "send", "--to", "10.111.2.6"], &arguments[..]].concat())?;
    let (request, from) = receive(&cpe)?;
    assert_eq!((from.port(), sent["address"].as_str()), (3478, Some("10.111.2.6:80")));
    assert!(request.starts_with("GET http://10.111.2.6?ts=") && request.contains("Host: 10.111.2.6\r\n"), "{request}");

    acs::add_cpe(&acs, lab.path())?;
    for (name, part) in [(USERNAME, "no address of this CPE is known"), ("CPE00000", "no CPE has this STUNUsername")] {
        let refused = acs.ask(&["connreq", "send", "--cpe", name])?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains(part), "{}", text(&refused.stderr));
    }
    let failed =
        acs.metrics()?.sum("tr111_connection_requests_total", &[("role", "acs"), ("result", "no_destination")]);
    assert_eq!(failed, 1);
    Ok(())
}

/// UCR-22, UCR-38, T-54: many CPEs are woken at a given rate, each by requests of its own, and what became of them is told.
#[test]
fn many_cpes_are_woken_at_a_rate() -> Result<()> {
    let lab = Lab::new()?;
    let acs = start(&lab)?;
    let names: Vec<String> = (0..MANY).map(|number| format!("CPE{number:05}")).collect();
    acs::import(&acs, lab.path(), &names, STUN_PASSWORD)?;
    let cpe = bind(&lab, "10.111.2.5:7547")?;
    // All but one have been heard of.
    for (id, name) in (1..).zip(&names[1..]) {
        register(&cpe, "10.111.0.1:3478", name, id)?;
    }
    let requests = std::thread::scope(|scope| -> Result<_> {
        let heard =
            scope.spawn(|| (1..MANY).map(|_| receive(&cpe).map(|(request, _)| request)).collect::<Result<Vec<_>>>());
        let summary = acs.json(&["connreq", "send", "--all", "--rate", "1000", "--copies", "1"])?;
        check(&summary, MANY as u64 - 1, 1)?;
        heard.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let field = |request: &String, name: &str| -> Option<String> {
        Some(request.split_once(&format!("{name}="))?.1.split(['&', ' ']).next()?.to_owned())
    };
    let mut ids: Vec<_> = requests.iter().filter_map(|request| field(request, "&id")).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), MANY - 1);

    // Again within the second: ts is greater for each of them.
    let some = lab.write("names", &format!("{}\n{}\nCPE99999\n", names[1], names[2]))?;
    let summary = acs.json(&["connreq", "send", "--file", &some, "--copies", "2"])?;
    assert_eq!((&summary["sent"], &summary["datagrams"]), (&2.into(), &4.into()));
    assert_eq!(summary["failed"]["unknown_cpe"], 1);
    let again = receive(&cpe)?.0;
    let user = field(&again, "&un").context("no un")?;
    let before = requests.iter().find(|request| field(request, "&un").as_ref() == Some(&user)).context("no request")?;
    let [before, again] = [before, &again].map(|request| field(request, "?ts").and_then(|ts| ts.parse::<u64>().ok()));
    assert!(again > before, "{again:?} {before:?}");
    Ok(())
}

fn check(summary: &Value, sent: u64, copies: u64) -> Result<()> {
    assert_eq!(summary["cpes"], sent + 1, "{summary}");
    assert_eq!(summary["sent"], sent, "{summary}");
    assert_eq!(summary["datagrams"], sent * copies, "{summary}");
    assert_eq!(summary["failed"]["no_destination"], 1, "{summary}");
    let took = summary["duration_ms"].as_u64().context("no duration")?;
    assert!(took >= sent - 50, "{summary}: faster than the rate");
    Ok(())
}
