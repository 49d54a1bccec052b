//! A disk that is full, and has room again.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tr111_tests::{
    acs,
    agent::{Agent, Files, SOON},
    client::Client,
    lab::{GATEWAY, Lab, POOL},
    responder::Responder,
    vectors::identity,
    wait::wait_until,
    wire::Wire,
};

const URL: &str = "InternetGatewayDevice.ManagementServer.URL";

/// A small disk of a story's own.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)?;
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=8m,mode=0700"))
            .context("cannot mount a tmpfs")?;
        Ok(Self(path))
    }

    /// Leaves no byte free.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = File::create(&path)?;
        loop {
            match file.write(&[0xff; 4_096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(path),
                Err(error) => bail!(error),
            }
        }
    }
}

impl Disk {
    /// Makes it read-only, as a kernel does that met an error.
    fn seal(&self) -> Result<()> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).context("cannot remount")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

fn is_in(file: &Path, text: &str) -> Result<bool> {
    Ok(fs::read(file)?.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// T-30: with a full disk the agent says so once, goes on with the network, counts, and refuses what it cannot keep.
/// What it said to be kept is kept. Once there is room, everything is on the disk without a restart, and is there after
/// one.
#[test]
fn a_full_disk_stops_nothing_and_loses_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let files = Files::new(lab.path(), "agent")?;
    let disk = Disk::mount(lab.path().join("agent/state"))?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &[])?;
    let mut agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    let join = |number: u8| Client::new(&wire, number, identity("00256D", &format!("DEV{number:03}"), "")).bind();
    join(1)?;
    agent.print(&["set", URL, "http://kept.example/"])?;
    assert!(is_in(&disk.0.join("tr111.redb"), "DEV001")?);

    let filler = disk.fill()?;
    let mut devices = 1;
    let errors = |agent: &Agent<'_>| Ok::<_, anyhow::Error>(agent.metrics()?.sum("tr111_store_errors_total", &[]));
    while errors(&agent)? == 0 {
        devices += 1;
        join(devices).with_context(|| format!("device {devices}"))?;
    }
    devices += 1;
    join(devices)?;
    let before = agent.wait_for_rows(devices.into(), SOON)?;
    let refused = agent.ask(&["set", URL, "http://lost.example/"])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("9002"), "{refused:?}");
    assert_eq!(agent.json(&["get", URL])?["parameters"][0]["value"], "http://kept.example/");
    let said = |agent: &mut Agent<'_>| agent.process().stderr() + &agent.process().stdout();
    let log = said(&mut agent);
    assert_eq!(log.matches("the store cannot be written").count(), 1, "{log}");

    fs::remove_file(filler)?;
    wait_until("the store at work", SOON, || Ok(said(&mut agent).contains("the store works again")))?;
    agent.print(&["set", URL, "http://again.example/"])?;
    agent.process().signal(nix::sys::signal::Signal::SIGKILL)?;
    let agent = agent.start_again(&lab, &["lan0"], &[])?;
    assert_eq!(agent.devices()?, before);
    assert_eq!(agent.json(&["get", URL])?["parameters"][0]["value"], "http://again.example/");
    Ok(())
}

/// T-30: an agent that starts on a full disk takes what the store holds, though the one before was killed; and so does one
/// whose disk cannot be written at all, which it says.
#[test]
fn a_start_on_a_full_or_read_only_disk_has_the_rows() -> Result<()> {
    let lab = Lab::new()?;
    let _server = Responder::start(&lab.gateway, "lan0", GATEWAY, POOL, 600)?;
    let files = Files::new(lab.path(), "agent")?;
    let disk = Disk::mount(lab.path().join("agent/state"))?;
    let mut command = files.run_gateway(&lab.gateway, &["lan0"], &[])?;
    let mut agent = Agent::start_command(&lab.gateway, files, &mut command, lab.path())?;
    let wire = Wire::open(&lab.lan, "eth0")?;
    // The kernel's programs remember the last client, but not that its row had another one before it.
    let mut first = Client::new(&wire, 1, identity("00256D", "DEV001", ""));
    first.bind()?;
    Client::new(&wire, 2, identity("00256D", "DEV002", "")).bind()?;
    first.release()?;
    let before = agent.wait_for_rows(1, SOON)?;
    assert_eq!(before[0].instance, 2);
    agent.process().signal(nix::sys::signal::Signal::SIGKILL)?;
    disk.fill()?;
    let mut agent = agent.start_again(&lab, &["lan0"], &[])?;
    assert_eq!(agent.devices()?, before);
    agent.stop()?;
    disk.seal()?;
    let agent = agent.start_again(&lab, &["lan0"], &[])?;
    assert_eq!(agent.devices()?, before);
    assert!(agent.log().contains("the store cannot be written"), "{}", agent.log());
    Ok(())
}

/// The registry of an ACS on a full disk: it says so, serves on, refuses what it cannot keep, and has everything after a
/// start on that disk; with room, it works again.
#[test]
fn an_acs_with_a_full_disk_keeps_what_it_said_to_keep() -> Result<()> {
    let lab = Lab::new()?;
    let files = Files::new(lab.path(), "acs")?;
    let disk = Disk::mount(lab.path().join("acs/state"))?;
    let acs = acs::start_with(&lab.gateway, files, lab.path(), "")?;
    acs::add_cpe(&acs, lab.path())?;
    let filler = disk.fill()?;
    // There is room in the file itself for some.
    let mut kept = 1;
    let add = |acs: &Agent<'_>, number: usize| acs::add(acs, lab.path(), &format!("CPE{number:0200}"), None);
    let error = loop {
        match add(&acs, kept) {
            Ok(()) => kept += 1,
            Err(error) => break error.to_string(),
        }
        ensure!(kept < 20_000, "the disk is not full");
    };
    ensure!(error.contains("registry.redb"), "{error}");
    let count = |acs: &Agent<'_>| Ok::<_, anyhow::Error>(acs.json(&["status"])?["acs"].clone());
    assert_eq!(count(&acs)?["cpes"], kept);
    ensure!(!count(&acs)?["registry_failure"].is_null());
    let acs = acs::start_with(&lab.gateway, acs.kill()?, lab.path(), "")?;
    assert_eq!(count(&acs)?["cpes"], kept);
    fs::remove_file(filler)?;
    wait_until("a registry that works", SOON * 3, || Ok(add(&acs, kept).is_ok()))?;
    assert_eq!(count(&acs)?["cpes"], kept + 1);
    let acs = acs::start_with(&lab.gateway, acs.kill()?, lab.path(), "")?;
    assert_eq!(count(&acs)?["cpes"], kept + 1);
    Ok(())
}
