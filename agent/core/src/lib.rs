//! The protocol cores of tr111. They perform no I/O.
//!
//! No code here opens a socket, reads a clock or draws a random number. The owner of a core passes inputs and the time,
//! and performs the outputs: `handle(now, input)`, `poll_output()`, `next_deadline()`.
//!
//! * [`acs`]: the ACS side: the address of each CPE, and the gateway of each device (TR-111 1.2.3, 2.2.2).
//! * [`arp`]: ARP messages for address probes (RFC 826, RFC 5227).
//! * [`identity`]: Device and Gateway Identity in DHCP option 125 (TR-111 1.2.5).
//! * [`connreq`]: UDP Connection Requests, sent and received (TR-111 2.2.1.4, 2.2.2.3).
//! * [`dhcp`]: DHCP messages, parsed from frames and built as frames.
//! * [`association`]: the ManageableDevice table, maintained from DHCP exchanges (TR-111 1.2.1).
//! * [`binding`]: the STUN client that keeps the NAT binding for UDP Connection Requests (TR-111 2.2.1).
//! * [`budget`]: token buckets by key.
//! * [`device`]: the device's DHCP exchange, and the gateway that it learns (TR-111 1.2.2).
//! * [`digest`]: HTTP digest authentication of TCP Connection Requests (TR-069 3.2.2).
//! * [`model`]: the data model (TR-111 1.2.6) by path, with the types and faults of TR-069.
//! * [`notification`]: notification attributes, and notifications of changes to the ACS (TR-111 1.2.1).
//! * [`secret`]: passwords as keys of HMAC-SHA1.
//! * [`short`]: byte strings that are stored in place if they are short.
//! * [`stun`]: STUN (RFC 3489) with the attributes of TR-111 2.2.1.3.
//! * [`time`]: the boottime clock as a type.
#![forbid(unsafe_code)]

pub mod acs;
pub mod arp;
pub mod association;
pub mod binding;
pub mod budget;
pub mod connreq;
pub mod device;
pub mod dhcp;
pub mod digest;
pub mod identity;
pub mod model;
pub mod notification;
pub mod secret;
pub mod short;
mod slab;
pub mod stun;
pub mod time;
