//! When a row of ManageableDevice comes, what it holds, and when it goes.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tr111_tests::{
    agent::{Agent, Device, SOON},
    client::{Client, mac_text},
    frame::kind,
    host::dnsmasq,
    lab::{GATEWAY, Lab, POOL},
    metrics::Metrics,
    process::{Process, run},
    responder::Responder,
    vectors::{D1, D2, hex, identity},
    wait::{wait_for, wait_until},
    wire::Wire,
};

/// The last address that dnsmasq gives in these stories.
const POOL_END: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 250);

fn real_server(lab: &Lab) -> Result<Process> {
    dnsmasq(&lab.gateway, "lan0", (POOL, POOL_END), lab.path(), &[])
}

/// GW-6: DISCOVER and OFFER make no row, REQUEST makes none, the ACK does; with an unmodified dnsmasq.
#[test]
fn a_row_comes_with_the_ack_and_not_before() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));

    let offer = device.discover()?;
    agent.wait_for_metrics("DISCOVER in the agent", |metrics| metrics.identities("discover", "accepted") == 1)?;
    assert_eq!(agent.devices()?, []);

    let ack = device.request(&offer)?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/STB");
    let [binding] = rows[0].bindings.as_slice() else { panic!("one binding in {rows:?}") };
    assert_eq!(binding.mac, mac_text(device.mac));
    assert_eq!(binding.ip, ack.yiaddr.to_string());
    assert_eq!((binding.interface.as_str(), binding.source.as_str()), ("lan0", "request"));
    assert_eq!((&binding.client_id, binding.vlan.len()), (&None, 0));
    assert!(binding.lease_expires.is_some());
    Ok(())
}

/// GW-6: a REQUEST that is answered by NAK makes no row. GW-3: it is looked at all the same.
#[test]
fn nak_makes_no_row() -> Result<()> {
    let lab = Lab::new()?;
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    server.change(|behaviour| behaviour.refuse = true);
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));

    let offer = device.discover()?;
    let selecting = device.selection(&offer);
    device.ask(&selecting, kind::NAK)?;
    // One that rebinds names its address itself, so a NAK that were taken for an ACK would lack nothing.
    let mut rebinding = device.message(kind::REQUEST);
    rebinding.ciaddr = offer.yiaddr;
    device.ask(&rebinding, kind::NAK)?;
    // The kernel counts at once, the agent when it takes the record.
    let metrics = agent.wait_for_metrics("REQUEST in the agent, NAK at the hook", |metrics| {
        metrics.identities("request", "accepted") == 2 && metrics.packets("lan_egress", "nak") == 2
    })?;
    assert_eq!(metrics.sum("tr111_ring_lost_total", &[]), 0);

    // The table is read behind an exchange that came later, so the NAK has been dealt with.
    server.change(|behaviour| behaviour.refuse = false);
    Client::new(&wire, 2, hex(D2)).bind()?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/");
    Ok(())
}

/// GW-7: an identity that is listed is not added again, neither by its own MAC address nor by another one, which
/// becomes a second binding (T-10). The row goes when the last binding goes.
#[test]
fn a_second_mac_adds_a_binding_and_no_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut wired = Client::new(&wire, 1, hex(D1));
    let mut wireless = Client::new(&wire, 2, hex(D1));

    wired.bind()?;
    let first = agent.wait_for_rows(1, SOON)?;
    wired.bind()?;
    wireless.bind()?;
    let both = wait_for("second binding", SOON, || {
        let rows = agent.devices()?;
        Ok((rows.iter().map(|row| row.bindings.len()).sum::<usize>() == 2).then_some(rows))
    })?;
    assert_eq!(both.len(), 1);
    assert_eq!(both[0].instance, first[0].instance);

    wired.release()?;
    let left = wait_for("one binding", SOON, || Ok(agent.devices()?.pop().filter(|row| row.bindings.len() == 1)))?;
    assert_eq!(left.bindings[0].mac, mac_text(wireless.mac));
    wireless.release()?;
    agent.wait_for_rows(0, SOON)?;
    Ok(())
}

/// GW-10: RELEASE by the client removes the row at once; one with another hardware address, another client identifier
/// or another address does not.
#[test]
fn only_the_client_itself_releases_its_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    device.bind()?;
    agent.wait_for_rows(1, SOON)?;

    let mut other_mac = device.farewell();
    other_mac.chaddr[5] = 99;
    let other_client = device.farewell().option(61, b"\x01somebody");
    let mut other_address = device.farewell();
    other_address.ciaddr = Ipv4Addr::new(10, 111, 9, 9);
    for forged in [other_mac, other_client, other_address] {
        device.send_to_server(&forged)?;
    }
    let seen = |expected| {
        agent.wait_for_metrics("RELEASE at the hook", |metrics| metrics.packets("lan_ingress", "release") == expected)
    };
    seen(3)?;
    // A later row proves that the agent is through with everything before it.
    let mut witness = Client::new(&wire, 2, identity("00256D", "WITNESS", ""));
    witness.bind()?;
    let rows = agent.wait_for_rows(2, SOON)?;
    assert_eq!(rows[0].serial_number, "DEV0001");

    device.release()?;
    let left = agent.wait_for_rows(1, SOON)?;
    assert_eq!(left[0].serial_number, "WITNESS");
    Ok(())
}

/// GW-9: a lease of ten seconds that is not renewed takes the row with it, not before ten seconds and soon after.
#[test]
fn an_expired_lease_removes_the_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 10)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    let before_ack = Instant::now();
    device.bind()?;
    agent.wait_for_rows(1, SOON)?;
    let after_ack = Instant::now();
    agent.wait_for_rows(0, Duration::from_secs(20))?;
    assert!(before_ack.elapsed() >= Duration::from_secs(10), "gone after {:?}", before_ack.elapsed());
    assert!(after_ack.elapsed() <= Duration::from_secs(14), "gone only after {:?}", after_ack.elapsed());
    let metrics = agent.metrics()?;
    let expired = [("change", "removed"), ("reason", "expired")];
    assert_eq!(metrics.sum("tr111_table_changes_total", &expired), 1);
    Ok(())
}

/// GW-9: a lease that is renewed keeps its row past the first end, with its instance number.
#[test]
fn a_renewed_lease_keeps_its_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 10)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut kept = Client::new(&wire, 1, hex(D1));
    let mut lost = Client::new(&wire, 2, identity("00256D", "LOST", ""));
    kept.bind()?;
    let first = agent.wait_for_rows(1, SOON)?;
    lost.bind()?;
    agent.wait_for_rows(2, SOON)?;
    // Half of the lease passes; then only one of the two renews.
    let half = Instant::now() + Duration::from_secs(5);
    wait_for("half of the lease", Duration::from_secs(6), || Ok((Instant::now() >= half).then_some(())))?;
    kept.renew()?;
    let left = agent.wait_for_rows(1, Duration::from_secs(15))?;
    assert_eq!((left[0].serial_number.as_str(), left[0].instance), ("DEV0001", first[0].instance));
    Ok(())
}

/// GW-17: for a static address the INFORM and its ACK are the whole exchange, with an unmodified dnsmasq.
#[test]
fn inform_from_a_static_address_adds_a_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = real_server(&lab)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let address = Ipv4Addr::new(10, 111, 5, 5);
    let mut device = Client::new(&wire, 1, hex(D1));
    // dnsmasq answers the address itself, and asks for it by ARP.
    lab.lan.ip("link set eth0 address 02:00:00:00:00:01")?;
    lab.lan.ip(&format!("addr add {address}/16 dev eth0"))?;
    let ack = device.inform(address)?;
    ensure!(ack.option(51).is_none(), "an ACK to INFORM has no lease");
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].identity(), "00256D/DEV0001/STB");
    let binding = rows[0].bindings.first().context("a binding")?;
    assert_eq!((binding.ip.as_str(), binding.source.as_str()), ("10.111.5.5", "inform"));
    assert_eq!(binding.lease_expires, None);
    Ok(())
}

/// GW-17: a static device that answers ARP keeps its address when another host claims it by INFORM, and the claim is
/// counted. Once it does not answer any more, the other host gets the address. That host has the address as well, and
/// answers each time.
#[test]
fn a_claimed_static_address_stays_with_the_device_that_answers() -> Result<()> {
    let lab = Lab::bridged()?;
    let _server = Responder::start(&lab.gateway, "br-lan", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["br-lan"], &[])?;
    let address = Ipv4Addr::new(10, 111, 5, 5);
    let (first, second) = (Wire::open(&lab.lan, "eth0")?, Wire::open(&lab.lan, "eth1")?);
    let (mut holder, mut claimant) = (Client::new(&first, 1, hex(D1)), Client::new(&second, 2, hex(D2)));
    // The LAN's namespace has the address once, and answers at both ports with the hardware address of each.
    for (interface, client) in [("eth0", &holder), ("eth1", &claimant)] {
        lab.lan.ip(&format!("link set {interface} address {}", mac_text(client.mac)))?;
    }
    let set = |setting: &str| run(lab.lan.command("sysctl").args(["-qw", &format!("net.ipv4.conf.{setting}")]));
    set("all.rp_filter=0")?;
    set("eth1.rp_filter=0")?;
    lab.lan.ip(&format!("addr add {address}/16 dev eth0"))?;

    holder.inform(address)?;
    let row = agent.wait_for_rows(1, SOON)?;
    let conflicts = |metrics: &Metrics| metrics.sum("tr111_identity_remarks_total", &[("remark", "address_conflict")]);
    for claims in 1..=2 {
        claimant.inform(address)?;
        agent.wait_for_metrics("a refused claim", |metrics| conflicts(metrics) == claims)?;
        assert_eq!(agent.devices()?, row);
    }

    set("eth0.arp_ignore=8")?;
    claimant.inform(address)?;
    let taken = wait_for("the claimant's row", SOON, || Ok(agent.devices()?.pop().filter(|now| now != &row[0])))?;
    assert_eq!(taken.bindings[0].mac, mac_text(claimant.mac));
    let metrics = agent.metrics()?;
    assert_eq!((agent.devices()?.len(), conflicts(&metrics)), (1, 2));
    Ok(())
}

/// RFC 2131 4.3.5: a NAK in answer to an INFORM ends no lease. The row stays beyond the grace, and the programs keep
/// their record of the lease for the next agent.
#[test]
fn a_nak_to_an_inform_ends_no_lease() -> Result<()> {
    let lab = Lab::new()?;
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 3_600)?;
    server.change(|behaviour| behaviour.refuse_inform = true);
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    agent.print(&["tune", "gateway.association.nak_grace_s=1"])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    device.bind()?;
    let row = agent.wait_for_rows(1, SOON)?;
    let mut inform = device.message(kind::INFORM);
    inform.ciaddr = device.address;
    device.ask(&inform, kind::NAK)?;
    agent.wait_for_metrics("the NAK in the agent", |metrics| {
        metrics.sum("tr111_identity_remarks_total", &[("remark", "misplaced_nak")]) == 1
    })?;
    let end = Instant::now() + Duration::from_secs(2);
    wait_until("the end of the grace", SOON, || Ok(Instant::now() >= end))?;
    assert_eq!(agent.devices()?, row);

    agent.stop()?;
    fs::remove_file(agent.files().state().join("tr111.redb"))?;
    let agent = agent.start_again(&lab, &["lan0"], &[])?;
    assert_eq!(agent.devices()?.iter().map(Device::identity).collect::<Vec<_>>(), [row[0].identity()]);
    Ok(())
}

/// T-9: a renewal without the identity extends the lease, and the row stays.
#[test]
fn a_renewal_without_the_identity_keeps_the_row() -> Result<()> {
    let lab = Lab::new()?;
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 10)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    device.bind()?;
    let first = agent.wait_for_rows(1, SOON)?;
    device.options.clear();
    server.change(|behaviour| behaviour.lease = 3600);
    device.renew()?;
    let extended = wait_for("extended lease", SOON, || {
        Ok(agent.devices()?.pop().filter(|row| row.bindings[0].lease_expires != first[0].bindings[0].lease_expires))
    })?;
    assert_eq!(extended.instance, first[0].instance);
    agent.wait_for_metrics("sticky REQUEST", |metrics| metrics.packets("lan_ingress", "sticky") == 1)?;
    Ok(())
}

/// T-7: DECLINE right after the ACK takes the row away: the device refused the address.
#[test]
fn decline_removes_the_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    let ack = device.bind()?;
    agent.wait_for_rows(1, SOON)?;
    let decline = device.message(kind::DECLINE).option(50, &ack.yiaddr.octets()).option(54, &GATEWAY.octets());
    device.send(&decline)?;
    agent.wait_for_rows(0, SOON)?;
    Ok(())
}

/// T-11: another identity on the same MAC address replaces the row, in two steps.
#[test]
fn a_changed_identity_replaces_the_row() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    device.bind()?;
    let first = agent.wait_for_rows(1, SOON)?;
    device.options = identity("00256D", "REFLASHED", "STB");
    device.bind()?;
    let second =
        wait_for("new identity", SOON, || Ok(agent.devices()?.pop().filter(|row| row.serial_number == "REFLASHED")))?;
    ensure!(agent.devices()?.len() == 1 && second.instance != first[0].instance, "one row with a new number");
    let metrics = agent.metrics()?;
    let changed = [("change", "removed"), ("reason", "identity_changed")];
    assert_eq!(metrics.sum("tr111_table_changes_total", &changed), 1);
    Ok(())
}

/// T-26: the ACK of a foreign server, whose identifier is no address of the gateway, makes no row.
#[test]
fn the_ack_of_a_foreign_server_makes_no_row() -> Result<()> {
    let lab = Lab::new()?;
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    server.change(|behaviour| behaviour.server = Ipv4Addr::new(10, 111, 0, 77));
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    server.change(|behaviour| behaviour.server = GATEWAY);
    Client::new(&wire, 2, identity("00256D", "OWN", "")).bind()?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].serial_number, "OWN");
    Ok(())
}

/// GW-16: who is denied in the file, or by `tune`, gets no row, whatever class it gives; it is told, counted and logged,
/// and still gets its address. SIGHUP takes the rule back.
#[test]
fn a_denied_device_gets_no_row_until_the_rule_goes() -> Result<()> {
    let lab = Lab::new()?;
    let rules = |rules: &str| lab.write("gateway.toml", &format!("[gateway.association]\ndeny = [{rules}]\n"));
    let file = rules("\"00256D/DEV0001\"")?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let mut agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let watch = agent.background("watch", &["watch", "--json"], lab.path())?;
    agent.wait_for_metrics("the watcher", |metrics| metrics.sum("tr111_control_clients", &[]) >= 1)?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let (mut denied, mut other) =
        (Client::new(&wire, 1, hex(D1)), Client::new(&wire, 2, identity("00256D", "OTHER", "")));
    denied.bind()?;
    other.bind()?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].serial_number, "OTHER");
    let refused = [("message", "request"), ("result", "denied")];
    assert_eq!(agent.metrics()?.sum("tr111_device_identities_total", &refused), 1);
    let told = wait_for("the refusal", SOON, || {
        Ok(watch.stdout().lines().find(|line| line.contains("device_refused")).map(str::to_owned))
    })?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    assert_eq!((&told["result"], &told["serial_number"]), (&"denied".into(), &"DEV0001".into()));
    assert_eq!(told["bindings"][0]["mac"], "02:00:00:00:00:01");
    let log = agent.process().stderr() + &agent.process().stdout();
    assert!(log.contains("device denied"), "{log}");

    agent.print(&["tune", "gateway.association.deny=02:00:00:00:00:02"])?;
    agent.wait_for_rows(0, SOON)?;
    rules("")?;
    agent.process().signal(nix::sys::signal::Signal::SIGHUP)?;
    wait_for("no rule", SOON, || Ok((!agent.print(&["tune"])?.contains("02:00:00:00:00:02")).then_some(())))?;
    denied.renew()?;
    other.renew()?;
    agent.wait_for_rows(2, SOON)?;
    Ok(())
}
