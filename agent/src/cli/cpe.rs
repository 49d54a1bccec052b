//! `tr111 cpe`: provisions the CPEs of an ACS.
//!
//! Passwords are read from files and written to files. No password is an argument, and none is printed.

mod file;
mod genieacs;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::file::{ExportArgs, ImportArgs};
use super::{
    Failure, Outcome, Reach,
    devices::since,
    get::value_of,
    output::{self, Table, or_dash, printable},
};
use crate::{
    control::{
        Client, ClientError,
        message::{NewCpe, RegisteredCpe, Reply, Request, WeakCpe},
    },
    random,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Add a CPE to the registry
    Add(AddArgs),
    /// Show the CPEs of the registry, without their passwords
    List,
    /// Remove a CPE from the registry
    Remove(NameArgs),
    /// Add the CPEs of a file or of a `GenieACS`; if one cannot be added, none is
    Import(ImportArgs),
    /// Write the CPEs as CSV or JSON: to stdout without passwords, or to a file with passwords
    Export(ExportArgs),
    /// Require a CPE to sign its next Binding Request
    Verify(NameArgs),
    /// Forget the ts of the last Connection Request; the next one carries the current time
    ///
    /// Use this for a CPE that refuses all Connection Requests because the clock of the ACS was ahead when one was
    /// sent. A CPE that accepted that request needs no reset: it accepts only a later ts, and the ACS continues from
    /// the last one.
    ResetTimestamp(ResetArgs),
    /// Show weak passwords, and usernames that are hard to send
    Lint,
    /// Write a random password of 128 bits to a new file
    Generate(GenerateArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// STUNUsername, unique among the CPEs of the ACS
    #[arg(long, value_name = "U")]
    stun_username: String,
    /// File with STUNPassword; "-" is stdin; without it the CPE's bindings cannot be authenticated
    #[arg(long, value_name = "FILE")]
    stun_password_file: Option<PathBuf>,
    /// ConnectionRequestUsername
    #[arg(long, value_name = "U")]
    connection_request_username: String,
    /// File with ConnectionRequestPassword; "-" is stdin
    #[arg(long, value_name = "FILE")]
    connection_request_password_file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct NameArgs {
    /// STUNUsername of the CPE
    #[arg(value_name = "STUNUSERNAME")]
    username: String,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct ResetArgs {
    /// STUNUsername of the CPE
    #[arg(value_name = "STUNUSERNAME")]
    username: Option<String>,
    /// All CPEs; also accepts the current system clock of the ACS as correct
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {
    /// File to create, readable by its owner only; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Listing {
    number_of_entries: usize,
    cpes: Vec<RegisteredCpe>,
}

#[derive(Serialize)]
struct Findings {
    findings: Vec<WeakCpe>,
}

pub(super) fn run(command: Command, reach: &Reach, json: bool) -> Outcome {
    match command {
        Command::Add(args) => add(args, reach),
        Command::List => list(reach, json),
        Command::Remove(NameArgs { username }) => done(reach, &Request::RemoveCpe { username }),
        Command::Verify(NameArgs { username }) => done(reach, &Request::VerifyCpe { username }),
        Command::ResetTimestamp(ResetArgs { username, .. }) => done(reach, &Request::ResetTimestamp { username }),
        Command::Import(args) => file::import(&args, reach, json),
        Command::Export(args) => file::export(&args, reach),
        Command::Lint => lint(reach, json),
        Command::Generate(args) => generate(&args.file),
    }
}

fn done(reach: &Reach, request: &Request) -> Outcome {
    match reach.connect()?.ask(request)? {
        Reply::Done => Ok(()),
        _ => Err(ClientError::OutOfTurn.into()),
    }
}

fn add(args: AddArgs, reach: &Reach) -> Outcome {
    let stun_password = args.stun_password_file.as_deref().map(value_of).transpose()?.unwrap_or_default();
    let cpe = NewCpe {
        stun_username: args.stun_username,
        stun_password,
        connection_request_username: args.connection_request_username.clone(),
        connection_request_password: value_of(&args.connection_request_password_file)?,
    };
    done(reach, &Request::AddCpes { cpes: vec![cpe], more: false, upsert: false })?;
    output::warn_of_username(&args.connection_request_username);
    Ok(())
}

/// Joins a list that arrives in several messages.
fn receive<T>(
    client: &mut Client,
    request: &Request,
    page: impl Fn(Reply) -> Option<(Vec<T>, bool)>,
) -> Result<Vec<T>, ClientError> {
    let mut all = Vec::new();
    let mut reply = client.ask(request)?;
    loop {
        let (some, more) = page(reply).ok_or(ClientError::OutOfTurn)?;
        all.extend(some);
        if !more {
            return Ok(all);
        }
        reply = client.next_reply()?;
    }
}

fn registered(reach: &Reach) -> Result<Vec<RegisteredCpe>, Failure> {
    let page = |reply| match reply {
        Reply::Cpes { cpes, more } => Some((cpes, more)),
        _ => None,
    };
    Ok(receive(&mut reach.connect()?, &Request::Cpes, page)?)
}

fn list(reach: &Reach, json: bool) -> Outcome {
    let cpes = registered(reach)?;
    if json {
        return output::write_json(&Listing { number_of_entries: cpes.len(), cpes });
    }
    let mut table = Table::new(&["STUNUSERNAME", "CONNREQ USER", "ADDRESS", "BY", "SEEN", "LAST TS"]);
    for cpe in &cpes {
        let by = cpe.way.as_deref().unwrap_or("-");
        table.push([
            printable(&cpe.stun_username).into_owned(),
            or_dash(&cpe.connection_request_username),
            or_dash(cpe.address.as_deref().unwrap_or_default()),
            if cpe.must_verify { format!("{by}, to verify") } else { by.to_owned() },
            cpe.last_seen.as_deref().or(cpe.changed.as_deref()).map_or_else(|| "-".to_owned(), since),
            cpe.last_timestamp.map_or_else(|| "-".to_owned(), |timestamp| timestamp.to_string()),
        ]);
    }
    table.print()
}

fn lint(reach: &Reach, json: bool) -> Outcome {
    let page = |reply| match reply {
        Reply::WeakCpes { findings, more } => Some((findings, more)),
        _ => None,
    };
    let findings = receive(&mut reach.connect()?, &Request::LintCpes, page)?;
    if json {
        output::write_json(&Findings { findings: findings.clone() })?;
    } else {
        let mut table = Table::new(&["STUNUSERNAME", "FINDING", "MEANING"]);
        for WeakCpe { stun_username, finding, meaning } in &findings {
            table.push([printable(stun_username).into_owned(), finding.clone(), meaning.clone()]);
        }
        if !findings.is_empty() {
            table.print()?;
        }
    }
    match findings.len() {
        0 => Ok(()),
        1 => Err(Failure::failed("1 finding")),
        count => Err(Failure::failed(format_args!("{count} findings"))),
    }
}

fn generate(path: &Path) -> Outcome {
    let bytes =
        random::bytes::<16>().map_err(|error| Failure::failed(format_args!("cannot get random bytes: {error}")))?;
    let text = bytes.map(|byte| format!("{byte:02x}")).concat();
    file::write_secret(path, format!("{text}\n").as_bytes())
}
