//! What `cargo xtask bench` measures. A section measures one thing, in one file for each kind, and puts its lines into
//! the one table; docs/benchmarks.md lists the limits.

mod against;
mod flash;
mod flood;
mod generator;
mod idle;
mod kea;
mod kills;
mod lifetime;
mod portable;
mod programs;
mod records;
mod registry;
mod report;
mod requests;
mod rows;
mod stun;
mod wake;

use std::thread;

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

pub use report::{Report, Row};

/// One measurement, which can be asked for by its name.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    measure: fn(&mut Report) -> Result<()>,
}

/// Every section, in the order in which they run.
pub const SECTIONS: [Section; 19] = [
    Section {
        name: "programs",
        about: "frames that are not ours, and DISCOVER, at LAN ingress",
        measure: programs::ingress,
    },
    Section { name: "insertion", about: "the Gateway Identity into a reply, at egress", measure: programs::insertion },
    Section { name: "records", about: "records of the ring to rows", measure: rows::records },
    Section { name: "table", about: "a million rows in the core", measure: rows::table },
    Section { name: "store", about: "a million rows from the store", measure: rows::store },
    Section { name: "flash", about: "bytes that renewals and changes of identity write", measure: flash::flash },
    Section {
        name: "verification",
        about: "UDP Connection Requests, accepted and refused",
        measure: requests::verification,
    },
    Section { name: "flood", about: "forged Connection Requests at 100,000 a second", measure: flood::forgeries },
    Section { name: "lifetime", about: "the search for a NAT's timeout, in real time", measure: lifetime::search },
    Section { name: "keepalive", about: "packets that an extended NAT timeout saves", measure: lifetime::keep_alive },
    Section { name: "stun", about: "STUN answers, beside coturn and stund", measure: stun::answers },
    Section { name: "wake", about: "Connection Requests to 100,000 CPEs", measure: wake::bulk },
    Section { name: "spoofed", about: "Binding Requests of a million sources that nobody has", measure: wake::spoofed },
    Section { name: "idle", about: "an agent with an empty table", measure: idle::empty },
    Section { name: "devices", about: "an agent with 10,000 devices that are there", measure: idle::devices },
    Section {
        name: "portable",
        about: "the portable binaries: size, and memory while idle",
        measure: portable::binaries,
    },
    Section { name: "kea", about: "Kea under perfdhcp, with the agent and without", measure: kea::kea_under_load },
    Section { name: "registry", about: "a million CPEs of an ACS", measure: registry::registry },
    Section { name: "kills", about: "50 SIGKILLs during 500 exchanges a second", measure: kills::kills },
];

/// The sections with `names`, all of them without any.
///
/// # Errors
/// There is none of a name; the error has those that are.
pub fn select(names: &[String]) -> Result<Vec<Section>> {
    if let Some(unknown) = names.iter().find(|name| SECTIONS.iter().all(|section| section.name != name.as_str())) {
        let lines = SECTIONS.map(|Section { name, about, .. }| format!("  {name:<14}{about}"));
        bail!("no section {unknown:?}; there are\n{}", lines.join("\n"));
    }
    let is_chosen = |section: &Section| names.is_empty() || names.iter().any(|name| name == section.name);
    Ok(SECTIONS.into_iter().filter(is_chosen).collect())
}

/// Measures `sections`, and prints the table; whether every bar is held. The sections on programs hold them against those
/// of another object, if one is given.
pub fn run(sections: &[Section], against: Option<Vec<u8>>) -> bool {
    let mut report = Report::start(against);
    for section in sections {
        if let Err(error) = (section.measure)(&mut report) {
            report.failed(section.name, &error);
        }
        if crate::wait::is_interrupted() {
            break;
        }
    }
    report.finish()
}

/// Does `work` on a thread that stays on `core`, as do the threads and processes that it starts.
fn on_core<T: Send>(core: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let pinned = scope.spawn(move || {
            let mut cores = CpuSet::new();
            cores.set(core)?;
            sched_setaffinity(Pid::from_raw(0), &cores).with_context(|| format!("cannot stay on core {core}"))?;
            work()
        });
        pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The value in the middle.
fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

/// The least value that `percent` of the values do not exceed.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_section() {
        let document = include_str!("../../../docs/benchmarks.md");
        let (_, sections) = document.split_once("Its sections are").expect("a paragraph on the sections");
        let (sections, _) = sections.split_once("\n\n").expect("its end");
        for Section { name, .. } in SECTIONS {
            assert!(sections.contains(&format!("`{name}`")), "{name} is missing");
        }
    }
}
