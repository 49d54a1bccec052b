//! Frames of the corpus for the STUN server of an ACS.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context, Result};
use tr111::dataplane::Listener;
use tr111_common::{
    abi::{BindingKey, Endpoint, ListenerKey},
    acs::{self, Question},
    config::Config,
    counter::Class,
    frame::PlainLoop,
    stun::{self, Demands},
};

use super::{CLIENT, Frame, IFINDEX, SERVER, bytes_of};
use crate::{
    frame::Packet,
    vectors::{S5, hex},
};

/// The source of the corpus's requests.
pub const SOURCE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40_001);
/// Where the server listens. Requests go to the first, unless a frame says otherwise.
pub const SERVERS: [SocketAddrV4; 2] = [
    SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), stun::PORT),
    SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 11), stun::PORT),
];
/// The names that are registered at [`SOURCE`] and the first of [`SERVERS`].
pub const NAMES: [&str; 2] = ["CPE57689", "CPE5768"];

/// The places where the corpus is answered.
pub fn listeners() -> impl Iterator<Item = Listener> {
    SERVERS.into_iter().map(|address| Listener { ifindex: IFINDEX, mac: SERVER, address, changed: address })
}

/// Sources that are never answered: the server's own addresses, and the broadcast addresses of its network.
pub fn own_addresses() -> BTreeSet<Ipv4Addr> {
    let broadcasts = [Ipv4Addr::new(203, 0, 113, 0), Ipv4Addr::new(203, 0, 113, 255)];
    SERVERS.into_iter().map(|server| *server.ip()).chain(broadcasts).collect()
}

/// What is around a request.
pub(super) fn request(packet: Packet) -> Packet {
    let [server, _] = SERVERS;
    Packet {
        to: SERVER,
        from: CLIENT,
        source: *SOURCE.ip(),
        destination: *server.ip(),
        ports: (SOURCE.port(), server.port()),
        ..packet
    }
}

/// What goes back for a frame that is answered where it comes in: S5 with the transaction of the request, in a frame to
/// its sender.
///
/// # Errors
/// A field that cannot be.
pub fn answer_frame(frame: &Frame) -> Result<Vec<u8>> {
    let asked = frame.packet()?;
    let mut payload = frame.answer.as_deref().map_or_else(|| hex(S5), bytes_of);
    payload[4..20].copy_from_slice(asked.payload.get(4..20).context("a header")?);
    let mut answer = Packet {
        to: asked.from,
        from: asked.to,
        source: asked.destination,
        destination: asked.source,
        ports: (asked.ports.1, asked.ports.0),
        checksum: true,
        trailer: 0,
        identification: 0,
        fragment: 0x4000,
        ..asked
    };
    answer.payload = payload;
    Ok(answer.bytes())
}

/// The hook over slices: what it takes a frame for, and the datagram that goes back.
///
/// # Errors
/// The class of a frame that is not answered.
pub fn answer(frame: &[u8], config: &Config) -> Result<(Class, Vec<u8>), Class> {
    let (udp, route) = acs::find(frame, IFINDEX, config)?;
    let endpoint = |address: SocketAddrV4| Endpoint::new(address.ip().octets(), address.port());
    let key = |place: Listener| ListenerKey {
        ifindex: place.ifindex,
        mac: place.mac,
        port: place.address.port(),
        address: place.address.ip().octets(),
    };
    let place = listeners().find(|place| key(*place) == route.listener).ok_or(Class::OtherAddress)?;
    if !route.is_answerable() || own_addresses().contains(&route.source.address.into()) {
        return Err(Class::BadSource);
    }
    let payload = frame.get(udp.payload as usize..udp.end as usize).ok_or(Class::OtherStun)?;
    if payload.is_empty() || payload.len() > acs::REQUEST_MAXIMUM {
        return Err(Class::OtherStun);
    }
    if !acs::is_intact(frame, &udp, payload, PlainLoop) {
        return Err(Class::BadChecksum);
    }
    let mut demands = Demands::default();
    let class = match acs::judge(payload, payload.len() as u32, &mut demands, PlainLoop)? {
        Question::Plain => Class::Plain,
        Question::KeepAlive => {
            let asked = acs::binding_key(payload, &mut demands, &route, config, PlainLoop);
            let registered =
                NAMES.map(|name| BindingKey::new(name.as_bytes(), endpoint(SOURCE), endpoint(SERVERS[0]), config.seed));
            if !registered.contains(&Some(asked)) {
                return Err(Class::UnregisteredBinding);
            }
            acs::keep_alive_class(&demands)
        }
    };
    let datagram = acs::answer(payload, &route, endpoint(place.changed)).datagram();
    Ok((class, datagram.into_iter().flat_map(u16::to_ne_bytes).collect()))
}
