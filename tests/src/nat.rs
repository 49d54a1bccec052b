//! The lab with a network behind the gateway's NAT, and STUN servers there.

use std::{fs, net::Ipv4Addr, process::Command};

use anyhow::Result;

use crate::{
    agent::SOON,
    lab::{GATEWAY, Lab},
    namespace::Namespace,
    process::{Process, output_with_input, run, text},
    wait::wait_until,
};

/// The gateway's public address.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The STUN server, which has two addresses.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);

/// A LAN host (10.111.2.5), a gateway that translates, and the network beyond it.
#[derive(Debug)]
pub struct NatLab {
    /// Gateway and LAN.
    pub lab: Lab,
    /// Beyond the gateway.
    pub wan: Namespace,
}

impl NatLab {
    /// `masquerade` is nft's statement, as `masquerade fully-random`.
    ///
    /// # Errors
    /// Not root, or tools are missing.
    pub fn new(masquerade: &str) -> Result<Self> {
        let lab = Lab::new()?;
        let wan = Namespace::new("wan")?;
        lab.gateway.connect("wan0", &wan, "eth0")?;
        lab.gateway.ip(&format!("addr add {PUBLIC}/24 dev wan0"))?;
        for address in [SERVER, SECOND] {
            wan.ip(&format!("addr add {address}/24 dev eth0"))?;
        }
        lab.lan.ip("addr add 10.111.2.5/16 dev eth0")?;
        lab.lan.ip(&format!("route add default via {GATEWAY}"))?;
        lab.gateway.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?;
        let rules = format!(
            "table ip lab {{ chain out {{ type nat hook postrouting priority srcnat; \
             oifname \"wan0\" meta l4proto udp {masquerade}; }}; }}"
        );
        let loaded = output_with_input(lab.gateway.command("nft").args(["-f", "-"]), rules.as_bytes())?;
        anyhow::ensure!(loaded.status.success(), "nft: {}", text(&loaded.stderr));
        Ok(Self { lab, wan })
    }

    /// Makes the NAT forget every binding, as a restart of the gateway would.
    ///
    /// # Errors
    /// `conntrack` is not installed.
    pub fn forget_bindings(&self) -> Result<()> {
        let command: &mut Command = &mut self.lab.gateway.command("conntrack");
        run(command.args(["-F"])).map(drop)
    }

    /// Starts Vovida's stund, the STUN server of RFC 3489's authors, at [`SERVER`].
    ///
    /// # Errors
    /// It is not installed, or does not listen.
    pub fn stund(&self) -> Result<Process> {
        let mut command = self.wan.command("stund");
        command.args(["-h", &SERVER.to_string(), "-a", &SECOND.to_string()]);
        let process = Process::start("stund", &mut command, self.lab.path())?;
        wait_until("stund on its port", SOON, || {
            // Port 3478 bound, in the kernel's own table.
            let table = self.wan.enter(|| fs::read_to_string("/proc/thread-self/net/udp"))?;
            Ok(table.contains(":0D96 "))
        })?;
        Ok(process)
    }
}
