//! A DHCP server behind a port of the LAN bridge: its replies go from port to port, and the bridge's own hooks never see them.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use tr111_tests::{
    agent::{Agent, Files, SOON, attached_programs},
    client::Client,
    frame::{Message, Received, kind},
    host::{dnsmasq, udhcpc},
    lab::{Lab, POOL},
    metrics::Metrics,
    namespace::Namespace,
    process::{Process, output, text},
    testing::Testing,
    vectors::{D1, D2, G1, hex, identity},
    wait::wait_until,
    wire::Wire,
};

/// The server in the container.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 2);
const POOL_END: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 250);
/// How long requests may be without a reply, and time for the machine.
const ALARM: Duration = Duration::from_secs(90);
const ACCEPTING: &str = "[gateway.association]\naccept_foreign_server = true\n";

/// A container whose interface `eth0` has a port `ctr0` at the gateway, which is not a port of the bridge yet.
fn container(lab: &Lab) -> Result<Namespace> {
    let container = Namespace::new("container")?;
    lab.gateway.connect("ctr0", &container, "eth0")?;
    container.ip(&format!("addr add {CONTAINER}/16 dev eth0"))?;
    Ok(container)
}

fn serve(lab: &Lab, container: &Namespace) -> Result<Process> {
    lab.gateway.ip("link set ctr0 master br-lan")?;
    dnsmasq(container, "eth0", (POOL, POOL_END), lab.path(), &[])
}

/// Waits until the ports that the agent watches are these, by `tr111 status` and by the kernel.
fn wait_for_ports(lab: &Lab, agent: &Agent<'_>, expected: &[&str]) -> Result<()> {
    wait_until(&format!("ports {expected:?}"), SOON, || {
        let status = agent.json(&["status"])?;
        let interfaces = status["interfaces"].as_array().context("no interfaces")?;
        let ports = interfaces.iter().filter(|interface| interface["side"] == "port");
        let mut names: Vec<_> = ports.filter_map(|port| port["name"].as_str()).collect();
        names.sort_unstable();
        Ok(names == expected)
    })?;
    for name in ["ctr0", "port0", "port1"] {
        let wanted = if expected.contains(&name) { &["lan_port".to_owned()][..] } else { &[] };
        assert_eq!(attached_programs(&lab.gateway, name).unwrap_or_default(), wanted, "{name}");
    }
    Ok(())
}

fn unmatched(metrics: &Metrics) -> u64 {
    metrics.sum("tr111_identity_remarks_total", &[("remark", "unmatched_reply")])
}

fn lease_of(agent: &Agent<'_>) -> Result<String> {
    let rows = agent.devices()?;
    let row = rows.first().context("no row")?;
    row.bindings.first().and_then(|binding| binding.lease_expires.clone()).context("no lease")
}

/// T-26: with `accept_foreign_server`, the replies of a server in a container whose port came after the agent get the Gateway
/// Identity and make rows. A unicast renewal, which goes from port to port as well, extends the lease, and a RELEASE ends it.
#[test]
fn a_real_server_in_a_container_makes_rows_that_last() -> Result<()> {
    let lab = Lab::bridged()?;
    let container = container(&lab)?;
    let file = lab.write("gateway.toml", ACCEPTING)?;
    let agent = Agent::start(&lab, &["br-lan"], &["--config", &file])?;
    wait_for_ports(&lab, &agent, &["port0", "port1"])?;
    let server = serve(&lab, &container)?;
    wait_for_ports(&lab, &agent, &["ctr0", "port0", "port1"])?;

    let wire = Wire::open(&lab.lan, "eth1")?;
    let expect_ack = || {
        let ack =
            wire.expect("ACK", ALARM, |frame| Received::parse(frame).filter(|reply| reply.kind() == kind::ACK))?;
        assert_eq!(ack.option(125), Some(&hex(G1)[2..]));
        Ok::<_, anyhow::Error>(())
    };
    let device = udhcpc(&lab.lan, "eth1", &hex(D1), lab.path())?;
    expect_ack()?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!((rows[0].identity().as_str(), rows[0].bindings[0].interface.as_str()), ("00256D/DEV0001/STB", "br-lan"));
    let first_lease = lease_of(&agent)?;

    // The lease has whole seconds.
    std::thread::sleep(Duration::from_secs(2));
    device.signal(Signal::SIGUSR1)?;
    expect_ack()?;
    wait_until("a longer lease", SOON, || Ok(lease_of(&agent)? > first_lease))?;
    let metrics = agent.metrics()?;
    assert_eq!([metrics.packets("lan_port", "request"), metrics.packets("lan_port", "ack")], [1, 2]);
    assert_eq!(metrics.packets("lan_ingress", "request"), 1, "the first REQUEST was a broadcast");
    assert_eq!((metrics.packets("lan_egress", "ack"), unmatched(&metrics)), (0, 0));

    device.signal(Signal::SIGUSR2)?;
    agent.wait_for_rows(0, SOON)?;
    let metrics = agent.metrics()?;
    assert_eq!(metrics.packets("lan_port", "release"), 1);
    assert_eq!(metrics.sum("tr111_gateway_alarms", &[]), 0);
    drop(server);
    Ok(())
}

/// An ACK that the bridge floods has the identity at each port, and counts once: one event, one insertion. The next agent
/// takes over the ports, and misses nothing that happened while none was there.
#[test]
fn a_flooded_ack_counts_once() -> Result<()> {
    let lab = Lab::bridged()?;
    let container = container(&lab)?;
    let _server = serve(&lab, &container)?;
    let file = lab.write("gateway.toml", ACCEPTING)?;
    let agent = Agent::start(&lab, &["br-lan"], &["--config", &file])?;
    wait_for_ports(&lab, &agent, &["ctr0", "port0", "port1"])?;
    let (wire, beside) = (Wire::open(&lab.lan, "eth0")?, Wire::open(&lab.lan, "eth1")?);
    let mut client = Client::new(&wire, 1, hex(D1));
    let offer = client.discover()?;
    let request = client.selection(&offer);
    let ack = client.ask(&request, kind::ACK)?;
    let copy = beside.expect("a copy", SOON, |frame| {
        Received::parse(frame).filter(|reply| reply.xid == ack.xid && reply.kind() == kind::ACK)
    })?;
    assert_eq!([ack.option(125), copy.option(125)], [Some(&hex(G1)[2..]); 2]);
    agent.wait_for_rows(1, SOON)?;
    // A request that the client repeats has an answer of its own.
    client.ask(&request, kind::ACK)?;
    let metrics = agent.wait_for_metrics("both ACKs", |metrics| metrics.packets("lan_port", "ack") == 2)?;
    assert_eq!(metrics.sum("tr111_identity_insertions_total", &[("result", "inserted")]), 3);
    assert_eq!((metrics.packets("lan_port", "offer"), unmatched(&metrics)), (1, 0));

    let files = agent.kill()?;
    let mut other = Client::new(&wire, 2, hex(D2));
    assert_eq!(other.bind()?.option(125), Some(&hex(G1)[2..]));
    let mut command = files.run_gateway(&lab.gateway, &["br-lan"], &["--config", &file])?;
    let agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    assert_eq!(agent.devices()?.len(), 2);
    wait_for_ports(&lab, &agent, &["ctr0", "port0", "port1"])
}

/// What the gateway itself sends through the bridge passes its ports without a second event.
#[test]
fn replies_of_the_gateway_itself_count_once() -> Result<()> {
    let lab = Lab::bridged()?;
    let _server = dnsmasq(&lab.gateway, "br-lan", (POOL, POOL_END), lab.path(), &[])?;
    let file = lab.write("gateway.toml", ACCEPTING)?;
    let agent = Agent::start(&lab, &["br-lan"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    assert_eq!(Client::new(&wire, 1, hex(D1)).bind()?.option(125), Some(&hex(G1)[2..]));
    agent.wait_for_rows(1, SOON)?;
    let metrics = agent.metrics()?;
    assert_eq!([metrics.packets("lan_egress", "ack"), metrics.packets("lan_port", "ack")], [1, 0]);
    // OFFER and ACK at two ports, and the requests at the one where the client is not.
    assert_eq!(metrics.packets("lan_port", "repeated"), 6);
    assert_eq!(metrics.sum("tr111_ring_events_total", &[]), 3, "DISCOVER, REQUEST and ACK");
    Ok(())
}

/// Ports are followed as they leave the bridge and come back, and so is the bridge.
#[test]
fn ports_come_and_go() -> Result<()> {
    let lab = Lab::bridged()?;
    let agent = Agent::start(&lab, &["br-lan"], &[])?;
    wait_for_ports(&lab, &agent, &["port0", "port1"])?;
    lab.gateway.ip("link set port0 nomaster")?;
    wait_for_ports(&lab, &agent, &["port1"])?;
    lab.gateway.ip("link set port0 master br-lan")?;
    wait_for_ports(&lab, &agent, &["port0", "port1"])?;
    lab.gateway.ip("link del port1")?;
    wait_for_ports(&lab, &agent, &["port0"])?;
    lab.gateway.ip("link del br-lan")?;
    wait_for_ports(&lab, &agent, &[])?;
    // Under another name first, as some systems do.
    for command in ["link add br0 type bridge", "link set port0 master br0", "link set br0 name br-lan"] {
        lab.gateway.ip(command)?;
    }
    wait_for_ports(&lab, &agent, &["port0"])?;
    assert!(agent.print(&["status"])?.contains("port0 (port): up, lan_port tc"));
    Ok(())
}

/// A program of somebody else that ends the chain at a port runs behind the agent's, which takes its place again; `status` and
/// `check` name it.
#[test]
fn a_program_that_ends_the_chain_at_a_port_runs_behind() -> Result<()> {
    const OTHER: &str = "test_accept";
    let lab = Lab::bridged()?;
    let container = container(&lab)?;
    let _server = serve(&lab, &container)?;
    let file = lab.write("gateway.toml", ACCEPTING)?;
    let agent = Agent::start(&lab, &["br-lan"], &["--config", &file])?;
    let mut other = Testing::load()?;
    let program = other.classifier(OTHER)?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    lab.gateway.enter(|| program.attach_with_options("port0", TcAttachType::Egress, first))?;
    // Chains are looked at every 10 s.
    wait_until("its place", 3 * SOON, || Ok(attached_programs(&lab.gateway, "port0")? == ["lan_port", OTHER]))?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    assert_eq!(Client::new(&wire, 1, hex(D1)).bind()?.option(125), Some(&hex(G1)[2..]));
    agent.wait_for_rows(1, SOON)?;
    wait_until("neighbours", SOON, || {
        Ok(agent.print(&["status"])?.contains("port0 (port): up, lan_port tc in front of test_accept"))
    })?;
    let check = text(&output(&mut agent.command(&["check", "--lan", "br-lan"])?)?.stdout);
    let line = check.lines().find(|line| line.contains("port port0")).with_context(|| check.clone())?;
    assert!(line.contains("test_accept runs behind lan_port"), "{line}");
    Ok(())
}

/// Sends datagrams of one length as one frame, as an interface that merges would hand them on: a veth does not cut them.
fn send_merged(from: &Namespace, ports: (u16, u16), messages: &[Vec<u8>]) -> Result<()> {
    let socket = from.enter(|| -> Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ports.0))?;
        socket.set_broadcast(true)?;
        setsockopt(&socket, sockopt::BindToDevice, &"eth0".into())?;
        Ok(socket)
    })?;
    setsockopt(&socket, sockopt::UdpGsoSegment, &i32::try_from(messages[0].len())?)?;
    socket.send_to(&messages.concat(), (Ipv4Addr::BROADCAST, ports.1))?;
    Ok(())
}

/// Merged requests that the bridge floods are told apart at the bridge, and nothing is wrong with the copies at the ports.
/// Merged replies cannot be told apart there, which is an alarm.
#[test]
fn merged_datagrams_at_ports_are_an_alarm_only_where_something_is_missed() -> Result<()> {
    let lab = Lab::bridged()?;
    let container = container(&lab)?;
    lab.gateway.ip("link set ctr0 master br-lan")?;
    lab.lan.ip("addr add 10.111.0.3/16 dev eth0")?;
    let file = lab.write("gateway.toml", ACCEPTING)?;
    let agent = Agent::start(&lab, &["br-lan"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let requests: Vec<_> = (1..=3)
        .map(|number| Client::new(&wire, number, identity("00256D", &format!("DEV{number}"), "")))
        .map(|mut client| client.message(kind::DISCOVER))
        .collect();
    let bytes: Vec<_> = requests.iter().map(Message::bytes).collect();
    send_merged(&lab.lan, (68, 67), &bytes)?;
    let metrics = agent.wait_for_metrics("requests", |metrics| metrics.packets("lan_ingress", "discover") == 3)?;
    assert_eq!([metrics.packets("lan_port", "merged"), metrics.packets("lan_port", "repeated")], [0, 2]);

    let replies: Vec<_> = bytes.iter().map(|request| [&[2], &request[1..]].concat()).collect();
    send_merged(&container, (67, 68), &replies)?;
    let alarm = |metrics: &Metrics, interface| {
        metrics.sum("tr111_gateway_alarms", &[("alarm", "merged"), ("interface", interface)])
    };
    let metrics =
        agent.wait_for_metrics("the alarm", |metrics| alarm(metrics, "port0") + alarm(metrics, "port1") == 2)?;
    assert_eq!(metrics.packets("lan_port", "merged"), 2);
    assert_eq!([alarm(&metrics, "br-lan"), alarm(&metrics, "ctr0")], [0; 2]);
    Ok(())
}

/// Without `accept_foreign_server` such replies stay as they are and make no rows. The alarm `no_replies` knows why, and names
/// the setting; `check` names it beforehand. From the change of the setting on they count.
#[test]
fn without_the_setting_the_alarm_and_the_check_name_it() -> Result<()> {
    const SETTING: &str = "gateway.association.accept_foreign_server";
    let lab = Lab::bridged()?;
    let container = container(&lab)?;
    let _server = serve(&lab, &container)?;
    let agent = Agent::start(&lab, &["br-lan"], &[])?;
    let check = text(&output(&mut agent.command(&["check", "--lan", "br-lan"])?)?.stdout);
    let line = check.lines().find(|line| line.contains("bridge br-lan")).with_context(|| check.clone())?;
    assert!(line.contains("ports: ctr0, port0, port1") && line.contains(SETTING), "{line}");

    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut client = Client::new(&wire, 1, hex(D1));
    assert_eq!(client.bind()?.option(125), None);
    let metrics = agent.metrics()?;
    assert!(metrics.packets("lan_port", "foreign_server") >= 2);
    assert_eq!(agent.devices()?, []);
    wait_until("the alarm", ALARM, || Ok(agent.metrics()?.sum("tr111_gateway_alarms", &[]) == 1))?;
    let status = agent.json(&["status"])?;
    let detail = status["alarms"][0]["detail"].as_str().context("no detail")?;
    let cause = "most likely first: another DHCP server answers them between ports of br-lan";
    assert!(detail.contains(cause) && detail.contains(SETTING), "{detail}");

    agent.print(&["tune", &format!("{SETTING}=true")])?;
    assert_eq!(client.bind()?.option(125), Some(&hex(G1)[2..]));
    agent.wait_for_rows(1, SOON)?;
    wait_until("end of the alarm", SOON, || Ok(agent.metrics()?.sum("tr111_gateway_alarms", &[]) == 0))
}

/// `bridge_ports = false` leaves ports alone, also those where an earlier agent was.
#[test]
fn ports_are_left_alone_where_that_is_configured() -> Result<()> {
    let lab = Lab::bridged()?;
    let container = container(&lab)?;
    let _server = serve(&lab, &container)?;
    let first = Agent::start(&lab, &["br-lan"], &[])?;
    wait_for_ports(&lab, &first, &["ctr0", "port0", "port1"])?;
    let files = first.kill()?;
    let file = lab.write("gateway.toml", &format!("[gateway]\nbridge_ports = false\n{ACCEPTING}"))?;
    let mut command = files.run_gateway(&lab.gateway, &["br-lan"], &["--config", &file])?;
    let agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    wait_for_ports(&lab, &agent, &[])?;
    lab.gateway.ip("link set port1 nomaster")?;
    lab.gateway.ip("link set port1 master br-lan")?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let counted = || Ok::<_, anyhow::Error>(agent.metrics()?.all_packets("lan_port"));
    let before = counted()?;
    assert_eq!(Client::new(&wire, 1, hex(D1)).bind()?.option(125), None);
    wait_for_ports(&lab, &agent, &[])?;
    assert_eq!((agent.devices()?, counted()?), (Vec::new(), before));
    let check = text(&output(&mut agent.command(&["check", "--lan", "br-lan", "--config", &file])?)?.stdout);
    assert!(
        check.lines().any(|line| line.contains("bridge br-lan") && line.contains("gateway.bridge_ports")),
        "{check}"
    );
    Ok(())
}

/// A bridge and one of its ports together are refused, before anything is attached. A port that is named and joins the bridge
/// later stays what it is, with a warning.
#[test]
fn a_bridge_and_its_port_together_are_refused() -> Result<()> {
    let lab = Lab::bridged()?;
    let files = Files::new(lab.path(), "refused")?;
    let refused = output(&mut files.run_gateway(&lab.gateway, &["br-lan", "port0"], &[])?)?;
    let reason = "port0 is a port of the bridge br-lan";
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains(reason), "{}", text(&refused.stderr));
    assert_eq!(attached_programs(&lab.gateway, "br-lan")?, [""; 0]);

    lab.gateway.ip("link set port0 nomaster")?;
    let agent = Agent::start(&lab, &["br-lan", "port0"], &[])?;
    let check = output(&mut agent.command(&["check", "--lan", "br-lan", "--lan", "port0"])?)?;
    assert!(check.status.success(), "{}", text(&check.stdout));
    lab.gateway.ip("link set port0 master br-lan")?;
    wait_until("a warning", SOON, || Ok(agent.log().contains(reason)))?;
    assert!(!attached_programs(&lab.gateway, "port0")?.contains(&"lan_port".to_owned()));
    let check = output(&mut agent.command(&["check", "--lan", "br-lan", "--lan", "port0"])?)?;
    assert_eq!(check.status.code(), Some(1), "{}", text(&check.stdout));
    assert!(text(&check.stdout).contains(reason), "{}", text(&check.stdout));
    Ok(())
}
