//! STUN servers side by side: answers for each second that a server keeps a core busy.
//!
//! Each server is alone on core 0 and in a namespace; core 1 sends it more than it can take. What it answers is counted by
//! the kernel, what it spends is its own time in user and system mode: taking requests out of its socket and putting
//! answers on the wire. What it costs to bring requests to the socket is the sender's, for all alike.

use std::{
    fs,
    io::IoSlice,
    net::{SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg},
};
use tr111_core::stun::{Builder, MessageType, TransactionId};

use super::{
    Report, Row,
    generator::{self, Question},
    idle::Usage,
    median, on_core,
    report::number,
};
use crate::{
    acs,
    nat::{NatLab, PUBLIC, SERVER},
    wait::{is_interrupted, pass},
};

/// Times that each server is measured; servers take turns.
const ROUNDS: usize = 3;
/// How long one measurement takes, and how long the flood lasts before it.
const MEASURED: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_millis(500);
/// Requests that leave by one system call.
const BURST: usize = 60;

/// Answers per busy second of tr111's path by the socket and of that at line rate, of coturn, and of Vovida's stund.
pub(super) fn answers(report: &mut Report) -> Result<()> {
    let net = NatLab::new("masquerade")?;
    let mut rates = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (rates, server) in rates.iter_mut().zip(["tr111", "coturn", "stund"]) {
            rates.push(saturated(&net, server).with_context(|| server.to_owned())?);
        }
    }
    let [ours, coturn, stund] = rates.map(|mut rates| median(&mut rates));
    let note = format!("coturn {}, stund {}; median of {ROUNDS}", number(coturn.round()), number(stund.round()));
    report.add(&Row::new("STUN answers per busy second, by the socket", ours.round(), "/s").note(note));
    report.add(&Row::new("STUN answers per busy second, by the socket: of coturn's", ours / coturn, "x").at_least(1.5));
    report.add(&Row::new("STUN answers per busy second, by the socket: of stund's", ours / stund, "x"));
    for (what, question, bars) in
        [("plain requests", Question::Plain, true), ("keep-alives of 20,000 bindings", Question::KeepAlive, false)]
    {
        let (line_rate, note) = generator::median_rate(question)?;
        report
            .add(&Row::new(format!("STUN answers per busy second, at line rate, {what}"), line_rate, "/s").note(note));
        for (server, rate, bar) in [("coturn's", coturn, 15.0), ("stund's", stund, 10.0)] {
            let row = Row::new(format!("STUN answers at line rate, {what}: of {server}"), line_rate / rate, "x");
            report.add(&if bars { row.at_least(bar) } else { row });
        }
    }
    Ok(())
}

/// Answers per busy second of one server.
fn saturated(net: &NatLab, server: &str) -> Result<f64> {
    let directory = tempfile::Builder::new().prefix("tr111-stun-").tempdir()?;
    let mut started = on_core(0, || match server {
        "coturn" => Ok(Started::Other(net.coturn()?)),
        "stund" => Ok(Started::Other(net.stund()?)),
        _ => {
            let keys = format!("listen = [\"{SERVER}:3478\"]\nthreads = 1\nsource_pps = 0");
            Ok(Started::Ours(acs::start(&net.wan, directory.path(), "acs", &keys)?))
        }
    })?;
    let socket = net.lab.gateway.enter(|| UdpSocket::bind((PUBLIC, 40_001)))?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| on_core(1, || flood(&socket, SocketAddrV4::new(SERVER, 3478), &is_over)));
        let measured = measure(net, started.id());
        is_over.store(true, Ordering::Relaxed);
        flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured
    })
}

enum Started<'a> {
    Ours(crate::agent::Agent<'a>),
    Other(crate::process::Process),
}

impl Started<'_> {
    fn id(&mut self) -> u32 {
        match self {
            Self::Ours(agent) => agent.process().id(),
            Self::Other(process) => process.id(),
        }
    }
}

fn measure(net: &NatLab, process: u32) -> Result<f64> {
    pass(BEFORE)?;
    let (answers, busy) = (sent(net)?, Usage::of(process)?.seconds);
    pass(MEASURED)?;
    Ok((sent(net)? - answers) / (Usage::of(process)?.seconds - busy))
}

/// Datagrams that left the server's namespace.
fn sent(net: &NatLab) -> Result<f64> {
    let table = net.wan.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("no UDP")?, lines.next().context("no counts")?);
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, count) = pairs.find(|(name, _)| *name == "OutDatagrams").context("no OutDatagrams")?;
    Ok(count.parse()?)
}

/// Sends plain Binding Requests as fast as it can. Answers are not read: the kernel drops them when there is no room.
fn flood(socket: &UdpSocket, to: SocketAddrV4, is_over: &AtomicBool) -> Result<()> {
    let request = Builder::new(MessageType::BindingRequest, TransactionId(*b"sixteen bytes id")).build();
    let (burst, length) = (request.repeat(BURST), u16::try_from(request.len())?);
    let (cut, to) = ([ControlMessage::UdpGsoSegments(&length)], SockaddrIn::from(to));
    while !is_over.load(Ordering::Relaxed) && !is_interrupted() {
        match sendmsg(socket.as_raw_fd(), &[IoSlice::new(&burst)], &cut, MsgFlags::empty(), Some(&to)) {
            Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
