//! Determines the source address of datagrams (T-43).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use nix::ifaddrs::getifaddrs;

/// An address of a documentation network (RFC 5737), used while the server is not known. Nothing is sent to it.
const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);

/// The source address of a socket bound to `bound` for datagrams to `server`, by the kernel's routes. Without a route,
/// the first address of this machine that is neither loopback nor link-local.
pub(super) fn address(bound: Ipv4Addr, server: Option<SocketAddrV4>) -> Option<Ipv4Addr> {
    if !bound.is_unspecified() {
        return Some(bound);
    }
    routed(server.unwrap_or(ELSEWHERE)).or_else(first)
}

/// Connects a UDP socket, which looks up the route and sends nothing.
fn routed(server: SocketAddrV4) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SocketAddr::V4(server)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_unspecified() => Some(address),
        _ => None,
    }
}

fn first() -> Option<Ipv4Addr> {
    let addresses = getifaddrs().ok()?.filter_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()));
    addresses.into_iter().find(|address| !address.is_loopback() && !address.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T-43: the address is never 0.0.0.0.
    #[test]
    fn the_address_is_the_one_that_the_route_has() {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3478);
        assert_eq!(address(Ipv4Addr::UNSPECIFIED, Some(server)), Some(Ipv4Addr::LOCALHOST));
        let bound = Ipv4Addr::new(127, 0, 0, 5);
        assert_eq!(address(bound, Some(server)), Some(bound));
    }
}
