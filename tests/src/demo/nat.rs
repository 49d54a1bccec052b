//! TR-111 Part 2 in four minutes: a device behind a NAT finds out how often it has to speak, with the gateway's longer
//! timeout and without, and is woken through the NAT.

use std::{
    io::{Write, stdout},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::stage::{ask, heading, show, typed};
use crate::{
    agent::{Agent, Files, GATEWAY_IDENTITY, SOON, binary},
    cpe::{self, PASSWORD, USERNAME},
    nat::{LENT, NatLab, PUBLIC, SERVER, lending},
    process::run,
    wait::{pass, wait_for, wait_until},
};

/// What the NAT gives a flow, in seconds: a fifth of what Linux does.
const NAT_TIMEOUT: u32 = 6;
/// What the extension gives it, in seconds.
const EXTENDED: u32 = 60;
/// For how long the device has said nothing when it is woken.
const SILENCE: Duration = Duration::from_secs(20);
/// No search here takes longer.
const SEARCH: Duration = Duration::from_mins(4);

/// What a device found out.
#[derive(Debug)]
struct Learned {
    period: Duration,
    took: Duration,
    tests: u64,
}

impl Learned {
    fn keep_alives_per_hour(&self) -> f64 {
        3_600.0 / self.period.as_secs_f64()
    }
}

/// Tells it.
///
/// # Errors
/// A tool is missing, or the story went another way.
pub fn demonstrate() -> Result<()> {
    let started = Instant::now();
    println!(
        "An ACS cannot call a device behind a NAT. So the device (TR-111 Part 2) keeps a binding of the NAT open, by"
    );
    println!(
        "STUN requests, often enough that the NAT never forgets it; the ACS wakes it by a signed datagram to that"
    );
    println!(
        "binding. How often that is, the device has to find out, and a gateway that knows of it can make it less."
    );

    heading(1, "A network: a device, a gateway that translates addresses, and a public STUN server");
    let net = NatLab::new("masquerade fully-random")?;
    net.set_timeouts(NAT_TIMEOUT, NAT_TIMEOUT)?;
    println!("\n   device 10.111.2.5 -- lan0 [ gateway: nft masquerade, tr111 ] wan0 {PUBLIC} -- {SERVER} stund");
    typed(&format!("sysctl -w net.netfilter.nf_conntrack_udp_timeout={NAT_TIMEOUT} \\"));
    println!("            net.netfilter.nf_conntrack_udp_timeout_stream={NAT_TIMEOUT}");
    println!("   Linux has 30 s and 120 s here. The demo has less time than that.");
    let _stund = net.stund()?;
    let mut gateway = start_gateway(&net)?;

    heading(2, &format!("The gateway leaves the NAT as it is: flows live {NAT_TIMEOUT} s"));
    let plain = learn(&net, "first")?;

    heading(3, &format!("Now it lets flows by which devices wait for Connection Requests live {EXTENDED} s"));
    ask(&gateway, &["tune", &format!("gateway.binding.extend_nat_timeout_s={EXTENDED}")], 4)?;
    wait_until("nft table", SOON, || {
        let tables = run(net.lab.gateway.command("nft").args(["list", "tables"]))?;
        Ok(tables.contains("inet tr111"))
    })?;
    println!("   The device starts anew and has forgotten what it knew.");
    wait_until("end of the old flow", SOON, || Ok(net.flow(cpe::DEVICE.port())?.is_none()))?;
    let mut device = start_device(&net, "second")?;
    let extended = search(&net, &device)?;
    ask(&gateway, &["bindings"], 4)?;

    heading(4, "What that saves");
    println!("\n   the NAT forgets after   the device learned   keep-alives an hour");
    for (timeout, learned) in [(NAT_TIMEOUT, &plain), (EXTENDED, &extended)] {
        let (period, rate) = (learned.period.as_secs_f64(), learned.keep_alives_per_hour());
        println!("   {timeout:>20} s {period:>18.1} s {rate:>21.0}");
    }
    let times = plain.keep_alives_per_hour() / extended.keep_alives_per_hour();
    println!("   {times:.0} times fewer. STUNMaximumKeepAlivePeriod allows this device no more than {EXTENDED} s.");
    ensure!(plain.period.as_secs_f64() < NAT_TIMEOUT.into(), "it learned more than the NAT's timeout");
    ensure!(times > 8.0, "the extension saves too little");

    heading(5, "The ACS wakes the device, which has said nothing for longer than the NAT alone would remember");
    wake(&net, &device)?;

    heading(6, "The end");
    typed("kill -TERM $(pidof tr111)");
    ensure!(device.stop()?.success(), "the device did not end well");
    ensure!(gateway.stop()?.success(), "the gateway did not end well");
    let tables = run(net.lab.gateway.command("nft").args(["list", "tables"]))?;
    ensure!(!tables.contains("inet tr111"), "the nft table stays behind");
    println!("   The gateway ran with --detach-on-exit: its programs and its nft table are gone.");
    println!("\nThat was all, in {:.0} s.", started.elapsed().as_secs_f64());
    Ok(())
}

fn start_gateway(net: &NatLab) -> Result<Agent<'_>> {
    let lab = &net.lab;
    let config = lab.write("gateway.toml", "[gateway.binding]\nextend_nat_timeout_s = 0\n")?;
    typed("cat gateway.toml\n   [gateway.binding]\n   extend_nat_timeout_s = 0");
    typed(&format!(
        "tr111 run gateway --config gateway.toml --lan lan0 --wan wan0 {} --detach-on-exit &",
        GATEWAY_IDENTITY.join(" ")
    ));
    let files = Files::new(lab.path(), "gateway")?;
    let options = ["--config", &config, "--wan", "wan0", "--detach-on-exit"];
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &options)?;
    // Its output is apart from the device's.
    Agent::start_command(&lab.gateway, files, &mut command, &lab.path().join("gateway"))
}

fn start_device<'a>(net: &'a NatLab, name: &str) -> Result<Agent<'a>> {
    let management = format!(
        "stun_enable = true\nstun_server_address = \"{SERVER}\"\nstun_minimum_keep_alive_period = 1\n\
         stun_maximum_keep_alive_period = {EXTENDED}\n"
    );
    typed(&format!("cat device.toml\n   [management_server]\n   {}", management.trim_end().replace('\n', "\n   ")));
    println!("   connection_request_username = \"{USERNAME}\"   # and two files with passwords");
    typed("tr111 run device --config device.toml --interface eth0 --mode off &");
    let device = cpe::start(&net.lab, Files::new(net.lab.path(), name)?, &management)?;
    let address = cpe::wait_for_address(&device, |address| *address.ip() == PUBLIC)?;
    println!("   It is 10.111.2.5 itself, and {address} from outside: so says the STUN server.");
    Ok(device)
}

/// A device's whole search, and its end.
fn learn(net: &NatLab, name: &str) -> Result<Learned> {
    let mut device = start_device(net, name)?;
    let learned = search(net, &device)?;
    ask(&device, &["bindings"], 4)?;
    ensure!(device.stop()?.success(), "the device did not end well");
    Ok(learned)
}

/// Shows the tests of the binding as they come, until its period is learned.
fn search(net: &NatLab, device: &Agent<'_>) -> Result<Learned> {
    let started = Instant::now();
    println!("   It lets the binding be quiet, ever longer, and tests by a second port whether it is still there:");
    print!("  ");
    let mut seen = [0, 0];
    let period = wait_for("learned period", SEARCH, || {
        let metrics = device.metrics()?;
        for (result, seen) in ["alive", "lapsed"].into_iter().zip(&mut seen) {
            let now = metrics.sum("tr111_stun_messages_total", &[("type", "probe"), ("result", result)]);
            if now > *seen {
                print!(" {result} ({:.0} s)", started.elapsed().as_secs_f64());
                stdout().flush()?;
            }
            *seen = now;
        }
        cpe::learned(device)
    })?;
    let learned = Learned { period, took: started.elapsed(), tests: seen.iter().sum() };
    println!(
        "\n   Learned in {:.0} s, by {} tests: keep-alives every {:.1} s, {:.0} an hour.",
        learned.took.as_secs_f64(),
        learned.tests,
        period.as_secs_f64(),
        learned.keep_alives_per_hour()
    );
    ensure!(net.flow(cpe::DEVICE.port())?.is_some(), "the NAT forgot the binding of a device that keeps it");
    Ok(learned)
}

/// A Connection Request through the NAT, from where it is let in.
fn wake(net: &NatLab, device: &Agent<'_>) -> Result<()> {
    let mut watch = device.background("watch", &["watch"], net.lab.path())?;
    device.wait_for_metrics("the watcher", |metrics| metrics.sum("tr111_control_clients", &[]) >= 1)?;
    println!("   (waiting until the device has been silent for {} s)", SILENCE.as_secs());
    let sent = |device: &Agent<'_>| {
        Ok::<_, anyhow::Error>(device.metrics()?.sum("tr111_stun_messages_total", &[("result", "sent")]))
    };
    let mut before = sent(device)?;
    let mut quiet = Instant::now();
    while quiet.elapsed() < SILENCE {
        pass(Duration::from_millis(500))?;
        let now = sent(device)?;
        if now != before {
            (before, quiet) = (now, Instant::now());
        }
    }
    let left = net.flow(cpe::DEVICE.port())?.context("the NAT forgot the binding")?.left;
    println!("   The NAT will remember it for another {left} s.");

    println!(
        "   This NAT lets in only what comes from the very address and port that the device spoke to. stund has that"
    );
    println!("   port, so a rule on its host gives it to what tr111 sends by another one, datagram by datagram:");
    typed(&format!("nft '{}'", lending()));
    net.lend_port()?;
    let to = cpe::address(device)?.to_string();
    let password = net.lab.write("connreq-password", PASSWORD)?;
    for from in [format!("{SERVER}:4000"), LENT.to_string()] {
        let shown = format!("--from {from} --to {to} --user {USERNAME} --password-file password");
        typed(&format!("tr111 connreq send {shown}"));
        let mut command: Command = net.wan.command(binary()?);
        command.args([
            "connreq",
            "send",
            "--from",
            &from,
            "--to",
            &to,
            "--user",
            USERNAME,
            "--password-file",
            &password,
        ]);
        show(run(&mut command)?.trim_end(), 1);
        if from != LENT.to_string() {
            println!("   Not from there: no copy of it arrives.");
        }
    }
    typed("tr111 watch              # on the device");
    for part in ["accepted", "6 CONNECTION REQUEST"] {
        show(&watch.wait_for_line(part, SOON)?, 1);
    }
    let metrics =
        device.wait_for_metrics("all copies", |metrics| metrics.sum("tr111_connection_requests_total", &[]) >= 3)?;
    let accepted = metrics.sum("tr111_connection_requests_total", &[("result", "accepted")]);
    match (accepted, metrics.sum("tr111_connection_requests_total", &[])) {
        (1, 3) => println!("   One of the three copies wakes it. The other two are old by then, and wake nobody."),
        counts => bail!("accepted and seen: {counts:?}"),
    }
    Ok(())
}
