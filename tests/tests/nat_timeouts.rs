//! The gateway makes the NAT bindings live longer by which LAN devices wait for Connection Requests.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::unix::fs::symlink,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tr111_core::stun::{Attribute, Builder, MessageType, TransactionId, Username};
use tr111_tests::{
    agent::{Agent, Files, GATEWAY_IDENTITY, SOON, binary},
    lab::Lab,
    nat::{NatLab, PUBLIC, SERVER},
    process::{output_with_input, run, text},
    vectors::{NUL_BINDING, WRONG_BINDINGS, padded_with_nuls},
    wait::wait_for,
};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 111, 2, 5);
const STUN_SERVER: SocketAddrV4 = SocketAddrV4::new(SERVER, 3478);
const USERNAME: &[u8] = b"CPE57689";

/// A LAN host, the gateway that masquerades it, and a STUN server's socket on the far side.
struct Nat {
    net: NatLab,
    server: UdpSocket,
}

impl Nat {
    fn new() -> Result<Self> {
        let net = NatLab::new("masquerade")?;
        let server = net.wan.enter(|| UdpSocket::bind(STUN_SERVER))?;
        server.set_read_timeout(Some(SOON))?;
        Ok(Self { net, server })
    }

    /// Sends a Binding Request from a port of the host, and waits for it on the far side.
    fn request(&self, port: u16, attributes: &[Attribute<'_>]) -> Result<()> {
        let mut message = Builder::new(MessageType::BindingRequest, TransactionId([7; 16]));
        for attribute in attributes {
            message = message.attribute(*attribute);
        }
        let host = self.net.lab.lan.enter(|| UdpSocket::bind(SocketAddrV4::new(HOST, port)))?;
        host.send_to(&message.build(), STUN_SERVER)?;
        let (_, from) = self.server.recv_from(&mut [0; 512]).context("the request did not arrive")?;
        ensure!(from.ip() == PUBLIC, "no NAT: {from}");
        Ok(())
    }

    /// A request as a CPE sends it from its listening port.
    fn binding(&self, port: u16) -> Result<()> {
        self.request(port, &[Attribute::ConnectionRequestBinding, Attribute::Username(Username(USERNAME))])
    }

    /// Seconds that the connection tracker gives the flow from a port of the host.
    fn left(&self, port: u16) -> Result<u64> {
        let listed = run(self.on_gateway("conntrack").args(["-L", "-p", "udp", "--orig-port-src", &port.to_string()]))?;
        let field = listed.split_whitespace().nth(2).with_context(|| format!("no flow from {port}"))?;
        Ok(field.parse()?)
    }

    fn on_gateway(&self, program: &str) -> Command {
        self.net.lab.gateway.command(program)
    }

    fn has_table(&self, name: &str) -> Result<bool> {
        Ok(run(self.on_gateway("nft").args(["list", "tables"]))?.lines().any(|line| line == format!("table {name}")))
    }

    fn start(&self) -> Result<Agent<'_>> {
        let agent = Agent::start(&self.net.lab, &["lan0"], &["--wan", "wan0"])?;
        wait_for("nft table", SOON, || Ok(self.has_table("inet tr111")?.then_some(())))?;
        Ok(agent)
    }
}

/// The bindings of LAN devices, as `tr111 bindings` shows them.
fn seen(agent: &Agent<'_>) -> Result<Vec<Value>> {
    let listed = agent.json(&["bindings"])?;
    let all = listed["bindings"].as_array().context("no bindings")?;
    Ok(all.iter().filter(|binding| !binding["device"].is_null()).cloned().collect())
}

fn only(agent: &Agent<'_>) -> Result<Value> {
    let mut bindings = seen(agent)?;
    ensure!(bindings.len() == 1, "{bindings:?}");
    bindings.pop().context("no binding")
}

/// STUN-5, TR-111 footnote 10: the flow of a Binding Request with CONNECTION-REQUEST-BINDING lives 300 s, another one as
/// long as before; the table comes back when somebody removes it, outlives the agent, and goes with `tr111 detach`.
#[test]
fn a_binding_for_connection_requests_lives_longer() -> Result<()> {
    let nat = Nat::new()?;
    let mut agent = nat.start()?;
    nat.binding(5000)?;
    nat.request(5001, &[])?;
    ensure!(nat.left(5000)? > 290, "{} s left", nat.left(5000)?);
    ensure!(nat.left(5001)? <= 30, "a flow of somebody else was extended");

    agent.wait_for_metrics("the extended binding", |metrics| {
        metrics.sum("tr111_nat_bindings_extended_total", &[]) == 1 && metrics.sum("tr111_nat_bindings", &[]) == 1
    })?;
    let binding = only(&agent)?;
    assert_eq!(binding["address"], format!("{PUBLIC}:5000"));
    assert_eq!(binding["username"], "CPE57689");
    assert_eq!(binding["device"], HOST.to_string());
    assert_eq!((&binding["timeout_s"], &binding["extended"]), (&300.into(), &true.into()));
    assert_eq!((&binding["why"], &binding["authenticated"]), (&Value::Null, &false.into()));

    run(nat.on_gateway("nft").args(["delete", "table", "inet", "tr111"]))?;
    wait_for("the table again", SOON, || Ok(nat.has_table("inet tr111")?.then_some(())))?;
    assert!(nat.has_table("ip lab")?);
    nat.binding(5002)?;
    ensure!(nat.left(5002)? > 290, "{} s left", nat.left(5002)?);

    agent.print(&["tune", "gateway.binding.extend_nat_timeout_s=600"])?;
    let chain = ["list", "chain", "inet", "tr111", "extend"];
    wait_for("the new timeout", SOON, || {
        Ok(run(nat.on_gateway("nft").args(chain))?.contains("stun_600").then_some(()))
    })?;

    assert!(agent.stop()?.success());
    assert!(nat.has_table("inet tr111")?);
    nat.binding(5003)?;
    ensure!(nat.left(5003)? > 590, "without an agent, {} s are left", nat.left(5003)?);
    let detached = agent.print(&["detach", "--pin-dir", &agent.files().pins().display().to_string()])?;
    ensure!(detached.contains("nft table"), "{detached}");
    assert!(!nat.has_table("inet tr111")? && nat.has_table("ip lab")?);
    Ok(())
}

/// STUN-1, STUN-5, T-37: the flow of a set-top box that writes NUL for the blank of CONNECTION-REQUEST-BINDING and pads its name
/// with NULs lives longer too, and is listed under the name. Another text or length is a flow of somebody else. All of it
/// is counted.
#[test]
fn the_binding_of_a_box_that_pads_with_nuls_lives_longer() -> Result<()> {
    let nat = Nat::new()?;
    let agent = nat.start()?;
    let name = padded_with_nuls(USERNAME);
    for _ in 0..2 {
        nat.request(5000, &[NUL_BINDING, Attribute::Username(Username(&name))])?;
    }
    for (port, wrong) in (5001..).zip(WRONG_BINDINGS) {
        nat.request(port, &[wrong, Attribute::Username(Username(&name))])?;
        ensure!(nat.left(port)? <= 30, "{wrong:?} was extended");
    }
    ensure!(nat.left(5000)? > 290, "{} s left", nat.left(5000)?);
    agent.wait_for_metrics("the extended binding", |metrics| {
        metrics.sum("tr111_nat_bindings_extended_total", &[]) == 1 && metrics.sum("tr111_nat_bindings", &[]) == 1
    })?;
    let binding = only(&agent)?;
    assert_eq!((&binding["username"], &binding["extended"]), (&"CPE57689".into(), &true.into()));
    let metrics = agent.metrics()?;
    let counted = |class| metrics.packets("lan_binding", class);
    assert_eq!(["nul_binding", "nul_binding_refresh", "wrong_binding"].map(counted), [1, 1, 3]);
    assert_eq!(["binding", "binding_refresh"].map(counted), [0, 0]);
    Ok(())
}

/// SEC-8, DM-25: USERNAMEs that are longer than any STUNUsername name nobody, and a list of many long ones comes whole.
#[test]
fn long_usernames_spoil_no_list() -> Result<()> {
    let nat = Nat::new()?;
    let file = nat.net.lab.write("gateway.toml", "[gateway.association]\nmac_budget_pps = 0\n")?;
    let agent = Agent::start(&nat.net.lab, &["lan0"], &["--wan", "wan0", "--config", &file])?;
    // A control character takes six bytes of JSON.
    let (longest, longer) = ([1; 256], [1; 1_400]);
    let request =
        |port, name| nat.request(port, &[Attribute::ConnectionRequestBinding, Attribute::Username(Username(name))]);
    for port in 5_000..5_150 {
        request(port, &longer)?;
    }
    request(6_000, &longest)?;
    let listed = wait_for("all bindings", SOON, || {
        let listed = seen(&agent)?;
        Ok((listed.len() == 151).then_some(listed))
    })?;
    assert!(listed[..150].iter().all(|binding| binding["username"].is_null()), "{}", listed[0]);
    assert_eq!(listed[150]["username"].as_str().map(str::len), Some(256));
    Ok(())
}

/// STUN-5: a flow that is older than the policy keeps its timeout and its entry, and `tr111 bindings` says why.
#[test]
fn an_older_flow_stays_as_it_is() -> Result<()> {
    let nat = Nat::new()?;
    nat.binding(5000)?;
    let before = nat.left(5000)?;
    let agent = nat.start()?;
    nat.binding(5000)?;
    ensure!(nat.left(5000)? <= before.max(30), "an old flow was extended");
    let binding = wait_for("the binding", SOON, || Ok(seen(&agent)?.pop()))?;
    assert_eq!((&binding["extended"], &binding["why"]), (&false.into(), &"flow_older_than_policy".into()));
    assert_eq!(binding["address"], format!("{PUBLIC}:5000"));
    Ok(())
}

/// A PATH with `ip` in it, which starts the agent in its namespace, and nothing else.
fn only_ip(lab: &Lab) -> Result<PathBuf> {
    let path = env::var_os("PATH").context("no PATH")?;
    let ip = env::split_paths(&path).map(|entry| entry.join("ip")).find(|ip| ip.exists()).context("no ip")?;
    let directory = lab.path().join("bin");
    fs::create_dir(&directory)?;
    symlink(ip, directory.join("ip"))?;
    Ok(directory)
}

/// No nft on the box: the agent works, and says that nothing is extended. With 0 the feature is off.
#[test]
fn without_nft_the_feature_is_off_and_says_so() -> Result<()> {
    let nat = Nat::new()?;
    let files = Files::new(nat.net.lab.path(), "agent")?;
    let mut command = files.run_gateway(&nat.net.lab.gateway, &["lan0"], &["--wan", "wan0"])?;
    command.env("PATH", only_ip(&nat.net.lab)?);
    let agent = Agent::start_command(&nat.net.lab.gateway, files, &mut command, nat.net.lab.path())?;
    nat.binding(5000)?;
    let binding = wait_for("the binding", SOON, || Ok(seen(&agent)?.pop()))?;
    assert_eq!((&binding["extended"], &binding["why"]), (&false.into(), &"no_nft".into()));
    assert!(!nat.has_table("inet tr111")?);

    agent.print(&["tune", "gateway.binding.extend_nat_timeout_s=0"])?;
    wait_for("the feature to be off", SOON, || Ok((only(&agent)?["why"] == "off").then_some(())))?;
    Ok(())
}

/// Loads rules into the gateway.
fn load(nat: &Nat, rules: &str) -> Result<()> {
    let loaded = output_with_input(nat.on_gateway("nft").args(["-f", "-"]), rules.as_bytes())?;
    ensure!(loaded.status.success(), "nft: {}", text(&loaded.stderr));
    Ok(())
}

/// STUN-5: rules that restore marks of connections, at the usual priority and there before the agent, take nothing away.
#[test]
fn rules_that_restore_marks_run_behind_the_timeout() -> Result<()> {
    let nat = Nat::new()?;
    load(
        &nat,
        "table ip restore { chain pre { type filter hook prerouting priority mangle; meta mark set ct mark & 0x00ff0000; }; }",
    )?;
    let agent = nat.start()?;
    nat.binding(5000)?;
    ensure!(nat.left(5000)? > 290, "{} s left", nat.left(5000)?);
    let binding = wait_for("the binding", SOON, || Ok(seen(&agent)?.pop()))?;
    assert_eq!((&binding["extended"], &binding["why"]), (&true.into(), &Value::Null));
    Ok(())
}

/// STUN-5: where a rule takes the mark away before the timeout is set, `tr111 bindings` says that, and says it of no flow
/// whose mark arrives.
#[test]
fn a_mark_that_is_taken_away_is_the_reason_that_is_named() -> Result<()> {
    let nat = Nat::new()?;
    load(
        &nat,
        "table ip restore { chain pre { type filter hook prerouting priority -190; udp sport 5000 meta mark set 0; }; }",
    )?;
    let agent = nat.start()?;
    nat.binding(5000)?;
    nat.binding(5001)?;
    ensure!(nat.left(5000)? <= 30 && nat.left(5001)? > 290, "{} s, {} s", nat.left(5000)?, nat.left(5001)?);
    let bindings = wait_for("both bindings", SOON, || {
        let bindings = seen(&agent)?;
        Ok((bindings.len() == 2).then_some(bindings))
    })?;
    let why = |port: u16| {
        let address = format!("{PUBLIC}:{port}");
        bindings.iter().find(|binding| binding["address"] == address).map(|binding| binding["why"].clone())
    };
    assert_eq!((why(5000), why(5001)), (Some("mark_missing".into()), Some(Value::Null)));
    Ok(())
}

/// Another gateway in the network namespace of the first, on lan1 and with a longer timeout.
fn start_another<'a>(lab: &'a Lab, name: &str) -> Result<Agent<'a>> {
    let settings =
        "[gateway]\nconnection_request_listen = \"0.0.0.0:7548\"\n[gateway.binding]\nextend_nat_timeout_s = 600\n";
    let file = lab.write(&format!("{name}.toml"), settings)?;
    let files = Files::new(lab.path(), name)?;
    let mut command = lab.gateway.command(binary()?);
    command.args(["run", "gateway", "--lan", "lan1", "--config", &file]).args(GATEWAY_IDENTITY);
    command.arg("--state-dir").arg(files.state()).arg("--control").arg(files.control());
    command.arg("--pin-dir").arg(files.pins()).args(["--metrics", "127.0.0.1:9112"]);
    Agent::start_command(&lab.gateway, files, &mut command, lab.path())
}

/// The nft table belongs to one gateway of a network namespace. A second one says which process has it, changes nothing,
/// leaves it when it is detached, and takes it once the first has ended.
#[test]
fn a_second_gateway_leaves_the_table_to_the_first() -> Result<()> {
    let nat = Nat::new()?;
    let lab = &nat.net.lab;
    lab.gateway.connect("lan1", &lab.lan, "eth1")?;
    let mut first = nat.start()?;
    let has = |timeout: &str| -> Result<bool> {
        Ok(run(nat.on_gateway("nft").args(["list", "chain", "inet", "tr111", "extend"]))?.contains(timeout))
    };
    let second = start_another(lab, "second")?;
    let pid = first.json(&["status"])?["pid"].as_u64().context("no pid")?;
    let said = wait_for("the owner's name", SOON, || {
        let said = second.json(&["status"])?["nat_timeouts"].as_str().unwrap_or_default().to_owned();
        Ok(said.contains("another gateway").then_some(said))
    })?;
    assert!(said.contains(&pid.to_string()), "{said}");
    assert!(second.log().contains(&format!("process {pid}")), "{}", second.log());
    assert!(has("stun_300")? && !has("stun_600")?);

    let detach = |agent: &Agent<'_>| agent.print(&["detach", "--pin-dir", &agent.files().pins().display().to_string()]);
    let said = detach(&second)?;
    assert!(said.contains("kept") && said.contains(&pid.to_string()), "{said}");
    assert!(has("stun_300")?);
    nat.binding(5000)?;
    ensure!(nat.left(5000)? > 290, "{} s left", nat.left(5000)?);

    let second = start_another(lab, "third")?;
    assert!(first.stop()?.success());
    wait_for("the table of the second", Duration::from_secs(20), || Ok(has("stun_600")?.then_some(())))?;
    let status = second.print(&["status"])?;
    assert!(status.contains("extended to 600 s"), "{status}");
    Ok(())
}
