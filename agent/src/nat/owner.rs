//! Which gateway of a network namespace owns the nft table: the one that started first.
//!
//! The owner listens on an abstract socket, whose name is unique in its network namespace. The name becomes free when
//! the process ends, and the kernel reports which process listens. Any process may bind the name first, so nothing here
//! waits for its holder.

use std::{
    fmt, fs,
    future::pending,
    io,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    process,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials},
};

use tokio::time::sleep;

use super::table::TABLE;

/// `CAP_NET_ADMIN` of `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// Pause after a failed accept.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Ownership of the table, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ownership(Option<UnixListener>);

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
        let name = format!("tr111 {TABLE}");
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self(Some(listener)))
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match owner(&name) {
                Some(owner) => Err(Denied::Owned(owner)),
                None => Ok(Self(None)),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Accepts the connections of processes that ask who owns the table, so that they do not fill the queue. Never
    /// returns.
    pub(super) async fn answer(&self) {
        let listener = self.0.as_ref().and_then(|listener| listener.try_clone().ok());
        let listener = listener.and_then(|listener| tokio::net::UnixListener::from_std(listener).ok());
        let Some(listener) = listener else { return pending().await };
        loop {
            if listener.accept().await.is_err() {
                // For example no free descriptor.
                sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// The process that listens on the abstract name. `None` if it is this process, or one that cannot be a gateway: a
/// process that cannot install tables, or whose queue of connections is full, because a gateway empties its queue.
fn owner(name: &str) -> Option<Owner> {
    let credentials = || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(stream.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        getsockopt(&stream, PeerCredentials)
    };
    let credentials = match credentials() {
        Err(Errno::EAGAIN) => return None,
        other => other.ok(),
    };
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

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    /// A process that binds the name and fills its own queue of connections neither blocks a gateway nor passes for one.
    #[test]
    fn a_full_queue_blocks_nobody() {
        let name = format!("tr111 test {}", process::id());
        let address = UnixAddr::new_abstract(name.as_bytes()).expect("an address");
        let open = || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket")
        };
        let impostor = open();
        bind(impostor.as_raw_fd(), &address).expect("the name is free");
        listen(&impostor, Backlog::new(1).expect("a backlog")).expect("it listens");
        let waiting: Vec<_> =
            (0..8).map(|_| open()).take_while(|stream| connect(stream.as_raw_fd(), &address).is_ok()).collect();
        assert!((1..8).contains(&waiting.len()), "{}", waiting.len());
        assert_eq!(owner(&name), None);
    }
}
