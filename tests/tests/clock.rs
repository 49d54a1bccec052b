//! Clocks that are wrong: by minutes, days and years, ahead and behind, in all roles, and over restarts of the agent.

use std::{
    fs,
    net::{SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tr111::service::Clock;
use tr111_core::{
    connreq::{Credential, Datagram, LastAccepted, Listener, Settings},
    secret::SharedSecret,
    stun::{Attribute, Builder, MessageType, TransactionId, Username, Variant},
    time::UnixTime,
};
use tr111_tests::{
    acs,
    agent::{Agent, Files, SOON},
    client::Client,
    clock::{DAY, STEPS, TestClock, YEAR},
    cpe::{self, DEVICE, PASSWORD, STUN_PASSWORD, USERNAME, request, unix_now, wait_for_count, watch},
    lab::{GATEWAY, Lab, POOL},
    namespace::Namespace,
    redis::Redis,
    responder::Responder,
    vectors::{D1, hex},
    wait::{pass, wait_for},
    wire::Wire,
};

const REQUESTS: &str = "tr111_connection_requests_total";
/// What a busy machine may add to a time.
const SLACK: u64 = 30;

/// The real time, moved by `ahead` seconds.
fn stepped(ahead: i64) -> Result<u64> {
    unix_now()?.checked_add_signed(ahead).context("a time before 1970")
}

// ---- gateway ----

fn start_gateway<'a>(lab: &'a Lab, files: Files, clock: &TestClock) -> Result<Agent<'a>> {
    // The station of these stories answers no ARP.
    let config = lab.write("gateway.toml", "[gateway.association]\nprobe_interval_s = 3600\n")?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &["--config", &config])?;
    Agent::start_command(&lab.gateway, files, clock.give(&mut command), lab.path())
}

/// T-30, T-31: a row stays as it is whatever the clock says, while the agent runs and over its restart; the end of the lease
/// is shown by the clock as it is.
#[test]
fn a_row_outlives_every_step() -> Result<()> {
    const LEASE: u32 = 6_000;
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE)?;
    let clock = TestClock::new(lab.path(), "clock")?;
    let mut agent = start_gateway(&lab, Files::new(lab.path(), "agent")?, &clock)?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    let end = unix_now()? + u64::from(LEASE);
    agent.wait_for_rows(1, SOON)?;
    for step in STEPS {
        for is_restarted in [false, true] {
            clock.set(step, true)?;
            if is_restarted {
                agent = start_gateway(&lab, agent.kill()?, &clock)?;
            }
            let rows = agent.devices()?;
            assert_eq!(rows.iter().map(|row| row.instance).collect::<Vec<_>>(), [1], "{step} {is_restarted}");
            let shown = rows[0].bindings[0].lease_expires.clone().context("no lease")?;
            let end = end.checked_add_signed(step).context("a time before 1970")?;
            let range = [end - SLACK, end + SLACK].map(|time| Clock::rfc3339_of(UnixTime(time)));
            ensure!(range[0] <= shown && shown <= range[1], "{shown} is not within {range:?}");
        }
    }
    Ok(())
}

/// T-31: a lease ends after its time, and not when the clock says so.
#[test]
fn a_lease_ends_after_its_time() -> Result<()> {
    const LEASE: u64 = 6;
    for step in [10 * YEAR, -10 * YEAR] {
        let lab = Lab::new()?;
        let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE as u32)?;
        let clock = TestClock::new(lab.path(), "clock")?;
        let agent = start_gateway(&lab, Files::new(lab.path(), "agent")?, &clock)?;
        let wire = Wire::open(&lab.lan, "eth0")?;
        Client::new(&wire, 1, hex(D1)).bind()?;
        let bound = Instant::now();
        agent.wait_for_rows(1, SOON)?;
        clock.set(step, true)?;
        agent.wait_for_rows(0, SOON * 2)?;
        ensure!(bound.elapsed() >= Duration::from_secs(LEASE), "{step}: after {:?}", bound.elapsed());
    }
    Ok(())
}

/// T-56: the gateway's own Connection Requests come through while its clock is not synchronised.
#[test]
fn a_gateway_hears_requests_while_its_clock_is_behind() -> Result<()> {
    const AT: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 7547);
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let clock = TestClock::new(lab.path(), "clock")?;
    clock.set(-10 * YEAR, false)?;
    let config = cpe::config(&lab, "")?;
    let files = Files::new(lab.path(), "agent")?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &["--config", &config])?;
    let gateway = Agent::start_command(&lab.gateway, files, clock.give(&mut command), lab.path())?;
    let sender = lab.lan.enter(|| UdpSocket::bind("10.111.2.5:3478"))?;
    sender.send_to(&request(AT, unix_now()?, 1, PASSWORD)?, AT)?;
    wait_for_count(&gateway, REQUESTS, "accepted", 1)
}

// ---- device ----

fn start_device<'a>(lab: &'a Lab, files: Files, clock: &TestClock) -> Result<Agent<'a>> {
    let mut command = cpe::command(lab, &files, "")?;
    Agent::start_command(&lab.lan, files, clock.give(&mut command), lab.path())
}

/// T-56, UCR-10: until a device's clock is synchronised, every genuine request is taken, however wrong the clock is, and over
/// restarts; of `ts` only what no clock says is refused. A replay is refused in any case.
#[test]
fn a_device_hears_requests_until_its_clock_is_synchronised() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let clock = TestClock::new(lab.path(), "clock")?;
    let acs = lab.gateway.enter(|| UdpSocket::bind("10.111.0.1:3478"))?;
    let mut device = start_device(&lab, Files::new(lab.path(), "device")?, &clock)?;
    let mut timestamp = unix_now()?;
    for (id, step) in (1..).zip(STEPS) {
        clock.set(step, false)?;
        for is_restarted in [false, true] {
            if is_restarted {
                device = start_device(&lab, device.kill()?, &clock)?;
                // The last one of the agent before.
                acs.send_to(&request(DEVICE, timestamp, 100 + id, PASSWORD)?, DEVICE)?;
                wait_for_count(&device, REQUESTS, "stale_timestamp", 1).with_context(|| step.to_string())?;
            }
            let mut watcher = watch(&device, &lab)?;
            let accepted = device.metrics()?.sum(REQUESTS, &[("result", "accepted")]);
            timestamp += 1;
            acs.send_to(&request(DEVICE, timestamp, 2 * id + u64::from(is_restarted), PASSWORD)?, DEVICE)?;
            wait_for_count(&device, REQUESTS, "accepted", accepted + 1)
                .with_context(|| format!("{step} {is_restarted}"))?;
            // What was told is remembered over a crash.
            watcher.wait_for_line("\"accepted\"", SOON)?;
        }
    }
    // SEC-5: a digit that was moved from `id` is still found out.
    acs.send_to(&request(DEVICE, timestamp * 10, 51, PASSWORD)?, DEVICE)?;
    wait_for_count(&device, REQUESTS, "future_timestamp", 1)?;
    Ok(())
}

/// UCR-10, T-56: a synchronised clock bounds `ts` to a day ahead of it, as soon as it is synchronised and no longer.
#[test]
fn a_synchronised_clock_bounds_ts() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let clock = TestClock::new(lab.path(), "clock")?;
    let acs = lab.gateway.enter(|| UdpSocket::bind("10.111.0.1:3478"))?;
    let device = start_device(&lab, Files::new(lab.path(), "device")?, &clock)?;
    let (mut timestamp, mut accepted, mut refused) = (unix_now()?, 0, 0);
    for (id, (step, is_synchronised)) in (1..).zip(STEPS.into_iter().flat_map(|step| [(step, true), (step, false)])) {
        clock.set(step, is_synchronised)?;
        timestamp += 1;
        acs.send_to(&request(DEVICE, timestamp, id, PASSWORD)?, DEVICE)?;
        if is_synchronised && step < -DAY {
            refused += 1;
            wait_for_count(&device, REQUESTS, "future_timestamp", refused)?;
        } else {
            accepted += 1;
            wait_for_count(&device, REQUESTS, "accepted", accepted)
                .with_context(|| format!("{step} {is_synchronised}"))?;
        }
    }
    Ok(())
}

/// T-31: a device renews its lease in time whatever the clock says, and has it after a restart.
#[test]
fn a_device_keeps_its_lease_over_every_step() -> Result<()> {
    const LEASE: u32 = 6;
    let lab = Lab::new()?;
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, LEASE)?;
    let clock = TestClock::new(lab.path(), "clock")?;
    let start = |files: Files| {
        let mut command = files.run_device(&lab.lan, "eth0", "dhcp", &[])?;
        let logs = lab.path().join("device-logs");
        fs::create_dir_all(&logs)?;
        Agent::start_command(&lab.lan, files, clock.give(&mut command), &logs)
    };
    let has_address = || Ok(lab.lan.ip("addr show dev eth0")?.contains("10.111.1.1/16").then_some(()));
    let mut device = start(Files::new(lab.path(), "device")?)?;
    wait_for("the first address", SOON, has_address)?;
    for step in STEPS {
        clock.set(step, true)?;
        // Half of the lease, and no more.
        let before = server.answers();
        wait_for("a renewal", Duration::from_secs(u64::from(LEASE)), || Ok((server.answers() > before).then_some(())))?;
        device = start(device.kill()?)?;
        wait_for("the address again", SOON, has_address)?;
    }
    pass(Duration::from_secs(u64::from(LEASE)))?;
    ensure!(has_address()?.is_some(), "the address is gone");
    Ok(())
}

// ---- ACS ----

/// A CPE whose clock is right: a socket behind which requests are taken.
struct Cpe {
    socket: UdpSocket,
    listener: Listener,
}

impl Cpe {
    fn new(lab: &Lab, address: &str) -> Result<Self> {
        let socket = lab.lan.enter(|| UdpSocket::bind(address))?;
        socket.set_read_timeout(Some(SOON))?;
        let credential = Credential::new(USERNAME.as_bytes(), PASSWORD.as_bytes());
        Ok(Self { socket, listener: Listener::new(credential, Settings::default(), LastAccepted::default()) })
    }

    /// Moves to another port.
    fn move_to(&mut self, lab: &Lab, address: &str) -> Result<()> {
        self.socket = lab.lan.enter(|| UdpSocket::bind(address))?;
        Ok(self.socket.set_read_timeout(Some(SOON))?)
    }

    /// Signs a Binding Request that tells of a change.
    fn sign(&self, server: &str, name: &str, id: u64) -> Result<()> {
        let message = Builder::new(MessageType::BindingRequest, TransactionId(u128::from(id).to_be_bytes()))
            .attribute(Attribute::ConnectionRequestBinding)
            .attribute(Attribute::BindingChange)
            .attribute(Attribute::Username(Username(name.as_bytes())));
        self.socket.send_to(&message.sign(&SharedSecret::new(STUN_PASSWORD.as_bytes()), Variant::A), server)?;
        let mut answer = [0; 2_048];
        let length = self.socket.recv(&mut answer).context("no answer")?;
        // A Binding Response with MESSAGE-INTEGRITY.
        ensure!(length == 80 && answer[..2] == [1, 1], "{length} bytes {:?}", &answer[..2]);
        Ok(())
    }

    /// The next Connection Request is taken.
    fn is_woken(&mut self) -> Result<()> {
        let mut buffer = [0; 2_048];
        let length = self.socket.recv(&mut buffer).context("no Connection Request")?;
        let now = Some(UnixTime(unix_now()?));
        let taken = self.listener.receive(now, Datagram(&buffer[..length]));
        taken.map(drop).with_context(|| String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

fn start_acs<'a>(
    namespace: &'a Namespace,
    lab: &Lab,
    files: Files,
    clock: &TestClock,
    keys: &str,
) -> Result<Agent<'a>> {
    let mut command = acs::command(namespace, &files, lab.path(), keys)?;
    Agent::start_command(namespace, files, clock.give(&mut command), lab.path())
}

/// `ts` of a Connection Request to the CPE of a name.
fn wake(acs: &Agent<'_>, name: &str) -> Result<u64> {
    let sent = acs.json(&["connreq", "send", "--cpe", name, "--copies", "1"])?;
    sent["timestamp"].as_u64().with_context(|| format!("no timestamp in {sent}"))
}

fn is_about(timestamp: u64, expected: u64) -> Result<()> {
    ensure!(timestamp.abs_diff(expected) <= SLACK, "{timestamp}, and not {expected}");
    Ok(())
}

/// Both kinds of registry, each with its Redis if it has one.
fn registries(lab: &Lab) -> Result<[(Option<Redis<'_>>, String); 2]> {
    let redis = Redis::start_in(&lab.gateway, GATEWAY, None)?;
    let keys = format!("registry = \"{}\"", redis.url());
    Ok([(None, String::new()), (Some(redis), keys)])
}

/// T-54: a glitch of the ACS's clock, and a restart in it, reach no CPE; it is an alarm, which ends with it.
#[test]
fn a_glitch_of_the_clock_reaches_no_cpe() -> Result<()> {
    const AHEAD: i64 = 400 * DAY;
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    for (number, (_redis, keys)) in registries(&lab)?.into_iter().enumerate() {
        let clock = TestClock::new(lab.path(), &format!("clock{number}"))?;
        let files = Files::new(lab.path(), &format!("acs{number}"))?;
        let mut acs = start_acs(&lab.gateway, &lab, files, &clock, &keys)?;
        let names = ["CPE1", "CPE2"];
        let mut cpes = Vec::new();
        for (port, name) in (7547 + 2 * number..).zip(names) {
            acs::add(&acs, lab.path(), name, Some(STUN_PASSWORD))?;
            let cpe = Cpe::new(&lab, &format!("10.111.2.5:{port}"))?;
            cpe.sign("10.111.0.1:3478", name, 1)?;
            cpes.push(cpe);
        }
        let alarms = |acs: &Agent<'_>| Ok::<_, anyhow::Error>(acs.json(&["status"])?["acs"]["clock_ahead_s"].as_u64());
        assert_eq!(alarms(&acs)?, None);
        for is_restarted in [false, true] {
            clock.set(AHEAD, true)?;
            if is_restarted {
                acs = start_acs(&lab.gateway, &lab, acs.kill()?, &clock, &keys)?;
            }
            is_about(wake(&acs, "CPE1")?, unix_now()?)?;
            cpes[0].is_woken()?;
            is_about(alarms(&acs)?.context("no alarm")?, AHEAD as u64)?;
            let counted = acs.metrics()?.sum("tr111_acs_alarms_total", &[("alarm", "clock_ahead")]);
            assert_eq!(counted, 1);
            ensure!(acs.print(&["status"])?.contains("NOT BELIEVED"));
            ensure!(acs.log().contains("reset-timestamp --all"), "{}", acs.log());
        }
        clock.set(0, true)?;
        assert_eq!(alarms(&acs)?, None);
        for (cpe, name) in cpes.iter_mut().zip(names) {
            is_about(wake(&acs, name)?, unix_now()?)?;
            cpe.is_woken()?;
        }
    }
    Ok(())
}

/// T-54: `ts` of the future that was sent to one CPE, as at a first start with a wrong clock, is that CPE's alone, over a
/// restart, and is reset by name or for all.
#[test]
fn a_timestamp_is_reset() -> Result<()> {
    const AHEAD: i64 = 400 * DAY;
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    for (number, (_redis, keys)) in registries(&lab)?.into_iter().enumerate() {
        let clock = TestClock::new(lab.path(), &format!("clock{number}"))?;
        clock.set(AHEAD, false)?;
        let files = Files::new(lab.path(), &format!("acs{number}"))?;
        let mut acs = start_acs(&lab.gateway, &lab, files, &clock, &keys)?;
        let names = ["CPE1", "CPE2", "CPE3"];
        let cpe = Cpe::new(&lab, &format!("10.111.2.5:{}", 7547 + number))?;
        for (id, name) in (1..).zip(names) {
            acs::add(&acs, lab.path(), name, Some(STUN_PASSWORD))?;
            cpe.sign("10.111.0.1:3478", name, id)?;
        }
        for name in &names[..2] {
            is_about(wake(&acs, name)?, stepped(AHEAD)?)?;
        }
        clock.set(0, false)?;
        acs = start_acs(&lab.gateway, &lab, acs.kill()?, &clock, &keys)?;
        is_about(wake(&acs, "CPE3")?, unix_now()?)?;
        is_about(wake(&acs, "CPE1")?, stepped(AHEAD)?)?;
        acs.print(&["cpe", "reset-timestamp", "CPE1"])?;
        is_about(wake(&acs, "CPE1")?, unix_now()?)?;
        is_about(wake(&acs, "CPE2")?, stepped(AHEAD)?)?;
        // The time that was good at the first start is, so far: it is not ahead of it.
        acs.print(&["cpe", "reset-timestamp", "--all"])?;
        is_about(wake(&acs, "CPE2")?, unix_now()?)?;
        // And now the clock is good as it is.
        clock.set(AHEAD, false)?;
        is_about(wake(&acs, "CPE3")?, unix_now()?)?;
        acs.print(&["cpe", "reset-timestamp", "--all"])?;
        is_about(wake(&acs, "CPE3")?, stepped(AHEAD)?)?;
        let unknown = acs.ask(&["cpe", "reset-timestamp", "nobody"])?;
        assert_eq!(unknown.status.code(), Some(1));
        assert_eq!(acs.ask(&["cpe", "reset-timestamp"])?.status.code(), Some(2));
    }
    Ok(())
}

/// T-54, T-65: over every step and every restart, the latest signed binding is where requests go, and a CPE whose clock is
/// right takes each of them. When the clock is right again, nothing is of the future.
#[test]
fn an_acs_reaches_its_cpe_over_every_step() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    for (number, (_redis, keys)) in registries(&lab)?.into_iter().enumerate() {
        let clock = TestClock::new(lab.path(), &format!("clock{number}"))?;
        let files = Files::new(lab.path(), &format!("acs{number}"))?;
        let mut acs = start_acs(&lab.gateway, &lab, files, &clock, &keys)?;
        acs::add(&acs, lab.path(), USERNAME, Some(STUN_PASSWORD))?;
        let mut port = 10_000 * (1 + number);
        let mut cpe = Cpe::new(&lab, &format!("10.111.2.5:{port}"))?;
        for step in STEPS.into_iter().chain([0]) {
            clock.set(step, true)?;
            for is_restarted in [false, true] {
                if is_restarted {
                    acs = start_acs(&lab.gateway, &lab, acs.kill()?, &clock, &keys)?;
                }
                port += 1;
                let address = format!("10.111.2.5:{port}");
                cpe.move_to(&lab, &address)?;
                cpe.sign("10.111.0.1:3478", USERNAME, port as u64)?;
                wake(&acs, USERNAME)?;
                cpe.is_woken().with_context(|| format!("{step} {is_restarted} {keys}"))?;
            }
        }
        let known = acs.json(&["cpe", "list"])?["cpes"][0].clone();
        let now = Clock::rfc3339_of(UnixTime(unix_now()? + 1));
        for key in ["changed", "last_seen"] {
            ensure!(known[key].as_str().is_some_and(|time| time <= now.as_str()), "{key} in {known}");
        }
    }
    Ok(())
}

/// T-65: of two servers on one Redis, one has a clock that is years ahead since its first start. What the other learns
/// counts at both, and is not of the past.
#[test]
fn a_server_with_a_wrong_clock_decides_nothing() -> Result<()> {
    let lab = Lab::new()?;
    for address in ["10.111.0.2", "10.111.2.5"] {
        lab.lan.ip(&format!("addr add {address}/16 dev eth0"))?;
    }
    let redis = Redis::start_in(&lab.gateway, GATEWAY, None)?;
    let keys = format!("registry = \"{}\"", redis.url());
    let [wrong, right] = ["wrong", "right"].map(|name| TestClock::new(lab.path(), name));
    let (wrong, right) = (wrong?, right?);
    wrong.set(10 * YEAR, true)?;
    let one = start_acs(&lab.gateway, &lab, Files::new(lab.path(), "one")?, &wrong, &keys)?;
    let other = start_acs(&lab.lan, &lab, Files::new(lab.path(), "other")?, &right, &keys)?;
    acs::add_cpe(&one, lab.path())?;
    let known = |acs: &Agent<'_>, address: &str| {
        wait_for(&format!("{address} at both"), SOON, || {
            let cpes = acs.json(&["cpe", "list"])?;
            Ok((cpes["cpes"][0]["address"] == address).then(|| cpes["cpes"][0].clone()))
        })
    };
    let mut cpe = Cpe::new(&lab, "10.111.2.5:7001")?;
    cpe.sign("10.111.0.1:3478", USERNAME, 1)?;
    known(&other, "10.111.2.5:7001")?;
    for (id, (server, port)) in (2..).zip([("10.111.0.2", 7002), ("10.111.0.1", 7003), ("10.111.0.2", 7004)]) {
        let address = format!("10.111.2.5:{port}");
        cpe.move_to(&lab, &address)?;
        cpe.sign(&format!("{server}:3478"), USERNAME, id)?;
        known(&one, &address)?;
        known(&other, &address)?;
    }
    let now = Clock::rfc3339_of(UnixTime(unix_now()? + 1));
    let shown = known(&other, "10.111.2.5:7004")?;
    ensure!(shown["changed"].as_str().is_some_and(|time| time <= now.as_str()), "{shown}");
    Ok(())
}
