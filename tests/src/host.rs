//! Unmodified DHCP servers and clients, each with files of its own.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use serde_json::json;

use crate::{namespace::Namespace, process::Process, wait::wait_for};

const START: Duration = Duration::from_secs(10);

/// Starts dnsmasq as a DHCP server on `interface`, with addresses from `first` to `last` (of a /16) for two minutes,
/// its shortest lease. `options` are further arguments.
///
/// # Errors
/// It is not installed, or does not come up.
pub fn dnsmasq(
    namespace: &Namespace,
    interface: &str,
    (first, last): (Ipv4Addr, Ipv4Addr),
    directory: &Path,
    options: &[&str],
) -> Result<Process> {
    let name = format!("dnsmasq-{interface}");
    let leases = directory.join(format!("{name}.leases"));
    let mut command = namespace.command("dnsmasq");
    command
        .args(["--keep-in-foreground", "--port=0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative"])
        .args(["--conf-file=/dev/null", "--pid-file=", "--user=root", "--log-facility=-"])
        .arg(format!("--interface={interface}"))
        .arg(format!("--dhcp-range={first},{last},255.255.0.0,2m"))
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .args(options);
    let mut process = Process::start(&name, &mut command, directory)?;
    wait_for("dnsmasq on its port", START, || {
        if let Some(status) = process.try_status()? {
            bail!("dnsmasq ended ({status}):\n{}", process.complaint());
        }
        // Port 67 bound, in the kernel's own table.
        let table = namespace.enter(|| fs::read_to_string("/proc/thread-self/net/udp"))?;
        Ok(table
            .lines()
            .any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(":0043")))
            .then_some(()))
    })?;
    Ok(process)
}

/// Starts ISC's Kea as a DHCP server on `interface` (of a /16), with leases of two minutes. `socket` is its
/// `dhcp-socket-type`: `raw` writes whole frames, `udp` leaves headers and checksums to the kernel.
///
/// # Errors
/// It is not installed, or does not come up.
pub fn kea(
    namespace: &Namespace,
    interface: &str,
    (first, last): (Ipv4Addr, Ipv4Addr),
    directory: &Path,
    socket: &str,
) -> Result<Process> {
    let [a, b, ..] = first.octets();
    let configuration = json!({"Dhcp4": {
        "interfaces-config": {"interfaces": [interface], "dhcp-socket-type": socket},
        "lease-database": {"type": "memfile", "persist": false},
        "valid-lifetime": 120,
        "authoritative": true,
        "subnet4": [{"subnet": format!("{a}.{b}.0.0/16"), "pools": [{"pool": format!("{first}-{last}")}]}],
        "loggers": [
            {"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]},
            // A line for each lease would be half of its work under load.
            {"name": "kea-dhcp4.leases", "severity": "WARN", "output_options": [{"output": "stdout"}]},
        ],
    }});
    let file = directory.join(format!("kea-{interface}.json"));
    fs::write(&file, configuration.to_string())?;
    let mut command = namespace.command("kea-dhcp4");
    command.arg("-c").arg(&file).env("KEA_PIDFILE_DIR", directory).env("KEA_LOCKFILE_DIR", "none");
    let mut process = Process::start(&format!("kea-{interface}"), &mut command, directory)?;
    process.wait_for_line("DHCP4_STARTED", START)?;
    Ok(process)
}

/// Starts ISC's dhcrelay, which adds option 82 to what comes by `downlink` and takes it out of the answers.
///
/// # Errors
/// It is not installed, or does not come up.
pub fn dhcrelay(
    namespace: &Namespace,
    downlink: &str,
    uplink: &str,
    server: Ipv4Addr,
    directory: &Path,
) -> Result<Process> {
    let mut command = namespace.command("dhcrelay");
    command.args(["-4", "-d", "--no-pid", "-a", "-id", downlink, "-iu", uplink]).arg(server.to_string());
    let process = Process::start("dhcrelay", &mut command, directory)?;
    wait_for("dhcrelay on both sides", START, || Ok(process.stderr().contains("Socket/fallback").then_some(())))?;
    Ok(process)
}

/// Starts busybox's udhcpc on `interface`; `option` is option 125 as code, length and value, or empty.
///
/// # Errors
/// It is not installed.
pub fn udhcpc(namespace: &Namespace, interface: &str, option: &[u8], directory: &Path) -> Result<Process> {
    let script = directory.join(format!("udhcpc-{interface}.sh"));
    let environment = udhcpc_environment(directory, interface);
    fs::write(
        &script,
        format!(
            "#!/bin/sh\n\
             case \"$1\" in\n\
             bound|renew) ip addr replace \"$ip/$mask\" dev \"$interface\"; env > {0};;\n\
             deconfig) ip addr flush dev \"$interface\";;\n\
             esac\n",
            environment.display()
        ),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let mut command = namespace.command("udhcpc");
    command.args(["-f", "-t", "10", "-T", "1", "-A", "1", "-i", interface, "-s"]).arg(&script);
    if let [_, _, value @ ..] = option {
        let digits = value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        command.arg("-x").arg(format!("125:{digits}"));
    }
    Process::start(&format!("udhcpc-{interface}"), &mut command, directory)
}

/// The file that udhcpc's script leaves once there is a lease: its environment.
pub fn udhcpc_environment(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("udhcpc-{interface}.env"))
}

/// Starts ISC's dhclient on `interface`; `option` is option 125 as code, length and value.
///
/// # Errors
/// It is not installed.
pub fn dhclient(namespace: &Namespace, interface: &str, option: &[u8], directory: &Path) -> Result<Process> {
    let configuration = directory.join("dhclient.conf");
    let digits: Vec<_> = option[2..].iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(
        &configuration,
        format!("option tr111 code 125 = string;\nsend tr111 {};\ntimeout 20;\nretry 1;\n", digits.join(":")),
    )?;
    let mut command = namespace.command("dhclient");
    command.args(["-d", "-4", "-sf", "/bin/true", "-cf"]).arg(&configuration);
    command.arg("-lf").arg(leases_of_dhclient(directory));
    command.arg("-pf").arg(directory.join("dhclient.pid")).arg(interface);
    Process::start("dhclient", &mut command, directory)
}

/// The file where dhclient keeps its leases, with every option that came.
pub fn leases_of_dhclient(directory: &Path) -> PathBuf {
    directory.join("dhclient.leases")
}
