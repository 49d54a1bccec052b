//! An ACS, and the CPEs that it knows.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::Result;

use crate::{
    agent::{Agent, Files},
    cpe::{PASSWORD, STUN_PASSWORD, USERNAME},
    namespace::Namespace,
};

/// Starts `tr111 run acs` in `namespace`, with `keys` in `[acs]`; what it writes goes below `directory/name`.
///
/// # Errors
/// As [`Agent::start_command`].
pub fn start<'a>(namespace: &'a Namespace, directory: &Path, name: &str, keys: &str) -> Result<Agent<'a>> {
    start_with(namespace, Files::new(directory, name)?, directory, keys)
}

/// The same with paths of an earlier one.
///
/// # Errors
/// As [`Agent::start_command`].
pub fn start_with<'a>(namespace: &'a Namespace, files: Files, directory: &Path, keys: &str) -> Result<Agent<'a>> {
    let mut command = command(namespace, &files, directory, keys)?;
    Agent::start_command(namespace, files, &mut command, directory)
}

/// The command that starts it.
///
/// # Errors
/// As [`Files::run_acs`].
pub fn command(namespace: &Namespace, files: &Files, directory: &Path, keys: &str) -> Result<Command> {
    let mut text = String::from("[acs]\n");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{keys}");
    let config = directory.join("acs.toml");
    std::fs::write(&config, text)?;
    files.run_acs(namespace, &["--config", &config.display().to_string()])
}

/// Adds the CPE of [`crate::cpe`], with both passwords.
///
/// # Errors
/// The ACS refuses.
pub fn add_cpe(acs: &Agent<'_>, directory: &Path) -> Result<()> {
    add(acs, directory, USERNAME, Some(STUN_PASSWORD))
}

/// Adds a CPE, with STUNPassword or without.
///
/// # Errors
/// The ACS refuses.
pub fn add(acs: &Agent<'_>, directory: &Path, username: &str, stun_password: Option<&str>) -> Result<()> {
    let password = write(directory, "acs-password", PASSWORD)?;
    let mut arguments = vec!["cpe", "add", "--stun-username", username];
    arguments.extend(["--connection-request-username", USERNAME, "--connection-request-password-file", &password]);
    let stun = stun_password.map(|text| write(directory, "acs-stun-password", text)).transpose()?;
    if let Some(stun) = &stun {
        arguments.extend(["--stun-password-file", stun]);
    }
    acs.print(&arguments).map(drop)
}

fn write(directory: &Path, name: &str, text: &str) -> Result<String> {
    let path = directory.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

/// Adds CPEs of these names, all with the same passwords, from a file. STUNPassword may be empty.
///
/// # Errors
/// The ACS refuses.
pub fn import(acs: &Agent<'_>, directory: &Path, names: &[String], stun_password: &str) -> Result<()> {
    let mut text =
        String::from("stun_username,stun_password,connection_request_username,connection_request_password\n");
    for name in names {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name},{stun_password},{name},{PASSWORD}");
    }
    let file = write(directory, "cpes.csv", &text)?;
    acs.print(&["cpe", "import", "--allow-empty", &file]).map(drop)
}
