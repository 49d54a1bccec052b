//! `tr111 get` and `tr111 set`

use serde::Serialize;

use super::{
    Failure, Outcome, Reach,
    output::{self, printable},
};
use crate::control::{
    ClientError,
    message::{Parameter, Reply, Request},
};

/// Arguments of `tr111 get`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Full path of a parameter, or a partial path that ends in a dot, such as InternetGatewayDevice.ManagementServer.
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

/// Arguments of `tr111 set`.
#[derive(Debug, clap::Args)]
pub(super) struct SetArgs {
    /// Full paths, each with its new value; what is set holds until the agent ends
    #[arg(required = true, num_args = 2.., value_name = "PATH VALUE")]
    writes: Vec<String>,
}

pub(super) fn set(args: &SetArgs, reach: &Reach) -> Outcome {
    let (pairs, rest) = args.writes.as_chunks::<2>();
    if let [path] = rest {
        return Err(Failure::Usage(format!("{} has no value", printable(path))));
    }
    let parameters = pairs.iter().cloned().map(|[path, value]| (path, value)).collect();
    match reach.connect()?.ask(&Request::Set { parameters })? {
        Reply::Done => Ok(()),
        Reply::Fault { code, name, path } => Err(fault(code, &name, &path)),
        _ => Err(ClientError::OutOfTurn.into()),
    }
}

/// A fault of TR-069 as a failure.
fn fault(code: u16, name: &str, path: &str) -> Failure {
    Failure::failed(format_args!("fault {code} ({name}): {}", printable(path)))
}
