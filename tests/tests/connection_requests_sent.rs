//! `tr111 connreq send`: what an ACS sends, by hand, and whether a CPE takes it.

use std::{
    fs,
    net::UdpSocket,
    process::{Command, Output},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tr111_core::{
    connreq::{Credential, Datagram, LastAccepted, Listener, Settings},
    time::UnixTime,
};
use tr111_tests::{
    agent::binary,
    process::{output, output_with_input, text},
};

const USER: &str = "CPE 57689";
const PASSWORD: &str = "connreq1234";

/// A CPE on the loopback interface.
struct Cpe {
    socket: UdpSocket,
    listener: Listener,
    now: UnixTime,
}

impl Cpe {
    fn new() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let credential = Credential::new(USER.as_bytes(), PASSWORD.as_bytes());
        let listener = Listener::new(credential, Settings::default(), LastAccepted::default());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        Ok(Self { socket, listener, now: UnixTime(now) })
    }

    fn port(&self) -> Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut datagram = vec![0; 2_048];
        let length = self.socket.recv(&mut datagram).context("no request came")?;
        datagram.truncate(length);
        Ok(datagram)
    }
}

/// Sends to a host, with the password on the standard input.
fn send(to: &str, more: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(["connreq", "send", "--to", to, "--user", USER, "--password-file", "-"]).args(more);
    output_with_input(&mut command, format!("{PASSWORD}\n").as_bytes())
}

/// UCR-21, UCR-22, UCR-23, UCR-25, UCR-31, T-70: three identical copies, spaced, and a CPE takes the first and none
/// after it. UCR-38, UCR-40: the next request has another id and another nonce.
#[test]
fn a_cpe_takes_one_of_three_copies() -> Result<()> {
    let mut cpe = Cpe::new()?;
    let to = format!("localhost:{}", cpe.port()?);
    let begin = Instant::now();
    let sent = send(&to, &["--json"])?;
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    assert!(begin.elapsed() >= Duration::from_millis(600));
    let said: Value = serde_json::from_slice(&sent.stdout)?;
    let copies = [cpe.receive()?, cpe.receive()?, cpe.receive()?];
    assert_eq!([&copies[1], &copies[2]], [&copies[0]; 2]);
    assert_eq!(said["request"].as_str(), Some(text(&copies[0]).as_str()));
    assert!(text(&copies[0]).starts_with(&format!("GET http://{to}?ts=")), "{said}");
    assert_eq!((said["copies"].as_u64(), said["to"].as_str()), (Some(3), Some(to.as_str())));

    let accepted = cpe
        .listener
        .receive(Some(cpe.now), Datagram(&copies[0]))
        .map_err(|refusal| anyhow::anyhow!("{}: {}", refusal.label(), text(&copies[0])))?;
    assert_eq!((said["timestamp"].as_u64(), said["id"].as_u64()), (Some(accepted.timestamp()), Some(accepted.id())));
    assert!(cpe.listener.receive(Some(cpe.now), Datagram(&copies[1])).is_err());

    let again: Value = serde_json::from_slice(&send(&to, &["--json", "--copies", "1"])?.stdout)?;
    assert_eq!(again["request"].as_str(), Some(text(&cpe.receive()?).as_str()));
    assert_ne!(again["id"], said["id"]);
    let nonce =
        |said: &Value| said["request"].as_str().and_then(|uri| Some(uri.split_once("&cn=")?.1[..24].to_owned()));
    assert_ne!(nonce(&again), nonce(&said));
    Ok(())
}

/// UCR-34: port 80 is where a host without a port is, and it is not written.
#[test]
fn port_80_is_not_written() -> Result<()> {
    let sent = send("127.0.0.1", &["--copies", "1", "--json"])?;
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let said: Value = serde_json::from_slice(&sent.stdout)?;
    assert_eq!(said["address"], "127.0.0.1:80");
    let request = said["request"].as_str().context("a request")?;
    assert!(
        request.starts_with("GET http://127.0.0.1?ts=") && request.contains("\r\nHost: 127.0.0.1\r\n"),
        "{request}"
    );
    Ok(())
}

/// UCR-20: it leaves from where one says. SEC-9: the password is taken from a file, and never shown.
#[test]
fn it_leaves_from_where_one_says() -> Result<()> {
    let cpe = Cpe::new()?;
    let from = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("password");
    fs::write(&file, PASSWORD)?;
    let mut command = Command::new(binary()?);
    command.args(["connreq", "send", "--user", USER, "--copies", "1", "--from", &from.to_string()]);
    command.arg("--to").arg(format!("127.0.0.1:{}", cpe.port()?)).arg("--password-file").arg(&file);
    let said = output(&mut command)?;
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(cpe.socket.recv_from(&mut [0; 2_048])?.1, from);
    let shown = text(&said.stdout);
    assert!(shown.starts_with("1 copy to 127.0.0.1:") && !shown.contains(PASSWORD), "{shown}");
    Ok(())
}

/// T-69: what does not fit one packet is not sent; and wrong use is told as such.
#[test]
fn what_cannot_be_sent_is_told() -> Result<()> {
    let long = "x".repeat(1_400);
    for (to, more, status, part) in [
        ("127.0.0.1:0", vec![], 2, "HOST:PORT"),
        ("127.0.0.1", vec!["--copies", "4"], 2, "1..=3"),
        ("nobody.invalid", vec![], 1, "nobody.invalid"),
    ] {
        let said = send(to, &more)?;
        assert_eq!(said.status.code(), Some(status), "{}", text(&said.stderr));
        assert!(text(&said.stderr).contains(part), "{}", text(&said.stderr));
    }
    let mut command = Command::new(binary()?);
    command.args(["connreq", "send", "--to", "127.0.0.1", "--password-file", "-", "--user", &long]);
    let said = output_with_input(&mut command, PASSWORD.as_bytes())?;
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("at most 1400 are allowed"), "{}", text(&said.stderr));
    Ok(())
}
