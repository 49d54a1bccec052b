//! Many TCP clients at a time, which ask for nothing useful.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket},
};

use crate::namespace::Namespace;

/// Connects `count` clients to `address` from inside `namespace`, and has each of them send `bytes`. They stay as long as
/// what is given.
///
/// # Errors
/// A connection is refused, or this process may not have so many.
pub fn gather(namespace: &Namespace, address: SocketAddr, count: usize, bytes: &[u8]) -> Result<Vec<TcpStream>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    namespace.enter(|| {
        let connect = |number| {
            let mut stream = TcpStream::connect(address).with_context(|| format!("client {number} of {count}"))?;
            stream.write_all(bytes).with_context(|| format!("client {number} of {count}"))?;
            Ok(stream)
        };
        (0..count).map(connect).collect()
    })
}

/// Connects to `address` from the address `source` of this machine.
///
/// # Errors
/// The connection is refused, or the address is none of this machine.
pub fn connect_from(source: Ipv4Addr, address: SocketAddrV4) -> Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    Ok(socket.into())
}

/// How many descriptors a process has open.
///
/// # Errors
/// It is gone.
pub fn descriptors(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}
