//! The agent ends, and another takes over.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::Value;
use tr111_tests::{
    agent::{Agent, Device, SOON, binary},
    client::Client,
    lab::{GATEWAY, Lab, POOL},
    process::run,
    responder::Responder,
    vectors::{D1, D2, hex},
    wait::{pass, wait_for, wait_until},
    wire::Wire,
};

const ENTRIES: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
const LIMIT: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";

/// T-30, T-32: rows and their numbers are there from the first answer of the next agent on, after SIGTERM and after
/// SIGKILL, and a number is not given out again.
#[test]
fn rows_and_numbers_are_there_from_the_first_answer_on() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let (mut first, mut second) = (Client::new(&wire, 1, hex(D1)), Client::new(&wire, 2, hex(D2)));
    first.bind()?;
    agent.wait_for_rows(1, SOON)?;
    second.bind()?;
    let before = agent.wait_for_rows(2, SOON)?;

    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        agent.process().signal(signal)?;
        agent = agent.start_again(&lab, &["lan0"], &[])?;
        assert_eq!(agent.devices()?, before);
        assert_eq!(agent.metrics()?.sum("tr111_manageable_devices", &[]), 2);
        assert_eq!(agent.json(&["get", ENTRIES])?["parameters"][0]["value"], "2");
    }

    second.release()?;
    agent.wait_for_rows(1, SOON)?;
    second.bind()?;
    let numbers: Vec<u64> = agent.wait_for_rows(2, SOON)?.iter().map(|row| row.instance).collect();
    assert_eq!(numbers, [1, 3]);
    Ok(())
}

/// T-30: what happens while no agent is there is not lost: a device that came, and one that left.
#[test]
fn what_happened_meanwhile_is_known_at_the_first_answer() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let (mut first, mut second) = (Client::new(&wire, 1, hex(D1)), Client::new(&wire, 2, hex(D2)));
    first.bind()?;
    agent.wait_for_rows(1, SOON)?;
    agent.process().signal(Signal::SIGKILL)?;
    agent.process().wait(SOON)?;
    second.bind()?;
    first.release()?;
    let agent = agent.start_again(&lab, &["lan0"], &[])?;
    let rows = agent.devices()?;
    assert_eq!(rows.iter().map(Device::identity).collect::<Vec<_>>(), ["00256D/DEV0001/"]);
    Ok(())
}

/// T-29, T-30: a RELEASE is not forgotten, at whatever moment behind it the agent is killed.
#[test]
fn a_release_in_the_last_moment_is_not_forgotten() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    for milliseconds in [0, 1, 2, 5, 10, 15, 20, 30, 60] {
        device.bind()?;
        agent.wait_for_rows(1, SOON)?;
        assert!(agent.stop()?.success());
        agent = agent.start_again(&lab, &["lan0"], &[])?;
        agent.wait_for_rows(1, SOON)?;
        device.release()?;
        pass(Duration::from_millis(milliseconds))?;
        agent.process().signal(Signal::SIGKILL)?;
        agent.process().wait(SOON)?;
        agent = agent.start_again(&lab, &["lan0"], &[])?;
        assert_eq!(agent.devices()?, [], "killed {milliseconds} ms behind the RELEASE");
    }
    Ok(())
}

/// T-29, T-30: a device that releases its lease and gets the same address again while no agent runs, as at a reboot, has its
/// row: the agent reads both from the ring, and the record of the last ACK is that of the new lease.
#[test]
fn a_device_that_comes_back_while_no_agent_runs_has_its_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    let address = device.bind()?.yiaddr;
    agent.wait_for_rows(1, SOON)?;
    for _ in 0..3 {
        assert!(agent.stop()?.success());
        device.release()?;
        assert_eq!(device.bind()?.yiaddr, address);
        agent = agent.start_again(&lab, &["lan0"], &[])?;
        let rows = agent.devices()?;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0].bindings[0].ip, address.to_string());
    }
    Ok(())
}

/// T-30: a lease that was renewed while no agent was there is not over at the end that the store has; the row keeps
/// its number.
#[test]
fn a_lease_that_was_renewed_meanwhile_goes_on() -> Result<()> {
    const LEASE: u32 = 6;
    let lab = Lab::new()?;
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    device.bind()?;
    let before = Instant::now();
    agent.wait_for_rows(1, SOON)?;
    // With time to write the row, which a kill at this moment would not leave.
    assert!(agent.stop()?.success());
    server.change(|behaviour| behaviour.lease = 600);
    device.renew()?;
    // The stored lease and the grace behind it.
    let end = before + Duration::from_secs(u64::from(LEASE) + 2);
    wait_until("the end of the stored lease", SOON, || Ok(Instant::now() >= end))?;
    let agent = agent.start_again(&lab, &["lan0"], &[])?;
    assert_eq!(agent.devices()?.iter().map(|row| row.instance).collect::<Vec<_>>(), [1]);
    let changes = agent.metrics()?.sum("tr111_table_changes_total", &[]);
    assert_eq!(changes, 0, "the row went and came");
    Ok(())
}

/// T-29, T-30: a renewal that waits to be written is in the programs' record when the agent is killed, and in the store when
/// it is stopped.
#[test]
fn a_renewal_that_waits_survives_the_end_of_the_agent() -> Result<()> {
    const LEASE: u32 = 6;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let lab = Lab::new()?;
        let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE)?;
        let options = ["--config", &lab.write("gateway.toml", "[agent]\nstore_interval_ms = 600000\n")?];
        let mut agent = Agent::start(&lab, &["lan0"], &options)?;
        let wire = Wire::open(&lab.lan, "eth0")?;
        let mut device = Client::new(&wire, 1, hex(D1));
        device.bind()?;
        let before = Instant::now();
        let first = agent.wait_for_rows(1, SOON)?;
        server.change(|behaviour| behaviour.lease = 600);
        device.renew()?;
        let shown = wait_for("the renewal", SOON, || Ok(Some(agent.devices()?).filter(|rows| *rows != first)))?;
        agent.process().signal(signal)?;
        agent.process().wait(SOON)?;
        let end = before + Duration::from_secs(u64::from(LEASE) + 2);
        wait_until("the end of the stored lease", SOON, || Ok(Instant::now() >= end))?;
        let agent = agent.start_again(&lab, &["lan0"], &options)?;
        assert_eq!(agent.devices()?, shown);
        assert_eq!(agent.metrics()?.sum("tr111_table_changes_total", &[]), 0);
    }
    Ok(())
}

/// T-30: after a loss of power the store lacks the renewals that waited, and nothing of the kernel is there. A device that
/// answers ARP keeps its row, and only one that does not loses it.
#[test]
fn after_a_loss_of_power_a_device_is_asked_for_before_its_row_goes() -> Result<()> {
    const LEASE: u32 = 8;
    let lab = Lab::new()?;
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE)?;
    let keys = "[agent]\nstore_interval_ms = 600000\n[gateway.association]\nprobe_interval_s = 1\nprobe_count = 2\n";
    let options = ["--config", &lab.write("gateway.toml", keys)?];
    let agent = Agent::start(&lab, &["lan0"], &options)?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let (mut there, mut gone) = (Client::new(&wire, 1, hex(D1)), Client::new(&wire, 2, hex(D2)));
    let ack = there.bind()?;
    // The host answers for the device.
    lab.lan.ip(&format!("addr add {}/16 dev eth0", ack.yiaddr))?;
    agent.wait_for_rows(1, SOON)?;
    gone.bind()?;
    let before = Instant::now();
    let ends = |rows: &[Device]| rows.iter().map(|row| row.bindings[0].lease_expires.clone()).collect::<Vec<_>>();
    let first = ends(&agent.wait_for_rows(2, SOON)?);
    server.change(|behaviour| behaviour.lease = 600);
    there.renew()?;
    gone.renew()?;
    wait_until("both renewals", SOON, || {
        let now = ends(&agent.devices()?);
        Ok(now.iter().zip(&first).all(|(now, first)| now > first))
    })?;

    let files = agent.kill()?;
    let mut detach = lab.gateway.command(binary()?);
    run(detach.args(["detach", "--pin-dir"]).arg(files.pins()).arg("--control").arg(files.control()))?;
    let end = before + Duration::from_secs(u64::from(LEASE) + 2);
    wait_until("the end of the stored leases", Duration::from_secs(20), || Ok(Instant::now() >= end))?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &options)?;
    let agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    let rows = agent.wait_for_rows(1, Duration::from_secs(30))?;
    assert_eq!((rows[0].instance, rows[0].identity().as_str()), (1, "00256D/DEV0001/STB"));
    let changes =
        |labels: &[(&str, &str)]| Ok::<_, anyhow::Error>(agent.metrics()?.sum("tr111_table_changes_total", labels));
    assert_eq!((changes(&[])?, changes(&[("reason", "expired")])?), (1, 1));
    Ok(())
}

/// A damaged store is said, moved aside, and what it held is learned anew, which `/readyz` and the status say.
#[test]
fn a_damaged_store_is_moved_aside() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    agent.stop()?;
    let state = lab.path().join("agent/state");
    fs::write(state.join("tr111.redb"), b"no database".repeat(500))?;
    let mut agent = agent.start_again(&lab, &["lan0"], &[])?;
    assert!(agent.process().stderr().contains("damaged"), "{}", agent.process().stderr());
    let said = agent.fetch("/readyz")?;
    assert!(said.0 == 200 && said.1.contains("learned anew") && said.1.contains("is damaged"), "{said:?}");
    assert!(agent.json(&["status"])?["store_relearned"].as_str().is_some_and(|why| why.contains("is damaged")));
    assert!(agent.print(&["status"])?.contains("learned anew"));
    let aside = fs::read_dir(&state)?.filter_map(Result::ok);
    assert_eq!(aside.filter(|file| file.file_name().to_string_lossy().contains(".damaged-")).count(), 1);
    Ok(())
}

/// GW-12, GW-13: with Active, every addition and removal is told, in order, with the number. DM-9: Active on the
/// parameters of a row is refused with 9009. Attributes, values and what nobody acknowledged survive a restart.
#[test]
fn notifications_are_told_until_they_are_acknowledged() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    agent.print(&["notify", ENTRIES, "active"])?;
    agent.print(&["set", LIMIT, "0"])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    device.bind()?;
    agent.wait_for_rows(1, SOON)?;
    let refused = agent.ask(&["notify", &ENTRIES.replace("NumberOfEntries", ".1.SerialNumber"), "active"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("9009"), "{refused:?}");
    assert_eq!(refused.status.code(), Some(1));

    let told = |agent: &Agent<'_>, name: &str, count: usize| -> Result<Vec<Value>> {
        let watch = agent.background(name, &["watch", "--notifications", "--json"], lab.path())?;
        wait_for("notifications", SOON, || {
            let lines = watch.stdout();
            let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
            Ok((lines.len() == count).then_some(lines))
        })
    };
    let first = told(&agent, "first", 1)?;
    assert_eq!((&first[0]["event"], &first[0]["sequence"]), (&Value::from("notification"), &Value::from(1)));
    assert_eq!(first[0]["parameters"][0], serde_json::json!({"name": ENTRIES, "value": "1"}));

    agent.process().signal(Signal::SIGKILL)?;
    let agent = agent.start_again(&lab, &["lan0"], &[])?;
    assert_eq!(told(&agent, "again", 1)?, first);
    assert_eq!(agent.json(&["get", ENTRIES])?["parameters"][0]["notification"], "active");
    device.release()?;
    agent.wait_for_rows(0, SOON)?;
    let both = told(&agent, "both", 2)?;
    assert_eq!((&both[1]["sequence"], &both[1]["parameters"][0]["value"]), (&Value::from(2), &Value::from("0")));
    agent.print(&["ack", "1"])?;
    assert_eq!(told(&agent, "acknowledged", 1)?, both[1..]);
    assert!(agent.json(&["status"])?["last_notification"].is_string());
    Ok(())
}
