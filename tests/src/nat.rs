//! The lab with a network behind the gateway's NAT, and STUN servers there.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
};

use anyhow::{Context, Result, ensure};

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

/// From where [`NatLab::lend_port`] lets one send as the STUN server.
pub const LENT: SocketAddrV4 = SocketAddrV4::new(SERVER, 3480);

/// The rules of [`NatLab::lend_port`].
pub fn lending() -> String {
    format!(
        "table ip acs {{ chain out {{ type filter hook output priority raw; udp sport {} udp sport set 3478; }}; }}",
        LENT.port()
    )
}

fn load(namespace: &Namespace, rules: &str) -> Result<()> {
    let loaded = output_with_input(namespace.command("nft").args(["-f", "-"]), rules.as_bytes())?;
    ensure!(loaded.status.success(), "nft: {}", text(&loaded.stderr));
    Ok(())
}

/// A flow as the NAT knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// As what the far side sees the host.
    pub mapped: SocketAddrV4,
    /// Seconds until the NAT forgets it.
    pub left: u64,
}

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
        load(&lab.gateway, &rules)?;
        Ok(Self { lab, wan })
    }

    /// Seconds for which the NAT keeps a UDP flow: one that only went out, and one that went both ways for a while.
    ///
    /// # Errors
    /// The kernel tracks no connections.
    pub fn set_timeouts(&self, one_way: u32, both_ways: u32) -> Result<()> {
        for (name, seconds) in [("udp_timeout", one_way), ("udp_timeout_stream", both_ways)] {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
            self.lab.gateway.enter(|| fs::write(path, seconds.to_string()))?;
        }
        Ok(())
    }

    /// What the NAT knows of the flow from a port of the LAN host, if it still does.
    ///
    /// # Errors
    /// `conntrack` is not installed.
    pub fn flow(&self, port: u16) -> Result<Option<Flow>> {
        let command: &mut Command = &mut self.lab.gateway.command("conntrack");
        let listed = run(command.args(["-L", "-p", "udp", "--orig-port-src", &port.to_string()]))?;
        let Some(line) = listed.lines().next() else { return Ok(None) };
        // The tuple of the answers comes last, and they come to the mapped port.
        let mapped = line.split_whitespace().filter_map(|field| field.strip_prefix("dport=")).next_back();
        let left = line.split_whitespace().nth(2).with_context(|| format!("no time in {line}"))?;
        let mapped = mapped.with_context(|| format!("no port in {line}"))?;
        Ok(Some(Flow { mapped: SocketAddrV4::new(PUBLIC, mapped.parse()?), left: left.parse()? }))
    }

    /// Lets a sender on the STUN server's host have the server's own source address and port, which the server does not
    /// share: what leaves by [`LENT`] gets port 3478 on its way out, without a connection tracker. An ACS that is its
    /// own STUN server has one socket for both (UCR-20, T-68).
    ///
    /// # Errors
    /// nft refuses.
    pub fn lend_port(&self) -> Result<()> {
        load(&self.wan, &lending())
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
        self.start("stund", &mut command)
    }

    /// Starts coturn at [`SERVER`]. It sends every answer to who asked, whatever RESPONSE-ADDRESS says (T-46).
    ///
    /// # Errors
    /// It is not installed, or does not listen.
    pub fn coturn(&self) -> Result<Process> {
        let mut command = self.wan.command("turnserver");
        command.args(["-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout"]);
        command.args(["--listening-port", "3478", "--listening-ip", &SERVER.to_string()]);
        command.arg("--pidfile").arg(self.lab.path().join("coturn.pid"));
        command.arg("--db").arg(self.lab.path().join("coturn.db"));
        self.start("coturn", &mut command)
    }

    fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        let process = Process::start(name, command, self.lab.path())?;
        wait_until("a STUN server on its port", SOON, || {
            // Port 3478 bound, in the kernel's own table.
            let table = self.wan.enter(|| fs::read_to_string("/proc/thread-self/net/udp"))?;
            Ok(table.contains(":0D96 "))
        })
        .with_context(|| process.complaint())?;
        Ok(process)
    }
}
