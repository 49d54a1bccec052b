//! What happens to a registry, for those who keep it.

use super::{Cpe, Reported, State};
use crate::{short::Short, time::UnixTime};

/// One change of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A CPE came. Refused where several servers share a store and another one had it first (STUN-21).
    Added(Box<Cpe>),
    /// A CPE as it is: it has other credentials, or is to be there again.
    Put(Box<Cpe>),
    /// Something was learned of the binding of the CPE of this name.
    State(Short, Box<State>),
    /// The CPE of this name told its ACS where it is. Number 0: now; another one: a store lost what it had under that.
    Reported(Short, Box<Reported>),
    /// The CPE of this name went.
    Removed(Short),
    /// What is known of an association, under a key; nothing where it is no more.
    Association(Short, Option<Box<[u8]>>),
    /// The last `ts` of the CPE of this name is forgotten (T-54).
    TimestampReset(Short),
    /// The last `ts` of every CPE is forgotten.
    TimestampsReset,
    /// The last time that was known to be good ([`super::ReferenceClock`]).
    GoodTime(UnixTime),
}

impl Change {
    /// Whom it is about; nothing where it is about no one CPE or association.
    pub fn name(&self) -> Option<&Short> {
        match self {
            Self::Added(cpe) | Self::Put(cpe) => Some(&cpe.name),
            Self::State(name, _)
            | Self::Reported(name, _)
            | Self::Removed(name)
            | Self::Association(name, _)
            | Self::TimestampReset(name) => Some(name),
            Self::TimestampsReset | Self::GoodTime(_) => None,
        }
    }

    /// The highest number that it is based on; 0 where there is none.
    pub fn revision(&self) -> u64 {
        let of = |state: &State| state.revision.max(state.reported.as_ref().map_or(0, |told| told.revision));
        match self {
            Self::Added(cpe) | Self::Put(cpe) => of(&cpe.state),
            Self::State(_, state) => of(state),
            Self::Reported(_, told) => told.revision,
            _ => 0,
        }
    }

    /// The record of a CPE that it changes; nothing where it changes none.
    pub fn record(&self) -> Option<&Short> {
        match self {
            Self::Added(_) | Self::Put(_) | Self::State(..) | Self::Reported(..) | Self::Removed(_) => self.name(),
            _ => None,
        }
    }
}
