//! Devices that stay, and devices that vanish without a word.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Error, Result};
use nix::sys::signal::Signal;
use tr111_tests::{
    agent::{Agent, SOON, binary},
    client::{Client, mac_text},
    frame::{Mac, Message, Packet, Received, kind},
    lab::{GATEWAY, Lab, POOL},
    process::{Process, run},
    responder::Responder,
    vectors::{D1, hex},
    wait::{wait_for, wait_until},
    wire::Wire,
};

fn device(lab: &Lab) -> Result<Process> {
    let mut command = lab.lan.command(binary()?);
    command.args(["sim", "devices", "--iface", "eth0", "--count", "1", "--vanish"]);
    Process::start("sim", &mut command, lab.path())
}

/// GW-8: a device that answers ARP stays, long after the agent last heard of it otherwise. GW-11: one whose plug is
/// pulled goes when its probes are unanswered and a search found nothing, with its lease far from over.
#[test]
fn who_answers_stays_and_who_vanishes_goes_after_the_probe_window() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3_600)?;
    let agent = impatient(&lab)?;
    let mut device = device(&lab)?;
    device.wait_for_line("1 device", Duration::from_mins(1))?;
    let row = agent.wait_for_rows(1, SOON)?;

    // Three windows of one second and two probes each: without its answers it would be gone by the first.
    wait_for("answered probes", Duration::from_secs(30), || {
        let answered = agent.metrics()?.sum("tr111_liveness_probes_total", &[("result", "answered")]);
        Ok((answered >= 3).then_some(()))
    })?;
    assert_eq!(agent.devices()?[0].instance, row[0].instance);

    device.signal(Signal::SIGTERM)?;
    device.wait(SOON)?;
    agent.wait_for_rows(0, Duration::from_secs(30))?;
    let metrics = agent.metrics()?;
    assert!(metrics.sum("tr111_liveness_probes_total", &[("result", "silent")]) >= 2);
    assert!(metrics.sum("tr111_liveness_probes_total", &[("result", "sent")]) >= 5);
    assert_eq!(metrics.sum("tr111_table_changes_total", &[("reason", "disconnected")]), 1);
    Ok(())
}

/// Starts an agent on `lan0` that asks silent devices every second and gives them up after two probes.
fn impatient(lab: &Lab) -> Result<Agent<'_>> {
    let agent = Agent::start(lab, &["lan0"], &[])?;
    agent.print(&["tune", "gateway.association.probe_interval_s=1", "gateway.association.probe_count=2"])?;
    Ok(agent)
}

/// A datagram from a device's address to a port of the gateway where nobody listens.
fn datagram(device: &Client<'_>, gateway: Mac) -> Packet {
    let packet = Packet::from_client(device.mac, b"hello".to_vec());
    Packet { to: gateway, source: device.address, destination: GATEWAY, ports: (5_000, 9), ..packet }
}

/// Does `act` again and again until the metrics tell of two more signs of life of a kind.
fn keep_alive_until_found(agent: &Agent<'_>, sign: &str, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    let found = || Ok::<_, Error>(agent.metrics()?.sum("tr111_liveness_signs_total", &[("sign", sign)]));
    let enough = found()? + 2;
    wait_until(&format!("two signs of life: {sign}"), Duration::from_mins(1), || {
        act()?;
        Ok(found()? >= enough)
    })
}

/// GW-8: behind a Wi-Fi repeater ARP answers carry the repeater's hardware address, and nothing that is sent to the
/// device's own arrives. The device stays, and `devices --json` shows who answered.
#[test]
fn a_device_behind_a_repeater_stays() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3_600)?;
    let agent = impatient(&lab)?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    let ack = device.bind()?;
    // The host answers for the address with the hardware address of its interface.
    lab.lan.ip(&format!("addr add {}/16 dev eth0", ack.yiaddr))?;
    let row = agent.wait_for_rows(1, SOON)?;
    wait_for("answered probes", Duration::from_secs(30), || {
        let answered = agent.metrics()?.sum("tr111_liveness_probes_total", &[("result", "answered")]);
        Ok((answered >= 3).then_some(()))
    })?;
    assert_eq!(agent.devices()?, row);
    let binding = agent.json(&["devices"])?["devices"][0]["bindings"][0].clone();
    assert_eq!(binding["mac"], mac_text(device.mac));
    assert_eq!(binding["answered_by"], mac_text(lab.lan.mac("eth0")?));
    assert_eq!(agent.metrics()?.sum("tr111_liveness_signs_total", &[]), 0);

    lab.lan.ip(&format!("addr del {}/16 dev eth0", ack.yiaddr))?;
    agent.wait_for_rows(0, Duration::from_secs(30))?;
    Ok(())
}

/// GW-8, T-6: a device that answers no ARP stays while frames come from its address, in its VLANs only.
#[test]
fn a_device_that_talks_but_answers_no_arp_stays() -> Result<()> {
    for tags in [vec![], vec![(0x8100, 5)], vec![(0x88a8, 7), (0x8100, 5)]] {
        let lab = Lab::new()?;
        let agent = impatient(&lab)?;
        let wire = Wire::open(&lab.lan, "eth0")?;
        let device = bind_in_vlans(&lab, &wire, &tags)?;
        agent.wait_for_rows(1, SOON)?;

        let mut packet = datagram(&device, lab.gateway.mac("lan0")?);
        packet.tags.clone_from(&tags);
        keep_alive_until_found(&agent, "frame", || wire.send(&packet.bytes()))?;
        assert_eq!(agent.devices()?.len(), 1, "tags {tags:04x?}");

        // Frames of another VLAN, or from another address, are somebody else's.
        packet.tags = vec![(0x8100, 6)];
        let mut another = datagram(&device, lab.gateway.mac("lan0")?);
        another.tags.clone_from(&tags);
        another.source = Ipv4Addr::new(10, 111, 9, 9);
        wait_until("the row to go", Duration::from_secs(30), || {
            wire.send(&packet.bytes())?;
            wire.send(&another.bytes())?;
            Ok(agent.devices()?.is_empty())
        })?;
    }
    Ok(())
}

/// A device with a lease in a VLAN, from a server that the test plays.
fn bind_in_vlans<'a>(lab: &Lab, device: &'a Wire, tags: &[(u16, u16)]) -> Result<Client<'a>> {
    let server = Wire::open(&lab.gateway, "lan0")?;
    let mut client = Client::new(device, 1, hex(D1));
    let message = client.message(kind::REQUEST);
    let mut request = Packet::from_client(client.mac, message.bytes());
    let untagged = Received::parse(&request.bytes()).context("a message")?;
    request.tags = tags.to_vec();
    device.send(&request.bytes())?;
    let xid = message.xid.to_be_bytes();
    server.expect("request at the gateway", SOON, |frame| frame.windows(4).any(|part| part == xid).then_some(()))?;
    let mut reply = Message::answer(&untagged, kind::ACK, GATEWAY).option(51, &3_600u32.to_be_bytes());
    reply.yiaddr = POOL;
    let mut reply = Packet::from_server(lab.gateway.mac("lan0")?, GATEWAY, reply.bytes());
    reply.tags = tags.to_vec();
    server.send(&reply.bytes())?;
    client.address = POOL;
    Ok(client)
}

/// GW-8: a neighbour entry that was confirmed after the first lost probe keeps a device. One that only exists does not.
#[test]
fn a_confirmed_neighbour_keeps_a_device_and_an_old_one_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3_600)?;
    let agent = impatient(&lab)?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    device.bind()?;
    agent.wait_for_rows(1, SOON)?;
    let entry = |state: &str| {
        let (address, mac) = (device.address, mac_text(device.mac));
        lab.gateway.ip(&format!("neigh replace {address} lladdr {mac} dev lan0 nud {state}")).map(drop)
    };
    keep_alive_until_found(&agent, "neighbour", || entry("reachable"))?;
    assert_eq!(agent.devices()?.len(), 1);
    entry("stale")?;
    agent.wait_for_rows(0, Duration::from_secs(30))?;
    assert!(lab.gateway.ip("neigh show dev lan0")?.contains(&device.address.to_string()), "the entry is still there");
    Ok(())
}

/// GW-8: packets that a device sends in a tracked flow keep it, where the tracker counts them, also when no frame of it is
/// seen on the LAN interface, as with flows that hardware forwards. A flow that only exists does not.
#[test]
fn a_flow_that_carries_packets_of_a_device_keeps_it_and_an_old_one_does_not() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3_600)?;
    // Another way to the gateway, which the agent does not watch.
    lab.gateway.connect("side0", &lab.lan, "eth1")?;
    let rules = "table ip tracked { chain tracked { type filter hook prerouting priority 0; ct state new counter; }; }";
    run(lab.gateway.command("nft").arg(rules))?;
    for setting in ["netfilter.nf_conntrack_acct=1", "ipv4.conf.all.rp_filter=0", "ipv4.conf.side0.rp_filter=0"] {
        run(lab.gateway.command("sysctl").args(["-qw", &format!("net.{setting}")]))?;
    }
    let agent = impatient(&lab)?;
    let (wire, side) = (Wire::open(&lab.lan, "eth0")?, Wire::open(&lab.lan, "eth1")?);
    let mut device = Client::new(&wire, 1, hex(D1));
    device.bind()?;
    agent.wait_for_rows(1, SOON)?;
    let packet = datagram(&device, lab.gateway.mac("side0")?).bytes();
    keep_alive_until_found(&agent, "flow", || side.send(&packet))?;
    assert_eq!(agent.devices()?.len(), 1);
    assert_eq!(agent.metrics()?.sum("tr111_liveness_signs_total", &[("sign", "frame")]), 0);

    agent.wait_for_rows(0, Duration::from_secs(30))?;
    let flows = run(lab.gateway.command("conntrack").args(["-L", "-s", &device.address.to_string()]))?;
    assert!(flows.contains("dport=9"), "the flow outlives the row: {flows}");
    Ok(())
}
