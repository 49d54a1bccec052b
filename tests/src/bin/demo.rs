//! `cargo xtask demo`: without arguments Part 1 of TR-111 in a minute, with `--nat` Part 2 in four, with
//! `--acs` its other end in one.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tr111_tests::{
    demo::{acs, association, nat, reachability},
    wait::{catch_interrupts, is_interrupted},
};

const USAGE: &str = "usage: cargo xtask demo [--acs | --nat [--minutes N]]";

fn main() -> ExitCode {
    match catch_interrupts().and_then(|()| demonstrate()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if is_interrupted() => {
            println!("\nStopped; everything that the demo made is gone.");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => association::demonstrate(),
        ["--acs"] => acs::demonstrate(),
        ["--nat"] => nat::demonstrate(),
        ["--nat", "--minutes", minutes] => reachability::demonstrate(minutes.parse().context(USAGE)?),
        _ => bail!(USAGE),
    }
}
