//! Whether a device stays reachable through a NAT: minutes of real time, with the timeouts that Linux has and an
//! unmodified STUN server.
//!
//! Every second the NAT itself is asked whether it still knows the binding that the device tells of, which changes
//! nothing. Besides, Connection Requests come, further apart than the NAT's timeout, because one that arrives keeps the
//! binding like anything else (T-47), and unevenly, so that they meet it at any age.

use std::{
    io::{Write, stdout},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::stage::{ask, heading};
use crate::{
    agent::{Agent, Files},
    cpe::{self, MANAGEMENT, PASSWORD, USERNAME},
    nat::{LENT, NatLab, PUBLIC, SERVER},
    process::run,
    wait::{pass, wait_for},
};

/// Seconds for which the NAT keeps a flow: what Linux gives one that only went out, here in both states.
const TIMEOUT: u32 = 30;
/// Shortest keep-alive period, in seconds.
const MINIMUM: u32 = 10;
/// Between two looks at the NAT.
const LOOK: Duration = Duration::from_secs(1);
/// From one Connection Request to the next, in turn: in seconds, none of them a multiple of another.
const APART: [u64; 5] = [37, 53, 41, 67, 47];
/// The search takes no longer, although the Connection Requests disturb it.
const SEARCH: Duration = Duration::from_mins(30);
/// How long the device may be out of reach at a time while it searches: until the longest test of a binding that is gone
/// is judged. Discovery doubles from 20 s to 40 s, and waits for 3.1 s.
const LONGEST_GAP: Duration = Duration::from_secs(40 - TIMEOUT as u64 + 4 + 2);

/// What was seen in one phase.
#[derive(Debug, Default)]
struct Seen {
    time: Duration,
    looks: u32,
    /// Looks that did not find the binding.
    out_of_reach: u32,
    /// The longest time without it.
    longest_gap: Duration,
    requests: u32,
    woken: u32,
    /// Requests to a binding that the NAT did not know.
    hopeless: u32,
}

/// Tells it, with `minutes` of monitoring after the search.
///
/// # Errors
/// A tool is missing, or the device was out of reach when it should not be.
pub fn demonstrate(minutes: u64) -> Result<()> {
    let net = NatLab::new("masquerade fully-random")?;
    net.set_timeouts(TIMEOUT, TIMEOUT)?;
    let _stund = net.stund()?;
    net.lend_port()?;
    println!(
        "A device behind a NAT that keeps flows {TIMEOUT} s, an unmodified stund at {SERVER}, an ACS there that wakes"
    );
    println!("the device every {} to {} s by `tr111 connreq send`.", APART[0], APART[3]);

    heading(1, "The device searches the NAT's timeout");
    let device = cpe::start(
        &net.lab,
        Files::new(net.lab.path(), "device")?,
        &format!(
            "stun_enable = true\nstun_server_address = \"{SERVER}\"\nstun_minimum_keep_alive_period = {MINIMUM}\n"
        ),
    )?;
    cpe::wait_for_address(&device, |address| *address.ip() == PUBLIC)?;
    device.print(&["notify", &format!("{MANAGEMENT}UDPConnectionRequestAddress"), "active"])?;
    let watch = cpe::watch(&device, &net.lab)?;
    let mut acs = Acs { net: &net, device: &device, password: net.lab.write("connreq-password", PASSWORD)?, sent: 0 };
    let search = acs.observe(SEARCH, || Ok(cpe::learned(&device)?.is_some()))?;
    let period = cpe::learned(&device)?.context("no period was learned")?;
    search.show();
    println!("   It learned a period of {:.1} s.", period.as_secs_f64());
    ask(&device, &["bindings"], 4)?;

    heading(2, &format!("It keeps the binding for {minutes} minutes"));
    let upkeep = acs.observe(Duration::from_mins(minutes), || Ok(false))?;
    upkeep.show();
    let told = |what: &str| watch.stdout().lines().filter(|line| line.contains(what)).count();
    let (changes, notifications) = (told("binding_changed"), told("4 VALUE CHANGE"));
    println!(
        "\n   In all, the binding changed {changes} times, and the ACS was notified {notifications} times (CPE-41)."
    );

    ensure!(period.as_secs_f64() < TIMEOUT.into(), "the period is above the NAT's timeout");
    ensure!(search.woken + search.hopeless == search.requests, "a request that the NAT let in did not wake the device");
    ensure!(search.longest_gap <= LONGEST_GAP, "out of reach for {:?} while it searched", search.longest_gap);
    ensure!(upkeep.out_of_reach == 0, "out of reach, although the period was learned");
    ensure!(upkeep.woken == upkeep.requests, "a Connection Request did not wake the device");
    ensure!(notifications <= changes, "more notifications than changes");
    Ok(())
}

impl Seen {
    fn show(&self) {
        let Self { time, looks, out_of_reach, longest_gap, requests, woken, hopeless } = self;
        println!("\n   {:.0} s: {requests} Connection Requests, {woken} woke the device,", time.as_secs_f64());
        println!("   {hopeless} came while the NAT had forgotten the binding.");
        println!("   The NAT knew the binding in {} of {looks} looks; the longest time", looks - out_of_reach);
        println!("   without it was {:.0} s.", longest_gap.as_secs_f64());
    }
}

/// Who wakes the device.
struct Acs<'a> {
    net: &'a NatLab,
    device: &'a Agent<'a>,
    password: String,
    /// Requests so far.
    sent: usize,
}

impl Acs<'_> {
    /// Looks at the NAT and wakes the device, until `is_over`, or for at most `limit`.
    fn observe(&mut self, limit: Duration, is_over: impl Fn() -> Result<bool>) -> Result<Seen> {
        let started = Instant::now();
        let mut seen = Seen::default();
        let mut gap: Option<Instant> = None;
        let mut next = started + self.pause();
        while started.elapsed() < limit && !is_over()? {
            let is_known = self.is_known()?;
            seen.looks += 1;
            if is_known {
                gap = None;
            } else {
                seen.out_of_reach += 1;
                seen.longest_gap = seen.longest_gap.max(gap.get_or_insert_with(Instant::now).elapsed() + LOOK);
            }
            if Instant::now() >= next {
                let is_woken = self.wake()?;
                seen.requests += 1;
                seen.woken += u32::from(is_woken);
                // Known before, or known again by the time that it was sent.
                seen.hopeless += u32::from(!is_woken && !is_known);
                print!("{}", if is_woken { "!" } else { "?" });
                next = Instant::now() + self.pause();
            } else {
                print!("{}", if is_known { "." } else { "_" });
            }
            stdout().flush()?;
            pass(LOOK)?;
        }
        seen.time = started.elapsed();
        println!();
        Ok(seen)
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(APART[self.sent % APART.len()])
    }

    /// Whether the NAT still has the binding that the device tells of.
    fn is_known(&self) -> Result<bool> {
        let told = cpe::address(self.device)?;
        Ok(self.net.flow(cpe::DEVICE.port())?.is_some_and(|flow| flow.mapped == told))
    }

    /// Sends a Connection Request from the STUN server's address and port; says whether it woke the device.
    fn wake(&mut self) -> Result<bool> {
        let accepted = || {
            let metrics = self.device.metrics()?;
            Ok::<_, anyhow::Error>(metrics.sum("tr111_connection_requests_total", &[("result", "accepted")]))
        };
        let (to, before) = (cpe::address(self.device)?.to_string(), accepted()?);
        let mut command = self.net.wan.command(crate::agent::binary()?);
        command.args(["connreq", "send", "--from", &LENT.to_string(), "--to", &to, "--user", USERNAME]);
        run(command.args(["--password-file", &self.password]))?;
        self.sent += 1;
        let woken = wait_for("wake", Duration::from_secs(1), || Ok((accepted()? > before).then_some(())));
        Ok(woken.is_ok())
    }
}
