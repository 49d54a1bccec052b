//! Agents of several network namespaces that share a pin directory, as containers with one bpffs do.

use std::fs;

use anyhow::{Context, Result};
use tr111_tests::{
    agent::{Agent, Device, Files, SOON, attached_programs, binary},
    client::Client,
    lab::{GATEWAY, Lab, POOL},
    namespace::Namespace,
    process::{output, text},
    responder::Responder,
    vectors::{D1, D2, hex, identity},
    wait::wait_until,
    wire::Wire,
};

/// The kernel index of an interface.
fn ifindex(namespace: &Namespace, interface: &str) -> Result<u32> {
    let link = namespace.ip(&format!("-o link show dev {interface}"))?;
    Ok(link.split(':').next().context("no index")?.parse()?)
}

fn identities(rows: &[Device]) -> Vec<String> {
    rows.iter().map(Device::identity).collect()
}

/// T-30: what is pinned belongs to one network namespace. An agent in another one, whose LAN interface has the same name
/// and index, attaches its own programs and has its own maps: it sees its devices, and none of those that the first one
/// saw. The first one's programs go on and are adopted where they belong. What a namespace leaves that has ended is removed.
#[test]
fn an_agent_adopts_nothing_of_another_network_namespace() -> Result<()> {
    let (first, second) = (Lab::new()?, Lab::new()?);
    assert_eq!(ifindex(&first.gateway, "lan0")?, ifindex(&second.gateway, "lan0")?);
    let _server = Responder::start(&first.gateway, "lan0", GATEWAY, POOL, 600)?;
    let agent = Agent::start(&first, &["lan0"], &[])?;
    let wire = Wire::open(&first.lan, "eth0")?;
    Client::new(&wire, 1, hex(D1)).bind()?;
    let before = agent.wait_for_rows(1, SOON)?;
    let files = agent.kill()?;
    let own = files.namespace()?;
    let attached = attached_programs(&first.gateway, "lan0")?;

    let server = Responder::start(&second.gateway, "lan0", GATEWAY, POOL, 600)?;
    let shared = Files::sharing_pins(second.path(), "agent", &files.pins())?;
    let mut command = shared.run_gateway(&second.gateway, &["lan0"], &[])?;
    let other = Agent::start_command(&second.gateway, shared, &mut command, second.path())?;
    assert_eq!(other.devices()?, []);
    let its_wire = Wire::open(&second.lan, "eth0")?;
    Client::new(&its_wire, 1, hex(D2)).bind()?;
    assert_eq!(identities(&other.wait_for_rows(1, SOON)?), ["00256D/DEV0001/"]);
    assert_eq!(attached_programs(&first.gateway, "lan0")?, attached);
    let both = files.namespaces()?;
    let ended = both.iter().find(|directory| **directory != own).context("no directory of the second")?;
    other.kill()?;
    drop((server, its_wire, second));
    // The kernel ends a namespace when it has time.
    let witness = ended.join("namespace").display().to_string();
    wait_until("end of the namespace", SOON, || {
        let lookup = ["map", "lookup", "pinned", &witness, "key", "0", "0", "0", "0"];
        Ok(!text(&output(first.gateway.command("bpftool").args(lookup))?.stdout).contains("value:"))
    })?;

    let mut command = files.run_gateway(&first.gateway, &["lan0"], &[])?;
    let agent = Agent::start_command(&first.gateway, files, &mut command, first.path())?;
    assert_eq!(agent.files().namespaces()?, [own], "{}", agent.log());
    assert_eq!(agent.devices()?, before);
    Client::new(&wire, 2, identity("00256D", "NEXT", "STB")).bind()?;
    agent.wait_for_rows(2, SOON)?;
    Ok(())
}

/// `tr111 detach` removes what agents of its network namespace pinned. It leaves what others have in the directory, and
/// what belongs to another namespace, and says so.
#[test]
fn detach_leaves_other_namespaces_and_other_names_alone() -> Result<()> {
    let (first, second) = (Lab::new()?, Lab::new()?);
    let files = Agent::start(&first, &["lan0"], &[])?.kill()?;
    let attached = attached_programs(&first.gateway, "lan0")?;
    let foreign = files.pins().join("foreign");
    fs::create_dir(&foreign)?;
    let detach = |lab: &Lab| -> Result<String> {
        let mut detach = lab.gateway.command(binary()?);
        detach.args(["detach", "--pin-dir"]).arg(files.pins()).arg("--control").arg(files.control());
        let said = output(&mut detach)?;
        assert!(said.status.success(), "{}", text(&said.stderr));
        Ok(text(&said.stdout))
    };
    let said = detach(&second)?;
    assert!(said.contains("another network namespace"), "{said}");
    assert_eq!(attached_programs(&first.gateway, "lan0")?, attached);
    let said = detach(&first)?;
    assert!(said.contains("pins removed"), "{said}");
    assert_eq!(attached_programs(&first.gateway, "lan0")?, Vec::<String>::new());
    assert!(foreign.exists() && files.namespaces()?.is_empty());
    fs::remove_dir(foreign)?;
    Ok(())
}
