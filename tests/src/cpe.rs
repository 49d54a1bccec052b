//! A device that hears UDP Connection Requests, and who sends them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use tr111_core::{
    connreq::{Authority, ConnectionRequest},
    secret::SharedSecret,
};

use crate::{
    agent::{Agent, Files, SOON},
    lab::Lab,
    process::Process,
    wait::wait_for,
};

/// Where the device hears them.
pub const DEVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 111, 2, 5), 7547);
/// The object of the parameters.
pub const MANAGEMENT: &str = "Device.ManagementServer.";
/// `ConnectionRequestPassword`
pub const PASSWORD: &str = "connreqsecret";
/// `STUNPassword`
pub const STUN_PASSWORD: &str = "stunpassword1234";
/// `ConnectionRequestUsername` and `STUNUsername`
pub const USERNAME: &str = "CPE57689";

/// Starts a device on the lab's LAN without DHCP, with both passwords and with `management` in `[management_server]`.
///
/// # Errors
/// As [`Agent::start_command`].
pub fn start<'a>(lab: &'a Lab, files: Files, management: &str) -> Result<Agent<'a>> {
    let mut command = command(lab, &files, management)?;
    Agent::start_command(&lab.lan, files, &mut command, lab.path())
}

/// The command that starts it.
///
/// # Errors
/// As [`Files::run_device`].
pub fn command(lab: &Lab, files: &Files, management: &str) -> Result<Command> {
    let config = config(lab, management)?;
    files.run_device(&lab.lan, "eth0", "off", &["--config", &config])
}

/// A configuration with both passwords and with `management` in `[management_server]`; its path.
///
/// # Errors
/// The lab's directory is gone.
pub fn config(lab: &Lab, management: &str) -> Result<String> {
    let (password, stun) = (lab.write("password", PASSWORD)?, lab.write("stun-password", STUN_PASSWORD)?);
    let config = format!(
        "[management_server]\nconnection_request_username = \"{USERNAME}\"\n\
         connection_request_password_file = \"{password}\"\nstun_username = \"{USERNAME}\"\n\
         stun_password_file = \"{stun}\"\n{management}"
    );
    lab.write("device.toml", &config)
}

/// Waits until the device has counted `expected` requests under `metric` that ended in `result`.
///
/// # Errors
/// It does not, in time.
pub fn wait_for_count(device: &Agent<'_>, metric: &str, result: &str, expected: u64) -> Result<()> {
    device.wait_for_metrics(&format!("{expected} requests that are {result}"), |metrics| {
        metrics.sum(metric, &[("result", result)]) == expected
    })?;
    Ok(())
}

/// A Connection Request to `to`, signed with `password`.
///
/// # Errors
/// It would not fit.
pub fn request(to: SocketAddrV4, timestamp: u64, id: u64, password: &str) -> Result<Vec<u8>> {
    let request =
        ConnectionRequest { authority: Authority::from(to), timestamp, id, username: USERNAME, nonce: "6f2a" };
    Ok(request.sign(&SharedSecret::new(password.as_bytes()))?)
}

/// Unix time in seconds.
///
/// # Errors
/// It is before 1970.
pub fn unix_now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// A parameter of [`MANAGEMENT`] as a client reads it.
///
/// # Errors
/// There is no such one.
pub fn get(device: &Agent<'_>, parameter: &str) -> Result<String> {
    let answer = device.json(&["get", &format!("{MANAGEMENT}{parameter}")])?;
    Ok(answer["parameters"][0]["value"].as_str().context("no value")?.to_owned())
}

/// `UDPConnectionRequestAddress`.
///
/// # Errors
/// The device has none.
pub fn address(device: &Agent<'_>) -> Result<SocketAddrV4> {
    let value = get(device, "UDPConnectionRequestAddress")?;
    value.parse().with_context(|| format!("{value:?} is no address"))
}

/// Waits until `UDPConnectionRequestAddress` is one that `is_right`.
///
/// # Errors
/// It stays another one.
pub fn wait_for_address(device: &Agent<'_>, is_right: impl Fn(SocketAddrV4) -> bool) -> Result<SocketAddrV4> {
    let mut seen = String::new();
    wait_for("UDPConnectionRequestAddress", SOON, || {
        seen = get(device, "UDPConnectionRequestAddress")?;
        Ok(seen.parse().ok().filter(|address| is_right(*address)))
    })
    .with_context(|| format!("it is {seen}"))
}

/// The keep-alive period that the device learned last, from its log: `tr111 bindings` has it in whole seconds.
///
/// # Errors
/// The log reads otherwise.
pub fn learned(device: &Agent<'_>) -> Result<Option<Duration>> {
    let log = device.log();
    let Some(line) = log.lines().rfind(|line| line.contains("keep-alive period learned")) else { return Ok(None) };
    let seconds = line.rsplit_once("period=").and_then(|(_, period)| period.trim_end().strip_suffix('s'));
    Ok(Some(Duration::from_secs_f64(seconds.with_context(|| line.to_owned())?.parse()?)))
}

/// Starts `tr111 watch`, as the first client that stays.
///
/// # Errors
/// It does not connect.
pub fn watch(device: &Agent<'_>, lab: &Lab) -> Result<Process> {
    let process = device.background("watch", &["watch", "--json"], lab.path())?;
    device.wait_for_metrics("the watcher", |metrics| metrics.sum("tr111_control_clients", &[]) >= 1)?;
    Ok(process)
}
