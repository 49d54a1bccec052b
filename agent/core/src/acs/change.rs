//! Changes of a registry, as a store has to write them.

use super::{Cpe, Reported, State};
use crate::{short::Short, time::UnixTime};

/// One change of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A CPE was added. The store refuses it if another server that shares the store added one of the same name before
    /// (STUN-21).
    Added(Box<Cpe>),
    /// Write the whole CPE: its credentials changed, or its record has to be written again.
    Put(Box<Cpe>),
    /// The binding of the CPE of this name changed.
    State(Short, Box<State>),
    /// The CPE of this name reported its address to the ACS. Revision 0 means a new report; another revision means that
    /// the store lost the report which had it.
    Reported(Short, Box<Reported>),
    /// The CPE of this name was removed.
    Removed(Short),
    /// The association under this key changed; `None` if it was removed.
    Association(Short, Option<Box<[u8]>>),
    /// The last `ts` of the CPE of this name was reset (T-54).
    TimestampReset(Short),
    /// The last `ts` of all CPEs was reset.
    TimestampsReset,
    /// A new time that is known to be correct ([`super::ReferenceClock`]).
    GoodTime(UnixTime),
}

impl Change {
    /// The name of the CPE, or the key of the association; `None` for changes that concern all CPEs.
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

    /// The highest revision on which the change is based; 0 if there is none.
    pub fn revision(&self) -> u64 {
        let of = |state: &State| state.revision.max(state.reported.as_ref().map_or(0, |told| told.revision));
        match self {
            Self::Added(cpe) | Self::Put(cpe) => of(&cpe.state),
            Self::State(_, state) => of(state),
            Self::Reported(_, told) => told.revision,
            _ => 0,
        }
    }

    /// The name of the CPE whose record changes; `None` if no CPE record changes.
    pub fn record(&self) -> Option<&Short> {
        match self {
            Self::Added(_) | Self::Put(_) | Self::State(..) | Self::Reported(..) | Self::Removed(_) => self.name(),
            _ => None,
        }
    }
}
