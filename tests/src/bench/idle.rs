//! What the agent costs while nothing happens: with an empty table, and with many devices that are there.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{Report, Row, report::number};
use crate::{
    agent::{Agent, binary},
    lab::{GATEWAY, Lab, POOL},
    process::Process,
    responder::Responder,
    wait::{pass, wait_until},
};

/// How long an agent without devices is looked at.
const EMPTY_WINDOW: Duration = Duration::from_secs(20);
/// How long an agent with devices is looked at: the preset probe interval of 60 s and the time in which they came, so
/// that each of them is probed.
const DEVICES_WINDOW: Duration = Duration::from_secs(75);
/// What starting leaves to do.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// Most mebibytes of memory that an agent with an empty table may take.
pub(super) const EMPTY: f64 = 16.0;
const DEVICES: u32 = 10_000;
/// A lease that nobody renews meanwhile.
const LEASE: u32 = 86_400;
/// Clock ticks a second in `/proc` (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Processor time and memory of a process.
pub(super) struct Usage {
    pub(super) seconds: f64,
    resident_mebibytes: f64,
    at: Instant,
}

impl Usage {
    pub(super) fn of(process: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name in parentheses may hold anything. Behind it, utime and stime are fields 14 and 15 (proc(5)).
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(Self { seconds: ticks / TICKS, resident_mebibytes: resident(process)? / 1024.0, at: Instant::now() })
    }

    /// Percent of a core since `earlier`.
    fn percent_since(&self, earlier: &Self) -> f64 {
        (self.seconds - earlier.seconds) / self.at.duration_since(earlier.at).as_secs_f64() * 100.0
    }
}

/// Kibibytes of a process in memory.
pub(super) fn resident(process: u32) -> Result<f64> {
    memory(process, "VmRSS:")
}

/// The most that they ever were.
pub(super) fn peak(process: u32) -> Result<f64> {
    memory(process, "VmHWM:")
}

fn memory(process: u32, what: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).with_context(|| format!("no {what}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Lets a time pass, and says what the agent used in it.
fn look_at(agent: &mut Agent<'_>, window: Duration) -> Result<(f64, f64)> {
    let process = agent.process().id();
    let before = Usage::of(process)?;
    pass(window)?;
    let after = Usage::of(process)?;
    Ok((after.percent_since(&before), after.resident_mebibytes))
}

/// An agent with an empty table.
pub(super) fn empty(report: &mut Report) -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    pass(SETTLE)?;
    let (percent, memory) = look_at(&mut agent, EMPTY_WINDOW)?;
    let note = format!("over {} s", EMPTY_WINDOW.as_secs());
    report.add(&Row::new("idle agent, empty table: memory", memory, "MiB").at_most(EMPTY));
    report.add(&Row::new("idle agent, empty table: of a core", percent, "%").below(0.5).note(note));
    Ok(())
}

/// An agent with 10,000 devices that say nothing, but answer its probes.
pub(super) fn devices(report: &mut Report) -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE)?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let mut command = lab.lan.command(binary()?);
    let count = DEVICES.to_string();
    command.args(["sim", "devices", "--iface", "eth0", "--rate", "2000", "--vanish", "--count", &count]);
    let mut devices = Process::start("sim", &mut command, lab.path())?;
    devices.wait_for_line("devices bound", Duration::from_mins(1))?;
    let rows = |agent: &Agent<'_>| Ok::<_, anyhow::Error>(agent.metrics()?.sum("tr111_manageable_devices", &[]));
    wait_until("all rows", Duration::from_secs(30), || Ok(rows(&agent)? == u64::from(DEVICES)))?;
    let probes = |agent: &Agent<'_>| {
        Ok::<_, anyhow::Error>(agent.metrics()?.sum("tr111_liveness_probes_total", &[("result", "sent")]))
    };
    let before = probes(&agent)?;
    let (percent, memory) = look_at(&mut agent, DEVICES_WINDOW)?;
    let sent = probes(&agent)? - before;
    ensure!(rows(&agent)? == u64::from(DEVICES), "devices went although they answered");
    ensure!(sent >= u64::from(DEVICES), "{sent} probes for {DEVICES} devices");
    let note =
        format!("{} probes in {} s, each answered", number(f64::from(u32::try_from(sent)?)), DEVICES_WINDOW.as_secs());
    report.add(&Row::new("10,000 devices connected, idle: memory", memory, "MiB").below(64.0));
    report.add(&Row::new("10,000 devices connected, idle: of a core", percent, "%").below(2.0).note(note));
    Ok(())
}
