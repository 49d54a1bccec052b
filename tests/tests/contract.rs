//! What scripts and dashboards hold on to: JSON, parameters, metrics.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tr111_common::counter::{Hook, Outcome};
use tr111_tests::{
    agent::{Agent, SOON},
    client::Client,
    corpus,
    lab::{GATEWAY, Lab, POOL},
    process::{output_with_input, text},
    responder::Responder,
    vectors::{D1, D2, hex},
    wait::wait_for,
    wire::Wire,
};

/// Value and type of a parameter, from `tr111 get --json`.
fn parameter(agent: &Agent<'_>, name: &str) -> Result<(String, String)> {
    let answer = agent.json(&["get", name])?;
    let parameters = answer["parameters"].as_array().context("no parameters")?;
    ensure!(parameters.len() == 1 && parameters[0]["name"] == name, "{answer}");
    for key in ["writable", "notification"] {
        ensure!(parameters[0].get(key).is_some(), "no {key} in {answer}");
    }
    let text = |key: &str| anyhow::Ok(parameters[0][key].as_str().with_context(|| format!("no {key}"))?.to_owned());
    Ok((text("value")?, text("type")?))
}

/// DM-1 to DM-7: the table as parameters, under either root; DM-2 equals the number of rows at every step.
#[test]
fn the_table_is_readable_as_parameters() -> Result<()> {
    for (model, root) in [("igd", "InternetGatewayDevice."), ("device2", "Device.")] {
        let lab = Lab::new()?;
        let file = lab.write("gateway.toml", &format!("[gateway]\ndata_model = \"{model}\"\n"))?;
        let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
        let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
        let count = format!("{root}ManagementServer.ManageableDeviceNumberOfEntries");
        assert_eq!(parameter(&agent, &count)?, ("0".into(), "unsignedInt".into()));

        let wire = Wire::open(&lab.lan, "eth0")?;
        let mut first = Client::new(&wire, 1, hex(D1));
        first.bind()?;
        agent.wait_for_rows(1, SOON)?;
        assert_eq!(parameter(&agent, &count)?.0, "1");
        Client::new(&wire, 2, hex(D2)).bind()?;
        let rows = agent.wait_for_rows(2, SOON)?;
        assert_eq!(parameter(&agent, &count)?.0, "2");

        let row = |index: usize, name: &str| {
            format!("{root}ManagementServer.ManageableDevice.{}.{name}", rows[index].instance)
        };
        assert_eq!(parameter(&agent, &row(0, "ManufacturerOUI"))?, ("00256D".into(), "string".into()));
        assert_eq!(parameter(&agent, &row(0, "SerialNumber"))?, ("DEV0001".into(), "string".into()));
        assert_eq!(parameter(&agent, &row(0, "ProductClass"))?, ("STB".into(), "string".into()));
        assert_eq!(parameter(&agent, &row(1, "ProductClass"))?.0, "");
        assert_eq!(parameter(&agent, &format!("{root}DeviceInfo.SerialNumber"))?.0, "GW0001");
        let limit = format!("{root}ManagementServer.ManageableDeviceNotificationLimit");
        assert_eq!(parameter(&agent, &limit)?, ("0".into(), "unsignedInt".into()));

        let whole = agent.json(&["get", &format!("{root}ManagementServer.ManageableDevice.")])?;
        assert_eq!(whole["parameters"].as_array().map(Vec::len), Some(6), "{whole}");

        first.release()?;
        agent.wait_for_rows(1, SOON)?;
        assert_eq!(parameter(&agent, &count)?.0, "1");
        let gone = agent.ask(&["get", &row(0, "SerialNumber")])?;
        assert_eq!(gone.status.code(), Some(1));
        assert!(text(&gone.stderr).contains("9005"), "{}", text(&gone.stderr));
    }
    Ok(())
}

/// DM-2: a name that is none is fault 9005, a parameter that is read-only fault 9008, each by number and name.
#[test]
fn faults_have_number_and_name() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let unknown = agent.ask(&["get", "InternetGatewayDevice.Nonsense"])?;
    assert_eq!(unknown.status.code(), Some(1));
    let complaint = text(&unknown.stderr);
    assert!(complaint.contains("9005") && complaint.contains("Invalid parameter name"), "{complaint}");

    let count = "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries";
    let refused = agent.ask(&["set", count, "5"])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("9008"), "{}", text(&refused.stderr));
    assert_eq!(parameter(&agent, count)?.0, "0");
    Ok(())
}

/// `tr111 status --json` has every key that scripts read.
#[test]
fn status_has_its_keys() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let status = agent.json(&["status"])?;
    assert_eq!(status["role"], "gateway");
    assert!(status["version"].is_string() && status["started"].is_string(), "{status}");
    let interface = &status["interfaces"][0];
    assert_eq!((&interface["name"], &interface["side"]), (&Value::from("lan0"), &Value::from("lan")));
    assert!(interface["hooks"].as_array().is_some_and(|hooks| hooks.len() >= 2), "{status}");
    assert_eq!((status["table"]["rows"].as_u64(), status["table"]["bindings"].as_u64()), (Some(0), Some(0)));
    assert!(status["table"]["max_rows"].as_u64().is_some_and(|rows| rows > 0), "{status}");
    let ring = &status["rings"][0];
    assert_eq!(
        (&ring["name"], ring["events"].as_u64(), ring["lost"].as_u64()),
        (&Value::from("lan"), Some(0), Some(0))
    );
    assert_eq!(status.get("last_notification"), Some(&Value::Null));
    // The same question with the flags before the command.
    let mut turned = agent.command(&[])?;
    let turned = tr111_tests::process::output(turned.args(["--json", "status"]))?;
    assert_eq!(serde_json::from_slice::<Value>(&turned.stdout)?["role"], "gateway");
    Ok(())
}

/// `tr111 watch --json` prints additions and removals with time, event and reason, one object a line, and ends with
/// status 1 when the agent goes.
#[test]
fn watch_tells_what_happens() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    // A device that comes and goes until both commands listen sends more than its budget.
    let file = lab.write("gateway.toml", "[gateway.association]\nmac_budget_pps = 0\n")?;
    let mut agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let mut watch = agent.background("watch", &["watch", "--json"], lab.path())?;
    let mut devices = agent.background("devices", &["devices", "--watch", "--json"], lab.path())?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    // The watch is connected once it tells of a device; until then the device comes and goes.
    wait_for("first event", SOON, || {
        device.bind()?;
        agent.wait_for_rows(1, SOON)?;
        device.release()?;
        agent.wait_for_rows(0, SOON)?;
        let told = |process: &tr111_tests::process::Process| process.stdout().contains("device_removed");
        Ok((told(&watch) && told(&devices)).then_some(()))
    })?;
    for line in watch.stdout().lines() {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(event["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        match event["event"].as_str() {
            Some("device_removed") => ensure!(event["reason"] == "released", "{line}"),
            Some("device_added" | "binding_changed") => {}
            _ => ensure!(false, "unexpected {line}"),
        }
    }
    agent.stop()?;
    assert_eq!(watch.wait(SOON)?.code(), Some(1));
    assert_eq!(watch.stderr().lines().count(), 1, "{}", watch.stderr());
    devices.wait(SOON)?;
    Ok(())
}

/// `promtool check metrics` has nothing to say about `/metrics`; `/healthz` and `/readyz` answer.
#[test]
fn promtool_finds_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    agent.wait_for_rows(1, SOON)?;
    let (status, metrics) = agent.fetch("/metrics")?;
    assert_eq!(status, 200);
    let verdict = output_with_input(Command::new("promtool").args(["check", "metrics"]), metrics.as_bytes())?;
    let said = text(&verdict.stdout) + &text(&verdict.stderr);
    assert!(verdict.status.success() && said.trim().is_empty(), "{said}");
    for promised in [
        "tr111_build_info{",
        "tr111_manageable_devices 1",
        "tr111_table_changes_total{",
        "tr111_packets_total{",
        "tr111_ring_events_total{",
        "tr111_ring_lost_total{",
        "tr111_device_identities_total{",
        "tr111_event_latency_seconds_bucket{",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(promised)), "no {promised} in:\n{metrics}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(agent.fetch(path)?.0, 200, "{path}");
    }
    Ok(())
}

/// The counters add up: every frame is counted once per hook; seen = handed up + not ours + refused; handed up = ring
/// events + losses.
#[test]
fn the_counters_add_up() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.write("gateway.toml", "[gateway.association]\nmac_budget_pps = 0\n")?;
    let server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut sent = 0;
    for frame in corpus::load()?.iter().filter(|frame| frame.hook().is_ok_and(|hook| hook == Hook::LanIngress)) {
        let bytes = frame.bytes()?;
        if bytes.len() <= 1514 {
            wire.send(&bytes)?;
            sent += 1;
        }
    }
    for number in 1..=20 {
        Client::new(&wire, number, hex(D1)).bind()?;
        sent += 2;
    }
    let metrics = agent.wait_for_metrics("every frame", |metrics| {
        let told = metrics.sum("tr111_ring_events_total", &[]);
        metrics.all_packets("lan_ingress") == sent && told > 0
    })?;
    // Nothing else is on the wire: each answer of the server left by the egress hook once.
    assert_eq!(metrics.all_packets("lan_egress"), server.answers());
    let sum = |outcome| metrics.packets_by_outcome(outcome);
    let handed_up = sum(Outcome::HandedUp);
    let others = [Outcome::NotOurs, Outcome::Noted, Outcome::Refused, Outcome::Dropped].map(sum);
    // Two hooks see what comes in. Behind the first, the stack drops the frame whose VLAN tag is cut off.
    assert_eq!(metrics.all_packets("lan_binding"), sent - 1);
    assert_eq!(handed_up + others.iter().sum::<u64>(), 2 * sent - 1 + server.answers());
    let (events, lost) = (metrics.sum("tr111_ring_events_total", &[]), metrics.sum("tr111_ring_lost_total", &[]));
    assert_eq!((handed_up, lost), (events + lost, 0));
    Ok(())
}
