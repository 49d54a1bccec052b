//! The line-rate path of an ACS: the XDP program `acs_stun`.
//!
//! Nothing is pinned: the program answers for the STUN server of the agent, so it must end with the agent.

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

/// The loaded program and its links. Dropping it detaches the program.
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

/// A local address on an interface, for which requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Ethernet address of the interface.
    pub mac: [u8; 6],
    /// Address and port of the STUN server.
    pub address: SocketAddrV4,
    /// CHANGED-ADDRESS of the responses.
    pub changed: SocketAddrV4,
}

impl LineRate {
    /// Loads the program. It answers nothing before [`LineRate::listen`]. `seed` is a random seed for the hash over
    /// names.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(xdp_mode: XdpMode, seed: u64) -> Result<Self, Error> {
        Self::over(Loaded::load(Purpose::Acs, false, None)?, xdp_mode, seed)
    }

    /// Takes a loaded program.
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

    /// Attaches the program to an interface. If XDP is not possible and the mode is `auto`, the attachment has no
    /// program.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn attach(&mut self, interface: &str) -> Result<Attachment, Error> {
        let mut attacher = Attacher::new(&mut self.loaded, None, &mut self.held, TcOrder::default());
        let mut attachments = attacher.all([(interface, Side::Cpes)], self.xdp_mode)?;
        attachments.pop().ok_or_else(|| Error::NoInterface(interface.to_owned()))
    }

    /// Detaches the program from an interface, which may no longer exist.
    pub fn release(&mut self, interface: &str) {
        self.held.retain(|held| held.interface != interface);
    }

    /// Answers requests to exactly these addresses. Requests from a source in `own` are never answered; these are the
    /// addresses of this machine and the broadcast addresses of its networks.
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
            tracing::warn!(ports = ports.len(), places = wanted.len(), "too many addresses for the programs");
        }
        for gone in self.known.keys().filter(|key| !wanted.contains_key(key)) {
            // An entry that does not exist was refused when it was added.
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
            // An entry that does not exist was refused when it was added.
            let _ = self.own_addresses.remove(&gone.octets());
        }
        for address in own.iter().take(OWN_ADDRESSES_MAXIMUM as usize) {
            let result = self.own_addresses.insert(address.octets(), 1, 0);
            result.map_err(|source| Error::Map { name: map::OWN_ADDRESSES, source })?;
        }
        self.known_own.clone_from(own);
        Ok(())
    }

    /// The registered bindings. Clones share the map.
    pub fn bindings(&self) -> Bindings {
        self.bindings.clone()
    }

    /// The counters of the program.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The loaded program.
    pub fn loaded_mut(&mut self) -> &mut Loaded {
        &mut self.loaded
    }
}
