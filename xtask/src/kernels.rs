//! `cargo xtask kernels`: the programs and the agent on the kernels that Debian ships, in guests under qemu's software
//! emulation.
//!
//! A guest is a Debian kernel with an initramfs: Debian's userland for that processor (busybox, iproute2, dnsmasq, nft), the
//! portable `tr111`, and the test program `tests/guest`. It prints what `tr111 check` says and what the tests say, and ends.

mod apt;
mod guest;
mod image;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, ensure};

use self::{
    apt::{Archive, Machine},
    guest::{Guest, Report},
    image::Image,
};
use crate::{
    build,
    dist::{self, Roles, Target},
    process::{cargo, is_root, run as run_command, target_dir},
    setup,
    test::Outcome,
};

/// Most instructions that a verifier may walk for a program: a quarter of what it allows, so that the next kernel has room.
const INSTRUCTIONS: u64 = 250_000;
/// Guests at a time.
const AT_ONCE: usize = 2;

/// A kernel that every change is tested on.
struct Tested {
    /// What its package's name begins with behind `linux-image-`; empty: whatever is newest.
    series: &'static str,
    machine: Machine,
    /// Without the kernel's type information, as OpenWrt builds it.
    hides_btf: bool,
}

const TESTED: [Tested; 6] = [
    Tested { series: "6.1.", machine: Machine::AMD64, hides_btf: false },
    Tested { series: "6.12.", machine: Machine::AMD64, hides_btf: false },
    Tested { series: "", machine: Machine::AMD64, hides_btf: false },
    Tested { series: "6.12.", machine: Machine::AMD64, hides_btf: true },
    Tested { series: "6.12.", machine: Machine::ARM64, hides_btf: false },
    Tested { series: "", machine: Machine::ARM64, hides_btf: false },
];

/// The tests of a guest that is short: those of the programs, the rows of real clients, and the binary alone.
const SHORT: [&str; 5] = ["corpus_programs", "acs_corpus", "insertion", "rows", "chroot"];

/// Runs every guest, or those of the named kernel packages.
pub(crate) fn run(packages: &[String]) -> Result<ExitCode> {
    let outcomes = results(packages)?;
    let failed = outcomes.values().filter(|outcome| **outcome != Outcome::Passed).count();
    println!("kernels: {} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What every test said, by guest and name.
pub(crate) fn results(packages: &[String]) -> Result<BTreeMap<(String, String), Outcome>> {
    ensure!(is_root(), "the guests' userland is unpacked with its owners: run it as root");
    setup::run(setup::Level::Kernels, setup::Report::Changes)?;
    let mut archives = BTreeMap::new();
    let mut wanted = Vec::new();
    if packages.is_empty() {
        for Tested { series, machine, hides_btf } in TESTED {
            let archive = archive(&mut archives, machine)?;
            wanted.push((machine, archive.newest_kernel(series)?, hides_btf));
        }
    }
    for package in packages {
        let machine = Machine::of(package).with_context(|| format!("{package} is for neither amd64 nor arm64"))?;
        wanted.push((machine, package.clone(), false));
    }
    let machines: Vec<_> =
        Machine::ALL.into_iter().filter(|machine| wanted.iter().any(|one| one.0 == *machine)).collect();
    let programs = programs(&machines)?;

    let mut guests = Vec::new();
    for (machine, package, hides_btf) in wanted {
        let archive = archive(&mut archives, machine)?;
        let image = Image::new(archive, &package)?;
        let is_short = hides_btf || machine == Machine::ARM64;
        let tests = if is_short { &SHORT[..] } else { &[] };
        let (tr111, guest_tests) = &programs[&machine];
        guests.push(Guest::new(&image, tr111, guest_tests, tests, hides_btf)?);
    }
    let reports = boot(&guests);
    print_instructions(&reports);
    let mut outcomes = BTreeMap::new();
    for report in reports {
        report.print();
        for (test, outcome) in report.outcomes(INSTRUCTIONS) {
            println!("test {}::{test} ... {}", report.name, outcome.word());
            outcomes.insert((report.name.clone(), test), outcome);
        }
    }
    Ok(outcomes)
}

fn archive(archives: &mut BTreeMap<Machine, Archive>, machine: Machine) -> Result<&Archive> {
    Ok(match archives.entry(machine) {
        Entry::Occupied(archive) => archive.into_mut(),
        Entry::Vacant(place) => place.insert(Archive::open(machine)?),
    })
}

/// For each machine the portable binary and the test program. This machine's own test program is that of `cargo xtask
/// test`, which is built already.
fn programs(machines: &[Machine]) -> Result<BTreeMap<Machine, (PathBuf, PathBuf)>> {
    let targets: Vec<Target> = machines.iter().map(|machine| machine.target).collect();
    let binaries = dist::build(&targets, Roles::All)?;
    let mut programs = BTreeMap::new();
    for (machine, binary) in machines.iter().zip(binaries) {
        let tests = if machine.is_this() {
            run_command(cargo().args(["build", "--package", "tr111-tests", "--test", "guest"]))?;
            let programs = build::Profile::Dev.program("deps");
            dist::newest(&programs, "guest-")?
        } else {
            dist::build_guest_tests(machine.target)?
        };
        programs.insert(*machine, (binary, tests));
    }
    Ok(programs)
}

/// Boots every guest, some at a time.
fn boot(guests: &[Guest]) -> Vec<Report> {
    let next = Mutex::new(guests.iter().enumerate());
    let reports = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let guest = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((number, guest)) = guest else { return };
                    let report = guest.boot();
                    println!("kernels: {}: {}", report.name, report.summary());
                    reports.lock().unwrap_or_else(PoisonError::into_inner).insert(number, report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// The instructions that each verifier walked, a line for each program and a column for each guest.
fn print_instructions(reports: &[Report]) {
    let mut programs: Vec<&str> = Vec::new();
    for (program, _) in reports.iter().flat_map(|report| &report.programs) {
        if !programs.contains(&program.as_str()) {
            programs.push(program);
        }
    }
    println!("\ninstructions that the verifiers walked (at most {INSTRUCTIONS}):");
    for (number, report) in reports.iter().enumerate() {
        println!("  {}: {}", number + 1, report.name);
    }
    let line = |first: &str, cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:>10}")).collect();
        println!("{first:<18}{}", cells.concat());
    };
    line("program", &(1..=reports.len()).map(|number| number.to_string()).collect::<Vec<_>>());
    for program in programs {
        let cells = reports.iter().map(|report| {
            let found = report.programs.iter().find(|(name, _)| name == program);
            found.map_or_else(
                || "-".to_owned(),
                |(_, walked)| walked.map_or_else(|| "refused".to_owned(), |n| n.to_string()),
            )
        });
        line(program, &cells.collect::<Vec<_>>());
    }
    println!();
}

/// Where everything of the guests is kept.
fn directory() -> PathBuf {
    target_dir().join("kernels")
}

#[cfg(test)]
mod tests {
    use super::{Machine, TESTED, Tested};

    #[test]
    fn the_document_names_the_kernels_that_are_tested_and_no_other() {
        let document = include_str!("../../docs/gateway.md");
        let (_, table) = document.split_once("| kernel | processor | tested |\n").expect("the table of kernels");
        let rows = table.lines().skip(1).map_while(|line| line.strip_prefix("| "));
        let named: Vec<_> = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(", ")).collect();
        let tested = TESTED.map(|Tested { series, machine, hides_btf }| {
            let kernel = match series.trim_end_matches('.') {
                "" => "the newest of Debian's backports".to_owned(),
                series => format!("Debian's {series}"),
            };
            let without = if hides_btf { " without `/sys/kernel/btf`" } else { "" };
            let processor = if machine == Machine::AMD64 { "x86-64" } else { "arm64" };
            format!("{kernel}{without}, {processor}")
        });
        assert_eq!(named, tested);
    }
}
