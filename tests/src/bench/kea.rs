//! What the agent leaves of a busy DHCP server: Kea on one core, perfdhcp and the agent on the other, offered more than
//! Kea can do, with the agent and without, in alternation.
//!
//! perfdhcp gives every client the same option 125, so all of them want to be bindings of one row: the first get in,
//! and of the others each message is read and each binding refused (`gateway.association.max_bindings_per_row`).

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use tr111_common::{counter::Outcome, dhcp4::MessageType};

use super::{Report, Row, median, on_core, percentile, report::number};
use crate::{
    agent::Agent,
    host::kea,
    lab::{GATEWAY, Lab, POOL},
    process::{output, text},
    vectors::{D1, hex},
};

/// Pairs of runs; an odd number has a median.
const PAIRS: usize = 7;
/// Exchanges a second that perfdhcp offers first, when it looks for more than Kea can do, and at most.
const OFFERED: std::ops::Range<u32> = 1_000..50_000;
/// The part of them that is completed by a server that can do more.
const COMPLETE: f64 = 0.9;
/// Seconds of one run, and of one of those before that look for the load.
const SECONDS: u32 = 5;
const LOOK_SECONDS: u32 = 2;
/// Clients, each with a MAC address of its own.
const CLIENTS: u32 = 40_000;
const LAST: Ipv4Addr = Ipv4Addr::new(10, 111, 250, 250);
/// perfdhcp's own address, as of a relay.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 2);

const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;

/// Kea under perfdhcp, with the agent against without.
pub(super) fn kea_under_load(report: &mut Report) -> Result<()> {
    // Just too much: under several times too much, a server spends itself on exchanges that it cannot complete.
    let mut offered = OFFERED.start;
    while OFFERED.contains(&offered) && exchanges(offered, LOOK_SECONDS, None)? > COMPLETE * f64::from(offered) {
        offered += offered / 2;
    }
    let mut ratios = Vec::new();
    let mut alone = Vec::new();
    let mut rows = Vec::new();
    for pair in 0..PAIRS {
        // Who goes first alternates, so that a machine that becomes slower favours nobody.
        let (without, with) = if pair % 2 == 0 {
            let without = exchanges(offered, SECONDS, None)?;
            (without, exchanges(offered, SECONDS, Some(&mut rows))?)
        } else {
            let with = exchanges(offered, SECONDS, Some(&mut rows))?;
            (exchanges(offered, SECONDS, None)?, with)
        };
        ratios.push(with / without);
        alone.push(without);
    }
    let [least, most] = [percentile(&mut ratios, 0), percentile(&mut ratios, 100)];
    let note = format!(
        "{PAIRS} pairs, {least:.3} to {most:.3}; {} exchanges/s without, {} offered; one identity, {} bindings",
        number(median(&mut alone).round()),
        number(offered.into()),
        number(median(&mut rows)),
    );
    report.add(
        &Row::new("Kea under perfdhcp, with the agent over without", median(&mut ratios), "").at_least(0.95).note(note),
    );
    Ok(())
}

/// Complete exchanges a second in one run. With an agent where there are `bindings`, to which its own are added.
fn exchanges(offered: u32, seconds: u32, bindings: Option<&mut Vec<f64>>) -> Result<f64> {
    let lab = Lab::new()?;
    lab.lan.ip(&format!("addr add {CLIENT}/16 dev eth0"))?;
    let _server = on_core(SERVER_CORE, || kea(&lab.gateway, "lan0", (POOL, LAST), lab.path(), "raw"))?;
    on_core(CLIENT_CORE, || {
        let agent = bindings.is_some().then(|| Agent::start(&lab, &["lan0"], &[])).transpose()?;
        let rate = perfdhcp(&lab, offered, seconds)?;
        if let (Some(agent), Some(bindings)) = (agent, bindings) {
            let metrics = agent.metrics()?;
            ensure!(metrics.identities(MessageType::Request.label(), "accepted") > 0, "the agent saw no identity");
            ensure!(metrics.packets_by_outcome(Outcome::HandedUp) > 0, "the agent saw nothing");
            let held = metrics.sum("tr111_device_bindings", &[]);
            bindings.push(f64::from(u32::try_from(held)?));
        }
        Ok(rate)
    })
}

fn perfdhcp(lab: &Lab, offered: u32, seconds: u32) -> Result<f64> {
    let option: Vec<String> = hex(D1)[2..].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = lab.lan.command("perfdhcp");
    command.args(["-4", "-l", "eth0", "-r", &offered.to_string(), "-p", &seconds.to_string()]);
    command.args(["-R", &CLIENTS.to_string(), "-o", &format!("125,{}", option.concat()), &GATEWAY.to_string()]);
    // Its status says that requests were lost, which is the point.
    let output = output(&mut command)?;
    let printed = text(&output.stdout);
    let rate = printed.lines().find_map(|line| line.strip_prefix("Rate: ")?.split_whitespace().next());
    let rate = rate.with_context(|| format!("perfdhcp says no rate:\n{printed}\n{}", text(&output.stderr)))?;
    Ok(rate.parse()?)
}
