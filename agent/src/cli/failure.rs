//! Failure of a command: one line on stderr with a hint. The exit status is 1 for a failure and 2 for a usage error.

use std::{fmt, io, process::ExitCode};

use crate::{config, control::ClientError};

#[derive(Debug)]
pub(super) enum Failure {
    Failed {
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// The command line is wrong.
    Usage(String),
    /// The reader of the output closed the pipe, as `head` does. Not an error.
    BrokenPipe,
}

impl Failure {
    pub(super) fn failed(message: impl fmt::Display) -> Self {
        Self::Failed { message: message.to_string(), hint: None }
    }

    pub(super) fn with_hint(message: impl fmt::Display, hint: impl fmt::Display) -> Self {
        Self::Failed { message: message.to_string(), hint: Some(hint.to_string()) }
    }

    /// Prints the failure and returns the exit status.
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
            ClientError::NoAgent { .. } => {
                "start one, for example with \"tr111 run gateway\", or name its socket with --control"
            }
            ClientError::NotPermitted { .. } => "run this as root or as a member of the group tr111",
            ClientError::Closed => "see the agent's log for the reason",
            ClientError::Silent => "try again, or see the agent's log for the reason",
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
