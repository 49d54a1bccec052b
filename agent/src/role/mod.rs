//! The roles. Each connects configuration, packet path, cores and services.

#[cfg(feature = "acs")]
pub mod acs;
#[cfg(feature = "device")]
pub mod device;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod privileges;
mod start;

pub use start::Error;
