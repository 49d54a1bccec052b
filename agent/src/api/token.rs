//! The token of the HTTP API: its file, and the creation of the first token.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown},
    path::{Path, PathBuf},
};

use nix::unistd::Gid;

use crate::{
    control::{GROUP, group},
    random, store,
};

/// Name of the token file in `state_dir`.
pub const FILE: &str = "api.token";
/// Minimum bytes of a token. 16 random bytes cannot be guessed.
const LEAST: usize = 16;

/// Location of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A file in `state_dir`, created at the first start.
    Made(PathBuf),
    /// A file of the operator.
    Named(PathBuf),
    /// No token: every local user has access.
    None,
}

/// The token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadToken {
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// The token is so short that it could be guessed.
    #[error("a token has at least {LEAST} bytes; create one with: openssl rand -hex 32")]
    Short,
    /// The token contains characters that an HTTP header cannot carry.
    #[error("a token is one line of printable ASCII characters without spaces")]
    Unprintable,
}

/// Reads the token in a file.
pub(super) fn read(file: &Path) -> Result<Box<[u8]>, BadToken> {
    let text = fs::read(file)?;
    // Editors add a newline at the end.
    let token = text.trim_ascii_end();
    if token.len() < LEAST {
        return Err(BadToken::Short);
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(BadToken::Unprintable);
    }
    if fs::metadata(file)?.mode() & 0o004 != 0 {
        tracing::warn!(file = %file.display(), "every user of this machine can read the token of the HTTP API");
    }
    Ok(token.into())
}

/// Creates the token and its directory, unless they exist. The inner result is that of writing the file.
///
/// # Errors
/// Other users may write to the directory.
pub(super) fn make(file: &Path) -> Result<io::Result<()>, store::Error> {
    make_for(file, group())
}

fn make_for(file: &Path, group: Option<Gid>) -> Result<io::Result<()>, store::Error> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let is_ours = store::create(directory)?;
    if file.exists() {
        return Ok(Ok(()));
    }
    let made = write(file, group);
    if made.is_ok() {
        tracing::info!(file = %file.display(), "token of the HTTP API created");
        if let Some(group) = group {
            let_in(directory, group, is_ours);
        }
    }
    Ok(made)
}

/// Writes a random token. The file is complete, or it does not exist.
fn write(file: &Path, group: Option<Gid>) -> io::Result<()> {
    let token = random::bytes::<32>()?.map(|byte| format!("{byte:02x}")).concat();
    let new = file.with_extension("token.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(open, "{token}")?;
    if let Some(group) = group {
        // Set the group before the mode, so that no other group can read the file at any time.
        let given = fchown(&open, None, Some(group.as_raw()));
        if let Err(error) = given.and_then(|()| open.set_permissions(Permissions::from_mode(0o640))) {
            tracing::warn!(%error, group = GROUP, "cannot make the token of the HTTP API readable for the group");
        }
    }
    open.sync_all()?;
    fs::rename(&new, file)?;
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Lets members of the group enter the directory but not list it, if `is_ours`: the agent created the directory.
/// Another directory is not changed.
fn let_in(directory: &Path, group: Gid, is_ours: bool) {
    let group = group.as_raw();
    let reach = || -> io::Result<bool> {
        if is_ours {
            chown(directory, None, Some(group))?;
            fs::set_permissions(directory, Permissions::from_mode(0o710))?;
        }
        let metadata = fs::metadata(directory)?;
        Ok(metadata.mode() & 0o001 != 0 || (metadata.gid() == group && metadata.mode() & 0o010 != 0))
    };
    if !reach().unwrap_or(false) {
        let directory = directory.display();
        tracing::warn!(
            "members of the group {GROUP} cannot read the token of the HTTP API; to permit it: \
            `chgrp {GROUP} {directory} && chmod g+x {directory}`"
        );
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::getegid;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it exists").mode() & 0o777
    }

    #[test]
    fn the_first_token_is_random_and_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = ["one", "other"].map(|name| {
            let file = directory.path().join(name).join(FILE);
            make_for(&file, None).expect("a directory").expect("written");
            assert_eq!((mode(&file), mode(file.parent().expect("a parent"))), (0o600, 0o700), "there is no group");
            let token = read(&file).expect("a token");
            make_for(&file, None).expect("a directory").expect("nothing to do");
            assert_eq!(read(&file).expect("a token"), token);
            token
        });
        assert!(tokens[0] != tokens[1] && tokens[0].len() == 64);
    }

    #[test]
    fn members_of_the_group_may_read_the_token_and_reach_it_in_a_directory_that_was_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("state").join(FILE);
        make_for(&file, Some(getegid())).expect("a directory").expect("written");
        assert_eq!((mode(&file), mode(file.parent().expect("a parent"))), (0o640, 0o710));
        // An existing directory and an existing token keep their modes.
        let kept = directory.path().join("kept");
        fs::create_dir(&kept).expect("a directory");
        fs::set_permissions(&kept, Permissions::from_mode(0o700)).expect("mine");
        let file = kept.join(FILE);
        make_for(&file, Some(getegid())).expect("a directory").expect("written");
        assert_eq!((mode(&file), mode(&kept)), (0o640, 0o700));
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("mine");
        make_for(&file, Some(getegid())).expect("a directory").expect("nothing to do");
        assert_eq!(mode(&file), 0o600);
    }
}
