//! UDP sockets that receive and send datagrams in batches, and know the local address of each datagram.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc::{in_addr, in_pktinfo},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use tr111_core::acs::Ends;

pub(super) const BATCH: usize = 64;
/// Size of a receive buffer, in bytes: more than any path carries in one packet.
const DATAGRAM: usize = 2048;
/// Size of the kernel's receive buffer of a socket, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long a thread waits for a datagram before it checks whether it must stop.
const PATIENCE: Duration = Duration::from_millis(500);

/// The STUN server's address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for STUN on {address}: {source}; set another address in [acs] listen")]
pub struct BindError {
    address: SocketAddrV4,
    source: io::Error,
}

/// A UDP socket at an address of the STUN server. Several sockets can share one address (`SO_REUSEPORT`): the kernel
/// distributes the sources over them.
#[derive(Clone, Debug)]
pub struct StunSocket {
    socket: Arc<UdpSocket>,
    address: SocketAddrV4,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) length: usize,
    pub(super) ends: Ends,
}

#[derive(Debug)]
pub(super) struct Buffers {
    bytes: Box<[[u8; DATAGRAM]; BATCH]>,
    received: Vec<Received>,
    /// The kernel's count of datagrams that it dropped since the socket was opened (`SO_RXQ_OVFL`).
    lost: u32,
}

impl Buffers {
    pub(super) fn new() -> Self {
        let bytes = vec![[0; DATAGRAM]; BATCH].into_boxed_slice();
        let bytes = bytes.try_into().unwrap_or_else(|_| unreachable!("as many as there are"));
        Self { bytes, received: Vec::with_capacity(BATCH), lost: 0 }
    }

    /// The datagrams of the last batch with their source and local addresses.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Ends, &[u8])> {
        let all = self.received.iter().zip(self.bytes.iter());
        all.map(|(received, bytes)| (received.ends, &bytes[..received.length]))
    }
}

#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: SocketAddrV4,
    /// The source address, one of ours.
    pub(super) from: Ipv4Addr,
    pub(super) bytes: Vec<u8>,
}

impl StunSocket {
    /// Binds `count` sockets to one address that no other process uses.
    pub fn bind(address: SocketAddrV4, count: usize) -> Result<Vec<Self>, BindError> {
        let failed = |source| BindError { address, source };
        // `SO_REUSEPORT` would let another process of the same user share the port and take half of the requests. A
        // bind without it fails in this case.
        drop(UdpSocket::bind(address).map_err(failed)?);
        (0..count).map(|_| Self::open(address).map_err(failed)).collect()
    }

    fn open(address: SocketAddrV4) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the system's limit (net.core.rmem_max) applies.
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        socket.set_read_timeout(Some(PATIENCE))?;
        let socket = UdpSocket::from(socket);
        let SocketAddr::V4(address) = socket.local_addr()? else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        Ok(Self { socket: Arc::new(socket), address })
    }

    /// The address that the socket is bound to.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Waits for a datagram, and receives all that have arrived, at most [`BATCH`]. Returns how many datagrams the
    /// kernel dropped before them.
    pub(super) fn receive(&self, buffers: &mut Buffers) -> io::Result<u32> {
        let Buffers { bytes, received, lost } = buffers;
        received.clear();
        let mut slices = bytes.each_mut().map(|bytes| [IoSliceMut::new(bytes)]);
        // The headers are made anew each time: the kernel shortens the space for control messages to what it filled,
        // and nix does not restore it.
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, Some(nix::cmsg_space!(u32, in_pktinfo)));
        let messages =
            recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
        let messages = match messages {
            Ok(messages) => messages,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let before = *lost;
        for message in messages {
            let source = message.address.map_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), SocketAddrV4::from);
            let mut server = self.address;
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::RxqOvfl(count) => *lost = count,
                    // The destination address in the IP header, also for a packet that was routed here for another
                    // host.
                    ControlMessageOwned::Ipv4PacketInfo(info) => server.set_ip(address_of(info.ipi_addr)),
                    _ => {}
                }
            }
            received.push(Received { length: message.bytes, ends: Ends { source, server } });
        }
        Ok(lost.wrapping_sub(before))
    }

    /// Sends datagrams, each from its own source address, and skips those that cannot be sent. If the socket's buffer
    /// is full, waits for space where `is_patient` is set; otherwise drops the rest, as STUN clients retransmit.
    /// Returns how many were sent.
    pub(super) fn send<'a>(&self, datagrams: impl Iterator<Item = &'a Outgoing>, is_patient: bool) -> usize {
        let flags = if is_patient { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let datagrams: Vec<_> = datagrams.collect();
        let runs = datagrams.chunk_by(|left, right| left.from == right.from);
        runs.flat_map(|run| run.chunks(BATCH)).map(|run| self.send_from(run[0].from, run, flags)).sum()
    }

    fn send_from(&self, from: Ipv4Addr, datagrams: &[&Outgoing], flags: MsgFlags) -> usize {
        let info = packet_info(from);
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let (mut sent, mut rest) = (0, datagrams);
        while !rest.is_empty() {
            let slices: Vec<_> = rest.iter().map(|one| [IoSlice::new(&one.bytes)]).collect();
            let addresses: Vec<_> = rest.iter().map(|one| Some(SockaddrIn::from(one.to))).collect();
            let mut headers = MultiHeaders::preallocate(rest.len(), Some(nix::cmsg_space!(in_pktinfo)));
            let result = sendmmsg(self.socket.as_raw_fd(), &mut headers, &slices, &addresses, control, flags);
            match result.map(Iterator::count) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(count) => {
                    sent += count;
                    rest = &rest[count..];
                }
                Err(Errno::EINTR) => {}
                // The error is about the first datagram only, such as an unreachable address.
                Err(error) => {
                    tracing::debug!(%error, to = %rest[0].to, "cannot send a datagram");
                    rest = &rest[1..];
                }
            }
        }
        sent
    }

    /// Sends one datagram, without waiting for space.
    pub(super) fn send_one(&self, datagram: &Outgoing) -> io::Result<()> {
        let info = packet_info(datagram.from);
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let to = SockaddrIn::from(datagram.to);
        let slices = [IoSlice::new(&datagram.bytes)];
        sendmsg(self.socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }
}

/// The source address of a datagram as a control message; 0.0.0.0 leaves the choice to the route.
fn packet_info(from: Ipv4Addr) -> in_pktinfo {
    let s_addr = u32::from_ne_bytes(from.octets());
    in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: in_addr { s_addr }, ipi_addr: in_addr { s_addr: 0 } }
}

fn address_of(address: in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> StunSocket {
        StunSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), 1).expect("a port").remove(0)
    }

    /// T-68: threads share a port, processes do not.
    #[test]
    fn a_port_that_somebody_has_is_refused() {
        let address = any().address();
        let taken = StunSocket::bind(address, 2).expect("it is free again");
        assert_eq!(taken.len(), 2);
        let refused = StunSocket::bind(address, 1).expect_err("it is taken");
        assert!(refused.to_string().contains("[acs] listen"), "{refused}");
    }

    /// STUN-15: a socket bound to all addresses knows which address was asked, and answers from it.
    #[test]
    fn answers_come_from_the_address_that_was_asked() {
        let server = any();
        let mut buffers = Buffers::new();
        for last in [1, 2, 3] {
            let asked = SocketAddrV4::new([127, 0, 0, last].into(), server.address().port());
            let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
            client.connect(asked).expect("local");
            client.send(&[last; 30]).expect("sent");
            server.receive(&mut buffers).expect("reads");
            let (ends, bytes) = buffers.iter().next().expect("one");
            assert_eq!((ends.server, bytes), (asked, &[last; 30][..]));
            let answer = Outgoing { to: ends.source, from: *ends.server.ip(), bytes: vec![9] };
            assert_eq!(server.send([answer].iter(), false), 1);
            // A connected socket receives from its peer only.
            client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            assert_eq!(client.recv(&mut [0; 9]).expect("an answer"), 1);
        }
    }

    #[test]
    fn what_the_kernel_drops_is_counted_with_the_next_datagram() {
        let server = any();
        setsockopt(&server.socket, sockopt::RcvBuf, &2_304).expect("a small buffer");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        client.connect(("127.0.0.1", server.address().port())).expect("local");
        let mut buffers = Buffers::new();
        let (mut heard, mut lost) = (0, 0);
        for round in 1..4 {
            for _ in 0..100 {
                client.send(&[1; 100]).expect("sent");
            }
            while heard + lost < 100 * round {
                lost += server.receive(&mut buffers).expect("reads");
                heard += buffers.iter().count() as u32;
                if buffers.iter().count() == 0 {
                    client.send(&[1; 100]).expect("sent");
                    lost += server.receive(&mut buffers).expect("reads");
                    break;
                }
            }
        }
        assert!(lost > 0 && heard + lost >= 300, "{heard} heard, {lost} lost");
    }

    /// A datagram to an unreachable address does not keep the others from being sent.
    #[test]
    fn one_that_cannot_be_sent_is_left_out() {
        let server = any();
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let SocketAddr::V4(to) = client.local_addr().expect("bound") else { panic!("IPv4") };
        let from = Ipv4Addr::LOCALHOST;
        let datagram = |to| Outgoing { to, from, bytes: vec![1] };
        let nowhere = SocketAddrV4::new(Ipv4Addr::BROADCAST, 9);
        assert_eq!(server.send([datagram(to), datagram(nowhere), datagram(to)].iter(), false), 2);
    }
}
