//! What the stories on real packets are told with: network namespaces, real DHCP servers and clients, hand-made frames,
//! a fast DHCP server, and the agent with everything that it asks for.
//!
//! Each story owns its namespaces, directories, sockets and processes, and all of them go when it ends, also when it
//! fails. A story needs root and its tools; without them it fails and says what is missing, it is never skipped.
#![forbid(unsafe_code)]

pub mod acs;
pub mod agent;
pub mod bench;
pub mod client;
pub mod clock;
pub mod corpus;
pub mod cpe;
pub mod crowd;
pub mod demo;
pub mod frame;
pub mod host;
pub mod lab;
pub mod line_rate;
pub mod lock;
pub mod metrics;
pub mod namespace;
pub mod nat;
pub mod process;
pub mod programs;
pub mod redis;
pub mod responder;
pub mod testing;
pub mod tshark;
pub mod vectors;
pub mod wait;
pub mod wire;
