//! A device behind a real NAT, with a STUN server beyond it.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tr111_tests::{
    agent::{Agent, Files, SOON},
    cpe::{self, MANAGEMENT, PASSWORD, USERNAME, get, request, start, unix_now, wait_for_address},
    metrics::Metrics,
    nat::{NatLab, PUBLIC, SERVER},
    wait::{pass, wait_for},
};

const REQUESTS: &str = "tr111_connection_requests_total";

/// CPE-1, CPE-2, CPE-12, CPE-37, CPE-38, CPE-42, DM-20, UCR-6, UCR-7, UCR-13, UCR-15, T-48: behind a NAT the device learns from an
/// unmodified STUN server where it is reached, follows a NAT that forgot it, and is woken from there. The NAT has a mapping
/// for each destination, so nobody but the server's own address and port gets in.
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

/// CPE-23, CPE-25: the device learns the NAT's timeout with an unmodified STUN server. When the NAT forgets sooner than that,
/// the device learns the shorter timeout, and the binding stays.
#[test]
fn a_nat_that_forgets_sooner_is_learned() -> Result<()> {
    const LIMIT: Duration = Duration::from_mins(3);
    let net = NatLab::new("masquerade random")?;
    net.set_timeouts(5, 5)?;
    let _stund = net.stund()?;
    let device = start(
        &net.lab,
        Files::new(net.lab.path(), "device")?,
        &format!(
            "stun_enable = true\nstun_server_address = \"{SERVER}\"\n\
             stun_minimum_keep_alive_period = 1\nstun_maximum_keep_alive_period = 8\n"
        ),
    )?;
    let learned = wait_for("learned period", LIMIT, || cpe::learned(&device))?;
    ensure!((4.0..5.0).contains(&learned.as_secs_f64()), "{learned:?} of 5 s");
    net.set_timeouts(3, 3)?;
    let below = |period: Duration| period < Duration::from_secs(3);
    let learned = wait_for("shorter period", LIMIT, || Ok(cpe::learned(&device)?.filter(|period| below(*period))))?;
    ensure!(learned > Duration::from_secs(2), "{learned:?} of 3 s");
    let address = cpe::address(&device)?;
    pass(Duration::from_secs(15))?;
    assert_eq!(cpe::address(&device)?, address);
    assert_eq!(net.flow(cpe::DEVICE.port())?.map(|flow| flow.mapped), Some(address));
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

/// CPE-39, CPE-40: with Active on the address, the first change is notified at once, and those within the limit together
/// after it, with the latest value. A restart behind the same binding is no change.
#[test]
fn changes_of_the_address_are_notified_within_the_limit() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(4);
    let net = NatLab::new("masquerade fully-random")?;
    let _stund = net.stund()?;
    let management = format!(
        "stun_enable = true\nstun_server_address = \"{SERVER}\"\n\
         stun_minimum_keep_alive_period = 1\nstun_maximum_keep_alive_period = 1\n"
    );
    let device = start(&net.lab, Files::new(net.lab.path(), "device")?, &management)?;
    let mut address = wait_for_address(&device, |address| *address.ip() == PUBLIC)?;
    let limit = LIMIT.as_secs().to_string();
    device.print(&["set", &format!("{MANAGEMENT}UDPConnectionRequestAddressNotificationLimit"), &limit])?;
    for parameter in ["UDPConnectionRequestAddress", "NATDetected"] {
        device.print(&["notify", &format!("{MANAGEMENT}{parameter}"), "active"])?;
    }
    let subscribe = |device: &Agent<'_>, name: &str| {
        device.background(name, &["watch", "--json", "--notifications"], net.lab.path())
    };
    let mut notifications = subscribe(&device, "notifications")?;
    let mut another = || {
        net.forget_bindings()?;
        let before = address;
        address = wait_for_address(&device, |now| *now.ip() == PUBLIC && now != before)?;
        Ok::<_, anyhow::Error>(address)
    };
    let first = another()?;
    let line = notifications.wait_for_line("\"sequence\":1", SOON)?;
    let told = Instant::now();
    ensure!(line.contains("4 VALUE CHANGE") && line.contains(&format!("\"{first}\"")), "{first}, but {line}");

    another()?;
    let latest = another()?;
    let line = notifications.wait_for_line("\"sequence\":2", SOON)?;
    ensure!(line.contains(&format!("\"{latest}\"")), "{latest}, but {line}");
    // The first was seen a moment after it was made.
    ensure!(told.elapsed() > LIMIT.mul_f32(0.9), "only {:?} after the first", told.elapsed());

    device.print(&["ack", "2"])?;
    let device = start(&net.lab, device.kill()?, &management)?;
    wait_for_address(&device, |address| address == latest)?;
    let answered = |metrics: &Metrics| metrics.sum("tr111_stun_messages_total", &[("result", "accepted")]);
    device.wait_for_metrics("three answers", |metrics| answered(metrics) >= 3)?;
    device.print(&["set", &format!("{MANAGEMENT}STUNEnable"), "0"])?;
    // Whatever the restart caused would come before this.
    let line = subscribe(&device, "after")?.wait_for_line("4 VALUE CHANGE", SOON)?;
    ensure!(line.contains("\"sequence\":3") && line.contains("NATDetected\",\"value\":\"0\""), "{line}");
    Ok(())
}
