//! Every frame of the corpus through the loaded programs by `BPF_PROG_TEST_RUN`: the same verdicts as over slices.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{TcAttachType, tc::qdisc_add_clsact, xdp::XdpMode};
use tr111::dataplane::has_tcx;
use tr111_common::{
    abi::program,
    counter::{Class, Counter, Hook},
};
use tr111_tests::{
    corpus::{self, Frame, is_handed_up},
    namespace::Namespace,
    programs::{Program, Programs, Verdict},
    wait::wait_for,
    wire::Wire,
};

/// Runs the frames that come before, then the frame itself; the verdict on it, and its bytes.
fn verdict(programs: &mut Programs, frames: &[Frame], frame: &Frame, ingress: Program) -> Result<(Verdict, Vec<u8>)> {
    let round = programs.start_round(&frame.config()?)?;
    let mut last = None;
    for step in corpus::sequence(frames, frame, round)? {
        let program = match (step.hook()?, ingress) {
            (Hook::LanIngress, ingress) => ingress,
            (Hook::LanEgress, _) => Program::Egress,
            (Hook::LanBinding, _) => Program::Binding,
            (Hook::WanIngress, Program::IngressTc) => Program::WanTc,
            (Hook::WanIngress, _) => Program::WanXdp,
            (Hook::AcsStun, _) => bail!("it is answered"),
            (Hook::LanPort, _) => bail!("no frame comes by another port"),
        };
        let bytes = step.bytes()?;
        let verdict = programs.run(program, &bytes).with_context(|| format!("{} in {program:?}", step.name))?;
        last = Some((verdict, bytes));
    }
    last.context("no frame")
}

/// What is wrong with a verdict, if anything is.
fn judge(frame: &Frame, verdict: &Verdict, bytes: &[u8]) -> Result<()> {
    let expected = frame.class()?;
    let counted: &[(Hook, Class, u64)] = &verdict.classes;
    ensure!(counted == [(frame.hook()?, expected, 1)], "counted as {counted:?} instead of {expected:?}");
    ensure!(verdict.passed, "it does not pass");
    ensure!(verdict.frame == bytes, "the frame was changed");
    if is_handed_up(expected) {
        ensure!(verdict.events == [(expected, bytes.to_vec())], "the event is not the frame");
    } else {
        ensure!(verdict.events.is_empty(), "{} events for a frame that is not handed up", verdict.events.len());
    }
    if let (Class::RefusedIdentity, Some(label)) = (expected, &frame.identity) {
        let refusals: Vec<_> = verdict.refusals.iter().map(|(_, refusal)| refusal.label()).collect();
        ensure!(refusals == [label.as_str()], "refused as {refusals:?} instead of {label}");
    }
    Ok(())
}

fn run_corpus(ingress: Program, only: &str) -> Result<()> {
    let frames = corpus::load()?;
    let mut programs = Programs::load()?;
    let mut wrong = Vec::new();
    let (mut judged, mut others) = (0, 0);
    for frame in &frames {
        // Those change frames, so they have a test of their own.
        if frame.hook()? == Hook::AcsStun {
            others += 1;
            continue;
        }
        // Tags in metadata cannot be given to BPF_PROG_TEST_RUN; the next test sends such frames.
        if frame.metadata_tag.is_some() || frame.only.as_deref().is_some_and(|which| which != only) {
            continue;
        }
        judged += 1;
        let result =
            verdict(&mut programs, &frames, frame, ingress).and_then(|(verdict, bytes)| judge(frame, &verdict, &bytes));
        if let Err(error) = result {
            wrong.push(format!("{}: {error:#}", frame.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {judged} frames:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged > (frames.len() - others) * 9 / 10, "only {judged} of {} frames were judged", frames.len());
    Ok(())
}

/// XDP agrees with the slices on every frame, changes none and drops none: GW-1, GW-2, GW-3, OPT-2, OPT-8, STUN-5.
#[test]
fn xdp_gives_every_frame_its_class() -> Result<()> {
    run_corpus(Program::IngressXdp, "xdp")
}

/// TC agrees with the slices on every frame, changes none and drops none: GW-1, GW-2, GW-3, OPT-2, OPT-8.
#[test]
fn tc_gives_every_frame_its_class() -> Result<()> {
    run_corpus(Program::IngressTc, "tc")
}

/// A tagged frame reaches TC ingress with its outer tag in metadata, XDP with the tag in the frame; both give it the
/// same class, and both find its reply in the same VLAN.
#[test]
fn a_tag_in_metadata_counts_as_one_in_the_frame() -> Result<()> {
    let frames = corpus::load()?;
    let tagged: Vec<_> = frames
        .iter()
        .filter(|frame| frame.metadata_tag.is_some() && frame.hook().is_ok_and(|hook| hook == Hook::LanIngress))
        .collect();
    ensure!(tagged.len() >= 3, "the corpus has lost its frames");
    let gateway = Namespace::new("gateway")?;
    let lan = Namespace::new("lan")?;
    gateway.connect("lan0", &lan, "eth0")?;
    let mut programs = Programs::load()?;
    gateway.enter(|| -> Result<()> {
        if !has_tcx() {
            qdisc_add_clsact("lan0")?;
        }
        programs.loaded().classifier(program::LAN_INGRESS_TC)?.attach("lan0", TcAttachType::Ingress)?;
        Ok(())
    })?;
    let wire = Wire::open(&lan, "eth0")?;
    for frame in tagged {
        programs.start_round(&frame.config()?)?;
        let expected = frame.class()?;
        let mut on_the_wire = frame.clone();
        let control = on_the_wire.metadata_tag.take().context("a tag")?;
        on_the_wire.tags.insert(0, format!("8100.{control}"));
        let counter = Counter::Packet(Hook::LanIngress, expected);
        let before = programs.count(counter)?;
        wire.send(&on_the_wire.bytes()?)?;
        wait_for(&format!("{} as {expected:?}", frame.name), Duration::from_secs(5), || {
            Ok((programs.count(counter)? == before + 1).then_some(()))
        })?;
    }
    Ok(())
}

/// XDP in generic mode gives the same classes on a live interface: nothing depends on headroom or on the driver.
#[test]
fn generic_xdp_counts_the_corpus_alike() -> Result<()> {
    let frames = corpus::load()?;
    let gateway = Namespace::new("gateway")?;
    let lan = Namespace::new("lan")?;
    gateway.connect("lan0", &lan, "eth0")?;
    let mut programs = Programs::load()?;
    gateway.enter(|| -> Result<()> {
        programs.loaded().xdp(program::LAN_INGRESS)?.attach("lan0", XdpMode::Skb)?;
        Ok(())
    })?;
    let wire = Wire::open(&lan, "eth0")?;
    let mut sent = 0;
    for frame in frames.iter().filter(|frame| {
        let on_its_own = frame.after.is_empty() && frame.only.is_none() && frame.metadata_tag.is_none();
        on_its_own && frame.hook().is_ok_and(|hook| hook == Hook::LanIngress)
    }) {
        let bytes = frame.bytes()?;
        // The interface takes 1,500 bytes, and pads nothing.
        if bytes.len() > 1500 || bytes.len() < 60 {
            continue;
        }
        programs.start_round(&frame.config()?)?;
        let expected = frame.class()?;
        let counter = Counter::Packet(Hook::LanIngress, expected);
        let before = programs.count(counter)?;
        wire.send(&bytes)?;
        sent += 1;
        wait_for(&format!("{} as {expected:?}", frame.name), Duration::from_secs(5), || {
            Ok((programs.count(counter)? == before + 1).then_some(()))
        })?;
    }
    ensure!(sent > 60, "only {sent} frames were sent");
    Ok(())
}
