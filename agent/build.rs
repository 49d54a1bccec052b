//! Compiles the kernel programs of `ebpf/` and leaves two objects in `$OUT_DIR`: `tr111`, which the agent carries, and
//! `tr111-testing` with the programs of tests and benchmarks, which the tests package finds as `DEP_TR111_EBPF_TESTING`.
//!
//! Programs need `core` for the BPF target and bpf-linker, which no stable toolchain brings. `cargo xtask setup` finds or
//! installs them and writes what it found to `.bpf-toolchain` at the workspace root; this script only reads that.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

const SETUP: &str = "run `cargo xtask setup`";

fn main() {
    // `cargo::error` alone fails the build with that one line; a failing exit status would bury it in the script's output.
    if let Err(error) = build() {
        println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
    }
}

fn build() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the agent lies in a workspace")?;
    for input in [".bpf-toolchain", "Cargo.toml", "Cargo.lock", "common"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let found = BpfToolchain::read(&root.join(".bpf-toolchain"))?;

    // SAFETY: build scripts start with one thread, and nothing has started another one yet.
    unsafe {
        for target in ["BPFEL", "BPFEB"] {
            env::set_var(format!("CARGO_TARGET_{target}_UNKNOWN_NONE_LINKER"), &found.linker);
        }
        if found.bootstrap {
            // Exactly `1`: naming the crate would not cover `core`, which is compiled too.
            env::set_var("RUSTC_BOOTSTRAP", "1");
        }
        // aya-build turns each line of the inner cargo's progress into a warning of ours.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let ebpf = root.join("ebpf");
    let package = Package {
        name: "tr111-ebpf",
        root_dir: ebpf.to_str().context("the workspace's path is not UTF-8")?,
        ..Package::default()
    };
    let built = aya_build::build_ebpf([package], Toolchain::Custom(&found.toolchain));
    built.map_err(|error| {
        // When it is the compiler that failed, it has told why above, and the error is only its command line.
        let why =
            if error.to_string().contains("--message-format") { "see above".into() } else { format!("{error:#}") };
        anyhow!("the kernel programs did not build: {why} (if the toolchain changed, {SETUP})")
    })?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    for object in ["tr111", "tr111-testing"] {
        strip(&out.join(object)).with_context(|| format!("the debug information of {object}"))?;
    }
    println!("cargo::metadata=TESTING={}", out.join("tr111-testing").display());
    Ok(())
}

/// Removes DWARF, four fifths of an object, and the relocations of BTF, whose addends are in place: neither the kernel nor
/// aya reads them. BTF stays: the kernel needs it to find the bodies of loops, and quotes source lines from it.
fn strip(object: &Path) -> Result<()> {
    let data = fs::read(object)?;
    let mut builder = Builder::read(data.as_slice())?;
    for section in &mut builder.sections {
        let prefixes = [".debug_", ".rel.debug_", ".rel.BTF"];
        section.delete |= prefixes.iter().any(|prefix| section.name.starts_with(prefix.as_bytes()));
    }
    // LLVM keeps names of sections and of symbols in one table, the writer in two.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(fs::write(object, stripped)?)
}

/// What `cargo xtask setup` found: `key = value` lines.
struct BpfToolchain {
    /// Name for `rustup run`.
    toolchain: String,
    /// Path of bpf-linker.
    linker: String,
    /// The compiler calls itself stable, so it has to be told to build `core`.
    bootstrap: bool,
}

impl BpfToolchain {
    fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(anyhow!("no toolchain for the kernel programs is set up yet: {SETUP}"));
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find_map(|(name, value)| (name.trim() == key).then(|| value.trim().to_owned()))
                .with_context(|| format!("{} lacks `{key}`: {SETUP}", path.display()))
        };
        let linker = value("linker")?;
        if !Path::new(&linker).exists() {
            return Err(anyhow!("{linker} is gone: {SETUP}"));
        }
        Ok(Self { toolchain: value("toolchain")?, linker, bootstrap: value("bootstrap")? == "true" })
    }
}
