//! Programs of others at TC that run before those of the agent and end the chain.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    tc::{NlOptions, TcAttachOptions},
};
use serde_json::Value;
use tr111_tests::{
    agent::{Agent, Files, SOON, with_capabilities},
    client::Client,
    lab::{GATEWAY, Lab, POOL},
    process::{output, run, text},
    responder::Responder,
    testing::Testing,
    vectors::{D1, G1, hex},
    wait::{wait_for, wait_until},
    wire::Wire,
};

/// The program that ends the chain.
const OTHER: &str = "test_accept";
/// Chains are looked at every 10 s, and the machine may be busy.
const LOOK: Duration = Duration::from_secs(30);

/// Attaches a program that ends the chain before all others; it goes when it is dropped.
fn stand_in_front(lab: &Lab, side: TcAttachType) -> Result<Testing> {
    let mut other = Testing::load()?;
    let program = other.classifier(OTHER)?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    lab.gateway.enter(|| program.attach_with_options("lan0", side, first))?;
    Ok(other)
}

/// Names of the programs of a chain, in the order in which they run.
fn chain(lab: &Lab, side: TcAttachType) -> Result<Vec<String>> {
    let (_, programs) = lab.gateway.enter(|| SchedClassifier::query_tcx("lan0", side))?;
    Ok(programs.iter().filter_map(|info| info.name_as_str().map(str::to_owned)).collect())
}

/// A hook of lan0, from `tr111 status --json`.
fn hook(agent: &Agent<'_>, program: &str) -> Result<Value> {
    let status = agent.json(&["status"])?;
    let hooks = status["interfaces"][0]["hooks"].as_array().context("no hooks")?;
    hooks.iter().find(|hook| hook["program"] == program).cloned().with_context(|| format!("no {program}"))
}

fn wait_for_chain(lab: &Lab, expected: &[&str]) -> Result<()> {
    wait_until(&format!("chain {expected:?}"), LOOK, || Ok(chain(lab, TcAttachType::Egress)? == expected))
}

/// Whether the displaced alarm stands on lan0, by the metric.
fn alarms(agent: &Agent<'_>) -> Result<u64> {
    Ok(agent.metrics()?.sum("tr111_gateway_alarms", &[("alarm", "displaced"), ("interface", "lan0")]))
}

/// GW-4, GW-6: a program that is there first, one that comes in front of a running agent, and one that came while no agent
/// ran: the programs of the agent run before it, replies get the Gateway Identity, and the table its row. `status` says
/// who stands behind, filters included.
#[test]
fn a_program_that_ends_the_chain_does_not_blind_the_agent() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let earlier = stand_in_front(&lab, TcAttachType::Egress)?;
    let mut agent = Agent::start(&lab, &["lan0"], &["--xdp-mode", "tc"])?;
    assert_eq!(chain(&lab, TcAttachType::Egress)?, ["lan_egress", OTHER]);
    let wire = Wire::open(&lab.lan, "eth0")?;
    let mut device = Client::new(&wire, 1, hex(D1));
    let bound = |device: &mut Client<'_>, agent: &Agent<'_>| -> Result<()> {
        assert_eq!(device.bind()?.option(125), Some(&hex(G1)[2..]));
        agent.wait_for_rows(1, SOON)?;
        device.release()?;
        agent.wait_for_rows(0, SOON)?;
        Ok(())
    };
    bound(&mut device, &agent)?;
    drop(earlier);

    let (egress, ingress) = (stand_in_front(&lab, TcAttachType::Egress)?, stand_in_front(&lab, TcAttachType::Ingress)?);
    wait_for_chain(&lab, &["lan_egress", OTHER])?;
    wait_until("ingress", LOOK, || {
        let chain = chain(&lab, TcAttachType::Ingress)?;
        Ok(chain.len() == 3 && chain[2] == OTHER)
    })?;
    bound(&mut device, &agent)?;
    drop((egress, ingress));

    assert!(agent.stop()?.success());
    let _meanwhile = stand_in_front(&lab, TcAttachType::Egress)?;
    let filter = ["filter", "add", "dev", "lan0", "egress", "prio", "7", "u32", "match", "u32", "0", "0"];
    run(lab.gateway.command("tc").args(["qdisc", "add", "dev", "lan0", "clsact"]))?;
    run(lab.gateway.command("tc").args(filter))?;
    let mut bpf = Testing::load()?;
    let program = bpf.empty_classifier()?;
    let options = TcAttachOptions::Netlink(NlOptions { priority: 9, ..NlOptions::default() });
    lab.gateway.enter(|| program.attach_with_options("lan0", TcAttachType::Egress, options))?;
    let agent = agent.start_again(&lab, &["lan0"], &["--xdp-mode", "tc"])?;
    wait_for_chain(&lab, &["lan_egress", OTHER])?;
    bound(&mut device, &agent)?;
    let behind = wait_for("neighbours", SOON, || {
        let behind = hook(&agent, "lan_egress")?["behind"].clone();
        Ok(behind.as_array().is_some_and(|names| !names.is_empty()).then_some(behind))
    })?;
    assert_eq!(behind, serde_json::json!([OTHER, "u32", "bench_empty_tc"]));
    assert_eq!(hook(&agent, "lan_egress")?["in_front"], serde_json::json!([]));
    assert!(agent.print(&["status"])?.contains(&format!("lan_egress tc in front of {OTHER} and u32")));
    assert_eq!(alarms(&agent)?, 0);
    Ok(())
}

/// Where somebody else insists on the first place, the agent takes it again three times. Then an alarm stands: in the
/// metric, the log, `status` and for watchers. It ends with its reason.
#[test]
fn the_fourth_displacement_within_an_hour_is_an_alarm() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let watch = agent.background("watch", &["watch", "--json"], lab.path())?;
    for _ in 0..3 {
        let other = stand_in_front(&lab, TcAttachType::Egress)?;
        wait_for_chain(&lab, &["lan_egress", OTHER])?;
        drop(other);
        wait_for_chain(&lab, &["lan_egress"])?;
    }
    assert_eq!(alarms(&agent)?, 0);
    let other = stand_in_front(&lab, TcAttachType::Egress)?;
    wait_until("alarm", LOOK, || Ok(alarms(&agent)? == 1))?;
    assert_eq!(chain(&lab, TcAttachType::Egress)?, [OTHER, "lan_egress"]);
    let status = agent.json(&["status"])?;
    let alarm = &status["alarms"][0];
    assert_eq!((&alarm["alarm"], &alarm["interface"]), (&"displaced".into(), &"lan0".into()));
    let detail = alarm["detail"].as_str().context("no detail")?;
    assert!(detail.contains(OTHER) && detail.contains("lan_egress"), "{detail}");
    assert_eq!(hook(&agent, "lan_egress")?["in_front"], serde_json::json!([OTHER]));
    assert!(agent.print(&["status"])?.contains(detail));
    assert!(agent.log().contains(detail), "{}", agent.log());
    drop(other);
    wait_until("end of the alarm", LOOK, || Ok(alarms(&agent)? == 0))?;
    assert_eq!(agent.json(&["status"])?["alarms"], serde_json::json!([]));
    wait_until("events", SOON, || {
        let lines: Vec<Value> = watch.stdout().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let told = lines.iter().filter(|line| line["event"] == "alarm" && line["alarm"] == "displaced");
        Ok(told.map(|line| line["cleared"] == true).collect::<Vec<_>>() == [false, true])
    })?;
    agent.stop()?;
    Ok(())
}

/// The capabilities that the agent asks for are enough for that. Only the names of programs need more.
#[test]
fn the_capabilities_of_the_documentation_are_enough() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let files = Files::new(lab.path(), "agent")?;
    let command = files.run_gateway(&lab.gateway, &["lan0"], &[])?;
    let mut command = with_capabilities(&command, &["bpf", "net_admin", "net_raw", "perfmon"]);
    let agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    let _other = stand_in_front(&lab, TcAttachType::Egress)?;
    wait_for_chain(&lab, &["lan_egress", OTHER])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    assert_eq!(Client::new(&wire, 1, hex(D1)).bind()?.option(125), Some(&hex(G1)[2..]));
    agent.wait_for_rows(1, SOON)?;
    wait_until("neighbours", SOON, || {
        let behind = hook(&agent, "lan_egress")?["behind"].clone();
        Ok(behind[0].as_str().is_some_and(|name| name.starts_with("program ")))
    })
}

/// A program of the agent that somebody takes off is attached again.
#[test]
fn a_program_that_is_taken_off_comes_back() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let link = agent.files().namespace()?.join("links");
    let link = std::fs::read_dir(link)?.next().context("no links")??.path().join("lan_egress-tc");
    run(lab.gateway.command("bpftool").args(["link", "detach", "pinned"]).arg(link))?;
    assert_eq!(chain(&lab, TcAttachType::Egress)?, Vec::<String>::new());
    wait_for_chain(&lab, &["lan_egress"])?;
    Ok(())
}

/// With `tc_order = "last"` the agent sees what goes out on the wire, stays behind others and says so; no alarm stands.
#[test]
fn with_the_other_order_the_agent_stays_behind() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.write(
        "gateway.toml",
        "[gateway]\nlan = [\"lan0\"]\nmanufacturer_oui = \"00256D\"\nserial_number = \"GW0001\"\n[agent]\ntc_order = \"last\"\n",
    )?;
    let first = Agent::start(&lab, &["lan0"], &[])?;
    let other = stand_in_front(&lab, TcAttachType::Egress)?;
    wait_for_chain(&lab, &["lan_egress", OTHER])?;
    let files = first.kill()?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &["--config", &file])?;
    let agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    wait_for_chain(&lab, &[OTHER, "lan_egress"])?;
    wait_until("neighbours", SOON, || Ok(hook(&agent, "lan_egress")?["in_front"] == serde_json::json!([OTHER])))
        .with_context(|| format!("{:?}", hook(&agent, "lan_egress")))?;
    assert_eq!(alarms(&agent)?, 0);
    let check = text(&output(&mut agent.command(&["check", "--config", &file])?)?.stdout);
    assert!(check.lines().any(|line| line.contains(OTHER) && line.contains("lan_egress")), "{check}");
    drop(other);
    wait_for_chain(&lab, &["lan_egress"])
}
