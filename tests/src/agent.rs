//! The agent under test, and everything that users ask it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use serde_json::Value;
use tr111::dataplane::has_tcx;

use crate::{
    lab::Lab,
    metrics::{Metrics, fetch},
    namespace::Namespace,
    process::{Process, output, run, text},
    wait::wait_for,
};

/// Where the agent serves metrics; every lab has its own loopback.
pub const METRICS: &str = "127.0.0.1:9111";
/// The gateway's own identity in every story.
pub const GATEWAY_IDENTITY: [&str; 6] = ["--oui", "00256D", "--serial", "GW0001", "--product-class", "IGD"];
/// How long the agent may take to start: it loads programs, and the machine may be busy.
const START: Duration = Duration::from_secs(30);
/// How long anything that follows a frame may take to show.
pub const SOON: Duration = Duration::from_secs(10);

/// The binary under test: `TR111_BIN`, else `tr111` beside the test program.
///
/// # Errors
/// It has not been built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TR111_BIN") {
        return Ok(path.into());
    }
    let program = std::env::current_exe()?;
    let candidates = program.ancestors().skip(1).take(2).map(|directory| directory.join("tr111"));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.context("no tr111 beside this test: `cargo xtask test` builds it first, or set TR111_BIN")
}

/// A bpffs of a story's own.
#[derive(Debug)]
pub struct BpfFs {
    path: PathBuf,
}

impl BpfFs {
    /// Mounts one at `path`.
    ///
    /// # Errors
    /// The kernel has none, or not root.
    pub fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)?;
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>).context("cannot mount a bpffs")?;
        Ok(Self { path })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.path, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}

/// Paths of one agent: socket, state, pins.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    pins: PathBuf,
    _bpffs: Option<BpfFs>,
}

impl Files {
    /// Paths below `directory/name`.
    ///
    /// # Errors
    /// They exist, or cannot be made.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let directory = directory.join(name);
        fs::create_dir(&directory)?;
        let bpffs = BpfFs::mount(directory.join("bpf"))?;
        Ok(Self { directory, pins: bpffs.path().join("tr111"), _bpffs: Some(bpffs) })
    }

    /// Paths below `directory/name`, but with the pin directory `pins`, whose bpffs is another's.
    ///
    /// # Errors
    /// They exist, or cannot be made.
    pub fn sharing_pins(directory: &Path, name: &str, pins: &Path) -> Result<Self> {
        let directory = directory.join(name);
        fs::create_dir(&directory)?;
        Ok(Self { directory, pins: pins.to_owned(), _bpffs: None })
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// The directory of the store.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The pin directory.
    pub fn pins(&self) -> PathBuf {
        self.pins.clone()
    }

    /// The directories of network namespaces in the pin directory.
    ///
    /// # Errors
    /// There is no pin directory.
    pub fn namespaces(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.pins)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let is_namespace =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("netns-"));
        Ok(entries.into_iter().filter(is_namespace).collect())
    }

    /// The directory of the only network namespace in the pin directory.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn namespace(&self) -> Result<PathBuf> {
        match self.namespaces()?.as_slice() {
            [one] => Ok(one.clone()),
            other => bail!("directories of network namespaces: {other:?}"),
        }
    }

    /// `tr111 run device` on `interface` in `namespace` with these paths, to be completed and started.
    ///
    /// # Errors
    /// The binary has not been built.
    pub fn run_device(&self, namespace: &Namespace, interface: &str, mode: &str, options: &[&str]) -> Result<Command> {
        let mut command = namespace.command(binary()?);
        command.args(["run", "device", "--interface", interface, "--mode", mode]).args(DEVICE_IDENTITY);
        command.arg("--control").arg(self.control()).args(["--metrics", METRICS]);
        command.arg("--state-dir").arg(self.state()).args(options);
        command.env_remove("RUST_BACKTRACE");
        Ok(command)
    }

    /// `tr111 run acs` in `namespace` with these paths, to be completed and started.
    ///
    /// # Errors
    /// The binary has not been built.
    pub fn run_acs(&self, namespace: &Namespace, options: &[&str]) -> Result<Command> {
        let mut command = namespace.command(binary()?);
        command.args(["run", "acs"]).arg("--control").arg(self.control()).args(["--metrics", METRICS]);
        command.arg("--state-dir").arg(self.state()).args(options);
        command.env_remove("RUST_BACKTRACE");
        Ok(command)
    }

    /// `tr111 run gateway` in `namespace` with these paths, to be completed and started.
    ///
    /// # Errors
    /// The binary has not been built.
    pub fn run_gateway(&self, namespace: &Namespace, lan: &[&str], options: &[&str]) -> Result<Command> {
        Ok(self.run_gateway_of(&binary()?, namespace, lan, options))
    }

    /// As [`Files::run_gateway`], of another build: `program run gateway`.
    pub fn run_gateway_of(&self, program: &Path, namespace: &Namespace, lan: &[&str], options: &[&str]) -> Command {
        let mut command = namespace.command(program);
        command.args(["run", "gateway"]);
        for interface in lan {
            command.args(["--lan", interface]);
        }
        command.args(GATEWAY_IDENTITY);
        command.arg("--state-dir").arg(self.state());
        command.arg("--control").arg(self.control());
        command.arg("--pin-dir").arg(self.pins());
        command.args(["--metrics", METRICS]).args(options);
        // Errors with a backtrace are for developers; what users read is under test.
        command.env_remove("RUST_BACKTRACE");
        command
    }
}

/// The device's own identity in every story.
pub const DEVICE_IDENTITY: [&str; 6] = ["--oui", "00256D", "--serial", "DEV0001", "--product-class", "STB"];

/// The same command as a process of user 0 that has no capability.
pub fn without_capabilities(command: &Command) -> Command {
    with_capabilities(command, &[])
}

/// The same command as a process of user 0 that has these capabilities alone, as setpriv(1) names them.
pub fn with_capabilities(command: &Command, capabilities: &[&str]) -> Command {
    let set = capabilities.iter().map(|name| format!(",+{name}")).collect::<Vec<_>>().concat();
    // `ip netns exec NAME` itself needs others, so they go behind it.
    let mut arguments = command.get_args();
    let mut stripped = Command::new(command.get_program());
    stripped.args(arguments.by_ref().take(3));
    stripped.arg("setpriv").arg(format!("--bounding-set=-all{set}")).arg("--inh-caps=-all").args(arguments);
    stripped.env_remove("RUST_BACKTRACE");
    stripped
}

/// Names of the kernel programs on an interface.
///
/// # Errors
/// There is no such interface.
pub fn attached_programs(namespace: &Namespace, interface: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (side, direction) in [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")] {
        if has_tcx() {
            let (_, programs) = namespace.enter(|| SchedClassifier::query_tcx(interface, side))?;
            names.extend(programs.iter().filter_map(|info| info.name_as_str().map(str::to_owned)));
        } else {
            // `filter protocol all pref 1 bpf chain 0 handle 0x74720003 lan_egress direct-action ...`
            let filters = run(namespace.command("tc").args(["filter", "show", "dev", interface, direction]))?;
            let name =
                |line: &str| line.split_whitespace().skip_while(|word| *word != "handle").nth(2).map(str::to_owned);
            names.extend(filters.lines().filter_map(name));
        }
    }
    let link = namespace.ip(&format!("-d link show dev {interface}"))?;
    if link.contains("prog/xdp") {
        names.push("xdp".to_owned());
    }
    Ok(names)
}

/// A running gateway agent.
#[derive(Debug)]
pub struct Agent<'a> {
    process: Process,
    namespace: &'a Namespace,
    files: Files,
}

impl<'a> Agent<'a> {
    /// Starts it in the lab's gateway on the interfaces `lan`, and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer.
    pub fn start(lab: &'a Lab, lan: &[&str], options: &[&str]) -> Result<Self> {
        let files = Files::new(lab.path(), "agent")?;
        let mut command = files.run_gateway(&lab.gateway, lan, options)?;
        Self::start_command(&lab.gateway, files, &mut command, lab.path())
    }

    /// Starts `command`, which [`Files::run_gateway`] began.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_command(
        namespace: &'a Namespace,
        files: Files,
        command: &mut Command,
        directory: &Path,
    ) -> Result<Self> {
        let process = Process::start("tr111", command, directory)?;
        let mut agent = Self { process, namespace, files };
        let answered = wait_for("answer of the agent", START, || {
            if let Some(status) = agent.process.try_status()? {
                bail!("the agent ended ({status}):\n{}", agent.process.complaint());
            }
            Ok(agent.ask(&["status"])?.status.success().then_some(()))
        });
        answered.with_context(|| agent.process.complaint())?;
        Ok(agent)
    }

    /// `tr111 ARGUMENTS` against this agent.
    ///
    /// # Errors
    /// The binary has not been built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command(binary()?);
        command.args(arguments).arg("--control").arg(self.files.control()).env_remove("RUST_BACKTRACE");
        Ok(command)
    }

    /// What `tr111 ARGUMENTS` says, whatever it is.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output> {
        output(&mut self.command(arguments)?)
    }

    /// What `tr111 ARGUMENTS` prints for people.
    ///
    /// # Errors
    /// It fails.
    pub fn print(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ask(arguments)?;
        if !output.status.success() {
            bail!("tr111 {arguments:?}: {}\n{}", output.status, text(&output.stderr));
        }
        Ok(text(&output.stdout))
    }

    /// What `tr111 ARGUMENTS --json` prints.
    ///
    /// # Errors
    /// It fails, or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.print(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&printed).with_context(|| format!("no JSON: {printed}"))
    }

    /// The rows, from `tr111 devices --json`.
    ///
    /// # Errors
    /// The answer lacks a key, or a key has another type.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let answer = self.json(&["devices"])?;
        let rows = answer["devices"].as_array().with_context(|| format!("no devices in {answer}"))?;
        let devices = rows.iter().map(Device::read).collect::<Result<Vec<_>>>()?;
        if answer["number_of_entries"] != devices.len() {
            bail!("number_of_entries is {} with {} rows", answer["number_of_entries"], devices.len());
        }
        Ok(devices)
    }

    /// Waits until there are `count` rows, and gives them.
    ///
    /// # Errors
    /// It does not come to that within `limit`.
    pub fn wait_for_rows(&self, count: usize, limit: Duration) -> Result<Vec<Device>> {
        let mut seen = 0;
        wait_for(&format!("table of {count} rows"), limit, || {
            let devices = self.devices()?;
            seen = devices.len();
            Ok((seen == count).then_some(devices))
        })
        .with_context(|| format!("the table has {seen} rows"))
    }

    /// One scrape.
    ///
    /// # Errors
    /// No answer, or no metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, body) = self.fetch("/metrics")?;
        if status != 200 {
            bail!("/metrics: {status} {body}");
        }
        Metrics::parse(&body)
    }

    /// Fetches a path of the metrics listener.
    ///
    /// # Errors
    /// No answer.
    pub fn fetch(&self, path: &str) -> Result<(u16, String)> {
        let address: SocketAddr = METRICS.parse()?;
        fetch(self.namespace, address, path)
    }

    /// Waits until a scrape fulfils `condition`, and gives it.
    ///
    /// # Errors
    /// It does not within [`SOON`].
    pub fn wait_for_metrics(&self, what: &str, mut condition: impl FnMut(&Metrics) -> bool) -> Result<Metrics> {
        wait_for(what, SOON, || {
            let metrics = self.metrics()?;
            Ok(condition(&metrics).then_some(metrics))
        })
    }

    /// Starts `tr111 ARGUMENTS` in the background.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn background(&self, name: &str, arguments: &[&str], directory: &Path) -> Result<Process> {
        Process::start(name, &mut self.command(arguments)?, directory)
    }

    /// Stops it as a service manager would.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.terminate(SOON)
    }

    /// Kills it, as a crash would; what it leaves behind.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(mut self) -> Result<Files> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(SOON)?;
        Ok(self.files)
    }

    /// Starts it again with the same paths, once it has ended.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn start_again(self, lab: &'a Lab, lan: &[&str], options: &[&str]) -> Result<Self> {
        let Self { mut process, namespace, files } = self;
        process.wait(SOON)?;
        let mut command = files.run_gateway(namespace, lan, options)?;
        Self::start_command(namespace, files, &mut command, lab.path())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its paths.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

/// A row as `tr111 devices --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Instance number.
    pub instance: u64,
    /// Manufacturer OUI.
    pub oui: String,
    /// Serial number.
    pub serial_number: String,
    /// Product class.
    pub product_class: String,
    /// Bindings.
    pub bindings: Vec<Binding>,
}

/// A binding of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Hardware address.
    pub mac: String,
    /// Client identifier, if the client sends one.
    pub client_id: Option<String>,
    /// IPv4 address.
    pub ip: String,
    /// LAN interface.
    pub interface: String,
    /// VLAN identifiers.
    pub vlan: Vec<u64>,
    /// `request` or `inform`.
    pub source: String,
    /// When the lease ends, if there is one.
    pub lease_expires: Option<String>,
}

impl Device {
    fn read(row: &Value) -> Result<Self> {
        for key in ["first_seen", "last_seen"] {
            let time = string(row, key)?;
            if !(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T') {
                bail!("{key} {time} is not RFC 3339 UTC");
            }
        }
        Ok(Self {
            instance: row["instance"].as_u64().with_context(|| format!("no instance in {row}"))?,
            oui: string(row, "manufacturer_oui")?,
            serial_number: string(row, "serial_number")?,
            product_class: string(row, "product_class")?,
            bindings: row["bindings"]
                .as_array()
                .with_context(|| format!("no bindings in {row}"))?
                .iter()
                .map(Binding::read)
                .collect::<Result<_>>()?,
        })
    }

    /// OUI, serial number and class, as the corpus writes them.
    pub fn identity(&self) -> String {
        format!("{}/{}/{}", self.oui, self.serial_number, self.product_class)
    }
}

impl Binding {
    fn read(binding: &Value) -> Result<Self> {
        let vlan = binding["vlan"].as_array().with_context(|| format!("no vlan in {binding}"))?;
        Ok(Self {
            mac: string(binding, "mac")?,
            client_id: string_or_null(binding, "client_id")?,
            ip: string(binding, "ip")?,
            interface: string(binding, "interface")?,
            vlan: vlan.iter().map(|id| id.as_u64().context("a VLAN that is no number")).collect::<Result<_>>()?,
            source: string(binding, "source")?,
            lease_expires: string_or_null(binding, "lease_expires")?,
        })
    }
}

fn string(object: &Value, key: &str) -> Result<String> {
    Ok(object[key].as_str().with_context(|| format!("no text {key} in {object}"))?.to_owned())
}

/// Unknown is `null`, never a missing key.
fn string_or_null(object: &Value, key: &str) -> Result<Option<String>> {
    match object.get(key) {
        None => bail!("no {key} in {object}"),
        Some(Value::Null) => Ok(None),
        Some(_) => string(object, key).map(Some),
    }
}
