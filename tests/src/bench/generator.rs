//! The line-rate path of the STUN server under all the requests that one core can make: `BPF_PROG_TEST_RUN` with
//! `BPF_F_TEST_XDP_LIVE_FRAMES` sends frames into a wire, whose other end has `acs_stun`.
//!
//! Core 1 makes requests and ends answers, core 0 answers. What core 0 spends is the CPU time of the kernel thread that
//! polls the server's end of the wire, which does nothing else: threaded NAPI is its softirq time, accounted by itself.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::{
    maps::{Array, MapData, PerCpuArray},
    programs::{TestRun, TestRunAttrs, TestRunOptions, xdp},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, gettid},
};
use tr111::dataplane::{LineRate, Listener, Mode, XdpMode};
use tr111_common::stun::PORT;
use tr111_core::{
    stun::{Attribute, Builder, MessageType, TransactionId, Username},
    time::BootTime,
};

use super::{median, on_core, percentile, report::number};
use crate::{frame::Packet, namespace::Namespace, process::run, testing::Testing};

const ANSWERING: usize = 0;
const ASKING: usize = 1;
/// Frames of one call, and of one batch in it; the kernel's own batch is 64.
const FRAMES: u32 = 1_000_000;
const BATCH: u32 = 64;
/// Rounds; an odd number has a median.
const ROUNDS: usize = 3;
/// How long each round lasts at least, after one call to warm up.
const ROUND: Duration = Duration::from_secs(3);

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), PORT);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// First of the ports that ask.
const FIRST_PORT: u16 = 10_000;
/// Ports that take turns: as many bindings, where they are registered.
const SOURCES: u16 = 20_000;
const NAME: &[u8] = b"CPE57689";
/// Bytes of `Load` in `ebpf/src/testing.rs`, where its request starts, and how long that may be.
const LOAD: usize = REQUEST_START + REQUEST;
const REQUEST_START: usize = 16;
const REQUEST: usize = 128;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Nothing but the address, as every server of RFC 3489 is asked.
    Plain,
    /// The keep-alive of a registered binding, each of 20,000 in turn.
    KeepAlive,
}

impl Question {
    /// The request.
    fn message(self) -> Vec<u8> {
        let message = Builder::new(MessageType::BindingRequest, TransactionId([7; 16]));
        match self {
            Self::Plain => message.build(),
            Self::KeepAlive => message
                .attribute(Attribute::ConnectionRequestBinding)
                .attribute(Attribute::Username(Username(NAME)))
                .build(),
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
struct Answers {
    /// Answers that came back, per second that the answering core was busy with them.
    per_busy_second: f64,
    /// The part of the time in which it was.
    busy: f64,
    /// Requests that were sent, per second of the clock.
    asked: f64,
}

/// Answers per busy second, the median of some rounds; and what there is to know besides.
pub(super) fn median_rate(question: Question) -> Result<(f64, String)> {
    let rounds: Vec<_> = (0..ROUNDS).map(|_| line_rate(question)).collect::<Result<_>>()?;
    let column = |pick: fn(&Answers) -> f64| rounds.iter().map(pick).collect::<Vec<_>>();
    let mut rates = column(|round| round.per_busy_second);
    let [least, most] = [percentile(&mut rates, 0), percentile(&mut rates, 100)].map(|rate| number(rate.round()));
    let busy = median(&mut column(|round| round.busy)) * 100.0;
    let asked = number(median(&mut column(|round| round.asked)).round());
    let note = format!("CPU time of its NAPI thread, {busy:.0} % of the clock; {least} to {most}; {asked} asked /s");
    Ok((median(&mut rates).round(), note))
}

/// Asks `question` as fast as it goes.
fn line_rate(question: Question) -> Result<Answers> {
    let (acs, cpes) = (Namespace::new("acs")?, Namespace::new("cpes")?);
    acs.connect("tr111s", &cpes, "tr111c")?;
    let (mac, peer) = (acs.mac("tr111s")?, cpes.mac("tr111c")?);
    let mut line_rate = LineRate::load(XdpMode::Native, 7)?;
    let bindings = line_rate.bindings();
    for port in FIRST_PORT..FIRST_PORT + SOURCES {
        bindings.register(NAME, SocketAddrV4::new(CLIENT, port), SERVER, BootTime(1))?;
    }
    acs.enter(|| -> Result<()> {
        let attached = line_rate.attach("tr111s")?;
        ensure!(attached.programs.iter().any(|program| program.mode == Mode::Native), "no native XDP");
        line_rate.listen(
            [Listener { ifindex: attached.ifindex, mac, address: SERVER, changed: SERVER }],
            &BTreeSet::from([*SERVER.ip()]),
        )?;
        Ok(())
    })?;
    let mut testing = Testing::load()?;
    let mut load: Array<MapData, [u8; LOAD]> = testing.take_map("BENCH_LOAD")?.try_into()?;
    let frames: PerCpuArray<MapData, u64> = testing.take_map("BENCH_FRAMES")?.try_into()?;
    let sink = testing.xdp("bench_sink")?;
    cpes.enter(|| sink.attach("tr111c", xdp::XdpMode::Driver))?;
    let generator = testing.xdp("bench_generate")?;

    // Threads there are only once XDP is attached.
    let answering = poll_thread(&acs, "tr111s", ANSWERING)?;
    poll_thread(&cpes, "tr111c", ASKING)?;

    let request = Packet {
        to: mac,
        source: CLIENT,
        destination: *SERVER.ip(),
        ports: (FIRST_PORT, PORT),
        checksum: false,
        ..Packet::from_client(peer, question.message())
    };
    let mut request = request.bytes();
    let length = request.len();
    ensure!(length <= REQUEST, "the request does not fit");
    let count = |which: u32| -> Result<u64> { Ok(frames.get(&which, 0)?.iter().sum()) };
    on_core(ASKING, || {
        cpes.enter(|| {
            let ifindex = if_nametoindex("tr111c")?;
            let mut bytes = [0; LOAD];
            bytes[..4].copy_from_slice(&ifindex.to_ne_bytes());
            bytes[4..8].copy_from_slice(&u32::try_from(length)?.to_ne_bytes());
            bytes[8..12].copy_from_slice(&u32::from(SOURCES).to_ne_bytes());
            bytes[REQUEST_START..REQUEST_START + length].copy_from_slice(&request);
            load.set(0, bytes, 0)?;
            run(Command::new("renice").args(["--priority", "-20", "--pid", &gettid().to_string()]))?;
            // One more, which the generator cuts off.
            request.push(0);
            let generate = || {
                let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
                let options =
                    TestRunOptions { data_in: Some(&request), repeat: FRAMES, attrs, ..TestRunOptions::new() };
                generator.test_run(options).context("live frames")
            };
            generate()?;
            let start = (Instant::now(), spent(answering)?, count(0)?, count(1)?);
            while start.0.elapsed() < ROUND {
                generate()?;
            }
            let wall = start.0.elapsed().as_secs_f64();
            let busy = spent(answering)? - start.1;
            let since = |which, before| anyhow::Ok(f64::from(u32::try_from(count(which)? - before)?));
            let (asked, answered) = (since(0, start.2)?, since(1, start.3)?);
            Ok(Answers { per_busy_second: answered / busy, busy: busy / wall, asked: asked / wall })
        })
    })
}

/// Has a thread of its own poll an interface, on `core`; its number.
fn poll_thread(namespace: &Namespace, interface: &str, core: usize) -> Result<Pid> {
    let switch = format!("echo 1 > /sys/class/net/{interface}/threaded");
    run(namespace.command("sh").args(["-c", &switch]))?;
    let name = format!("napi/{interface}-");
    let thread = fs::read_dir("/proc")?.flatten().find_map(|entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        fs::read_to_string(entry.path().join("comm")).ok()?.starts_with(&name).then_some(Pid::from_raw(id))
    });
    let thread = thread.with_context(|| format!("no thread polls {interface}"))?;
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(thread, &cores)?;
    // Ahead of everybody else's work, the generator's too: who waits loses frames, and comes back to cold caches.
    run(Command::new("chrt").args(["--fifo", "--pid", "1", &thread.to_string()]))?;
    Ok(thread)
}

/// The CPU time of a thread, in seconds (`Documentation/scheduler/sched-stats.rst`).
fn spent(thread: Pid) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{thread}/schedstat"))?;
    let nanoseconds: f64 = stat.split_whitespace().next().context("an empty schedstat")?.parse()?;
    Ok(nanoseconds / 1e9)
}
