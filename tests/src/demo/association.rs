//! TR-111 Part 1 in a minute: devices come, are known, and go.

use std::{
    fs,
    io::{Write, stdout},
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tr111_common::config::Config;
use tr111_core::identity::decode_gateway;

use super::stage::{ask, heading, show, typed};
use crate::{
    agent::{Agent, Device, Files, GATEWAY_IDENTITY, attached_programs, binary},
    host::{dnsmasq, udhcpc, udhcpc_environment},
    lab::{Lab, POOL},
    namespace::Namespace,
    process::Process,
    responder::Responder,
    vectors::{hex, identity},
    wait::{wait_for, wait_until},
};

/// Simulated devices on the first LAN.
const DEVICES: usize = 30;
/// Everything here happens within seconds.
const LIMIT: Duration = Duration::from_secs(30);
/// Lease of the second LAN's server, in seconds.
const SHORT_LEASE: u32 = 10;

/// The gateway, a LAN behind a switch with simulated devices, a set-top box and a phone on it, and a second LAN for
/// guests.
struct Network {
    lab: Lab,
    devices: Namespace,
    set_top_box: Namespace,
    phone: Namespace,
    guests: Namespace,
}

impl Network {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let devices = Namespace::new("devices")?;
        let set_top_box = Namespace::new("stb")?;
        let phone = Namespace::new("phone")?;
        let guests = Namespace::new("guests")?;
        // `eth0` of the lab becomes a port of a switch, beside the ports of the devices.
        lab.lan.ip("link add switch type bridge forward_delay 0")?;
        lab.lan.ip("link set switch up")?;
        lab.lan.connect("port1", &devices, "eth0")?;
        lab.lan.connect("port2", &set_top_box, "eth0")?;
        lab.lan.connect("port3", &phone, "eth0")?;
        for port in ["eth0", "port1", "port2", "port3"] {
            lab.lan.ip(&format!("link set {port} master switch"))?;
        }
        lab.gateway.connect("lan1", &guests, "eth0")?;
        lab.gateway.ip("addr add 10.112.0.1/16 dev lan1")?;
        Ok(Self { lab, devices, set_top_box, phone, guests })
    }
}

fn simulate(namespace: &Namespace, lab: &Lab, name: &str, arguments: &[&str]) -> Result<Process> {
    let mut command = namespace.command(binary()?);
    command.args(["sim", "devices"]).args(arguments);
    Process::start(name, &mut command, lab.path())
}

/// Starts the real udhcpc in `namespace`, as a device with this identity; what it writes goes to `directory`.
fn plug_in(namespace: &Namespace, serial_number: &str, product_class: &str, directory: &Path) -> Result<Process> {
    let option = identity("00256D", serial_number, product_class);
    let digits = option[2..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    typed(&format!("udhcpc -i eth0 -x 125:{digits} &"));
    udhcpc(namespace, "eth0", &option, directory)
}

/// Shows what udhcpc tells its script about the gateway, and what that says.
fn show_gateway(directory: &Path) -> Result<()> {
    typed("env | grep opt125            # in the script that udhcpc calls with its lease");
    let line = wait_for("Gateway Identity in udhcpc's environment", LIMIT, || {
        let environment = fs::read_to_string(udhcpc_environment(directory, "eth0")).unwrap_or_default();
        Ok(environment.lines().find(|line| line.starts_with("opt125=")).map(str::to_owned))
    })?;
    show(&line, 1);
    let value = hex(line.trim_start_matches("opt125="));
    let gateway = decode_gateway(&value, &Config::default())?;
    println!("   (enterprise 3561 = 00000de9, codes 4, 5 and 6: the gateway is {gateway})");
    Ok(())
}

/// What a row is known by.
fn numbers(rows: &[Device]) -> Vec<(u64, String)> {
    rows.iter().map(|row| (row.instance, row.identity())).collect()
}

/// Starts the agent on both LANs.
fn start_agent<'a>(lab: &'a Lab, files: Files, options: &[&str]) -> Result<Agent<'a>> {
    let shown = [&GATEWAY_IDENTITY, options].concat().join(" ");
    typed(&format!("tr111 run gateway --lan lan0 --lan lan1 {shown} &"));
    let mut command = files.run_gateway(&lab.gateway, &["lan0", "lan1"], options)?;
    Agent::start_command(&lab.gateway, files, &mut command, lab.path())
}

/// Tells it.
///
/// # Errors
/// A tool is missing, or the story went another way.
pub fn demonstrate() -> Result<()> {
    let started = Instant::now();
    println!("tr111 makes a gateway know the devices on its LAN: each device puts its identity into its DHCP requests");
    println!(
        "(option 125, TR-111 Part 1), the kernel picks those requests out of the traffic, and the agent keeps the"
    );
    println!(
        "table that an auto-configuration server asks for. This demo runs on a network of its own and removes it."
    );

    heading(1, "A network: a gateway with two LANs, real dnsmasq on the first");
    let network = Network::new()?;
    let lab = &network.lab;
    println!();
    println!("   {DEVICES} simulated devices ----+");
    println!("                             +-- switch -- lan0 [ gateway: dnsmasq, tr111 ] lan1 -- guest device");
    println!("   set-top box, real udhcpc -+");
    println!("   phone, real udhcpc -------+");
    println!();
    println!(
        "   The guest LAN has a server of the demo's own with leases of {SHORT_LEASE} s: dnsmasq's shortest is two minutes."
    );
    let pool = (POOL, Ipv4Addr::new(10, 111, 1, 250));
    let _server = dnsmasq(&lab.gateway, "lan0", pool, lab.path(), &[])?;
    let guest_server = Responder::start(
        &lab.gateway,
        "lan1",
        Ipv4Addr::new(10, 112, 0, 1),
        Ipv4Addr::new(10, 112, 1, 1),
        SHORT_LEASE,
    )?;

    heading(2, "The agent starts and puts its programs on both LAN interfaces");
    let agent = start_agent(lab, Files::new(lab.path(), "agent")?, &[])?;
    ask(&agent, &["status"], 20)?;

    heading(3, "Devices come: DISCOVER, OFFER, REQUEST, and with the ACK a row");
    typed(&format!("tr111 sim devices --iface eth0 --count {DEVICES} --rate 20 --product-class CAM &"));
    let simulated = ["--iface", "eth0", "--count", "30", "--rate", "20", "--product-class", "CAM"];
    let mut devices = simulate(&network.devices, lab, "sim", &simulated)?;
    let set_top_box = plug_in(&network.set_top_box, "STB-4711", "STB", lab.path())?;
    let guest = ["--iface", "eth0", "--count", "1", "--first", "900", "--serial-prefix", "GUEST", "--vanish"];
    let mut guest = simulate(&network.guests, lab, "guest", &guest)?;
    print!("\n   rows:");
    let mut last = None;
    wait_until("full table", LIMIT, || {
        let rows = agent.devices()?.len();
        if last.replace(rows) != Some(rows) {
            print!(" {rows}");
            stdout().flush()?;
        }
        Ok(rows == DEVICES + 2)
    })?;
    println!();
    devices.wait_for_line("bound", LIMIT)?;
    ask(&agent, &["devices"], 8)?;

    heading(4, "And the set-top box learns its gateway: the kernel adds that to dnsmasq's reply on its way out");
    show_gateway(lab.path())?;

    heading(5, "What an auto-configuration server reads: the data model of TR-111");
    let row = agent.devices()?.into_iter().find(|row| row.serial_number == "STB-4711").context("the set-top box")?;
    ask(&agent, &["get", "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries"], 4)?;
    ask(&agent, &["get", &format!("InternetGatewayDevice.ManagementServer.ManageableDevice.{}.", row.instance)], 8)?;

    heading(6, "What the operator's Prometheus reads");
    let wanted = ["tr111_manageable_devices", "tr111_device_identities_total", "tr111_ring_"];
    typed("curl -s http://127.0.0.1:9111/metrics | grep -v '^#'");
    let (_, metrics) = agent.fetch("/metrics")?;
    let lines =
        metrics.lines().filter(|line| !line.ends_with(" 0") && wanted.iter().any(|name| line.starts_with(name)));
    show(&lines.collect::<Vec<_>>().join("\n"), 12);

    heading(
        7,
        "The agent is killed, and a phone is plugged in: the kernel programs stay, so it learns its gateway as well",
    );
    let before = numbers(&agent.devices()?);
    typed("kill -KILL $(pidof tr111)");
    let files = agent.kill()?;
    let left = attached_programs(&lab.gateway, "lan0")?;
    println!("   programs left on lan0: {}", left.join(", "));
    let phones = lab.path().join("phone");
    fs::create_dir(&phones)?;
    let phone = plug_in(&network.phone, "PHONE-0815", "VOIP", &phones)?;
    show_gateway(&phones)?;

    heading(
        8,
        "The next agent has the phone in its table from the start, and everybody else under the number they had",
    );
    let mut agent = start_agent(lab, files, &["--detach-on-exit"])?;
    let after = agent.devices()?;
    typed("tr111 devices | grep PHONE");
    let printed = agent.print(&["devices"])?;
    show(printed.lines().find(|line| line.contains("PHONE")).context("the phone is missing")?, 1);
    let kept = numbers(&after).iter().filter(|row| before.contains(row)).count();
    println!("   rows: {} before, {} now, {kept} of them as before", before.len(), after.len());
    if kept != before.len() || after.len() != kept + 1 {
        bail!("the table changed: {before:?}, then {after:?}");
    }
    let watch = agent.background("watch", &["watch"], lab.path())?;
    agent.wait_for_metrics("the watcher", |metrics| metrics.sum("tr111_control_clients", &[]) >= 1)?;

    heading(9, "The set-top box says goodbye: udhcpc releases its lease, and its row goes at once");
    typed("kill -USR2 $(pidof udhcpc)");
    set_top_box.signal(Signal::SIGUSR2)?;
    show_event(&watch, "STB-4711", "released")?;

    heading(10, "The guest device is unplugged: nobody renews its lease, and its row goes when the lease ends");
    guest.terminate(LIMIT)?;
    let unplugged = Instant::now();
    show_event(&watch, "GUEST", "expired")?;
    println!("   (after {:.0} s)", unplugged.elapsed().as_secs_f64());

    heading(11, "The end: the devices release their leases, the agent takes its programs off");
    devices.terminate(LIMIT)?;
    phone.signal(Signal::SIGUSR2)?;
    agent.wait_for_rows(0, LIMIT)?;
    ask(&agent, &["devices"], 4)?;
    typed("kill -TERM $(pidof tr111)");
    let status = agent.stop()?;
    if !status.success() {
        bail!("the agent ended with {status}");
    }
    let left = attached_programs(&lab.gateway, "lan0")?;
    println!("   programs left on lan0: {}", if left.is_empty() { "none".to_owned() } else { left.join(", ") });
    guest_server.stop()?;
    println!("\nThat was all, in {:.0} s. README.md and `tr111 --help` tell more.", started.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until `tr111 watch` has told of a device, and shows that line.
fn show_event(watch: &Process, device: &str, what: &str) -> Result<()> {
    typed("tr111 watch");
    let line = wait_for(&format!("{what} of {device}"), LIMIT, || {
        let printed = watch.stdout();
        Ok(printed.lines().rfind(|line| line.contains(device) && line.contains(what)).map(str::to_owned))
    })?;
    show(&line, 1);
    Ok(())
}
