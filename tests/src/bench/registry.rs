//! The registry of an ACS with a million CPEs: its memory, a restart, a look-up; and a million signed requests in its file.

use std::{
    fs,
    hint::black_box,
    net::SocketAddrV4,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tr111::registry::{Encryption, FILE, Journal, Location};
use tr111_core::{
    acs::{Change, Cpe, Credentials, Fingerprint, Seen, State},
    short::Short,
    stun::Username,
    time::UnixTime,
};

use super::{Report, Row, idle::resident, median, on_core, report::number};
use crate::{acs, agent::Files, lab::Lab, wait::wait_for};

const MILLION: u32 = 1_000_000;
/// CPEs that are written together.
const GROUP: u32 = 8_192;
/// Signed requests that are remembered together.
const BATCH: usize = 1_000;
const ROUNDS: usize = 5;
/// Coprime to [`MILLION`]: its multiples visit the registry in no order that caches like.
const STRIDE: u64 = 387_421;
const LIMIT: Duration = Duration::from_mins(2);

fn name(number: u32) -> String {
    format!("00256D-CPE{number:09}")
}

/// As an operator has them: two passwords of 128 bits in hexadecimal digits, and a signed binding.
fn cpe(number: u32) -> Cpe {
    let short = |text: String| Short::from(text.as_bytes());
    let address = SocketAddrV4::new((0x0a00_0000 + number).into(), 40_000);
    let server = SocketAddrV4::new([203, 0, 113, 10].into(), 3478);
    let seen = Seen { address, server, since: UnixTime(1_700_000_000), last_seen: UnixTime(1_700_000_500) };
    Cpe {
        name: short(name(number)),
        credentials: Credentials {
            stun_password: short(format!("{:032x}", u128::from(number) * 0x9e37_79b9_7f4a_7c15)),
            connection_request_username: short(name(number)),
            connection_request_password: short(format!("{:032x}", u128::from(number) * 0xc2b2_ae3d_27d4_eb4f)),
        },
        state: State { authenticated: Some(seen), last_timestamp: Some(1_700_000_400), ..State::default() },
    }
}

fn fill(location: &Location) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let journal = Journal::open(location, Encryption::default(), 7)?.journal;
    for first in (0..MILLION).step_by(GROUP as usize) {
        let last = MILLION.min(first + GROUP);
        let changes = (first..last).map(|number| Change::Added(Box::new(cpe(number)))).collect();
        runtime.block_on(journal.commit(changes))?;
    }
    Ok(())
}

/// Bytes of a CPE, and seconds of a restart, of a real `tr111 run acs`; nanoseconds of a look-up in one like it.
pub(super) fn registry(report: &mut Report) -> Result<()> {
    let lab = Lab::new()?;
    let files = Files::new(lab.path(), "million")?;
    let state = files.state();
    fill(&Location::Embedded(state.clone()))?;

    let mut empty = acs::start(&lab.lan, lab.path(), "empty", "")?;
    let before = resident(empty.process().id())?;
    drop(empty);

    let mut files = Some(files);
    let (mut times, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let start = Instant::now();
        let Some(paths) = files.take() else { break };
        let mut full = acs::start_with(&lab.gateway, paths, lab.path(), "")?;
        wait_for("readiness", LIMIT, || Ok(full.fetch("/readyz").ok().filter(|(status, _)| *status == 200)))?;
        times.push(start.elapsed().as_secs_f64());
        ensure!(full.json(&["status"])?["acs"]["cpes"] == MILLION, "not all CPEs are there");
        bytes.push((resident(full.process().id())? - before) * 1024.0 / f64::from(MILLION));
        files = Some(full.kill()?);
    }
    let size = fs::metadata(Path::new(&state).join(FILE))?.len() >> 20;
    let note = "growth of the resident set of tr111 run acs, store and its cache included";
    report.add(&Row::new("1 M CPEs, ACS: memory of a CPE", median(&mut bytes), "B").at_most(600.0).note(note));
    let note = format!("to /readyz after a SIGKILL; file of {size} MiB, in the page cache");
    report.add(&Row::new("1 M CPEs, ACS: restart", median(&mut times), "s").at_most(10.0).note(note));

    let (size, seconds) = remember()?;
    let note = format!("{} a second, {BATCH} at a time", number(f64::from(MILLION) / seconds));
    report.add(&Row::new("1 M signed requests, ACS: file", size, "MB").at_most(35.0).note(note));

    let mut rounds = on_core(0, || look_up(&Location::Embedded(state)))?;
    let note = format!("by USERNAME, in no order; slowest of {ROUNDS} rounds {} ns", number(rounds[ROUNDS - 1].ceil()));
    report.add(&Row::new("1 M CPEs, ACS: look-up", median(&mut rounds), "ns").below(1_000.0).note(note));
    Ok(())
}

/// Megabytes of a registry that remembers a million signed requests, and the seconds that it takes to remember them.
fn remember() -> Result<(f64, f64)> {
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let location = Location::Embedded(directory.path().to_owned());
    let journal = Journal::open(&location, Encryption::default(), 7)?.journal;
    let start = Instant::now();
    for first in (0..u64::from(MILLION)).step_by(BATCH) {
        let requests = (first..first + BATCH as u64).map(|at| Fingerprint(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        runtime.block_on(journal.remember(requests.collect()))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let kilobytes = u32::try_from(fs::metadata(directory.path().join(FILE))?.len() / 1_000)?;
    Ok((f64::from(kilobytes) / 1e3, seconds))
}

/// Nanoseconds of a look-up, by rising time of the round.
fn look_up(location: &Location) -> Result<Vec<f64>> {
    let registry = Journal::open(location, Encryption::default(), 7)?.registry;
    ensure!(registry.len() == MILLION, "not all CPEs are there");
    let names: Vec<String> =
        (0..MILLION).map(|at| name((u64::from(at) * STRIDE % u64::from(MILLION)) as u32)).collect();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for name in &names {
            let found = registry.named(Username(name.as_bytes())).and_then(|number| registry.get(number));
            black_box(found.map(|cpe| cpe.state.authenticated));
        }
        rounds.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(MILLION));
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds)
}
