//! `tr111 detach`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    net::if_::if_nameindex,
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use serde::Serialize;

use super::{Failure, Outcome, Reach, output};
use crate::{
    config::{Agent, Values},
    control::{
        Client, ClientError,
        message::{Reply, Request, Status},
    },
    dataplane,
    nat::{self, TableError},
};

/// Arguments of `tr111 detach`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory in a bpffs that the agent works with [default: the running agent's, else /sys/fs/bpf/tr111]
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Detached {
    /// Process of the agent that ended.
    agent: Option<u32>,
    /// Interfaces that have no programs any more.
    interfaces: Vec<String>,
    /// What was pinned.
    pins: Vec<PathBuf>,
    /// The table of nft was there, and is no more.
    nft_table: bool,
}

pub(super) fn run(args: &Args, reach: &Reach, json: bool) -> Outcome {
    let mut detached = Detached { agent: None, interfaces: Vec::new(), pins: Vec::new(), nft_table: false };
    let mut pin_dir = args.pin_dir.clone();
    if let Some(status) = stop_agent(args, reach)? {
        detached.agent = Some(status.pid);
        detached.interfaces = status.interfaces.into_iter().map(|interface| interface.name).collect();
        pin_dir = Some(status.pin_dir);
    }
    let pin_dir = pin_dir.unwrap_or_else(|| Agent::from(&Values::default()).pin_dir);
    if !dataplane::has_tcx() {
        detached.interfaces.extend(take_filters_off(&pin_dir)?);
    }
    unpin(&pin_dir, &mut detached.pins)?;
    detached.nft_table = match nat::remove() {
        Ok(removed) => removed,
        Err(TableError::NoNft) => false,
        Err(error) => return Err(Failure::with_hint(error, "`nft delete table inet tr111` as root does it by hand")),
    };
    if json { output::write_json(&detached) } else { output::write(describe(&detached).as_bytes()) }
}

/// Takes off the filters of kernels before 6.6, which no pin holds: those of the interfaces that `pin_dir` names; without
/// such a directory, those of all interfaces.
fn take_filters_off(pin_dir: &Path) -> Result<Vec<String>, Failure> {
    let interfaces: Vec<String> = if let Ok(entries) = fs::read_dir(pin_dir.join("links")) {
        entries.flatten().filter_map(|entry| dataplane::interface_of(&entry.path())).collect()
    } else {
        let all = if_nameindex().map_err(Failure::failed)?;
        all.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect()
    };
    let mut taken = Vec::new();
    for interface in interfaces {
        let off = dataplane::detach_filters(&interface);
        if off.map_err(|error| Failure::with_hint(format_args!("{interface}: {error}"), "be root"))? {
            taken.push(interface);
        }
    }
    Ok(taken)
}

/// Ends the agent on the control socket, unless it works with another directory than the one that was named.
fn stop_agent(args: &Args, reach: &Reach) -> Result<Option<Status>, Failure> {
    let mut client = match Client::connect(&reach.control) {
        Err(ClientError::NoAgent { .. }) => return Ok(None),
        other => other?,
    };
    let Reply::Status(status) = client.ask(&Request::Status)? else { return Err(ClientError::OutOfTurn.into()) };
    if args.pin_dir.as_ref().is_some_and(|named| *named != status.pin_dir) {
        return Ok(None);
    }
    match client.ask(&Request::Detach { pin_dir: Some(status.pin_dir.clone()) })? {
        Reply::Done => Ok(Some(*status)),
        _ => Err(ClientError::OutOfTurn.into()),
    }
}

/// Removes what is pinned in `directory`, and the directory. Only in a bpffs: a mistyped path must not cost files.
fn unpin(directory: &Path, removed: &mut Vec<PathBuf>) -> Outcome {
    let failed = |source: io::Error| {
        Failure::with_hint(format_args!("cannot unpin {}: {source}", directory.display()), "be root")
    };
    match statfs(directory) {
        Err(nix::Error::ENOENT) => return Ok(()),
        Err(error) => return Err(failed(error.into())),
        Ok(system) if system.filesystem_type() != BPF_FS_MAGIC => {
            return Err(Failure::with_hint(
                format_args!("{} is not in a bpffs, so nothing is removed there", directory.display()),
                "give the agent's directory with --pin-dir",
            ));
        }
        Ok(_) => {}
    }
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            unpin(&path, removed)?;
        } else {
            fs::remove_file(&path).map_err(failed)?;
            removed.push(path);
        }
    }
    fs::remove_dir(directory).map_err(failed)
}

fn describe(detached: &Detached) -> String {
    let mut lines = Vec::new();
    let interfaces = detached.interfaces.join(", ");
    match detached.agent {
        Some(pid) => lines.push(format!("agent {pid} ended, programs are off {interfaces}")),
        None if !interfaces.is_empty() => lines.push(format!("programs are off {interfaces}")),
        None => {}
    }
    if !detached.pins.is_empty() {
        lines.push(format!("{} pins removed", detached.pins.len()));
    }
    if detached.nft_table {
        lines.push("nft table inet tr111 removed".to_owned());
    }
    if lines.is_empty() {
        lines.push("nothing to take off: no agent works here and nothing is pinned".to_owned());
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_outside_a_bpffs_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("precious");
        fs::write(&file, "data").expect("a file");
        let mut removed = Vec::new();
        assert!(unpin(directory.path(), &mut removed).is_err());
        assert!(file.exists() && removed.is_empty());
    }

    #[test]
    fn a_directory_that_is_not_there_is_nothing_to_take_off() {
        unpin(Path::new("/nonexistent/tr111"), &mut Vec::new()).expect("nothing to do");
    }
}
