//! The maps that the agent writes and the programs read.

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

/// `BPF_NOEXIST` of linux/bpf.h: add only what is not there.
const BPF_NOEXIST: u64 = 1;
/// `BPF_EXIST` of linux/bpf.h: replace only what is there.
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

/// Writes settings, sticky clients and marks of exchanges.
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
    /// Over the maps of the loaded object. Where they hold a seed, an earlier agent's, it stays, because the keys in
    /// them were made with it; else they get `seed`.
    ///
    /// # Errors
    /// [`Error::Missing`], or [`Error::Map`] if one is of another kind.
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

    /// Seed of the programs' hash.
    pub fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// Gives the programs new settings. Gateway Identity and seed stay what they are; a seed of 0 was none.
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

    /// Gives the programs a new Gateway Identity, from the next reply on: written beside the old one, then switched to.
    ///
    /// `value` is the value of option 125, at most 145 bytes, as [`tr111_core::identity::GatewayIdentity::encode`] gives it.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    ///
    /// # Panics
    /// If `value` is longer than any Gateway Identity is.
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

    /// Makes a client sticky: its messages count as identified even without an identity (T-4).
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, as for a full map.
    pub fn stick(&self, client: &ClientKey) -> Result<(), Error> {
        let result = self.lock().sticky.insert(PodClient(*client), 1, 0);
        result.map_err(|source| Error::Map { name: map::STICKY, source })
    }

    /// Ends what [`Marks::stick`] did. A client that is not there is no error.
    pub fn unstick(&self, client: &ClientKey) {
        let _ = self.lock().sticky.remove(&PodClient(*client));
    }

    /// Ends the stickiness of every client that `keep` does not know: what an earlier agent left behind.
    pub fn retain_sticky(&self, keep: impl Fn(&ClientKey) -> bool) {
        let mut maps = self.lock();
        let stale: Vec<_> = maps.sticky.keys().filter_map(Result::ok).filter(|PodClient(key)| !keep(key)).collect();
        for key in stale {
            let _ = maps.sticky.remove(&key);
        }
    }

    /// Marks an exchange that the agent, not the kernel, found to be an identified client's: its replies get the
    /// Gateway Identity. An exchange that the kernel has forgotten is no error.
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

    /// Lets the programs note ARP messages from an address (T-6), as if one had come at `now`, boot time in nanoseconds.
    /// What an earlier agent began goes on.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, as for a full map.
    pub fn watch(&self, key: &NeighbourKey, now: u64) -> Result<(), Error> {
        let heard = PodNeighbour(Neighbour { seen: now, ..Neighbour::default() });
        match self.lock().neighbours.insert(PodNeighbourKey(*key), heard, BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other.map_err(|source| Error::Map { name: map::NEIGHBOURS, source }),
        }
    }

    /// Ends what [`Marks::watch`] began. An address that is not watched is no error.
    pub fn unwatch(&self, key: &NeighbourKey) {
        let _ = self.lock().neighbours.remove(&PodNeighbourKey(*key));
    }

    /// Ends the watch over every address that `keep` does not know: what an earlier agent left behind.
    pub fn retain_watched(&self, keep: impl Fn(&NeighbourKey) -> bool) {
        let mut maps = self.lock();
        let keys = maps.neighbours.keys().filter_map(Result::ok);
        let stale: Vec<_> = keys.filter(|PodNeighbourKey(key)| !keep(key)).collect();
        for key in stale {
            let _ = maps.neighbours.remove(&key);
        }
    }

    /// The last ARP message from a watched address.
    pub fn neighbour(&self, key: &NeighbourKey) -> Option<Neighbour> {
        self.lock().neighbours.get(&PodNeighbourKey(*key), 0).ok().map(|PodNeighbour(neighbour)| neighbour)
    }

    /// How the last exchange of every client ended (T-29).
    pub fn last_acks(&self) -> Vec<(ClientKey, LastAck)> {
        let maps = self.lock();
        let records = maps.last_acks.iter().filter_map(Result::ok);
        records.map(|(PodClient(client), PodLastAck(ack))| (client, ack)).collect()
    }

    /// When a reply to a client with an identity last left by an interface, boot time in nanoseconds.
    pub fn last_reply(&self, ifindex: u32) -> Option<u64> {
        self.lock().replies.get(&ifindex, 0).ok()
    }

    /// When a LAN bridge last forwarded a reply of another server to a client with an identity, boot time in nanoseconds.
    pub fn last_foreign_reply(&self, ifindex: u32) -> Option<u64> {
        self.lock().foreign_replies.get(&ifindex, 0).ok()
    }

    /// When DHCP datagrams were last merged at an interface and not told apart, boot time in nanoseconds.
    pub fn last_merged(&self, ifindex: u32) -> Option<u64> {
        self.lock().merged.get(&ifindex, 0).ok()
    }

    /// Tells the programs that an interface is a port of a LAN bridge, both by kernel index.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses, as for a full map.
    pub fn add_port(&self, port: u32, bridge: u32) -> Result<(), Error> {
        let result = self.lock().bridge_ports.insert(port, bridge, 0);
        result.map_err(|source| Error::Map { name: map::BRIDGE_PORTS, source })
    }

    /// Ends what [`Marks::add_port`] began. An interface that is no port is no error.
    pub fn remove_port(&self, port: u32) {
        let _ = self.lock().bridge_ports.remove(&port);
    }

    /// The flows that carry Binding Requests with CONNECTION-REQUEST-BINDING.
    pub fn flows(&self) -> Vec<(FlowKey, Flow)> {
        let maps = self.lock();
        let records = maps.flows.iter().filter_map(Result::ok);
        records.map(|(PodFlowKey(key), PodFlow(flow))| (key, flow)).collect()
    }

    /// Writes over the last ACK of a client that its lease has ended, unless it says so: `by` goes to [`LastAck::ended_by`].
    pub fn end_lease(&self, client: &ClientKey, by: u8) {
        let mut maps = self.lock();
        if let Ok(PodLastAck(ack)) = maps.last_acks.get(&PodClient(*client), 0)
            && ack.ended_by == 0
        {
            // A record that went meanwhile says nothing that could be wrong.
            let ended = PodLastAck(LastAck { ended_by: by, ..ack });
            let _ = maps.last_acks.insert(PodClient(*client), ended, BPF_EXIST);
        }
    }

    /// Forgets the last ACK of a client whose lease has ended; not a newer one.
    pub fn forget_ended(&self, client: &ClientKey) {
        let mut maps = self.lock();
        if maps.last_acks.get(&PodClient(*client), 0).is_ok_and(|PodLastAck(ack)| ack.ended_by != 0) {
            let _ = maps.last_acks.remove(&PodClient(*client));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Maps> {
        // Every write is one system call: a panic elsewhere leaves nothing half done.
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
