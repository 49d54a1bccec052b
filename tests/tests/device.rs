//! The device role against the real gateway and dnsmasq: it tells who it is, and learns who the gateway is.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result};
use tr111_tests::{
    agent::{Agent, Files, SOON},
    host::dnsmasq,
    lab::{Lab, POOL},
    namespace::Namespace,
    process::Process,
    wait::{wait_for, wait_until},
};

const POOL_END: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 250);
/// A real server waits a second here and there.
const SERVER: Duration = Duration::from_secs(20);
const GATEWAY_INFO: [&str; 3] = ["00256D", "IGD", "GW0001"];
const SENT: &str = "tr111_dhcp_messages_sent_total";
/// OUI, class, serial number.
const ATTRIBUTES: [&str; 3] = ["active", "off", "active"];
const NOBODY: [&str; 3] = ["", "", ""];

fn real_server(lab: &Lab) -> Result<Process> {
    dnsmasq(&lab.gateway, "lan0", (POOL, POOL_END), lab.path(), &[])
}

fn start_device<'a>(lab: &'a Lab, mode: &str) -> Result<Agent<'a>> {
    start_device_with(lab, "eth0", mode, Files::new(lab.path(), "device")?)
}

/// With what an earlier one left in `files`.
fn start_device_with<'a>(lab: &'a Lab, interface: &str, mode: &str, files: Files) -> Result<Agent<'a>> {
    let logs = lab.path().join("device-logs");
    fs::create_dir_all(&logs)?;
    let mut command = files.run_device(&lab.lan, interface, mode, &[])?;
    Agent::start_command(&lab.lan, files, &mut command, &logs)
}

/// OUI, class and serial number of `Device.GatewayInfo.`, and the notification attributes.
fn gateway_info(device: &Agent<'_>) -> Result<(Vec<String>, Vec<String>)> {
    let answer = device.json(&["get", "Device.GatewayInfo."])?;
    let parameters = answer["parameters"].as_array().context("no parameters")?;
    let texts = |key: &str| parameters.iter().filter_map(|one| Some(one[key].as_str()?.to_owned())).collect();
    Ok((texts("value"), texts("notification")))
}

fn wait_for_info(device: &Agent<'_>, expected: [&str; 3], limit: Duration) -> Result<()> {
    let mut seen = Vec::new();
    wait_for(&format!("GatewayInfo {expected:?}"), limit, || {
        seen = gateway_info(device)?.0;
        Ok((seen == expected).then_some(()))
    })
    .with_context(|| format!("GatewayInfo is {seen:?}"))
}

/// DEV-2, DEV-3, DEV-6, DEV-7, DEV-9, DEV-10, T-34: a box with an address from elsewhere learns the gateway by INFORM, is
/// a row of it, and forgets it with its address.
#[test]
fn a_device_beside_another_client_learns_its_gateway_by_inform() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let gateway = Agent::start(&lab, &["lan0"], &[])?;
    let device = start_device(&lab, "inform")?;
    assert_eq!(gateway_info(&device)?.0, NOBODY);
    let mut watch = device.background("watch", &["watch", "--json"], lab.path())?;
    device.wait_for_metrics("the watcher", |metrics| metrics.sum("tr111_control_clients", &[]) >= 1)?;

    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    wait_for_info(&device, GATEWAY_INFO, SERVER)?;
    assert_eq!(gateway_info(&device)?.1, ["active", "active", "active"]);
    let told = watch.wait_for_line("GW0001", SOON)?;
    let event: serde_json::Value = serde_json::from_str(&told)?;
    assert_eq!((&event["event"], &event["sequence"]), (&"notification".into(), &1.into()));
    let serial = serde_json::json!({"name": "Device.GatewayInfo.SerialNumber", "value": "GW0001"});
    assert!(event["parameters"].as_array().is_some_and(|all| all.len() == 3 && all.contains(&serial)), "{told}");

    let rows = gateway.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/STB");
    assert_eq!((rows[0].bindings[0].source.as_str(), rows[0].bindings[0].ip.as_str()), ("inform", "10.111.2.5"));

    // DEV-7, T-34: whoever sets the ACS URL, even to what it is, is to be told of everything again.
    device.print(&["notify", "Device.GatewayInfo.", "off"])?;
    assert_eq!(gateway_info(&device)?.1, ["off", "off", "off"]);
    for _ in 0..2 {
        device.print(&["notify", "Device.GatewayInfo.SerialNumber", "passive"])?;
        device.print(&["set", "Device.ManagementServer.URL", "http://acs.example/"])?;
        assert_eq!(gateway_info(&device)?.1, ["active", "active", "active"]);
    }

    // A link that was down may be another network now, so it is asked again; another address too.
    let informs = |device: &Agent<'_>| Ok::<_, anyhow::Error>(device.metrics()?.sum(SENT, &[("message", "inform")]));
    let before = informs(&device)?;
    lab.lan.ip("link set eth0 down")?;
    lab.lan.ip("link set eth0 up")?;
    wait_until("an INFORM over the link that is back", SERVER, || Ok(informs(&device)? > before))?;
    assert_eq!(gateway_info(&device)?.0, GATEWAY_INFO);
    // Of another subnet, since the kernel takes secondary addresses with their primary.
    lab.lan.ip("addr add 10.111.2.6/24 dev eth0")?;
    lab.lan.ip("addr del 10.111.2.5/16 dev eth0")?;
    wait_until("an INFORM from the other address", SERVER, || {
        let rows = gateway.devices()?;
        Ok(rows.iter().any(|row| row.bindings.iter().any(|binding| binding.ip == "10.111.2.6")))
    })?;

    lab.lan.ip("addr flush dev eth0")?;
    wait_for_info(&device, NOBODY, SOON)?;
    watch.wait_for_line("\"sequence\":2", SOON)?;
    // The way back is the way in.
    lab.lan.ip("addr add 10.111.2.7/16 dev eth0")?;
    wait_for_info(&device, GATEWAY_INFO, SERVER)?;
    watch.wait_for_line("\"sequence\":3", SOON)?;
    Ok(())
}

/// DEV-1, DEV-2, DEV-3, DEV-9: the device's own exchange brings an address and the gateway; its release takes both.
#[test]
fn a_device_with_its_own_exchange_gets_an_address_and_gives_it_back() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let gateway = Agent::start(&lab, &["lan0"], &[])?;
    let mut device = start_device(&lab, "dhcp")?;
    wait_for_info(&device, GATEWAY_INFO, SERVER)?;
    let addresses = || lab.lan.ip("-4 -o addr show dev eth0");
    let shown = addresses()?;
    let rows = gateway.wait_for_rows(1, SOON)?;
    let binding = &rows[0].bindings[0];
    assert_eq!((rows[0].identity().as_str(), binding.source.as_str()), ("00256D/DEV0001/STB", "request"));
    assert!(shown.contains(&format!("{}/16", binding.ip)), "{shown}");
    let routes = || lab.lan.ip("-4 route show default");
    let route = routes()?;
    assert!(route.contains("default via 10.111.0.1 dev eth0") && route.contains(&binding.ip), "{route}");
    let mut watch = device.background("watch", &["watch", "--json"], lab.path())?;
    device.wait_for_metrics("the watcher", |metrics| metrics.sum("tr111_control_clients", &[]) >= 1)?;

    assert!(device.stop()?.success());
    let told = watch.wait_for_line("\"sequence\":2", SOON)?;
    let event: serde_json::Value = serde_json::from_str(&told)?;
    let values = event["parameters"].as_array().context("no parameters")?;
    assert!(values.len() == 3 && values.iter().all(|parameter| parameter["value"] == ""), "{told}");
    gateway.wait_for_rows(0, SOON)?;
    assert_eq!((addresses()?, routes()?), (String::new(), String::new()));
    Ok(())
}

/// DEV-6, DEV-8: gateway, attributes, the URL and what nobody acknowledged outlive a kill, and the start tells nothing that
/// did not change. RFC 2131 3.2: the lease is confirmed, and its address comes back.
#[test]
fn a_device_that_was_killed_goes_on_with_what_it_knew() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let _gateway = Agent::start(&lab, &["lan0"], &[])?;
    let device = start_device(&lab, "dhcp")?;
    wait_for_info(&device, GATEWAY_INFO, SERVER)?;
    let address = || lab.lan.ip("-4 -o addr show dev eth0");
    let leased = address()?;
    device.print(&["set", "Device.ManagementServer.URL", "http://acs.example/"])?;
    device.print(&["notify", "Device.GatewayInfo.ProductClass", "off"])?;
    let told = |device: &Agent<'_>, name: &str| {
        let mut watch = device.background(name, &["watch", "--notifications", "--json"], lab.path())?;
        watch.wait_for_line("\"sequence\":1", SOON)
    };
    let waiting = told(&device, "before")?;

    let files = device.kill()?;
    // As a reboot would.
    lab.lan.ip("addr flush dev eth0")?;
    let mut device = start_device_with(&lab, "eth0", "dhcp", files)?;
    assert_eq!(
        gateway_info(&device)?,
        (GATEWAY_INFO.map(String::from).to_vec(), ATTRIBUTES.map(String::from).to_vec())
    );
    wait_until("the address", SERVER, || Ok(address()? == leased))?;
    assert_eq!(device.metrics()?.sum(SENT, &[("message", "discover")]), 0);
    assert!(device.print(&["get", "Device.ManagementServer.URL"])?.contains("http://acs.example/"));
    assert_eq!(told(&device, "after")?, waiting);
    assert!(device.stop()?.success());
    Ok(())
}

/// DEV-2: an address that another station has is declined, without the identity (RFC 2131 3.1 step 5), and the server
/// gives another one.
#[test]
fn an_address_of_another_station_is_declined() -> Result<()> {
    let lab = Lab::bridged()?;
    // The server does not know of it, and sends no ping before an offer.
    lab.lan.ip(&format!("addr add {POOL}/32 dev eth1"))?;
    let _server = dnsmasq(&lab.gateway, "br-lan", (POOL, POOL_END), lab.path(), &["--dhcp-sequential-ip"])?;
    let gateway = Agent::start(&lab, &["br-lan"], &[])?;
    let device = start_device(&lab, "dhcp")?;
    device.wait_for_metrics("a DECLINE", |metrics| metrics.sum(SENT, &[("message", "decline")]) == 1)?;
    assert_eq!(gateway_info(&device)?.0, NOBODY);
    assert_eq!(lab.lan.ip("-4 -o addr show dev eth0")?, "");
    // Not before ten seconds, and the server may take its time.
    wait_for_info(&device, GATEWAY_INFO, SERVER)?;
    let rows = gateway.wait_for_rows(1, SOON)?;
    assert_ne!(rows[0].bindings[0].ip, POOL.to_string());
    assert!(lab.lan.ip("-4 -o addr show dev eth0")?.contains(&rows[0].bindings[0].ip));
    Ok(())
}

/// A damaged store is moved aside, said, and no reason not to run: the gateway is learned anew.
#[test]
fn a_device_with_a_damaged_store_starts_anew() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let _gateway = Agent::start(&lab, &["lan0"], &[])?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    let files = Files::new(lab.path(), "device")?;
    fs::create_dir_all(files.state())?;
    fs::write(files.state().join("tr111.redb"), b"no database".repeat(500))?;
    let mut device = start_device_with(&lab, "eth0", "inform", files)?;
    assert!(device.process().stderr().contains("is damaged"), "{}", device.process().stderr());
    assert!(device.fetch("/readyz")?.1.contains("learned anew"));
    assert!(device.json(&["status"])?["store_relearned"].as_str().is_some_and(|why| why.contains("is damaged")));
    wait_for_info(&device, GATEWAY_INFO, SERVER)?;
    let aside = fs::read_dir(device.files().state())?.filter_map(Result::ok);
    assert_eq!(aside.filter(|file| file.file_name().to_string_lossy().contains(".damaged-")).count(), 1);
    Ok(())
}

/// T-35: with two gateways, GatewayInfo is that of the default route, and follows it.
#[test]
fn a_device_between_two_gateways_follows_the_default_route() -> Result<()> {
    let lab = Lab::new()?;
    let other = Namespace::new("other")?;
    other.connect("lan1", &lab.lan, "eth1")?;
    other.ip("addr add 10.112.0.1/16 dev lan1")?;
    // Servers that name a gateway themselves.
    let named = |serial: &str| {
        [(4, "00256D"), (5, serial), (6, "IGD")]
            .map(|(code, text)| format!("--dhcp-option=vi-encap:3561,{code},{text}"))
    };
    let (first, second) = (named("GW0001"), named("GW0002"));
    let _first = dnsmasq(&lab.gateway, "lan0", (POOL, POOL_END), lab.path(), &first.each_ref().map(String::as_str))?;
    let elsewhere = (Ipv4Addr::new(10, 112, 1, 1), Ipv4Addr::new(10, 112, 1, 9));
    let _second = dnsmasq(&other, "lan1", elsewhere, lab.path(), &second.each_ref().map(String::as_str))?;
    lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
    lab.lan.ip("addr add 10.112.2.5/16 dev eth1")?;

    let device = start_device_with(&lab, "auto", "inform", Files::new(lab.path(), "device")?)?;
    assert_eq!(gateway_info(&device)?.0, NOBODY);
    lab.lan.ip("route add default via 10.111.0.1")?;
    wait_for_info(&device, GATEWAY_INFO, SERVER)?;
    lab.lan.ip("route replace default via 10.112.0.1")?;
    wait_for_info(&device, ["00256D", "IGD", "GW0002"], SERVER)?;
    assert_eq!(device.json(&["status"])?["interfaces"][0]["name"], "eth1");
    Ok(())
}
