//! The programs of this build beside those of another object: `cargo xtask bench programs insertion --against OBJECT`.
//!
//! Both run the same frames in one process, in turns, so that whatever the machine does besides happens to both. They are
//! loaded several times: where the kernel happens to put a program makes a nanosecond or two.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tr111_common::config::Config;

use super::{Report, Row, on_core, percentile, programs, report::number};
use crate::{
    corpus, line_rate,
    programs::{Program, Programs},
    vectors::{G1, hex},
};

/// Most that a program may cost of what it cost before.
const BAR: f64 = 1.05;
/// How often both are loaded.
const LOADS: usize = 7;
/// Turns of each object at each frame, after one to warm up.
const TURNS: usize = 9;
/// Runs of a program in one turn, for frames that leave nothing behind.
const RUNS: u32 = 200_000;
/// Runs in one turn for frames that go into the ring, which has to take them all.
const RING_RUNS: u32 = 2_000;
/// Runs, each a turn of its own, of programs that change the frame.
const CHANGES: usize = 1_500;
/// Changed frames after which the ring is emptied.
const CHANGES_IN_RING: usize = 499;

/// Nanoseconds of old and new in turns.
type Turns = Vec<(f64, f64)>;

/// What was measured, by what it was measured of, in the order in which that came first.
#[derive(Default)]
struct Measured {
    order: Vec<String>,
    turns: BTreeMap<String, Turns>,
}

impl Measured {
    fn take(&mut self, what: String, turn: (f64, f64)) {
        if !self.turns.contains_key(&what) {
            self.order.push(what.clone());
        }
        self.turns.entry(what).or_default().push(turn);
    }

    fn report(mut self, report: &mut Report) {
        for what in self.order {
            let turns = self.turns.remove(&what).unwrap_or_default();
            let mut ratios: Vec<_> = turns.iter().map(|(old, new)| new / old).collect();
            let [low, high] = [25, 75].map(|percent| number(percentile(&mut ratios, percent)));
            let (old, new): (Vec<_>, Vec<_>) = turns.into_iter().unzip();
            let (old, new) = (middle_half(old), middle_half(new));
            let note = format!("{} ns, before {} ns; quartiles {low} to {high}", number(new), number(old));
            report.add(&Row::new(what, new / old, "of before").at_most(BAR).note(note));
        }
    }
}

/// The mean of the middle half of the values: the kernel gives whole nanoseconds, of which a program takes thirty, so
/// that a median would go in steps.
fn middle_half(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let middle = &values[quarter..values.len() - quarter];
    middle.iter().sum::<f64>() / middle.iter().map(|_| 1.0).sum::<f64>()
}

/// Runs old and new in turns, and takes what they say but for the first turn, which warms up.
fn turns<T>(
    (old, new): (&mut T, &mut T),
    number: usize,
    mut run: impl FnMut(&mut T) -> Result<f64>,
    mut take: impl FnMut((f64, f64)),
) -> Result<()> {
    for turn in 0..=number {
        let both = (run(old)?, run(new)?);
        if turn > 0 {
            take(both);
        }
    }
    Ok(())
}

/// Frames that programs pass on unchanged, and those that the ACS's answers.
pub(super) fn passing(report: &mut Report, object: &[u8]) -> Result<()> {
    let mut measured = Measured::default();
    on_core(0, || {
        for _ in 0..LOADS {
            gateway(&mut measured, object)?;
            acs(&mut measured, object)?;
        }
        Ok(())
    })?;
    measured.report(report);
    Ok(())
}

const FOREIGN: [&str; 4] = ["tcp_syn", "dns_query", "ipv6_udp", "tagged_tcp"];

fn gateway(measured: &mut Measured, object: &[u8]) -> Result<()> {
    use Program::{Binding, Egress, IngressTc, IngressXdp, WanTc, WanXdp};
    let mut cases: Vec<(Program, &str)> = Vec::new();
    for program in [IngressXdp, IngressTc, Egress, Binding, WanXdp, WanTc] {
        cases.extend(FOREIGN.map(|frame| (program, frame)));
    }
    cases.extend([(WanXdp, "wan_connection_request"), (WanTc, "wan_connection_request")]);
    cases.extend([(Binding, "binding_with_username"), (IngressXdp, "no_option"), (IngressTc, "no_option")]);
    let (mut old, mut new) = (Programs::load_object(object).context("the other object")?, Programs::load()?);
    for programs in [&mut old, &mut new] {
        programs.start_round(&Config { stun_ports: [3478, 0, 0, 0, 0, 0, 0, 0], ..Config::default() })?;
    }
    for (program, name) in cases {
        let frame = frame(name)?;
        let run = |programs: &mut Programs| programs.time(program, &frame, RUNS);
        turns((&mut old, &mut new), TURNS, run, |turn| measured.take(format!("{program:?}: {name}"), turn))?;
    }
    old.drain();
    new.drain();
    let frame = programs::discover_frame();
    for program in [IngressXdp, IngressTc] {
        let what = format!("{program:?}: DISCOVER with identity, 15 options, ring included");
        let run = |programs: &mut Programs| {
            let time = programs.time(program, &frame, RING_RUNS)?;
            ensure!(programs.drain() == RING_RUNS as usize, "the ring did not take every DISCOVER");
            Ok(time)
        };
        turns((&mut old, &mut new), TURNS, run, |turn| measured.take(what.clone(), turn))?;
    }
    Ok(())
}

fn acs(measured: &mut Measured, object: &[u8]) -> Result<()> {
    let mut old = line_rate::Program::load_object(object).context("the other object")?;
    let mut new = line_rate::Program::load()?;
    for name in FOREIGN.into_iter().chain(["acs_unregistered_name"]) {
        let frame = frame(name)?;
        let run = |acs: &mut line_rate::Program| acs.time_alone(&frame, RUNS);
        turns((&mut old, &mut new), TURNS, run, |turn| measured.take(format!("acs_stun: {name}"), turn))?;
    }
    for name in ["acs_plain", "acs_s1"] {
        let frame = frame(name)?;
        let run = |acs: &mut line_rate::Program| acs.time_alone(&frame, 1);
        turns((&mut old, &mut new), CHANGES, run, |turn| measured.take(format!("acs_stun: {name}, answered"), turn))?;
    }
    Ok(())
}

/// Replies that gain the Gateway Identity: a run of each, because a second one would see its own output.
pub(super) fn insertion(report: &mut Report, object: &[u8]) -> Result<()> {
    let mut measured = Measured::default();
    on_core(0, || {
        for _ in 0..LOADS {
            let (mut old, mut new) = (Programs::load_object(object).context("the other object")?, Programs::load()?);
            for programs in [&mut old, &mut new] {
                ensure!(programs.start_round(&Config::default())? == 1, "the first round");
                programs.set_gateway(&hex(G1)[2..])?;
                programs.run(Program::IngressXdp, &programs::request_frame(1))?;
            }
            for (name, frame) in programs::reply_frames(1) {
                let mut runs = 0;
                let run = |programs: &mut Programs| {
                    runs += 1;
                    if runs % CHANGES_IN_RING == 0 {
                        programs.drain();
                    }
                    programs.time(Program::Egress, &frame, 1)
                };
                let what = format!("identity into {name}, per reply");
                turns((&mut old, &mut new), CHANGES, run, |turn| measured.take(what.clone(), turn))?;
                old.drain();
                new.drain();
            }
        }
        Ok(())
    })?;
    measured.report(report);
    Ok(())
}

fn frame(name: &str) -> Result<Vec<u8>> {
    let frames = corpus::load()?;
    frames.iter().find(|frame| frame.name == name).with_context(|| format!("no frame {name}"))?.bytes()
}
