//! Starting, stopping, refusing to start, and who may talk to the agent.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya::programs::xdp::XdpMode;
use tr111_common::abi::ABI;
use tr111_tests::{
    agent::{Agent, Files, METRICS, SOON, attached_programs, binary, without_capabilities},
    client::Client,
    crowd,
    lab::{GATEWAY, Lab, POOL},
    process::{output, text},
    responder::Responder,
    testing::Testing,
    vectors::{D1, D2, hex},
    wire::Wire,
};

/// What `tr111 check` is to look at.
const LAN0: &str = "[gateway]\nlan = [\"lan0\"]\nmanufacturer_oui = \"00256D\"\nserial_number = \"GW0001\"\n";

/// SIGTERM ends the agent with status 0, and takes its control socket away.
#[test]
fn sigterm_stops_the_agent() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let socket = agent.files().control();
    assert!(socket.exists());
    assert!(agent.stop()?.success());
    assert!(!socket.exists(), "the control socket stays behind");
    Ok(())
}

/// With `--detach-on-exit`, SIGTERM takes the programs off the interface as well.
#[test]
fn detach_on_exit_leaves_no_program() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::start(&lab, &["lan0"], &["--detach-on-exit"])?;
    let running = attached_programs(&lab.gateway, "lan0")?;
    assert!(running.iter().any(|name| name == "lan_egress") && running.iter().any(|name| name == "xdp"), "{running:?}");
    assert!(agent.stop()?.success());
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, Vec::<String>::new());
    Ok(())
}

/// `tr111 detach` takes everything off, also after an agent that was killed.
#[test]
fn detach_cleans_up_after_a_kill() -> Result<()> {
    let lab = Lab::new()?;
    let files = Agent::start(&lab, &["lan0"], &[])?.kill()?;
    let mut detach = lab.gateway.command(binary()?);
    detach.args(["detach", "--pin-dir"]).arg(files.pins()).arg("--control").arg(files.control());
    let said = output(&mut detach)?;
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, Vec::<String>::new());
    Ok(())
}

/// `tr111 detach` and `--detach-on-exit` remove the agent's own pins, and leave what others pinned, even among them.
#[test]
fn pins_of_others_stay() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let (root, pins) = (agent.files().pins(), agent.files().namespace()?);
    let map = pins.join(format!("abi-{ABI}/CONFIG"));
    for directory in [root.join("cilium"), pins.join("links/cilium")] {
        fs::create_dir(directory)?;
    }
    let others = [
        root.join("cilium/globals"),
        pins.join("cilium_calls"),
        pins.join(format!("abi-{ABI}/cilium_map")),
        pins.join("links/cilium/lan_egress-tc"),
    ];
    for path in &others {
        fs::hard_link(&map, path)?;
    }
    let is_clean = || {
        let links = fs::read_dir(pins.join("links"))?.map(|entry| Ok(entry?.file_name()));
        assert_eq!(links.collect::<Result<Vec<_>>>()?, ["cilium"]);
        assert!(others.iter().all(|path| path.exists()) && !map.exists());
        assert_eq!(attached_programs(&lab.gateway, "lan0")?, Vec::<String>::new());
        Ok::<_, anyhow::Error>(())
    };
    let files = agent.kill()?;
    let mut detach = lab.gateway.command(binary()?);
    detach.args(["detach", "--pin-dir"]).arg(&root).arg("--control").arg(files.control());
    let said = output(&mut detach)?;
    assert!(said.status.success(), "{}", text(&said.stderr));
    is_clean()?;

    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &["--detach-on-exit"])?;
    let mut agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    assert!(map.exists());
    assert!(agent.stop()?.success());
    is_clean()
}

/// An existing state directory keeps its mode, with the agent's own file closed to others; one into which others may write
/// is refused with the reason, and stays as it is.
#[test]
fn an_existing_state_directory_keeps_its_mode() -> Result<()> {
    let lab = Lab::new()?;
    let files = Files::new(lab.path(), "agent")?;
    let state = files.state();
    fs::create_dir(&state)?;
    let set = |mode| fs::set_permissions(&state, fs::Permissions::from_mode(mode));
    let mode = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.permissions().mode() & 0o7777);
    set(0o1777)?;
    let refused = output(&mut files.run_gateway(&lab.gateway, &["lan0"], &[])?)?;
    let complaint = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains(&state.display().to_string()) && complaint.contains("everybody"), "{complaint}");
    assert_eq!((mode(&state)?, fs::read_dir(&state)?.count()), (0o1777, 0));
    set(0o755)?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &[])?;
    let agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    assert_eq!((mode(&state)?, mode(&agent.files().state().join("tr111.redb"))?), (0o755, 0o600));
    Ok(())
}

/// A second agent on the interface says that there is one, and leaves it alone.
#[test]
fn a_second_agent_leaves_the_first_alone() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let files = Files::new(lab.path(), "second")?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &[])?;
    let second = output(&mut command)?;
    assert_eq!(second.status.code(), Some(1));
    let complaint = text(&second.stderr);
    assert!(complaint.contains("lan0") && complaint.contains("another tr111 agent"), "{complaint}");

    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    agent.wait_for_rows(1, SOON)?;
    Ok(())
}

/// An XDP slot that is taken: the agent says so, goes to TC, and works; the other program stays.
#[test]
fn a_busy_xdp_slot_falls_back_to_tc() -> Result<()> {
    let lab = Lab::new()?;
    let mut other = Testing::load()?;
    let program = other.empty_xdp()?;
    lab.gateway.enter(|| program.attach("lan0", XdpMode::Driver))?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let mut agent = Agent::start(&lab, &["lan0"], &["--detach-on-exit"])?;
    let status = agent.json(&["status"])?;
    let hooks = status["interfaces"][0]["hooks"].as_array().context("hooks")?;
    let ingress = hooks.iter().find(|hook| hook["program"] == "lan_ingress").context("lan_ingress")?;
    assert_eq!(ingress["mode"], "tc");
    let log = agent.process().stderr() + &agent.process().stdout();
    assert!(log.contains("falling back to TC"), "{log}");
    let file = lab.write("gateway.toml", LAN0)?;
    let check = text(&output(&mut agent.command(&["check", "--config", &file])?)?.stdout);
    assert!(check.contains("XDP slot"), "{check}");

    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    agent.wait_for_rows(1, SOON)?;
    agent.stop()?;
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, ["xdp"]);
    Ok(())
}

/// Without capabilities the agent says which are missing and how to grant them; so do `check` and the simulator.
#[test]
fn missing_capabilities_are_named() -> Result<()> {
    let lab = Lab::new()?;
    let files = Files::new(lab.path(), "agent")?;
    let refused = output(&mut without_capabilities(&files.run_gateway(&lab.gateway, &["lan0"], &[])?))?;
    assert_eq!(refused.status.code(), Some(1));
    let complaint = text(&refused.stderr);
    for word in ["CAP_BPF", "CAP_NET_ADMIN", "root"] {
        assert!(complaint.contains(word), "no {word} in: {complaint}");
    }
    assert!(!complaint.contains("panicked"), "{complaint}");

    let mut check = lab.gateway.command(binary()?);
    check.args(["check", "--config", &lab.write("gateway.toml", LAN0)?]);
    let check = output(&mut without_capabilities(&check))?;
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check.stdout).contains("CAP_BPF"), "{}", text(&check.stdout));

    let mut sim = lab.lan.command(binary()?);
    sim.args(["sim", "devices", "--iface", "eth0", "--count", "1"]);
    let sim = output(&mut without_capabilities(&sim))?;
    assert_eq!(sim.status.code(), Some(1));
    assert!(text(&sim.stderr).contains("CAP_NET_RAW"), "{}", text(&sim.stderr));
    Ok(())
}

/// A wrong key or value: one line with file, line and the nearest right key, and status 2.
#[test]
fn a_wrong_configuration_is_one_line_that_helps() -> Result<()> {
    let lab = Lab::new()?;
    let files = Files::new(lab.path(), "agent")?;
    let cases = [
        ("[gateway]\nlan = [\"lan0\"]\nserial_numbr = \"X\"\n", ":3", "serial_number"),
        ("[gateway.association]\nmax_rows = \"many\"\n", ":2", "max_rows"),
        ("[gateway.association]\n\ndeny = [\"00256D/A\", \"00256D-B\"]\n", ":3", "OUI/SERIAL/CLASS"),
        ("[gateway.asociation]\nmax_rows = 5\n", ":1", "gateway.association"),
        ("[gateway]\ndata_model = \"tr069\"\n", ":2", "device2"),
    ];
    for (content, line, hint) in cases {
        let file = lab.write("wrong.toml", content)?;
        let refused = output(&mut files.run_gateway(&lab.gateway, &["lan0"], &["--config", &file])?)?;
        let complaint = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{complaint}");
        assert_eq!(complaint.trim_end().lines().count(), 1, "{complaint}");
        assert!(complaint.contains(&format!("{file}{line}")), "no {file}{line} in: {complaint}");
        assert!(complaint.contains(hint), "no {hint} in: {complaint}");
    }
    Ok(())
}

/// Where no LAN interface exists, the start names the first, and nothing is attached to others.
#[test]
fn an_unknown_interface_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let files = Files::new(lab.path(), "agent")?;
    let refused = output(&mut files.run_gateway(&lab.gateway, &["lan7", "lan8"], &[])?)?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("lan7"), "{}", text(&refused.stderr));
    assert_eq!(attached_programs(&lab.gateway, "lan0")?, Vec::<String>::new());
    Ok(())
}

/// The control socket is for root and the group tr111: mode 0660, and a stranger is told so.
#[test]
fn the_control_socket_is_not_for_everybody() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab, &["lan0"], &[])?;
    let socket = agent.files().control();
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o660);

    // Everything on the way is open, so that the socket's own rights decide.
    let program = lab.path().join("tr111");
    fs::copy(binary()?, &program)?;
    for path in [lab.path(), socket.parent().context("a directory")?, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let mut stranger = lab.gateway.command("setpriv");
    stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).arg("devices");
    let refused = output(stranger.arg("--control").arg(&socket))?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("tr111"), "{}", text(&refused.stderr));
    assert!(refused.stdout.is_empty());
    assert_eq!(agent.devices()?, []);
    Ok(())
}

/// Without an agent, a command says so and how to start one.
#[test]
fn a_command_without_an_agent_says_so() -> Result<()> {
    let lab = Lab::new()?;
    let mut command = lab.gateway.command(binary()?);
    let socket = lab.path().join("nobody.sock");
    let refused = output(command.args(["devices", "--control"]).arg(socket))?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("tr111 run gateway"), "{}", text(&refused.stderr));
    Ok(())
}

/// SIGHUP reloads the file: a smaller table takes no newcomer, and says why.
#[test]
fn sighup_reloads_the_file() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.write("gateway.toml", "[gateway.association]\nmax_rows = 100\n")?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let mut agent = Agent::start(&lab, &["lan0"], &["--config", &file])?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    agent.wait_for_rows(1, SOON)?;
    lab.write("gateway.toml", "[gateway.association]\nmax_rows = 1\n")?;
    agent.process().signal(nix::sys::signal::Signal::SIGHUP)?;
    tr111_tests::wait::wait_until("new limit", SOON, || Ok(agent.json(&["status"])?["table"]["max_rows"] == 1))?;
    Client::new(&wire, 2, hex(D2)).bind()?;
    agent.wait_for_metrics("refusal of the newcomer", |metrics| {
        metrics.sum("tr111_device_identities_total", &[("result", "table_full")]) >= 1
    })?;
    assert_eq!(agent.devices()?.len(), 1);
    Ok(())
}

/// The agent that is killed leaves nothing that keeps the next one from starting.
#[test]
fn the_next_agent_starts_after_a_kill() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 120)?;
    let files = Agent::start(&lab, &["lan0"], &[])?.kill()?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &[])?;
    let next = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    next.wait_for_rows(1, SOON)?;
    Ok(())
}

/// SEC-8: a scrape is answered beside a thousand clients that are silent, or ask and never read.
#[test]
fn a_scrape_is_answered_beside_a_thousand_other_clients() -> Result<()> {
    let lab = Lab::new()?;
    let mut agent = Agent::start(&lab, &["lan0"], &[])?;
    let pid = agent.process().id();
    let before = crowd::descriptors(pid)?;
    let mut clients = crowd::gather(&lab.gateway, METRICS.parse()?, 800, b"")?;
    let asks = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    clients.extend(crowd::gather(&lab.gateway, METRICS.parse()?, 200, &asks)?);
    let begin = Instant::now();
    let metrics = agent.metrics()?;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(metrics.sum("tr111_tcp_connections_total", &[("listener", "metrics"), ("result", "displaced")]) >= 900);
    let more = crowd::descriptors(pid)?.saturating_sub(before);
    assert!(more <= 40, "{more} descriptors");
    Ok(())
}
