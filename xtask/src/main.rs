//! Everything a developer of tr111 does, as `cargo xtask <command>`.
//!
//! Each command brings the machine to where it can run (see [`setup`]), so it can be the first one typed after a clone.
#![forbid(unsafe_code)]

mod build;
mod conformance;
mod dist;
#[cfg(test)]
mod documents;
mod kernels;
mod lint;
mod process;
mod setup;
mod showcase;
mod test;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of tr111.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring this machine to where everything builds and runs; says what it does, does nothing twice
    Setup {
        /// How far to go
        #[arg(value_enum, default_value = "all")]
        level: setup::Level,
    },
    /// Build the tr111 binary with its kernel programs
    Build {
        /// Optimised, as shipped: target/release/tr111
        #[arg(long)]
        release: bool,
    },
    /// Build the portable binary: static, stripped, in target/portable
    Dist {
        /// For which machine; repeat it for several [default: both]
        #[arg(long, value_enum)]
        target: Vec<dist::Target>,
        /// Which roles it plays
        #[arg(long, value_enum, default_value = "all")]
        roles: dist::Roles,
    },
    /// Watch LAN devices become ManageableDevice rows, or a device live behind a NAT, in namespaces of its own
    Demo {
        /// Nothing for Part 1; `--nat` for Part 2; `--nat --minutes N`: does a device stay reachable for so long?
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run every test: unit, property, corpus parity, stories in network namespaces; then the conformance table
    Test {
        /// Arguments for `cargo test` (a filter, `-p crate`, `-- --nocapture`); then only those tests run
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run programs and agent on the kernels that Debian ships, for PCs and ARM, under software emulation
    Kernels {
        /// Debian's packages of kernels, such as linux-image-6.1.0-44-amd64 [default: those of every test run]
        packages: Vec<String>,
    },
    /// rustfmt and clippy with warnings denied, for host and kernel code
    Lint {
        /// Also check licences, sources and versions of the dependencies; installs cargo-deny when it is missing
        #[arg(long)]
        deny: bool,
    },
    /// Print which requirement of TR-111 is proven by which test
    Conformance {
        /// Only requirements that are not covered
        #[arg(long)]
        open: bool,
    },
    /// Measure the packet path beside its baselines
    Bench {
        /// Arguments for the benchmark itself
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup { level } => setup::run(level, setup::Report::Full)?,
        Command::Build { release } => build::run(release)?,
        Command::Dist { target, roles } => dist::run(&target, roles)?,
        Command::Demo { arguments } => return showcase::run("demo", &arguments),
        Command::Test { arguments } => return test::run(&arguments),
        Command::Kernels { packages } => return kernels::run(&packages),
        Command::Lint { deny } => lint::run(deny)?,
        Command::Conformance { open } => return conformance::run(open),
        Command::Bench { arguments } => return showcase::bench(&arguments),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_document_lists_every_command() {
        let document = include_str!("../../docs/development.md");
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            assert!(document.contains(&format!("`cargo xtask {name}")), "{name} is missing");
        }
    }
}
