//! The control socket between the agent and the other `tr111` commands: length-prefixed JSON over a Unix socket.
//!
//! Root, the user of the agent and members of the group `tr111` may connect. The mode of the socket permits nobody
//! else, and the agent also checks the credentials of the peer. A message has at most [`frame::MAXIMUM`] bytes, and
//! every step has a time limit. A client that does not read its replies never blocks the agent.

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
