//! Interfaces that need a module: VLAN devices, bridges that filter VLANs, bonds, macvlan, and ports that merge datagrams.

use anyhow::Result;
use tr111_tests::{
    agent::{Agent, Device, SOON},
    client::Client,
    host::dnsmasq,
    lab::{GATEWAY, Lab, POOL},
    namespace::Namespace,
    process::run,
    vectors::{D1, G1, hex},
    wire::Wire,
};

use super::rows::POOL_END;

/// Runs an agent on `watched` and dnsmasq on `served`, lets a device on the host's interface `host` come, and gives its
/// row. Its ACK has the Gateway Identity.
fn row(lab: &Lab, watched: &str, served: &str, host: &str) -> Result<Device> {
    let _server = dnsmasq(&lab.gateway, served, (POOL, POOL_END), lab.path(), &[])?;
    let agent = Agent::start(lab, &[watched], &[])?;
    let wire = Wire::open(&lab.lan, host)?;
    let ack = Client::new(&wire, 1, hex(D1)).bind()?;
    assert_eq!(ack.option(125), Some(&hex(G1)[2..]), "{watched}");
    Ok(agent.wait_for_rows(1, SOON)?.remove(0))
}

/// A lab whose gateway has its address on `interface`, which `commands` make.
fn lab(interface: &str, commands: &[&str]) -> Result<Lab> {
    let lab = Lab::new()?;
    lab.gateway.ip("addr flush dev lan0")?;
    for command in commands {
        match command.strip_prefix("host: ") {
            Some(command) => lab.lan.ip(command)?,
            None => lab.gateway.ip(command)?,
        };
    }
    lab.gateway.ip(&format!("addr add {GATEWAY}/16 dev {interface}"))?;
    Ok(lab)
}

/// On the VLAN device itself there is no tag any more.
#[test]
fn a_vlan_device() -> Result<()> {
    let lab = lab(
        "lan0.10",
        &[
            "link add link lan0 name lan0.10 type vlan id 10",
            "link set lan0.10 up",
            "host: link add link eth0 name eth0.10 type vlan id 10",
            "host: link set eth0.10 up",
        ],
    )?;
    let row = row(&lab, "lan0.10", "lan0.10", "eth0.10")?;
    assert_eq!((row.bindings[0].interface.as_str(), row.bindings[0].vlan.as_slice()), ("lan0.10", &[][..]));
    Ok(())
}

/// On the interface below it the tag is there: in the frame at XDP, in metadata at TC.
#[test]
fn the_interface_below_a_vlan_device() -> Result<()> {
    let lab = lab(
        "lan0.10",
        &[
            "link add link lan0 name lan0.10 type vlan id 10",
            "link set lan0.10 up",
            "host: link add link eth0 name eth0.10 type vlan id 10",
            "host: link set eth0.10 up",
        ],
    )?;
    let row = row(&lab, "lan0", "lan0.10", "eth0.10")?;
    assert_eq!((row.bindings[0].interface.as_str(), row.bindings[0].vlan.as_slice()), ("lan0", &[10][..]));
    Ok(())
}

/// 802.1Q in 802.1ad: both tags name the segment.
#[test]
fn a_vlan_in_a_service_vlan() -> Result<()> {
    let lab = lab(
        "lan0.100.10",
        &[
            "link add link lan0 name lan0.100 type vlan protocol 802.1ad id 100",
            "link set lan0.100 up",
            "link add link lan0.100 name lan0.100.10 type vlan id 10",
            "link set lan0.100.10 up",
            "host: link add link eth0 name eth0.100 type vlan protocol 802.1ad id 100",
            "host: link set eth0.100 up",
            "host: link add link eth0.100 name eth0.100.10 type vlan id 10",
            "host: link set eth0.100.10 up",
        ],
    )?;
    let row = row(&lab, "lan0", "lan0.100.10", "eth0.100.10")?;
    assert_eq!(row.bindings[0].vlan, [100, 10]);
    Ok(())
}

/// A VLAN of a bridge that filters them, as OpenWrt configures it: `br-lan.10`, and a port that is untagged in it.
#[test]
fn a_vlan_of_a_filtering_bridge() -> Result<()> {
    let lab = lab(
        "br-lan.10",
        &[
            "link add br-lan type bridge vlan_filtering 1 forward_delay 0",
            "link set br-lan up",
            "link set lan0 master br-lan",
            "link add link br-lan name br-lan.10 type vlan id 10",
            "link set br-lan.10 up",
        ],
    )?;
    for arguments in [
        &["vlan", "del", "dev", "lan0", "vid", "1"][..],
        &["vlan", "add", "dev", "lan0", "vid", "10", "pvid", "untagged"],
        &["vlan", "add", "dev", "br-lan", "vid", "10", "self"],
    ] {
        run(lab.gateway.command("bridge").args(arguments))?;
    }
    let row = row(&lab, "br-lan.10", "br-lan.10", "eth0")?;
    assert_eq!((row.bindings[0].interface.as_str(), row.bindings[0].vlan.as_slice()), ("br-lan.10", &[][..]));
    Ok(())
}

/// A server in a container on a port of a bridge, whose replies never pass the bridge's own hooks.
#[test]
fn a_server_behind_a_port_of_a_bridge() -> Result<()> {
    a_server_behind_a_port(&Lab::bridged()?)
}

/// The same where all ports are untagged members of the bridge's own VLAN.
#[test]
fn a_server_behind_a_port_of_a_filtering_bridge() -> Result<()> {
    let lab = Lab::bridged()?;
    lab.gateway.ip("link set br-lan type bridge vlan_filtering 1")?;
    a_server_behind_a_port(&lab)
}

fn a_server_behind_a_port(lab: &Lab) -> Result<()> {
    let container = Namespace::new("container")?;
    lab.gateway.connect("ctr0", &container, "eth0")?;
    lab.gateway.ip("link set ctr0 master br-lan")?;
    container.ip("addr add 10.111.0.2/16 dev eth0")?;
    let _server = dnsmasq(&container, "eth0", (POOL, POOL_END), lab.path(), &[])?;
    let file = lab.write("gateway.toml", "[gateway.association]\naccept_foreign_server = true\n")?;
    let agent = Agent::start(lab, &["br-lan"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut client = Client::new(&wire, 1, hex(D1));
    assert_eq!(client.bind()?.option(125), Some(&hex(G1)[2..]));
    assert_eq!(agent.wait_for_rows(1, SOON)?[0].bindings[0].interface, "br-lan");
    assert_eq!(agent.metrics()?.packets("lan_port", "ack"), 1);
    client.release()?;
    agent.wait_for_rows(0, SOON)?;
    Ok(())
}

#[test]
fn a_bond() -> Result<()> {
    let lab = lab(
        "bond0",
        &[
            "link add bond0 type bond mode active-backup miimon 100",
            "link set lan0 down",
            "link set lan0 master bond0",
            "link set bond0 up",
        ],
    )?;
    assert_eq!(row(&lab, "bond0", "bond0", "eth0")?.bindings[0].interface, "bond0");
    Ok(())
}

#[test]
fn a_macvlan() -> Result<()> {
    let lab = lab("mac0", &["link add link lan0 name mac0 type macvlan mode bridge", "link set mac0 up"])?;
    assert_eq!(row(&lab, "mac0", "mac0", "eth0")?.bindings[0].interface, "mac0");
    Ok(())
}

/// Ports of a bridge that merge the datagrams of a flow, OpenWrt's default on many boxes.
#[test]
fn ports_that_merge_datagrams() -> Result<()> {
    for feature in ["rx-gro-list", "rx-udp-gro-forwarding"] {
        let lab = Lab::bridged()?;
        run(lab.gateway.command("ethtool").args(["-K", "port0", "gro", "on", feature, "on"]))?;
        let row = row(&lab, "br-lan", "br-lan", "eth0")?;
        assert_eq!(row.bindings[0].interface, "br-lan", "{feature}");
    }
    Ok(())
}
