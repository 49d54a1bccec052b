//! Unmodified clients and servers: busybox's udhcpc, ISC's dhclient, dnsmasq.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;
use tr111_tests::{
    agent::{Agent, SOON},
    host::{dhclient, dnsmasq, udhcpc},
    lab::{Lab, POOL},
    process::Process,
    vectors::{D1, D2, hex},
};

const POOL_END: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 250);
/// Real clients wait a second here and there.
const CLIENT: Duration = Duration::from_secs(30);

fn real_server(lab: &Lab) -> Result<Process> {
    dnsmasq(&lab.gateway, "lan0", (POOL, POOL_END), lab.path(), &[])
}

/// GW-6, GW-10: udhcpc with D1 becomes a row, and its RELEASE ends it.
#[test]
fn udhcpc_comes_and_goes() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let client = udhcpc(&lab.lan, "eth0", &hex(D1), lab.path())?;
    let rows = agent.wait_for_rows(1, CLIENT)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/STB");
    // busybox sends a client identifier: type 1 and its MAC address.
    let binding = &rows[0].bindings[0];
    let plain: String = binding.mac.split(':').collect();
    assert_eq!(binding.client_id.as_deref().map(|id| id.replace(':', "")), Some(format!("01{plain}")));
    client.signal(Signal::SIGUSR2)?;
    agent.wait_for_rows(0, SOON)?;
    Ok(())
}

/// GW-2: udhcpc without option 125 is an ordinary device, and never a row.
#[test]
fn udhcpc_without_the_option_is_no_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let _client = udhcpc(&lab.lan, "eth0", &[], lab.path())?;
    let metrics =
        agent.wait_for_metrics("the ordinary ACK", |metrics| metrics.packets("lan_egress", "unmarked") >= 2)?;
    assert!(metrics.packets("lan_ingress", "no_identity") >= 2);
    assert_eq!(metrics.packets("lan_ingress", "discover") + metrics.packets("lan_ingress", "request"), 0);
    assert_eq!(agent.devices()?, []);
    Ok(())
}

/// GW-6: dhclient with D2 becomes a row; DM-7: without a product class it is empty.
#[test]
fn dhclient_becomes_a_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let _client = dhclient(&lab.lan, "eth0", &hex(D2), lab.path())?;
    let rows = agent.wait_for_rows(1, CLIENT)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/");
    Ok(())
}
