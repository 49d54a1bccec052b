//! A real server, a real client, and the agent between them.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;
use tr111_tests::{
    agent::{Agent, SOON, attached_programs, binary},
    client::Client,
    host::{dnsmasq, udhcpc, udhcpc_environment},
    lab::{Lab, POOL},
    process::{Process, output, text},
    vectors::{D1, D2, G1, hex},
    wait::wait_for,
    wire::Wire,
};

pub(super) const POOL_END: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 250);
/// Real clients wait a second here and there.
const CLIENT: Duration = Duration::from_secs(60);

fn real_server(lab: &Lab) -> Result<Process> {
    dnsmasq(&lab.gateway, "lan0", (POOL, POOL_END), lab.path(), &[])
}

/// udhcpc becomes a row, its ACK has the Gateway Identity, and its RELEASE ends the row.
#[test]
fn udhcpc_comes_and_goes() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let client = udhcpc(&lab.lan, "eth0", &hex(D1), lab.path())?;
    let rows = agent.wait_for_rows(1, CLIENT)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/STB");
    let environment = wait_for("lease of udhcpc", CLIENT, || {
        Ok(fs::read_to_string(udhcpc_environment(lab.path(), "eth0")).ok().filter(|text| !text.is_empty()))
    })?;
    assert!(environment.lines().any(|line| line == format!("opt125={}", &G1[4..])), "{environment}");
    client.signal(Signal::SIGUSR2)?;
    agent.wait_for_rows(0, CLIENT)?;
    Ok(())
}

/// OFFER and ACK have the Gateway Identity; those to a client without an identity have none.
#[test]
fn offer_and_ack_have_the_identity() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let _agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    let mut stranger = Client::new(&wire, 2, Vec::new());
    let offer = device.discover()?;
    let ack = device.request(&offer)?;
    let offer_to_stranger = stranger.discover()?;
    let ack_to_stranger = stranger.request(&offer_to_stranger)?;
    let identity = Some(&hex(G1)[2..]);
    assert_eq!([&offer, &ack].map(|reply| reply.option(125) == identity), [true; 2]);
    assert_eq!([&offer_to_stranger, &ack_to_stranger].map(|reply| reply.option(125)), [None; 2]);
    Ok(())
}

/// What a killed agent left goes on, the next one adopts it without adding a second set, and `tr111 detach` takes it off.
#[test]
fn a_killed_agent_is_succeeded() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut first = Client::new(&wire, 1, hex(D1));
    first.bind()?;
    agent.wait_for_rows(1, SOON)?;
    let programs = attached_programs(&lab.gateway, "lan0")?;
    assert_eq!(programs.len(), 3, "{programs:?}");

    let files = agent.kill()?;
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, programs);
    let ack = Client::new(&wire, 2, hex(D2)).bind()?;
    assert_eq!(ack.option(125), Some(&hex(G1)[2..]), "the programs go on");

    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &[])?;
    let mut agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    agent.wait_for_rows(2, SOON)?;
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, programs);
    let ack = first.bind()?;
    assert_eq!(ack.option(125), Some(&hex(G1)[2..]));

    assert!(agent.stop()?.success());
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, programs, "they stay when it stops");
    let mut detach = lab.gateway.command(binary()?);
    detach.args(["detach", "--pin-dir"]).arg(agent.files().pins()).arg("--control").arg(agent.files().control());
    let said = output(&mut detach)?;
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, Vec::<String>::new());
    let ack = Client::new(&wire, 3, hex(D1)).bind()?;
    assert_eq!(ack.option(125), None);
    Ok(())
}
