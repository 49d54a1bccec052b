//! An ACS that wakes very many CPEs, and one that very many sources ask.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tr111_core::{
    secret::SharedSecret,
    stun::{Attribute, Builder, INTERVALS, MessageType, TransactionId, Username, Variant},
};

use super::{
    Report, Row,
    idle::{Usage, peak, resident},
    on_core,
    report::number,
};
use crate::{
    acs,
    agent::SOON,
    cpe::{STUN_PASSWORD, USERNAME},
    frame::Packet,
    nat::{NatLab, PUBLIC, SERVER},
    wait::is_interrupted,
    wire::Wire,
};

/// CPEs that are woken.
const CPES: u32 = 100_000;
/// Requests that wait for their answers at a time.
const WINDOW: u32 = 64;
/// Sources that nobody has.
const SOURCES: u32 = 1_000_000;
/// Keep-alives of a CPE that is known, meanwhile.
const KEEP_ALIVES: u32 = 20;
const AT: SocketAddrV4 = SocketAddrV4::new(SERVER, 3478);

fn request(name: &str, id: u32) -> Builder {
    Builder::new(MessageType::BindingRequest, TransactionId(u128::from(id).to_be_bytes()))
        .attribute(Attribute::ConnectionRequestBinding)
        .attribute(Attribute::Username(Username(name.as_bytes())))
}

/// Connection Requests to 100,000 CPEs, as fast as one core signs and sends them.
pub(super) fn bulk(report: &mut Report) -> Result<()> {
    let net = NatLab::new("masquerade")?;
    let directory = tempfile::Builder::new().prefix("tr111-wake-").tempdir()?;
    let keys = format!("listen = [\"{AT}\"]\nthreads = 1\nsource_pps = 0");
    let mut acs = on_core(0, || acs::start(&net.wan, directory.path(), "acs", &keys))?;
    let names: Vec<String> = (0..CPES).map(|number| format!("CPE{number:06}")).collect();
    acs::import(&acs, directory.path(), &names, "")?;
    let socket = net.lab.gateway.enter(|| UdpSocket::bind((PUBLIC, 7547)))?;
    socket.set_read_timeout(Some(SOON))?;
    for (window, names) in (0..).zip(names.chunks(WINDOW as usize)) {
        for (number, name) in (0..).zip(names) {
            socket.send_to(&request(name, window * WINDOW + number).build(), AT)?;
        }
        for _ in names {
            socket.recv(&mut [0; 200]).context("a Binding Request got no answer")?;
        }
    }
    let before = Usage::of(acs.process().id())?;
    let summary = acs.json(&["connreq", "send", "--all", "--rate", "10000000", "--copies", "1"])?;
    let busy = Usage::of(acs.process().id())?.seconds - before.seconds;
    let [sent, took] = ["sent", "duration_ms"].map(|name| summary[name].as_u64().and_then(|n| u32::try_from(n).ok()));
    let (sent, took) = (f64::from(sent.context("no count")?), f64::from(took.context("no duration")?) / 1e3);
    ensure!(sent >= f64::from(CPES), "only {sent} were sent: {summary}");
    let note = format!("{} CPEs in {took:.2} s, busy for {busy:.2} s", number(sent));
    let row = Row::new("Connection Requests signed and sent, per busy second", (sent / busy).round(), "/s");
    report.add(&row.at_least(100_000.0).note(note));

    let rate = 20_000;
    let summary = acs.json(&["connreq", "send", "--all", "--rate", &rate.to_string(), "--copies", "1"])?;
    let took = summary["duration_ms"].as_u64().and_then(|n| u32::try_from(n).ok()).context("no duration")?;
    let seconds = f64::from(CPES) / f64::from(rate);
    let row = Row::new("100,000 CPEs woken at 20,000 a second", f64::from(took) / 1e3, "s");
    report.add(&row.between(seconds * 0.99, seconds * 1.1));
    Ok(())
}

/// A million sources that nobody has, and one CPE that is known.
pub(super) fn spoofed(report: &mut Report) -> Result<()> {
    let net = NatLab::new("masquerade")?;
    // Answers to sources that nobody has go somewhere.
    net.wan.ip(&format!("route add default via {PUBLIC}"))?;
    let directory = tempfile::Builder::new().prefix("tr111-spoofed-").tempdir()?;
    let keys = format!("listen = [\"{AT}\"]\nthreads = 1");
    let mut acs = on_core(0, || acs::start(&net.wan, directory.path(), "acs", &keys))?;
    acs::add_cpe(&acs, directory.path())?;
    let cpe = net.lab.gateway.enter(|| UdpSocket::bind((PUBLIC, 7547)))?;
    let signed = request(USERNAME, 1).attribute(Attribute::BindingChange);
    let signed = signed.sign(&SharedSecret::new(STUN_PASSWORD.as_bytes()), Variant::A);
    ensure!(transaction(&cpe, &signed)?.is_some(), "the CPE is not registered");

    let wire = Wire::open(&net.lab.gateway, "wan0")?;
    let ends = (net.wan.mac("eth0")?, net.lab.gateway.mac("wan0")?);
    let (before, is_over, sent) = (resident(acs.process().id())?, AtomicBool::new(false), AtomicU32::new(0));
    let began = Instant::now();
    let answered = thread::scope(|scope| -> Result<Vec<Duration>> {
        let flood = scope.spawn(|| on_core(1, || flood(&wire, ends, &is_over, &sent)));
        let mut answered = Vec::new();
        let mut number = 0;
        // The flood is longer than a few keep-alives.
        while number < KEEP_ALIVES || sent.load(Ordering::Relaxed) < SOURCES {
            ensure!(!is_interrupted() && !flood.is_finished(), "the flood ended");
            number += 1;
            answered.extend(transaction(&cpe, &request(USERNAME, 1_000 + number).build())?);
            ensure!(answered.len() == number as usize, "keep-alive {number} of the CPE was not answered");
            thread::sleep(Duration::from_millis(100));
        }
        is_over.store(true, Ordering::Relaxed);
        flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(answered)
    });
    is_over.store(true, Ordering::Relaxed);
    let answered = answered?;
    let rate = f64::from(sent.load(Ordering::Relaxed)) / began.elapsed().as_secs_f64();
    let slowest = answered.iter().max().copied().unwrap_or_default();
    let note = format!("{} requests a second; the slowest took {} ms", number(rate.round()), slowest.as_millis());
    let count = f64::from(u32::try_from(answered.len())?);
    let row = Row::new("1 M spoofed sources: keep-alives of a known CPE answered", count, "");
    report.add(&row.at_least(f64::from(KEEP_ALIVES)).note(note));
    let grown = (peak(acs.process().id())? - before) / 1024.0;
    report.add(&Row::new("1 M spoofed sources: memory grown", grown, "MiB").at_most(4.0));
    Ok(())
}

/// A request and its copies as RFC 3489 9.3 has them; how long until an answer came.
fn transaction(cpe: &UdpSocket, request: &[u8]) -> Result<Option<Duration>> {
    let began = Instant::now();
    for interval in INTERVALS {
        cpe.send_to(request, AT)?;
        cpe.set_read_timeout(Some(interval))?;
        let mut answer = [0; 200];
        let sent = Instant::now();
        while sent.elapsed() < interval && cpe.recv(&mut answer).is_ok() {
            if answer[4..20] == request[4..20] {
                return Ok(Some(began.elapsed()));
            }
        }
    }
    Ok(None)
}

/// Plain Binding Requests, each from another source.
fn flood(wire: &Wire, (to, from): ([u8; 6], [u8; 6]), is_over: &AtomicBool, sent: &AtomicU32) -> Result<()> {
    let payload = Builder::new(MessageType::BindingRequest, TransactionId([7; 16])).build();
    let mut packet = Packet { to, destination: SERVER, checksum: false, ..Packet::from_client(from, payload) };
    for number in (0..SOURCES).cycle() {
        packet.source = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + number);
        packet.ports = (1_024 + (number % 60_000) as u16, AT.port());
        wire.send(&packet.bytes())?;
        sent.fetch_add(1, Ordering::Relaxed);
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}
