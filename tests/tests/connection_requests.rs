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
use tr111_tests::{
    agent::{Agent, Files, SOON},
    cpe::{DEVICE, PASSWORD, count, request, start, unix_now, watch},
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
    let device = start(&lab, Files::new(lab.path(), "device")?, "")?;
    let acs = lab.gateway.enter(|| UdpSocket::bind("10.111.0.1:3478"))?;
    let own = device.json(&["bindings"])?;
    assert_eq!(own["bindings"][0]["address"], "10.111.2.5:7547", "{own}");
    let mut watcher = watch(&device, &lab)?;
    let mut notifications = subscribe(&device, &lab, "notifications")?;

    let timestamp = unix_now()?;
    // A forgery with the largest timestamp there is poisons nothing.
    acs.send_to(&request(DEVICE, u64::from(u32::MAX), 7, "guess")?, DEVICE)?;
    acs.send_to(&request(DEVICE, timestamp, 1, "guess")?, DEVICE)?;
    count(&device, REQUESTS, "bad_signature", 1)?;
    let signed = [request(DEVICE, timestamp, 1, PASSWORD)?, b"body".to_vec()].concat();
    for _ in 0..3 {
        acs.send_to(&signed, DEVICE)?;
    }
    let told = event(&watcher.wait_for_line("\"accepted\"", SOON)?)?;
    assert_eq!((&told["event"], &told["from"]), (&"connection_request".into(), &"10.111.0.1:3478".into()));
    watcher.wait_for_line("\"bad_signature\"", SOON)?;
    count(&device, REQUESTS, "accepted", 1)?;
    count(&device, REQUESTS, "stale_timestamp", 2)?;
    let woken = event(&notifications.wait_for_line("CONNECTION REQUEST", SOON)?)?;
    assert_eq!((&woken["kind"], &woken["sequence"]), (&"6 CONNECTION REQUEST".into(), &1.into()));

    // T-27: a second request adds nothing while the session for the first is still to come, and asks for another then.
    acs.send_to(&request(DEVICE, timestamp + 1, 2, PASSWORD)?, DEVICE)?;
    count(&device, REQUESTS, "accepted", 2)?;
    device.print(&["ack", "1"])?;
    acs.send_to(&request(DEVICE, timestamp + 2, 3, PASSWORD)?, DEVICE)?;
    let line = notifications.wait_for_line("\"sequence\":2", SOON)?;
    assert!(line.contains("6 CONNECTION REQUEST"), "{line}");

    // UCR-7: neither does a crash make it forget.
    let device = start(&lab, device.kill()?, "")?;
    acs.send_to(&request(DEVICE, timestamp + 2, 3, PASSWORD)?, DEVICE)?;
    acs.send_to(&request(DEVICE, timestamp + 3, 3, PASSWORD)?, DEVICE)?;
    count(&device, REQUESTS, "stale_timestamp", 1)?;
    count(&device, REQUESTS, "same_id", 1)?;
    let mut pending = subscribe(&device, &lab, "pending")?;
    pending.wait_for_line("6 CONNECTION REQUEST", SOON)?;
    acs.send_to(&request(DEVICE, timestamp + 3, 4, PASSWORD)?, DEVICE)?;
    count(&device, REQUESTS, "accepted", 1)?;

    // UCR-15: everything was read and counted by now, so what it caused would be here.
    acs.set_nonblocking(true)?;
    assert!(acs.recv_from(&mut [0; 1500]).is_err(), "something came back");
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
            count(&device, REQUESTS, "accepted", id)
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
