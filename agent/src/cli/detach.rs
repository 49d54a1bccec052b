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

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Pin directory of the agent [default: that of the running agent, else /sys/fs/bpf/tr111]
    #[arg(long, value_name = "DIR")]
    pin_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Detached {
    /// Process id of the agent that was stopped.
    agent: Option<u32>,
    /// Interfaces from which programs were detached.
    interfaces: Vec<String>,
    /// Pins that were removed.
    pins: Vec<PathBuf>,
    /// Pin directories of agents in other network namespaces. They are kept.
    other_namespaces: Vec<PathBuf>,
    /// Whether the nft table was removed.
    nft_table: bool,
    /// Another gateway that owns the nft table. The table is kept.
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
    // A stopped agent has detached its own filters.
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
        Err(error) => return Err(Failure::with_hint(error, "remove it as root with `nft delete table inet tr111`")),
    };
    if json { output::write_json(&detached) } else { output::write(describe(&detached).as_bytes()) }
}

/// Removes the TC filters of kernels before Linux 6.6, which have no pins, from the interfaces that `pin_dir` lists. If
/// the directory does not exist, the owner of a filter is unknown: filters are then removed from all interfaces, except
/// if the user named the directory, because the filters may belong to another gateway with another directory.
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

/// Stops the agent on the control socket, unless the user named another pin directory than the agent's.
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

/// Removes the pins below `directory` of agents in this network namespace and in namespaces that no longer exist.
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
        Some(pid) => lines.push(format!("agent {pid} stopped, programs detached from {interfaces}")),
        None if !interfaces.is_empty() => lines.push(format!("programs detached from {interfaces}")),
        None => {}
    }
    if !detached.pins.is_empty() {
        lines.push(format!("{} pins removed", detached.pins.len()));
    }
    for directory in &detached.other_namespaces {
        let directory = directory.display();
        lines.push(format!(
            "{directory} kept: it belongs to another network namespace; run `tr111 detach` there to remove it"
        ));
    }
    if detached.nft_table {
        lines.push("nft table inet tr111 removed".to_owned());
    }
    if let Some(owner) = &detached.nft_table_owner {
        lines.push(format!("nft table inet tr111 kept: it belongs to another gateway, {owner}"));
    }
    if lines.is_empty() {
        lines.push("nothing to detach: no agent is running and no programs are pinned".to_owned());
    }
    lines.join("\n") + "\n"
}
