//! Frames above a rate that the operator set are dropped, and nothing else ever is.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::Result;
use tr111_common::config::POLICE_BURST;
use tr111_tests::{
    agent::Agent,
    client::Client,
    lab::{GATEWAY, Lab, POOL},
    nat::{NatLab, PUBLIC, SERVER},
    responder::Responder,
    vectors::{D1, hex},
    wire::Wire,
};

/// A second source beyond the gateway.
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const POLICED: &str = "tr111_policed_packets_total";
/// What a source may send at once.
const BURST: u64 = POLICE_BURST as u64;

/// T-62: a source that floods Connection Requests is held to its rate, others pass, and so does everything else that
/// comes from it. Nothing is blocked for good: without the rate all pass again.
#[test]
fn a_flood_of_connection_requests_is_held_to_its_rate_source_by_source() -> Result<()> {
    const FLOOD: u64 = 200;
    let nat = NatLab::new("masquerade")?;
    let file = nat.lab.write("gateway.toml", "[gateway]\nwan = [\"wan0\"]\n[gateway.police]\nwan_connreq_pps = 1\n")?;
    let agent = Agent::start(&nat.lab, &["lan0"], &["--config", &file])?;
    let to = SocketAddrV4::new(PUBLIC, 7547);
    let flood = |from: Ipv4Addr, payload: &[u8]| -> Result<()> {
        let socket = nat.wan.enter(|| UdpSocket::bind(SocketAddrV4::new(from, 0)))?;
        for _ in 0..FLOOD {
            socket.send_to(payload, to)?;
        }
        Ok(())
    };
    let request = b"GET http://203.0.113.1:7547?ts=1&id=1&un=a&cn=b&sig=00 HTTP/1.1\r\nHost: x\r\n\r\n";
    flood(SERVER, request)?;
    let metrics = agent.wait_for_metrics("the flood", |metrics| {
        metrics.sum(POLICED, &[]) + metrics.packets("wan_ingress", "connection_request") == FLOOD
    })?;
    let dropped = metrics.sum(POLICED, &[("hook", "wan_ingress")]);
    // The burst passes, and one more for each second that the flood took.
    assert!((FLOOD - BURST - 30..=FLOOD - BURST).contains(&dropped), "{dropped} of {FLOOD} dropped");

    flood(SERVER, b"\x01\x01\0\0 something else")?;
    flood(OTHER, request)?;
    let metrics = agent.wait_for_metrics("the other source", |metrics| {
        metrics.sum(POLICED, &[]) + metrics.packets("wan_ingress", "connection_request") == 2 * FLOOD
    })?;
    assert!(metrics.packets("wan_ingress", "other_port") >= FLOOD);
    assert!(metrics.packets("wan_ingress", "connection_request") >= 2 * BURST);

    agent.print(&["tune", "gateway.police.wan_connreq_pps=0"])?;
    let before = agent.metrics()?.sum(POLICED, &[]);
    flood(SERVER, request)?;
    let metrics = agent.wait_for_metrics("the flood that passes", |metrics| {
        metrics.sum(POLICED, &[]) + metrics.packets("wan_ingress", "connection_request") == 3 * FLOOD
    })?;
    assert_eq!(metrics.sum(POLICED, &[]), before);
    Ok(())
}

/// A DHCP client above `lan_dhcp_pps` is held to it; the server never sees the rest, and another client gets its lease.
#[test]
fn a_flood_of_dhcp_messages_is_held_to_its_rate_client_by_client() -> Result<()> {
    const FLOOD: u64 = 100;
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let file = lab.write("gateway.toml", "[gateway.police]\nlan_dhcp_pps = 1\n")?;
    let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut noisy = Client::new(&wire, 1, hex(D1));
    for _ in 0..FLOOD {
        let message = noisy.farewell();
        noisy.send_to_server(&message)?;
    }
    let metrics = agent.wait_for_metrics("the flood", |metrics| metrics.all_packets("lan_ingress") == FLOOD)?;
    let dropped = metrics.sum(POLICED, &[("hook", "lan_ingress"), ("class", "dhcp")]);
    assert!((FLOOD - BURST - 30..=FLOOD - BURST).contains(&dropped), "{dropped} of {FLOOD} dropped");
    Client::new(&wire, 2, hex(D1)).bind()?;
    Ok(())
}
