//! LAN interfaces that are there in part, go, and come back.

use std::fs;

use anyhow::Result;
use aya::programs::xdp::XdpMode;
use tr111_common::abi::ABI;
use tr111_tests::{
    agent::{Agent, Files, SOON, attached_programs, binary},
    client::Client,
    lab::{GATEWAY, Lab, POOL},
    process::{output, text},
    responder::Responder,
    testing::Testing,
    vectors::{D1, D2, G1, hex},
    wait::wait_until,
    wire::Wire,
};

/// The state of an interface, from `tr111 status --json`.
fn wait_for_state(agent: &Agent<'_>, name: &str, state: &str) -> Result<()> {
    wait_until(&format!("{name} {state}"), SOON, || {
        let status = agent.json(&["status"])?;
        let interfaces = status["interfaces"].as_array().cloned().unwrap_or_default();
        Ok(interfaces.iter().any(|interface| interface["name"] == name && interface["state"] == state))
    })
}

/// GW-6, T-30: a LAN interface that is not there at the start, as a bridge that the system makes later, is said to be
/// missing, and has its programs as soon as it appears. What was behind it is still there after a start without it.
#[test]
fn an_interface_that_is_not_there_yet_is_waited_for() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::start(&lab, &["lan0", "lan1"], &[])?;
    wait_for_state(&agent, "lan1", "missing")?;
    assert!(agent.process().stderr().contains("lan1"), "{}", agent.process().stderr());
    let mut command = lab.gateway.command(binary()?);
    let check = output(command.args(["check", "--lan", "lan0", "--lan", "lan1", "--json"]))?;
    let check: serde_json::Value = serde_json::from_slice(&check.stdout)?;
    let findings = check["findings"].as_array().cloned().unwrap_or_default();
    assert!(findings.iter().any(|one| one["check"] == "interface lan1" && one["result"] == "warning"), "{check}");

    let appear = || lab.gateway.connect("lan1", &lab.lan, "eth1");
    appear()?;
    wait_for_state(&agent, "lan1", "up")?;
    let server = Responder::start(&lab.gateway, "lan1", GATEWAY, POOL, 600)?;
    Client::new(&Wire::open(&lab.lan, "eth1")?, 1, hex(D1)).bind()?;
    let before = agent.wait_for_rows(1, SOON)?;
    assert_eq!(before[0].bindings[0].interface, "lan1");

    agent.stop()?;
    drop(server);
    lab.gateway.ip("link del lan1")?;
    let agent = agent.start_again(&lab, &["lan0", "lan1"], &[])?;
    assert_eq!(agent.devices()?, before);
    appear()?;
    wait_for_state(&agent, "lan1", "up")?;
    assert_eq!(agent.devices()?, before);
    Ok(())
}

/// A start that fails on its second interface takes off what it pinned on the first, maps included; what an earlier
/// agent left there goes on.
#[test]
fn a_start_that_fails_halfway_leaves_what_it_found() -> Result<()> {
    let lab = Lab::new()?;
    lab.gateway.connect("lan1", &lab.lan, "eth1")?;
    let mut other = Testing::load()?;
    let program = other.empty_xdp()?;
    lab.gateway.enter(|| program.attach("lan1", XdpMode::Driver))?;
    let files = Files::new(lab.path(), "first")?;
    let fail = |files: &Files| -> Result<()> {
        let mut command = files.run_gateway(&lab.gateway, &["lan0", "lan1"], &["--xdp-mode", "native"])?;
        let refused = output(&mut command)?;
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("lan1: native XDP is not possible"), "{}", text(&refused.stderr));
        assert_eq!(attached_programs(&lab.gateway, "lan1")?, ["xdp"]);
        Ok(())
    };
    fail(&files)?;
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, Vec::<String>::new());
    assert!(!files.namespace()?.join(format!("abi-{ABI}")).exists());

    let files = Agent::start(&lab, &["lan0"], &[])?.kill()?;
    let before = attached_programs(&lab.gateway, "lan0")?;
    fail(&files)?;
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, before);
    Ok(())
}

/// Issue 3: a LAN interface that is deleted and made anew has its programs again without a restart, the agent said once
/// that it was gone, the other LAN went on, the row and its number stayed, and GW-4: a device behind the new one gets
/// the Gateway Identity. After another restart nothing of the old interface is left.
#[test]
fn an_interface_that_comes_back_has_its_programs_again() -> Result<()> {
    let lab = Lab::new()?;
    lab.gateway.connect("lan1", &lab.lan, "eth1")?;
    lab.gateway.ip("addr add 10.112.0.1/16 dev lan1")?;
    let _other = Responder::start(&lab.gateway, "lan1", [10, 112, 0, 1].into(), [10, 112, 1, 1].into(), 600)?;
    let mut agent = Agent::start(&lab, &["lan0", "lan1"], &[])?;
    {
        let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
        let wire = Wire::open(&lab.lan, "eth0")?;
        Client::new(&wire, 1, hex(D1)).bind()?;
        agent.wait_for_rows(1, SOON)?;
    }
    lab.gateway.ip("link del lan0")?;
    wait_for_state(&agent, "lan0", "gone")?;
    assert!(agent.print(&["status"])?.contains("lan0 (lan): gone"));
    let other = Wire::open(&lab.lan, "eth1")?;
    Client::new(&other, 2, hex(D2)).bind()?;
    agent.wait_for_rows(2, SOON)?;

    lab.gateway.connect("lan0", &lab.lan, "eth0")?;
    lab.gateway.ip(&format!("addr add {GATEWAY}/16 dev lan0"))?;
    wait_for_state(&agent, "lan0", "up")?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    let offer = device.discover()?;
    let ack = device.request(&offer)?;
    for reply in [&offer, &ack] {
        assert_eq!(reply.option(125), Some(&hex(G1)[2..]));
    }
    device.release()?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/");
    let said = agent.process().stderr() + &agent.process().stdout();
    assert_eq!(said.matches("interface removed").count(), 1, "{said}");
    let links = agent.files().namespace()?.join("links");
    assert_eq!(fs::read_dir(&links)?.count(), 2);
    Ok(())
}

/// An interface that gets another name is no LAN any more, and one that gets the name is.
#[test]
fn the_name_decides_and_not_the_interface() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    lab.gateway.ip("link set lan0 down")?;
    wait_for_state(&agent, "lan0", "down")?;
    lab.gateway.ip("link set lan0 name old0")?;
    wait_for_state(&agent, "lan0", "gone")?;
    assert_eq!(attached_programs(&lab.gateway, "old0")?, Vec::<String>::new());
    lab.gateway.connect("lan0", &lab.lan, "eth1")?;
    wait_for_state(&agent, "lan0", "up")?;
    assert!(attached_programs(&lab.gateway, "lan0")?.contains(&"lan_egress".to_owned()));
    Ok(())
}

/// GW-11: a LAN whose carrier is lost keeps its rows when it is back in time, and loses them when it is not.
#[test]
fn a_lost_carrier_ends_rows_only_when_it_stays_away() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    let before = agent.wait_for_rows(1, SOON)?;
    lab.lan.ip("link set eth0 down")?;
    wait_for_state(&agent, "lan0", "down")?;
    lab.lan.ip("link set eth0 up")?;
    wait_for_state(&agent, "lan0", "up")?;
    assert_eq!(agent.devices()?, before);
    agent.print(&["tune", "gateway.association.probe_interval_s=1", "gateway.association.probe_count=1"])?;
    lab.lan.ip("link set eth0 down")?;
    wait_for_state(&agent, "lan0", "down")?;
    agent.wait_for_rows(0, SOON)?;
    assert_eq!(agent.metrics()?.sum("tr111_table_changes_total", &[("reason", "disconnected")]), 1);
    Ok(())
}
