//! UDP Connection Requests wake a device, with STUN off and nothing between it and the sender.

use std::{
    fs,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tr111_core::{
    connreq::{Authority, ConnectionRequest},
    secret::SharedSecret,
};
use tr111_tests::{
    agent::{Agent, Files, SOON},
    clock::TestClock,
    cpe::{DEVICE, MANAGEMENT, PASSWORD, USERNAME, command, get, request, start, unix_now, wait_for_count, watch},
    lab::Lab,
    process::Process,
    wait::pass,
};

const REQUESTS: &str = "tr111_connection_requests_total";

/// Starts `tr111 watch --notifications`, which misses nothing.
fn subscribe(device: &Agent<'_>, lab: &Lab, name: &str) -> Result<Process> {
    device.background(name, &["watch", "--json", "--notifications"], lab.path())
}

fn event(line: &str) -> Result<Value> {
    serde_json::from_str(line).with_context(|| line.to_owned())
}

/// CPE-5, CPE-42, UCR-1, UCR-6 to UCR-8, UCR-13, UCR-15, UCR-16, SEC-6: with STUN off a signed request wakes the device,
/// copies and forgeries do not, no datagram ever comes back, and a restart of the agent forgets nothing.
#[test]
fn a_signed_request_wakes_the_device_once_and_nothing_is_sent_back() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let (clock, files) = (TestClock::new(lab.path(), "clock")?, Files::new(lab.path(), "device")?);
    let mut command = command(&lab, &files, "")?;
    let device = Agent::start_command(&lab.lan, files, clock.give(&mut command), lab.path())?;
    let acs = lab.gateway.enter(|| UdpSocket::bind("10.111.0.1:3478"))?;
    let own = device.json(&["bindings"])?;
    assert_eq!(own["bindings"][0]["address"], "10.111.2.5:7547", "{own}");
    let mut watcher = watch(&device, &lab)?;
    let mut notifications = subscribe(&device, &lab, "notifications")?;

    let timestamp = unix_now()?;
    // A forgery with the largest timestamp there is poisons nothing.
    acs.send_to(&request(DEVICE, u64::from(u32::MAX), 7, "guess")?, DEVICE)?;
    acs.send_to(&request(DEVICE, timestamp, 1, "guess")?, DEVICE)?;
    wait_for_count(&device, REQUESTS, "bad_signature", 1)?;
    let signed = [request(DEVICE, timestamp, 1, PASSWORD)?, b"body".to_vec()].concat();
    for _ in 0..3 {
        acs.send_to(&signed, DEVICE)?;
    }
    let told = event(&watcher.wait_for_line("\"accepted\"", SOON)?)?;
    assert_eq!((&told["event"], &told["from"]), (&"connection_request".into(), &"10.111.0.1:3478".into()));
    watcher.wait_for_line("\"bad_signature\"", SOON)?;
    wait_for_count(&device, REQUESTS, "accepted", 1)?;
    wait_for_count(&device, REQUESTS, "stale_timestamp", 2)?;
    let woken = event(&notifications.wait_for_line("CONNECTION REQUEST", SOON)?)?;
    assert_eq!((&woken["kind"], &woken["sequence"]), (&"6 CONNECTION REQUEST".into(), &1.into()));

    // T-27: a second request adds nothing while the session for the first is still to come, and asks for another then.
    acs.send_to(&request(DEVICE, timestamp + 1, 2, PASSWORD)?, DEVICE)?;
    wait_for_count(&device, REQUESTS, "accepted", 2)?;
    device.print(&["ack", "1"])?;
    acs.send_to(&request(DEVICE, timestamp + 2, 3, PASSWORD)?, DEVICE)?;
    let line = notifications.wait_for_line("\"sequence\":2", SOON)?;
    assert!(line.contains("6 CONNECTION REQUEST"), "{line}");

    // UCR-7: neither does a crash make it forget.
    let device = start(&lab, device.kill()?, "")?;
    acs.send_to(&request(DEVICE, timestamp + 2, 3, PASSWORD)?, DEVICE)?;
    acs.send_to(&request(DEVICE, timestamp + 3, 3, PASSWORD)?, DEVICE)?;
    wait_for_count(&device, REQUESTS, "stale_timestamp", 1)?;
    wait_for_count(&device, REQUESTS, "same_id", 1)?;
    let mut pending = subscribe(&device, &lab, "pending")?;
    pending.wait_for_line("6 CONNECTION REQUEST", SOON)?;
    acs.send_to(&request(DEVICE, timestamp + 3, 4, PASSWORD)?, DEVICE)?;
    wait_for_count(&device, REQUESTS, "accepted", 1)?;

    // UCR-15: everything was read and counted by now, so what it caused would be here.
    acs.set_nonblocking(true)?;
    assert!(acs.recv_from(&mut [0; 1500]).is_err(), "something came back");
    Ok(())
}

/// UCR-14, T-27: an external CWMP client that acknowledges at its session's start is woken once more for all Connection
/// Requests of that session, and not a third time.
#[test]
fn requests_of_a_session_ask_for_one_more() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let device = start(&lab, Files::new(lab.path(), "device")?, "")?;
    let acs = lab.gateway.enter(|| UdpSocket::bind("10.111.0.1:3478"))?;
    let mut client = subscribe(&device, &lab, "client")?;
    let timestamp = unix_now()?;
    let mut accepted = 0;
    let mut wake = || -> Result<()> {
        accepted += 1;
        acs.send_to(&request(DEVICE, timestamp + accepted, accepted, PASSWORD)?, DEVICE)?;
        wait_for_count(&device, REQUESTS, "accepted", accepted)
    };
    wake()?;
    client.wait_for_line("\"sequence\":1", SOON)?;
    // Still before the session: it is the same one.
    wake()?;
    // The ACS answered the Inform.
    device.print(&["ack", "1"])?;
    (0..3).try_for_each(|_| wake())?;
    let line = client.wait_for_line("\"sequence\":2", SOON)?;
    assert_eq!(event(&line)?["kind"], "6 CONNECTION REQUEST", "{line}");
    device.print(&["ack", "2"])?;
    // A third would be there for whoever asks now, in front of the next.
    wake()?;
    let line = client.wait_for_line("\"sequence\":3", SOON)?;
    assert_eq!(event(&line)?["kind"], "6 CONNECTION REQUEST", "{line}");
    let told = client.stdout();
    assert_eq!(told.lines().count(), 3, "{told}");
    Ok(())
}

/// UCR-4: signed requests that break HTTP/1.1 or RFC 3986 wake nobody, and are counted by what they break.
#[test]
fn signed_requests_that_break_http_are_ignored() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let device = start(&lab, Files::new(lab.path(), "device")?, "")?;
    let acs = lab.gateway.enter(|| UdpSocket::bind("10.111.0.1:3478"))?;
    let genuine = String::from_utf8(request(DEVICE, unix_now()?, 1, PASSWORD)?)?;
    let malformed = ["host:4x1", "host:1:2", "[::1", "a%zz", "a@b@c"];
    let malformed = malformed.map(|authority| genuine.replacen("10.111.2.5:7547", authority, 1));
    let malformed = malformed.into_iter().chain([genuine.replace("?ts=", "?x=%zz&ts=")]);
    let mut count_malformed = 0;
    for broken in malformed {
        acs.send_to(broken.as_bytes(), DEVICE)?;
        count_malformed += 1;
    }
    wait_for_count(&device, REQUESTS, "malformed", count_malformed)?;
    let with_body = |length: &str, body: &[u8]| {
        let headers = genuine.replace("\r\n\r\n", &format!("\r\nContent-Length: {length}\r\n\r\n"));
        [headers.as_bytes(), body].concat()
    };
    for length in ["abc", "-1", "4"] {
        acs.send_to(&with_body(length, b"xyz"), DEVICE)?;
    }
    wait_for_count(&device, REQUESTS, "body_length", 3)?;
    wait_for_count(&device, REQUESTS, "accepted", 0)?;
    // The longest body that a datagram has room for.
    let room = 65_507 - with_body("65000", b"").len();
    acs.send_to(&with_body(&room.to_string(), &vec![b'x'; room]), DEVICE)?;
    wait_for_count(&device, REQUESTS, "accepted", 1)
}

/// T-51: a name that an ACS did not encode is understood by its signature, without a knob; the knob of earlier versions
/// does nothing and is told of, and so is a name that cannot be sent so.
#[test]
fn a_username_needs_no_encoding() -> Result<()> {
    const NAME: &str = "00256D-Home%20Box-0001";
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let device = start(&lab, Files::new(lab.path(), "device")?, "[connreq]\nraw_fallback = true\n")?;
    assert!(device.log().contains("connreq.raw_fallback"), "{}", device.log());
    let acs = lab.gateway.enter(|| UdpSocket::bind("10.111.0.1:3478"))?;
    let parameter = format!("{MANAGEMENT}ConnectionRequestUsername");
    let name = |name: &str| -> Result<String> {
        let output = device.ask(&["set", &parameter, name])?;
        anyhow::ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stderr)?)
    };
    let raw = |name: &str, encoded: &str, timestamp| -> Result<String> {
        let authority = Authority::from(DEVICE);
        let request = ConnectionRequest { authority, timestamp, id: timestamp, username: name, nonce: "6f2a" };
        let datagram = String::from_utf8(request.sign(&SharedSecret::new(PASSWORD.as_bytes()))?)?;
        assert!(datagram.contains(encoded), "{datagram}");
        Ok(datagram.replace(encoded, name))
    };
    let timestamp = unix_now()?;
    assert_eq!(name(NAME)?, "");
    acs.send_to(raw(NAME, "00256D-Home%2520Box-0001", timestamp)?.as_bytes(), DEVICE)?;
    wait_for_count(&device, REQUESTS, "accepted", 1)?;
    assert!(name("a&b")?.contains("'&'"));
    acs.send_to(raw("a&b", "a%26b", timestamp + 1)?.as_bytes(), DEVICE)?;
    wait_for_count(&device, REQUESTS, "unencoded_name", 1)?;

    let tuned = device.ask(&["tune", "connreq.raw_fallback=false"])?;
    let warning = String::from_utf8(tuned.stderr)?;
    assert!(tuned.status.success() && warning.contains("no effect"), "{warning}");
    Ok(())
}

/// TR-069 A.3.2.1: a name that comes twice is fault 9003, and nothing is set.
#[test]
fn a_parameter_is_set_once_in_a_command() -> Result<()> {
    let lab = Lab::new()?;
    let device = start(&lab, Files::new(lab.path(), "device")?, "")?;
    let [user, url] = ["ConnectionRequestUsername", "URL"].map(|name| format!("{MANAGEMENT}{name}"));
    let refused = device.ask(&["set", &user, "one", &url, "http://acs.example", &user, "two"])?;
    assert_eq!(refused.status.code(), Some(1));
    let reason = String::from_utf8(refused.stderr)?;
    assert!(reason.contains("9003") && reason.contains(&user), "{reason}");
    assert_eq!([get(&device, "ConnectionRequestUsername")?, get(&device, "URL")?], [USERNAME, ""]);
    Ok(())
}

/// T-62, UCR-15: forged requests, as fast as they are read, cost neither the genuine ones in their copies nor the other
/// tasks of the agent their turn, and take no memory.
#[test]
fn a_flood_of_forgeries_keeps_nobody_out() -> Result<()> {
    /// Forgeries between two looks at the clock.
    const BURST: u64 = 10;
    const PACE: Duration = Duration::from_millis(1);
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let mut device = start(&lab, Files::new(lab.path(), "device")?, "")?;
    let [acs, enemy] = ["10.111.0.1:3478", "10.111.0.1:4000"].map(|at| lab.gateway.enter(|| UdpSocket::bind(at)));
    let (acs, enemy, timestamp) = (acs?, enemy?, unix_now()?);
    let forged = request(DEVICE, timestamp + 60, 7, "guess")?;
    let is_over = AtomicBool::new(false);
    let sent = thread::scope(|scope| -> Result<u64> {
        let flood = scope.spawn(|| {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                let next = Instant::now() + PACE;
                // A full queue of the wire is a loss like any other.
                (0..BURST).for_each(|_| sent += u64::from(enemy.send_to(&forged, DEVICE).is_ok()));
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            sent
        });
        let genuine = (1..=3).try_for_each(|id| {
            let signed = request(DEVICE, timestamp + id, id, PASSWORD)?;
            for spacing in [0, 200, 400] {
                pass(Duration::from_millis(spacing))?;
                acs.send_to(&signed, DEVICE)?;
            }
            wait_for_count(&device, REQUESTS, "accepted", id)
        });
        is_over.store(true, Ordering::Relaxed);
        let sent = flood.join().expect("it only sends");
        genuine.map(|()| sent)
    })?;
    let metrics = device.metrics()?;
    let (seen, lost) = (metrics.sum(REQUESTS, &[]), metrics.sum("tr111_socket_lost_total", &[]));
    assert!(seen + lost <= sent + 9 && seen > sent / 2, "{seen} seen and {lost} lost of {sent}");
    let status = fs::read_to_string(format!("/proc/{}/status", device.process().id()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    assert!(kilobytes < 64 << 10, "{resident}");
    Ok(())
}
