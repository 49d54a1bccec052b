//! Tests of the STUN client of a CPE with a simulated NAT and a simulated STUN server (TR-111 2.2.1).

mod change;
mod discovery;
mod keepalive;
mod lifetime;
mod properties;
mod refusal;
mod sim;
mod told;
