//! UDP Connection Requests wake a device, with STUN off and nothing between it and the sender.

use std::net::UdpSocket;

use anyhow::{Context, Result};
use serde_json::Value;
use tr111_tests::{
    agent::{Agent, Files, SOON},
    cpe::{DEVICE, PASSWORD, request, start, unix_now, watch},
    lab::Lab,
    process::Process,
};

const REQUESTS: &str = "tr111_connection_requests_total";

/// Starts `tr111 watch --notifications`, which misses nothing.
fn subscribe(device: &Agent<'_>, lab: &Lab, name: &str) -> Result<Process> {
    device.background(name, &["watch", "--json", "--notifications"], lab.path())
}

fn event(line: &str) -> Result<Value> {
    serde_json::from_str(line).with_context(|| line.to_owned())
}

fn count(device: &Agent<'_>, result: &str, expected: u64) -> Result<()> {
    device.wait_for_metrics(&format!("{expected} requests that are {result}"), |metrics| {
        metrics.sum(REQUESTS, &[("result", result)]) == expected
    })?;
    Ok(())
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
    count(&device, "bad_signature", 1)?;
    let signed = [request(DEVICE, timestamp, 1, PASSWORD)?, b"body".to_vec()].concat();
    for _ in 0..3 {
        acs.send_to(&signed, DEVICE)?;
    }
    let told = event(&watcher.wait_for_line("\"accepted\"", SOON)?)?;
    assert_eq!((&told["event"], &told["from"]), (&"connection_request".into(), &"10.111.0.1:3478".into()));
    watcher.wait_for_line("\"bad_signature\"", SOON)?;
    count(&device, "accepted", 1)?;
    count(&device, "stale_timestamp", 2)?;
    let woken = event(&notifications.wait_for_line("CONNECTION REQUEST", SOON)?)?;
    assert_eq!((&woken["kind"], &woken["sequence"]), (&"6 CONNECTION REQUEST".into(), &1.into()));

    // T-27: a second request adds nothing while the session for the first is still to come, and asks for another then.
    acs.send_to(&request(DEVICE, timestamp + 1, 2, PASSWORD)?, DEVICE)?;
    count(&device, "accepted", 2)?;
    device.print(&["ack", "1"])?;
    acs.send_to(&request(DEVICE, timestamp + 2, 3, PASSWORD)?, DEVICE)?;
    let line = notifications.wait_for_line("\"sequence\":2", SOON)?;
    assert!(line.contains("6 CONNECTION REQUEST"), "{line}");

    // UCR-7: neither does a crash make it forget.
    let device = start(&lab, device.kill()?, "")?;
    acs.send_to(&request(DEVICE, timestamp + 2, 3, PASSWORD)?, DEVICE)?;
    acs.send_to(&request(DEVICE, timestamp + 3, 3, PASSWORD)?, DEVICE)?;
    count(&device, "stale_timestamp", 1)?;
    count(&device, "same_id", 1)?;
    let mut pending = subscribe(&device, &lab, "pending")?;
    pending.wait_for_line("6 CONNECTION REQUEST", SOON)?;
    acs.send_to(&request(DEVICE, timestamp + 3, 4, PASSWORD)?, DEVICE)?;
    count(&device, "accepted", 1)?;

    // UCR-15: everything was read and counted by now, so what it caused would be here.
    acs.set_nonblocking(true)?;
    assert!(acs.recv_from(&mut [0; 1500]).is_err(), "something came back");
    Ok(())
}
