//! A kernel with the modules that guests need, unpacked: busybox' modprobe reads no compressed ones.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::apt::{Archive, Machine};
use crate::process::{command, output};

/// Directories and files below `kernel/` of the modules.
const MODULES: [&str; 15] = [
    "crypto/crc32c_generic.ko",
    "drivers/net/bonding",
    "drivers/net/macvlan.ko",
    "drivers/net/veth.ko",
    "lib",
    "net/802",
    "net/8021q",
    "net/bridge",
    "net/core",
    "net/ipv4",
    "net/ipv6/netfilter",
    "net/llc",
    "net/netfilter",
    "net/sched",
    "net/tls",
];

/// A kernel that boots, with its modules.
pub(super) struct Image {
    pub(super) machine: Machine,
    /// The package's name without `linux-image-`.
    pub(super) name: String,
    /// The kernel itself.
    pub(super) kernel: PathBuf,
    /// A directory with `usr/lib/modules`.
    pub(super) modules: PathBuf,
    /// A directory with everything else.
    pub(super) userland: PathBuf,
}

impl Image {
    pub(super) fn new(archive: &Archive, package: &str) -> Result<Self> {
        let directory = archive.kernel(package)?;
        let lib = ["lib/modules", "usr/lib/modules"].map(|lib| directory.join(lib));
        let all = lib.iter().find_map(|lib| fs::read_dir(lib).ok()?.flatten().next()).map(|entry| entry.path());
        let all = all.with_context(|| format!("no modules in {package}"))?;
        // From 6.19 on the kernel lies beside its modules.
        let kernel = first(&directory.join("boot"), "vmlinuz").or_else(|| first(&all, "vmlinuz"));
        let kernel = kernel.with_context(|| format!("no kernel in {package}"))?;
        let modules = directory.join("guest");
        if !modules.join("complete").exists() {
            let _ = fs::remove_dir_all(&modules);
            copy_modules(&all, &modules)?;
            fs::write(modules.join("complete"), "")?;
        }
        Ok(Self {
            machine: archive.machine,
            name: package.trim_start_matches("linux-image-").to_owned(),
            kernel,
            modules,
            userland: archive.userland()?,
        })
    }
}

fn first(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    entries.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
}

/// Copies what guests need of the modules in `all` to `root`.
fn copy_modules(all: &Path, root: &Path) -> Result<()> {
    let version = all.file_name().context("a directory of modules")?;
    let own = root.join("usr/lib/modules").join(version);
    fs::create_dir_all(own.join("kernel"))?;
    // As in the userland: a directory in its place would hide the dynamic linker.
    symlink("usr/lib", root.join("lib"))?;
    // depmod asks for them, and does without where a package has none.
    for list in
        ["modules.builtin", "modules.builtin.modinfo", "modules.order"].map(|list| (all.join(list), own.join(list)))
    {
        if list.0.exists() {
            fs::copy(&list.0, &list.1).with_context(|| list.0.display().to_string())?;
        }
    }
    let kernel = all.join("kernel");
    for part in MODULES {
        // A module may be compressed, or built in.
        let found = ["", ".xz", ".zst", ".gz"].map(|suffix| format!("{part}{suffix}"));
        for part in found.iter().filter(|part| kernel.join(part).exists()) {
            output(
                command("cp").args(["--recursive", "--parents", part]).arg(own.join("kernel")).current_dir(&kernel),
            )?;
        }
    }
    let script = "find \"$0\" -name '*.ko.xz' -exec unxz {} + && find \"$0\" -name '*.ko.zst' -exec zstd -q -d --rm {} + \
                  && find \"$0\" -name '*.ko.gz' -exec gunzip {} +";
    output(command("sh").args(["-c", script]).arg(&own))?;
    output(command("depmod").arg("--basedir").arg(root).arg(version)).map(drop)
}
