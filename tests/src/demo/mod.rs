//! What `cargo xtask demo` tells: the product at work, on networks of its own.

pub mod acs;
pub mod association;
pub mod nat;
pub mod reachability;
mod stage;
pub mod validation;
