//! Running other programs, and where things are.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn workspace_root() -> PathBuf {
    // cargo sets it when it runs us; the compiled-in one serves a binary that is started by hand.
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).parent().expect("xtask is a member of the workspace").to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace_root().join(dir),
        None => workspace_root().join("target"),
    }
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo() -> Command {
    command(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
}

/// A command in the workspace, which also finds the tools that Debian keeps in `/usr/sbin`.
///
/// What `cargo run` says about xtask itself is withheld: build scripts that watch such a variable would be run again by
/// each change between `cargo xtask` and plain cargo.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir(workspace_root());
    if let Ok(path) = env::join_paths(search_path()) {
        command.env("PATH", path);
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to the end with our terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shell_line(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs to the end and returns what it printed; on failure the error ends with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shell_line(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it, for messages.
pub(crate) fn shell_line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let arguments = command.get_args().map(|argument| format!(" {}", argument.to_string_lossy()));
    program.into_owned() + &arguments.collect::<String>()
}

/// Finds a program as a shell of root would.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_all(program).next()
}

/// Every program of that name, the one that a shell would run first.
pub(crate) fn find_all(program: &str) -> impl Iterator<Item = PathBuf> {
    let executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|entry| entry.is_file() && entry.permissions().mode() & 0o111 != 0)
    };
    search_path().into_iter().map(move |dir| dir.join(program)).filter(executable)
}

/// `PATH`, then the system directories and cargo's own.
fn search_path() -> Vec<PathBuf> {
    let mut path: Vec<PathBuf> = env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];
    for dir in system.map(PathBuf::from).into_iter().chain([cargo_home().join("bin")]) {
        if !path.contains(&dir) {
            path.push(dir);
        }
    }
    path
}

/// Where `cargo install` puts programs, without the trailing `bin`.
pub(crate) fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

/// Whether this process may install packages and make namespaces.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
