//! `cargo xtask bench`: what tr111 costs, each figure beside its bar. Names of sections choose among them.

use std::process::ExitCode;

use anyhow::Result;
use tr111_tests::{bench, lock::Turn, wait::catch_interrupts};

fn main() -> Result<ExitCode> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let sections = bench::select(&names)?;
    catch_interrupts()?;
    let _turn = Turn::take()?;
    Ok(if bench::run(&sections) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
