//! Devices that stay, and devices that vanish without a word.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use tr111_tests::{
    agent::{Agent, SOON, binary},
    lab::{GATEWAY, Lab, POOL},
    process::Process,
    responder::Responder,
    wait::wait_for,
};

fn device(lab: &Lab) -> Result<Process> {
    let mut command = lab.lan.command(binary()?);
    command.args(["sim", "devices", "--iface", "eth0", "--count", "1", "--vanish"]);
    Process::start("sim", &mut command, lab.path())
}

/// GW-8: a device that answers ARP stays, long after the agent last heard of it otherwise. GW-11: one whose plug is
/// pulled goes after the probes are unanswered, with its lease far from over.
#[test]
fn who_answers_stays_and_who_vanishes_goes_after_the_probe_window() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3_600)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    agent.print(&["tune", "gateway.association.probe_interval_s=1", "gateway.association.probe_count=2"])?;
    let mut device = device(&lab)?;
    device.wait_for_line("1 device", Duration::from_mins(1))?;
    let row = agent.wait_for_rows(1, SOON)?;

    // Three windows of one second and two probes each: without its answers it would be gone by the first.
    wait_for("answered probes", Duration::from_secs(30), || {
        let answered = agent.metrics()?.sum("tr111_liveness_probes_total", &[("result", "answered")]);
        Ok((answered >= 3).then_some(()))
    })?;
    assert_eq!(agent.devices()?[0].instance, row[0].instance);

    device.signal(Signal::SIGTERM)?;
    device.wait(SOON)?;
    agent.wait_for_rows(0, Duration::from_secs(30))?;
    let metrics = agent.metrics()?;
    assert!(metrics.sum("tr111_liveness_probes_total", &[("result", "silent")]) >= 2);
    assert!(metrics.sum("tr111_liveness_probes_total", &[("result", "sent")]) >= 5);
    assert_eq!(metrics.sum("tr111_table_changes_total", &[("reason", "disconnected")]), 1);
    Ok(())
}
