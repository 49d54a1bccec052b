//! The ACS side in a minute: a device behind a NAT registers and is woken by its name, also when the NAT's port has changed.

use std::{net::SocketAddrV4, time::Instant};

use anyhow::{Context, Result, ensure};

use super::{
    stage::{ask, heading, show, typed},
    validation,
};
use crate::{
    acs,
    agent::{Agent, Files, SOON},
    cpe::{self, PASSWORD, STUN_PASSWORD, USERNAME},
    nat::{NatLab, PUBLIC, SERVER},
    process::Process,
    wait::wait_for,
};

const REQUESTS: &str = "tr111_connection_requests_total";

/// Tells it.
///
/// # Errors
/// A tool is missing, or the story went another way.
pub fn demonstrate() -> Result<()> {
    let started = Instant::now();
    println!(
        "An ACS cannot call a device behind a NAT. `tr111 run acs` is the STUN server that such devices keep asking, so"
    );
    println!(
        "it knows by which address each is reached; it has them prove who they are; and it sends Connection Requests"
    );
    println!("from the very socket that they ask, which is the only one that a NAT lets in.");

    heading(1, "A network: a device, a gateway that translates addresses, and an ACS");
    let net = NatLab::new("masquerade fully-random")?;
    println!("\n   device 10.111.2.5 -- [ gateway: nft masquerade ] {PUBLIC} -- {SERVER} tr111 run acs");
    typed("tr111 run acs &");
    let mut acs = acs::start(&net.wan, net.lab.path(), "acs", "")?;
    let passwords = [("stun-password", STUN_PASSWORD), ("connreq-password", PASSWORD)];
    let [stun, connreq] = passwords.map(|(name, text)| net.lab.write(name, text));
    let (stun, connreq) = (stun?, connreq?);
    typed(&format!("tr111 cpe add --stun-username {USERNAME} --stun-password-file stun-password \\"));
    println!("       --connection-request-username {USERNAME} --connection-request-password-file connreq-password");
    acs.print(&[
        "cpe",
        "add",
        "--stun-username",
        USERNAME,
        "--stun-password-file",
        &stun,
        "--connection-request-username",
        USERNAME,
        "--connection-request-password-file",
        &connreq,
    ])?;
    ask(&acs, &["cpe", "list"], 4)?;

    heading(2, "The device comes, and tells of its binding by BINDING-CHANGE. Anybody could, so it has to sign");
    typed("tr111 watch              # on the ACS");
    let mut watch = acs.background("watch", &["watch"], net.lab.path())?;
    acs.wait_for_metrics("the watcher", |metrics| metrics.sum("tr111_control_clients", &[]) >= 1)?;
    let keys = format!(
        "stun_enable = true\nstun_server_address = \"{SERVER}\"\nstun_minimum_keep_alive_period = 1\n\
         stun_maximum_keep_alive_period = 1\n"
    );
    let mut device = cpe::start(&net.lab, Files::new(net.lab.path(), "device")?, &keys)?;
    let first = registered(&acs, None)?;
    show(&watch.wait_for_line(&first.to_string(), SOON)?, 1);
    show(&watch.wait_for_line("(signed)", SOON)?, 1);
    let metrics = acs.metrics()?;
    let count = |result| metrics.sum("tr111_stun_messages_total", &[("type", "binding_request"), ("result", result)]);
    println!(
        "   {} requests got 401, {} were signed as they should be.",
        count("unauthorized"),
        count("authenticated")
    );
    ensure!(count("unauthorized") > 0 && count("authenticated") > 0, "no 401 on the way");
    ask(&acs, &["bindings"], 4)?;

    heading(3, "The ACS wakes it by its name");
    wake(&acs, &device, &mut watch, 1)?;

    heading(4, "The NAT forgets its bindings, as after a power cut. The device gets another port, and tells");
    typed("conntrack -F             # on the gateway");
    net.forget_bindings()?;
    let second = registered(&acs, Some(first))?;
    show(&watch.wait_for_line(&format!("{second} (signed)"), SOON)?, 1);
    wake(&acs, &device, &mut watch, 2)?;

    validation::tell(5, &net.wan, &acs, &mut watch)?;

    heading(6, "The end");
    typed("kill -TERM $(pidof tr111)");
    ensure!(device.stop()?.success(), "the device did not end well");
    ensure!(acs.stop()?.success(), "the ACS did not end well");
    println!("\nThat was all, in {:.0} s.", started.elapsed().as_secs_f64());
    Ok(())
}

/// Waits for a signed binding other than `before`.
fn registered(acs: &Agent<'_>, before: Option<SocketAddrV4>) -> Result<SocketAddrV4> {
    wait_for("a signed binding", SOON, || {
        let listing = acs.json(&["bindings"])?;
        let bindings = listing["bindings"].as_array().context("no bindings")?.iter();
        let signed = bindings.filter(|binding| binding["authenticated"] == true);
        let mut addresses = signed.filter_map(|binding| binding["address"].as_str()?.parse().ok());
        Ok(addresses.find(|address| Some(*address) != before))
    })
}

/// Has the ACS wake the device, `count` times in all.
fn wake(acs: &Agent<'_>, device: &Agent<'_>, watch: &mut Process, count: u64) -> Result<()> {
    ask(acs, &["connreq", "send", "--cpe", USERNAME], 1)?;
    let metrics = device.wait_for_metrics("the wake", |metrics| {
        metrics.sum(REQUESTS, &[("result", "accepted")]) == count && metrics.sum(REQUESTS, &[]) == 3 * count
    })?;
    let (accepted, seen) = (metrics.sum(REQUESTS, &[("result", "accepted")]), metrics.sum(REQUESTS, &[]));
    println!("   The device saw {seen} copies so far and was woken {}.", if accepted == 1 { "once" } else { "twice" });
    watch.wait_for_line(&format!("Connection Request to {USERNAME}"), SOON)?;
    Ok(())
}
