//! What happens to a registry, for those who keep it.

use super::{Cpe, State};
use crate::short::Short;

/// One change of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A CPE came, or has other credentials.
    Put(Box<Cpe>),
    /// Something was learned of the CPE of this name.
    State(Short, Box<State>),
    /// The CPE of this name went.
    Removed(Short),
}

impl Change {
    /// Whom it is about.
    pub fn name(&self) -> &Short {
        match self {
            Self::Put(cpe) => &cpe.name,
            Self::State(name, _) | Self::Removed(name) => name,
        }
    }
}
