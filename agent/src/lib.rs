//! The tr111 agent: everything around the sans-IO cores of `tr111-core`.
//!
//! Features select the roles `gateway`, `device` and `acs`, and the simulator `sim`. All are enabled by default.
// Code that roles share is always compiled. The linker removes what is unused.
#![cfg_attr(
    not(all(feature = "gateway", feature = "device", feature = "acs", feature = "sim")),
    allow(dead_code, reason = "shared by roles of which not all are here")
)]

#[cfg(feature = "acs")]
pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod essential;
mod http;
#[cfg(feature = "gateway")]
pub mod nat;
pub mod os;
pub mod random;
#[cfg(feature = "acs")]
pub mod registry;
pub mod role;
pub mod service;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod telemetry;
