//! A network between the device and the gateway: ISC's dhcrelay adds option 82, and the gateway answers the relay.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use anyhow::Result;
use tr111_tests::{
    agent::{Agent, SOON},
    client::{Client, mac_text},
    frame::{Received, kind},
    host::{dhcrelay, dnsmasq, kea, udhcpc},
    lab::{GATEWAY, Lab, POOL},
    namespace::Namespace,
    process::{Process, run},
    tshark::Capture,
    vectors::{D1, D2, hex},
    wire::Wire,
};

/// The relay on the gateway's LAN, and on the network behind it.
const UPLINK: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 9);
const DOWNLINK: Ipv4Addr = Ipv4Addr::new(10, 113, 0, 1);
/// Addresses of that network.
const RELAYED: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 113, 1, 1), Ipv4Addr::new(10, 113, 1, 250));
/// End of the pool on the LAN itself.
const POOL_END: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 250);
/// G1 as tshark reads it.
const GATEWAY_IDENTITY: &str = "00256D/GW0001/IGD";

/// Gateway, relay (the lab's host) and a host behind it.
fn network() -> Result<(Lab, Namespace)> {
    let lab = Lab::new()?;
    let host = Namespace::new("host")?;
    lab.lan.connect("down0", &host, "eth0")?;
    lab.lan.ip(&format!("addr add {UPLINK}/16 dev eth0"))?;
    lab.lan.ip(&format!("addr add {DOWNLINK}/16 dev down0"))?;
    lab.gateway.ip(&format!("route add 10.113.0.0/16 via {UPLINK}"))?;
    // Sums are complete on the wire (see insertion_on_the_wire.rs).
    run(lab.gateway.command("ethtool").args(["-K", "lan0", "tx", "off"]))?;
    Ok((lab, host))
}

fn a_relayed_device_gets_it(server: impl Fn(&Lab) -> Result<Process>) -> Result<()> {
    let (lab, host) = network()?;
    let _server = server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let _relay = dhcrelay(&lab.lan, "down0", "eth0", GATEWAY, lab.path())?;
    let (mut above, mut below) = (Capture::start(&lab.lan, "eth0")?, Capture::start(&host, "eth0")?);

    let _device = udhcpc(&host, "eth0", &hex(D1), lab.path())?;
    let device = host.mac("eth0")?;
    below.until("ACK to the device", |message| message.op == 2 && message.kind() == kind::ACK)?;
    let wire = Wire::open(&host, "eth0")?;
    let mut stranger = Client::new(&wire, 2, Vec::new());
    stranger.bind()?;
    let last = |message: &Received| message.op == 2 && message.xid == stranger.transaction();
    above.until("ACK for the stranger", last)?;
    below.until("ACK to the stranger", last)?;

    for (place, replies) in [("above", above.replies()?), ("below", below.replies()?)] {
        assert!(replies.len() >= 4, "{place} the relay: {replies:?}");
        for reply in replies {
            let expected = (reply.client == device).then_some(GATEWAY_IDENTITY);
            assert_eq!(reply.gateway.as_deref(), expected, "{place} the relay: {reply:?}");
            // RFC 3046 2.1: option 82 is the last one. The relay takes it out on the way to the client.
            let ends = reply.options.ends_with(if expected.is_some() { &[125, 82] } else { &[82] });
            assert_eq!(ends, place == "above", "{place} the relay: {reply:?}");
            assert_eq!(reply.options.contains(&82), place == "above", "{place} the relay: {reply:?}");
        }
    }
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/STB");
    let binding = &rows[0].bindings[0];
    assert_eq!((&binding.mac, binding.interface.as_str()), (&mac_text(device), "lan0"));
    assert!(binding.ip.starts_with("10.113.1."), "{binding:?}");
    Ok(())
}

/// GW-1, GW-4, T-24: with dnsmasq, through a real relay: the identity arrives, before option 82, which stays last.
#[test]
fn a_device_behind_a_real_relay_gets_it_from_dnsmasq() -> Result<()> {
    a_relayed_device_gets_it(|lab| dnsmasq(&lab.gateway, "lan0", RELAYED, lab.path(), &[]))
}

/// GW-1, GW-4, T-24: the same with Kea on a raw socket.
#[test]
fn a_device_behind_a_real_relay_gets_it_from_kea() -> Result<()> {
    a_relayed_device_gets_it(|lab| kea(&lab.gateway, "lan0", RELAYED, lab.path(), "raw"))
}

/// GW-1, GW-4, T-24: and with Kea on a UDP socket, which serves relays only: it does not hear broadcasts.
#[test]
fn a_device_behind_a_real_relay_gets_it_from_kea_on_a_udp_socket() -> Result<()> {
    a_relayed_device_gets_it(|lab| kea(&lab.gateway, "lan0", RELAYED, lab.path(), "udp"))
}

/// GW-9, GW-11: who is behind a relay does not hear ARP, so it is never probed and stays as long as its lease; its
/// neighbour on the LAN itself, as silent, is probed and goes.
#[test]
fn a_relayed_device_is_never_probed() -> Result<()> {
    let (lab, host) = network()?;
    let direct_pool = format!("--dhcp-range={POOL},{POOL_END},255.255.0.0,2m");
    let _server = dnsmasq(&lab.gateway, "lan0", RELAYED, lab.path(), &[&direct_pool])?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    agent.print(&["tune", "gateway.association.probe_interval_s=1", "gateway.association.probe_count=2"])?;
    let _relay = dhcrelay(&lab.lan, "down0", "eth0", GATEWAY, lab.path())?;
    let (lan, behind) = (Wire::open(&lab.lan, "eth0")?, Wire::open(&host, "eth0")?);

    let relayed = Client::new(&behind, 2, hex(D2)).bind()?.yiaddr;
    agent.wait_for_rows(1, SOON)?;
    let direct = Client::new(&lan, 1, hex(D1)).bind()?.yiaddr;
    agent.wait_for_metrics("end of the one on the LAN", |metrics| {
        metrics.sum("tr111_table_changes_total", &[("reason", "disconnected")]) == 1
    })?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!((rows[0].identity().as_str(), &rows[0].bindings[0].ip), ("00256D/DEV0001/", &relayed.to_string()));

    let mut probed = BTreeSet::new();
    while let Some(frame) = lan.receive(Duration::ZERO)? {
        // ARP requests (RFC 826): the target's address is the last field.
        if frame[12..14] == [8, 6] && frame[20..22] == [0, 1] {
            probed.extend(frame[38..42].first_chunk::<4>().copied().map(Ipv4Addr::from));
        }
    }
    assert!(probed.contains(&direct) && !probed.contains(&relayed), "{probed:?}");
    Ok(())
}
