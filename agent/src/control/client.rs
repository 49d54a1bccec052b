//! The client side of the control socket. It blocks, because a command does one thing at a time.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    frame::{self, FrameError},
    message::{self, Refusal, Reply, Request},
};

/// Default path of the control socket.
pub const DEFAULT_PATH: &str = "/run/tr111/control.sock";

/// Time limit for a reply. Longer than the agent's own limit, [`super::Limits::answer`].
const ANSWER: Duration = Duration::from_secs(15);

/// Failure of a request to the agent.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens on the socket.
    #[error("no agent answers on {} (not running?)", path.display())]
    NoAgent {
        /// Path of the socket.
        path: PathBuf,
    },
    /// This user lacks the permission to connect.
    #[error("permission denied on {}", path.display())]
    NotPermitted {
        /// Path of the socket.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot talk to the agent: {0}")]
    System(#[from] io::Error),
    /// The agent closed the connection before it replied.
    #[error("the agent closed the connection")]
    Closed,
    /// The agent did not reply in time.
    #[error("the agent does not answer")]
    Silent,
    /// A reply is malformed, or a request is too long.
    #[error("the agent sent {0}")]
    Frame(#[from] FrameError),
    /// The agent refused the request.
    #[error("{reason}")]
    Refused {
        /// Class of the reason.
        refusal: Refusal,
        /// Reason as text for the user.
        reason: String,
    },
    /// The reply does not match the request.
    #[error("the agent sent an unexpected reply")]
    OutOfTurn,
}

impl ClientError {
    /// Whether the agent is not running or has stopped, so that a later attempt may succeed.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoAgent { .. } | Self::Closed | Self::Silent | Self::System(_))
    }
}

/// An open connection to the agent.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
}

impl Client {
    /// Connects and checks that the agent speaks the same [`message::VERSION`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let socket = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoAgent { path: path.to_owned() }
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path: path.to_owned() },
            _ => ClientError::System(error),
        })?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.set_write_timeout(Some(ANSWER))?;
        let mut client = Self { socket };
        match client.ask(&Request::Hello { version: message::VERSION })? {
            Reply::Hello { .. } => Ok(client),
            _ => Err(ClientError::OutOfTurn),
        }
    }

    /// Sends a request and returns the first reply.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let sent = self.socket.write_all(&frame::encode(request)?);
        // An agent that refuses the client sends the reason and closes, possibly before it reads the request. The
        // reason is more useful than the error of the write.
        match (self.next_reply(), sent) {
            (Err(ClientError::Closed), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            (reply, _) => reply,
        }
    }

    /// Returns the next reply to a request that has several.
    pub fn next_reply(&mut self) -> Result<Reply, ClientError> {
        let mut header = [0; frame::LENGTH_BYTES];
        self.read(&mut header)?;
        let mut body = vec![0; frame::length(header)?];
        self.read(&mut body)?;
        match frame::decode(&body)? {
            Reply::Refused { refusal, reason } => Err(ClientError::Refused { refusal, reason }),
            reply => Ok(reply),
        }
    }

    /// Removes the time limit for replies.
    pub fn be_patient(&mut self) -> Result<(), ClientError> {
        Ok(self.socket.set_read_timeout(None)?)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), ClientError> {
        self.socket.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ClientError::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent,
            _ => ClientError::System(error),
        })
    }
}
