//! `cargo xtask bench`: what tr111 costs, each figure beside its bar. Names of sections choose among them; with
//! `--against OBJECT` the programs of this build are held against those of another one.

use std::{fs, process::ExitCode};

use anyhow::{Context, Result};
use tr111_tests::{bench, lock::Turn, wait::catch_interrupts};

fn main() -> Result<ExitCode> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let mut against = None;
    if let Some(at) = names.iter().position(|argument| argument == "--against") {
        names.remove(at);
        let object = names.get(at).cloned().context("--against needs the path of an object")?;
        names.remove(at);
        against = Some(fs::read(&object).context(object)?);
    }
    let sections = bench::select(&names)?;
    catch_interrupts()?;
    let _turn = Turn::take()?;
    Ok(if bench::run(&sections, against) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
