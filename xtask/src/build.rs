//! `cargo xtask build`.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    process::{cargo, run as run_command, target_dir},
    setup,
};

/// Which of cargo's profiles.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// Quick to build; what the tests run.
    Dev,
    /// As shipped; what the demo and the benchmarks run.
    Release,
}

impl Profile {
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }

    /// Path of a program built with this profile.
    pub(crate) fn program(self, name: &str) -> PathBuf {
        let dir = match self {
            Self::Dev => "debug",
            Self::Release => "release",
        };
        target_dir().join(dir).join(name)
    }
}

/// Builds programs of the agent and of the tests package. Always naming both gives their dependencies the same features
/// each time, so that the demo does not compile again what the build left.
pub(crate) fn command(profile: Profile, programs: &[&str]) -> Command {
    let mut build = cargo();
    build.args(["build", "--package", "tr111", "--package", "tr111-tests"]).args(profile.arguments());
    build.args(programs.iter().flat_map(|program| ["--bin", program]));
    build
}

pub(crate) fn run(release: bool) -> Result<()> {
    setup::run(setup::Level::Build, setup::Report::Changes)?;
    let profile = if release { Profile::Release } else { Profile::Dev };
    run_command(&mut command(profile, &["tr111"]))?;
    println!("{}", profile.program("tr111").display());
    Ok(())
}
