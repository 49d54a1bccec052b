//! UDP Connection Requests: what the core's verification costs, without socket and store.

use std::{hint::black_box, net::SocketAddrV4};

use anyhow::{Result, ensure};
use tr111_core::{
    connreq::{Credential, LastAccepted, Listener, Payload, Refusal, Settings},
    time::UnixTime,
};

use super::{Report, Row, median, on_core, percentile, report::number, rows::busy_seconds};
use crate::cpe::{PASSWORD, USERNAME, request};

/// Rounds of each measurement; an odd number has a median.
const ROUNDS: usize = 9;
/// Requests that are signed beforehand, each newer than the one before; as bytes they fit in no cache but the last.
const SIGNED: u32 = 20_000;
/// Times that a refused request comes in one round.
const REFUSED: u32 = 1_000_000;
/// `ts` of the first request.
const BEGIN: u64 = 1_700_000_000;
/// When they come; within the day by which a `ts` may be ahead.
const NOW: Option<UnixTime> = Some(UnixTime(BEGIN));
/// The public address of a device behind a NAT, with as many digits as there are.
const TO: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(198, 51, 100, 117), 40_001);

/// Requests that pass every check, and those that are refused before the HMAC (T-62).
pub(super) fn verification(report: &mut Report) -> Result<()> {
    let (mut accepted, mut stale, mut same) = on_core(0, || {
        let signed: Vec<_> = (1..=u64::from(SIGNED))
            .map(|number| request(TO, BEGIN + number, number, PASSWORD))
            .collect::<Result<_>>()?;
        let last = LastAccepted { timestamp: BEGIN + 1, id: Some(7), ..LastAccepted::default() };
        let [old, again] = [request(TO, BEGIN + 1, 8, PASSWORD)?, request(TO, BEGIN + 2, 7, PASSWORD)?];
        let (mut accepted, mut stale, mut same) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            accepted.push(acceptance(&signed)?);
            stale.push(refusal(&old, last, Refusal::StaleTimestamp)?);
            same.push(refusal(&again, last, Refusal::SameId)?);
        }
        Ok((accepted, stale, same))
    })?;
    for (what, rates, bar) in [
        ("Connection Request, core function: accepted", &mut accepted, 800e3),
        ("Connection Request, core function: refused, ts not newer", &mut stale, 5e6),
        ("Connection Request, core function: refused, id of the last", &mut same, 5e6),
    ] {
        let [slowest, fastest] = [0, 100].map(|percent| number(percentile(rates, percent).round()));
        let note = format!("in busy seconds of a core; rounds {slowest} to {fastest}");
        report.add(&Row::new(what, median(rates), "/s").at_least(bar).note(note));
    }
    Ok(())
}

fn listener(last: LastAccepted) -> Listener {
    Listener::new(Credential::new(USERNAME.as_bytes(), PASSWORD.as_bytes()), Settings::default(), last)
}

/// What the owner of the socket does with a datagram; whether it was accepted, or why not.
fn receive(listener: &mut Listener, datagram: &[u8]) -> Result<(), Option<Refusal>> {
    match Payload::of(datagram) {
        Payload::ConnectionRequest(datagram) => listener.receive(NOW, datagram).map(drop).map_err(Some),
        _ => Err(None),
    }
}

/// Requests a second, each of which is accepted.
fn acceptance(signed: &[Vec<u8>]) -> Result<f64> {
    let mut listener = listener(LastAccepted::default());
    let start = busy_seconds()?;
    let accepted = signed.iter().filter(|datagram| receive(&mut listener, black_box(datagram)).is_ok()).count();
    let busy = busy_seconds()? - start;
    ensure!(accepted == signed.len(), "{accepted} of {} were accepted", signed.len());
    Ok(f64::from(SIGNED) / busy)
}

/// Requests a second, each of which is refused for `reason`.
fn refusal(datagram: &[u8], last: LastAccepted, reason: Refusal) -> Result<f64> {
    let mut listener = listener(last);
    let start = busy_seconds()?;
    let refused = (0..REFUSED).filter(|_| receive(&mut listener, black_box(datagram)) == Err(Some(reason))).count();
    let busy = busy_seconds()? - start;
    ensure!(refused == REFUSED as usize, "{refused} of {REFUSED} were refused as {reason}");
    Ok(f64::from(REFUSED) / busy)
}
