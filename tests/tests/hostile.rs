//! What bad input gets: a counter of its own, never a row, never the end of the agent, never a lost good message.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tr111_common::counter::Hook;
use tr111_tests::{
    agent::{Agent, Device, SOON},
    client::{Client, mac_text},
    corpus,
    frame::{Packet, kind},
    lab::{GATEWAY, Lab, POOL},
    metrics::Metrics,
    responder::Responder,
    vectors::{D1, G1, hex, identity},
    wait::{pass, wait_for, wait_until},
    wire::Wire,
};

/// Identities that one MAC address may hold, unless configured.
const MAXIMUM_PER_MAC: usize = 16;

/// SEC-8: identities that one MAC address invents make at most as many rows as it may have, with the kernel's budget
/// or without it, and a good device that comes in the middle still becomes a row.
#[test]
fn invented_identities_are_capped_and_a_good_device_is_not_lost() -> Result<()> {
    for (budget, floods) in [("10", 3000), ("0", 600)] {
        let lab = Lab::new()?;
        let config = format!("[gateway.association]\nmac_budget_pps = {budget}\n");
        let file = lab.write("gateway.toml", &config)?;
        let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
        let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
        let wire = Wire::open(&lab.lan, "eth0")?;
        let good_wire = Wire::open(&lab.lan, "eth0")?;
        let mut attacker = Client::new(&wire, 66, Vec::new());
        let mut invent = |from: u32, to: u32| -> Result<()> {
            for number in from..to {
                attacker.options = identity("00256D", &format!("FAKE{number}"), "STB");
                attacker.options.extend([61, 5, 0]);
                attacker.options.extend(number.to_be_bytes());
                let message = attacker.message(kind::REQUEST);
                attacker.send(&message)?;
            }
            Ok(())
        };
        invent(0, floods / 2)?;
        let mut good = Client::new(&good_wire, 1, hex(D1));
        good.bind()?;
        invent(floods / 2, floods)?;
        let last = agent
            .wait_for_metrics("whole flood", |metrics| metrics.all_packets("lan_ingress") >= u64::from(floods) + 2)?;
        wait_for("good row", SOON, || {
            Ok(agent.devices()?.into_iter().find(|row| row.identity() == "00256D/DEV0001/STB"))
        })?;
        // A second good device comes behind everything, so that the agent is through with the flood.
        Client::new(&good_wire, 2, identity("00256D", "LAST", "")).bind()?;
        let rows = wait_for("last row", SOON, || {
            let rows = agent.devices()?;
            Ok(rows.iter().any(|row| row.serial_number == "LAST").then_some(rows))
        })?;
        let forged = rows.iter().flat_map(|row| &row.bindings).filter(|one| one.mac == mac_text([2, 0, 0, 0, 0, 66]));
        let forged = forged.count();
        ensure!(forged <= MAXIMUM_PER_MAC, "{forged} rows of one MAC address with a budget of {budget}");
        // Each has a client identifier and an address of its own, so that nothing but the cap keeps them out.
        ensure!(forged == MAXIMUM_PER_MAC, "an ordinary number of identities is allowed, and {forged} came in");
        let over_budget = last.packets("lan_ingress", "over_budget");
        ensure!((over_budget > 0) == (budget != "0"), "{over_budget} messages over a budget of {budget}");
    }
    Ok(())
}

/// SEC-8: clients with identifiers of a kilobyte (RFC 3396) are rows like others. What is kept of such an identifier is
/// bounded, and `tr111 devices` shows all of them.
#[test]
fn long_client_identifiers_spoil_no_list() -> Result<()> {
    const CLIENTS: u16 = 500;
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    for number in 0..CLIENTS {
        let mut options = identity("00256D", &format!("DEV{number}"), "");
        // Four options of one identifier, the first of which is enough for the server.
        let mut identifier = number.to_be_bytes().to_vec();
        identifier.resize(1_020, 0xff);
        for part in identifier.chunks(255) {
            options.extend([61, 255]);
            options.extend(part);
        }
        let mut client = Client::new(&wire, 1, options);
        let [high, low] = number.to_be_bytes();
        client.mac = [2, 0, 0, 1, high, low];
        client.station = client.mac;
        client.bind().with_context(|| format!("client {number}"))?;
    }
    let rows = agent.wait_for_rows(CLIENTS.into(), SOON)?;
    let identifiers = rows.iter().flat_map(|row| &row.bindings).map(|binding| binding.client_id.as_ref());
    assert!(identifiers.clone().all(|identifier| identifier.is_some_and(|text| text.len() == 512)));
    assert_eq!(identifiers.count(), usize::from(CLIENTS));
    Ok(())
}

/// SEC-8: clients that all claim one identity are as many bindings as its row may have; the rest is counted, those that
/// are there stay over a restart, and another device is a row.
#[test]
fn one_identity_in_every_client_fills_one_row_and_no_more() -> Result<()> {
    const CLIENTS: u8 = 9;
    let lab = Lab::new()?;
    let file = lab.write("gateway.toml", "[gateway.association]\nmax_bindings_per_row = 4\n")?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let mut agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    for number in 1..=CLIENTS {
        Client::new(&wire, number, hex(D1)).bind()?;
    }
    let metrics = agent.wait_for_metrics("refusals", |metrics| {
        metrics.sum("tr111_device_identities_total", &[("result", "row_cap")]) == u64::from(CLIENTS) - 4
    })?;
    ensure!(metrics.sum("tr111_device_bindings", &[]) == 4, "the row does not have what it may");
    let macs = |agent: &Agent<'_>| -> Result<Vec<String>> {
        Ok(agent.devices()?.into_iter().flat_map(|row| row.bindings).map(|binding| binding.mac).collect())
    };
    let first = (1..=4).map(|number| mac_text([2, 0, 0, 0, 0, number])).collect::<Vec<_>>();
    assert_eq!(macs(&agent)?, first, "who came first stays");
    agent.stop()?;
    let agent = agent.start_again(&lab, &["lan0"], &["--config", &file])?;
    assert_eq!(macs(&agent)?, first, "and over a restart too");
    Client::new(&wire, 100, identity("00256D", "OTHER", "")).bind()?;
    agent.wait_for_rows(2, SOON)?;
    Ok(())
}

/// SEC-8: what another host sends in a client's name takes nothing from it: not its budget, not its Gateway Identity, not
/// its row. A genuine RELEASE still ends the row.
#[test]
fn forged_messages_take_nothing_from_a_client() -> Result<()> {
    const PER_SECOND: u64 = 25;
    let lab = Lab::new()?;
    let file = lab.write("gateway.toml", "[gateway.police]\nlan_dhcp_pps = 5\n")?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let (wire, attackers_wire) = (Wire::open(&lab.lan, "eth0")?, Wire::open(&lab.lan, "eth0")?);
    let mut victim = Client::new(&wire, 1, hex(D1));
    victim.bind()?;
    let first = agent.wait_for_rows(1, SOON)?.remove(0);
    let forged = victim.farewell();
    let mut attacker = Client::new(&attackers_wire, 1, Vec::new());
    attacker.station = [2, 0, 0, 0, 0, 66];
    for round in 0..6 {
        for _ in 0..PER_SECOND {
            attacker.send(&forged)?;
        }
        pass(Duration::from_secs(1))?;
        let ack = victim.renew()?;
        ensure!(ack.option(125) == Some(&hex(G1)[2..]), "renewal {round} left without the Gateway Identity");
    }
    let rows = agent.devices()?;
    ensure!(rows.len() == 1 && rows[0].instance == first.instance, "the row is another one: {rows:?}");
    ensure!(rows[0].bindings[0].lease_expires != first.bindings[0].lease_expires, "the renewals were not heard");
    let metrics = agent.metrics()?;
    ensure!(metrics.sum("tr111_policed_packets_total", &[]) > 0, "the flood was not held to its rate");
    victim.release()?;
    agent.wait_for_rows(0, SOON)?;
    Ok(())
}

/// SEC-8, T-8: a NAK to a REQUEST that another station sends in a client's name takes neither its row nor what the programs
/// recorded of its lease: a renewal that was not stored yet survives the end of the agent.
#[test]
fn a_nak_to_a_forged_request_takes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let keys = "[agent]\nstore_interval_ms = 600000\n[gateway.association]\nnak_grace_s = 1\n";
    let options = ["--config", &lab.write("gateway.toml", keys)?];
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let mut agent = Agent::start(&lab, &["lan0"], &options)?;
    let (wire, attackers_wire) = (Wire::open(&lab.lan, "eth0")?, Wire::open(&lab.lan, "eth0")?);
    let mut victim = Client::new(&wire, 1, hex(D1));
    victim.bind()?;
    let ends = |agent: &Agent<'_>| -> Result<_> { Ok(agent.devices()?.pop().context("no row")?.bindings[0].clone()) };
    agent.wait_for_rows(1, SOON)?;
    let first = ends(&agent)?.lease_expires;
    pass(Duration::from_secs(3))?;
    victim.renew()?;
    wait_until("the renewal", SOON, || Ok(ends(&agent)?.lease_expires > first))?;

    server.change(|behaviour| behaviour.refuse = true);
    let mut attacker = Client::new(&attackers_wire, 1, hex(D1));
    attacker.station = [2, 0, 0, 0, 0, 66];
    let forged = attacker.message(kind::REQUEST).option(50, &[10, 111, 9, 9]);
    attacker.ask(&forged, kind::NAK)?;
    agent.wait_for_metrics("the NAK", |metrics| {
        metrics.sum("tr111_identity_remarks_total", &[("remark", "misplaced_nak")]) == 1
    })?;
    pass(Duration::from_secs(3))?;
    assert!(ends(&agent)?.lease_expires > first);
    agent.process().signal(Signal::SIGKILL)?;
    agent.process().wait(SOON)?;
    agent = agent.start_again(&lab, &["lan0"], &options)?;
    assert!(ends(&agent)?.lease_expires > first, "the renewal is lost");
    Ok(())
}

/// SEC-8: a device that gives another identity each time changes its row a few times, and then waits for its turn, which is
/// counted and shown. When the agent is killed meanwhile, the newest identity is not lost.
#[test]
fn a_device_of_many_identities_waits_for_its_turn() -> Result<()> {
    const IDENTITIES: u32 = 40;
    let lab = Lab::new()?;
    let file = lab.write("gateway.toml", "[gateway.association]\nmac_budget_pps = 0\n")?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let name = |number: u32| identity("00256D", &format!("FAKE{number}"), "");
    let mut device = Client::new(&wire, 66, name(0));
    device.bind()?;
    for number in 1..IDENTITIES {
        device.options = name(number);
        device.renew()?;
    }
    let delayed = |metrics: &Metrics| metrics.sum("tr111_identity_remarks_total", &[("remark", "change_delayed")]);
    let metrics = agent.wait_for_metrics("all renewals", |metrics| delayed(metrics) >= u64::from(IDENTITIES) - 9)?;
    assert_eq!(metrics.sum("tr111_table_changes_total", &[]), 9 + 8);
    let status = agent.json(&["status"])?;
    assert_eq!((&status["table"]["rows"], &status["table"]["waiting"]), (&1.into(), &1.into()));
    let rows = agent.devices()?;
    assert_eq!(rows[0].identity(), "00256D/FAKE8/");

    let files = agent.kill()?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &["--config", &file])?;
    let agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    assert_eq!(agent.devices()?.iter().map(Device::identity).collect::<Vec<_>>(), ["00256D/FAKE39/"]);
    Ok(())
}

/// SEC-8: one Ethernet source that invents hardware addresses is held to the budget of one.
#[test]
fn one_source_of_many_addresses_has_one_budget() -> Result<()> {
    const FLOOD: u8 = 200;
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    for number in 0..FLOOD {
        let mut client = Client::new(&wire, number, identity("00256D", &format!("FAKE{number}"), ""));
        client.station = [2, 0, 0, 0, 1, 66];
        let message = client.message(kind::DISCOVER);
        client.send(&message)?;
    }
    let flood = u64::from(FLOOD);
    let metrics = agent.wait_for_metrics("flood", |metrics| metrics.all_packets("lan_ingress") >= flood)?;
    let told = metrics.packets("lan_ingress", "discover");
    ensure!((50..100).contains(&told), "{told} of {FLOOD} were told: the burst is 50");
    // A relay speaks for many.
    for number in 0..FLOOD {
        let mut client = Client::new(&wire, number, identity("00256D", &format!("FAKE{number}"), ""));
        client.station = [2, 0, 0, 0, 1, 67];
        let mut message = client.message(kind::DISCOVER);
        message.giaddr = GATEWAY;
        client.send(&message)?;
    }
    agent.wait_for_metrics("relayed", |metrics| metrics.packets("lan_ingress", "discover") == told + flood)?;
    Ok(())
}

/// SEC-9, OPT-2, OPT-8: every frame of the corpus, thrown at the agent: each hook class moves as the corpus says, no
/// row comes of it, and the next good device is a row.
#[test]
fn the_whole_corpus_makes_no_row_and_no_harm() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.write("gateway.toml", "[gateway.association]\nmac_budget_pps = 0\n")?;
    let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let frames = corpus::load()?;
    let mut sent = 0;
    let mut refused = std::collections::BTreeMap::<String, u64>::new();
    for frame in frames.iter().filter(|frame| frame.hook().is_ok_and(|hook| hook == Hook::LanIngress)) {
        let default_settings = frame.dialect.is_none() && !frame.lenient_oui && frame.enterprises.is_empty();
        let bytes = frame.bytes()?;
        if !default_settings || frame.metadata_tag.is_some() || bytes.len() > 1514 {
            continue;
        }
        wire.send(&bytes)?;
        sent += 1;
        let bad_class = ["bad_length", "truncated", "wrong_cookie", "bad_hlen", "damaged_options"];
        if bad_class.contains(&frame.class.as_str()) {
            *refused.entry(frame.class.clone()).or_default() += 1;
        }
    }
    let metrics =
        agent.wait_for_metrics("every frame at the hook", |metrics| metrics.all_packets("lan_ingress") == sent)?;
    for (class, count) in &refused {
        assert_eq!(metrics.packets("lan_ingress", class), *count, "{class}");
    }
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    Client::new(&wire, 200, identity("00256D", "GOOD", "")).bind()?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!(rows[0].serial_number, "GOOD");
    // The row came last, so the agent is through with what it was told before.
    let metrics = agent.metrics()?;
    for result in ["incomplete", "bad_oui", "too_long", "control_character", "damaged", "wrong_enterprise", "not_utf8"]
    {
        let counted = metrics.sum("tr111_device_identities_total", &[("result", result)]);
        ensure!(counted > 0, "no identity was counted as {result}");
    }
    Ok(())
}

/// Frames with random bytes in random places: the agent goes on, every frame is counted once, the next device is a row.
#[test]
fn random_damage_is_survived() -> Result<()> {
    const FRAMES: u64 = 20_000;
    let lab = Lab::new()?;
    let file = lab.write("gateway.toml", "[gateway.association]\nmac_budget_pps = 0\n")?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut client = Client::new(&wire, 1, hex(D1));
    let kinds = [kind::DISCOVER, kind::REQUEST, kind::INFORM, kind::RELEASE, kind::DECLINE];
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        // xorshift64: a fixed seed, so that a failure comes again.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for _ in 0..FRAMES {
        let message = client.message(kinds[next(kinds.len())]);
        let mut frame = Packet::from_client(client.mac, message.bytes()).bytes();
        for _ in 0..=next(8) {
            // Mostly the headers and the options.
            let place = if next(2) == 0 { next(60) } else { 42 + 236 + next(frame.len() - 42 - 236) };
            frame[place] = next(256) as u8;
        }
        frame.truncate(frame.len() - next(40));
        wire.send(&frame)?;
    }
    let metrics =
        agent.wait_for_metrics("every frame at the hook", |metrics| metrics.all_packets("lan_ingress") == FRAMES)?;
    assert_eq!(metrics.sum("tr111_ring_lost_total", &[]), 0);
    Client::new(&wire, 2, identity("00256D", "GOOD", "")).bind()?;
    wait_for("good row", SOON, || Ok(agent.devices()?.into_iter().find(|row| row.serial_number == "GOOD")))?;
    Ok(())
}

/// SEC-9: text that would break out of JSON, metrics or a terminal stays text, and no metric carries it.
#[test]
fn attackers_text_stays_text() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let serial_number = "\"},{\\u0000 tr111_up{x=\"1\"} 1 <b>";
    Client::new(&wire, 1, identity("00256D", serial_number, "a\"b")).bind()?;
    let rows = agent.wait_for_rows(1, SOON)?;
    assert_eq!((rows[0].serial_number.as_str(), rows[0].product_class.as_str()), (serial_number, "a\"b"));
    let (_, metrics) = agent.fetch("/metrics")?;
    assert!(!metrics.contains("tr111_up") && !metrics.contains("00256D"), "{metrics}");
    Ok(())
}
