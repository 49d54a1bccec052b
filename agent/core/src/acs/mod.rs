//! The ACS side of TR-111: where each CPE is, and whether a device is behind the gateway that it names (TR-111 1.2.3, 2.2.2).
//!
//! | type | is |
//! | --- | --- |
//! | [`Cpe`] | one CPE: its [`Credentials`], which an operator provisioned, and its [`State`] |
//! | [`State`] | what was learned: bindings, reports, the last timestamp |
//! | [`Registry`] | all of them, found by STUNUsername |
//! | [`Settings`] | what an operator decides, and the first half of the STUN server: one datagram in, its [`Outcome`] out |
//! | [`Server`] | the second half: requests that are signed, or name a CPE |
//! | [`Accepted`] | a signed request that counts as soon as a store remembers its [`Fingerprint`] |
//! | [`SourceLimit`] | how much one source may send |
//! | [`ReferenceClock`] | Unix time, as far as the system's clock can be believed |
//! | [`Record`] | a CPE as a store that several servers share has it |
//! | [`Change`] | what a store has to keep of what happened to a registry |
//! | [`association::Associations`] | which gateway each device is behind, and what confirms it |

pub mod association;
mod change;
mod clock;
mod cpe;
mod limit;
pub mod lint;
mod merge;
mod registry;
mod request;
mod server;
mod signed;
#[cfg(test)]
mod tests;
mod verdict;

pub use change::Change;
pub use clock::{AHEAD, Reading, ReferenceClock};
pub use cpe::{Approach, Cpe, Credentials, Destination, Reported, Seen, State, Way};
pub use limit::SourceLimit;
pub use merge::{Author, Record, Stamp};
pub use registry::{Follower, Registry, Taken};
pub use request::{Challenge, Duplicates, Ends, First, Request, ResponseAddress, Settings};
pub use server::{Judged, Now, Server};
pub use signed::{Accepted, Fingerprint, GENERATION, Remembered};
pub use verdict::{Learned, Outcome, Verdict};
