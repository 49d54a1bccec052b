//! Configuration: a TOML file, overridden by flags.
//!
//! [`key::KEYS`] is the table of keys. [`Values`] holds the value of each key and the source of the value. [`Gateway`],
//! [`Device`] and [`Acs`] are the configurations of the roles.

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

/// An invalid configuration. The text is one line that starts with the place of the error, if there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// Path of the file.
        file: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: {reason}", file.display())]
    Syntax {
        /// Path of the file.
        file: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Message of the parser.
        reason: String,
    },
    /// The key or the section does not exist.
    #[error("{0}")]
    UnknownKey(UnknownKey),
    /// The value is not allowed for its key.
    #[error("{origin}: {name} in [{section}]: {reason}")]
    WrongValue {
        /// Source of the value.
        origin: Origin,
        /// Name of the key.
        name: &'static str,
        /// Section of the key.
        section: &'static str,
        /// What was expected.
        reason: String,
    },
    /// The role needs a key that has no value.
    #[error("{name} in [{section}] is missing: give {flag}, or set it in the file that --config names")]
    Missing {
        /// Name of the key.
        name: &'static str,
        /// Section of the key.
        section: &'static str,
        /// The flag that sets the key, with the name of its value.
        flag: &'static str,
    },
    /// The key cannot be changed at run time. The field is its full name.
    #[error("{0} takes effect only at a start: set it in the file and restart the agent")]
    NotLive(String),
}

/// An unknown key and the existing key that is most similar.
#[derive(Debug)]
pub struct UnknownKey {
    /// Place of the unknown key.
    pub origin: Origin,
    /// Name of the unknown key.
    pub name: String,
    /// Section of the unknown key. Empty at the top level.
    pub section: String,
    /// The most similar key or section, formatted for the message.
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
