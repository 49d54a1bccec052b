//! Which address datagrams leave with (T-43).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use nix::ifaddrs::getifaddrs;

/// Where nobody is (RFC 5737): stands for a server that is not known. Nothing is sent there.
const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);

/// The address that a socket bound to `bound` sends with towards `server`, by the kernel's routes; where these lead
/// nowhere, the first address of this machine that is good beyond it.
pub(super) fn address(bound: Ipv4Addr, server: Option<SocketAddrV4>) -> Option<Ipv4Addr> {
    if !bound.is_unspecified() {
        return Some(bound);
    }
    routed(server.unwrap_or(ELSEWHERE)).or_else(first)
}

/// Connecting a UDP socket looks up the route and sends nothing.
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

    /// T-43: never 0.0.0.0.
    #[test]
    fn the_address_is_the_one_that_the_route_has() {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3478);
        assert_eq!(address(Ipv4Addr::UNSPECIFIED, Some(server)), Some(Ipv4Addr::LOCALHOST));
        let bound = Ipv4Addr::new(127, 0, 0, 5);
        assert_eq!(address(bound, Some(server)), Some(bound));
    }
}
