//! What the operating system gives, as the rest of the agent uses it.

pub mod clock;
pub mod ethtool;
pub mod netlink;
pub mod packet_socket;
