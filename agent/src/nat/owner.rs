//! Which gateway of a network namespace has the table: the first one.
//!
//! The owner listens on an abstract socket, whose names are those of a network namespace. The name is free as soon as its
//! process has ended, and the kernel says who listens.

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

/// The right to the table, for as long as it is held.
#[derive(Debug)]
pub(super) struct Ownership(#[expect(dead_code, reason = "held for its drop")] Option<UnixListener>);

/// The process that has the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its number; `None` where it is in another PID namespace.
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

/// Why the table is not this process's.
#[derive(Debug)]
pub(super) enum Denied {
    /// Another gateway has it.
    Owned(Owner),
    /// The system has no socket.
    System(io::Error),
}

impl From<io::Error> for Denied {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl Ownership {
    /// Takes the table of this network namespace, unless another process has it.
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

/// Who listens there; `None` where that is this process, or one that cannot have a table: everybody may take such a name.
fn owner(name: &SocketAddr) -> Option<Owner> {
    let credentials = UnixStream::connect_addr(name).and_then(|stream| Ok(getsockopt(&stream, PeerCredentials)?)).ok();
    let pid = credentials.and_then(|credentials| u32::try_from(credentials.pid()).ok()).filter(|pid| *pid != 0);
    match pid {
        Some(pid) if pid == process::id() || !may_have_table(pid) => None,
        pid => Some(Owner { pid }),
    }
}

/// Whether a process may make tables. One that cannot be looked at may.
fn may_have_table(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    effective.is_none_or(|effective| effective >> CAP_NET_ADMIN & 1 == 1)
}
