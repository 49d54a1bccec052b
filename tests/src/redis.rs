//! A real Redis, on a port of the loopback interface and with a directory of its own.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use tr111::registry::Address;

use crate::{process::Process, wait::wait_for};

const LIMIT: Duration = Duration::from_secs(20);

/// A redis-server. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    directory: tempfile::TempDir,
    port: u16,
    password: Option<&'static str>,
    process: Option<Process>,
}

impl Redis {
    /// Starts one that writes everything it is told to its disk before it answers.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// The same with a password.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start_with(password: Option<&'static str>) -> Result<Self> {
        // Free a moment ago; nobody else on this machine takes ports of the loopback interface by number.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut redis = Self { directory: tempfile::tempdir()?, port, password, process: None };
        redis.resume()?;
        Ok(redis)
    }

    /// Where it is, for an agent's configuration.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Where it is.
    ///
    /// # Errors
    /// Never: the URL is one.
    pub fn address(&self) -> Result<Address> {
        let address: Address = self.url().parse()?;
        Ok(match self.password {
            Some(password) => address.with_password(password.to_owned()),
            None => address,
        })
    }

    /// Kills it as a crash does.
    ///
    /// # Errors
    /// The kernel does not know it.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.signal(nix::sys::signal::Signal::SIGKILL)?;
        process.wait(LIMIT)?;
        Ok(())
    }

    /// Starts it again, with the data that it has on its disk.
    ///
    /// # Errors
    /// It does not start.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = Command::new("redis-server");
        let port = self.port.to_string();
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--daemonize", "no", "--dir"]).arg(self.directory.path());
        if let Some(password) = self.password {
            command.args(["--requirepass", password]);
        }
        self.process = Some(Process::start("redis", &mut command, self.directory.path())?);
        wait_for("redis", LIMIT, || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()))?;
        Ok(())
    }

    /// Takes away what it has on its disk.
    ///
    /// # Errors
    /// It cannot be taken away.
    pub fn forget(&self) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.directory.path().join("appendonlydir"))?)
    }

    /// What `redis-cli` says to a command.
    ///
    /// # Errors
    /// It is not installed, or refuses.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string(), "--no-auth-warning"]);
        if let Some(password) = self.password {
            command.args(["-a", password]);
        }
        crate::process::run(command.args(arguments))
    }
}
