//! schemathesis, which tests the HTTP interface against its OpenAPI document. It is a Python program, so it gets an
//! environment of its own in the workspace, with every version as it is written down.

use std::{fs, path::PathBuf};

use anyhow::Result;

use super::Journal;
use crate::process::{command, output, workspace_root};

/// Every package and its version.
const PACKAGES: &str = include_str!("../../schemathesis.txt");
/// Debian's package of what makes such environments.
pub(super) const VENV: &str = "python3-venv";

fn root() -> PathBuf {
    workspace_root().join(".test-tools/schemathesis")
}

/// Whether this Python can make environments; Debian leaves that out of python3.
pub(super) fn can_be_installed() -> bool {
    output(command("python3").args(["-c", "import venv, ensurepip"])).is_ok()
}

/// Installs what is missing.
pub(super) fn install(journal: &mut Journal) -> Result<()> {
    let installed = root().join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|packages| packages == PACKAGES) {
        journal.there("schemathesis", &root().display().to_string());
        return Ok(());
    }
    journal.step("schemathesis", "installing into the workspace", || {
        output(command("python3").args(["-m", "venv", "--clear"]).arg(root()))?;
        let packages = workspace_root().join("xtask/schemathesis.txt");
        let mut pip = command(root().join("bin/pip"));
        output(pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(packages))?;
        Ok(fs::write(&installed, PACKAGES)?)
    })
}
