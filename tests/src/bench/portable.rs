//! What the portable binaries of `cargo xtask dist` take: bytes on the disk, bytes in a package, and memory while idle.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{
    Report, Row,
    idle::{EMPTY, SETTLE, resident},
};
use crate::{
    agent::{Agent, Files},
    lab::Lab,
    process::output,
    wait::pass,
};

/// What a binary may take, in megabytes of 10^6 bytes.
struct Bars {
    /// The name of the file.
    name: &'static str,
    roles: &'static str,
    size: f64,
    packed: Option<f64>,
}

const BINARIES: [Bars; 2] = [
    Bars { name: "tr111-x86_64", roles: "every role", size: 8.0, packed: None },
    Bars { name: "tr111-gateway-x86_64", roles: "gateway alone", size: 4.6, packed: Some(1.7) },
];

/// Both binaries for PCs, which `cargo xtask bench` has built in the directory that it names by `TR111_PORTABLE`.
pub(super) fn binaries(report: &mut Report) -> Result<()> {
    let directory: PathBuf = env::var_os("TR111_PORTABLE").context("TR111_PORTABLE names no directory")?.into();
    for Bars { name, roles, size, packed } in BINARIES {
        let binary = directory.join(name);
        let what = |figure: &str| format!("portable, {roles}: {figure}");
        let bytes = fs::metadata(&binary).with_context(|| binary.display().to_string())?.len();
        report.add(&Row::new(what("size"), megabytes(usize::try_from(bytes)?)?, "MB").at_most(size));
        let row = Row::new(what("as xz"), megabytes(packed_size(&binary)?)?, "MB");
        report.add(&packed.into_iter().fold(row, Row::at_most));
        let idle = Row::new(what("idle memory"), idle_mebibytes(&binary)?, "MiB");
        report.add(&idle.at_most(EMPTY));
    }
    Ok(())
}

fn megabytes(bytes: usize) -> Result<f64> {
    Ok(f64::from(u32::try_from(bytes)?) / 1e6)
}

fn packed_size(binary: &Path) -> Result<usize> {
    let packed = output(Command::new("xz").args(["-6", "--stdout", "--"]).arg(binary))?;
    ensure!(packed.status.success(), "xz: {}", packed.status);
    Ok(packed.stdout.len())
}

/// The memory of a gateway with an empty table.
fn idle_mebibytes(binary: &Path) -> Result<f64> {
    let lab = Lab::new()?;
    let files = Files::new(lab.path(), "agent")?;
    let mut command = files.run_gateway_of(binary, &lab.gateway, &["lan0"], &[]);
    let mut agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    pass(SETTLE)?;
    Ok(resident(agent.process().id())? / 1024.0)
}
