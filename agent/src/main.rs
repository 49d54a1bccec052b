//! `tr111`: the gateway, device and ACS sides of TR-111.

use std::process::ExitCode;

fn main() -> ExitCode {
    tr111::cli::main()
}
