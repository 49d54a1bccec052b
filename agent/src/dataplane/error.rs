use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, tc::TcError, xdp::XdpError},
    sys::SyscallError,
};
use thiserror::Error;

use super::kernel;

/// Why the packet path does not stand. Each message says what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// Not root, or a capability is missing.
    #[error(
        "the kernel refuses to load the programs: run as root, or grant CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON \
         (systemd: AmbientCapabilities=)"
    )]
    Privileges,
    /// The kernel cannot run the programs.
    #[error(
        "the verifier of this kernel ({}) refuses program {program}: {reason}; the oldest kernel that is tested is Linux \
         {}.{}; `tr111 check --verifier-log FILE` writes all that it says",
        kernel::describe(),
        kernel::OLDEST_TESTED.0,
        kernel::OLDEST_TESTED.1
    )]
    Verifier {
        /// Name of the program.
        program: &'static str,
        /// The verifier's words.
        reason: String,
    },
    /// The object cannot be loaded.
    #[error("the programs cannot be loaded: {0}")]
    Load(#[source] EbpfError),
    /// A map or program that the object should have.
    #[error("the object has no {0}: the agent was built wrong")]
    Missing(&'static str),
    /// A map cannot be read or written.
    #[error("map {name}: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// No such interface.
    #[error("there is no interface {0} here; `ip link` lists those that exist")]
    NoInterface(String),
    /// A bridge and a port of it are to be watched as LAN or WAN interfaces.
    #[error(
        "{port} is a port of the bridge {bridge}, and both are named: each message would count twice; name the bridge alone"
    )]
    BridgeAndPort {
        /// Name of the bridge.
        bridge: String,
        /// Name of its port.
        port: String,
    },
    /// Another agent has the interface.
    #[error(
        "another tr111 agent is attached to {interface} and goes on undisturbed; stop it first, or name another interface"
    )]
    AlreadyRunning {
        /// The interface.
        interface: String,
    },
    /// Another agent works with the pin directory.
    #[error("another tr111 agent works with {0} and goes on undisturbed; stop it first, or name another --pin-dir")]
    PinsTaken(PathBuf),
    /// A directory that is to be emptied is not in a bpffs: a mistyped path must not cost files.
    #[error("{0} is not in a bpffs, so nothing is removed there")]
    NoBpffs(PathBuf),
    /// The kernel does not tell which network namespace this is.
    #[error("the kernel does not tell the cookie of this network namespace (SO_NETNS_COOKIE, Linux 5.14): {0}")]
    NetworkNamespace(#[source] io::Error),
    /// Something cannot be pinned.
    #[error("cannot pin in {directory}: {source}")]
    Pins {
        /// Where.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// XDP in the mode that was asked for cannot be attached.
    #[error("{interface}: {mode} XDP is not possible: {reason}; `agent.xdp_mode = \"auto\"` goes on without")]
    Xdp {
        /// The interface.
        interface: String,
        /// The mode that was asked for.
        mode: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// TC cannot be attached.
    #[error("{interface}: program {program} cannot be attached to TC: {reason}")]
    Tc {
        /// The interface.
        interface: String,
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The ring cannot be watched.
    #[error("the ring cannot be watched: {0}")]
    Runtime(#[source] io::Error),
}

/// The errno behind an attach error, where there is one.
pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) | ProgramError::LoadError { io_error, .. } => {
            io_error.raw_os_error()
        }
        ProgramError::TcError(TcError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}

/// What the kernel said about an attach, in words.
pub(super) fn reason(error: &ProgramError) -> String {
    match (error, errno(error)) {
        (_, Some(libc::EBUSY)) => "the slot is taken by another program".to_owned(),
        (_, Some(libc::EOPNOTSUPP)) => "the driver does not support it".to_owned(),
        (ProgramError::SyscallError(SyscallError { io_error, .. }), _) => io_error.to_string(),
        (ProgramError::XdpError(XdpError::NetlinkError(inner)), _) => inner.to_string(),
        (other, _) => other.to_string(),
    }
}
