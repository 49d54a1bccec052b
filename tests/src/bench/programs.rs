//! What the programs cost a frame, by `BPF_PROG_TEST_RUN` on one core, each beside an empty program in the same run.

use anyhow::{Context, Result, ensure};
use tr111_common::{
    config::{Config, Rate},
    counter::{Class, Counter, Hook, Ring},
    dhcp4::MessageType,
    insert::Insertion,
};

use super::{Report, Row, against, median, on_core, report::number};
use crate::{
    corpus,
    frame::{Mac, Message, Packet, kind},
    lab::{GATEWAY, POOL},
    line_rate,
    programs::{Program, Programs},
    vectors::{D1, G1, hex},
};

/// Rounds of each measurement; an odd number has a median.
const ROUNDS: usize = 15;
/// Runs of a program in one round, for frames that leave nothing behind.
const RUNS: u32 = 1_000_000;
/// Runs in one round for frames that go into the ring, which has to take them all.
const RING_RUNS: u32 = 2_000;
/// Replies of each kind, each in a run of its own.
const REPLIES: usize = 4_001;
/// Replies after which the ring is emptied.
const REPLIES_IN_RING: usize = 1_000;

const DEVICE: Mac = [2, 0, 0, 0, 0, 1];
const SERVER: Mac = [2, 0, 0, 0, 0, 0xfe];

/// Frames that are not ours, and the DISCOVER of a set-top box.
pub(super) fn ingress(report: &mut Report) -> Result<()> {
    if let Some(object) = report.against() {
        return against::passing(report, &object);
    }
    if std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|value| value.trim() == "0") {
        println!("The kernel interprets programs here (net.core.bpf_jit_enable is 0): this section says little.");
    }
    // One core, so that caches and per-CPU maps stay warm for both programs alike.
    on_core(0, || {
        let mut programs = Programs::load()?;
        let mut worst = f64::MIN;
        for (what, frame, bar) in foreign_frames()? {
            let mut sum = 0.0;
            for (hook, program, empty, bar) in [
                ("not ours, XDP, over an empty program", Program::IngressXdp, Program::Empty, bar),
                ("not STUN, lan_binding, over an empty program", Program::Binding, Program::EmptyTc, 15.0),
            ] {
                let what = format!("{hook}: {what}");
                let beside = foreign(&mut programs, [empty, program], &what, &frame)?;
                sum += beside.difference;
                report.add(&Row::new(what, beside.difference, "ns").at_most(bar).note(beside.note()));
            }
            worst = worst.max(sum);
        }
        let mut acs = line_rate::Program::load()?;
        for (what, frame, bar) in foreign_frames()? {
            let pairs: Vec<_> = (0..ROUNDS).map(|_| acs.time(&frame, RUNS)).collect::<Result<_>>()?;
            let beside = Beside::of(&pairs);
            let what = format!("not STUN, acs_stun, over an empty program: {what}");
            report.add(&Row::new(what, beside.difference, "ns").at_most(bar).note(beside.note()));
        }
        let what = "not ours, all LAN ingress hooks, over empty ones";
        report.add(&Row::new(what, worst, "ns").at_most(25.0).note("XDP and TC, for the worst of these frames"));
        let beside = discover(&mut programs)?;
        let what = "DISCOVER with identity, 15 options, ring included";
        report.add(&Row::new(what, beside.measured, "ns").at_most(1_000.0).note(beside.note()));
        Ok(())
    })
}

/// Medians of a program and of an empty one, in nanoseconds.
struct Beside {
    measured: f64,
    empty: f64,
    difference: f64,
}

impl Beside {
    /// From pairs of an empty program's time and a program's.
    fn of(pairs: &[(f64, f64)]) -> Self {
        let column = |pick: fn(&(f64, f64)) -> f64| median(&mut pairs.iter().map(pick).collect::<Vec<_>>());
        Self {
            measured: column(|pair| pair.1),
            empty: column(|pair| pair.0),
            difference: column(|pair| pair.1 - pair.0),
        }
    }

    fn note(&self) -> String {
        format!("program {} ns, empty {} ns", number(self.measured.round()), number(self.empty.round()))
    }
}

/// Frames that are not ours, each with its bar over the empty XDP program.
fn foreign_frames() -> Result<Vec<(&'static str, Vec<u8>, f64)>> {
    let frames = corpus::load()?;
    let named = |name: &str| {
        frames.iter().find(|frame| frame.name == name).with_context(|| format!("no frame {name}"))?.bytes()
    };
    Ok(vec![
        ("TCP", named("tcp_syn")?, 12.0),
        ("UDP to another port", named("dns_query")?, 12.0),
        ("IPv6", named("ipv6_udp")?, 12.0),
        ("TCP in two VLAN tags", named("tagged_tcp")?, 15.0),
    ])
}

fn foreign(programs: &mut Programs, [empty, program]: [Program; 2], what: &str, frame: &[u8]) -> Result<Beside> {
    // Warm-up, and proof that the frame is what it is called.
    let verdict = programs.run(program, frame)?;
    ensure!(verdict.events.is_empty() && verdict.passed, "{what} is ours");
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let empty = programs.time(empty, frame, RUNS)?;
        pairs.push((empty, programs.time(program, frame, RUNS)?));
    }
    Ok(Beside::of(&pairs))
}

/// DISCOVER as set-top boxes send it, fifteen options, the identity among them.
pub(super) fn discover_frame() -> Vec<u8> {
    let message = Message::client(kind::DISCOVER, DEVICE, 1)
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
    Packet::from_client(DEVICE, message.bytes()).bytes()
}

fn discover(programs: &mut Programs) -> Result<Beside> {
    let frame = discover_frame();
    // The budget is on, as by default, and large enough for a bench from one address.
    programs.start_round(&Config { budget: Rate::new(1, 50), relay_budget: Rate::new(1, 50), ..Config::default() })?;
    let counters = [
        Counter::Packet(Hook::LanIngress, Class::Discover),
        Counter::RingEvents(Ring::Lan),
        Counter::RingLost(Ring::Lan),
    ];
    let read = |programs: &Programs| counters.map(|counter| programs.count(counter).unwrap_or_default());
    let before = read(programs);
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let empty = programs.time(Program::Empty, &frame, RING_RUNS)?;
        let measured = programs.time(Program::IngressXdp, &frame, RING_RUNS)?;
        ensure!(programs.drain() == RING_RUNS as usize, "the ring did not take every DISCOVER");
        pairs.push((empty, measured));
    }
    let after = read(programs);
    let runs = u64::from(RING_RUNS) * ROUNDS as u64;
    ensure!(
        (after[0] - before[0], after[1] - before[1], after[2] - before[2]) == (runs, runs, 0),
        "not every run told"
    );
    Ok(Beside::of(&pairs))
}

/// OFFER and ACK to a client that identified itself. A program that rewrites would see its own output in a second run,
/// so each call has one run and a fresh frame, and the caches of a call, not of a loop.
pub(super) fn insertion(report: &mut Report) -> Result<()> {
    if let Some(object) = report.against() {
        return against::insertion(report, &object);
    }
    on_core(0, || {
        let mut programs = Programs::load()?;
        let round = programs.start_round(&Config::default())?;
        programs.set_gateway(&hex(G1)[2..])?;
        programs.run(Program::IngressXdp, &request_frame(round))?;
        for ((name, frame), message) in reply_frames(round).into_iter().zip([MessageType::Offer, MessageType::Ack]) {
            let beside = reply(&mut programs, message, &frame)?;
            let what = format!("identity into {name}, per reply, in the program");
            report.add(&Row::new(what, beside.measured, "ns").at_most(3_000.0).note(beside.note()));
        }
        Ok(())
    })
}

/// A REQUEST with an identity.
pub(super) fn request_frame(xid: u32) -> Vec<u8> {
    let request = Message::client(kind::REQUEST, DEVICE, xid).option(61, &[1, 2, 0, 0, 0, 0, 1]).raw(&hex(D1));
    Packet::from_client(DEVICE, request.bytes()).bytes()
}

/// The replies to it.
pub(super) fn reply_frames(xid: u32) -> [(&'static str, Vec<u8>); 2] {
    [("OFFER", reply_frame(kind::OFFER, xid)), ("ACK", reply_frame(kind::ACK, xid))]
}

/// A reply as dnsmasq sends it.
fn reply_frame(kind: u8, xid: u32) -> Vec<u8> {
    let mut message = Message::client(kind, DEVICE, xid);
    message.op = 2;
    message.yiaddr = POOL;
    let message = message
        .option(54, &GATEWAY.octets())
        .option(51, &3_600u32.to_be_bytes())
        .option(58, &1_800u32.to_be_bytes())
        .option(59, &3_150u32.to_be_bytes())
        .option(1, &[255, 255, 0, 0])
        .option(28, &[10, 111, 255, 255])
        .option(3, &GATEWAY.octets())
        .option(6, &GATEWAY.octets());
    Packet::from_server(SERVER, GATEWAY, message.bytes()).bytes()
}

fn reply(programs: &mut Programs, message: MessageType, frame: &[u8]) -> Result<Beside> {
    let inserted = |programs: &Programs| programs.count(Counter::Insertion(message, Insertion::Inserted));
    let before = inserted(programs)?;
    let mut pairs = Vec::new();
    for number in 0..REPLIES {
        let empty = programs.time(Program::EmptyTc, frame, 1)?;
        pairs.push((empty, programs.time(Program::Egress, frame, 1)?));
        if number % REPLIES_IN_RING == 0 {
            programs.drain();
        }
    }
    programs.drain();
    ensure!(inserted(programs)? - before == REPLIES as u64, "not every reply has the identity");
    ensure!(programs.count(Counter::RingLost(Ring::Lan))? == 0, "the ring did not take every reply");
    Ok(Beside::of(&pairs))
}
