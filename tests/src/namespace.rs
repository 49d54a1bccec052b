//! Network namespaces with unique names, which go when their owner goes.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::signal::kill,
    unistd::{Pid, geteuid},
};

use crate::process::run;

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";
const PREFIX: &str = "tr111-";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace without any interface but loopback, and without IPv6, so that the kernel sends nothing on its
/// own and frames can be counted.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A namespace named after this process, a number and `role`.
    ///
    /// # Errors
    /// Not root, or no `ip`.
    pub fn new(role: &str) -> Result<Self> {
        ensure!(geteuid().is_root(), "this needs root: it makes network namespaces and loads kernel programs");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            sweep();
        }
        let name = format!("{PREFIX}{}-{number}-{role}", process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.enter(|| -> Result<()> {
            for which in ["all", "default", "lo"] {
                // Absent where the kernel has no IPv6.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
            }
            Ok(())
        })?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside with arguments split at blanks.
    ///
    /// # Errors
    /// What `ip` complained about.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `work` on a thread that is inside; sockets that it makes stay inside wherever they go.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from(NAMESPACES).join(&self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let file = File::open(&path).expect("the namespace exists as long as its owner");
                setns(&file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Makes a pair of connected interfaces, `name` here and `peer_name` in `peer`, both up.
    ///
    /// # Errors
    /// A name is taken.
    pub fn connect(&self, name: &str, peer: &Self, peer_name: &str) -> Result<()> {
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {}", peer.name))?;
        self.ip(&format!("link set {name} up"))?;
        peer.ip(&format!("link set {peer_name} up"))?;
        Ok(())
    }

    /// The Ethernet address of an interface inside.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let link = self.ip(&format!("-o link show dev {interface}"))?;
        let text = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("no address")?;
        let mut mac = [0; 6];
        for (byte, digits) in mac.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(digits, 16)?;
        }
        Ok(mac)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("{} stays behind: {error:#}", self.name);
        }
    }
}

/// Removes what processes left that were killed and could not clean up.
fn sweep() {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|owner| kill(Pid::from_raw(owner), None) == Err(Errno::ESRCH)) {
            // Another test may sweep at the same time.
            let _ = run(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}
