//! The ACS side of TR-111: where each CPE is, and whether a device is behind the gateway that it names (TR-111 1.2.3, 2.2.2).
//!
//! | type | is |
//! | --- | --- |
//! | [`Cpe`] | one CPE: its [`Credentials`], which an operator provisioned, and its [`State`] |
//! | [`State`] | what was learned: bindings, reports, the last timestamp |
//! | [`Registry`] | all of them, found by STUNUsername |
//! | [`Change`] | what a store has to keep of what happened to a registry |
//! | [`association::Associations`] | which gateway each device is behind, and what confirms it |

pub mod association;
mod change;
mod cpe;
mod registry;
#[cfg(test)]
mod tests;

pub use change::Change;
pub use cpe::{Approach, Cpe, Credentials, Destination, Reported, Seen, State, Way};
pub use registry::{Registry, Taken};
