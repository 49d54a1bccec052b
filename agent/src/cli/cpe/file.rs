//! Import and export of CPEs: CSV with a header line, or JSON. CPEs of a `GenieACS` are imported by the same rules.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    genieacs::{self, Nbi},
    receive, registered,
};
use crate::{
    cli::{
        Failure, Outcome, Reach,
        output::{self, printable},
    },
    control::{
        Client, ClientError, frame,
        message::{NewCpe, RegisteredCpe, Reply, Request},
    },
};

/// Maximum length of the string parameters in TR-111 Table 6, in bytes.
const TEXT: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A header line, then one line per CPE
    Csv,
    /// {"cpes": [...]}
    Json,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ImportArgs {
    /// File to import; "-" is stdin
    #[arg(value_name = "FILE", required_unless_present = "genieacs", conflicts_with = "genieacs")]
    file: Option<PathBuf>,
    /// Format of the file [default: by the extension of FILE; csv for stdin]
    #[arg(long, value_name = "csv|json", conflicts_with = "genieacs")]
    format: Option<Format>,
    #[arg(
        long,
        value_name = "URL",
        help = "Import the CPEs of a GenieACS; URL is that of its NBI, such as http://127.0.0.1 (default port 7557)"
    )]
    genieacs: Option<Nbi>,
    /// PEM file with the trusted CA certificates, for an https URL
    #[arg(long, value_name = "FILE", requires = "genieacs", conflicts_with = "file")]
    ca_file: Option<PathBuf>,
    /// Replace the credentials of existing CPEs and keep their bindings; without it, an existing CPE makes the import
    /// fail
    #[arg(long)]
    upsert: bool,
    /// Accept empty passwords: without STUNPassword the CPE's bindings cannot be authenticated, without
    /// ConnectionRequestPassword no Connection Request can be sent to the CPE
    #[arg(long)]
    allow_empty: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArgs {
    /// Format of the output [default: by the extension of the file of --with-secrets; else csv]
    #[arg(long, value_name = "csv|json")]
    format: Option<Format>,
    /// Write to a new FILE with passwords, readable by its owner only, as input for tr111 cpe import
    #[arg(long, value_name = "FILE")]
    with_secrets: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    cpes: Vec<NewCpe>,
}

#[derive(Serialize)]
struct Imported {
    imported: usize,
}

/// A CPE without passwords. `import` refuses files with these.
#[derive(Serialize)]
struct Public<'a> {
    stun_username: &'a str,
    connection_request_username: &'a str,
}

#[derive(Serialize)]
struct PublicDocument<'a> {
    cpes: Vec<Public<'a>>,
}

/// CPEs, and the place of each in the file for error texts.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) cpes: Vec<NewCpe>,
    pub(super) places: Vec<String>,
}

enum Source<'a> {
    File(&'a Path, Option<Format>),
    GenieAcs(&'a Nbi, Option<&'a Path>),
}

impl Source<'_> {
    fn name(&self) -> String {
        match self {
            Self::File(file, _) if *file == Path::new("-") => "stdin".to_owned(),
            Self::File(file, _) => file.display().to_string(),
            Self::GenieAcs(nbi, _) => nbi.to_string(),
        }
    }

    fn read(&self) -> Result<Entries, String> {
        match self {
            Self::File(file, format) => {
                let text = content(file).map_err(|error| error.to_string())?;
                read(&text, format.or_else(|| by_extension(file)).unwrap_or(Format::Csv))
            }
            Self::GenieAcs(nbi, ca_file) => genieacs::fetch(nbi, *ca_file).map_err(|error| error.to_string()),
        }
    }
}

pub(super) fn import(args: &ImportArgs, reach: &Reach, json: bool) -> Outcome {
    let source = match (&args.genieacs, &args.file) {
        (Some(nbi), _) => Source::GenieAcs(nbi, args.ca_file.as_deref()),
        (None, Some(file)) => Source::File(file, args.format),
        // clap requires one of the two.
        (None, None) => return Err(Failure::Usage("name a file, or a GenieACS with --genieacs".to_owned())),
    };
    let name = source.name();
    let failed = |message: String| Failure::failed(format_args!("{name}: {message}; nothing was imported"));
    let Entries { cpes, places } = source.read().map_err(failed)?;
    check(&cpes, &places, args.allow_empty).map_err(failed)?;
    let imported = cpes.len();
    let mut client = reach.connect()?;
    if let Err(error) = send(&mut client, &cpes, args.upsert) {
        return Err(match error {
            // The reason starts with the name of the refused CPE. Add its place in the file.
            ClientError::Refused { reason, .. } => {
                let refused = reason.split_once(": ").map(|(name, _)| name);
                let place = refused.and_then(|name| cpes.iter().position(|cpe| cpe.stun_username == name));
                let place = place.map(|index| format!("{}: ", places[index])).unwrap_or_default();
                failed(format!("{place}{reason}"))
            }
            error => error.into(),
        });
    }
    if json {
        return output::write_json(&Imported { imported });
    }
    output::write(format!("{imported} CPEs imported\n").as_bytes())
}

/// Sends the CPEs in several messages. The ACS adds all of them with the last message.
fn send(client: &mut Client, cpes: &[NewCpe], upsert: bool) -> Result<(), ClientError> {
    for (cpes, more) in frame::parts(cpes.iter().cloned()) {
        if !more {
            // The ACS needs time to write a million CPEs to disk.
            client.be_patient()?;
        }
        match client.ask(&Request::AddCpes { cpes, more, upsert })? {
            Reply::Done => {}
            _ => return Err(ClientError::OutOfTurn),
        }
    }
    Ok(())
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return fs::read(path);
    }
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn by_extension(path: &Path) -> Option<Format> {
    match path.extension().and_then(OsStr::to_str)?.to_ascii_lowercase().as_str() {
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

fn read(bytes: &[u8], format: Format) -> Result<Entries, String> {
    match format {
        Format::Json => {
            let Document { cpes } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            let places = (1..=cpes.len()).map(|number| format!("entry {number}")).collect();
            Ok(Entries { cpes, places })
        }
        Format::Csv => {
            let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::None).from_reader(bytes);
            // Errors do not quote the file, which contains passwords.
            let wrong = |error: &csv::Error| {
                let line = error.position().map_or(1, csv::Position::line);
                let why = match error.kind() {
                    csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                        format!("{len} fields, but the header line has {expected_len}")
                    }
                    csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
                    csv::ErrorKind::Deserialize { err, .. } => err.kind().to_string(),
                    _ => "not CSV".to_owned(),
                };
                format!("line {line}: {why}")
            };
            let headings = reader.headers().map_err(|error| wrong(&error))?.clone();
            let mut read = Entries { cpes: Vec::new(), places: Vec::new() };
            for record in reader.records() {
                let record = record.map_err(|error| wrong(&error))?;
                let line = record.position().map_or(0, csv::Position::line);
                read.cpes.push(record.deserialize(Some(&headings)).map_err(|error| wrong(&error))?);
                read.places.push(format!("line {line}"));
            }
            Ok(read)
        }
    }
}

/// Checks for what the ACS would refuse, and for empty passwords unless they are allowed. The error names the place of
/// the first.
fn check(cpes: &[NewCpe], places: &[String], allow_empty: bool) -> Result<(), String> {
    let mut known: HashMap<&str, &str> = HashMap::with_capacity(cpes.len());
    let mut empty: Option<(&str, &str)> = None;
    let mut empties = 0;
    for (cpe, place) in cpes.iter().zip(places) {
        let texts = [
            ("stun_username", &cpe.stun_username),
            ("stun_password", &cpe.stun_password),
            ("connection_request_username", &cpe.connection_request_username),
            ("connection_request_password", &cpe.connection_request_password),
        ];
        for (name, text) in texts {
            if text.len() > TEXT || text.chars().any(char::is_control) {
                return Err(format!("{place}: {name} must have at most {TEXT} bytes and no control characters"));
            }
        }
        if cpe.stun_username.is_empty() {
            return Err(format!("{place}: stun_username is empty"));
        }
        if let Some(before) = known.insert(&cpe.stun_username, place) {
            let name = printable(&cpe.stun_username);
            return Err(format!("{place}: STUNUsername {name} is also at {before}, and must be unique"));
        }
        let passwords =
            [("stun_password", &cpe.stun_password), ("connection_request_password", &cpe.connection_request_password)];
        if let Some((name, _)) = passwords.iter().find(|(_, text)| text.is_empty()) {
            empty = empty.or(Some((place, name)));
            empties += 1;
        }
    }
    match empty {
        Some((place, name)) if !allow_empty => Err(format!(
            "{place}: {name} is empty ({empties} of {} CPEs have an empty password); --allow-empty imports them",
            cpes.len()
        )),
        _ => Ok(()),
    }
}

pub(super) fn export(args: &ExportArgs, reach: &Reach) -> Outcome {
    let by_name = args.with_secrets.as_deref().and_then(by_extension);
    let format = args.format.or(by_name).unwrap_or(Format::Csv);
    let Some(path) = &args.with_secrets else {
        return output::write(&public(&registered(reach)?, format)?);
    };
    let page = |reply| match reply {
        Reply::CpeCredentials { cpes, more } => Some((cpes, more)),
        _ => None,
    };
    let cpes = receive(&mut reach.connect()?, &Request::CpeCredentials, page)?;
    write_secret(path, &written(cpes, format)?)
}

fn written(cpes: Vec<NewCpe>, format: Format) -> Result<Vec<u8>, Failure> {
    match format {
        Format::Json => Ok(serde_json::to_vec_pretty(&Document { cpes })?),
        Format::Csv => rows(&cpes),
    }
}

fn public(cpes: &[RegisteredCpe], format: Format) -> Result<Vec<u8>, Failure> {
    let cpes: Vec<Public<'_>> = cpes
        .iter()
        .map(|cpe| Public {
            stun_username: &cpe.stun_username,
            connection_request_username: &cpe.connection_request_username,
        })
        .collect();
    match format {
        Format::Json => {
            let mut text = serde_json::to_vec_pretty(&PublicDocument { cpes })?;
            text.push(b'\n');
            Ok(text)
        }
        Format::Csv => rows(&cpes),
    }
}

fn rows<T: Serialize>(cpes: &[T]) -> Result<Vec<u8>, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for cpe in cpes {
        writer.serialize(cpe).map_err(Failure::failed)?;
    }
    writer.into_inner().map_err(Failure::failed)
}

/// Creates a file that only its owner can read. Fails if the file exists.
pub(super) fn write_secret(path: &Path, bytes: &[u8]) -> Outcome {
    let failed = |error: io::Error| Failure::failed(format_args!("{}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}
