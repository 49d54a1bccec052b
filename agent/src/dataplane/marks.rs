//! The maps that the agent and the gateway programs share.

use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, HashMap, MapData, MapError};
use tr111_common::{
    abi::{ClientKey, ExchangeKey, Flow, FlowKey, LastAck, Mark, Neighbour, NeighbourKey, map},
    config::Config,
    dhcp4::option,
    insert::{GatewayOption, OPTION_MAXIMUM},
    words::Words,
};

use super::{Error, Loaded, pod::pod};

/// `BPF_NOEXIST` of linux/bpf.h: fail if the entry exists.
const BPF_NOEXIST: u64 = 1;
/// `BPF_EXIST` of linux/bpf.h: fail if the entry does not exist.
const BPF_EXIST: u64 = 2;

pod! {
    PodConfig Config,
    PodClient ClientKey,
    PodExchange ExchangeKey,
    PodMark Mark,
    PodGateway GatewayOption,
    PodNeighbourKey NeighbourKey,
    PodNeighbour Neighbour,
    PodLastAck LastAck,
    PodFlowKey FlowKey,
    PodFlow Flow,
}

struct Maps {
    config: Array<MapData, PodConfig>,
    gateway: Array<MapData, PodGateway>,
    gateway_slot: u8,
    sticky: HashMap<MapData, PodClient, u32>,
    exchanges: HashMap<MapData, PodExchange, PodMark>,
    neighbours: HashMap<MapData, PodNeighbourKey, PodNeighbour>,
    last_acks: HashMap<MapData, PodClient, PodLastAck>,
    flows: HashMap<MapData, PodFlowKey, PodFlow>,
    replies: HashMap<MapData, u32, u64>,
    foreign_replies: HashMap<MapData, u32, u64>,
    merged: HashMap<MapData, u32, u64>,
    bridge_ports: HashMap<MapData, u32, u32>,
    seed: u64,
}

/// The maps of the gateway programs: settings, Gateway Identity, sticky clients, exchanges, neighbours, last ACKs and
/// flows. Clones share the maps.
#[derive(Clone)]
pub struct Marks {
    maps: Arc<Mutex<Maps>>,
}

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Marks")
    }
}

impl Marks {
    /// Takes the maps of the loaded object. If an earlier agent left a seed in them, it is kept, because existing keys
    /// depend on it. Otherwise `seed` is used.
    ///
    /// # Errors
    /// [`Error::Missing`], or [`Error::Map`] if a map has another type.
    pub fn new(loaded: &mut Loaded, seed: u64) -> Result<Self, Error> {
        let wrong = |name| move |source| Error::Map { name, source };
        let config: Array<MapData, PodConfig> = loaded.take_map(map::CONFIG)?.try_into().map_err(wrong(map::CONFIG))?;
        let before = config.get(&0, 0).map_err(wrong(map::CONFIG))?.0;
        let maps = Maps {
            config,
            gateway: loaded.take_map(map::GATEWAY)?.try_into().map_err(wrong(map::GATEWAY))?,
            gateway_slot: before.gateway_slot,
            seed: if before.seed == 0 { seed } else { before.seed },
            neighbours: loaded.take_map(map::NEIGHBOURS)?.try_into().map_err(wrong(map::NEIGHBOURS))?,
            last_acks: loaded.take_map(map::LAST_ACK)?.try_into().map_err(wrong(map::LAST_ACK))?,
            flows: loaded.take_map(map::FLOWS)?.try_into().map_err(wrong(map::FLOWS))?,
            replies: loaded.take_map(map::REPLIES)?.try_into().map_err(wrong(map::REPLIES))?,
            foreign_replies: loaded.take_map(map::FOREIGN_REPLIES)?.try_into().map_err(wrong(map::FOREIGN_REPLIES))?,
            merged: loaded.take_map(map::MERGED)?.try_into().map_err(wrong(map::MERGED))?,
            bridge_ports: loaded.take_map(map::BRIDGE_PORTS)?.try_into().map_err(wrong(map::BRIDGE_PORTS))?,
            sticky: loaded.take_map(map::STICKY)?.try_into().map_err(wrong(map::STICKY))?,
            exchanges: loaded.take_map(map::EXCHANGES)?.try_into().map_err(wrong(map::EXCHANGES))?,
        };
        Ok(Self { maps: Arc::new(Mutex::new(maps)) })
    }

    /// Seed of the programs' hash over client identifiers.
    pub fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// Replaces the settings of the programs. Gateway Identity and seed are kept, unless the seed is 0.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn set_config(&self, config: &Config) -> Result<(), Error> {
        let mut maps = self.lock();
        let config = Config {
            gateway_slot: maps.gateway_slot,
            seed: if maps.seed == 0 { config.seed } else { maps.seed },
            ..*config
        };
        maps.config.set(0, PodConfig(config), 0).map_err(|source| Error::Map { name: map::CONFIG, source })
    }

    /// Replaces the Gateway Identity, from the next reply on. It is written to the unused slot, then the slots are
    /// switched.
    ///
    /// `value` is the value of option 125 from [`tr111_core::identity::GatewayIdentity::encode`], at most 145 bytes.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    ///
    /// # Panics
    /// If `value` is longer than the longest Gateway Identity.
    pub fn set_gateway(&self, value: &[u8]) -> Result<(), Error> {
        assert!(value.len() + 2 <= OPTION_MAXIMUM, "a Gateway Identity of {} bytes", value.len());
        let option = [&[option::VENDOR_IDENTIFYING, value.len() as u8], value].concat();
        let gateway = GatewayOption { option: Words::of(&option), length: option.len() as u32, reserved: 0 };
        let mut maps = self.lock();
        let slot = maps.gateway_slot ^ 1;
        let wrong = |name| move |source| Error::Map { name, source };
        maps.gateway.set(u32::from(slot), PodGateway(gateway), 0).map_err(wrong(map::GATEWAY))?;
        let config = maps.config.get(&0, 0).map_err(wrong(map::CONFIG))?.0;
        maps.config.set(0, PodConfig(Config { gateway_slot: slot, ..config }), 0).map_err(wrong(map::CONFIG))?;
        maps.gateway_slot = slot;
        Ok(())
    }

    /// Makes a client sticky: its messages are treated as identified even if they carry no identity (T-4).
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, for example because the map is full.
    pub fn stick(&self, client: &ClientKey) -> Result<(), Error> {
        let result = self.lock().sticky.insert(PodClient(*client), 1, 0);
        result.map_err(|source| Error::Map { name: map::STICKY, source })
    }

    /// Reverts [`Marks::stick`]. A client that is not sticky is not an error.
    pub fn unstick(&self, client: &ClientKey) {
        let _ = self.lock().sticky.remove(&PodClient(*client));
    }

    /// Reverts [`Marks::stick`] for all clients for which `keep` is false. Used for entries of an earlier agent.
    pub fn retain_sticky(&self, keep: impl Fn(&ClientKey) -> bool) {
        let mut maps = self.lock();
        let stale: Vec<_> = maps.sticky.keys().filter_map(Result::ok).filter(|PodClient(key)| !keep(key)).collect();
        for key in stale {
            let _ = maps.sticky.remove(&key);
        }
    }

    /// Marks an exchange as that of an identified client, so that its replies get the Gateway Identity. Used if the
    /// agent identified the client and the programs did not. An exchange that is no longer in the map is not an error.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn mark_exchange(&self, key: &ExchangeKey) -> Result<(), Error> {
        let mut maps = self.lock();
        let Ok(PodMark(mark)) = maps.exchanges.get(&PodExchange(*key), 0) else { return Ok(()) };
        let result = maps.exchanges.insert(PodExchange(*key), PodMark(Mark { identified: 1, ..mark }), BPF_EXIST);
        match result {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map_err(|source| Error::Map { name: map::EXCHANGES, source }),
        }
    }

    /// Makes the programs record ARP messages from an address (T-6). The time of the last message is set to `now`, boot
    /// time in nanoseconds, unless an earlier agent watched the address already.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, for example because the map is full.
    pub fn watch(&self, key: &NeighbourKey, now: u64) -> Result<(), Error> {
        let heard = PodNeighbour(Neighbour { seen: now, ..Neighbour::default() });
        match self.lock().neighbours.insert(PodNeighbourKey(*key), heard, BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other.map_err(|source| Error::Map { name: map::NEIGHBOURS, source }),
        }
    }

    /// Reverts [`Marks::watch`]. An address that is not watched is not an error.
    pub fn unwatch(&self, key: &NeighbourKey) {
        let _ = self.lock().neighbours.remove(&PodNeighbourKey(*key));
    }

    /// Reverts [`Marks::watch`] for all addresses for which `keep` is false. Used for entries of an earlier agent.
    pub fn retain_watched(&self, keep: impl Fn(&NeighbourKey) -> bool) {
        let mut maps = self.lock();
        let keys = maps.neighbours.keys().filter_map(Result::ok);
        let stale: Vec<_> = keys.filter(|PodNeighbourKey(key)| !keep(key)).collect();
        for key in stale {
            let _ = maps.neighbours.remove(&key);
        }
    }

    /// The last ARP message from a watched address. `None` if the address is not watched.
    pub fn neighbour(&self, key: &NeighbourKey) -> Option<Neighbour> {
        self.lock().neighbours.get(&PodNeighbourKey(*key), 0).ok().map(|PodNeighbour(neighbour)| neighbour)
    }

    /// The last ACK of each client (T-29).
    pub fn last_acks(&self) -> Vec<(ClientKey, LastAck)> {
        let maps = self.lock();
        let records = maps.last_acks.iter().filter_map(Result::ok);
        records.map(|(PodClient(client), PodLastAck(ack))| (client, ack)).collect()
    }

    /// Time of the last reply to an identified client that was sent on an interface, boot time in nanoseconds.
    pub fn last_reply(&self, ifindex: u32) -> Option<u64> {
        self.lock().replies.get(&ifindex, 0).ok()
    }

    /// Time of the last reply from another DHCP server to an identified client that a LAN bridge forwarded, boot time
    /// in nanoseconds.
    pub fn last_foreign_reply(&self, ifindex: u32) -> Option<u64> {
        self.lock().foreign_replies.get(&ifindex, 0).ok()
    }

    /// Time at which an interface last merged DHCP datagrams that could not be separated again, boot time in
    /// nanoseconds.
    pub fn last_merged(&self, ifindex: u32) -> Option<u64> {
        self.lock().merged.get(&ifindex, 0).ok()
    }

    /// Registers an interface as a port of a LAN bridge. Both arguments are kernel indices.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, for example because the map is full.
    pub fn add_port(&self, port: u32, bridge: u32) -> Result<(), Error> {
        let result = self.lock().bridge_ports.insert(port, bridge, 0);
        result.map_err(|source| Error::Map { name: map::BRIDGE_PORTS, source })
    }

    /// Reverts [`Marks::add_port`]. An interface that is not registered is not an error.
    pub fn remove_port(&self, port: u32) {
        let _ = self.lock().bridge_ports.remove(&port);
    }

    /// All flows that carry Binding Requests with CONNECTION-REQUEST-BINDING.
    pub fn flows(&self) -> Vec<(FlowKey, Flow)> {
        let maps = self.lock();
        let records = maps.flows.iter().filter_map(Result::ok);
        records.map(|(PodFlowKey(key), PodFlow(flow))| (key, flow)).collect()
    }

    /// Marks the last ACK of a client as that of an ended lease, unless it is marked already, or was sent later than `seen`
    /// (nanoseconds since boot): it is that of a new lease then. `by` is the value of [`LastAck::ended_by`].
    pub fn end_lease(&self, client: &ClientKey, by: u8, seen: u64) {
        let mut maps = self.lock();
        if let Ok(PodLastAck(ack)) = maps.last_acks.get(&PodClient(*client), 0)
            && ack.ended_by == 0
            && ack.time <= seen
        {
            // The record may have been removed in between, which is harmless.
            let ended = PodLastAck(LastAck { ended_by: by, ..ack });
            let _ = maps.last_acks.insert(PodClient(*client), ended, BPF_EXIST);
        }
    }

    /// Removes the last ACK of a client if its lease has ended. A newer ACK is kept.
    pub fn forget_ended(&self, client: &ClientKey) {
        let mut maps = self.lock();
        if maps.last_acks.get(&PodClient(*client), 0).is_ok_and(|PodLastAck(ack)| ack.ended_by != 0) {
            let _ = maps.last_acks.remove(&PodClient(*client));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Maps> {
        // Each write is one system call, so a panic cannot leave a map in an inconsistent state.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
