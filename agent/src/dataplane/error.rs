use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, tc::TcError, xdp::XdpError},
    sys::SyscallError,
};
use thiserror::Error;

use super::kernel;

/// The packet path cannot be set up. Each message says what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// A capability is missing.
    #[error(
        "the kernel refuses to load the programs: run as root, or grant CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON \
         (systemd: AmbientCapabilities=)"
    )]
    Privileges,
    /// The verifier rejects a program.
    #[error(
        "the verifier of this kernel ({}) rejects the program {program}: {reason}; the oldest tested kernel is Linux \
         {}.{}; `tr111 check --verifier-log FILE` writes the verifier's full log",
        kernel::describe(),
        kernel::OLDEST_TESTED.0,
        kernel::OLDEST_TESTED.1
    )]
    Verifier {
        /// Name of the program.
        program: &'static str,
        /// Message of the verifier.
        reason: String,
    },
    /// The object file cannot be loaded.
    #[error("cannot load the kernel programs: {0}")]
    Load(#[source] EbpfError),
    /// A map or a program is missing in the object file.
    #[error("{0} is missing in the object file; this is an error of the build")]
    Missing(&'static str),
    /// A map cannot be read or written.
    #[error("map {name}: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// Error of the kernel.
        source: MapError,
    },
    /// The interface does not exist in this network namespace.
    #[error("there is no interface {0}; `ip link` lists the existing ones")]
    NoInterface(String),
    /// A bridge and one of its ports are both configured as LAN or WAN interfaces.
    #[error(
        "{port} is a port of the bridge {bridge}, and both are configured, so messages would be counted twice; \
         name only the bridge"
    )]
    BridgeAndPort {
        /// Name of the bridge.
        bridge: String,
        /// Name of its port.
        port: String,
    },
    /// Programs of another agent are attached to the interface.
    #[error(
        "programs of another tr111 agent are attached to {interface}; stop that agent and run `tr111 detach`, or name \
         another interface"
    )]
    AlreadyRunning {
        /// Name of the interface.
        interface: String,
    },
    /// Another agent uses the pin directory.
    #[error("another tr111 agent uses {0}; stop that agent first, or name another --pin-dir")]
    PinsTaken(PathBuf),
    /// A directory to be emptied is not in a bpffs. This protects other files from a mistyped path.
    #[error("{0} is not in a bpffs; nothing was removed")]
    NoBpffs(PathBuf),
    /// The cookie of the network namespace cannot be read.
    #[error("cannot read the cookie of this network namespace (SO_NETNS_COOKIE, Linux 5.14): {0}")]
    NetworkNamespace(#[source] io::Error),
    /// A map, link or program cannot be pinned, or a pin cannot be removed.
    #[error("cannot pin in {directory}: {source}")]
    Pins {
        /// Directory or path of the pin.
        directory: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// XDP cannot be attached in the requested mode.
    #[error("{interface}: {mode} XDP is not possible: {reason}; `agent.xdp_mode = \"auto\"` falls back to TC")]
    Xdp {
        /// Name of the interface.
        interface: String,
        /// The requested mode.
        mode: &'static str,
        /// Error of the kernel.
        reason: String,
    },
    /// A program cannot be attached to TC.
    #[error("{interface}: cannot attach the program {program} to TC: {reason}")]
    Tc {
        /// Name of the interface.
        interface: String,
        /// Name of the program.
        program: &'static str,
        /// Error of the kernel.
        reason: String,
    },
    /// A ring buffer cannot be registered with the runtime.
    #[error("cannot wait for events of the kernel programs: {0}")]
    Runtime(#[source] io::Error),
}

/// The errno of an attach error, if there is one.
pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) | ProgramError::LoadError { io_error, .. } => {
            io_error.raw_os_error()
        }
        ProgramError::TcError(TcError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}

/// The reason of an attach error as text.
pub(super) fn reason(error: &ProgramError) -> String {
    match (error, errno(error)) {
        (_, Some(libc::EBUSY)) => "the slot is taken by another program".to_owned(),
        (_, Some(libc::EOPNOTSUPP)) => "the driver does not support it".to_owned(),
        (ProgramError::SyscallError(SyscallError { io_error, .. }), _) => io_error.to_string(),
        (ProgramError::XdpError(XdpError::NetlinkError(inner)), _) => inner.to_string(),
        (other, _) => other.to_string(),
    }
}
