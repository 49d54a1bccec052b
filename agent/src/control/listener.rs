//! Creation of the control socket.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, umask},
    unistd::chown,
};
use tokio::net::UnixListener;

use super::peer;

/// The control socket cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A process listens on the path already.
    #[error("an agent already answers on {}; stop it, or give this one another --control", path.display())]
    Busy {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The path exists and is not a socket.
    #[error("{} exists and is not a socket; remove it, or give another --control", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {what} {}: {source}", path.display())]
    System {
        /// The failed action.
        what: &'static str,
        /// The path that the action was applied to.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

/// The control socket. Dropping the listener removes it.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket, so that the socket of another agent is never removed.
    file: (u64, u64),
}

impl Listener {
    /// Listens on `path` and creates its directory. The umask is set before the socket is created, so that at no time
    /// can anybody but root, this user and the group connect.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what| move |source| BindError::System { what, path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            let builder = DirBuilder::new().recursive(true).mode(0o755).create(directory);
            builder.map_err(|source| BindError::System {
                what: "create the directory",
                path: directory.to_owned(),
                source,
            })?;
        }
        clear(path)?;
        let before = umask(Mode::from_bits_truncate(0o117));
        let bound = UnixListener::bind(path);
        umask(before);
        let socket = bound.map_err(failed("listen on"))?;
        if let Some(group) = peer::group() {
            // A process that may not change the group of a file keeps the socket for its own user and group.
            if let Err(error) = chown(path, None, Some(group)) {
                tracing::warn!(%error, group = peer::GROUP, "cannot change the group of the control socket");
            }
        }
        let metadata = fs::symlink_metadata(path).map_err(failed("read the metadata of"))?;
        Ok(Self { socket, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file);
        if same && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "cannot remove the control socket");
        }
    }
}

/// Removes a stale socket, on which no process listens.
fn clear(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NotASocket { path: path.to_owned() }),
        Err(source) => return Err(BindError::System { what: "read the metadata of", path: path.to_owned(), source }),
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| BindError::System { what: "remove the stale socket", path: path.to_owned(), source }),
        Err(source) => Err(BindError::System { what: "connect to", path: path.to_owned(), source }),
        Ok(_) => Err(BindError::Busy { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_user_and_group_only_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("run/control.sock");
        let listener = Listener::bind(&path).expect("a new socket");
        let mode = fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that nobody listens on"));
        assert!(path.exists());
        let listener = Listener::bind(&path).expect("in place of the stale one");
        assert!(matches!(Listener::bind(&path), Err(BindError::Busy { .. })));
        assert!(path.exists(), "the first keeps its socket");
        drop(listener);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        fs::write(&path, "data").expect("a file");
        assert!(matches!(Listener::bind(&path), Err(BindError::NotASocket { .. })));
        assert_eq!(fs::read(&path).expect("still there"), b"data");
    }
}
