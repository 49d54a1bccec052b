//! What renewals cost a flash memory: bytes that the agent gives to the disk (`write_bytes` in /proc/PID/io, proc(5): whole
//! pages, counted when they are changed). The file system's own journal comes on top, and is not the agent's.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{sys::statfs::TMPFS_MAGIC, sys::statfs::statfs};

use super::{Report, Row, report::number};
use crate::{
    agent::Agent,
    client::Client,
    lab::{GATEWAY, Lab, POOL},
    responder::Responder,
    vectors::identity,
    wait::wait_until,
    wire::Wire,
};

/// Leases of an hour are renewed after half of it.
const LEASE: u32 = 3_600;
const INTERVAL: u32 = 600;
const CLIENTS: u32 = 1_000;
/// Coprime to it.
const STRIDE: u32 = 387;
/// Intervals in which each client renews once.
const SHARES: u32 = LEASE / 2 / INTERVAL;
/// Further clients that renew one by one, at the default interval.
const SINGLE: u32 = 20;
/// Longer than the default interval and a transaction.
const APART: Duration = Duration::from_millis(400);
/// How long a device changes its identity again and again, and how often.
const WINDOW: Duration = Duration::from_mins(2);
const CHANGES_A_SECOND: u32 = 8;
const PATIENCE: Duration = Duration::from_mins(1);

/// Renewals of 1,000 clients, and a device that changes its identity all the time.
pub(super) fn flash(report: &mut Report) -> Result<()> {
    let lab = Lab::new()?;
    ensure!(statfs(lab.path())?.filesystem_type() != TMPFS_MAGIC, "{} is on no disk", lab.path().display());
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    // Nobody answers probes here, and nobody is to be removed meanwhile.
    agent.print(&["tune", "gateway.association.probe_interval_s=86400"])?;
    let mut disk = Disk { agent, before: 0 };
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS + SINGLE {
        let [_, _, high, low] = number.to_be_bytes();
        let mut client = Client::new(&wire, low, identity("00256D", &format!("DEV{number:07}"), "STB"));
        client.mac[4] = high;
        client.station = client.mac;
        client.bind()?;
        clients.push(client);
    }
    wait_until("all rows", PATIENCE, || Ok(disk.rows()? == u64::from(CLIENTS + SINGLE)))?;

    disk.rest()?;
    for client in &mut clients[CLIENTS as usize..] {
        client.renew()?;
        thread::sleep(APART);
    }
    let single = disk.written()? / f64::from(SINGLE);

    for share in 0..SHARES {
        disk.set_interval(INTERVAL * 1_000)?;
        let mut events = disk.events()?;
        // Clients renew in no order that the table has.
        for at in (share..CLIENTS).step_by(SHARES as usize) {
            clients[(at * STRIDE % CLIENTS) as usize].renew()?;
            events += 2;
        }
        wait_until("the agent to hear of the renewals", PATIENCE, || Ok(disk.events()? >= events))?;
        // The end of the interval.
        disk.set_interval(0)?;
        disk.settle()?;
    }
    let shared = disk.written()? / f64::from(CLIENTS);
    let note = format!(
        "{} clients, leases of an hour; one transaction for the renewals of ten minutes",
        number(CLIENTS.into())
    );
    let row = Row::new("store_interval_ms 600000: written for one renewal", shared, "B");
    report.add(&row.at_most(2_048.0).note(note));
    let row = Row::new("store_interval_ms 100: written for one renewal", single, "B");
    report.add(&row.note("the default; a transaction for each renewal"));

    disk.set_interval(100)?;
    let device = &mut clients[0];
    let mut change = |number: u32| -> Result<()> {
        device.options = identity("00256D", &format!("OTHER{number}"), "STB");
        device.renew().map(drop)
    };
    // The first ones are a burst.
    (0..20).try_for_each(&mut change)?;
    disk.settle()?;
    disk.written()?;
    let changes = u32::try_from(WINDOW.as_secs())? * CHANGES_A_SECOND;
    for number in 0..changes {
        change(1_000 + number)?;
        thread::sleep(WINDOW / changes);
    }
    ensure!(disk.rows()? == u64::from(CLIENTS + SINGLE), "{} rows are left", disk.rows()?);
    let a_day = disk.written()? * 86_400.0 / WINDOW.as_secs_f64() / f64::from(1 << 20);
    let note = format!("{CHANGES_A_SECOND} identities a second; from {} s, without the burst", WINDOW.as_secs());
    let row = Row::new("a device that changes its identity all the time: written a day", a_day, "MiB");
    report.add(&row.at_most(256.0).note(note));
    Ok(())
}

/// The disk, as the agent uses it.
struct Disk<'a> {
    agent: Agent<'a>,
    /// Bytes that were written when it was last looked at.
    before: u64,
}

impl Disk<'_> {
    fn total(&mut self) -> Result<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.agent.process().id()))?;
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
        Ok(bytes.parse()?)
    }

    /// Waits until nothing is written any more.
    fn settle(&mut self) -> Result<()> {
        let mut last = self.total()?;
        wait_until("a quiet store", PATIENCE, || {
            thread::sleep(APART);
            let now = self.total()?;
            Ok(std::mem::replace(&mut last, now) == now)
        })
    }

    /// What is written counts from now on.
    fn rest(&mut self) -> Result<()> {
        self.settle()?;
        self.before = self.total()?;
        Ok(())
    }

    /// Bytes that were written since it was last asked.
    #[expect(clippy::cast_precision_loss, reason = "far from 2^53 bytes")]
    fn written(&mut self) -> Result<f64> {
        self.settle()?;
        let now = self.total()?;
        let written = now - std::mem::replace(&mut self.before, now);
        ensure!(written > 0, "nothing was written");
        Ok(written as f64)
    }

    fn set_interval(&self, milliseconds: u32) -> Result<()> {
        self.agent.print(&["tune", &format!("agent.store_interval_ms={milliseconds}")]).map(drop)
    }

    fn rows(&self) -> Result<u64> {
        Ok(self.agent.metrics()?.sum("tr111_manageable_devices", &[]))
    }

    /// Events of the LAN that the agent has acted on.
    fn events(&self) -> Result<u64> {
        Ok(self.agent.metrics()?.sum("tr111_event_latency_seconds_count", &[]))
    }
}
