//! Network namespaces: which one this process is in, and whether another one lives.
//!
//! Inode numbers of namespaces are used again; cookies are not (`SO_NETNS_COOKIE`, Linux 5.14). Nobody can ask whether the
//! namespace with some cookie lives, so what is pinned for a namespace has a witness beside it: a device map whose only
//! entry is the loopback interface of that namespace. The kernel takes an interface out of all device maps when it ends
//! (`dev_map_notification`), and a loopback interface ends with its namespace and not before.

use std::{io, os::unix::net::UnixDatagram, path::Path};

use aya::{
    maps::{Map, MapData, MapError, xdp::DevMap},
    pin::PinError,
};
use aya_obj::generated::{bpf_devmap_val, bpf_map_type};
use nix::{getsockopt_impl, sockopt_impl, sys::socket::getsockopt};

/// Index of the loopback interface of every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

sockopt_impl!(
    /// Cookie of the network namespace of a socket.
    NamespaceCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// The cookie of this network namespace.
///
/// # Errors
/// Linux before 5.14.
pub(super) fn cookie() -> io::Result<u64> {
    // Any socket tells.
    Ok(getsockopt(&UnixDatagram::unbound()?, NamespaceCookie)?)
}

/// Pins a witness of this network namespace at `path`.
///
/// # Errors
/// What the kernel said.
pub(super) fn pin_witness(path: &Path) -> io::Result<()> {
    let kind = bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32;
    let map = aya_obj::Map::new_from_params(kind, size_of::<u32>() as u32, size_of::<bpf_devmap_val>() as u32, 1, 0);
    let map = MapData::create(map, "tr111_netns", None).map_err(map_error)?;
    let mut devices = DevMap::try_from(Map::DevMap(map)).map_err(map_error)?;
    devices.set(0, LOOPBACK, None, 0).map_err(io::Error::other)?;
    devices.pin(path).map_err(|error| match error {
        PinError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    })
}

/// Whether the network namespace of a witness lives. One that cannot be read is left to live.
pub(super) fn lives(witness: &Path) -> bool {
    let devices = MapData::from_pin(witness).and_then(|map| DevMap::try_from(Map::DevMap(map)));
    !matches!(devices.and_then(|devices| devices.get(0, 0)), Err(MapError::KeyNotFound))
}

fn map_error(error: MapError) -> io::Error {
    match error {
        MapError::CreateError { io_error, .. } => io_error,
        other => io::Error::other(other),
    }
}
