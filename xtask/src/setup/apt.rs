//! Debian's packages, without leaving a service running that nobody asked for.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process,
    sync::Once,
};

use anyhow::{Context as _, Result, anyhow};

use super::Journal;
use crate::process::{command, find, is_root, run, shell_line, target_dir};

/// Packages whose daemon Debian enables at installation.
const SERVICES: [(&str, &str); 5] = [
    ("prometheus", "prometheus"),
    ("kea-dhcp4-server", "kea-dhcp4-server"),
    ("isc-dhcp-relay", "isc-dhcp-relay"),
    ("stun-server", "stun"),
    ("coturn", "coturn"),
];

pub(super) fn is_usable() -> bool {
    is_root() && find("apt-get").is_some()
}

/// Whether the archive has this package, as far as the lists at hand tell.
pub(super) fn knows(package: &str) -> bool {
    find("apt-cache").is_some()
        && crate::process::output(command("apt-cache").args(["--quiet", "show", package])).is_ok()
}

/// Installs packages; their output goes to a file that the error quotes.
pub(super) fn install(journal: &mut Journal, packages: &[&str]) -> Result<()> {
    static LISTS: Once = Once::new();
    // A mirror that is down, or a list that someone else broke, only matters if the packages then cannot be had.
    LISTS.call_once(|| update(journal));
    let _policy = NoServiceStarts::begin()?;
    journal.step("apt", &format!("installing {}", packages.join(" ")), || {
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(packages);
        apt_get(&arguments)
    })?;
    for (_, service) in SERVICES.iter().filter(|(package, _)| packages.contains(package)) {
        journal.step(service, "disabling the service that came with it", || disable(service))?;
    }
    Ok(())
}

fn update(journal: &mut Journal) {
    if let Err(error) = journal.step("apt", "updating the package lists", || apt_get(&["update"])) {
        println!("setup: apt: {error:#}");
    }
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let log = target_dir().join("xtask-apt.log");
    fs::create_dir_all(target_dir())?;
    let file = File::create(&log).with_context(|| log.display().to_string())?;
    let mut apt = command("apt-get");
    apt.args(["--quiet", "--option", "DPkg::Lock::Timeout=300"]).args(arguments);
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(process::Stdio::null());
    run(apt.stdout(file.try_clone()?).stderr(file)).map_err(|_| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n  ");
        anyhow!("`{}` failed:\n  {tail}", shell_line(&apt))
    })
}

fn disable(service: &str) -> Result<()> {
    let mut disabling = if find("systemctl").is_some() {
        let mut systemctl = command("systemctl");
        systemctl.arg("disable").args(Path::new("/run/systemd/system").exists().then_some("--now"));
        systemctl.arg(format!("{service}.service"));
        systemctl
    } else if find("update-rc.d").is_some() {
        let mut update = command("update-rc.d");
        update.args([service, "disable"]);
        update
    } else {
        return Ok(());
    };
    crate::process::output(&mut disabling).map(drop)
}

/// While this lives, installing a package does not start its daemon (Debian's policy-rc.d interface).
struct NoServiceStarts {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServiceStarts {
    fn begin() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        // Refuses only as long as we run, so that a copy left behind by a power cut refuses nothing.
        let script = format!(
            "#!/bin/sh\n# Written by tr111's `cargo xtask setup` while it installs packages; may be deleted.\n\
             [ -d /proc/{} ] && exit 101\nexit 0\n",
            process::id()
        );
        fs::write(POLICY, script).context(POLICY)?;
        fs::set_permissions(POLICY, Permissions::from_mode(0o755)).context(POLICY)?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("{POLICY} could not be removed: {error}");
        }
    }
}
