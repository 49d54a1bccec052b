//! A packet socket on one interface, which receives and sends whole Ethernet frames.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
    task::{Context, Poll, ready},
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
use tr111_common::headers::VlanIds;

/// Size of the kernel's receive buffer for sockets of the simulator, in bytes.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Why a packet socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No interface has this name in the network namespace of the process.
    #[error("there is no interface {0} here; `ip link` lists those that exist")]
    NoInterface(String),
    /// The interface is down.
    #[error("interface {0} is down; `ip link set {0} up` first")]
    Down(String),
    /// The process lacks the capability `CAP_NET_RAW`.
    #[error("packet sockets need CAP_NET_RAW: run the program as root, or `setcap cap_net_raw+ep` the binary")]
    Unprivileged,
    /// Any other error of the kernel.
    #[error("cannot use a packet socket on interface {interface}: {source}")]
    System {
        /// Name of the interface.
        interface: String,
        /// The kernel's error.
        source: Errno,
    },
}

/// A packet socket that is bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: AsyncFd<OwnedFd>,
}

/// Passes replies of DHCP servers to clients: IPv4 without VLAN tag, UDP to port 68, unfragmented or the first
/// fragment. It is a classic BPF filter of the kernel (`linux/filter.h`), so that other traffic does not wake the
/// process.
const DHCP_REPLIES: [SockFilter; 11] = [
    // The EtherType is IPv4 and the protocol is UDP.
    SockFilter::new(LOAD_HALF, 0, 0, 12),
    SockFilter::new(JUMP_IF_EQUAL, 0, 8, 0x0800),
    SockFilter::new(LOAD_BYTE, 0, 0, 23),
    SockFilter::new(JUMP_IF_EQUAL, 0, 6, 17),
    // The fragment offset is 0.
    SockFilter::new(LOAD_HALF, 0, 0, 20),
    SockFilter::new(JUMP_IF_SET, 4, 0, 0x1fff),
    // The destination port, behind the IPv4 header, whose length is four times the low nibble of its first byte.
    SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 14),
    SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 16),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, 68),
    SockFilter::new(RETURN, 0, 0, 0x0004_0000),
    SockFilter::new(RETURN, 0, 0, 0),
];
/// Passes ARP without VLAN tag.
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
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Offsets of frame metadata (`SKF_AD_OFF` of linux/filter.h).
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
const METADATA_TAG: u32 = 0xffff_f000 + 44;
/// Packet type of a frame that this machine sends (`linux/if_packet.h`).
const PACKET_OUTGOING: u32 = 4;
const VLAN_ID: u32 = 0x0fff;

/// Greatest number of addresses of one filter. Such a filter has about 2,500 of the 4,096 instructions that the kernel
/// allows.
pub const SOURCES_MAXIMUM: usize = 1_024;
/// Number of addresses at which the binary search ends and they are compared one by one.
const ONE_BY_ONE: usize = 8;
/// Number of frames that are discarded at most because they may have arrived before the filter was attached.
const BACKLOG: usize = 4_096;

/// An instruction of a filter that is built at run time: code, two jump offsets and operand, as for
/// [`SockFilter::new`].
type Instruction = (u16, u8, u8, u32);

/// Passes incoming IPv4 frames from `sources` and incoming ARP messages whose sender is one of `sources`, in the VLANs
/// `vlan`. The kernel has removed the outermost tag from the frame. The filter finds the address by binary search.
fn from_sources(vlan: VlanIds, sources: &[Ipv4Addr]) -> Vec<Instruction> {
    let [outer, inner] = vlan.map(u32::from);
    let drop = (RETURN, 0, 0, 0);
    let mut filter = vec![
        (LOAD_WORD, 0, 0, PACKET_TYPE),
        (JUMP_IF_EQUAL, 0, 1, PACKET_OUTGOING),
        drop,
        (LOAD_WORD, 0, 0, METADATA_TAG),
        (AND, 0, 0, VLAN_ID),
        (JUMP_IF_EQUAL, 1, 0, outer),
        drop,
    ];
    let mut tag = 0;
    if inner != 0 {
        tag = 4;
        filter.extend([
            (LOAD_HALF, 0, 0, 12),
            (JUMP_IF_EQUAL, 2, 0, 0x8100),
            (JUMP_IF_EQUAL, 1, 0, 0x88a8),
            drop,
            (LOAD_HALF, 0, 0, 14),
            (AND, 0, 0, VLAN_ID),
            (JUMP_IF_EQUAL, 1, 0, inner),
            drop,
        ]);
    }
    filter.extend([
        (LOAD_HALF, 0, 0, 12 + tag),
        (JUMP_IF_EQUAL, 0, 2, 0x0800),
        (LOAD_WORD, 0, 0, 26 + tag),
        (JUMP, 0, 0, 3),
        (JUMP_IF_EQUAL, 1, 0, 0x0806),
        drop,
        (LOAD_WORD, 0, 0, 28 + tag),
    ]);
    let mut sources: Vec<u32> = sources.iter().copied().map(u32::from).collect();
    sources.sort_unstable();
    sources.dedup();
    sources.truncate(SOURCES_MAXIMUM);
    filter.extend(one_of(&sources));
    filter
}

/// Accepts a frame if the loaded word is one of `sources`, which must be sorted, and drops it otherwise.
fn one_of(sources: &[u32]) -> Vec<Instruction> {
    if sources.len() > ONE_BY_ONE {
        let (lower, upper) = sources.split_at(sources.len() / 2);
        let below = one_of(lower);
        // A conditional jump skips at most 255 instructions.
        let mut filter = vec![(JUMP_IF_NOT_LESS, 0, 1, upper[0]), (JUMP, 0, 0, below.len() as u32)];
        filter.extend(below);
        filter.extend(one_of(upper));
        return filter;
    }
    let accept = (RETURN, 0, 0, 0x0004_0000);
    let compared = sources.iter().flat_map(|source| [(JUMP_IF_EQUAL, 0, 1, *source), accept]);
    compared.chain([(RETURN, 0, 0, 0)]).collect()
}

fn compiled(filter: &[Instruction]) -> Vec<SockFilter> {
    filter.iter().map(|(code, jt, jf, k)| SockFilter::new(*code, *jt, *jf, *k)).collect()
}

impl PacketSocket {
    /// Opens a socket for all frames on `interface`.
    pub fn open(interface: &str) -> Result<Self, SocketError> {
        let socket = Self::open_for(interface, Some(SockProtocol::EthAll))?;
        if setsockopt(socket.descriptor.get_ref(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the system's limit (net.core.rmem_max) applies.
            setsockopt(socket.descriptor.get_ref(), sockopt::RcvBuf, &RECEIVE_BUFFER)
                .map_err(|source| SocketError::System { interface: interface.to_owned(), source })?;
        }
        Ok(socket)
    }

    /// Opens a socket that receives replies of DHCP servers to clients on `interface`.
    pub fn open_for_dhcp_replies(interface: &str) -> Result<Self, SocketError> {
        Self::open_filtered(interface, &DHCP_REPLIES)
    }

    /// Opens a socket that receives ARP on `interface`.
    pub fn open_for_arp(interface: &str) -> Result<Self, SocketError> {
        Self::open_filtered(interface, &ARP)
    }

    /// Opens a socket that receives IPv4 and ARP from the addresses `sources` on `interface` in the VLANs `vlan`. Uses
    /// at most [`SOURCES_MAXIMUM`] addresses.
    pub fn open_for_sources(interface: &str, vlan: VlanIds, sources: &[Ipv4Addr]) -> Result<Self, SocketError> {
        let socket = Self::open_filtered(interface, &compiled(&from_sources(vlan, sources)))?;
        let mut frame = [0];
        for _ in 0..BACKLOG {
            if !matches!(socket.try_receive(&mut frame), Ok(Some(_))) {
                break;
            }
        }
        Ok(socket)
    }

    /// Replaces the addresses of a socket of [`PacketSocket::open_for_sources`].
    pub fn set_sources(&self, vlan: VlanIds, sources: &[Ipv4Addr]) -> io::Result<()> {
        SockRef::from(self.descriptor.get_ref()).attach_filter(&compiled(&from_sources(vlan, sources)))
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
        // `address` has protocol 0, with which bind keeps the protocol of the socket (packet(7)).
        bind(descriptor.as_raw_fd(), &address).map_err(system)?;
        #[expect(deprecated, reason = "its successor is unsafe for owners that are not I/O-safe; `OwnedFd` is")]
        let descriptor = AsyncFd::new(descriptor)
            .map_err(|error| system(Errno::from_raw(error.raw_os_error().unwrap_or_default())))?;
        Ok(Self { descriptor })
    }

    /// Waits for a frame, writes it to `frame` and returns its length.
    pub async fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        self.descriptor
            .async_io(Interest::READABLE, |descriptor| Ok(recv(descriptor.as_raw_fd(), frame, MsgFlags::empty())?))
            .await
    }

    /// Polls for a frame, for tasks that wait for several sockets. Only one task at a time can wait for a socket.
    pub fn poll_receive(&self, context: &mut Context<'_>, frame: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut readable = ready!(self.descriptor.poll_read_ready(context))?;
            let received =
                readable.try_io(|descriptor| Ok(recv(descriptor.get_ref().as_raw_fd(), frame, MsgFlags::empty())?));
            if let Ok(received) = received {
                return Poll::Ready(received);
            }
        }
    }

    /// Receives a frame into `frame` if one has arrived, and returns its length.
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
                    // The queue of the interface is full. The frame is lost, like on a wire.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter like the kernel (linux/filter.h) on a frame that was received with a tag in its metadata.
    fn passes(filter: &[Instruction], packet_type: u32, metadata_tag: u32, frame: &[u8]) -> bool {
        let (mut word, mut at) = (0, 0);
        loop {
            let (code, jt, jf, k) = filter[at];
            at += 1;
            let mut jump = |condition: bool| at += usize::from(if condition { jt } else { jf });
            match code {
                LOAD_WORD if k == PACKET_TYPE => word = packet_type,
                LOAD_WORD if k == METADATA_TAG => word = metadata_tag,
                LOAD_WORD => word = u32::from_be_bytes(*frame[k as usize..].first_chunk().expect("four bytes")),
                LOAD_HALF => {
                    word = u32::from(u16::from_be_bytes(*frame[k as usize..].first_chunk().expect("two bytes")));
                }
                AND => word &= k,
                JUMP => at += k as usize,
                JUMP_IF_EQUAL => jump(word == k),
                JUMP_IF_NOT_LESS => jump(word >= k),
                RETURN => return k != 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn ipv4(source: Ipv4Addr) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(source.octets());
        frame.extend([255; 4]);
        frame
    }

    fn arp(sender: Ipv4Addr) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1]);
        frame.extend(sender.octets());
        frame.extend([255; 10]);
        frame
    }

    #[test]
    fn a_filter_of_any_size_lets_its_sources_pass_and_nobody_else() {
        for count in [1, 2, 8, 9, 100, SOURCES_MAXIMUM as u32] {
            let wanted: Vec<Ipv4Addr> =
                (0..count).rev().map(|number| Ipv4Addr::from(0x0a00_0000 + 7 * number)).collect();
            let filter = from_sources([0, 0], &wanted);
            assert!(filter.len() < 4_096, "{} instructions", filter.len());
            for source in (0x0a00_0000 - 1..=0x0a00_0000 + 7 * count).map(Ipv4Addr::from) {
                let expected = wanted.contains(&source);
                assert_eq!(passes(&filter, 0, 0, &ipv4(source)), expected, "{source} among {count}");
                assert_eq!(passes(&filter, 0, 0, &arp(source)), expected, "{source} among {count}");
            }
            assert!(!passes(&filter, PACKET_OUTGOING, 0, &ipv4(wanted[0])), "what this machine sends is no sign");
        }
    }

    #[test]
    fn a_filter_belongs_to_its_vlan() {
        let source = Ipv4Addr::new(10, 0, 0, 1);
        let in_tag = |protocol: u16, control: u16, mut frame: Vec<u8>| {
            frame.splice(12..12, [protocol.to_be_bytes(), control.to_be_bytes()].concat());
            frame
        };
        let untagged = from_sources([0, 0], &[source]);
        assert!(passes(&untagged, 0, 0xe000, &ipv4(source)), "a priority tag names no VLAN");
        assert!(!passes(&untagged, 0, 5, &ipv4(source)));
        assert!(!passes(&untagged, 0, 0, &in_tag(0x8100, 5, ipv4(source))));
        let one = from_sources([5, 0], &[source]);
        assert!(passes(&one, 0, 0x2005, &arp(source)));
        assert!(!passes(&one, 0, 6, &arp(source)) && !passes(&one, 0, 0, &arp(source)));
        let two = from_sources([5, 6], &[source]);
        for protocol in [0x8100, 0x88a8] {
            for frame in [ipv4(source), arp(source)] {
                assert!(passes(&two, 0, 5, &in_tag(protocol, 0x2006, frame.clone())));
                assert!(!passes(&two, 0, 5, &in_tag(protocol, 7, frame.clone())));
                assert!(!passes(&two, 0, 5, &frame));
            }
        }
    }

    /// The kernel's verifier accepts the largest filter.
    #[tokio::test]
    async fn the_kernel_takes_the_largest_filter() {
        let sources: Vec<Ipv4Addr> = (0..SOURCES_MAXIMUM as u32).map(|number| Ipv4Addr::from(3 * number)).collect();
        match PacketSocket::open_for_sources("lo", [5, 6], &sources) {
            Ok(socket) => socket.set_sources([0, 0], &sources).expect("a filter"),
            Err(SocketError::Unprivileged) => eprintln!("skipped: packet sockets need CAP_NET_RAW"),
            Err(error) => panic!("{error}"),
        }
    }
}
