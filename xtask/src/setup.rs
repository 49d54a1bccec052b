//! Brings a machine to where tr111 builds, is tested and is shown.
//!
//! Prefers what is already there. What has to be installed comes from Debian's packages, as root; without root or apt the
//! commands are printed instead. What was found for the kernel programs is written to `.bpf-toolchain` at the workspace
//! root, which `agent/build.rs` reads.

mod apt;
mod linker;
pub(crate) mod python;
pub(crate) mod toolchain;

use std::{fs, io::Write as _, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, find, workspace_root};
use linker::Linker;
use toolchain::BpfToolchain;

/// How far a command needs the machine to be.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Level {
    /// What `cargo xtask build` needs
    Build,
    /// And what the tests, the demo and the benchmarks run
    Test,
    /// What `cargo xtask dist` needs
    Dist,
    /// What `cargo xtask kernels` needs
    Kernels,
    /// What `cargo xtask lint` needs
    Lint,
    /// Everything
    All,
}

/// How much to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// Every thing that was looked for.
    Full,
    /// Only what had to be done.
    Changes,
}

/// A program that something here runs, and Debian's package of it.
struct Tool {
    program: &'static str,
    package: &'static str,
    level: Level,
}

const fn tool(level: Level, program: &'static str, package: &'static str) -> Tool {
    Tool { program, package, level }
}

const TOOLS: [Tool; 35] = [
    tool(Level::Build, "cc", "gcc"),
    tool(Level::Dist, "python3", "python3"),
    tool(Level::Dist, "xz", "xz-utils"),
    tool(Level::Kernels, "qemu-system-x86_64", "qemu-system-x86"),
    tool(Level::Kernels, "qemu-system-aarch64", "qemu-system-arm"),
    tool(Level::Kernels, "apt-get", "apt"),
    tool(Level::Kernels, "cpio", "cpio"),
    tool(Level::Kernels, "depmod", "kmod"),
    tool(Level::Kernels, "zstd", "zstd"),
    tool(Level::Test, "ip", "iproute2"),
    tool(Level::Test, "ethtool", "ethtool"),
    tool(Level::Test, "nsenter", "util-linux"),
    tool(Level::Test, "mount", "mount"),
    tool(Level::Test, "ps", "procps"),
    tool(Level::Test, "dnsmasq", "dnsmasq-base"),
    tool(Level::Test, "udhcpc", "udhcpc"),
    tool(Level::Test, "dhclient", "isc-dhcp-client"),
    tool(Level::Test, "dhcrelay", "isc-dhcp-relay"),
    tool(Level::Test, "kea-dhcp4", "kea-dhcp4-server"),
    tool(Level::Test, "perfdhcp", "kea-admin"),
    tool(Level::Test, "nft", "nftables"),
    tool(Level::Test, "conntrack", "conntrack"),
    tool(Level::Test, "stund", "stun-server"),
    tool(Level::Test, "stun", "stun-client"),
    tool(Level::Test, "turnserver", "coturn"),
    tool(Level::Test, "sysctl", "procps"),
    tool(Level::Test, "tcpdump", "tcpdump"),
    tool(Level::Test, "tshark", "tshark"),
    tool(Level::Test, "curl", "curl"),
    tool(Level::Test, "openssl", "openssl"),
    tool(Level::Test, "node", "nodejs"),
    tool(Level::Test, "promtool", "prometheus"),
    tool(Level::Test, "bpftool", "bpftool"),
    tool(Level::Test, "redis-server", "redis-server"),
    tool(Level::Test, "redis-cli", "redis-tools"),
];

impl Level {
    fn includes(self, other: Self) -> bool {
        let implied = match self {
            Self::Test => &[Self::Dist, Self::Kernels][..],
            Self::Kernels => &[Self::Dist],
            _ => &[],
        };
        other == Self::Build || self == Self::All || self == other || implied.contains(&other)
    }
}

/// Does what is missing for `level`.
pub(crate) fn run(level: Level, report: Report) -> Result<()> {
    let mut journal = Journal { report, steps: 0 };
    if find("rustup").is_none() {
        bail!("rustup is missing (https://rustup.rs): it runs the second compiler that the kernel programs need");
    }

    let mut packages = Vec::new();
    for tool in TOOLS.iter().filter(|tool| level.includes(tool.level)) {
        match find(tool.program) {
            Some(path) => journal.there(tool.program, &path.display().to_string()),
            None => packages.push(tool.package),
        }
    }

    if (level.includes(Level::Test) || level.includes(Level::Dist)) && !python::can_be_installed() {
        packages.push(python::VENV);
    }

    let found = find_toolchain()?;
    if found.is_none() && !toolchain::debian_is_installed() {
        packages.extend(toolchain::DEBIAN_PACKAGES);
        packages.extend(level.includes(Level::Lint).then_some(toolchain::DEBIAN_CLIPPY));
    }
    if !packages.is_empty() {
        if !apt::is_usable() {
            bail!(by_hand(&packages, found.is_none()));
        }
        apt::install(&mut journal, &packages)?;
    }
    let (bpf, linker) = if let Some(found) = found {
        journal.there("BPF toolchain", &found.0.to_string());
        found
    } else {
        journal.step("BPF toolchain", "linking Debian's as `bpf`", toolchain::link_debian)?;
        let bpf = toolchain::inspect(toolchain::DEBIAN_NAME)?;
        let linker = linker::find(&bpf);
        (bpf, linker)
    };
    let linker = if let Some(linker) = linker {
        journal.there("bpf-linker", &linker.0.display().to_string());
        linker
    } else {
        linker::install(&mut journal, &bpf)?
    };

    if level.includes(Level::Test) {
        python::SCHEMATHESIS.install(&mut journal)?;
    }
    if level.includes(Level::Dist) {
        python::ZIG.install(&mut journal)?;
    }
    if level.includes(Level::Lint) {
        lint_tools(&mut journal, &bpf)?;
    }
    remember(&mut journal, &bpf, &linker)?;
    match journal {
        Journal { report: Report::Full, steps: 0 } => println!("setup: complete, nothing was missing"),
        Journal { steps: 1.., .. } => println!("setup: complete"),
        Journal { .. } => {}
    }
    Ok(())
}

/// The first toolchain that can compile for BPF and has, or can get, a linker.
fn find_toolchain() -> Result<Option<(BpfToolchain, Option<Linker>)>> {
    for name in toolchain::candidates(recorded().as_deref())? {
        let Ok(bpf) = toolchain::inspect(&name) else { continue };
        if let Some(linker) = linker::find(&bpf) {
            return Ok(Some((bpf, Some(linker))));
        }
        if linker::can_be_built(&bpf) {
            return Ok(Some((bpf, None)));
        }
    }
    Ok(None)
}

fn lint_tools(journal: &mut Journal, bpf: &BpfToolchain) -> Result<()> {
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        // rustup leaves a proxy of that name even where the component is missing.
        let answers =
            process::output(process::cargo().args([component.trim_start_matches("rust"), "--version"])).is_ok();
        if answers && find(program).is_some() {
            journal.there(component, "answers");
        } else {
            journal.step(component, "adding the component", || {
                process::output(process::command("rustup").args(["component", "add", component])).map(drop)
            })?;
        }
    }
    if bpf.has_clippy() {
        journal.there("clippy for kernel code", &bpf.name);
    } else if bpf.is_debian() {
        if !apt::is_usable() {
            bail!(by_hand(&[toolchain::DEBIAN_CLIPPY], false));
        }
        apt::install(journal, &[toolchain::DEBIAN_CLIPPY])?;
    } else {
        journal.step("clippy for kernel code", "adding the component", || {
            let mut rustup = process::command("rustup");
            process::output(rustup.args(["component", "add", "clippy", "--toolchain", &bpf.name])).map(drop)
        })?;
    }
    Ok(())
}

const RECORD: &str = ".bpf-toolchain";

/// The toolchain that the last set-up chose.
pub(crate) fn recorded() -> Option<String> {
    let text = fs::read_to_string(workspace_root().join(RECORD)).ok()?;
    text.lines().find_map(|line| line.strip_prefix("toolchain = ").map(str::to_owned))
}

/// Writes what `agent/build.rs` reads; a changed compiler changes the file, and with it the programs are built anew.
fn remember(journal: &mut Journal, bpf: &BpfToolchain, linker: &Linker) -> Result<()> {
    let path = workspace_root().join(RECORD);
    let text = format!(
        "# Written by `cargo xtask setup`, read by agent/build.rs.\ntoolchain = {}\nlinker = {}\nbootstrap = {}\nrustc = {}\n",
        bpf.name,
        linker.0.display(),
        bpf.bootstrap,
        bpf.release,
    );
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        journal.there(RECORD, "up to date");
        return Ok(());
    }
    journal.step(RECORD, "writing", || fs::write(&path, text).with_context(|| path.display().to_string()))
}

/// The commands for someone who is not root, or has no apt.
fn by_hand(packages: &[&str], toolchain: bool) -> String {
    let why = if process::is_root() { "there is no apt-get here" } else { "only root can install packages" };
    let sudo = if process::is_root() { "" } else { "sudo " };
    let mut lines = vec![format!("{} missing, and {why}. Run:", packages.join(", "))];
    if find("apt-get").is_some() {
        lines.push(format!("  {sudo}apt-get update"));
        lines.push(format!("  {sudo}apt-get install -y --no-install-recommends {}", packages.join(" ")));
        if toolchain {
            lines.push("  rustup toolchain link bpf /usr".into());
        }
    } else {
        let other: Vec<_> =
            packages.iter().filter(|name| !toolchain::DEBIAN_PACKAGES.contains(name)).copied().collect();
        if !other.is_empty() {
            lines.push(format!("  (with your package manager; the names are Debian's) {}", other.join(" ")));
        }
        if toolchain {
            lines.push("  rustup toolchain install nightly --component rust-src".into());
        }
    }
    if toolchain {
        let name = if find("apt-get").is_some() { toolchain::DEBIAN_NAME } else { "nightly" };
        lines.extend(linker::by_hand(sudo, name));
    }
    lines.push("then `cargo xtask setup` again.".into());
    lines.join("\n")
}

/// Says one line per thing.
struct Journal {
    report: Report,
    /// What had to be done.
    steps: usize,
}

impl Journal {
    fn there(&mut self, what: &str, detail: &str) {
        if self.report == Report::Full {
            println!("setup: {what}: already there ({detail})");
        }
    }

    fn step<T>(&mut self, what: &str, doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.steps += 1;
        print!("setup: {what}: {doing} ... ");
        std::io::stdout().flush()?;
        let start = Instant::now();
        let result = work();
        match &result {
            Ok(_) => println!("done ({:.0} s)", start.elapsed().as_secs_f32()),
            Err(_) => println!("failed"),
        }
        result
    }
}
