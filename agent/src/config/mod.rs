//! Configuration: a TOML file, overridden by flags. [`key::KEYS`] lists what exists; [`Values`] holds what was said,
//! and where; [`Gateway`] and [`Device`] are what
//! a role works with.

#[cfg(feature = "acs")]
mod acs;
mod cpe;
#[cfg(feature = "device")]
mod device;
mod form;
mod gateway;
pub mod key;
mod redis_address;
#[cfg(test)]
mod tests;
mod values;

use std::{io, path::PathBuf};

#[cfg(feature = "acs")]
pub use acs::{Acs, AcsKnobs};
pub use cpe::Cpe;
#[cfg(feature = "device")]
pub use device::{Device, DeviceMode};
pub use gateway::{Agent, Association, Gateway, ManagementServer, Traffic};
pub use redis_address::{RedisAddress, TlsFiles};
pub use values::{Origin, Values};

/// Why a configuration is refused. Each is one line, with the place that has to be mended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: {reason}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A key or a section that does not exist.
    #[error("{0}")]
    UnknownKey(UnknownKey),
    /// A value that its key does not take.
    #[error("{origin}: {name} in [{section}]: {reason}")]
    WrongValue {
        /// Where it stands.
        origin: Origin,
        /// Name of the key.
        name: &'static str,
        /// Section of the key.
        section: &'static str,
        /// What was expected.
        reason: String,
    },
    /// The role needs a value that nobody gave.
    #[error("{name} in [{section}] is missing: give {flag}, or set it in the file that --config names")]
    Missing {
        /// Name of the key.
        name: &'static str,
        /// Section of the key.
        section: &'static str,
        /// The flag that sets it, with its value's name.
        flag: &'static str,
    },
    /// A knob that only a start can change.
    #[error("{0} takes effect only at a start: set it in the file and restart the agent")]
    NotLive(String),
}

/// A key that does not exist, and the one that was probably meant.
#[derive(Debug)]
pub struct UnknownKey {
    /// Where it stands.
    pub origin: Origin,
    /// Its name.
    pub name: String,
    /// The section it stands in; empty at the top.
    pub section: String,
    /// The nearest key, ready to print.
    pub nearest: String,
}

impl std::fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { origin, name, section, nearest } = self;
        let name = name.escape_debug();
        write!(f, "{origin}: unknown key \"{name}\"")?;
        if !section.is_empty() {
            write!(f, " in [{section}]")?;
        }
        write!(f, "; did you mean {nearest}?")
    }
}
