//! A UDP socket that counts datagrams dropped by the kernel on reception, and queues datagrams while its send buffer is
//! full.

use std::{
    collections::VecDeque,
    future::pending,
    io::{self, IoSliceMut},
    net::{SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd, RawFd},
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendto, setsockopt, sockopt};
use tokio::{io::Interest, net::UdpSocket};

/// Size of the kernel's receive buffer, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Greatest number of queued datagrams. The CPE has at most three outstanding requests; older ones are obsolete.
const WAITING: usize = 8;

/// The address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for {transport} Connection Requests on {address}: {source}; \
     set another address in connection_request_listen"
)]
pub struct BindError {
    pub(super) transport: &'static str,
    pub(super) address: SocketAddrV4,
    pub(super) source: io::Error,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Number of bytes in the buffer.
    pub(super) length: usize,
    pub(super) source: SocketAddrV4,
}

/// A UDP socket for IPv4.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    address: SocketAddrV4,
    /// The kernel's count of datagrams that it dropped since the socket was opened (`SO_RXQ_OVFL`).
    lost: u32,
    waiting: Waiting,
}

impl Udp {
    /// Binds a socket. Must be called in a tokio runtime.
    pub fn bind(address: SocketAddrV4) -> Result<Self, BindError> {
        Self::open(address).map_err(|source| BindError { transport: "UDP", address, source })
    }

    fn open(address: SocketAddrV4) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the system's limit (net.core.rmem_max) applies.
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        let SocketAddr::V4(address) = socket.local_addr()? else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        Ok(Self { socket: UdpSocket::from_std(socket)?, address, lost: 0, waiting: Waiting::default() })
    }

    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Waits until a datagram can be received. Cancel-safe.
    pub(super) async fn readable(&self) {
        // The next receive reports the error again.
        let _ = self.socket.readable().await;
    }

    /// Receives a datagram into `buffer` if one has arrived.
    pub(super) fn try_receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let descriptor = self.socket.as_raw_fd();
        let mut control = nix::cmsg_space!(u32);
        let received = self.socket.try_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(buffer)];
            let message = recvmsg::<SockaddrIn>(descriptor, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
            let lost = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::RxqOvfl(lost) => Some(lost),
                _ => None,
            });
            Ok((message.bytes, message.address, lost))
        });
        match received {
            Ok((length, source, lost)) => {
                self.lost = lost.unwrap_or(self.lost);
                let source = source.map_or(SocketAddrV4::new([0; 4].into(), 0), SocketAddrV4::from);
                Ok(Some(Received { length, source }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Number of datagrams that the kernel dropped since the last call, as far as later datagrams reported it.
    pub(super) fn lost_since(&self, before: &mut u32) -> u64 {
        let lost = self.lost.wrapping_sub(*before);
        *before = self.lost;
        lost.into()
    }

    /// Sends a datagram at once, or queues it for [`Self::flush`] if the send buffer is full.
    pub(super) fn send(&mut self, datagram: &[u8], to: SocketAddrV4) -> io::Result<()> {
        // Not through tokio, which regards a new socket as not writable until its reactor has polled it.
        let descriptor = self.socket.as_raw_fd();
        self.waiting.send(datagram, to, |datagram, to| transmit(descriptor, datagram, to))
    }

    /// Waits until queued datagrams can be sent; forever if there are none. Cancel-safe.
    pub(super) async fn writable(&self) {
        if self.waiting.0.is_empty() {
            return pending().await;
        }
        // The next send reports the error again.
        let _ = self.socket.writable().await;
    }

    /// Sends queued datagrams until the send buffer is full.
    pub(super) fn flush(&mut self) {
        let (socket, descriptor) = (&self.socket, self.socket.as_raw_fd());
        // Through tokio, so that it notices when the send buffer is full again.
        self.waiting.flush(|datagram, to| socket.try_io(Interest::WRITABLE, || transmit(descriptor, datagram, to)));
    }
}

fn transmit(socket: RawFd, datagram: &[u8], to: SocketAddrV4) -> io::Result<()> {
    sendto(socket, datagram, &SockaddrIn::from(to), MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Datagrams that wait for the send buffer, in order.
#[derive(Debug, Default)]
struct Waiting(VecDeque<(Vec<u8>, SocketAddrV4)>);

impl Waiting {
    /// Sends a datagram with `transmit`, or queues it if that would block or if others are queued.
    fn send(
        &mut self,
        datagram: &[u8],
        to: SocketAddrV4,
        transmit: impl FnOnce(&[u8], SocketAddrV4) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.0.is_empty() {
            match transmit(datagram, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent,
            }
        }
        // Copies of a request are identical (RFC 3489 9.3). One copy in the queue is enough.
        if !self.0.iter().any(|(kept, target)| kept == datagram && *target == to) {
            if self.0.len() == WAITING {
                self.0.pop_front();
            }
            self.0.push_back((datagram.to_vec(), to));
        }
        Ok(())
    }

    /// Sends queued datagrams with `transmit` until that would block.
    fn flush(&mut self, mut transmit: impl FnMut(&[u8], SocketAddrV4) -> io::Result<()>) {
        while let Some((datagram, to)) = self.0.front() {
            match transmit(datagram, *to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => tracing::debug!(%error, %to, "cannot send a STUN request"),
                Ok(()) => {}
            }
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_kernel_drops_is_counted_with_the_next_datagram() {
        let mut socket = Udp::bind(SocketAddrV4::new([127, 0, 0, 1].into(), 0)).expect("a port");
        setsockopt(&socket.socket, sockopt::RcvBuf, &2_304).expect("a small buffer");
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        for _ in 0..100 {
            sender.send_to(&[1; 100], socket.address()).expect("sent");
        }
        let mut buffer = [0; 200];
        let mut heard = 0;
        socket.readable().await;
        while let Some(received) = socket.try_receive(&mut buffer).expect("reads") {
            assert_eq!(received.length, 100);
            heard += 1;
        }
        sender.send_to(&[1; 100], socket.address()).expect("sent");
        socket.readable().await;
        assert!(socket.try_receive(&mut buffer).expect("reads").is_some());
        let mut before = 0;
        assert_eq!(socket.lost_since(&mut before), 100 - heard);
        assert_eq!(socket.lost_since(&mut before), 0);
    }

    /// RFC 3489 9.3: the first copy is sent at once, although the reactor has not polled the socket yet.
    #[tokio::test]
    async fn a_new_socket_sends_before_the_reactor_has_seen_it() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        server.set_nonblocking(true).expect("set");
        let SocketAddr::V4(to) = server.local_addr().expect("an address") else { panic!("not IPv4") };
        let mut socket = Udp::bind(SocketAddrV4::new([127, 0, 0, 1].into(), 0)).expect("a port");
        // Nothing is awaited in between, so the reactor cannot run. The loopback device delivers within the call.
        socket.send(b"first", to).expect("sent");
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).expect("it left");
        assert_eq!((&buffer[..length], from), (&b"first"[..], socket.address().into()));
    }

    /// Datagrams that would block are sent in order when there is space, and a copy of a queued request is sent once.
    #[test]
    fn what_would_block_leaves_when_there_is_room() {
        let to = SocketAddrV4::new([192, 0, 2, 1].into(), 3478);
        let mut waiting = Waiting::default();
        let full = |_: &[u8], _| Err(io::ErrorKind::WouldBlock.into());
        for datagram in ["one", "two", "one"] {
            waiting.send(datagram.as_bytes(), to, full).expect("kept");
        }
        // A new datagram does not overtake queued ones.
        waiting.send(b"three", to, |_, _| panic!("it waits behind others")).expect("kept");
        let (mut sent, mut room) = (Vec::new(), 1);
        let mut transmit = |datagram: &[u8], _| {
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            room -= 1;
            sent.push(String::from_utf8(datagram.to_vec()).expect("text"));
            Ok(())
        };
        waiting.flush(&mut transmit);
        assert_eq!(waiting.0.len(), 2);
        waiting.flush(&mut transmit);
        assert_eq!(waiting.0.len(), 2);
        // A datagram that cannot be sent does not block the others.
        waiting.flush(|datagram, _| {
            sent.push(String::from_utf8(datagram.to_vec()).expect("text"));
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!(sent, ["one", "two", "three"]);
        assert!(waiting.0.is_empty());
    }

    /// A queue that is full keeps the newest requests.
    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Waiting::default();
        for number in 0..u8::try_from(WAITING).expect("few") + 3 {
            let full = |_: &[u8], _| Err(io::ErrorKind::WouldBlock.into());
            waiting.send(&[number], SocketAddrV4::new([192, 0, 2, 1].into(), 3478), full).expect("kept");
        }
        assert_eq!(waiting.0.len(), WAITING);
        assert_eq!(waiting.0[0].0, [3]);
    }

    /// Queued datagrams are sent as soon as the reactor reports space.
    #[tokio::test]
    async fn what_waits_is_flushed() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let SocketAddr::V4(to) = server.local_addr().expect("an address") else { panic!("not IPv4") };
        let mut socket = Udp::bind(SocketAddrV4::new([127, 0, 0, 1].into(), 0)).expect("a port");
        socket.waiting.0.push_back((b"late".to_vec(), to));
        socket.writable().await;
        socket.flush();
        let mut buffer = [0; 16];
        assert_eq!(server.recv(&mut buffer).expect("it left"), 4);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), socket.writable()).await.is_err());
    }
}
