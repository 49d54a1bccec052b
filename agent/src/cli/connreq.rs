//! `tr111 connreq`: what an ACS sends, by hand.

mod bulk;

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::{ArgGroup, builder::RangedU64ValueParser};
use tr111_core::{
    connreq::{Authority, COPIES, ConnectionRequest, next_timestamp},
    secret::SharedSecret,
};

use super::{
    Failure, Outcome, Reach,
    get::value_of,
    output::{self, printable},
};
use crate::{
    control::{
        ClientError,
        message::{Reply, Request, SentRequest},
    },
    random,
    service::Clock,
};

const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

/// What to do with Connection Requests.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Send UDP Connection Requests: to CPEs of the ACS that runs, or one to any address
    ///
    /// There is no answer. Through a NAT only what comes from the address and port of the CPE's STUN server arrives: a
    /// running ACS sends from there. Without one, see --from.
    Send(SendArgs),
}

/// Arguments of `tr111 connreq send`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("destination").required(true).args(["cpe", "all", "file", "to"]))]
pub(super) struct SendArgs {
    /// STUNUsername of a CPE that the running ACS knows
    #[arg(long, value_name = "STUNUSERNAME")]
    cpe: Option<String>,
    /// Every CPE that the running ACS knows
    #[arg(long)]
    all: bool,
    /// File with names (STUNUsername) of CPEs that the running ACS knows, one a line; "-" is stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// With --all and --file: CPEs a second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// A CPE's UDPConnectionRequestAddress; without PORT it is 80
    #[arg(long, value_name = "HOST[:PORT]", requires = "user", requires = "password_file")]
    to: Option<Authority>,
    /// With --to: the CPE's ConnectionRequestUsername
    #[arg(long, value_name = "USER", requires = "to")]
    user: Option<String>,
    /// With --to: file with its ConnectionRequestPassword; "-" is stdin
    #[arg(long, value_name = "FILE", requires = "to")]
    password_file: Option<PathBuf>,
    /// With --to: let the running ACS send it, from its STUN server's address
    #[arg(long, requires = "to", conflicts_with = "from")]
    by_acs: bool,
    /// Identical copies, against loss: they leave 0, 200 and 600 ms after the first
    #[arg(long, value_name = "N", default_value_t = COPIES.len(), value_parser = copies())]
    copies: usize,
    /// With --to: address and port to send from; one that another process has, such as a STUN server, cannot be had
    #[arg(long, value_name = "IPV4:PORT", requires = "to")]
    from: Option<SocketAddrV4>,
}

fn copies() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=COPIES.len() as u64)
}

pub(super) fn run(command: Command, reach: &Reach, json: bool) -> Outcome {
    let Command::Send(args) = command;
    let SendArgs { cpe, file, rate, to, user, password_file, by_acs, copies, from, .. } = args;
    if let Some(username) = cpe {
        return show(&ask(reach, &Request::Send { username, copies })?, json);
    }
    let Some(to) = to else {
        let usernames = file.map(|file| names(&file)).transpose()?;
        return bulk::run(usernames.as_deref(), rate, copies, reach, json);
    };
    let password = password_file.map(|file| value_of(&file)).transpose()?.unwrap_or_default();
    let user = user.unwrap_or_default();
    let sent = if by_acs {
        ask(reach, &Request::SendTo { to: to.to_string(), user, password, copies })?
    } else {
        send(to, &user, &password, copies, from.unwrap_or(ANY))?
    };
    show(&sent, json)
}

fn ask(reach: &Reach, request: &Request) -> Result<SentRequest, Failure> {
    match reach.connect()?.ask(request)? {
        Reply::Sent(sent) => Ok(*sent),
        _ => Err(ClientError::OutOfTurn.into()),
    }
}

/// The lines of a file, without empty ones.
fn names(file: &Path) -> Result<Vec<String>, Failure> {
    Ok(value_of(file)?.lines().map(str::to_owned).filter(|name| !name.is_empty()).collect())
}

fn show(sent: &SentRequest, json: bool) -> Outcome {
    if json {
        return output::write_json(sent);
    }
    let SentRequest { username, to, address, copies, request, .. } = sent;
    let noun = if *copies == 1 { "copy" } else { "copies" };
    let line = request.lines().next().unwrap_or_default();
    let to = username.as_ref().map_or_else(|| printable(to), |name| format!("{} at {to}", printable(name)).into());
    output::write(format!("{copies} {noun} to {to} ({address}): {}\n", printable(line)).as_bytes())
}

/// Sends without an ACS.
fn send(to: Authority, user: &str, password: &str, copies: usize, from: SocketAddrV4) -> Result<SentRequest, Failure> {
    let secret = SharedSecret::new(password.as_bytes());
    let address = resolve(&to)?;
    let [id, nonce @ ..] = random().map_err(|error| Failure::failed(format_args!("no randomness: {error}")))?;
    let timestamp = next_timestamp(Clock::unix(), None);
    let nonce = nonce.map(|word| format!("{word:08x}")).concat();
    let id = u64::from(id);
    let shown = to.to_string();
    let request = ConnectionRequest { authority: to, timestamp, id, username: user, nonce: &nonce };
    let datagram = request.sign(&secret).map_err(Failure::failed)?;
    let socket = UdpSocket::bind(from).map_err(|error| Failure::failed(format_args!("{from}: {error}")))?;
    let mut last = Duration::ZERO;
    for after in COPIES.into_iter().take(copies) {
        thread::sleep(after.saturating_sub(last));
        last = after;
        socket.send_to(&datagram, address).map_err(|error| Failure::failed(format_args!("{address}: {error}")))?;
    }
    let from = match socket.local_addr() {
        Ok(SocketAddr::V4(bound)) => bound,
        _ => from,
    };
    let request = String::from_utf8_lossy(&datagram).into_owned();
    Ok(SentRequest { username: None, to: shown, address, from, way: None, timestamp, id, copies, request })
}

/// Four words: the id, and a nonce of 96 bits.
fn random() -> std::io::Result<[u32; 4]> {
    let bytes = random::bytes::<16>()?;
    let (words, _) = bytes.as_chunks::<4>();
    Ok([0, 1, 2, 3].map(|index| u32::from_ne_bytes(words[index])))
}

/// TR-111 Part 2 is IPv4 only (T-64).
fn resolve(to: &Authority) -> Result<SocketAddrV4, Failure> {
    let found = (to.host.as_str(), to.port).to_socket_addrs();
    let mut found = found.map_err(|error| Failure::failed(format_args!("{}: {error}", to.host)))?;
    let first = found.find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    first.ok_or_else(|| Failure::failed(format_args!("{} has no IPv4 address", to.host)))
}
