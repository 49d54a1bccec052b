//! A UDP socket that tells how many datagrams it had no room for.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, SocketAddrV4},
    os::fd::AsRawFd,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use tokio::{io::Interest, net::UdpSocket};

/// Bytes that the kernel may keep for the socket while the agent is busy.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for {transport} Connection Requests on {address}: {source}; connection_request_listen names another address"
)]
pub struct BindError {
    pub(super) transport: &'static str,
    pub(super) address: SocketAddrV4,
    pub(super) source: io::Error,
}

/// A datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// As much of it as there was room for.
    pub(super) length: usize,
    pub(super) source: SocketAddrV4,
}

/// A UDP socket of IPv4.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    address: SocketAddrV4,
    /// Datagrams that the kernel dropped for want of room, since the socket is there.
    lost: u32,
}

impl Udp {
    /// Binds one. Needs a tokio runtime.
    pub fn bind(address: SocketAddrV4) -> Result<Self, BindError> {
        Self::open(address).map_err(|source| BindError { transport: "UDP", address, source })
    }

    fn open(address: SocketAddrV4) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the limit of the system holds.
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        let SocketAddr::V4(address) = socket.local_addr()? else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        Ok(Self { socket: UdpSocket::from_std(socket)?, address, lost: 0 })
    }

    /// What it is bound to.
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Waits until there is something to receive. Cancel-safe.
    pub(super) async fn readable(&self) {
        // An error shows again when it is read.
        let _ = self.socket.readable().await;
    }

    /// A datagram that is there already, written into `buffer`.
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

    /// Datagrams that the kernel dropped for want of room since this was asked last, as far as a later one told of them.
    pub(super) fn lost_since(&self, before: &mut u32) -> u64 {
        let lost = self.lost.wrapping_sub(*before);
        *before = self.lost;
        lost.into()
    }

    /// Sends a datagram, or not: STUN repeats itself.
    pub(super) fn try_send(&self, datagram: &[u8], to: SocketAddrV4) -> io::Result<()> {
        self.socket.try_send_to(datagram, to.into()).map(drop)
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
}
