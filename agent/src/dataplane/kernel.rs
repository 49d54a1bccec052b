//! The kernel that this process runs on.

use aya::util::KernelVersion;

/// Oldest tested kernel, major and minor version. The programs use `bpf_loop` (5.17) and `bpf_xdp_load_bytes` (5.18).
pub const OLDEST_TESTED: (u8, u8) = (6, 1);

/// Whether this kernel has at least the given version.
pub(super) fn is_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, 0))
}

/// Whether TC programs can be attached by links, which can be pinned and updated atomically (TCX, Linux 6.6).
pub fn has_tcx() -> bool {
    is_at_least(6, 6)
}

/// Name, release and architecture of the kernel as in `uname -srm`: `Linux 6.12.107+deb13-amd64 x86_64`.
pub fn describe() -> String {
    let Ok(names) = nix::sys::utsname::uname() else { return "Linux".to_owned() };
    let words = [names.sysname(), names.release(), names.machine()];
    words.map(|word| word.to_string_lossy().into_owned()).join(" ")
}
