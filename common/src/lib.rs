//! What the kernel programs and the agent of tr111 share.
//!
//! Everything here is `no_std`, without dependencies and without `unsafe`. The same functions run over a kernel
//! context (through [`frame::Frame`] and [`frame::Octets`]) and over a slice, so that one corpus of frames judges both.
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
