//! The maps and safe functions to access them.
//!
//! # Theory of operation
//!
//! `tr111_common::abi` documents the maps, their keys and their values. The maps of a gateway are pinned, so that a new agent
//! continues where the last one ended; a comment says so where a map is not pinned. Maps that the agent fills
//! (`STICKY`, `NEIGHBOURS`, `BRIDGE_PORTS`, `LISTENERS`, `OWN_ADDRESSES`, `BINDINGS`) never evict. Maps that traffic
//! fills are LRU maps or have a fixed slot per hash value, so that a flood of new keys cannot stop the programs. Values
//! are updated in place without locks: each comment at an `unsafe` block says why a concurrent access on another CPU is
//! harmless.

use crate::{
    insert::Change,
    seen::{Parts, Seen},
};
use aya_ebpf::{
    helpers::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use tr111_common::{
    abi::{
        BINDINGS_MAXIMUM, BRIDGE_PORTS_MAXIMUM, BUDGETS_MAXIMUM, BindingKey, Budget, ClientKey, EXCHANGES_MAXIMUM,
        Endpoint, ExchangeKey, FLOW_SAMPLE_NANOSECONDS, FLOWS_MAXIMUM, Flow, FlowKey, LAN_RING_BYTES,
        LAST_ACKS_MAXIMUM, LISTENERS_MAXIMUM, LastAck, ListenerKey, Mark, NEIGHBOURS_MAXIMUM, NEWCOMERS_MAXIMUM,
        Neighbour, NeighbourKey, OWN_ADDRESSES_MAXIMUM, REPLIES_MAXIMUM, STICKY_MAXIMUM, WAN_BUDGETS_MAXIMUM,
    },
    config::Config,
    counter::{COUNTER_SLOTS, Counter},
    dhcp4::Walk,
    event::Header,
    insert::GatewayOption,
    stun::Demands,
};
use tr111_ebpf::frame::{Copied, SkbFrame};

/// Events for the agent.
#[map]
pub static EVENTS_LAN: RingBuf = RingBuf::with_byte_size(LAN_RING_BYTES, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map]
static GATEWAY: Array<GatewayOption> = Array::with_max_entries(2, 0);

/// The kernel does not report evictions from an LRU map, so they are not counted here. The agent tracks as many
/// exchanges and counts the ones that it evicts (`exchange_evicted`), which is nearly the same number. A reply whose
/// mark was evicted leaves unchanged and unrecorded; its device receives the Gateway Identity, and its row, with its
/// next exchange.
#[map]
static EXCHANGES: LruHashMap<ExchangeKey, Mark> = LruHashMap::with_max_entries(EXCHANGES_MAXIMUM, 0);

#[map]
static STICKY: HashMap<ClientKey, u32> = HashMap::with_max_entries(STICKY_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

/// Evictions are not counted, for the same reason as with `EXCHANGES`. The map is only read at a start and after the
/// ring lost events, and it holds as many clients as the table holds bindings. Only a flood of newcomers can evict a
/// client; if the ring lost the client's ACK too, its device gets a row with its next renewal.
#[map]
static LAST_ACK: LruHashMap<ClientKey, LastAck> = LruHashMap::with_max_entries(LAST_ACKS_MAXIMUM, 0);

#[map]
static NEIGHBOURS: HashMap<NeighbourKey, Neighbour> =
    HashMap::with_max_entries(NEIGHBOURS_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

#[map]
static NEWCOMERS: Array<Newcomer> = Array::with_max_entries(NEWCOMERS_MAXIMUM, 0);

#[map]
static BUDGETS: LruHashMap<u64, Budget> = LruHashMap::with_max_entries(BUDGETS_MAXIMUM, 0);

#[map]
static SOURCE_BUDGETS: LruHashMap<u64, Budget> = LruHashMap::with_max_entries(BUDGETS_MAXIMUM, 0);

#[map]
static DHCP_BUDGETS: LruHashMap<u64, Budget> = LruHashMap::with_max_entries(BUDGETS_MAXIMUM, 0);

#[map]
static WAN_BUDGETS: LruHashMap<u64, Budget> = LruHashMap::with_max_entries(WAN_BUDGETS_MAXIMUM, 0);

#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(FLOWS_MAXIMUM, 0);

/// Not pinned: it describes what the programs of this agent have seen.
#[map]
static REPLIES: LruHashMap<u32, u64> = LruHashMap::with_max_entries(REPLIES_MAXIMUM, 0);

/// Not pinned: it describes what the programs of this agent have seen.
#[map]
static FOREIGN_REPLIES: LruHashMap<u32, u64> = LruHashMap::with_max_entries(REPLIES_MAXIMUM, 0);

/// Not pinned: each agent fills its own map before it attaches the programs.
#[map]
static BRIDGE_PORTS: HashMap<u32, u32> =
    HashMap::with_max_entries(BRIDGE_PORTS_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

/// Not pinned: it describes what the programs of this agent have seen.
#[map]
static MERGED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(REPLIES_MAXIMUM, 0);

/// The program for merged datagrams. Pinned, because the kernel empties a program array that only programs refer to.
#[map]
static TURNS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// `LISTENERS`, `OWN_ADDRESSES` and `BINDINGS` belong to the ACS and are not pinned. In other roles the agent creates
/// them with one entry.
#[map]
static LISTENERS: HashMap<ListenerKey, Endpoint> = HashMap::with_max_entries(LISTENERS_MAXIMUM, 0);

#[map]
static OWN_ADDRESSES: HashMap<[u8; 4], u32> =
    HashMap::with_max_entries(OWN_ADDRESSES_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

#[map]
static BINDINGS: HashMap<BindingKey, u64> = HashMap::with_max_entries(BINDINGS_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A client that identified itself and has no row yet. Each hash value has one slot; a collision replaces the older
/// client.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Newcomer {
    time: u64,
    client: ClientKey,
}

/// Working memory for one frame. `header` and `frame` are adjacent, because together they are one record of the ring.
#[repr(C)]
pub struct Scratch {
    /// Header of the event.
    pub header: Header,
    /// The copy of the frame.
    pub frame: Copied,
    /// Metadata of the frame.
    pub seen: Seen,
    /// The walk over the DHCP options.
    pub walk: Walk,
    /// The attributes of a STUN request.
    pub demands: Demands,
    /// The change to a reply.
    pub change: Change,
    /// The progress in a merged frame.
    pub parts: Parts,
    /// The mark of the exchange.
    pub mark: Mark,
    /// The record of an ACK.
    pub last_ack: LastAck,
}

/// Time in nanoseconds for which a newcomer is remembered: 1 h (T-4).
const NEWCOMER_NANOSECONDS: u64 = 3_600_000_000_000;

/// Increments a counter on this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter.slot()) {
        // SAFETY: the map returned a live pointer to this CPU's value, and programs do not preempt each other on a CPU
        // in a way that tears a `u64`.
        unsafe { *value += 1 };
    }
}

/// The settings; `None` never occurs, but the verifier requires the check.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// The current Gateway Identity, as an option.
#[inline(always)]
pub fn gateway() -> Option<&'static GatewayOption> {
    GATEWAY.get(u32::from(config()?.gateway_slot & 1))
}

/// This CPU's working memory.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: one program at a time runs on a CPU with this map's single value, and each takes it once.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Stores the mark of an exchange.
#[inline(always)]
pub fn mark_exchange(key: &ExchangeKey, mark: &Mark) {
    // The REQUEST of an exchange finds the mark of its DISCOVER. An update in place does not move it in the LRU lists.
    if let Some(known) = EXCHANGES.get_ptr_mut(key) {
        // SAFETY: the map returned a live pointer; a reader on another CPU sees old or new words, and both are valid.
        unsafe { *known = *mark };
        return;
    }
    // An insertion into an LRU map only fails without memory. The agent then misses the reply, as if the ring were
    // full.
    let _ = EXCHANGES.insert(key, mark, 0);
}

/// Copies the mark of a reply's exchange to `copy`; `false` if the exchange is not marked.
#[inline(always)]
pub fn find_exchange(key: &ExchangeKey, copy: &mut Mark) -> bool {
    // SAFETY: the kernel keeps an entry's memory while a program runs.
    let Some(mark) = (unsafe { EXCHANGES.get(key) }) else { return false };
    *copy = *mark;
    // The map reuses the memory of an evicted entry, possibly while this program copies it on another CPU. A mark that
    // is updated in place belongs to the same client.
    // SAFETY: as above.
    unsafe { EXCHANGES.get(key) }.is_some_and(|still| core::ptr::eq(still, mark))
}

/// Stores the record of an ACK.
#[inline(always)]
pub fn remember_ack(client: &ClientKey, ack: &LastAck) {
    // It only fails without memory, and the ring has the ACK too.
    let _ = LAST_ACK.insert(client, ack, 0);
}

/// Copies the identity in the client's stored record to `record`, if there is one.
#[inline(always)]
pub fn recall_identity(client: &ClientKey, record: &mut LastAck) {
    // SAFETY: as in `find_exchange`.
    let Some(known) = (unsafe { LAST_ACK.get(client) }) else { return };
    record.identity = known.identity;
    record.identity_length = known.identity_length;
    // SAFETY: as in `find_exchange`.
    if !unsafe { LAST_ACK.get(client) }.is_some_and(|still| core::ptr::eq(still, known)) {
        record.identity_length = 0;
    }
}

/// The stored record of a client's last ACK, for an update in place.
#[inline(always)]
pub fn last_ack(client: &ClientKey) -> Option<&'static mut LastAck> {
    // SAFETY: the map returned a live pointer. The entry may meanwhile belong to another client, whose record then says
    // that its lease has ended; the agent compares the record with its own state.
    LAST_ACK.get_ptr_mut(client).map(|record| unsafe { &mut *record })
}

/// Removes the record of a client's last ACK, because the server refused the lease to the station `source`. The record of
/// a lease that another station requested is kept.
#[inline(always)]
pub fn forget_ack(client: &ClientKey, source: [u8; 6]) {
    if last_ack(client).is_some_and(|record| record.source == source) {
        let _ = LAST_ACK.remove(client);
    }
}

/// Records an ARP message, if the agent tracks its sender address.
#[inline(always)]
pub fn refresh_neighbour(key: &NeighbourKey, mac: [u8; 6], now: u64) {
    if let Some(neighbour) = NEIGHBOURS.get_ptr_mut(key) {
        // SAFETY: the map returned a live, aligned pointer; a reader on another CPU sees old or new words, and both are
        // valid.
        unsafe { *neighbour = Neighbour { seen: now, mac, reserved: [0; 2] } };
    }
}

/// Whether the client has identified itself before: it has a row or is a newcomer.
#[inline(always)]
pub fn is_sticky(client: &ClientKey, now: u64) -> bool {
    // SAFETY: only the presence of the entry is used.
    if unsafe { STICKY.get(client) }.is_some() {
        return true;
    }
    NEWCOMERS
        .get(slot_of(client))
        .is_some_and(|newcomer| newcomer.client == *client && now.wrapping_sub(newcomer.time) < NEWCOMER_NANOSECONDS)
}

/// Stores a newcomer. A live newcomer that is overwritten is counted.
#[inline(always)]
pub fn remember_newcomer(client: &ClientKey, now: u64) {
    if let Some(slot) = NEWCOMERS.get_ptr_mut(slot_of(client)) {
        // SAFETY: the map returned a live pointer. Two CPUs may write the slot at once; a torn entry matches neither
        // client and is treated as absent.
        let newcomer = unsafe { &mut *slot };
        let live = newcomer.time != 0 && now.wrapping_sub(newcomer.time) < NEWCOMER_NANOSECONDS;
        if live && newcomer.client != *client {
            count(Counter::NewcomersLost);
        }
        *newcomer = Newcomer { time: now, client: *client };
    }
}

/// The kinds of token buckets.
#[derive(Clone, Copy)]
pub enum Purse {
    /// Events to the agent per DHCP client, keyed by a hash over its Ethernet source and its hardware address.
    Client,
    /// Events to the agent per Ethernet source.
    Source,
    /// Forwarded DHCP messages per Ethernet source, where DHCP is policed.
    Dhcp,
    /// Forwarded Connection Requests per IPv4 source, where these are policed.
    ConnectionRequests,
}

impl Purse {
    #[inline(always)]
    fn budgets(self) -> &'static LruHashMap<u64, Budget> {
        match self {
            Self::Client => &BUDGETS,
            Self::Source => &SOURCE_BUDGETS,
            Self::Dhcp => &DHCP_BUDGETS,
            Self::ConnectionRequests => &WAN_BUDGETS,
        }
    }

    /// The bucket of an address; `None` if there is none yet.
    #[inline(always)]
    pub fn find(self, address: u64) -> Option<&'static mut Budget> {
        // SAFETY: the map returned a live pointer. If two CPUs update it at once, one message more or less passes.
        self.budgets().get_ptr_mut(address).map(|budget| unsafe { &mut *budget })
    }

    /// Creates the bucket of an address.
    #[inline(always)]
    pub fn open(self, address: u64, budget: &Budget) {
        let _ = self.budgets().insert(address, budget, 0);
    }
}

/// Records a Binding Request of a flow. Returns whether the agent has to be told: the flow is new, has changed, or its
/// last event is older than [`FLOW_SAMPLE_NANOSECONDS`].
#[inline(always)]
pub fn refresh_flow(key: &FlowKey, now: u64, has_changed: bool) -> bool {
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: the map returned a live pointer to aligned words; two CPUs at once send one event too many.
        let flow = unsafe { &mut *flow };
        flow.seen = now;
        if !has_changed && now.wrapping_sub(flow.told) < FLOW_SAMPLE_NANOSECONDS {
            return false;
        }
        flow.told = now;
        return true;
    }
    let _ = FLOWS.insert(key, Flow { seen: now, told: now }, 0);
    true
}

/// Records that a reply of a marked exchange leaves through an interface.
#[inline(always)]
pub fn note_reply(ifindex: u32, now: u64) {
    // It only fails without memory, and the agent then raises a false alarm.
    note_time(&REPLIES, ifindex, now);
}

/// Records that a bridge forwards another server's reply to a marked exchange.
#[inline(always)]
pub fn note_foreign_reply(ifindex: u32, now: u64) {
    note_time(&FOREIGN_REPLIES, ifindex, now);
}

/// Records that merged datagrams at an interface could not be separated.
#[inline(always)]
pub fn note_merged(ifindex: u32) {
    // SAFETY: the helper has no arguments and reads a clock.
    note_time(&MERGED, ifindex, unsafe { bpf_ktime_get_boot_ns() });
}

/// Ends the program and continues in `lan_merged`. Returns if that is not loaded or the limit of tail calls is reached.
#[inline(always)]
pub fn go_on_with_parts(packet: &SkbFrame<'_>) {
    // SAFETY: the program that ends keeps its state in maps and has nothing to drop.
    unsafe { TURNS.tail_call(packet.program_context(), 0) };
}

#[inline(always)]
fn note_time(times: &LruHashMap<u32, u64>, ifindex: u32, now: u64) {
    if let Some(last) = times.get_ptr_mut(ifindex) {
        // SAFETY: the map returned a live pointer to an aligned word.
        unsafe { *last = now };
        return;
    }
    let _ = times.insert(ifindex, now, 0);
}

/// Kernel index of the LAN bridge to which a port belongs; `None` for other interfaces.
#[inline(always)]
pub fn bridge_of(ifindex: u32) -> Option<u32> {
    // SAFETY: the kernel keeps an entry's memory while a program runs.
    unsafe { BRIDGE_PORTS.get(ifindex) }.copied()
}

/// Records that a reply of a message type was forwarded. Returns whether one was forwarded before, since the last
/// request of the exchange.
#[inline(always)]
pub fn note_answer(key: &ExchangeKey, message_type: u8) -> bool {
    let Some(mark) = EXCHANGES.get_ptr_mut(key) else { return false };
    let bit = 1u8 << (message_type & 7);
    // SAFETY: the map returned a live pointer to a byte. One CPU sends the copies that a bridge floods, one after the
    // other.
    unsafe {
        let was_there = (*mark).answered & bit != 0;
        (*mark).answered |= bit;
        was_there
    }
}

/// The CHANGED-ADDRESS of the STUN server at this place; `None` if the server does not listen there.
#[inline(always)]
pub fn listener(key: &ListenerKey) -> Option<&'static Endpoint> {
    // SAFETY: the kernel keeps an entry's memory while a program runs.
    unsafe { LISTENERS.get(key) }
}

/// Whether only this machine can send from the address.
#[inline(always)]
pub fn is_own_address(address: [u8; 4]) -> bool {
    // SAFETY: only the presence of the entry is used.
    unsafe { OWN_ADDRESSES.get(address) }.is_some()
}

/// Updates the time of a registered binding; `false` if the binding is not registered.
#[inline(always)]
pub fn refresh_binding(key: &BindingKey, now: u64) -> bool {
    let Some(seen) = BINDINGS.get_ptr_mut(key) else { return false };
    // SAFETY: the map returned a live pointer to an aligned word.
    unsafe { *seen = now };
    true
}

#[inline(always)]
fn slot_of(client: &ClientKey) -> u32 {
    // Hashes of sequential MAC addresses differ in few bits; the multiplication moves all of them to the top.
    (client.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as u32 % NEWCOMERS_MAXIMUM
}
