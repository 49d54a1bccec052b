//! A real Redis with a directory of its own, on a port of the loopback interface or in a namespace.

use std::{
    ffi::OsStr,
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tr111::config::RedisAddress;

use crate::{
    namespace::Namespace,
    process::{Process, output, text},
    wait::wait_for,
};

const LIMIT: Duration = Duration::from_secs(20);

/// A redis-server. Dropping it kills it.
#[derive(Debug)]
pub struct Redis<'a> {
    namespace: Option<&'a Namespace>,
    host: Ipv4Addr,
    directory: tempfile::TempDir,
    port: u16,
    password: Option<&'static str>,
    process: Option<Process>,
}

impl<'a> Redis<'a> {
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
        Self::launch(None, Ipv4Addr::LOCALHOST, port, password)
    }

    /// The same at an address in a namespace, on the port that Redis has.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start_in(namespace: &'a Namespace, host: Ipv4Addr, password: Option<&'static str>) -> Result<Self> {
        Self::launch(Some(namespace), host, 6379, password)
    }

    fn launch(
        namespace: Option<&'a Namespace>,
        host: Ipv4Addr,
        port: u16,
        password: Option<&'static str>,
    ) -> Result<Self> {
        let mut redis = Self { namespace, host, directory: tempfile::tempdir()?, port, password, process: None };
        redis.resume()?;
        Ok(redis)
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self.namespace {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        }
    }

    /// Where it is, for an agent's configuration.
    pub fn url(&self) -> String {
        format!("redis://{}:{}/0", self.host, self.port)
    }

    /// Where it is.
    ///
    /// # Errors
    /// Never: the URL is one.
    pub fn address(&self) -> Result<RedisAddress> {
        let address: RedisAddress = self.url().parse()?;
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
        let mut command = self.command("redis-server");
        let (host, port) = (self.host.to_string(), self.port.to_string());
        command.args(["--bind", &host, "--port", &port, "--save", "", "--appendonly", "yes"]);
        // Who comes from its own namespace's address is a stranger to it, like any other.
        command.args(["--appendfsync", "always", "--protected-mode", "no"]);
        command.args(["--daemonize", "no", "--dir"]).arg(self.directory.path());
        if let Some(password) = self.password {
            command.args(["--requirepass", password]);
        }
        self.process = Some(Process::start("redis", &mut command, self.directory.path())?);
        wait_for("redis", LIMIT, || Ok(self.cli(&["PING"]).ok().filter(|answer| answer.trim() == "PONG")))?;
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
        let mut command = self.command("redis-cli");
        command.args(["-h", &self.host.to_string(), "-p", &self.port.to_string(), "--no-auth-warning"]);
        if let Some(password) = self.password {
            command.args(["-a", password]);
        }
        let output = output(command.args(arguments))?;
        // It says so on its standard output, and ends well.
        ensure!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        Ok(text(&output.stdout))
    }
}

/// A way to a Redis that can be cut, as a network is. Dropping it cuts it.
#[derive(Debug)]
pub struct Relay {
    address: RedisAddress,
    wire: Arc<Wire>,
}

#[derive(Debug, Default)]
struct Wire {
    is_cut: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// A way to the Redis at `to`.
    ///
    /// # Errors
    /// No port of the loopback interface is free.
    pub fn start(to: RedisAddress) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let wire = Arc::<Wire>::default();
        let address = RedisAddress { host: Ipv4Addr::LOCALHOST.to_string(), port, ..to.clone() };
        let accepting = Arc::clone(&wire);
        thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                // The last one that comes is that of `drop`.
                if Arc::strong_count(&accepting) == 1 {
                    return;
                }
                if !accepting.is_cut.load(Ordering::SeqCst)
                    && let Err(error) = accepting.join(&client, (&to.host, to.port))
                {
                    eprintln!("relay: {error:#}");
                }
            }
        });
        Ok(Self { address, wire })
    }

    /// Where a server finds it.
    pub fn address(&self) -> RedisAddress {
        self.address.clone()
    }

    /// Ends every connection, and lets none through.
    pub fn cut(&self) {
        self.wire.is_cut.store(true, Ordering::SeqCst);
        for connection in self.wire.lock().drain(..) {
            // It may be over already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.wire.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries what either side of `client` and a new connection to Redis says.
    fn join(&self, client: &TcpStream, to: (&String, u16)) -> Result<()> {
        let redis = TcpStream::connect((to.0.as_str(), to.1))?;
        for (from, to) in [(client, &redis), (&redis, client)] {
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            thread::spawn(move || {
                // Whichever ends takes the other along.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        self.lock().push(client.try_clone()?);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.wire = Arc::default();
        // The thread that accepts finds itself alone.
        let _ = TcpStream::connect((self.address.host.as_str(), self.address.port));
    }
}
