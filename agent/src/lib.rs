//! The tr111 agent: everything around the sans-IO cores of `tr111-core`.

pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod nat;
pub mod random;
pub mod registry;
pub mod role;
pub mod service;
pub mod sim;
pub mod store;
pub mod telemetry;
