//! The client's end of the control socket. Blocking: a command does one thing at a time.

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

/// Where the agent listens unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/run/tr111/control.sock";

/// How long the agent may take over an answer; a little longer than it gives itself.
const ANSWER: Duration = Duration::from_secs(15);

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no agent answers on {} (not running?)", path.display())]
    NoAgent {
        /// The socket.
        path: PathBuf,
    },
    /// This user may not connect.
    #[error("permission denied on {}", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot talk to the agent: {0}")]
    System(#[from] io::Error),
    /// The agent went away in the middle.
    #[error("the agent closed the connection")]
    Closed,
    /// It did not answer in time.
    #[error("the agent does not answer")]
    Silent,
    /// What it says is no message.
    #[error("the agent sent {0}")]
    Frame(#[from] FrameError),
    /// It says no.
    #[error("{reason}")]
    Refused {
        /// Why, as a class.
        refusal: Refusal,
        /// Why, in words.
        reason: String,
    },
    /// It answers something else.
    #[error("the agent answered out of turn")]
    OutOfTurn,
}

impl ClientError {
    /// The agent is not there, or is not any more: trying again may help.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoAgent { .. } | Self::Closed | Self::Silent | Self::System(_))
    }
}

/// An open conversation.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
}

impl Client {
    /// Connects, and agrees on the version.
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

    /// Asks, and takes the first message of the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let sent = self.socket.write_all(&frame::encode(request)?);
        // An agent that refuses the client says why and closes, perhaps before it reads: its words come first.
        match (self.next_reply(), sent) {
            (Err(ClientError::Closed), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            (reply, _) => reply,
        }
    }

    /// The next message of an answer that has several.
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

    /// From now on waits for messages as long as it takes.
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
