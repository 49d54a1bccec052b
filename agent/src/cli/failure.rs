//! How a command fails: one line on stderr with a hint, status 1 for failed and 2 for used wrongly.

use std::{fmt, io, process::ExitCode};

use crate::{config, control::ClientError};

/// Why a command did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// It failed.
    Failed {
        /// What happened.
        message: String,
        /// What helps.
        hint: Option<String>,
    },
    /// It was used wrongly.
    Usage(String),
    /// Whoever read the output has had enough, as `head` does.
    BrokenPipe,
}

impl Failure {
    /// It failed, and nothing is known that helps.
    pub(super) fn failed(message: impl fmt::Display) -> Self {
        Self::Failed { message: message.to_string(), hint: None }
    }

    /// It failed, and this helps.
    pub(super) fn with_hint(message: impl fmt::Display, hint: impl fmt::Display) -> Self {
        Self::Failed { message: message.to_string(), hint: Some(hint.to_string()) }
    }

    /// Prints it, and gives the status.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::SUCCESS,
            Self::Failed { .. } => {
                eprintln!("error: {self}");
                ExitCode::from(1)
            }
            Self::Usage(_) => {
                eprintln!("error: {self}");
                ExitCode::from(2)
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { message, hint: Some(hint) } => write!(f, "{message}; {hint}"),
            Self::Failed { message, hint: None } | Self::Usage(message) => write!(f, "{message}"),
            Self::BrokenPipe => write!(f, "broken pipe"),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::NoAgent { .. } => "start it with \"tr111 run gateway\", or name its socket with --control",
            ClientError::NotPermitted { .. } => "be root, or a member of the group tr111",
            ClientError::Closed => "see the agent's log for the reason",
            ClientError::Silent => "try again, or see the agent's log",
            _ => return Self::failed(error),
        };
        Self::with_hint(error, hint)
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::failed(format_args!("cannot write the output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}
