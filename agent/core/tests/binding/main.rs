//! The CPE's binding against a NAT and a STUN server that do what the test says (TR-111 2.2.1).

mod change;
mod discovery;
mod keepalive;
mod lifetime;
mod properties;
mod refusal;
mod sim;
mod told;
