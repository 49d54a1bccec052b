//! The ACS side of TR-111: the address of each CPE, and the gateway of each device (TR-111 1.2.3, 2.2.2).
//!
//! | type | purpose |
//! | --- | --- |
//! | [`Cpe`] | one CPE: its provisioned [`Credentials`] and its [`State`] |
//! | [`State`] | what the ACS learned: bindings, reports, the last `ts` |
//! | [`Registry`] | all CPEs, by STUNUsername |
//! | [`Settings`] | the operator's settings; handles the requests that need no registry, into an [`Outcome`] |
//! | [`Server`] | the part of the STUN server that needs the registry: requests that are signed or name a CPE |
//! | [`Accepted`] | a signed request that takes effect once a store has its [`Fingerprint`] |
//! | [`SourceLimit`] | rate limit per source address |
//! | [`ReferenceClock`] | Unix time, limited to plausible values |
//! | [`Record`] | a CPE in a store that several servers share |
//! | [`Change`] | a change of the registry that a store has to write |
//! | [`association::Associations`] | the gateway of each device, and whether its table confirms it |

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
