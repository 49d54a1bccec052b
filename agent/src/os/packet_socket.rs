//! A packet socket on one interface: whole Ethernet frames in and out.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
        sockopt,
    },
};
use socket2::{SockFilter, SockRef};
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes that the kernel may keep for the socket while the simulator is busy.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No interface of that name in this network namespace.
    #[error("there is no interface {0} here; `ip link` lists them")]
    NoInterface(String),
    /// The interface is down.
    #[error("interface {0} is down; `ip link set {0} up` first")]
    Down(String),
    /// The process lacks a capability.
    #[error("packet sockets need CAP_NET_RAW: run this as root, or `setcap cap_net_raw+ep` the binary")]
    Unprivileged,
    /// Anything else that the kernel said.
    #[error("packet socket on {interface}: {source}")]
    System {
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        source: Errno,
    },
}

/// A packet socket that is bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: AsyncFd<OwnedFd>,
}

/// Lets pass what servers send to DHCP clients: IPv4 without VLAN tag, UDP to port 68, no later fragment. The words of
/// the kernel's classic BPF (`linux/filter.h`), so that a busy interface does not wake the process for each frame.
const DHCP_REPLIES: [SockFilter; 11] = [
    // The Ethernet type is IPv4, the protocol is UDP.
    SockFilter::new(LOAD_HALF, 0, 0, 12),
    SockFilter::new(JUMP_IF_EQUAL, 0, 8, 0x0800),
    SockFilter::new(LOAD_BYTE, 0, 0, 23),
    SockFilter::new(JUMP_IF_EQUAL, 0, 6, 17),
    // The fragment offset is 0.
    SockFilter::new(LOAD_HALF, 0, 0, 20),
    SockFilter::new(JUMP_IF_SET, 4, 0, 0x1fff),
    // The destination port, behind a header of four times the low half of its first byte.
    SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 14),
    SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 16),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, 68),
    SockFilter::new(RETURN, 0, 0, 0x0004_0000),
    SockFilter::new(RETURN, 0, 0, 0),
];
/// Lets pass ARP without VLAN tag.
const ARP: [SockFilter; 4] = [
    SockFilter::new(LOAD_HALF, 0, 0, 12),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x0806),
    SockFilter::new(RETURN, 0, 0, 0x0004_0000),
    SockFilter::new(RETURN, 0, 0, 0),
];
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

impl PacketSocket {
    /// Opens a socket for all frames on `interface`.
    pub fn open(interface: &str) -> Result<Self, SocketError> {
        let socket = Self::open_for(interface, Some(SockProtocol::EthAll))?;
        if setsockopt(socket.descriptor.get_ref(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the limit of the system holds.
            setsockopt(socket.descriptor.get_ref(), sockopt::RcvBuf, &RECEIVE_BUFFER)
                .map_err(|source| SocketError::System { interface: interface.to_owned(), source })?;
        }
        Ok(socket)
    }

    /// Opens a socket for what DHCP servers send to clients on `interface`.
    pub fn open_for_dhcp_replies(interface: &str) -> Result<Self, SocketError> {
        Self::open_filtered(interface, &DHCP_REPLIES)
    }

    /// Opens a socket for ARP on `interface`.
    pub fn open_for_arp(interface: &str) -> Result<Self, SocketError> {
        Self::open_filtered(interface, &ARP)
    }

    fn open_filtered(interface: &str, filter: &[SockFilter]) -> Result<Self, SocketError> {
        let socket = Self::open_for(interface, Some(SockProtocol::EthAll))?;
        let attached = SockRef::from(socket.descriptor.get_ref()).attach_filter(filter);
        attached.map_err(|error| SocketError::System {
            interface: interface.to_owned(),
            source: Errno::from_raw(error.raw_os_error().unwrap_or_default()),
        })?;
        Ok(socket)
    }

    /// Opens a socket on `interface` that only sends.
    pub fn open_to_send(interface: &str) -> Result<Self, SocketError> {
        Self::open_for(interface, None)
    }

    fn open_for(interface: &str, protocol: Option<SockProtocol>) -> Result<Self, SocketError> {
        let system = |source| SocketError::System { interface: interface.to_owned(), source };
        let address = link_address(interface)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let descriptor =
            socket(AddressFamily::Packet, SockType::Raw, flags, protocol).map_err(|source| match source {
                Errno::EPERM | Errno::EACCES => SocketError::Unprivileged,
                _ => system(source),
            })?;
        // The protocol in `address` is 0, which keeps the one that the socket was made with (packet(7)).
        bind(descriptor.as_raw_fd(), &address).map_err(system)?;
        #[expect(deprecated, reason = "its successor is unsafe for owners that are not I/O-safe; `OwnedFd` is")]
        let descriptor = AsyncFd::new(descriptor)
            .map_err(|error| system(Errno::from_raw(error.raw_os_error().unwrap_or_default())))?;
        Ok(Self { descriptor })
    }

    /// Waits for a frame and writes it into `frame`; its length.
    pub async fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        self.descriptor
            .async_io(Interest::READABLE, |descriptor| Ok(recv(descriptor.as_raw_fd(), frame, MsgFlags::empty())?))
            .await
    }

    /// A frame that is there already, written into `frame`; its length.
    pub fn try_receive(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.descriptor.get_ref().as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends one frame.
    pub async fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.descriptor
            .async_io(Interest::WRITABLE, |descriptor| {
                match send(descriptor.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT) {
                    // The queue of the interface is full: lost, as on a wire.
                    Ok(_) | Err(Errno::ENOBUFS) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }
}

fn link_address(interface: &str) -> Result<LinkAddr, SocketError> {
    let system = |source| SocketError::System { interface: interface.to_owned(), source };
    let found = getifaddrs()
        .map_err(system)?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| Some((*entry.address?.as_link_addr()?, entry.flags)));
    match found {
        None => Err(SocketError::NoInterface(interface.to_owned())),
        Some((_, flags)) if !flags.contains(InterfaceFlags::IFF_UP) => Err(SocketError::Down(interface.to_owned())),
        Some((address, _)) => Ok(address),
    }
}
