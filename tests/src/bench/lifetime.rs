//! How long a device finds that its NAT binding lives, and what it saves that the gateway makes it live longer.

use std::{
    collections::HashSet,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tr111_common::headers::{Wanted, find_udp};
use tr111_core::stun::Message;

use super::{Report, Row, report::number};
use crate::{
    agent::{Agent, Files, SOON},
    cpe,
    nat::{NatLab, SERVER},
    process::run,
    wait::{pass, wait_until},
    wire::Wire,
};

#[expect(dead_code, reason = "its other half is for the tests of the core")]
#[path = "../../../agent/core/tests/binding/sim.rs"]
mod sim;

/// NAT timeouts that are searched for in real time, in seconds, each with a `STUNMinimumKeepAlivePeriod` below it.
const TIMEOUTS: [(u32, u32); 3] = [(15, 10), (30, 10), (60, 15)];
/// The longest that one of them takes.
const LIMIT: Duration = Duration::from_mins(8);
/// The pair of the issue, 30 s and 300 s, at a fifteenth, so that it is over in two minutes.
const SCALE: u32 = 15;
const SHORT: u32 = 30;
const LONG: u32 = 300;
/// For how long the packets are counted once the shorter period is known.
const WINDOW: Duration = Duration::from_mins(1);
/// Hours of the test clock.
const HOURS: u32 = 10;

/// What a device found.
struct Found {
    /// Seconds.
    learned: f64,
    /// Transactions with RESPONSE-ADDRESS until then, the test of the server among them.
    probes: u32,
    /// How long it took.
    after: Duration,
    /// Binding Requests an hour in the time after it.
    packets: f64,
}

/// A device behind the NAT of an unmodified kernel, and stund on the far side.
struct Search {
    net: NatLab,
    /// Both sysctls, in seconds.
    timeout: u32,
    minimum: u32,
    /// The gateway's own agent runs, and extends by this; 0: it does not.
    extended: Option<u32>,
    /// How long the packets are counted afterwards.
    window: Duration,
}

impl Search {
    fn new(timeout: u32, minimum: u32) -> Result<Self> {
        let net = NatLab::new("masquerade")?;
        net.lab.gateway.enter(|| {
            ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"]
                .iter()
                .try_for_each(|name| fs::write(format!("/proc/sys/net/netfilter/{name}"), timeout.to_string()))
        })?;
        Ok(Self { net, timeout, minimum, extended: None, window: Duration::ZERO })
    }

    fn run(&self) -> Result<Found> {
        let lab = &self.net.lab;
        let _stund = self.net.stund()?;
        let _gateway = self.extended.map(|seconds| self.gateway(seconds)).transpose()?;
        let wire = Wire::open_incoming(&self.net.wan, "eth0")?;
        let begin = Instant::now();
        let management = format!(
            "stun_enable = true\nstun_server_address = \"{SERVER}\"\nstun_minimum_keep_alive_period = {}\n",
            self.minimum
        );
        let device = cpe::start(lab, Files::new(lab.path(), "device")?, &management)?;
        let learned = loop {
            pass(Duration::from_secs(1))?;
            let learned = device.metrics()?.value("tr111_stun_learned_period_seconds");
            if learned > 0.0 {
                break learned;
            }
            ensure!(begin.elapsed() < LIMIT, "no period is learned of {} s", self.timeout);
        };
        let after = begin.elapsed();
        let probes = Requests::seen(&wire)?.probes;
        pass(self.window)?;
        let packets = f64::from(Requests::seen(&wire)?.all) * 3_600.0 / self.window.as_secs_f64();
        Ok(Found { learned, probes, after, packets })
    }

    /// The gateway's agent, with its table in place before any flow exists.
    fn gateway(&self, extended: u32) -> Result<Agent<'_>> {
        let config = format!("[gateway.binding]\nextend_nat_timeout_s = {extended}\n");
        let config = self.net.lab.write("gateway.toml", &config)?;
        let gateway = Agent::start(&self.net.lab, &["lan0"], &["--wan", "wan0", "--config", &config])?;
        if extended > 0 {
            wait_until("nft table", SOON, || {
                let tables = run(self.net.lab.gateway.command("nft").args(["list", "tables"]))?;
                Ok(tables.contains("table inet tr111"))
            })?;
        }
        Ok(gateway)
    }
}

/// Binding Requests on the wire of the server.
struct Requests {
    /// Each copy for itself.
    all: u32,
    /// Transactions with RESPONSE-ADDRESS.
    probes: u32,
}

impl Requests {
    /// What came since this was asked last.
    fn seen(wire: &Wire) -> Result<Self> {
        let (mut all, mut probes) = (0, HashSet::new());
        while let Some(frame) = wire.receive(Duration::ZERO)? {
            let Ok(udp) = find_udp(frame.as_slice(), None, Wanted::Any) else { continue };
            let payload = frame.get(udp.payload as usize..udp.end as usize).context("a frame that is cut")?;
            let Ok(message) = Message::parse(payload) else { continue };
            all += 1;
            if message.response_address().is_some() {
                probes.insert(message.transaction_id());
            }
        }
        Ok(Self { all, probes: u32::try_from(probes.len())? })
    }
}

/// Lets all of them search at the same time: they mostly wait.
fn together(searches: &[Search]) -> Result<Vec<Found>> {
    thread::scope(|scope| {
        let running: Vec<_> = searches.iter().map(|search| scope.spawn(|| search.run())).collect();
        running
            .into_iter()
            .map(|search| search.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// The search against NATs with the timeouts of the issue, in real time.
pub(super) fn search(report: &mut Report) -> Result<()> {
    let searches =
        TIMEOUTS.into_iter().map(|(timeout, minimum)| Search::new(timeout, minimum)).collect::<Result<Vec<_>>>()?;
    let found = together(&searches)?;
    for (Search { timeout, minimum, .. }, Found { learned, probes, after, .. }) in searches.iter().zip(&found) {
        let what = format!("lifetime search, real NAT of {timeout} s, real time: learned");
        let note = format!("{probes} probes in {} s, minimum {minimum} s", after.as_secs());
        let timeout = f64::from(*timeout);
        report.add(&Row::new(what, *learned, "s").between(0.9 * timeout, timeout).note(note));
    }
    let Some(most) = found.iter().map(|found| found.probes).max() else { bail!("nothing was searched") };
    let row = Row::new("lifetime search, most probes", most.into(), "").at_most(8.0);
    report.add(&row.note("the test whether the server honours RESPONSE-ADDRESS among them"));
    Ok(())
}

/// What an extension by the gateway saves: live at a fifteenth of the time, and under the test clock.
pub(super) fn keep_alive(report: &mut Report) -> Result<()> {
    let mut searches = Vec::new();
    for extended in [0, LONG / SCALE] {
        let search = Search::new(SHORT / SCALE, 1)?;
        searches.push(Search { extended: Some(extended), window: WINDOW, ..search });
    }
    let found = together(&searches)?;
    let [short, long] = found.as_slice() else { bail!("two searches") };
    let an_hour = |found: &Found| number((3_600.0 / (found.learned * f64::from(SCALE))).round());
    let what = format!("keep-alive, NAT of {SHORT} s against {LONG} s by the gateway: times fewer");
    let note = format!(
        "live at 1/{SCALE} of the time: {} s and {} s learned, so {} and {} packets an hour; {} and {} by the wire, \
         tests included",
        number(short.learned),
        number(long.learned),
        an_hour(short),
        an_hour(long),
        number((short.packets / f64::from(SCALE)).round()),
        number((long.packets / f64::from(SCALE)).round()),
    );
    report.add(&Row::new(what, long.learned / short.learned, "x").at_least(8.0).note(note));

    let count = |timeout: u32, stream: Option<u32>| {
        let seconds = |seconds: u32| sim::seconds(seconds.into());
        let mut world = sim::World::new(sim::enabled(10, -1), Some(seconds(timeout)));
        world.nat.stream = stream.map(seconds);
        world.keep_alive_packets(HOURS)
    };
    let long = count(LONG, None);
    let row = |what: String, short: f64| {
        let note = format!("test clock: {} and {} packets an hour, tests included", number(short), number(long));
        Row::new(what, short / long, "x").note(note)
    };
    report.add(&row(format!("the same by the test clock, over {HOURS} hours"), count(SHORT, None)).at_least(8.0));
    report.add(&row(format!("the same of Linux's defaults, {SHORT} s, then 120 s two-way"), count(SHORT, Some(120))));
    Ok(())
}
