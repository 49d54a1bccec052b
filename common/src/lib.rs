//! Code that the kernel programs and the agent share.
//!
//! The crate is `no_std`, has no dependencies and no `unsafe`. The same functions run on a kernel context (through
//! [`frame::Frame`] and [`frame::Octets`]) and on a slice, so that userspace tests cover the code of the kernel
//! programs.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod acs;
pub mod classify;
pub mod config;
pub mod connreq;
pub mod counter;
pub mod dhcp4;
pub mod event;
pub mod frame;
pub mod headers;
pub mod identity;
pub mod insert;
pub mod stun;
pub mod words;
