//! `tr111 detach`

use std::path::{Path, PathBuf};

use nix::net::if_::if_nameindex;
use serde::Serialize;

use super::{Failure, Outcome, Reach, output};
use crate::{
    config::{Agent, Values},
    control::{
        Client, ClientError,
        message::{Reply, Request, Status},
    },
    dataplane::{self, Error, Unpinned},
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
    /// Where agents of other network namespaces pin, which stays.
    other_namespaces: Vec<PathBuf>,
    /// The table of nft was there, and is no more.
    nft_table: bool,
    /// The gateway that has the table of nft, which stays.
    nft_table_owner: Option<String>,
}

pub(super) fn run(args: &Args, reach: &Reach, json: bool) -> Outcome {
    let mut detached = Detached {
        agent: None,
        interfaces: Vec::new(),
        pins: Vec::new(),
        other_namespaces: Vec::new(),
        nft_table: false,
        nft_table_owner: None,
    };
    let mut pin_dir = args.pin_dir.clone();
    if let Some(status) = stop_agent(args, reach)? {
        detached.agent = Some(status.pid);
        detached.interfaces = status.interfaces.into_iter().map(|interface| interface.name).collect();
        pin_dir = Some(status.pin_dir);
    }
    let pin_dir = pin_dir.unwrap_or_else(|| Agent::from(&Values::default()).pin_dir);
    // An agent that was stopped took its own off.
    if detached.agent.is_none() && !dataplane::has_tcx() {
        detached.interfaces.extend(take_filters_off(&pin_dir, args.pin_dir.is_some())?);
    }
    let Unpinned { removed, left } = unpin(&pin_dir)?;
    (detached.pins, detached.other_namespaces) = (removed, left);
    detached.nft_table = match nat::remove() {
        Ok(removed) => removed,
        Err(TableError::NoNft) => false,
        Err(TableError::Owned(owner)) => {
            detached.nft_table_owner = Some(owner.to_string());
            false
        }
        Err(error) => return Err(Failure::with_hint(error, "`nft delete table inet tr111` as root does it by hand")),
    };
    if json { output::write_json(&detached) } else { output::write(describe(&detached).as_bytes()) }
}

/// Takes off the filters of kernels before 6.6, which no pin holds: those of the interfaces that `pin_dir` names. Without
/// such a directory nothing says whose a filter is: it takes off those of all interfaces, unless the user named the
/// directory, because another gateway may have its own elsewhere.
fn take_filters_off(pin_dir: &Path, is_named: bool) -> Result<Vec<String>, Failure> {
    let interfaces: Vec<String> = if let Some(interfaces) = dataplane::pinned_interfaces(pin_dir) {
        interfaces
    } else if is_named {
        Vec::new()
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

/// Removes what agents of this network namespace pinned below `directory`, and of namespaces that have ended.
fn unpin(directory: &Path) -> Result<Unpinned, Failure> {
    dataplane::unpin(directory).map_err(|error| {
        let hint = match error {
            Error::NoBpffs(_) => "give the agent's directory with --pin-dir",
            Error::PinsTaken(_) => "name its socket with --control",
            _ => "be root",
        };
        Failure::with_hint(error, hint)
    })
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
    for directory in &detached.other_namespaces {
        let directory = directory.display();
        lines.push(format!(
            "{directory} stays: it belongs to another network namespace, where `tr111 detach` removes it"
        ));
    }
    if detached.nft_table {
        lines.push("nft table inet tr111 removed".to_owned());
    }
    if let Some(owner) = &detached.nft_table_owner {
        lines.push(format!("nft table inet tr111 stays: it belongs to another gateway, {owner}"));
    }
    if lines.is_empty() {
        lines.push("nothing to take off: no agent works here and nothing is pinned".to_owned());
    }
    lines.join("\n") + "\n"
}
