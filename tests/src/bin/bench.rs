//! `cargo xtask bench`: what the programs cost a frame, each beside an empty program in the same run.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tr111_common::{
    config::Config,
    counter::{Class, Counter, Hook, Ring},
};
use tr111_tests::{
    corpus,
    frame::{Message, Packet, kind},
    lock::Turn,
    programs::{Program, Programs},
    vectors::{D1, hex},
};

/// Rounds of each measurement; an odd number has a median.
const ROUNDS: usize = 15;
/// Runs of a program in one round, for frames that leave nothing behind.
const RUNS: u32 = 1_000_000;
/// Runs in one round for frames that go into the ring, which has to take them all.
const RING_RUNS: u32 = 2_000;

fn main() -> Result<ExitCode> {
    let _turn = Turn::take()?;
    // One core, so that caches and per-CPU maps stay warm for both programs alike.
    let mut core = CpuSet::new();
    core.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &core).context("cannot stay on one core")?;
    if std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|value| value.trim() == "0") {
        println!("The kernel interprets programs here (net.core.bpf_jit_enable is 0): nothing below says much.");
    }

    let mut programs = Programs::load()?;
    let mut rows = Vec::new();
    for (what, frame, bar) in foreign_frames()? {
        rows.push(foreign(&mut programs, what, &frame, bar)?);
    }
    // `lan_ingress` is the only hook at LAN ingress so far, so the sum over the hooks is its own difference.
    let worst = rows.iter().map(|row| row.difference).fold(0.0, f64::max);
    rows.push(Row {
        what: "not ours, all LAN ingress hooks, the worst of these",
        baseline: None,
        measured: None,
        difference: worst,
        bar: 25.0,
        judged: worst,
    });
    rows.push(discover(&mut programs)?);

    println!("\nNanoseconds per frame by BPF_PROG_TEST_RUN on core 0, medians of {ROUNDS} rounds.\n");
    println!("{:<52}{:>9}{:>10}{:>12}{:>8}", "what", "empty", "measured", "difference", "bar");
    for row in &rows {
        row.print();
    }
    Ok(if rows.iter().all(Row::is_held) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line of the table, in nanoseconds.
struct Row {
    what: &'static str,
    baseline: Option<f64>,
    measured: Option<f64>,
    difference: f64,
    bar: f64,
    /// What is compared with the bar.
    judged: f64,
}

impl Row {
    fn is_held(&self) -> bool {
        self.judged <= self.bar
    }

    fn print(&self) {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        println!(
            "{:<52}{:>9}{:>10}{:>12}{:>8}  {}",
            self.what,
            number(self.baseline),
            number(self.measured),
            format!("{:+.0}", self.difference),
            format!("{:.0}", self.bar),
            if self.is_held() { "held" } else { "MISSED" }
        );
    }
}

/// Frames that are not ours, each with its bar over the empty program (design.md section 6).
fn foreign_frames() -> Result<Vec<(&'static str, Vec<u8>, f64)>> {
    let frames = corpus::load()?;
    let named = |name: &str| {
        frames.iter().find(|frame| frame.name == name).with_context(|| format!("no frame {name}"))?.bytes()
    };
    Ok(vec![
        ("not ours, XDP: TCP", named("tcp_syn")?, 12.0),
        ("not ours, XDP: UDP to another port", named("dns_query")?, 12.0),
        ("not ours, XDP: IPv6", named("ipv6_udp")?, 12.0),
        ("not ours, XDP: TCP in two VLAN tags", named("tagged_tcp")?, 15.0),
    ])
}

fn foreign(programs: &mut Programs, what: &'static str, frame: &[u8], bar: f64) -> Result<Row> {
    let mut empty = Vec::new();
    let mut full = Vec::new();
    let mut differences = Vec::new();
    // Warm-up, and proof that the frame is what it is called.
    let verdict = programs.run(Program::IngressXdp, frame)?;
    ensure!(verdict.events.is_empty() && verdict.passed, "{what} is ours");
    for _ in 0..ROUNDS {
        let baseline = programs.time(Program::Empty, frame, RUNS)?;
        let measured = programs.time(Program::IngressXdp, frame, RUNS)?;
        empty.push(baseline);
        full.push(measured);
        differences.push(measured - baseline);
    }
    let difference = median(&mut differences);
    Ok(Row {
        what,
        baseline: Some(median(&mut empty)),
        measured: Some(median(&mut full)),
        difference,
        bar,
        judged: difference,
    })
}

/// DISCOVER as set-top boxes send it, fifteen options, the identity among them.
fn discover_frame() -> Vec<u8> {
    let mac = [2, 0, 0, 0, 0, 1];
    let message = Message::client(kind::DISCOVER, mac, 1)
        .option(61, &[1, 2, 0, 0, 0, 0, 1])
        .option(50, &[192, 168, 1, 50])
        .option(57, &1500u16.to_be_bytes())
        .option(12, b"set-top-box-0001")
        .option(60, b"dslforum.org")
        .option(51, &7200u32.to_be_bytes())
        .option(77, &[4, b't', b'e', b's', b't'])
        .option(80, &[])
        .option(81, &[0, 0, 0, b's', b't', b'b'])
        .option(93, &[0, 0])
        .option(94, &[1, 2, 1])
        .option(116, &[1])
        .option(55, &[1, 3, 6, 12, 15, 28, 42, 43, 51, 54, 58, 59, 119, 121, 125])
        .raw(&hex(D1));
    Packet::from_client(mac, message.bytes()).bytes()
}

fn discover(programs: &mut Programs) -> Result<Row> {
    let frame = discover_frame();
    // The budget is on, as by default, and large enough for a bench from one address.
    programs.start_round(&Config { budget_interval: 1, budget_burst: 50, ..Config::default() })?;
    let counters = [
        Counter::Packet(Hook::LanIngress, Class::Discover),
        Counter::RingEvents(Ring::Lan),
        Counter::RingLost(Ring::Lan),
    ];
    let read = |programs: &Programs| counters.map(|counter| programs.count(counter).unwrap_or_default());
    let before = read(programs);
    let mut empty = Vec::new();
    let mut full = Vec::new();
    let mut differences = Vec::new();
    for _ in 0..ROUNDS {
        let baseline = programs.time(Program::Empty, &frame, RING_RUNS)?;
        let measured = programs.time(Program::IngressXdp, &frame, RING_RUNS)?;
        ensure!(programs.drain() == RING_RUNS as usize, "the ring did not take every DISCOVER");
        empty.push(baseline);
        full.push(measured);
        differences.push(measured - baseline);
    }
    let after = read(programs);
    let runs = u64::from(RING_RUNS) * ROUNDS as u64;
    ensure!(
        (after[0] - before[0], after[1] - before[1], after[2] - before[2]) == (runs, runs, 0),
        "not every run told"
    );
    let measured = median(&mut full);
    Ok(Row {
        what: "DISCOVER with identity, 15 options, ring included",
        baseline: Some(median(&mut empty)),
        measured: Some(measured),
        difference: median(&mut differences),
        bar: 1000.0,
        judged: measured,
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
