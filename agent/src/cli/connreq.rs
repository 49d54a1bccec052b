//! `tr111 connreq`: what an ACS sends, by hand.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs, UdpSocket},
    path::PathBuf,
    thread,
    time::{Duration, SystemTime},
};

use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use tr111_core::{
    connreq::{Authority, COPIES, ConnectionRequest, next_timestamp},
    secret::SharedSecret,
    time::UnixTime,
};

use super::{
    Failure, Outcome,
    get::value_of,
    output::{self, printable},
};
use crate::random;

/// What to do with Connection Requests.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Send one UDP Connection Request, without an ACS that runs
    ///
    /// There is no answer. Through a NAT only what comes from the address and port of the CPE's STUN server arrives;
    /// see --from.
    Send(SendArgs),
}

/// Arguments of `tr111 connreq send`.
#[derive(Debug, clap::Args)]
pub(super) struct SendArgs {
    /// The CPE's UDPConnectionRequestAddress; without PORT it is 80
    #[arg(long, value_name = "HOST[:PORT]")]
    to: Authority,
    /// The CPE's ConnectionRequestUsername
    #[arg(long, value_name = "USER")]
    user: String,
    /// File with its ConnectionRequestPassword; "-" is stdin
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// Identical copies, against loss: they leave 0, 200 and 600 ms after the first
    #[arg(long, value_name = "N", default_value_t = COPIES.len(), value_parser = copies())]
    copies: usize,
    /// Address and port to send from; one that another process has, such as a STUN server, cannot be had
    #[arg(long, value_name = "IPV4:PORT", default_value_t = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))]
    from: SocketAddrV4,
}

fn copies() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=COPIES.len() as u64)
}

/// What was sent.
#[derive(Serialize)]
struct Sent {
    to: String,
    address: SocketAddrV4,
    timestamp: u64,
    id: u64,
    copies: usize,
    request: String,
}

pub(super) fn run(command: Command, json: bool) -> Outcome {
    let Command::Send(args) = command;
    let sent = send(args)?;
    if json {
        return output::write_json(&sent);
    }
    let Sent { to, address, copies, request, .. } = &sent;
    let noun = if *copies == 1 { "copy" } else { "copies" };
    let line = request.lines().next().unwrap_or_default();
    output::write(format!("{copies} {noun} to {to} ({address}): {}\n", printable(line)).as_bytes())
}

fn send(args: SendArgs) -> Result<Sent, Failure> {
    let SendArgs { to, user, password_file, copies, from } = args;
    let secret = SharedSecret::new(value_of(&password_file)?.as_bytes());
    let address = resolve(&to)?;
    let [id, nonce @ ..] = random().map_err(|error| Failure::failed(format_args!("/dev/urandom: {error}")))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let timestamp = next_timestamp(UnixTime(now.as_secs()), None);
    let nonce = nonce.map(|word| format!("{word:08x}")).concat();
    let id = u64::from(id);
    let (shown, request) =
        (to.to_string(), ConnectionRequest { authority: to, timestamp, id, username: &user, nonce: &nonce });
    let datagram = request.sign(&secret).map_err(Failure::failed)?;
    let socket = UdpSocket::bind(from).map_err(|error| Failure::failed(format_args!("{from}: {error}")))?;
    let mut last = Duration::ZERO;
    for after in COPIES.into_iter().take(copies) {
        thread::sleep(after.saturating_sub(last));
        last = after;
        socket.send_to(&datagram, address).map_err(|error| Failure::failed(format_args!("{address}: {error}")))?;
    }
    let request = String::from_utf8_lossy(&datagram).into_owned();
    Ok(Sent { to: shown, address, timestamp, id, copies, request })
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
