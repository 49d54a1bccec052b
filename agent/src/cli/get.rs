//! `tr111 get`, `tr111 set`, `tr111 notify` and `tr111 ack`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tr111_core::model;

use super::{
    Failure, Outcome, Reach,
    output::{self, printable},
};
use crate::control::{
    ClientError,
    message::{Attribute, Parameter, Reply, Request},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Full path of a parameter, or a partial path that ends in a dot (InternetGatewayDevice.ManagementServer.)
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

#[derive(Serialize)]
struct Listing {
    parameters: Vec<Parameter>,
}

pub(super) fn run(args: Args, reach: &Reach, json: bool) -> Outcome {
    let mut client = reach.connect()?;
    let mut reply = client.ask(&Request::Get { paths: args.paths })?;
    let mut parameters = Vec::new();
    loop {
        match reply {
            Reply::Parameters { parameters: some, more } => {
                parameters.extend(some);
                if !more {
                    break;
                }
            }
            Reply::Fault { code, name, path } => return Err(fault(code, &name, &path)),
            _ => return Err(ClientError::OutOfTurn.into()),
        }
        reply = client.next_reply()?;
    }
    if json {
        return output::write_json(&Listing { parameters });
    }
    let mut text = String::new();
    for Parameter { name, value, .. } in &parameters {
        text.push_str(&printable(name));
        text.push_str(" = ");
        text.push_str(&printable(value));
        text.push('\n');
    }
    output::write(text.as_bytes())
}

#[derive(Debug, clap::Args)]
pub(super) struct SetArgs {
    /// Full path of a parameter and its new value; repeat for several
    #[arg(required = true, num_args = 1.., value_name = "PATH VALUE")]
    writes: Vec<String>,
    /// Read the value of a single PATH from FILE, "-" is stdin; required for passwords
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// The ACS is the writer, and gets no notification of the change
    #[arg(long)]
    by_acs: bool,
}

pub(super) fn set(args: &SetArgs, reach: &Reach) -> Outcome {
    let parameters = match (&args.value_file, args.writes.as_slice()) {
        (Some(file), [path]) => vec![(path.clone(), value_of(file)?)],
        (Some(_), _) => return Err(Failure::Usage("--value-file takes one PATH and no VALUE".to_owned())),
        (None, writes) => {
            let (pairs, rest) = writes.as_chunks::<2>();
            if let [path] = rest {
                return Err(Failure::Usage(format!("{} has no value", printable(path))));
            }
            if let Some([path, _]) = pairs.iter().find(|[path, _]| model::is_hidden(path)) {
                let path = printable(path);
                return Err(Failure::Usage(format!(
                    "{path} is a password, and arguments are seen by everybody here: use --value-file"
                )));
            }
            pairs.iter().cloned().map(|[path, value]| (path, value)).collect()
        }
    };
    let usernames = parameters.iter().filter(|(path, _)| model::is_connection_request_username(path));
    let usernames: Vec<String> = usernames.map(|(_, value)| value.clone()).collect();
    conclude(reach.connect()?.ask(&Request::Set { parameters, by_acs: args.by_acs })?)?;
    for username in &usernames {
        output::warn_of_username(username);
    }
    Ok(())
}

/// The content of a file, or of stdin for `-`, without the newline at the end.
pub(super) fn value_of(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    let text = text.map_err(|error| Failure::failed(format_args!("{}: {error}", file.display())))?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

#[derive(Debug, clap::Args)]
pub(super) struct NotifyArgs {
    /// Full path of a parameter, or a partial path that ends in a dot
    #[arg(value_name = "PATH")]
    path: String,
    /// Notification attribute: off, passive or active
    #[arg(value_name = "off|passive|active", value_parser = attribute)]
    attribute: Attribute,
}

fn attribute(text: &str) -> Result<Attribute, String> {
    match text {
        "off" | "0" => Ok(Attribute::Off),
        "passive" | "1" => Ok(Attribute::Passive),
        "active" | "2" => Ok(Attribute::Active),
        _ => Err("expected off, passive or active".to_owned()),
    }
}

pub(super) fn notify(args: NotifyArgs, reach: &Reach) -> Outcome {
    conclude(reach.connect()?.ask(&Request::Notify { path: args.path, attribute: args.attribute })?)
}

#[derive(Debug, clap::Args)]
pub(super) struct AckArgs {
    /// Sequence number of the last notification that the ACS received
    #[arg(value_name = "SEQUENCE")]
    sequence: u64,
}

pub(super) fn acknowledge(args: &AckArgs, reach: &Reach) -> Outcome {
    conclude(reach.connect()?.ask(&Request::Acknowledge { sequence: args.sequence })?)
}

fn conclude(reply: Reply) -> Outcome {
    match reply {
        Reply::Done => Ok(()),
        Reply::Fault { code, name, path } => Err(fault(code, &name, &path)),
        _ => Err(ClientError::OutOfTurn.into()),
    }
}

fn fault(code: u16, name: &str, path: &str) -> Failure {
    Failure::failed(format_args!("fault {code} ({name}): {}", printable(path)))
}
