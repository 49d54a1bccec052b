//! A device behind a real NAT, with a STUN server beyond it.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use tr111_core::{
    secret::SharedSecret,
    stun::{Attribute, Builder, ErrorCode, Message, MessageType, Variant, Variants},
};
use tr111_tests::{
    agent::{Agent, Files, SOON},
    cpe::{self, PASSWORD, STUN_PASSWORD, USERNAME, request, start, unix_now},
    lab::Lab,
    namespace::Namespace,
    nat::{NatLab, PUBLIC, SERVER},
    wait::wait_for,
};

const MANAGEMENT: &str = "Device.ManagementServer.";
const REQUESTS: &str = "tr111_connection_requests_total";

fn get(device: &Agent<'_>, parameter: &str) -> Result<String> {
    let answer = device.json(&["get", &format!("{MANAGEMENT}{parameter}")])?;
    Ok(answer["parameters"][0]["value"].as_str().context("no value")?.to_owned())
}

/// Waits until `UDPConnectionRequestAddress` is one that `is_right`.
fn wait_for_address(device: &Agent<'_>, is_right: impl Fn(SocketAddrV4) -> bool) -> Result<SocketAddrV4> {
    let mut seen = String::new();
    wait_for("UDPConnectionRequestAddress", SOON, || {
        seen = get(device, "UDPConnectionRequestAddress")?;
        Ok(seen.parse().ok().filter(|address| is_right(*address)))
    })
    .with_context(|| format!("it is {seen}"))
}

/// CPE-1, CPE-2, CPE-12, CPE-37, CPE-38, CPE-42, DM-20, UCR-6, UCR-7, UCR-13, UCR-15: behind a NAT the device learns from an
/// unmodified STUN server where it is reached, follows a NAT that forgot it, and is woken from there.
#[test]
fn a_device_behind_a_nat_is_reached_where_it_says() -> Result<()> {
    let net = NatLab::new("masquerade fully-random")?;
    let stund = net.stund()?;
    let device = start(
        &net.lab,
        Files::new(net.lab.path(), "device")?,
        &format!(
            "stun_enable = true\nstun_server_address = \"{SERVER}\"\n\
             stun_minimum_keep_alive_period = 1\nstun_maximum_keep_alive_period = 1\n"
        ),
    )?;
    let first = wait_for_address(&device, |address| *address.ip() == PUBLIC)?;
    assert_eq!(get(&device, "NATDetected")?, "1");
    let own = device.json(&["bindings"])?["bindings"][0].clone();
    assert_eq!((&own["address"], &own["username"]), (&first.to_string().into(), &USERNAME.into()));
    assert_eq!((&own["authenticated"], &own["period_s"]), (&false.into(), &1.into()));
    assert!(own["changed"].is_string() && own["last_seen"].is_string(), "{own}");

    let mut watcher = cpe::watch(&device, &net.lab)?;
    device.print(&["notify", &format!("{MANAGEMENT}UDPConnectionRequestAddress"), "active"])?;
    net.forget_bindings()?;
    let second = wait_for_address(&device, |address| *address.ip() == PUBLIC && address != first)?;
    watcher.wait_for_line(
        &format!("\"event\":\"binding_changed\",\"address\":\"{second}\",\"nat_detected\":true"),
        SOON,
    )?;

    // The ACS sends from the STUN server's own port (UCR-20), and this NAT lets nothing else in.
    drop(stund);
    let acs = net.wan.enter(|| UdpSocket::bind((SERVER, 3478)))?;
    let stranger = net.wan.enter(|| UdpSocket::bind((SERVER, 4000)))?;
    let timestamp = unix_now()?;
    stranger.send_to(&request(second, timestamp, 1, PASSWORD)?, second)?;
    acs.send_to(&request(second, timestamp, 1, "guess")?, second)?;
    acs.send_to(&request(second, timestamp, 1, PASSWORD)?, second)?;
    watcher.wait_for_line("\"event\":\"connection_request\",\"result\":\"accepted\"", SOON)?;
    acs.send_to(&request(second, timestamp, 1, PASSWORD)?, second)?;
    let seen = device
        .wait_for_metrics("the replay", |metrics| metrics.sum(REQUESTS, &[("result", "stale_timestamp")]) == 1)?;
    let results = ["accepted", "bad_signature"].map(|result| seen.sum(REQUESTS, &[("result", result)]));
    assert_eq!((results, seen.sum(REQUESTS, &[])), ([1, 1], 3));

    // CPE-1, DM-29: without STUN the values tell of the listener itself.
    device.print(&["set", &format!("{MANAGEMENT}STUNEnable"), "0"])?;
    assert_eq!(get(&device, "UDPConnectionRequestAddress")?, cpe::DEVICE.to_string());
    assert_eq!(get(&device, "NATDetected")?, "0");
    Ok(())
}

/// CPE-6, CPE-8, CPE-10, CPE-15, CPE-16, UCR-1, T-43: a gateway is the CPE of its own WAN side. Its server is the host of the
/// ACS URL, its address the one of the route there, and with another address it asks again at once.
#[test]
fn a_gateway_is_a_cpe_itself() -> Result<()> {
    let net = NatLab::new("masquerade")?;
    let stund = net.stund()?;
    let password = net.lab.write("password", PASSWORD)?;
    let config = format!(
        "[management_server]\nurl = \"http://{SERVER}:7547/acs\"\nstun_enable = true\n\
         connection_request_username = \"{USERNAME}\"\nconnection_request_password_file = \"{password}\"\n"
    );
    let config = net.lab.write("gateway.toml", &config)?;
    let gateway = Agent::start(&net.lab, &["lan0"], &["--config", &config])?;
    let own = |address: Ipv4Addr| {
        let wanted = serde_json::json!([SocketAddrV4::new(address, 7547).to_string(), true]);
        wait_for(&format!("binding of {address}"), SOON, || {
            let binding = gateway.json(&["bindings"])?["bindings"][0].clone();
            let seen = serde_json::json!([binding["address"], binding["last_seen"].is_string()]);
            Ok((seen == wanted).then_some(()))
        })
    };
    own(PUBLIC)?;
    let path = "InternetGatewayDevice.ManagementServer.NATDetected";
    assert_eq!(gateway.json(&["get", path])?["parameters"][0]["value"], "0");

    let moved = Ipv4Addr::new(203, 0, 113, 2);
    net.lab.gateway.ip("addr flush dev wan0")?;
    net.lab.gateway.ip(&format!("addr add {moved}/24 dev wan0"))?;
    own(moved)?;

    drop(stund);
    let acs = net.wan.enter(|| UdpSocket::bind((SERVER, 3478)))?;
    let to = SocketAddrV4::new(moved, 7547);
    acs.send_to(&request(to, unix_now()?, 1, PASSWORD)?, to)?;
    gateway.wait_for_metrics("the request", |metrics| metrics.sum(REQUESTS, &[("result", "accepted")]) == 1)?;
    Ok(())
}

/// A STUN server that does what a story says.
struct Scripted(UdpSocket);

impl Scripted {
    fn bind(namespace: &Namespace, address: &str) -> Result<Self> {
        let socket = namespace.enter(|| UdpSocket::bind(address))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Self(socket))
    }

    /// The next request for which `is_wanted`.
    fn next(&self, is_wanted: impl Fn(&Message<'_>) -> bool) -> Result<(Vec<u8>, SocketAddr)> {
        let mut buffer = [0; 1500];
        let deadline = Instant::now() + SOON;
        loop {
            // Others may come all the time.
            ensure!(Instant::now() < deadline, "no such request");
            let (length, source) = self.0.recv_from(&mut buffer).context("no request")?;
            let datagram = buffer[..length].to_vec();
            if is_wanted(&Message::parse(&datagram)?) {
                return Ok((datagram, source));
            }
        }
    }

    fn answer(&self, to: SocketAddr, datagram: &[u8]) -> Result<()> {
        self.0.send_to(datagram, to)?;
        Ok(())
    }
}

/// CPE-7, CPE-8, CPE-9: the server's name is looked up; without one of its own it is the host of the ACS URL, and a write
/// of the port takes the next request there.
#[test]
fn the_server_is_looked_up_by_name() -> Result<()> {
    let lab = Lab::new()?;
    let server = Scripted::bind(&lab.lan, "127.0.0.1:3478")?;
    let other = Scripted::bind(&lab.lan, "127.0.0.1:3479")?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let files = Files::new(lab.path(), "device")?;
    let device = start(&lab, files, "stun_enable = true\nurl = \"http://localhost:7547/acs\"\n")?;
    let from = SocketAddr::from(([127, 0, 0, 1], 7547));
    assert_eq!(server.next(|_| true)?.1, from);
    device.print(&["set", &format!("{MANAGEMENT}STUNMinimumKeepAlivePeriod"), "1"])?;
    device.print(&["set", &format!("{MANAGEMENT}STUNServerPort"), "3479"])?;
    assert_eq!(other.next(|_| true)?.1, from);
    Ok(())
}

/// CPE-9, CPE-13, CPE-14, CPE-17, CPE-28, CPE-30, CPE-31, T-39: asked for its credentials, the device repeats the request
/// signed, believes signed answers only, and signs nothing else.
#[test]
fn a_server_that_asks_for_credentials_gets_them_once() -> Result<()> {
    let lab = Lab::new()?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let server = Scripted::bind(&lab.gateway, "10.111.0.1:3478")?;
    let device = start(
        &lab,
        Files::new(lab.path(), "device")?,
        "stun_enable = true\nstun_server_address = \"10.111.0.1\"\nstun_minimum_keep_alive_period = 1\n\
         stun_maximum_keep_alive_period = 2\n",
    )?;
    let secret = SharedSecret::new(STUN_PASSWORD.as_bytes());
    let (request, source) = server.next(|request| !request.is_signed())?;
    let asked = Message::parse(&request)?;
    assert_eq!(source, SocketAddr::V4(cpe::DEVICE));
    assert!(asked.has_connection_request_binding());
    assert_eq!(asked.username().context("no USERNAME")?.trimmed(), USERNAME.as_bytes());
    let refused = Builder::new(MessageType::BindingErrorResponse, asked.transaction_id());
    server.answer(source, &refused.attribute(Attribute::ErrorCode(ErrorCode::UNAUTHORIZED)).build())?;

    let (signed, source) = server.next(|request| request.verify(&secret, Variants::STRICT) == Ok(Variant::A))?;
    let repeated = Message::parse(&signed)?;
    assert_ne!(repeated.transaction_id(), asked.transaction_id());
    assert!(repeated.has_connection_request_binding());
    let answer = |port| {
        let mapped = SocketAddrV4::new([198, 51, 100, 7].into(), port);
        Builder::new(MessageType::BindingResponse, repeated.transaction_id())
            .attribute(Attribute::MappedAddress(mapped))
    };
    // Forgeries first.
    server.answer(source, &answer(1).build())?;
    server.answer(source, &answer(2).sign(&SharedSecret::new(b"guess"), Variant::A))?;
    server.answer(source, &answer(40_001).sign(&secret, Variant::A))?;
    wait_for_address(&device, |address| address == SocketAddrV4::new([198, 51, 100, 7].into(), 40_001))?;
    assert_eq!(device.json(&["bindings"])?["bindings"][0]["authenticated"], true);
    let stun = device.metrics()?;
    let count = |result| stun.sum("tr111_stun_messages_total", &[("type", "binding_response"), ("result", result)]);
    assert_eq!(count("accepted"), 1);

    // What follows is not signed, because nobody asked (CPE-17), and tells of the new binding (CPE-31).
    let (change, _) = server.next(|request| request.transaction_id() != repeated.transaction_id())?;
    let change = Message::parse(&change)?;
    assert!(change.has_binding_change() && !change.is_signed());
    Ok(())
}
