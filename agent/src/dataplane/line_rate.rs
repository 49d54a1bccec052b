//! The line-rate path of an ACS: `acs_stun` on its interfaces.
//!
//! Nothing of it is pinned. Its answers speak for a server that is there, so it ends with the agent, however that ends.

use std::{
    collections::{BTreeSet, HashMap as Held},
    net::{Ipv4Addr, SocketAddrV4},
};

use aya::maps::{Array, HashMap, MapData};
use tr111_common::{
    abi::{Endpoint, LISTENERS_MAXIMUM, ListenerKey, OWN_ADDRESSES_MAXIMUM, map},
    config::Config,
    headers::PORTS,
};

use super::{
    Attachment, Counters, Error, Loaded, Purpose, Side, XdpMode,
    attach::{self, Attacher, TcOrder},
    bindings::{Bindings, endpoint},
    memory,
    pod::pod,
};

pod! {
    PodConfig Config,
    PodListener ListenerKey,
    PodEndpoint Endpoint,
}

/// The loaded program and where it is attached. Dropping it takes it off.
pub struct LineRate {
    loaded: Loaded,
    held: Vec<attach::Held>,
    xdp_mode: XdpMode,
    counters: Counters,
    bindings: Bindings,
    config: Array<MapData, PodConfig>,
    listeners: HashMap<MapData, PodListener, PodEndpoint>,
    own_addresses: HashMap<MapData, [u8; 4], u32>,
    known: Held<ListenerKey, Endpoint>,
    known_own: BTreeSet<Ipv4Addr>,
    seed: u64,
}

impl std::fmt::Debug for LineRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineRate").field("held", &self.held).finish_non_exhaustive()
    }
}

/// One place where requests are answered: an address of this machine, on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Where the server listens.
    pub address: SocketAddrV4,
    /// CHANGED-ADDRESS of its answers.
    pub changed: SocketAddrV4,
}

impl LineRate {
    /// Loads the program. It answers nothing until it is told where. Names are hashed under a random `seed`.
    ///
    /// # Errors
    /// What is missing, in words for who installs the agent.
    pub fn load(xdp_mode: XdpMode, seed: u64) -> Result<Self, Error> {
        Self::over(Loaded::load(Purpose::Acs, false, None)?, xdp_mode, seed)
    }

    /// Over a program that is loaded already.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Map`]
    pub fn over(mut loaded: Loaded, xdp_mode: XdpMode, seed: u64) -> Result<Self, Error> {
        let wrong = |name| move |source| Error::Map { name, source };
        let counters = Counters::new(loaded.take_map(map::COUNTERS)?)?;
        let bindings = Bindings::new(&mut loaded, seed)?;
        let config = loaded.take_map(map::CONFIG)?.try_into().map_err(wrong(map::CONFIG))?;
        let listeners = loaded.take_map(map::LISTENERS)?.try_into().map_err(wrong(map::LISTENERS))?;
        let own_addresses = loaded.take_map(map::OWN_ADDRESSES)?.try_into().map_err(wrong(map::OWN_ADDRESSES))?;
        memory::trim();
        let (held, known, known_own) = (Vec::new(), Held::new(), BTreeSet::new());
        Ok(Self {
            loaded,
            held,
            xdp_mode,
            counters,
            bindings,
            config,
            listeners,
            own_addresses,
            known,
            known_own,
            seed,
        })
    }

    /// Attaches to an interface. Where that is not possible, and no mode was asked for, the attachment has no program.
    ///
    /// # Errors
    /// What is missing, in words for who runs the agent.
    pub fn attach(&mut self, interface: &str) -> Result<Attachment, Error> {
        let mut attacher = Attacher::new(&mut self.loaded, None, &mut self.held, TcOrder::default());
        let mut attachments = attacher.all([(interface, Side::Cpes)], self.xdp_mode)?;
        attachments.pop().ok_or_else(|| Error::NoInterface(interface.to_owned()))
    }

    /// Takes off what is attached to an interface, or was while it was there.
    pub fn release(&mut self, interface: &str) {
        self.held.retain(|held| held.interface != interface);
    }

    /// Answers at these places, and at no others; never to a source of `own`, the addresses of this machine and the
    /// broadcast addresses of its networks.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn listen(
        &mut self,
        places: impl IntoIterator<Item = Listener>,
        own: &BTreeSet<Ipv4Addr>,
    ) -> Result<(), Error> {
        self.know_own(own)?;
        let wrong = |name| move |source| Error::Map { name, source };
        let mut ports = Vec::new();
        let mut wanted = Held::new();
        for Listener { ifindex, mac, address, changed } in places {
            if !ports.contains(&address.port()) {
                ports.push(address.port());
            }
            let port = address.port();
            wanted.insert(ListenerKey { ifindex, mac, port, address: address.ip().octets() }, endpoint(changed));
        }
        if ports.len() > PORTS || wanted.len() > LISTENERS_MAXIMUM as usize {
            tracing::warn!(ports = ports.len(), places = wanted.len(), "the socket alone answers at some of them");
        }
        for gone in self.known.keys().filter(|key| !wanted.contains_key(key)) {
            // One that is not there was refused when it came.
            let _ = self.listeners.remove(&PodListener(*gone));
        }
        for (key, changed) in wanted.iter().take(LISTENERS_MAXIMUM as usize) {
            let result = self.listeners.insert(PodListener(*key), PodEndpoint(*changed), 0);
            result.map_err(wrong(map::LISTENERS))?;
        }
        self.known = wanted;
        let mut stun_ports = [0; PORTS];
        stun_ports.iter_mut().zip(ports).for_each(|(slot, port)| *slot = port);
        let config = Config { seed: self.seed, stun_ports, ..Config::default() };
        self.config.set(0, PodConfig(config), 0).map_err(wrong(map::CONFIG))
    }

    fn know_own(&mut self, own: &BTreeSet<Ipv4Addr>) -> Result<(), Error> {
        for gone in self.known_own.difference(own) {
            // One that is not there was refused when it came.
            let _ = self.own_addresses.remove(&gone.octets());
        }
        for address in own.iter().take(OWN_ADDRESSES_MAXIMUM as usize) {
            let result = self.own_addresses.insert(address.octets(), 1, 0);
            result.map_err(|source| Error::Map { name: map::OWN_ADDRESSES, source })?;
        }
        self.known_own.clone_from(own);
        Ok(())
    }

    /// The bindings whose keep-alives are answered.
    pub fn bindings(&self) -> Bindings {
        self.bindings.clone()
    }

    /// A reader of the program's counters.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The program behind it.
    pub fn loaded_mut(&mut self) -> &mut Loaded {
        &mut self.loaded
    }
}
