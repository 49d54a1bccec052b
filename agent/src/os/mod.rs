//! What the operating system gives, as the rest of the agent uses it.

pub mod packet_socket;
