//! Network namespaces: the cookie of this one, and whether another one still exists.
//!
//! Inode numbers of namespaces are reused, but cookies are not (`SO_NETNS_COOKIE`, Linux 5.14). The kernel cannot be
//! asked whether the namespace with a given cookie exists. So a witness is pinned for each namespace: a device map
//! whose only entry is the loopback interface of the namespace. The kernel removes an interface from all device maps
//! when the interface is removed (`dev_map_notification`), and a loopback interface is removed only with its namespace.

use std::{io, os::unix::net::UnixDatagram, path::Path};

use aya::{
    maps::{Map, MapData, MapError, xdp::DevMap},
    pin::PinError,
};
use aya_obj::generated::{bpf_devmap_val, bpf_map_type};
use nix::{getsockopt_impl, sockopt_impl, sys::socket::getsockopt};

/// Index of the loopback interface in all network namespaces (`LOOPBACK_IFINDEX`).
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
/// Linux before 5.14 does not support the socket option.
pub(super) fn cookie() -> io::Result<u64> {
    // Any socket has the cookie of its namespace.
    Ok(getsockopt(&UnixDatagram::unbound()?, NamespaceCookie)?)
}

/// Pins a witness of this network namespace at `path`.
///
/// # Errors
/// The map cannot be created or pinned.
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

/// Whether the network namespace of a witness exists. If the witness cannot be read, the namespace is assumed to exist.
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
