//! TCP Connection Requests wake a device: an unmodified curl with HTTP digest authentication.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tr111_tests::{
    agent::{Agent, Files, SOON},
    cpe::wait_for_count,
    crowd,
    lab::Lab,
    metrics::Metrics,
    process::run,
};

const ADDRESS: &str = "10.111.2.5:7547";
const URL: &str = "http://10.111.2.5:7547/a?b=c";
const USER: &str = "CPE57689";
const PASSWORD: &str = "connreqsecret";
const CONNECTIONS: &str = "tr111_tcp_connections_total";
const REQUESTS: &str = "tr111_tcp_connection_requests_total";

/// A device that has no DHCP, with or without a listener of its own.
fn start<'a>(lab: &'a Lab, who: &str) -> Result<Agent<'a>> {
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let password = lab.write("connreq-password", PASSWORD)?;
    let config = lab.write(
        "device.toml",
        &format!(
            "[management_server]\ntcp_connection_requests = \"{who}\"\nconnection_request_username = \"{USER}\"\n\
             connection_request_password_file = \"{password}\"\n"
        ),
    )?;
    let files = Files::new(lab.path(), "device")?;
    let mut command = files.run_device(&lab.lan, "eth0", "off", &["--config", &config])?;
    Agent::start_command(&lab.lan, files, &mut command, lab.path())
}

/// The status that curl gets, from the other side of the wire.
fn curl(lab: &Lab, options: &[&str]) -> Result<u16> {
    let mut curl = lab.gateway.command("curl");
    curl.args([
        "--silent",
        "--noproxy",
        "*",
        "--max-time",
        "5",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ]);
    let status = run(curl.args(options).arg(URL))?;
    status.parse().with_context(|| status)
}

fn with_password(lab: &Lab, password: &str) -> Result<u16> {
    curl(lab, &["--digest", "--user", &format!("{USER}:{password}")])
}

/// UCR-2: curl with the digest of ConnectionRequestPassword wakes the device, and nothing else does; `tr111 watch` tells of
/// what was refused. A password that is written holds from then on.
#[test]
fn curl_with_digest_wakes_the_device() -> Result<()> {
    let lab = Lab::new()?;
    let device = start(&lab, "builtin")?;
    let status = device.json(&["status"])?;
    assert_eq!(status["tcp_connection_requests"], "builtin at 0.0.0.0:7547");
    let mut notifications = device.background("notifications", &["watch", "--json", "--notifications"], lab.path())?;
    let mut watcher = device.background("watch", &["watch", "--json"], lab.path())?;
    device.wait_for_metrics("both watchers", |metrics| metrics.sum("tr111_control_clients", &[]) >= 2)?;
    // Clients that say nothing keep nobody else out.
    let idle: Vec<_> = (0..4).map(|_| lab.gateway.enter(|| TcpStream::connect(ADDRESS))).collect::<Result<_, _>>()?;

    assert_eq!(curl(&lab, &[])?, 401);
    assert_eq!(curl(&lab, &["--user", &format!("{USER}:{PASSWORD}"), "--basic"])?, 401);
    assert_eq!(with_password(&lab, "guess")?, 401);
    assert_eq!(curl(&lab, &["--digest", "--user", &format!("other:{PASSWORD}")])?, 401);
    assert_eq!(curl(&lab, &["--request", "POST", "--data", "x"])?, 405);
    wait_for_count(&device, REQUESTS, "accepted", 0)?;
    wait_for_count(&device, REQUESTS, "wrong_response", 1)?;
    wait_for_count(&device, REQUESTS, "wrong_user", 1)?;
    for refusal in ["malformed", "wrong_response", "wrong_user", "wrong_method"] {
        let told: Value = serde_json::from_str(&watcher.wait_for_line(&format!("\"{refusal}\""), SOON)?)?;
        assert_eq!((&told["event"], &told["transport"]), (&"connection_request".into(), &"tcp".into()), "{told}");
    }

    assert_eq!(with_password(&lab, PASSWORD)?, 200);
    wait_for_count(&device, REQUESTS, "accepted", 1)?;
    let woken: Value = serde_json::from_str(&notifications.wait_for_line("CONNECTION REQUEST", SOON)?)?;
    assert_eq!((&woken["kind"], &woken["sequence"]), (&"6 CONNECTION REQUEST".into(), &1.into()));
    let told: Value = serde_json::from_str(&watcher.wait_for_line("\"accepted\"", SOON)?)?;
    assert_eq!((&told["event"], &told["transport"]), (&"connection_request".into(), &"tcp".into()), "{told}");
    assert!(told["from"].as_str().is_some_and(|from| from.starts_with("10.111.0.1:")), "{told}");

    let file = lab.write("another-password", "another")?;
    device.print(&["set", "Device.ManagementServer.ConnectionRequestPassword", "--value-file", &file])?;
    assert_eq!([with_password(&lab, PASSWORD)?, with_password(&lab, "another")?], [401, 200]);
    drop(idle);
    Ok(())
}

/// UCR-2 (TR-069 3.2.2): a sender who knows the password and sends without end gets 503, and the device goes on.
#[test]
fn too_many_are_answered_with_503() -> Result<()> {
    let lab = Lab::new()?;
    let device = start(&lab, "builtin")?;
    let mut accepted = 0;
    let refused = loop {
        match with_password(&lab, PASSWORD)? {
            200 => accepted += 1,
            other => break other,
        }
        ensure!(accepted < 60, "as many as one likes");
    };
    assert!(refused == 503 && accepted >= 10, "{refused} after {accepted}");
    wait_for_count(&device, REQUESTS, "accepted", accepted)?;
    wait_for_count(&device, REQUESTS, "too_many", 1)
}

/// SEC-8, UCR-2: a request is answered within a second beside a thousand connections that say nothing, or not enough, from
/// the address of the ACS and from others; and they take few of the agent's descriptors.
#[test]
fn a_request_is_answered_beside_a_thousand_silent_connections() -> Result<()> {
    let lab = Lab::new()?;
    let device = start(&lab, "builtin")?;
    let pid = device.json(&["status"])?["pid"].as_u64().context("no pid")?.try_into()?;
    let before = crowd::descriptors(pid)?;
    let mut clients = crowd::gather(&lab.gateway, ADDRESS.parse()?, 700, b"")?;
    clients.extend(crowd::gather(&lab.lan, ADDRESS.parse()?, 150, b"")?);
    clients.extend(crowd::gather(&lab.gateway, ADDRESS.parse()?, 150, b"GET / HTTP/1.1\r\nHost: x\r\n")?);
    let begin = Instant::now();
    assert_eq!(with_password(&lab, PASSWORD)?, 200);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    // One source that has asked before has its places, and no more.
    clients.extend(crowd::gather(&lab.gateway, ADDRESS.parse()?, 100, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?);
    assert_eq!(with_password(&lab, PASSWORD)?, 200);
    let more = crowd::descriptors(pid)? - before;
    assert!(more <= 40, "{more} descriptors");
    let displaced =
        |metrics: &Metrics| metrics.sum(CONNECTIONS, &[("listener", "connection_request"), ("result", "displaced")]);
    assert!(displaced(&device.metrics()?) >= 1_000);
    Ok(())
}

/// UCR-2: with another process for TCP Connection Requests, its port is left to it, and `tr111 status` says so.
#[test]
fn an_external_listener_has_the_port_for_itself() -> Result<()> {
    let lab = Lab::new()?;
    let device = start(&lab, "external")?;
    let external = lab.lan.enter(|| TcpListener::bind("0.0.0.0:7547"))?;
    assert_eq!(device.json(&["status"])?["tcp_connection_requests"], "external");
    assert!(device.print(&["status"])?.contains("external"));
    let client = lab.gateway.enter(|| TcpStream::connect(ADDRESS))?;
    drop(client);
    let (mut connection, _) = external.accept()?;
    assert_eq!(connection.read(&mut [0])?, 0);
    Ok(())
}
