//! bpf-linker: it reads LLVM bitcode, so it must know the LLVM of the compiler it serves.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Journal, apt, toolchain::BpfToolchain};
use crate::process::{cargo_home, command, find_all, output, run, workspace_root};

const VERSION: &str = "0.13.0";
/// The LLVM majors that this version has a feature for.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Path of a bpf-linker that was seen to read the toolchain's bitcode.
pub(super) struct Linker(pub(super) PathBuf);

/// Where ours goes when the user's own bpf-linker serves another LLVM.
fn private_root() -> PathBuf {
    workspace_root().join(".bpf-tools")
}

pub(super) fn find(bpf: &BpfToolchain) -> Option<Linker> {
    let candidates = find_all("bpf-linker").chain([private_root().join("bin/bpf-linker")]);
    candidates.filter(|path| path.exists()).find(|path| probe(bpf, path).is_ok()).map(Linker)
}

/// Compiles one function to bitcode and links it for BPF. The host's `core` serves, so nothing has to be built for it.
fn probe(bpf: &BpfToolchain, linker: &Path) -> Result<()> {
    let scratch = Scratch::new()?;
    let source = scratch.0.join("probe.rs");
    let bitcode = scratch.0.join("probe.bc");
    fs::write(&source, "#![no_std]\n#[unsafe(no_mangle)]\npub extern \"C\" fn probe(x: u64) -> u64 { x + 1 }\n")?;
    let mut rustc = command("rustup");
    rustc.args(["run", &bpf.name, "rustc", "--edition", "2024", "--crate-type", "lib", "-O", "-C", "panic=abort"]);
    output(rustc.arg(format!("--emit=llvm-bc={}", bitcode.display())).arg(&source))?;
    let mut link = command(linker);
    link.args(["--target=bpfel-unknown-none", "--btf", "--export", "probe", "-o"]).arg(scratch.0.join("probe.o"));
    output(link.arg(&bitcode)).map(drop)
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let dir = env::temp_dir().join(format!("tr111-setup-{}", process::id()));
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-overs in the temporary directory harm nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn can_be_built(bpf: &BpfToolchain) -> bool {
    LLVM.contains(&bpf.llvm) && (has_llvm(bpf.llvm) || apt::is_usable() && apt::knows(&llvm_package(bpf.llvm)))
}

fn llvm_prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

fn has_llvm(major: u32) -> bool {
    llvm_prefix(major).join("bin/llvm-config").exists() && llvm_prefix(major).join("include/llvm-c/Core.h").exists()
}

fn llvm_package(major: u32) -> String {
    format!("llvm-{major}-dev")
}

/// Builds bpf-linker against the LLVM of `bpf`.
pub(super) fn install(journal: &mut Journal, bpf: &BpfToolchain) -> Result<Linker> {
    let major = bpf.llvm;
    ensure!(
        LLVM.contains(&major),
        "toolchain {} has LLVM {major}; bpf-linker {VERSION} can be built for LLVM {} to {}",
        bpf.name,
        LLVM.start(),
        LLVM.end()
    );
    if !has_llvm(major) {
        if !apt::is_usable() {
            bail!(
                "{} is missing, and only root can install packages. Run:\n{}\nthen `cargo xtask setup` again.",
                llvm_package(major),
                by_hand("sudo ", &bpf.name).join("\n")
            );
        }
        apt::install(journal, &[&llvm_package(major)])?;
    }
    // A bpf-linker that is there but did not pass the probe serves something else of the user's: leave it.
    let root = if cargo_home().join("bin/bpf-linker").exists() { private_root() } else { cargo_home() };
    let mut cargo = command("cargo");
    cargo.args(["install", "bpf-linker", "--version", &format!("={VERSION}"), "--locked", "--force", "--quiet"]);
    cargo.args(["--no-default-features", "--features", &format!("llvm-{major}"), "--root"]).arg(&root);
    cargo.env("LLVM_PREFIX", llvm_prefix(major)).env_remove("CARGO_TARGET_DIR").stdin(Stdio::null());
    journal.step("bpf-linker", &format!("building {VERSION} against LLVM {major}"), || run(&mut cargo))?;
    let linker = root.join("bin/bpf-linker");
    probe(bpf, &linker).context("the new bpf-linker does not work")?;
    Ok(Linker(linker))
}

/// The same, as commands for a shell; they read LLVM's version from the toolchain.
pub(super) fn by_hand(sudo: &str, toolchain: &str) -> Vec<String> {
    vec![
        format!("  llvm=$(rustup run {toolchain} rustc -vV | sed -n 's/^LLVM version: \\([0-9]*\\).*/\\1/p')"),
        format!("  {sudo}apt-get install -y --no-install-recommends llvm-$llvm-dev"),
        format!(
            "  LLVM_PREFIX=/usr/lib/llvm-$llvm cargo install bpf-linker --version ={VERSION} --locked \
             --no-default-features --features llvm-$llvm"
        ),
    ]
}
