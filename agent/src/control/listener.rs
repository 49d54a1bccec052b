//! Making the control socket.

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

/// Why the control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("an agent already answers on {}; stop it, or give this one another --control", path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} exists and is no socket; remove it, or give another --control", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {what} {}: {source}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The control socket, removed again when this is dropped.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: UnixListener,
    path: PathBuf,
    /// Device and inode, so that never another agent's socket is removed.
    file: (u64, u64),
}

impl Listener {
    /// Listens on `path`. Nobody but root, this user and the group can connect at any moment: the mode is narrow
    /// before the socket exists.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what| move |source| BindError::System { what, path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            let builder = DirBuilder::new().recursive(true).mode(0o755).create(directory);
            builder.map_err(|source| BindError::System {
                what: "make the directory",
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
            // Without the right to give files away, the socket stays with this user alone.
            if let Err(error) = chown(path, None, Some(group)) {
                tracing::warn!(%error, group = peer::GROUP, "the control socket stays with this user's group");
            }
        }
        let metadata = fs::symlink_metadata(path).map_err(failed("look at"))?;
        Ok(Self { socket, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file);
        if same && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the control socket stays behind");
        }
    }
}

/// Removes a socket on which nobody listens.
fn clear(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NotASocket { path: path.to_owned() }),
        Err(source) => return Err(BindError::System { what: "look at", path: path.to_owned(), source }),
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| BindError::System { what: "remove the stale socket", path: path.to_owned(), source }),
        Err(source) => Err(BindError::System { what: "ask who is on", path: path.to_owned(), source }),
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
