//! What happens to a registry, for those who keep it.

use super::{Cpe, State};
use crate::short::Short;

/// One change of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A CPE came. Refused where several servers share a store and another one had it first (STUN-21).
    Added(Box<Cpe>),
    /// A CPE as it is: it has other credentials, or is to be there again.
    Put(Box<Cpe>),
    /// Something was learned of the CPE of this name.
    State(Short, Box<State>),
    /// The CPE of this name went.
    Removed(Short),
    /// What is known of an association, under a key; nothing where it is no more.
    Association(Short, Option<Box<[u8]>>),
}

impl Change {
    /// Whom it is about.
    pub fn name(&self) -> &Short {
        match self {
            Self::Added(cpe) | Self::Put(cpe) => &cpe.name,
            Self::State(name, _) | Self::Removed(name) | Self::Association(name, _) => name,
        }
    }
}
