//! A network between the device and the gateway: ISC's dhcrelay adds option 82, and the gateway answers the relay.

use std::{collections::BTreeSet, net::Ipv4Addr, net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tr111_tests::{
    agent::{Agent, SOON},
    client::{Client, mac_text},
    frame::{Message, Packet, Received, kind},
    host::{dhcrelay, dnsmasq, kea, udhcpc},
    lab::{GATEWAY, Lab, POOL},
    metrics::Metrics,
    namespace::Namespace,
    process::{Process, output, run, text},
    tshark::Capture,
    vectors::{D1, D2, hex, identity},
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

/// The DISCOVER of a client behind the relay, all of one length.
fn relayed_discover(wire: &Wire, number: u8) -> Message {
    let mut client = Client::new(wire, number, identity("00256D", &format!("DEV{number:04}"), ""));
    Message { giaddr: UPLINK, ..client.message(kind::DISCOVER) }
}

/// DISCOVERs that the programs saw, over budget or not, and frames whose datagrams were not told apart.
fn discovers(metrics: &Metrics) -> (u64, u64) {
    let count = |class| metrics.packets("lan_ingress", class);
    (count("discover") + count("over_budget"), count("merged"))
}

/// T-28: as many datagrams of one flow as the kernel merges into a frame are one message each, with an event each. Of more,
/// those that fit the bound are, and the frame is counted as `merged` besides.
#[test]
fn each_datagram_of_a_merged_frame_has_an_event() -> Result<()> {
    const GRO_MAXIMUM: u8 = 64;
    const BOUND: u64 = 66;
    let (lab, _host) = network()?;
    let agent = Agent::start(&lab, &["lan0"], &["--xdp-mode", "tc"])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let relay = lab.lan.enter(|| UdpSocket::bind((UPLINK, 67)))?;
    let burst = |count: u8| -> Result<()> {
        let messages: Vec<Vec<u8>> = (0..count).map(|number| relayed_discover(&wire, number).bytes()).collect();
        // The kernel leaves it to the interface to cut the datagram, and a veth does not cut.
        setsockopt(&relay, sockopt::UdpGsoSegment, &i32::try_from(messages[0].len())?)?;
        relay.send_to(&messages.concat(), (GATEWAY, 67))?;
        Ok(())
    };
    burst(GRO_MAXIMUM)?;
    let sent = u64::from(GRO_MAXIMUM);
    let metrics = agent.wait_for_metrics("every DISCOVER", |metrics| discovers(metrics).0 >= sent)?;
    assert_eq!(discovers(&metrics), (sent, 0));
    assert_eq!(metrics.sum("tr111_ring_events_total", &[]), sent);

    burst(100)?;
    let metrics = agent.wait_for_metrics("the bound", |metrics| discovers(metrics).1 > 0)?;
    assert_eq!(discovers(&metrics), (sent + BOUND, 1));

    // What is pinned goes on without an agent.
    let files = agent.kill()?;
    burst(GRO_MAXIMUM)?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &["--xdp-mode", "tc"])?;
    let agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    assert_eq!(discovers(&agent.metrics()?), (2 * sent + BOUND, 1));
    Ok(())
}

/// T-28: the same where the kernel merges what a relay sends in a burst (`rx-gro-list`, `rx-udp-gro-forwarding`).
#[test]
fn merged_datagrams_of_a_relay_are_seen_one_by_one() -> Result<()> {
    for feature in ["rx-udp-gro-forwarding", "rx-gro-list"] {
        bursts_are_seen(feature).context(feature)?;
    }
    Ok(())
}

fn bursts_are_seen(feature: &str) -> Result<()> {
    const BURST: u8 = 200;
    let (lab, _host) = network()?;
    for feature in ["gro", feature] {
        run(lab.gateway.command("ethtool").args(["-K", "lan0", feature, "on"]))?;
    }
    // A frame waits 10 ms for others of its flow.
    run(lab.gateway.command("sh").args(["-c", "echo 10000000 > /sys/class/net/lan0/gro_flush_timeout"]))?;
    let agent = Agent::start(&lab, &["lan0"], &["--xdp-mode", "tc"])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let (relay, gateway) = (lab.lan.mac("eth0")?, lab.gateway.mac("lan0")?);
    let mut rounds = 0;
    while rounds == 0 || !has_merged(&lab)? && rounds < 20 {
        rounds += 1;
        for number in 0..BURST {
            let packet = Packet {
                to: gateway,
                source: UPLINK,
                destination: GATEWAY,
                ports: (67, 67),
                ..Packet::from_client(relay, relayed_discover(&wire, number).bytes())
            };
            wire.send(&packet.bytes())?;
        }
        let sent = u64::from(BURST) * rounds;
        let metrics = agent.wait_for_metrics("every DISCOVER", |metrics| discovers(metrics).0 == sent)?;
        assert_eq!((discovers(&metrics).1, metrics.packets("lan_ingress", "oversize")), (0, 0));
    }
    assert!(has_merged(&lab)?, "the kernel merged nothing in {rounds} rounds");
    Ok(())
}

/// Merged replies to a relay leave as they are, each without the Gateway Identity. The alarm `merged` says so, and names the
/// setting and the interface that has it; so does `check`.
#[test]
fn merged_replies_are_an_alarm_that_names_the_setting() -> Result<()> {
    const SETTING: &str = "`ethtool -K lan0 rx-gro-list off rx-udp-gro-forwarding off`";
    let (lab, _host) = network()?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let check = || Ok::<_, anyhow::Error>(text(&output(&mut agent.command(&["check", "--lan", "lan0"])?)?.stdout));
    assert!(!check()?.contains("ethtool"));
    run(lab.gateway.command("ethtool").args(["-K", "lan0", "rx-gro-list", "on"]))?;
    let findings = check()?;
    let line = findings.lines().find(|line| line.contains(SETTING)).with_context(|| findings.clone())?;
    assert!(line.starts_with("warning") && line.contains("rx-gro-list)"), "{line}");

    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut reply = relayed_discover(&wire, 1).bytes();
    // BOOTREPLY
    reply[0] = 2;
    let server = lab.gateway.enter(|| UdpSocket::bind((GATEWAY, 67)))?;
    setsockopt(&server, sockopt::UdpGsoSegment, &i32::try_from(reply.len())?)?;
    server.send_to(&reply.repeat(3), (UPLINK, 67))?;
    let raised =
        |metrics: &Metrics| metrics.sum("tr111_gateway_alarms", &[("alarm", "merged"), ("interface", "lan0")]) == 1;
    let metrics = agent.wait_for_metrics("the alarm", raised)?;
    assert_eq!(metrics.packets("lan_egress", "merged"), 1);
    let status = agent.json(&["status"])?;
    let detail = status["alarms"][0]["detail"].as_str().context("no detail")?;
    assert!(detail.contains(SETTING), "{detail}");
    assert!(agent.log().contains("merged"), "{}", agent.log());
    Ok(())
}

/// Whether IPv4 of the gateway took more datagrams than frames.
fn has_merged(lab: &Lab) -> Result<bool> {
    let printed = run(lab.gateway.command("nstat").args(["-asz", "IpInReceives", "IpExtInNoECTPkts"]))?;
    let count = |name: &str| -> Result<u64> {
        let line = printed.lines().find(|line| line.starts_with(name)).context(name.to_owned())?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
    };
    Ok(count("IpExtInNoECTPkts")? > count("IpInReceives")?)
}
