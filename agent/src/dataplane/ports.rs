//! Ports of LAN bridges. A frame that a bridge forwards from one port to another does not pass the hooks of the bridge,
//! so a program is attached to the egress of each port.

use std::collections::BTreeMap;

use super::Error;
use crate::os::netlink::Link;

/// A port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Name of the interface.
    pub name: String,
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Kernel index of the bridge.
    pub bridge: u32,
}

/// Bridges and their ports, as reported by netlink.
#[derive(Debug, Default)]
pub struct Bridges {
    links: BTreeMap<u32, Link>,
}

impl Bridges {
    /// Starts with all current interfaces.
    pub fn new(links: impl IntoIterator<Item = Link>) -> Self {
        Self { links: links.into_iter().map(|link| (link.ifindex, link)).collect() }
    }

    /// Adds or updates an interface.
    pub fn update(&mut self, link: Link) {
        self.links.insert(link.ifindex, link);
    }

    /// Removes an interface.
    pub fn remove(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
    }

    /// The kernel index of a bridge. `None` if there is no bridge of this name.
    pub fn find(&self, name: &str) -> Option<u32> {
        let mut links = self.links.values();
        links.find(|link| link.name == name && link.is_bridge).map(|link| link.ifindex)
    }

    /// The ports of the bridges among the interfaces `lan`.
    pub fn ports<'a>(&self, lan: impl IntoIterator<Item = &'a str>) -> Vec<Port> {
        let bridges: Vec<u32> = lan.into_iter().filter_map(|name| self.find(name)).collect();
        let port = |link: &Link| {
            let bridge = link.master.filter(|master| bridges.contains(master))?;
            Some(Port { name: link.name.clone(), ifindex: link.ifindex, bridge })
        };
        self.links.values().filter_map(port).collect()
    }

    /// Fails if both a bridge and one of its ports are among the interfaces `named`.
    ///
    /// # Errors
    /// [`Error::BridgeAndPort`]
    pub fn refuse_ports<'a>(&self, named: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        let named: Vec<&str> = named.into_iter().collect();
        let ports = self.ports(named.iter().copied());
        match ports.iter().find(|port| named.contains(&port.name.as_str())) {
            Some(port) => Err(self.both_are_named(port)),
            None => Ok(()),
        }
    }

    /// The error for a port that is configured together with its bridge.
    pub fn both_are_named(&self, port: &Port) -> Error {
        let bridge = self.links.get(&port.bridge).map(|link| link.name.clone()).unwrap_or_default();
        Error::BridgeAndPort { bridge, port: port.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str, is_bridge: bool, master: Option<u32>) -> Link {
        Link { ifindex, name: name.to_owned(), mac: None, is_up: true, is_bridge, master, xdp: None }
    }

    fn bridges() -> Bridges {
        Bridges::new([
            link(2, "eth0", false, None),
            link(3, "br-lan", true, None),
            link(4, "port0", false, Some(3)),
            link(5, "bond0", false, None),
            link(6, "slave0", false, Some(5)),
            link(7, "br-guest", true, None),
            link(8, "port1", false, Some(7)),
        ])
    }

    #[test]
    fn ports_are_those_of_the_bridges_that_are_named() {
        let mut bridges = bridges();
        let names = |bridges: &Bridges, lan: &[&str]| {
            bridges.ports(lan.iter().copied()).into_iter().map(|port| (port.name, port.bridge)).collect::<Vec<_>>()
        };
        assert_eq!(names(&bridges, &["br-lan", "bond0", "eth0", "br-none"]), [("port0".to_owned(), 3)]);
        bridges.update(link(8, "port1", false, Some(3)));
        bridges.update(link(4, "port0", false, None));
        assert_eq!(names(&bridges, &["br-lan"]), [("port1".to_owned(), 3)]);
        bridges.remove(3);
        assert_eq!(names(&bridges, &["br-lan"]), []);
    }

    #[test]
    fn a_bridge_and_its_port_together_are_refused() {
        let bridges = bridges();
        for allowed in [&["br-lan", "port1"][..], &["port0"], &["bond0", "slave0"], &["br-lan", "br-guest"]] {
            assert!(bridges.refuse_ports(allowed.iter().copied()).is_ok(), "{allowed:?}");
        }
        let refused = bridges.refuse_ports(["port0", "br-lan"]).expect_err("both").to_string();
        assert!(refused.contains("port0 is a port of the bridge br-lan"), "{refused}");
    }
}
