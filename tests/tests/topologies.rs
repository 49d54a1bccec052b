//! Where the devices may be: behind a bridge, on several LANs, in VLANs, behind a relay; and where not: on the WAN.

use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};
use nix::sys::socket::{setsockopt, sockopt};
use tr111_tests::{
    agent::{Agent, Device, SOON},
    client::Client,
    frame::{Message, Packet, Received, kind},
    host::{dnsmasq, udhcpc},
    lab::{GATEWAY, Lab, POOL},
    namespace::Namespace,
    responder::Responder,
    testing::Testing,
    vectors::{D1, D2, G1, hex, identity},
    wait::wait_for,
    wire::Wire,
};

const POOL_END: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 250);

/// Modes of the hooks of `interface`, from `tr111 status --json`.
fn hook_modes(agent: &Agent<'_>, interface: &str) -> Result<Vec<(String, String)>> {
    let status = agent.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    let found = interfaces.iter().find(|entry| entry["name"] == interface).context("the interface is missing")?;
    let hooks = found["hooks"].as_array().context("no hooks")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(hooks.iter().map(|hook| (text(&hook["program"]), text(&hook["mode"]))).collect())
}

fn mode_of(agent: &Agent<'_>, interface: &str, program: &str) -> Result<String> {
    let modes = hook_modes(agent, interface)?;
    let found = modes.into_iter().find(|(name, _)| name == program);
    found.map(|(_, mode)| mode).with_context(|| format!("no {program} on {interface}"))
}

/// GW-1, GW-6: a LAN that is a Linux bridge; devices behind both ports become rows of the bridge.
#[test]
fn devices_behind_a_bridge_are_rows_of_the_bridge() -> Result<()> {
    let lab = Lab::bridged()?;
    let _server = dnsmasq(&lab.gateway, "br-lan", (POOL, POOL_END), lab.path(), &[])?;
    let agent = Agent::start(&lab, &["br-lan"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    let _real = udhcpc(&lab.lan, "eth1", &identity("00256D", "BEHIND1", "STB"), lab.path())?;
    let rows = agent.wait_for_rows(2, Duration::from_secs(30))?;
    assert!(rows.iter().all(|row| row.bindings[0].interface == "br-lan"), "{rows:?}");
    assert_eq!(mode_of(&agent, "br-lan", "lan_ingress")?, "tc");
    Ok(())
}

/// GW-1: each LAN interface is looked at, and the same device on two LANs is one row with two bindings.
#[test]
fn several_lans_are_watched_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let second = Namespace::new("lan2")?;
    lab.gateway.connect("lan1", &second, "eth0")?;
    lab.gateway.ip("addr add 10.112.0.1/16 dev lan1")?;
    let other = Ipv4Addr::new(10, 112, 0, 1);
    let _first_server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let _second_server = Responder::start(&lab.gateway, "lan1", other, Ipv4Addr::new(10, 112, 1, 1), 120)?;
    let agent = Agent::start(&lab, &["lan0", "lan1"], &[])?;
    let first_wire = Wire::open(&lab.lan, "eth0")?;
    let second_wire = Wire::open(&second, "eth0")?;
    Client::new(&first_wire, 1, hex(D1)).bind()?;
    Client::new(&second_wire, 1, hex(D1)).bind()?;
    Client::new(&second_wire, 2, identity("00256D", "SECOND", "")).bind()?;
    let rows = agent.wait_for_rows(2, SOON)?;
    let mut interfaces: Vec<_> = rows[0].bindings.iter().map(|binding| binding.interface.as_str()).collect();
    interfaces.sort_unstable();
    assert_eq!(interfaces, ["lan0", "lan1"]);
    assert_eq!(rows[1].bindings[0].interface, "lan1");
    assert_eq!(
        (mode_of(&agent, "lan0", "lan_ingress")?, mode_of(&agent, "lan1", "lan_egress")?),
        ("native".into(), "tc".into())
    );
    Ok(())
}

/// GW-1: the very same packet on an interface that is no LAN moves no counter.
#[test]
fn the_wan_side_is_not_looked_at() -> Result<()> {
    let lab = Lab::new()?;
    let provider = Namespace::new("wan")?;
    lab.gateway.connect("wan0", &provider, "isp0")?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wan = Wire::open(&provider, "isp0")?;
    let wan_gateway_side = Wire::open_incoming(&lab.gateway, "wan0")?;
    let outsider = Client::new(&wan, 1, hex(D1)).message(kind::DISCOVER);
    Client::new(&wan, 1, hex(D1)).send(&outsider)?;
    wan_gateway_side.expect("DISCOVER at wan0", SOON, Received::parse)?;
    assert_eq!(agent.metrics()?.all_packets("lan_ingress"), 0);

    let lan = Wire::open(&lab.lan, "eth0")?;
    Client::new(&lan, 1, hex(D1)).send(&outsider)?;
    agent.wait_for_metrics("DISCOVER on the LAN", |metrics| metrics.identities("discover", "accepted") == 1)?;
    Ok(())
}

/// Protocol and control information of a VLAN tag.
type Tag = (u16, u16);

/// Plays client and server by hand in VLANs: the responder's socket would not see the tags. `tags` are those of the
/// request and of the reply as they stand in the frames. The ACK as it arrived.
fn exchange_in_vlan(lab: &Lab, tags: [&[Tag]; 2], number: u8, serial_number: &str) -> Result<Received> {
    let device = Wire::open(&lab.lan, "eth0")?;
    let server = Wire::open(&lab.gateway, "lan0")?;
    let mut client = Client::new(&device, number, identity("00256D", serial_number, "STB"));
    let address = Ipv4Addr::new(10, 111, 3, number);
    let mut replies = Vec::new();
    for (kind, answer) in [(kind::DISCOVER, kind::OFFER), (kind::REQUEST, kind::ACK)] {
        let message = client.message(kind);
        let mut request = Packet::from_client(client.mac, message.bytes());
        let untagged = Received::parse(&request.bytes()).context("a message")?;
        request.tags = tags[0].to_vec();
        device.send(&request.bytes())?;
        // The reply must not overtake the request: wait until the gateway has it.
        let xid = message.xid.to_be_bytes();
        server.expect("request at the gateway", SOON, |frame| {
            frame.windows(4).any(|window| window == xid).then_some(())
        })?;
        let mut reply = Message::answer(&untagged, answer, GATEWAY).option(51, &120u32.to_be_bytes());
        reply.yiaddr = address;
        let mut reply = Packet::from_server(lab.gateway.mac("lan0")?, GATEWAY, reply.bytes());
        reply.tags = tags[1].to_vec();
        server.send(&reply.bytes())?;
        replies.push(device.expect("reply at the device", SOON, |frame| {
            Received::parse(&without_tags(frame)).filter(|reply| reply.op == 2 && reply.xid == message.xid)
        })?);
    }
    replies.pop().context("an ACK")
}

/// The frame as a host hands it to its stack; the kernel takes out only the outer tag.
fn without_tags(frame: &[u8]) -> Vec<u8> {
    let (addresses, mut rest) = frame.split_at(12);
    while let [0x81, 0x00, _, _, after @ ..] | [0x88, 0xa8, _, _, after @ ..] = rest {
        rest = after;
    }
    [addresses, rest].concat()
}

/// Serial number and VLANs of each row, in order.
fn vlans_of(rows: &[Device]) -> Vec<(&str, Vec<u64>)> {
    let mut vlans: Vec<_> = rows.iter().map(|row| (row.serial_number.as_str(), row.bindings[0].vlan.clone())).collect();
    vlans.sort_unstable();
    vlans
}

/// GW-1, GW-4: tagged devices are seen with one VLAN and with two, their rows name them, and the Gateway Identity goes
/// into their replies; at XDP, which sees tags in the frame, and at TC, which sees the outer one in metadata.
#[test]
fn tagged_devices_become_rows_that_name_their_vlans() -> Result<()> {
    for mode in ["native", "tc"] {
        let lab = Lab::new()?;
        let agent = Agent::start(&lab, &["lan0"], &["--xdp-mode", mode])?;
        assert_eq!(mode_of(&agent, "lan0", "lan_ingress")?, mode);
        let cases: [(&[Tag], _); 3] =
            [(&[(0x8100, 5)], "ONE-TAG"), (&[(0x88a8, 7), (0x8100, 5)], "TWO-TAGS"), (&[], "NO-TAG")];
        for (number, (tags, serial_number)) in (1..).zip(cases) {
            let ack = exchange_in_vlan(&lab, [tags, tags], number, serial_number)?;
            assert_eq!(ack.option(125), Some(&hex(G1)[2..]), "{serial_number}, --xdp-mode {mode}");
        }
        let rows = agent.wait_for_rows(3, SOON).with_context(|| format!("--xdp-mode {mode}"))?;
        let expected = [("NO-TAG", vec![]), ("ONE-TAG", vec![5]), ("TWO-TAGS", vec![7, 5])];
        assert_eq!(vlans_of(&rows), expected, "--xdp-mode {mode}");
    }
    Ok(())
}

/// GW-1, GW-4: a tag that a program in front of ours put into metadata counts like one in the frame: the reply finds
/// the exchange of its request whichever of them has it where, and the row names the VLAN.
#[test]
fn tags_in_metadata_are_those_of_the_frame() -> Result<()> {
    const OUTER: Tag = (0x8100, 5);
    const INNER: Tag = (0x8100, 9);
    // Ingress mode, where VLAN 5 is pushed, and the tags of request and reply in the frame, by one VLAN and by two.
    let cases: [(_, _, [[&[Tag]; 2]; 2]); 2] = [
        ("native", TcAttachType::Egress, [[&[OUTER], &[]], [&[OUTER, INNER], &[INNER]]]),
        ("tc", TcAttachType::Ingress, [[&[], &[OUTER]], [&[INNER], &[OUTER, INNER]]]),
    ];
    let mut programs = Testing::load()?;
    let pusher = programs.classifier("test_push_vlan")?;
    for (mode, side, [one, two]) in cases {
        let lab = Lab::new()?;
        // Else the agent takes its place again in front of the program.
        let file = lab.write("gateway.toml", "[agent]\ntc_order = \"last\"\n")?;
        let agent = Agent::start(&lab, &["lan0"], &["--xdp-mode", mode, "--config", &file])?;
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        lab.gateway.enter(|| pusher.attach_with_options("lan0", side, first))?;
        for (number, tags, serial_number) in [(1, one, "ONE-TAG"), (2, two, "TWO-TAGS")] {
            let ack = exchange_in_vlan(&lab, tags, number, serial_number)?;
            assert_eq!(ack.option(125), Some(&hex(G1)[2..]), "{serial_number}, pushed at {side:?}");
        }
        let rows = agent.wait_for_rows(2, SOON)?;
        assert_eq!(vlans_of(&rows), [("ONE-TAG", vec![5]), ("TWO-TAGS", vec![5, 9])], "pushed at {side:?}");
    }
    Ok(())
}

/// GW-1: a relay's copy of a request counts, and the answer that goes to the relay makes the row. GW-9: its lease
/// alone ends it.
#[test]
fn a_device_behind_a_relay_is_a_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 10)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let relay = Wire::open(&lab.lan, "eth0")?;
    let mut client = Client::new(&relay, 1, hex(D1));
    for (kind, answer) in [(kind::DISCOVER, kind::OFFER), (kind::REQUEST, kind::ACK)] {
        let mut message = client.message(kind);
        message.giaddr = Ipv4Addr::new(10, 111, 0, 9);
        message.flags = 0;
        let mut packet = Packet::from_client([2, 0, 0, 0, 0, 9], message.bytes());
        packet.to = lab.gateway.mac("lan0")?;
        packet.source = message.giaddr;
        packet.destination = GATEWAY;
        packet.ports = (67, 67);
        relay.send(&packet.bytes())?;
        relay.expect("answer to the relay", SOON, |frame| {
            Received::parse(frame).filter(|reply| reply.op == 2 && reply.xid == message.xid && reply.kind() == answer)
        })?;
    }
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].bindings[0].mac, "02:00:00:00:00:01");
    agent.wait_for_rows(0, Duration::from_secs(20))?;
    Ok(())
}

/// GW-1: a request in a jumbo frame whose buffer is not linear is read to its end, at XDP and at TC.
#[test]
fn a_jumbo_request_is_read_to_its_end() -> Result<()> {
    for mode in ["auto", "tc"] {
        let lab = Lab::new()?;
        // XDP on veth limits the peer's frames; where native XDP cannot have jumbos, the agent goes to TC.
        lab.gateway.ip("link set lan0 mtu 9000")?;
        lab.lan.ip("link set eth0 mtu 9000")?;
        lab.lan.ip("addr add 10.111.0.2/16 dev eth0")?;
        let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
        let agent = Agent::start(&lab, &["lan0"], &["--xdp-mode", mode])?;
        let wire = Wire::open(&lab.lan, "eth0")?;
        let mut client = Client::new(&wire, 1, Vec::new());
        // A UDP socket's large datagrams lie in pages behind a short linear part.
        let socket = lab.lan.enter(|| -> Result<UdpSocket> {
            let socket = UdpSocket::bind("0.0.0.0:68")?;
            socket.set_broadcast(true)?;
            setsockopt(&socket, sockopt::BindToDevice, &"eth0".into())?;
            ensure!(socket.as_raw_fd() >= 0, "a socket");
            Ok(socket)
        })?;
        let filler = [&[60, 250], [b'x'; 250].as_slice()].concat();
        for (kind, answer) in [(kind::DISCOVER, kind::OFFER), (kind::REQUEST, kind::ACK)] {
            let message = client.message(kind).raw(&filler.repeat(25)).raw(&hex(D2));
            socket.send_to(&message.bytes(), "255.255.255.255:67")?;
            wire.expect("answer", SOON, |frame| {
                Received::parse(frame).filter(|reply| reply.xid == message.xid && reply.kind() == answer)
            })?;
        }
        let rows = agent.wait_for_rows(1, SOON).with_context(|| format!("--xdp-mode {mode}"))?;
        assert_eq!(rows[0].identity(), "00256D/DEV0001/");
    }
    Ok(())
}

/// T-28: a request in two IP fragments is undetermined for the programs; nothing is lost and nothing is damaged by it.
#[test]
fn fragments_pass_and_are_told() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let gateway_side = Wire::open_incoming(&lab.gateway, "lan0")?;
    let client = &mut Client::new(&wire, 1, hex(D1));
    let message = client.message(kind::DISCOVER).bytes();
    let whole = Packet::from_client(client.mac, message).bytes();
    let (header, body) = whole[14..].split_at(20);
    for (offset, part) in [(0u16, &body[..256]), (256, &body[256..])] {
        let more = if offset == 0 { 0x2000 } else { 0 };
        let mut packet = Packet::from_client(client.mac, Vec::new());
        packet.protocol = 17;
        packet.fragment = more | (offset / 8);
        let mut frame = packet.bytes();
        frame.truncate(34);
        frame[16..18].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&header[4..6]);
        frame.extend(part);
        wire.send(&frame)?;
        gateway_side.expect("fragment", SOON, |seen| (seen[..] == frame).then_some(()))?;
    }
    let metrics = agent.wait_for_metrics("both fragments", |metrics| metrics.all_packets("lan_ingress") == 2)?;
    assert_eq!(metrics.packets("lan_ingress", "fragment"), 1);
    assert_eq!(metrics.packets("lan_ingress", "later_fragment"), 1);
    wait_for("event of the first", SOON, || {
        Ok((agent.metrics()?.sum("tr111_ring_events_total", &[("ring", "lan")]) == 1).then_some(()))
    })
}
