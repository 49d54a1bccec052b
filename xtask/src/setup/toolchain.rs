//! The compiler for the kernel programs: one that has the source of `core`, and may build it for BPF.

use std::{fmt, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::process::{command, output};

/// What Debian's compiler is linked as.
pub(super) const DEBIAN_NAME: &str = "bpf";
/// Debian follows Firefox's needs with these, so they are recent even in a stable release.
pub(super) const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];
pub(super) const DEBIAN_CLIPPY: &str = "rust-web-clippy";

/// The oldest compiler that builds the programs (the workspace's `rust-version`).
const OLDEST: (u32, u32) = (1, 95);

/// A toolchain that rustup can run and that can build `core` for BPF.
pub(crate) struct BpfToolchain {
    /// Name for `rustup run`.
    pub(crate) name: String,
    pub(crate) sysroot: PathBuf,
    /// As `rustc -vV` prints it.
    pub(crate) release: String,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    /// Calls itself stable: needs `RUSTC_BOOTSTRAP=1` to build `core`.
    pub(crate) bootstrap: bool,
}

impl BpfToolchain {
    pub(crate) fn has_clippy(&self) -> bool {
        ["cargo-clippy", "clippy-driver"].iter().all(|program| self.sysroot.join("bin").join(program).exists())
    }

    pub(crate) fn is_debian(&self) -> bool {
        self.sysroot.as_os_str() == "/usr"
    }
}

impl fmt::Display for BpfToolchain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: rustc {}, LLVM {}, in {}", self.name, self.release, self.llvm, self.sysroot.display())
    }
}

/// Names to try in order: the one of the last set-up, nightlies, Debian's, then any other.
pub(super) fn candidates(recorded: Option<&str>) -> Result<Vec<String>> {
    let list = output(command("rustup").args(["toolchain", "list"]))?;
    Ok(in_order(&list, recorded))
}

fn in_order(list: &str, recorded: Option<&str>) -> Vec<String> {
    let mut names: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    let rank = |name: &String| {
        if Some(name.as_str()) == recorded {
            0
        } else if name.starts_with("nightly") {
            1
        } else if name == DEBIAN_NAME {
            2
        } else {
            3
        }
    };
    names.retain(|name| name != "no");
    names.sort_by_key(rank);
    names
}

/// Asks a toolchain what it is; an error says why it will not do.
pub(crate) fn inspect(name: &str) -> Result<BpfToolchain> {
    let rustc = |argument: &[&str]| output(command("rustup").args(["run", name, "rustc"]).args(argument));
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
    let library = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    ensure!(library.exists(), "toolchain {name} has no source of core ({} is missing)", library.display());

    let version = rustc(&["-vV"])?;
    let field = |name: &str| {
        let value = version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.with_context(|| format!("rustc -vV has no `{name}`"))
    };
    let release = field("release")?.to_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(version >= OLDEST, "toolchain {name} is rustc {release}, older than {}.{}", OLDEST.0, OLDEST.1);
    let llvm = field("LLVM version")?;
    let llvm = llvm.split('.').next().and_then(|major| major.parse().ok());
    Ok(BpfToolchain {
        name: name.to_owned(),
        sysroot,
        llvm: llvm.context("LLVM's version is not a number")?,
        bootstrap: !release.contains("-nightly") && !release.contains("-dev"),
        release,
    })
}

pub(super) fn debian_is_installed() -> bool {
    ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/lib/rustlib/src/rust/library/core/src/lib.rs"]
        .iter()
        .all(|path| std::path::Path::new(path).exists())
}

/// Makes Debian's compiler a toolchain of rustup; linking it again is harmless.
pub(super) fn link_debian() -> Result<()> {
    output(command("rustup").args(["toolchain", "link", DEBIAN_NAME, "/usr"])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn prefers_a_nightly_then_debian_then_the_rest() {
        let list = "stable-x86_64 (active, default)\nbpf\nnightly-x86_64\n1.95.0-x86_64\n";
        assert_eq!(in_order(list, None), ["nightly-x86_64", "bpf", "stable-x86_64", "1.95.0-x86_64"]);
    }

    #[test]
    fn keeps_to_the_recorded_toolchain_while_it_exists() {
        let list = "nightly-x86_64\nbpf\n";
        assert_eq!(in_order(list, Some("bpf")), ["bpf", "nightly-x86_64"]);
        assert_eq!(in_order(list, Some("gone")), ["nightly-x86_64", "bpf"]);
    }

    #[test]
    fn finds_nothing_where_rustup_has_nothing() {
        assert!(in_order("no installed toolchains\n", None).is_empty());
    }
}
