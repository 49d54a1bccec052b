//! `cargo xtask demo` and `cargo xtask bench`: programs of the tests package, run on a release build.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build::{self, Profile},
    dist::{self, Roles, Target},
    process::{command, is_root, run as run_command},
    setup,
};

/// The benchmark. Its section `portable` looks at the portable binaries for PCs, which are built where it is to run.
pub(crate) fn bench(arguments: &[OsString]) -> Result<ExitCode> {
    let names_none = arguments.iter().all(|argument| argument.to_string_lossy().starts_with('-'));
    if names_none || arguments.iter().any(|argument| argument == "portable") {
        setup::run(setup::Level::Dist, setup::Report::Changes)?;
        for roles in [Roles::All, Roles::Gateway] {
            dist::build(&[Target::X86_64], roles)?;
        }
    }
    run("bench", arguments)
}

/// Builds the program `name` of the tests package and becomes it, so that Ctrl-C and the exit status are its own.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> Result<ExitCode> {
    ensure!(is_root(), "{name} makes network namespaces and loads programs into the kernel: run it as root");
    setup::run(setup::Level::Test, setup::Report::Changes)?;
    run_command(&mut build::command(Profile::Release, &["tr111", name]))?;

    let program = Profile::Release.program(name);
    let mut showcase = command(&program);
    showcase
        .args(arguments)
        .env("TR111_BIN", Profile::Release.program("tr111"))
        .env("TR111_PORTABLE", dist::directory());
    Err(showcase.exec()).with_context(|| format!("cannot start {}", program.display()))
}
