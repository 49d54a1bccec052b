//! `cargo xtask demo` and `cargo xtask bench`: programs of the tests package, run on a release build.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build::{self, Profile},
    process::{command, is_root, run as run_command},
    setup,
};

/// Builds the program `name` of the tests package and becomes it, so that Ctrl-C and the exit status are its own.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> Result<ExitCode> {
    ensure!(is_root(), "{name} makes network namespaces and loads programs into the kernel: run it as root");
    setup::run(setup::Level::Test, setup::Report::Changes)?;
    run_command(&mut build::command(Profile::Release, &["tr111", name]))?;

    let program = Profile::Release.program(name);
    let mut showcase = command(&program);
    showcase.args(arguments).env("TR111_BIN", Profile::Release.program("tr111"));
    Err(showcase.exec()).with_context(|| format!("cannot start {}", program.display()))
}
