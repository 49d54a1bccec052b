//! The agent is killed again and again while devices come, and each time another takes over. What is counted must be 0:
//! devices without a row, devices with two, notifications that come again although they were acknowledged or never
//! come, and answers with fewer entries than before.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use tr111::control::{
    Client, ClientError,
    message::{Attribute, Device, Happening, Reply, Request},
};

use super::{Report, Row, report::number};
use crate::{
    agent::{Files, binary},
    lab::{GATEWAY, Lab, POOL},
    process::Process,
    responder::Responder,
    wait::{pass, wait_for},
};

const KILLS: usize = 50;
/// The time in which they come.
const WINDOW: Duration = Duration::from_secs(80);
/// Exchanges a second, each of a new device.
const RATE: u32 = 500;
const DEVICES: u32 = 40_000;
/// A lease that nobody renews meanwhile.
const LEASE: u32 = 3_600;
/// How long an agent may take to answer at all.
const START: Duration = Duration::from_secs(30);
/// Kills between two looks at the whole table.
const KILLS_A_LOOK: usize = 10;
/// Notifications that are acknowledged together.
const ACKNOWLEDGED: u64 = 20;
/// Pause of who finds no agent, or has its answer.
const PAUSE: Duration = Duration::from_millis(5);

const ENTRIES: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
const LIMIT: &str = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";

/// 50 SIGKILLs at random moments during 500 exchanges a second.
pub(super) fn kills(report: &mut Report) -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE)?;
    let mut gateway = Gateway { files: Files::new(lab.path(), "agent")?, lab: &lab, process: None };
    gateway.start()?;
    let control = gateway.files.control();
    configure(&control)?;

    let stop = AtomicBool::new(false);
    let seen = Mutex::new(Seen::default());
    let told = Mutex::new(Told::default());
    let outcome = thread::scope(|scope| {
        scope.spawn(|| watch_entries(&control, &stop, &seen));
        scope.spawn(|| subscribe(&control, &stop, &told));
        let outcome = story(&mut gateway, &control, &told);
        stop.store(true, Ordering::SeqCst);
        // Ends the subscription, whatever it waits for.
        drop(gateway.process.take());
        outcome
    })?;

    let Outcome { lost, renumbered, duplicates, rate, early } = outcome;
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    let title = format!("{KILLS} SIGKILLs at {RATE} exchanges/s: ");
    let zero = |what: &str, count: u64, note: String| {
        Row::new(format!("{title}{what}"), f64::from(u32::try_from(count).unwrap_or(u32::MAX)), "")
            .at_most(0.0)
            .note(note)
    };
    let whole = |count: u64| number(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    let note = format!(
        "{} devices, {} a second; {early} agents killed before they answered",
        whole(DEVICES.into()),
        number(rate.round())
    );
    report.add(&zero("associations lost", lost, note));
    report.add(&zero("duplicate rows", duplicates, String::new()));
    report.add(&zero("rows with another number than before", renumbered, String::new()));
    let note = format!("{} told, up to {} acknowledged", whole(told.received), whole(told.acknowledged));
    report.add(&zero("acknowledged notifications told again", told.repeated, note));
    report.add(&zero("notifications left out, or out of order", told.left_out, String::new()));
    let untold = seen.entries.abs_diff(told.entries);
    report.add(&zero(
        "entries that no notification tells of",
        untold,
        format!("the last tells of {}", whole(told.entries)),
    ));
    let note = format!("{} answers, the last {}", whole(seen.answers), whole(seen.entries));
    report.add(&zero("dips of NumberOfEntries", seen.dips, note));
    Ok(())
}

/// The agent under fire.
struct Gateway<'a> {
    files: Files,
    lab: &'a Lab,
    process: Option<Process>,
}

impl Gateway<'_> {
    fn start(&mut self) -> Result<()> {
        let mut command = self.files.run_gateway(&self.lab.gateway, &["lan0"], &[])?;
        self.process = Some(Process::start("tr111", &mut command, self.lab.path())?);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { bail!("no agent runs") };
        if let Some(status) = process.try_status()? {
            bail!("the agent ended by itself ({status}):\n{}", process.complaint());
        }
        process.signal(Signal::SIGKILL)?;
        process.wait(START)?;
        Ok(())
    }
}

/// Every change of the number of entries is told, at once.
fn configure(control: &Path) -> Result<()> {
    let mut client = wait_for("answer of the agent", START, || Ok(Client::connect(control).ok()))?;
    let notify = Request::Notify { path: ENTRIES.to_owned(), attribute: Attribute::Active };
    let limit = Request::Set { parameters: vec![(LIMIT.to_owned(), "0".to_owned())], by_acs: false };
    for request in [notify, limit] {
        let reply = client.ask(&request)?;
        if reply != Reply::Done {
            bail!("{request:?}: {reply:?}");
        }
    }
    Ok(())
}

/// What became of the devices.
struct Outcome {
    lost: u64,
    /// Rows that were shown with one instance number, and later with another.
    renumbered: u64,
    duplicates: u64,
    /// Agents that were killed before they answered anybody.
    early: usize,
    /// Devices a second.
    rate: f64,
}

fn story(gateway: &mut Gateway<'_>, control: &Path, told: &Mutex<Told>) -> Result<Outcome> {
    let mut command = gateway.lab.lan.command(binary()?);
    command.args(["sim", "devices", "--iface", "eth0", "--vanish", "--deadline", "200"]);
    command.args(["--rate", &RATE.to_string(), "--count", &DEVICES.to_string()]);
    let begin = Instant::now();
    let mut devices = Process::start("sim", &mut command, gateway.lab.path())?;
    let mut known = Known::default();
    let mut early = 0;
    for (number, moment) in moments().into_iter().enumerate() {
        pass((begin + moment).saturating_duration_since(Instant::now()))?;
        early += usize::from(Client::connect(control).is_err());
        gateway.kill()?;
        gateway.start()?;
        if number % KILLS_A_LOOK == KILLS_A_LOOK - 1 {
            let rows = wait_for("the rows", START, || Ok(rows(control).ok()))?;
            known.take(&rows);
        }
    }
    devices.wait_for_line("devices bound", Duration::from_mins(2))?;
    let rate = f64::from(DEVICES) / begin.elapsed().as_secs_f64();
    // What is under way arrives; what does not is counted.
    let mut all = Vec::new();
    let complete = wait_for("every row, and the notification of the last", START, || {
        all = rows(control).unwrap_or_default();
        let entries = told.lock().unwrap_or_else(PoisonError::into_inner).entries;
        Ok((all.len() == DEVICES as usize && entries == u64::from(DEVICES)).then_some(()))
    });
    if let Err(error) = complete {
        eprintln!("{error:#}");
    }
    known.take(&all);
    let never = (1..=DEVICES).filter(|number| !known.rows.contains_key(&format!("SIM{number:06}"))).count();
    let mut macs: Vec<_> = all.iter().flat_map(|row| &row.bindings).map(|binding| &binding.mac).collect();
    let bindings = macs.len();
    macs.sort_unstable();
    macs.dedup();
    let duplicates = all.len() - known.rows.len() + bindings - macs.len();
    Ok(Outcome {
        lost: known.lost + never as u64,
        renumbered: known.renumbered,
        duplicates: duplicates as u64,
        rate,
        early,
    })
}

/// The rows as they were shown last: instance number by serial number.
#[derive(Default)]
struct Known {
    rows: HashMap<String, u32>,
    lost: u64,
    renumbered: u64,
}

impl Known {
    fn take(&mut self, rows: &[Device]) {
        let now: HashMap<_, _> = rows.iter().map(|row| (row.serial_number.clone(), row.instance)).collect();
        for (serial_number, instance) in &self.rows {
            match now.get(serial_number) {
                None => self.lost += 1,
                Some(found) => self.renumbered += u64::from(found != instance),
            }
        }
        self.rows = now;
    }
}

/// Random moments of the window, in order.
fn moments() -> Vec<Duration> {
    let random = || {
        use std::hash::{BuildHasher, Hasher, RandomState};
        // Keyed by the system's randomness.
        RandomState::new().build_hasher().finish()
    };
    let span = WINDOW.as_millis() as u64;
    let mut moments: Vec<_> = (0..KILLS).map(|_| Duration::from_millis(random() % span)).collect();
    moments.sort_unstable();
    moments
}

fn rows(control: &Path) -> Result<Vec<Device>, ClientError> {
    let mut client = Client::connect(control)?;
    let mut rows: Vec<Device> = Vec::new();
    let mut reply = client.ask(&Request::Devices)?;
    loop {
        let Reply::Devices { devices, more } = reply else { return Err(ClientError::OutOfTurn) };
        for device in devices {
            match rows.last_mut().filter(|last| last.instance == device.instance) {
                Some(continued) => continued.bindings.extend(device.bindings),
                None => rows.push(device),
            }
        }
        if !more {
            return Ok(rows);
        }
        reply = client.next_reply()?;
    }
}

/// What the number of entries was, in every answer.
#[derive(Default)]
struct Seen {
    answers: u64,
    entries: u64,
    dips: u64,
}

/// Asks for the number of entries without end. Devices only come, so it never falls.
fn watch_entries(control: &Path, stop: &AtomicBool, seen: &Mutex<Seen>) {
    let request = Request::Get { paths: vec![ENTRIES.to_owned()] };
    while !stop.load(Ordering::SeqCst) {
        if let Ok(mut client) = Client::connect(control) {
            while let Ok(Reply::Parameters { parameters, .. }) = client.ask(&request) {
                let entries = parameters.first().and_then(|entries| entries.value.parse().ok()).unwrap_or(0);
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.answers += 1;
                seen.dips += u64::from(entries < seen.entries);
                seen.entries = entries;
                drop(seen);
                thread::sleep(PAUSE);
            }
        }
        thread::sleep(PAUSE);
    }
}

/// What came by the subscription.
#[derive(Default)]
struct Told {
    received: u64,
    /// The highest sequence number that the agent took an acknowledgement for.
    acknowledged: u64,
    /// The highest sequence number that came.
    latest: u64,
    /// The number of entries that it told of.
    entries: u64,
    repeated: u64,
    left_out: u64,
}

impl Told {
    /// `first`: of its subscription.
    fn take(&mut self, sequence: u64, first: bool, previous: u64) {
        self.received += 1;
        self.repeated += u64::from(sequence <= self.acknowledged);
        // A new subscription begins with what nobody acknowledged; from then on they come one after the other.
        let in_order = if first { sequence <= self.latest + 1 } else { sequence == previous + 1 };
        self.left_out += u64::from(!in_order);
        self.latest = self.latest.max(sequence);
    }
}

/// Subscribes without end, and acknowledges some of what comes.
fn subscribe(control: &Path, stop: &AtomicBool, told: &Mutex<Told>) {
    while !stop.load(Ordering::SeqCst) {
        // It ends with its agent.
        let _ = subscription(control, told);
        thread::sleep(PAUSE);
    }
}

fn subscription(control: &Path, told: &Mutex<Told>) -> Result<(), ClientError> {
    let mut client = Client::connect(control)?;
    let mut acknowledging = Client::connect(control)?;
    client.ask(&Request::Subscribe { from_sequence: 0 })?;
    client.be_patient()?;
    let mut previous = None;
    loop {
        let Reply::Event(event) = client.next_reply()? else { continue };
        let Happening::Notification(notification) = event.what else { continue };
        let sequence = notification.sequence;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.take(sequence, previous.is_none(), previous.unwrap_or_default());
        let entries = notification.parameters.iter().find(|parameter| parameter.name == ENTRIES);
        if let Some(entries) = entries.and_then(|entries| entries.value.parse().ok()) {
            told.entries = entries;
        }
        previous = Some(sequence);
        if sequence % ACKNOWLEDGED == 0 && acknowledging.ask(&Request::Acknowledge { sequence })? == Reply::Done {
            told.acknowledged = sequence;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_after_its_acknowledgement_or_not_at_all_is_counted() {
        let mut told = Told::default();
        told.take(1, true, 0);
        told.take(2, false, 1);
        told.acknowledged = 1;
        told.take(2, true, 0);
        assert_eq!((told.repeated, told.left_out), (0, 0));
        told.take(4, false, 2);
        assert_eq!((told.repeated, told.left_out), (0, 1));
        told.take(1, true, 0);
        assert_eq!((told.repeated, told.left_out), (1, 1));
        told.take(6, true, 0);
        assert_eq!((told.repeated, told.left_out), (1, 2));
    }
}
