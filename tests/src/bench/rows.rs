//! The association core and the store, fed with records as the programs write them, on one core and without the kernel.

use std::{
    fs, process,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use nix::time::{ClockId, clock_gettime};
use tr111::{
    service::{Clock, open_store},
    store::{Committed, GROUP, Group, Store, encode, encode_row, meta},
};
use tr111_common::event::Event;
use tr111_core::{
    association::{Association, Input, Output, Settings},
    time::BootTime,
};

use super::{
    Report, Row,
    idle::resident,
    median, on_core, percentile,
    records::{Record, Records},
    report::number,
};

/// Rows of the large table.
const MILLION: u32 = 1_000_000;
/// Devices of one round of additions: as many as the gateway's table takes by its preset.
const NEWCOMERS: u32 = 65_536;
/// Rounds of each measurement; an odd number has a median.
const ROUNDS: usize = 5;
/// Rows that go and come in one round.
const CHANGES: u32 = 40_000;
/// Coprime to [`MILLION`]: its multiples visit the table in no order that caches like.
const STRIDE: u64 = 387_421;
/// Records that the agent takes in one go.
const BATCH: u32 = 256;
/// When the last lease of [`Records`] is over, and a little.
const LAST_SECOND: u64 = 86_410;
/// Times that the store is read.
const RELOADS: usize = 3;
/// The LAN interface, by name.
const LAN: &str = "lan0";

/// The core as its owner drives it: a record comes, outputs go.
struct Core {
    association: Association,
    /// Kept between records, for its memory.
    outputs: Vec<Output>,
}

impl Core {
    fn new(max_rows: u32) -> Self {
        let settings = Settings { max_rows, ..Settings::default() };
        Self { association: Association::new(settings), outputs: Vec::new() }
    }

    fn take(&mut self, record: &[u8]) -> Result<()> {
        let Ok(event) = Event::parse(record) else { bail!("a record that is no event") };
        self.handle(Clock::now(), Input::Event(&event));
        Ok(())
    }

    fn handle(&mut self, now: BootTime, input: Input<'_>) {
        self.association.handle(now, input);
        self.clear_outputs();
    }

    fn clear_outputs(&mut self) {
        self.outputs.clear();
        self.outputs.extend(std::iter::from_fn(|| self.association.poll_output()));
    }

    fn add(&mut self, records: &mut Records, number: u32) -> Result<()> {
        self.take(records.request.of(number))?;
        self.take(records.ack.of(number))
    }

    /// With [`MILLION`] rows.
    fn full(records: &mut Records) -> Result<Self> {
        let mut core = Self::new(MILLION);
        for number in 0..MILLION {
            core.add(records, number)?;
        }
        core.has(MILLION)?;
        Ok(core)
    }

    fn has(&self, rows: u32) -> Result<()> {
        ensure!(self.association.rows() == rows, "{} rows instead of {rows}", self.association.rows());
        Ok(())
    }
}

/// Records of the ring to rows of the table: a REQUEST with an identity and the ACK to it, for each device.
pub(super) fn records(report: &mut Report) -> Result<()> {
    let mut rates = on_core(0, || {
        let mut records = Records::take()?;
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            let mut core = Core::new(NEWCOMERS);
            let mut busy = 0.0;
            for first in (0..NEWCOMERS).step_by(BATCH as usize) {
                let copy = |record: &mut Record| -> Vec<Vec<u8>> {
                    (first..first + BATCH).map(|number| record.of(number).to_vec()).collect()
                };
                let batch: Vec<_> = copy(&mut records.request).into_iter().zip(copy(&mut records.ack)).collect();
                let start = busy_seconds()?;
                for (request, ack) in &batch {
                    core.take(request)?;
                    core.take(ack)?;
                }
                busy += busy_seconds()? - start;
            }
            rates.push(f64::from(core.association.rows()) / busy);
            core.has(NEWCOMERS)?;
        }
        Ok(rates)
    })?;
    let [slowest, fastest] = [percentile(&mut rates, 0), percentile(&mut rates, 100)].map(|rate| number(rate.round()));
    let what = "ring record to row, in memory: REQUESTs with identity, and ACKs";
    let note = format!("in busy seconds of a core; two records each; rounds {slowest} to {fastest}");
    report.add(&Row::new(what, median(&mut rates), "/s").at_least(500_000.0).note(note));
    Ok(())
}

/// A million rows: their memory, what one more or less costs, and the end of all leases.
pub(super) fn table(report: &mut Report) -> Result<()> {
    let (bytes, changes, expiry) = on_core(0, || {
        let mut records = Records::take()?;
        let before = resident(process::id())?;
        let mut core = Core::full(&mut records)?;
        let bytes = (resident(process::id())? - before) * 1024.0 / f64::from(MILLION);
        let changes = changes(&mut core, &mut records)?;
        Ok((bytes, changes, expiry(&mut core)?))
    })?;
    let what = "1 M rows, in-memory core: memory of a row";
    report.add(&Row::new(what, bytes, "B").at_most(400.0).note("growth of the resident set, the indices included"));
    for (what, [middle, high]) in
        [("removal (RELEASE)", changes.removal), ("addition (REQUEST, ACK)", changes.addition)]
    {
        let row = Row::new(format!("1 M rows, one {what}, p99"), high, "us").below(5.0);
        report.add(&row.note(format!("p50 {} us; medians of {ROUNDS} rounds", number(middle))));
    }
    let what = "1 M rows, expiry, per row";
    report.add(&Row::new(what, expiry, "us").below(5.0).note("a tick a second until the last lease is over"));
    Ok(())
}

/// Medians over the rounds of p50 and p99, in microseconds.
struct Changes {
    removal: [f64; 2],
    addition: [f64; 2],
}

fn changes(core: &mut Core, records: &mut Records) -> Result<Changes> {
    let mut rounds = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS as u64 {
        let first = round * u64::from(CHANGES);
        let numbers = (first..first + u64::from(CHANGES)).map(|at| (at * STRIDE % u64::from(MILLION)) as u32);
        let mut times = [Vec::new(), Vec::new()];
        for number in numbers.clone() {
            let release = records.release.of(number);
            let start = Instant::now();
            core.take(release)?;
            times[0].push(start.elapsed().as_secs_f64() * 1e6);
        }
        core.has(MILLION - CHANGES)?;
        for number in numbers {
            let (request, ack) = (records.request.of(number), records.ack.of(number));
            let start = Instant::now();
            core.take(request)?;
            core.take(ack)?;
            times[1].push(start.elapsed().as_secs_f64() * 1e6);
        }
        core.has(MILLION)?;
        for (at, times) in times.iter_mut().enumerate() {
            rounds[2 * at].push(percentile(times, 50));
            rounds[2 * at + 1].push(percentile(times, 99));
        }
    }
    let [removal, removal_high, addition, addition_high] = rounds.each_mut().map(|round| median(round));
    Ok(Changes { removal: [removal, removal_high], addition: [addition, addition_high] })
}

/// Microseconds a row.
fn expiry(core: &mut Core) -> Result<f64> {
    let begin = Clock::now().0;
    let start = Instant::now();
    for second in 0..LAST_SECOND {
        core.handle(BootTime(begin + second * 1_000_000_000), Input::Tick);
    }
    let busy = start.elapsed().as_secs_f64();
    core.has(0)?;
    Ok(busy * 1e6 / f64::from(MILLION))
}

/// A million rows from the file of a store, back in the table.
pub(super) fn store(report: &mut Report) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let file = fill(&state)?;
    let mut times = Vec::new();
    let mut opening = Vec::new();
    let mut busy = Vec::new();
    for _ in 0..RELOADS {
        let (start, busy_before) = (Instant::now(), busy_seconds()?);
        let (store, kept) = open_store(&state, |name| (name == LAN).then_some(1))?;
        opening.push(start.elapsed().as_secs_f64());
        let mut core = Core::new(MILLION);
        let mut rows = kept.rows.into_iter();
        while !rows.as_slice().is_empty() {
            core.association.restore(Clock::now(), rows.by_ref().take(BATCH as usize), kept.next_instance);
            core.clear_outputs();
        }
        core.handle(Clock::now(), Input::Tick);
        times.push(start.elapsed().as_secs_f64());
        busy.push(busy_seconds()? - busy_before);
        core.has(MILLION)?;
        drop(store);
    }
    let reload = median(&mut times);
    let [opening, busy] = [&mut opening, &mut busy].map(|times| number(median(times)));
    let note =
        format!("{opening} s of it in the store; busy for {busy} s; file of {} MiB, in the page cache", file >> 20);
    report.add(&Row::new("1 M rows, reload from the store", reload, "s").below(3.0).note(note));
    Ok(())
}

/// Writes a million rows as the agent does; the bytes of the file.
fn fill(state: &std::path::Path) -> Result<u64> {
    let mut records = Records::take()?;
    let core = Core::full(&mut records)?;
    let (store, kept) = open_store(state, |_| None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let commit = |store: &Store, group| -> Result<()> {
        store.commit(group);
        ensure!(runtime.block_on(store.committed()) == Committed::Done, "a group was not written");
        Ok(())
    };
    let next_instance = encode(&core.association.next_instance());
    let meta = vec![(meta::NEXT_INSTANCE, next_instance), (meta::BOOTS, encode(&kept.boots))];
    commit(&store, Group { meta, ..Group::default() })?;
    let mut devices = core.association.devices().peekable();
    while devices.peek().is_some() {
        let rows = devices.by_ref().take(16 * GROUP);
        let rows = rows.map(|device| (device.instance, Some(encode_row(kept.boot, &device, |_| LAN))));
        commit(&store, Group { rows: rows.collect(), ..Group::default() })?;
    }
    Ok(fs::metadata(store.path())?.len())
}

/// Seconds that this thread had a core to itself: those of others do not count.
pub(super) fn busy_seconds() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::from(time).as_secs_f64())
}
