//! A device that hears UDP Connection Requests, and who sends them.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use tr111_core::{
    connreq::{Authority, ConnectionRequest},
    secret::SharedSecret,
};

use crate::{
    agent::{Agent, Files},
    lab::Lab,
    process::Process,
};

/// Where the device hears them.
pub const DEVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 111, 2, 5), 7547);
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
    let (password, stun) = (lab.write("password", PASSWORD)?, lab.write("stun-password", STUN_PASSWORD)?);
    let config = format!(
        "[management_server]\nconnection_request_username = \"{USERNAME}\"\n\
         connection_request_password_file = \"{password}\"\nstun_username = \"{USERNAME}\"\n\
         stun_password_file = \"{stun}\"\n{management}"
    );
    let config = lab.write("device.toml", &config)?;
    let mut command = files.run_device(&lab.lan, "eth0", "off", &["--config", &config])?;
    Agent::start_command(&lab.lan, files, &mut command, lab.path())
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

/// Starts `tr111 watch`, as the first client that stays.
///
/// # Errors
/// It does not connect.
pub fn watch(device: &Agent<'_>, lab: &Lab) -> Result<Process> {
    let process = device.background("watch", &["watch", "--json"], lab.path())?;
    device.wait_for_metrics("the watcher", |metrics| metrics.sum("tr111_control_clients", &[]) >= 1)?;
    Ok(process)
}
