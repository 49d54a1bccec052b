//! Many devices at once. These stories keep both cores busy, so they take turns.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tr111_common::counter::Outcome;
use tr111_tests::{
    agent::{Agent, binary},
    host::dnsmasq,
    lab::{GATEWAY, Lab, POOL},
    lock::Turn,
    process::Process,
    responder::Responder,
};

fn simulate(lab: &Lab, arguments: &[&str]) -> Result<Process> {
    let mut command = lab.lan.command(binary()?);
    command.args(["sim", "devices", "--iface", "eth0"]).args(arguments);
    Process::start("sim", &mut command, lab.path())
}

/// Nothing was lost on the way: the ring took everything that it was offered.
fn nothing_is_lost(agent: &Agent<'_>) -> Result<()> {
    // A device that asked twice may be answered while the counters are read, one after the other.
    let metrics = agent.wait_for_metrics("as many events as messages", |metrics| {
        let told = metrics.packets_by_outcome(Outcome::HandedUp);
        let events = metrics.sum("tr111_ring_events_total", &[]);
        if told != events {
            eprintln!("{told} frames were handed up, {events} events taken");
        }
        told == events
    })?;
    assert_eq!(metrics.sum("tr111_ring_lost_total", &[]), 0);
    Ok(())
}

/// GW-6, GW-10: two thousand devices against an unmodified dnsmasq all become rows, and all go with their RELEASE.
#[test]
fn two_thousand_devices_against_dnsmasq() -> Result<()> {
    const COUNT: usize = 2_000;
    let _turn = Turn::take()?;
    let lab = Lab::new()?;
    let pool = (POOL, Ipv4Addr::new(10, 111, 20, 250));
    let _server = dnsmasq(&lab.gateway, "lan0", pool, lab.path(), &["--dhcp-lease-max=4000", "--quiet-dhcp"])?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let mut devices = simulate(&lab, &["--count", "2000", "--rate", "150"])?;
    devices.wait_for_line("2000 devices bound", Duration::from_secs(110))?;
    let rows = agent.wait_for_rows(COUNT, Duration::from_secs(20))?;
    assert!(rows.iter().all(|row| row.bindings.len() == 1));
    nothing_is_lost(&agent)?;
    assert!(devices.terminate(Duration::from_mins(1))?.success());
    agent.wait_for_rows(0, Duration::from_secs(20))?;
    nothing_is_lost(&agent)
}

/// GW-6: twenty thousand devices against a fast server all become rows.
#[test]
fn twenty_thousand_devices_against_a_fast_server() -> Result<()> {
    const COUNT: usize = 20_000;
    let _turn = Turn::take()?;
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3600)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let mut devices = simulate(&lab, &["--count", "20000", "--rate", "2000", "--vanish"])?;
    devices.wait_for_line("20000 devices bound", Duration::from_secs(110))?;
    let rows = agent.wait_for_rows(COUNT, Duration::from_secs(30))?;
    assert_eq!(rows.iter().map(|row| row.bindings.len()).sum::<usize>(), COUNT);
    nothing_is_lost(&agent)?;
    assert!(devices.terminate(Duration::from_secs(10))?.success());
    Ok(())
}

/// T-29: an agent that does not come to read loses what no longer fits into the ring; it says how much, and knows
/// every device all the same, from what the kernel remembers of each.
#[test]
fn a_ring_that_overflowed_is_made_good() -> Result<()> {
    // Each leaves two requests and an ACK in the ring, about a kilobyte; the ring takes two megabytes.
    const COUNT: usize = 4_000;
    let _turn = Turn::take()?;
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3600)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    agent.process().signal(Signal::SIGSTOP)?;
    let mut devices = simulate(&lab, &["--count", "4000", "--rate", "2000", "--vanish"])?;
    devices.wait_for_line("4000 devices bound", Duration::from_mins(1))?;
    agent.process().signal(Signal::SIGCONT)?;
    let rows = agent.wait_for_rows(COUNT, Duration::from_secs(30))?;
    assert_eq!(rows.iter().map(|row| row.bindings.len()).sum::<usize>(), COUNT);
    let metrics = agent.metrics()?;
    let lost = metrics.sum("tr111_ring_lost_total", &[("ring", "lan")]);
    assert!(lost > COUNT as u64, "only {lost} records were lost");
    assert!(devices.terminate(Duration::from_secs(10))?.success());
    Ok(())
}

/// GW-17: many devices with static addresses send INFORM and become rows.
#[test]
fn a_hundred_devices_inform() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3600)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let arguments = ["--count", "100", "--inform", "--address", "10.111.200.1", "--release"];
    let mut devices = simulate(&lab, &arguments)?;
    devices.wait_for_line("100 devices bound", Duration::from_mins(1))?;
    assert!(devices.wait(Duration::from_secs(10))?.success());
    let rows = agent.wait_for_rows(100, Duration::from_secs(10))?;
    assert!(rows.iter().all(|row| row.bindings[0].source == "inform" && row.bindings[0].lease_expires.is_none()));
    Ok(())
}

/// What the agent costs a busy LAN is not a switch to it and back for each event: those that come soon after others
/// are taken together.
#[test]
fn events_of_a_busy_lan_are_taken_together() -> Result<()> {
    let _turn = Turn::take()?;
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let process = agent.process().id();
    // Of its first thread, which is the one that reads the ring.
    let waits = || -> Result<u128> {
        let status = fs::read_to_string(format!("/proc/{process}/task/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Ok(line.context("no count of switches")?.trim().parse()?)
    };
    let (before, start) = (waits()?, Instant::now());
    let mut devices = simulate(&lab, &["--count", "3000", "--rate", "20000"])?;
    devices.wait_for_line("3000 devices bound", Duration::from_mins(1))?;
    nothing_is_lost(&agent)?;
    let (waits, milliseconds) = (waits()? - before, start.elapsed().as_millis());
    // A pause is a millisecond, and takes two: for the event that begins it, and for its end.
    let most = 2 * milliseconds + 200;
    ensure!(waits < most, "the agent waited {waits} times in {milliseconds} ms");
    ensure!(agent.metrics()?.sum("tr111_ring_events_total", &[]) >= 6_000, "too little happened");
    Ok(())
}
