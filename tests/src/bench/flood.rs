//! A device under a flood of forged Connection Requests: who is let in, what is lost, what it costs.

use std::{
    io::IoSlice,
    net::UdpSocket,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use tr111_core::connreq::COPIES;

use super::{Report, Row, idle::peak, on_core, report::number};
use crate::{
    agent::Files,
    cpe::{self, DEVICE, PASSWORD, request, unix_now},
    lab::Lab,
    wait::{is_interrupted, pass},
};

/// Forged requests a second.
const RATE: u32 = 100_000;
/// Seconds of the flood, and genuine requests: one each second, in three copies.
const SECONDS: u32 = 10;
/// Forgeries that leave by one system call.
const BURST: u32 = 50;
/// From one call to the next.
const PACE: Duration = Duration::from_micros(500);
/// How much longer the flood may take before it is not the one that was asked for.
const LATE: Duration = Duration::from_millis(500);
/// How long the device may take for what waits in its socket.
const DRAINED: Duration = Duration::from_secs(10);
const REQUESTS: &str = "tr111_connection_requests_total";

/// Forgeries that get as far as the HMAC, at 100,000 a second, and genuine requests between them.
pub(super) fn forgeries(report: &mut Report) -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip(&format!("addr add {}/16 dev eth0", DEVICE.ip()))?;
    let mut device = on_core(0, || cpe::start(&lab, Files::new(lab.path(), "device")?, ""))?;
    let [acs, enemy] = ["10.111.0.1:3478", "10.111.0.1:4000"].map(|at| lab.gateway.enter(|| UdpSocket::bind(at)));
    let (acs, enemy, timestamp) = (acs?, enemy?, unix_now()?);
    let forged = request(DEVICE, timestamp + 3_600, 7, "guess")?;
    let elapsed = thread::scope(|scope| -> Result<Duration> {
        let flood = scope.spawn(|| on_core(1, || flood(&enemy, &forged)));
        let genuine =
            (1..=u64::from(SECONDS)).try_for_each(|id| genuine(&acs, &request(DEVICE, timestamp + id, id, PASSWORD)?));
        let elapsed = flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        genuine.and(elapsed)
    })?;
    ensure!(
        elapsed < Duration::from_secs(SECONDS.into()) + LATE,
        "the flood took {elapsed:?}: this machine is too busy"
    );
    // What the kernel dropped is told beside the next datagram.
    enemy.send_to(&forged, DEVICE)?;
    let sent = u64::from(RATE * SECONDS) + u64::from(SECONDS) * COPIES.len() as u64 + 1;
    let deadline = Instant::now() + DRAINED;
    let (accepted, read, lost) = loop {
        let metrics = device.metrics()?;
        let [read, lost] = [REQUESTS, "tr111_socket_lost_total"].map(|name| metrics.sum(name, &[]));
        // A sum that stays another is a line of the table.
        if read + lost == sent || Instant::now() > deadline {
            break (metrics.sum(REQUESTS, &[("result", "accepted")]), read, lost);
        }
        pass(Duration::from_millis(100))?;
    };
    let note = format!("of {SECONDS}, {} copies each; {RATE} forgeries a second for {elapsed:.1?}", COPIES.len());
    let row = Row::new("forged Connection Requests: genuine ones accepted", f64::from(u32::try_from(accepted)?), "");
    report.add(&row.at_least(f64::from(SECONDS)).note(note));
    let uncounted = sent.abs_diff(read + lost);
    let [read, lost] = [read, lost].map(|count| number(f64::from(u32::try_from(count).unwrap_or(u32::MAX))));
    let note = format!("{read} read, {lost} lost by the socket");
    let row = Row::new("forged Connection Requests: lost without a count", f64::from(u32::try_from(uncounted)?), "");
    report.add(&row.at_most(0.0).note(note));
    let row = Row::new("forged Connection Requests: peak memory", peak(device.process().id())? / 1024.0, "MiB");
    report.add(&row.below(64.0));
    Ok(())
}

/// Sends the forgeries; how long it took. The kernel cuts each burst into its datagrams, which leaves the time to those
/// who have to read them.
fn flood(enemy: &UdpSocket, forged: &[u8]) -> Result<Duration> {
    let (burst, length) = (forged.repeat(BURST as usize), u16::try_from(forged.len())?);
    let cut = [ControlMessage::UdpGsoSegments(&length)];
    let to = SockaddrIn::from(DEVICE);
    let begin = Instant::now();
    for number in 1..=RATE / BURST * SECONDS {
        let sent = sendmsg(enemy.as_raw_fd(), &[IoSlice::new(&burst)], &cut, MsgFlags::empty(), Some(&to))?;
        ensure!(sent == burst.len(), "{sent} of {} bytes were sent", burst.len());
        ensure!(!is_interrupted(), "interrupted");
        thread::sleep((PACE * number).saturating_sub(begin.elapsed()));
    }
    Ok(begin.elapsed())
}

/// Sends the copies of a request, in a second (UCR-22).
fn genuine(acs: &UdpSocket, signed: &[u8]) -> Result<()> {
    let begin = Instant::now();
    for at in COPIES {
        pass(at.saturating_sub(begin.elapsed()))?;
        acs.send_to(signed, DEVICE)?;
    }
    pass(Duration::from_secs(1).saturating_sub(begin.elapsed()))
}
