//! A real Redis with a directory of its own, on a port of the loopback interface or in a namespace.

use std::{
    ffi::OsStr,
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tr111::config::{RedisAddress, TlsFiles};

use crate::{
    namespace::Namespace,
    process::{Process, output, run, text},
    wait::wait_for,
};

const LIMIT: Duration = Duration::from_secs(20);

/// An authority, and what it certifies: the server at 127.0.0.1, and a client.
#[derive(Debug)]
pub struct Certificates(tempfile::TempDir);

impl Certificates {
    /// Makes them.
    ///
    /// # Errors
    /// openssl is not installed, or refuses.
    pub fn make() -> Result<Self> {
        let made = Self(tempfile::tempdir()?);
        made.certify("ca", &["-addext", "basicConstraints=critical,CA:TRUE"])?;
        let (ca, key) = (made.file("ca.pem"), made.file("ca.key"));
        let signer = ["-CA".as_ref(), ca.as_os_str(), "-CAkey".as_ref(), key.as_os_str()];
        let end: [&OsStr; 2] = ["-addext".as_ref(), "basicConstraints=critical,CA:FALSE".as_ref()];
        let address: [&OsStr; 2] = ["-addext".as_ref(), "subjectAltName=IP:127.0.0.1".as_ref()];
        made.certify("server", &[&signer[..], &end, &address].concat())?;
        made.certify("client", &[&signer[..], &end].concat())?;
        Ok(made)
    }

    fn certify(&self, name: &str, options: &[impl AsRef<OsStr>]) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-days", "1", "-subj", &format!("/CN={name}")]).args(options);
        openssl.arg("-keyout").arg(self.file(&format!("{name}.key")));
        run(openssl.arg("-out").arg(self.file(&format!("{name}.pem")))).map(drop)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a client needs.
    pub fn client(&self) -> TlsFiles {
        let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|name| Some(self.file(name)));
        TlsFiles { ca, certificate, key }
    }
}

/// A redis-server. Dropping it kills it.
#[derive(Debug)]
pub struct Redis<'a> {
    namespace: Option<&'a Namespace>,
    host: Ipv4Addr,
    directory: tempfile::TempDir,
    port: u16,
    password: Option<&'static str>,
    certificates: Option<Certificates>,
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
        Self::launch(None, Ipv4Addr::LOCALHOST, port, password, None)
    }

    /// The same with TLS for clients that have a certificate, and for nobody else.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start_with_tls(certificates: Certificates) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        Self::launch(None, Ipv4Addr::LOCALHOST, port, None, Some(certificates))
    }

    /// The same at an address in a namespace, on the port that Redis has.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start_in(namespace: &'a Namespace, host: Ipv4Addr, password: Option<&'static str>) -> Result<Self> {
        Self::launch(Some(namespace), host, 6379, password, None)
    }

    fn launch(
        namespace: Option<&'a Namespace>,
        host: Ipv4Addr,
        port: u16,
        password: Option<&'static str>,
        certificates: Option<Certificates>,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut redis = Self { namespace, host, directory, port, password, certificates, process: None };
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
        let scheme = if self.certificates.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}:{}/0", self.host, self.port)
    }

    /// Where it is.
    ///
    /// # Errors
    /// Never: the URL is one.
    pub fn address(&self) -> Result<RedisAddress> {
        let address: RedisAddress = self.url().parse()?;
        let address = match &self.certificates {
            Some(certificates) => address.with_tls_files(certificates.client()),
            None => address,
        };
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
        command.args(["--bind", &host, "--save", "", "--appendonly", "yes"]);
        match &self.certificates {
            Some(certificates) => {
                command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "yes"]);
                command.arg("--tls-ca-cert-file").arg(certificates.file("ca.pem"));
                command.arg("--tls-cert-file").arg(certificates.file("server.pem"));
                command.arg("--tls-key-file").arg(certificates.file("server.key"));
            }
            None => drop(command.args(["--port", &port])),
        }
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

    /// A copy of what it has on its disk.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn save(&self) -> Result<tempfile::TempDir> {
        let copy = tempfile::tempdir()?;
        run(Command::new("cp").arg("-r").arg(self.directory.path().join("appendonlydir")).arg(copy.path()))?;
        Ok(copy)
    }

    /// Has what [`Redis::save`] copied instead of what it has on its disk, once it is killed.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn restore(&self, copy: &tempfile::TempDir) -> Result<()> {
        self.forget()?;
        run(Command::new("cp").arg("-r").arg(copy.path().join("appendonlydir")).arg(self.directory.path())).map(drop)
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
        if let Some(certificates) = &self.certificates {
            command.arg("--tls").arg("--cacert").arg(certificates.file("ca.pem"));
            command
                .arg("--cert")
                .arg(certificates.file("client.pem"))
                .arg("--key")
                .arg(certificates.file("client.key"));
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
