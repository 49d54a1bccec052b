//! The tr111 agent: everything around the sans-IO cores of `tr111-core`.

pub mod config;
