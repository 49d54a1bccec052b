//! `cargo xtask dist`: one static file for each architecture, which needs nothing of the system but its kernel.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    process::{command, output, run as run_command, target_dir},
    setup::{self, python, toolchain},
};

/// A machine that the portable binary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Target {
    /// 64-bit PCs
    #[value(name = "x86_64-unknown-linux-musl")]
    X86_64,
    /// 64-bit ARM
    #[value(name = "aarch64-unknown-linux-musl")]
    Aarch64,
}

impl Target {
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The processor, as `uname -m` names it.
    pub(crate) fn processor(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    fn triple(self) -> String {
        format!("{}-unknown-linux-musl", self.processor())
    }
}

/// Which roles the binary plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Roles {
    /// All of them, and the simulator
    All,
    /// The gateway alone, for boxes with little flash
    Gateway,
}

impl Roles {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::All => &[],
            Self::Gateway => &["--no-default-features", "--features", "gateway"],
        }
    }

    /// The file's name behind `tr111`.
    fn suffix(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Gateway => "-gateway",
        }
    }
}

/// Builds for `targets`, both where none is named, and says where the files are.
pub(crate) fn run(targets: &[Target], roles: Roles) -> Result<()> {
    setup::run(setup::Level::Dist, setup::Report::Changes)?;
    let targets = if targets.is_empty() { &Target::ALL[..] } else { targets };
    for file in build(targets, roles)? {
        let bytes = fs::metadata(&file)?.len();
        let xz = output(command("sh").args(["-c", "xz -6 --stdout -- \"$0\" | wc -c"]).arg(&file))?;
        println!("{}: {bytes} bytes, {} as xz", file.display(), xz.trim());
    }
    Ok(())
}

/// The binaries, each beside a `.sha256` that `sha256sum --check` reads.
pub(crate) fn build(targets: &[Target], roles: Roles) -> Result<Vec<PathBuf>> {
    let mut cargo = zigbuild("zigbuild", targets)?;
    cargo.args(["--package", "tr111", "--bin", "tr111"]).args(roles.arguments());
    run_command(&mut cargo)?;
    let directory = directory();
    fs::create_dir_all(&directory)?;
    let mut files = Vec::new();
    for target in targets {
        let name = format!("tr111{}-{}", roles.suffix(), target.processor());
        let file = directory.join(&name);
        let built = built(*target, "tr111");
        ensure!(!has_test_clock(&fs::read(&built)?), "{} has the clock of tests in it", built.display());
        fs::copy(&built, &file).with_context(|| built.display().to_string())?;
        let sum = output(command("sha256sum").arg(&name).current_dir(&directory))?;
        fs::write(directory.join(format!("{name}.sha256")), sum)?;
        files.push(file);
    }
    Ok(files)
}

/// Where the binaries are left.
pub(crate) fn directory() -> PathBuf {
    target_dir().join("portable")
}

/// Whether an agent was built with the feature `test-clock`, which no release has: who sets its environment sets its clock.
fn has_test_clock(program: &[u8]) -> bool {
    const VARIABLE: &[u8] = b"TR111_TEST_CLOCK";
    program.windows(VARIABLE.len()).any(|part| part == VARIABLE)
}

/// A program that [`zigbuild`] built.
fn built(target: Target, name: &str) -> PathBuf {
    build_dir().join(target.triple()).join("dist").join(name)
}

/// Apart from other builds: the compiler is another one.
fn build_dir() -> PathBuf {
    target_dir().join("portable-build")
}

/// Builds the test program that runs in guests, for `target`; its path.
pub(crate) fn build_guest_tests(target: Target) -> Result<PathBuf> {
    let mut cargo = zigbuild("build", &[target])?;
    cargo.args(["--package", "tr111-tests", "--no-default-features", "--test", "guest"]);
    run_command(&mut cargo)?;
    newest(&build_dir().join(target.triple()).join("dist/deps"), "guest-")
}

/// The newest program in `directory` whose name starts with `prefix`.
pub(crate) fn newest(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let is_it = |name: OsString| name.to_str().is_some_and(|name| name.starts_with(prefix) && !name.contains('.'));
    let programs = fs::read_dir(directory)?.flatten().filter(|entry| is_it(entry.file_name()));
    let newest = programs.max_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok());
    Ok(newest.with_context(|| format!("no {prefix}* in {}", directory.display()))?.path())
}

/// cargo with zig as C compiler and linker, and with a standard library of its own for each target: rustup has none for
/// musl where it cannot download.
fn zigbuild(subcommand: &str, targets: &[Target]) -> Result<Command> {
    let name = setup::recorded().unwrap_or_default();
    let rust = toolchain::inspect(&name)?;
    let library = rust.sysroot.join("lib/rustlib/src/rust/library/std/Cargo.toml");
    if !library.exists() {
        bail!("toolchain {name} has no source of std ({} is missing)", library.display());
    }
    let programs = python::ZIG.programs();
    let mut cargo = command(programs.join("cargo-zigbuild"));
    cargo.arg(subcommand).args(["--profile", "dist", "--target-dir"]).arg(build_dir());
    // Backtraces would name nothing in a stripped binary.
    cargo.args(["-Z", "build-std=std,panic_unwind", "-Z", "build-std-features=panic-unwind,optimize_for_size"]);
    for target in targets {
        let triple = target.triple();
        cargo.args(["--target", &triple]);
        // zig brings the start files as well.
        let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
        cargo.env(variable, "-C link-self-contained=no");
    }
    let mut path = vec![programs];
    path.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    cargo.env("PATH", std::env::join_paths(path)?).env("RUSTUP_TOOLCHAIN", &rust.name);
    // What `cargo run` set for xtask would lead the other toolchain's cargo to the wrong compiler.
    for variable in ["CARGO", "RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_TARGET_DIR"] {
        cargo.env_remove(variable);
    }
    if rust.bootstrap {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    Ok(cargo)
}
