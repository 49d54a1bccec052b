//! Programs from PyPI. Each gets an environment of its own in the workspace, with every version as it is written down.

use std::{fs, path::PathBuf};

use anyhow::Result;

use super::Journal;
use crate::process::{command, output, workspace_root};

/// Debian's package of what makes such environments.
pub(super) const VENV: &str = "python3-venv";

/// A program from PyPI.
pub(crate) struct PythonTool {
    name: &'static str,
    /// Every package and its version.
    packages: &'static str,
}

/// Tests the HTTP interface against its OpenAPI document.
pub(super) const SCHEMATHESIS: PythonTool =
    PythonTool { name: "schemathesis", packages: include_str!("../../schemathesis.txt") };
/// C compiler and linker for every target, and the cargo subcommand that uses them.
pub(crate) const ZIG: PythonTool = PythonTool { name: "zig", packages: include_str!("../../zig.txt") };

impl PythonTool {
    fn root(&self) -> PathBuf {
        workspace_root().join(".test-tools").join(self.name)
    }

    /// Where its programs are.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root().join("bin")
    }

    /// Installs what is missing.
    pub(super) fn install(&self, journal: &mut Journal) -> Result<()> {
        let root = self.root();
        let installed = root.join("installed.txt");
        if fs::read_to_string(&installed).is_ok_and(|packages| packages == self.packages) {
            journal.there(self.name, &root.display().to_string());
            return Ok(());
        }
        journal.step(self.name, "installing into the workspace", || {
            output(command("python3").args(["-m", "venv", "--clear"]).arg(&root))?;
            let list = root.join("packages.txt");
            fs::write(&list, self.packages)?;
            let mut pip = command(root.join("bin/pip"));
            output(pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(list))?;
            Ok(fs::write(&installed, self.packages)?)
        })
    }
}

/// Whether this Python can make environments; Debian leaves that out of python3.
pub(super) fn can_be_installed() -> bool {
    output(command("python3").args(["-c", "import venv, ensurepip"])).is_ok()
}
