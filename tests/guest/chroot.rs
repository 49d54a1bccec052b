//! The portable binary needs nothing beside it: alone in an empty directory that is its root, it checks and runs.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Result;
use tr111_tests::{
    agent::{GATEWAY_IDENTITY, binary},
    client::Client,
    host::dnsmasq,
    lab::{Lab, POOL},
    process::{Process, output, text},
    vectors::{D1, G1, hex},
    wait::wait_until,
    wire::Wire,
};

use super::rows::POOL_END;

/// How long the agent may take to start in an emulated guest.
const START: Duration = Duration::from_mins(1);

/// `/tr111 ARGUMENTS` of the gateway, with `root` as its root.
fn inside(lab: &Lab, root: &Path, arguments: &[&str]) -> Command {
    let mut command = lab.gateway.command("chroot");
    command.arg(root).arg("/tr111").args(arguments).env_remove("RUST_BACKTRACE");
    command
}

#[test]
fn alone_in_an_empty_root_it_checks_and_runs() -> Result<()> {
    let lab = Lab::new()?;
    let root = lab.path().join("root");
    fs::create_dir(&root)?;
    fs::copy(binary()?, root.join("tr111"))?;

    let gateway = [&["--lan", "lan0"][..], &GATEWAY_IDENTITY].concat();
    let check = output(&mut inside(&lab, &root, &[&["check"][..], &gateway].concat()))?;
    let said = text(&check.stdout);
    assert!(check.status.success(), "{said}{}", text(&check.stderr));
    assert_eq!(said.matches("accepted (").count(), 8, "every program of a gateway:\n{said}");

    let _server = dnsmasq(&lab.gateway, "lan0", (POOL, POOL_END), lab.path(), &[])?;
    let mut run = inside(&lab, &root, &[&["run", "gateway", "--control", "/control"][..], &gateway].concat());
    let mut agent = Process::start("tr111", &mut run, lab.path())?;
    let devices = || output(&mut inside(&lab, &root, &["devices", "--control", "/control"]));
    wait_until("answer of the agent", START, || Ok(devices()?.status.success()))?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let ack = Client::new(&wire, 1, hex(D1)).bind()?;
    assert_eq!(ack.option(125), Some(&hex(G1)[2..]));
    wait_until("row", START, || Ok(text(&devices()?.stdout).contains("DEV0001")))?;
    assert!(agent.terminate(START)?.success(), "{}", agent.complaint());
    Ok(())
}
