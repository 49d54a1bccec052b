//! Which gateway of a network namespace owns the nft table: the one that started first.
//!
//! The owner listens on an abstract socket, whose name is unique in its network namespace. The name becomes free when
//! the process ends, and the kernel reports which process listens.

use std::{
    fmt, fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process,
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::table::TABLE;

/// `CAP_NET_ADMIN` of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// Ownership of the table, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ownership(#[expect(dead_code, reason = "held for its drop")] Option<UnixListener>);

/// The process that owns the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id; `None` if the process is in another PID namespace.
    pub pid: Option<u32>,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => write!(f, "a process of another PID namespace"),
        }
    }
}

/// Why this process cannot own the table.
#[derive(Debug)]
pub(super) enum Denied {
    /// Another gateway owns it.
    Owned(Owner),
    /// The socket cannot be opened.
    System(io::Error),
}

impl From<io::Error> for Denied {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl Ownership {
    /// Takes ownership of the table in this network namespace, unless another process has it.
    pub(super) fn take() -> Result<Self, Denied> {
        let name = SocketAddr::from_abstract_name(format!("tr111 {TABLE}"))?;
        match UnixListener::bind_addr(&name) {
            Ok(listener) => Ok(Self(Some(listener))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match owner(&name) {
                Some(owner) => Err(Denied::Owned(owner)),
                None => Ok(Self(None)),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// The process that listens on the name. `None` if it is this process, or one that cannot install tables: any process
/// may bind such a name.
fn owner(name: &SocketAddr) -> Option<Owner> {
    let credentials = UnixStream::connect_addr(name).and_then(|stream| Ok(getsockopt(&stream, PeerCredentials)?)).ok();
    let pid = credentials.and_then(|credentials| u32::try_from(credentials.pid()).ok()).filter(|pid| *pid != 0);
    match pid {
        Some(pid) if pid == process::id() || !may_have_table(pid) => None,
        pid => Some(Owner { pid }),
    }
}

/// Whether a process can install tables. Assumed if its status cannot be read.
fn may_have_table(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    effective.is_none_or(|effective| effective >> CAP_NET_ADMIN & 1 == 1)
}
