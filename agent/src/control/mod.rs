//! The control socket, between the agent and `tr111`'s other commands: length-prefixed JSON over a Unix socket.
//!
//! Who may connect: root, the agent's own user, and members of the group `tr111`. The socket's mode says so, and the
//! agent checks the peer's credentials again. Every message is below [`frame::MAXIMUM`], every step has a deadline, and
//! a client that does not read never holds up the agent.

mod client;
pub mod frame;
mod listener;
pub mod message;
mod peer;
mod server;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, DEFAULT_PATH};
pub use listener::{BindError, Listener};
#[cfg(feature = "acs")]
pub(crate) use peer::{GROUP, group};
pub use server::{Limits, Service, serve};
