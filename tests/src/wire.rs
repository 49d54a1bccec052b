//! One end of a wire: a packet socket that sends and receives whole Ethernet frames.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
    },
};
use std::os::fd::AsFd;

use crate::namespace::Namespace;

const RECEIVE_BUFFER: usize = 64 << 20;
const FRAME_MAXIMUM: usize = 64 * 1024;

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// All frames of `interface` in `namespace`, its own outgoing ones by other sockets included.
    ///
    /// # Errors
    /// There is no such interface, or it is down.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::open_for(namespace, interface, SockProtocol::EthAll)
    }

    /// Only the IPv4 frames that come in by `interface`.
    ///
    /// # Errors
    /// As [`Wire::open`].
    pub fn open_incoming(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::open_for(namespace, interface, SockProtocol::EthIp)
    }

    fn open_for(namespace: &Namespace, interface: &str, protocol: SockProtocol) -> Result<Self> {
        let socket = namespace.enter(|| -> Result<OwnedFd> {
            let address = getifaddrs()?
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address?.as_link_addr().copied())
                .with_context(|| format!("no interface {interface}"))?;
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, protocol)?;
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            bind(socket.as_raw_fd(), &address)?;
            Ok(socket)
        })?;
        Ok(Self { socket })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// The interface is gone or refuses the length.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        if sent != frame.len() {
            bail!("sent {sent} of {} bytes", frame.len());
        }
        Ok(())
    }

    /// The next frame, or `None` if there is none within `limit`.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive(&self, limit: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + limit;
        let mut frame = vec![0; FRAME_MAXIMUM];
        loop {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    frame.truncate(length);
                    return Ok(Some(frame));
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = PollTimeout::try_from(left.min(Duration::from_secs(1)) + Duration::from_millis(1))?;
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The first value that `pick` makes of a received frame.
    ///
    /// # Errors
    /// None comes within `limit`.
    pub fn expect<T>(&self, what: &str, limit: Duration, mut pick: impl FnMut(&[u8]) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left)? {
                Some(frame) => {
                    if let Some(value) = pick(&frame) {
                        return Ok(value);
                    }
                }
                None => bail!("no {what} within {limit:?}"),
            }
        }
    }
}
