//! The configuration of the ACS role.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZero,
    thread,
};

use tr111_core::acs::Approach;

use super::{Agent, Values};

const SECTION: &str = "acs";

/// Everything that `tr111 run acs` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acs {
    /// Addresses of the STUN server.
    pub listen: Vec<SocketAddrV4>,
    /// Threads that answer on each of them.
    pub threads: NonZero<usize>,
    /// The process.
    pub agent: Agent,
}

impl From<&Values> for Acs {
    fn from(values: &Values) -> Self {
        // Their form was checked when they were read.
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 3478);
        let cores = || thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let threads = usize::try_from(values.integer(SECTION, "threads")).ok().and_then(NonZero::new);
        Self {
            listen: values.texts(SECTION, "listen").iter().map(|text| text.parse().unwrap_or(any)).collect(),
            threads: threads.unwrap_or_else(cores),
            agent: values.into(),
        }
    }
}

/// The knobs of the ACS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcsKnobs {
    /// How bindings are learned.
    pub approach: Approach,
}

impl From<&Values> for AcsKnobs {
    fn from(values: &Values) -> Self {
        Self {
            approach: match values.text(SECTION, "approach") {
                "stun" => Approach::Stun,
                "notification" => Approach::Notification,
                _ => Approach::Both,
            },
        }
    }
}
