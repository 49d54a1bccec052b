//! Topologies: a gateway, and a LAN with hosts on it.

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::Result;
use tempfile::TempDir;

use crate::namespace::Namespace;

/// The gateway's address on its first LAN.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 1);
/// The first address that servers give on it; there is room for 40,000.
pub const POOL: Ipv4Addr = Ipv4Addr::new(10, 111, 1, 1);

/// A gateway and one LAN host, each in its own namespace, and a directory for what they write.
#[derive(Debug)]
pub struct Lab {
    /// Where the agent and the DHCP server are.
    pub gateway: Namespace,
    /// The host behind `eth0`.
    pub lan: Namespace,
    /// Gone with the lab.
    pub directory: TempDir,
}

impl Lab {
    /// Gateway `lan0` (10.111.0.1/16), a wire, host `eth0` without an address.
    ///
    /// # Errors
    /// Not root, or tools are missing.
    pub fn new() -> Result<Self> {
        let lab = Self::unconnected()?;
        lab.gateway.connect("lan0", &lab.lan, "eth0")?;
        lab.gateway.ip(&format!("addr add {GATEWAY}/16 dev lan0"))?;
        Ok(lab)
    }

    /// Gateway `br-lan` (10.111.0.1/16), a Linux bridge with ports to the host's `eth0` and `eth1`.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn bridged() -> Result<Self> {
        let lab = Self::unconnected()?;
        lab.gateway.ip("link add br-lan type bridge forward_delay 0")?;
        lab.gateway.ip("link set br-lan up")?;
        for (port, host) in [("port0", "eth0"), ("port1", "eth1")] {
            lab.gateway.connect(port, &lab.lan, host)?;
            lab.gateway.ip(&format!("link set {port} master br-lan"))?;
        }
        lab.gateway.ip(&format!("addr add {GATEWAY}/16 dev br-lan"))?;
        Ok(lab)
    }

    fn unconnected() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("tr111-").tempdir()?;
        Ok(Self { gateway: Namespace::new("gateway")?, lan: Namespace::new("lan")?, directory })
    }

    /// Writes a file of the lab; its path as an argument for a command.
    ///
    /// # Errors
    /// The directory is gone.
    pub fn write(&self, name: &str, content: &str) -> Result<String> {
        let path = self.path().join(name);
        fs::write(&path, content)?;
        Ok(path.display().to_string())
    }

    /// The directory of the lab.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}
