//! Interfaces to the operating system: clock, network devices, netlink and packet sockets.

pub mod clock;
pub mod ethtool;
pub mod netlink;
pub mod packet_socket;
