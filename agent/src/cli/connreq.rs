//! `tr111 connreq`: sends UDP Connection Requests, through a running ACS or without one.

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

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Send UDP Connection Requests: to CPEs of the running ACS, or one to any address
    ///
    /// A CPE does not answer a UDP Connection Request. A NAT usually passes only packets from the address and port of
    /// the CPE's STUN server. The running ACS sends from that address and port. Without a running ACS, see --from.
    Send(SendArgs),
}

/// Arguments of `tr111 connreq send`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("destination").required(true).args(["cpe", "all", "file", "to"]))]
pub(super) struct SendArgs {
    /// STUNUsername of a CPE in the registry of the running ACS
    #[arg(long, value_name = "STUNUSERNAME")]
    cpe: Option<String>,
    /// All CPEs in the registry of the running ACS
    #[arg(long)]
    all: bool,
    /// File with the STUNUsername of CPEs in the registry of the running ACS, one per line; "-" is stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// With --all and --file: CPEs per second
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// UDPConnectionRequestAddress of the CPE; PORT defaults to 80
    #[arg(long, value_name = "HOST[:PORT]", requires = "user", requires = "password_file")]
    to: Option<Authority>,
    /// With --to: ConnectionRequestUsername of the CPE
    #[arg(long, value_name = "USER", requires = "to")]
    user: Option<String>,
    /// With --to: file with the ConnectionRequestPassword of the CPE; "-" is stdin
    #[arg(long, value_name = "FILE", requires = "to")]
    password_file: Option<PathBuf>,
    /// With --to: let the running ACS send the request from the address of its STUN server
    #[arg(long, requires = "to", conflicts_with = "from")]
    by_acs: bool,
    /// Identical copies against packet loss, sent after 0, 200 and 600 ms
    #[arg(long, value_name = "N", default_value_t = COPIES.len(), value_parser = copies())]
    copies: usize,
    /// With --to: source address and port; they must not be in use by another process, such as a STUN server
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

/// The non-empty lines of a file.
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

/// Sends a request without a running ACS.
fn send(to: Authority, user: &str, password: &str, copies: usize, from: SocketAddrV4) -> Result<SentRequest, Failure> {
    let secret = SharedSecret::new(password.as_bytes());
    let address = resolve(&to)?;
    let [id, nonce @ ..] =
        random().map_err(|error| Failure::failed(format_args!("cannot get random bytes: {error}")))?;
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

/// Four random words: one for the id, three for the nonce.
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
