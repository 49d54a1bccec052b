//! The protocol cores of tr111, without any input or output of their own.
//!
//! Nothing here opens a socket, reads a clock or draws a random number. Whoever owns a core hands it inputs together
//! with the time, and carries out what it puts out: `handle(now, input)`, `poll_output()`, `next_deadline()`.
//!
//! * [`acs`]: where each CPE is, and whether it is behind the gateway that it names (TR-111 1.2.3, 2.2.2).
//! * [`arp`]: who has an address on the link (RFC 826, RFC 5227).
//! * [`identity`]: Device and Gateway Identity in DHCP option 125 (TR-111 1.2.5).
//! * [`connreq`]: UDP Connection Requests (TR-111 2.2.1.4, 2.2.2.3), received and sent.
//! * [`dhcp`]: DHCP messages, read from frames and built into frames.
//! * [`association`]: from DHCP exchanges to the ManageableDevice table (TR-111 1.2.1).
//! * [`binding`]: the NAT binding on which the CPE hears UDP Connection Requests (TR-111 2.2.1).
//! * [`budget`]: how often something may be done in somebody's name.
//! * [`device`]: the device's side of the exchange, and what it learns of its gateway (TR-111 1.2.2).
//! * [`digest`]: HTTP digest authentication of TCP Connection Requests (TR-069 3.2.2).
//! * [`model`]: the data model (TR-111 1.2.6) by path, with TR-069's types and faults.
//! * [`notification`]: notification attributes, and what changes tell the ACS (TR-111 1.2.1).
//! * [`secret`]: passwords as keys of HMAC-SHA1.
//! * [`stun`]: classic STUN (RFC 3489) with the attributes of TR-111 2.2.1.3.
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
