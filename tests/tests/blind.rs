//! A gateway that sees requests and no replies says so.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};
use serde_json::Value;
use tr111_tests::{
    agent::{Agent, SOON},
    client::Client,
    frame::kind,
    lab::{GATEWAY, Lab, POOL},
    responder::Responder,
    testing::Testing,
    vectors::{D1, D2, hex},
    wait::{wait_for, wait_until},
    wire::Wire,
};

/// How long requests may be without a reply, and time for the machine.
const PATIENCE: Duration = Duration::from_mins(1);
const ALARM: Duration = Duration::from_secs(90);

fn alarms(agent: &Agent<'_>, interface: &str) -> Result<u64> {
    Ok(agent.metrics()?.sum("tr111_gateway_alarms", &[("alarm", "no_replies"), ("interface", interface)]))
}

/// Requests with an identity and no reply for a minute: the alarm is in the metric, in `status`, in the log and an event,
/// with its likely causes. Another LAN of the same gateway, where OFFERs leave and nothing else, raises none. The alarm ends
/// with the first reply.
#[test]
fn requests_without_replies_are_an_alarm_after_a_minute() -> Result<()> {
    let lab = Lab::new()?;
    lab.gateway.connect("lan1", &lab.lan, "eth1")?;
    lab.gateway.ip("addr add 10.112.0.1/16 dev lan1")?;
    let _offers = Responder::start(&lab.gateway, "lan1", [10, 112, 0, 1].into(), [10, 112, 1, 1].into(), 600)?;
    let mut agent = Agent::start(&lab, &["lan0", "lan1"], &[])?;
    let watch = agent.background("watch", &["watch", "--json"], lab.path())?;
    let (silent, offering) = (Wire::open(&lab.lan, "eth0")?, Wire::open(&lab.lan, "eth1")?);
    let mut unheard = Client::new(&silent, 1, hex(D1));
    let mut undecided = Client::new(&offering, 2, hex(D2));

    let begin = Instant::now();
    let discover = unheard.message(kind::DISCOVER);
    unheard.send(&discover)?;
    wait_for("the alarm", ALARM, || {
        undecided.discover()?;
        Ok((alarms(&agent, "lan0")? == 1).then_some(()))
    })?;
    assert!(begin.elapsed() >= PATIENCE, "after {:?}", begin.elapsed());
    assert_eq!(alarms(&agent, "lan1")?, 0);
    let status = agent.json(&["status"])?;
    assert_eq!(status["alarms"].as_array().map(Vec::len), Some(1), "{status}");
    let alarm = &status["alarms"][0];
    assert_eq!((&alarm["alarm"], &alarm["interface"]), (&"no_replies".into(), &"lan0".into()));
    let detail = alarm["detail"].as_str().context("no detail")?;
    let cause = |word: &str| detail.find(word).with_context(|| format!("no {word} in: {detail}"));
    assert!(cause("DHCP server is not running")? < cause("accept_foreign_server")?);
    assert!(cause("accept_foreign_server")? < cause("rx-gro-list")?);
    assert!(agent.print(&["status"])?.contains("no_replies on lan0"));
    assert!(agent.log().contains("no_replies"), "{}", agent.log());

    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    unheard.discover()?;
    wait_until("end of the alarm", SOON, || Ok(alarms(&agent, "lan0")? == 0))?;
    wait_until("events", SOON, || {
        let lines: Vec<Value> = watch.stdout().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let told = lines.iter().filter(|line| line["alarm"] == "no_replies" && line["interface"] == "lan0");
        Ok(told.map(|line| line["cleared"] == true).collect::<Vec<_>>() == [false, true])
    })?;
    agent.stop()?;
    Ok(())
}

/// Where a program before `lan_egress` is the reason, it is named first.
#[test]
fn a_program_that_ends_the_chain_is_named_as_the_first_cause() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.write("gateway.toml", "[agent]\ntc_order = \"last\"\n")?;
    let mut other = Testing::load()?;
    let program = other.classifier("test_accept")?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    lab.gateway.enter(|| program.attach_with_options("lan0", TcAttachType::Egress, first))?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    wait_until("the alarm", ALARM, || Ok(alarms(&agent, "lan0")? == 1))?;
    let status = agent.json(&["status"])?;
    let detail = status["alarms"][0]["detail"].as_str().context("no detail")?;
    let (name, server) = (detail.find("test_accept"), detail.find("DHCP server"));
    assert!(name.is_some() && name < server, "{detail}");
    Ok(())
}
