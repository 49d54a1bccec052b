//! Roles: each wires configuration, packet path, cores and services together, and does nothing else.

pub mod acs;
pub mod device;
pub mod gateway;
pub mod privileges;
mod start;

pub use start::Error;
