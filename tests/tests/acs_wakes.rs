//! `tr111 run acs` and `tr111 run device`, with a real NAT between them.

use std::{net::SocketAddrV4, process::Command};

use anyhow::{Context, Result};
use tr111_tests::{
    acs,
    agent::{Agent, Files, SOON},
    cpe::{self, USERNAME},
    nat::{NatLab, PUBLIC, SERVER},
    process::run,
    wait::wait_for,
};

const REQUESTS: &str = "tr111_connection_requests_total";
/// A device that asks [`SERVER`] once a second.
const STUN: &str = "stun_enable = true\nstun_server_address = \"203.0.113.10\"\nstun_minimum_keep_alive_period = 1\n\
                    stun_maximum_keep_alive_period = 1\n";

fn start_device<'a>(net: &'a NatLab, keys: &str) -> Result<Agent<'a>> {
    cpe::start(&net.lab, Files::new(net.lab.path(), "device")?, keys)
}

fn start_acs<'a>(net: &'a NatLab, keys: &str) -> Result<Agent<'a>> {
    acs::start(&net.wan, net.lab.path(), "acs", keys)
}

/// Waits until the ACS has a binding that is signed or not, other than `before`.
fn wait_for_binding(acs: &Agent<'_>, is_signed: bool, before: Option<SocketAddrV4>) -> Result<SocketAddrV4> {
    let mut seen = serde_json::Value::Null;
    wait_for("a binding", SOON, || {
        seen = acs.json(&["bindings"])?;
        let bindings = seen["bindings"].as_array().context("no bindings")?.iter();
        let found = bindings.filter(|one| one["authenticated"] == is_signed && one["username"] == USERNAME);
        let mut addresses = found.filter_map(|one| one["address"].as_str()?.parse().ok());
        Ok(addresses.find(|address: &SocketAddrV4| Some(*address) != before))
    })
    .with_context(|| seen.to_string())
}

/// Has the ACS wake the device, which has accepted `count` requests then.
fn wake(acs: &Agent<'_>, device: &Agent<'_>, count: u64) -> Result<serde_json::Value> {
    let sent = acs.json(&["connreq", "send", "--cpe", USERNAME])?;
    device
        .wait_for_metrics("an accepted request", |metrics| metrics.sum(REQUESTS, &[("result", "accepted")]) == count)?;
    Ok(sent)
}

/// STUN-18, STUN-23, STUN-24, STUN-26, UCR-20, UCR-22, UCR-37, T-54, T-68: a device behind a NAT registers by
/// BINDING-CHANGE, with a 401 on the way; it is woken by its name through a NAT that lets nobody else in, twice within a
/// second; and again when the NAT's port has changed.
#[test]
fn a_device_behind_a_nat_is_woken_by_its_name() -> Result<()> {
    for listen in ["203.0.113.10:3478", "0.0.0.0:3478"] {
        let net = NatLab::new("masquerade fully-random")?;
        let acs = start_acs(&net, &format!("listen = [\"{listen}\"]"))?;
        acs::add_cpe(&acs, net.lab.path())?;
        let mut watcher = cpe::watch(&acs, &net.lab)?;
        let device = start_device(&net, STUN)?;
        let first = wait_for_binding(&acs, true, None)?;
        assert_eq!(*first.ip(), PUBLIC);
        let refused = [("type", "binding_request"), ("result", "unauthorized")];
        assert!(acs.metrics()?.sum("tr111_stun_messages_total", &refused) >= 1);

        let sent = wake(&acs, &device, 1)?;
        assert_eq!((&sent["way"], &sent["from"]), (&"authenticated".into(), &format!("{SERVER}:3478").into()));
        let again = wake(&acs, &device, 2)?;
        assert!(again["timestamp"].as_u64() > sent["timestamp"].as_u64(), "{sent} {again}");
        assert_ne!(again["id"], sent["id"]);
        watcher.wait_for_line("\"event\":\"connection_request\",\"result\":\"sent\"", SOON)?;

        net.forget_bindings()?;
        let second = wait_for_binding(&acs, true, Some(first))?;
        watcher.wait_for_line(&format!("\"event\":\"binding_changed\",\"address\":\"{second}\""), SOON)?;
        assert_eq!(wake(&acs, &device, 3)?["to"], second.to_string());
    }
    Ok(())
}

/// STUN-31, STUN-46, T-65, T-66: a device without credentials is never asked for any. What it says it is counts until it tells
/// its ACS.
#[test]
fn a_device_without_credentials_is_woken_where_it_says_it_is() -> Result<()> {
    let net = NatLab::new("masquerade fully-random")?;
    let acs = start_acs(&net, "")?;
    acs::add(&acs, net.lab.path(), USERNAME, None)?;
    let device = start_device(&net, STUN)?;
    let address = wait_for_binding(&acs, false, None)?;
    assert_eq!(*address.ip(), PUBLIC);
    let sent = wake(&acs, &device, 1)?;
    assert_eq!((&sent["way"], &sent["to"]), (&"tentative".into(), &address.to_string().into()));
    assert_eq!(acs.metrics()?.sum("tr111_stun_messages_total", &[("result", "unauthorized")]), 0);
    Ok(())
}

/// T-25, STUN-27: the first 401 and the first signed answer are lost, and the device registers all the same, once.
#[test]
fn lost_answers_do_not_matter() -> Result<()> {
    let net = NatLab::new("masquerade fully-random")?;
    // The first two of each: errors, and signed responses (80 bytes of STUN).
    let first_two = "limit rate 1/day burst 2 packets drop";
    let rules = format!(
        "table ip lossy {{ chain out {{ type filter hook output priority 0; \
         udp sport 3478 @th,64,16 0x0111 {first_two}; udp sport 3478 udp length 88 {first_two}; }}; }}"
    );
    let command: &mut Command = &mut net.wan.command("nft");
    run(command.arg(rules))?;
    let acs = start_acs(&net, "")?;
    acs::add_cpe(&acs, net.lab.path())?;
    let device = start_device(&net, STUN)?;
    wait_for_binding(&acs, true, None)?;
    acs.wait_for_metrics("copies", |metrics| {
        let count = |result| metrics.sum("tr111_stun_messages_total", &[("result", result)]);
        count("unauthorized") >= 3 && count("copy") >= 2
    })?;
    assert_eq!(acs.metrics()?.sum("tr111_stun_messages_total", &[("result", "authenticated")]), 1);
    wake(&acs, &device, 1)?;
    Ok(())
}

/// STUN-26, T-54: an ACS that is killed and comes back wakes the device at once, by what it had learned, and with a greater
/// `ts` than before.
#[test]
fn a_killed_acs_wakes_as_before() -> Result<()> {
    let net = NatLab::new("masquerade fully-random")?;
    let acs = start_acs(&net, "")?;
    acs::add_cpe(&acs, net.lab.path())?;
    let device = start_device(&net, STUN)?;
    let known = wait_for_binding(&acs, true, None)?;
    let sent = wake(&acs, &device, 1)?;

    let files = acs.kill()?;
    let acs = acs::start_with(&net.wan, files, net.lab.path(), "")?;
    let again = wake(&acs, &device, 2)?;
    assert_eq!(again["to"], known.to_string());
    assert!(again["timestamp"].as_u64() > sent["timestamp"].as_u64(), "{sent} {again}");
    assert_eq!(wait_for_binding(&acs, true, None)?, known);
    Ok(())
}
