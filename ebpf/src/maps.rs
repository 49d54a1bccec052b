//! The maps, and the safe ways to use them.

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

/// The kernel evicts from an LRU map without a word to the program, so evictions are not counted here. Nearly the same is:
/// the agent remembers as many exchanges, and counts those that it forgets (`exchange_evicted`). A reply whose mark is
/// gone leaves as the server sent it, unseen: its device gets the Gateway Identity, and its row, with its next exchange.
#[map]
static EXCHANGES: LruHashMap<ExchangeKey, Mark> = LruHashMap::with_max_entries(EXCHANGES_MAXIMUM, 0);

#[map]
static STICKY: HashMap<ClientKey, u32> = HashMap::with_max_entries(STICKY_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

/// Evictions are not counted, as for `EXCHANGES`. The map is read only at a start and after the ring lost events, and holds
/// as many clients as the table holds bindings, so it takes a flood of newcomers to push one out. Then, and only if the
/// ring lost its ACK as well, a device gets its row with its next renewal.
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

/// Not pinned: it says what this agent's programs saw.
#[map]
static REPLIES: LruHashMap<u32, u64> = LruHashMap::with_max_entries(REPLIES_MAXIMUM, 0);

/// As above.
#[map]
static FOREIGN_REPLIES: LruHashMap<u32, u64> = LruHashMap::with_max_entries(REPLIES_MAXIMUM, 0);

/// Not pinned: each agent fills its own before it attaches.
#[map]
static BRIDGE_PORTS: HashMap<u32, u32> =
    HashMap::with_max_entries(BRIDGE_PORTS_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

/// When datagrams were last merged at an interface and not told apart. As above.
#[map]
static MERGED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(REPLIES_MAXIMUM, 0);

/// The program for merged datagrams. Pinned, because the kernel empties it when nobody but programs has it.
#[map]
static TURNS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// What follows is the ACS's; the other roles have it with room for one entry.
#[map]
static LISTENERS: HashMap<ListenerKey, Endpoint> = HashMap::with_max_entries(LISTENERS_MAXIMUM, 0);

#[map]
static OWN_ADDRESSES: HashMap<[u8; 4], u32> =
    HashMap::with_max_entries(OWN_ADDRESSES_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

#[map]
static BINDINGS: HashMap<BindingKey, u64> = HashMap::with_max_entries(BINDINGS_MAXIMUM, 1 /* BPF_F_NO_PREALLOC */);

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A client that identified itself and has no row yet. One slot a hash value: a collision takes the older one's place.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Newcomer {
    time: u64,
    client: ClientKey,
}

/// Where a program works on one frame. `header` and `frame` are one ring record.
#[repr(C)]
pub struct Scratch {
    /// Header of the event.
    pub header: Header,
    /// The frame.
    pub frame: Copied,
    /// What is known of it besides.
    pub seen: Seen,
    /// The walk over its options.
    pub walk: Walk,
    /// What a STUN message asks for.
    pub demands: Demands,
    /// What a reply gains.
    pub change: Change,
    /// The walk over the datagrams of a merged frame.
    pub parts: Parts,
    /// The mark that an exchange gets.
    pub mark: Mark,
    /// The record that an ACK leaves.
    pub last_ack: LastAck,
}

/// How long a newcomer is remembered without a row: 1 h (requirement T-4).
const NEWCOMER_NANOSECONDS: u64 = 3_600_000_000_000;

/// Adds one.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter.slot()) {
        // SAFETY: the map gave a live pointer to this CPU's value, and programs do not preempt each other on a CPU's
        // own slot in a way that tears a `u64`.
        unsafe { *value += 1 };
    }
}

/// The settings.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// The Gateway Identity as an option.
#[inline(always)]
pub fn gateway() -> Option<&'static GatewayOption> {
    GATEWAY.get(u32::from(config()?.gateway_slot & 1))
}

/// This CPU's scratch space.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: one program at a time runs on a CPU with this map's single value, and each takes it once.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Remembers an exchange.
#[inline(always)]
pub fn mark_exchange(key: &ExchangeKey, mark: &Mark) {
    // The REQUEST of an exchange finds the mark of its DISCOVER; writing in place saves moving it in the LRU lists.
    if let Some(known) = EXCHANGES.get_ptr_mut(key) {
        // SAFETY: the map gave a live pointer; a reader on another CPU sees old or new words, and either is right.
        unsafe { *known = *mark };
        return;
    }
    // An LRU map always takes the entry; the only failure is memory, and then the agent's view of the reply is lost
    // as if the ring were full.
    let _ = EXCHANGES.insert(key, mark, 0);
}

/// Copies the mark of a reply's exchange to `copy`; `false` where there is none.
#[inline(always)]
pub fn find_exchange(key: &ExchangeKey, copy: &mut Mark) -> bool {
    // SAFETY: the kernel keeps an entry's memory while a program runs.
    let Some(mark) = (unsafe { EXCHANGES.get(key) }) else { return false };
    *copy = *mark;
    // The map reuses the memory of an entry that it evicts, and another CPU may have done so meanwhile. A mark that
    // changes in its place is one of the same client.
    // SAFETY: as above.
    unsafe { EXCHANGES.get(key) }.is_some_and(|still| core::ptr::eq(still, mark))
}

/// Remembers how an exchange ended.
#[inline(always)]
pub fn remember_ack(client: &ClientKey, ack: &LastAck) {
    // As for marks: only memory can be missing, and the ring has the ACK too.
    let _ = LAST_ACK.insert(client, ack, 0);
}

/// Copies the identity that is known of a client's last ACK into `record`.
#[inline(always)]
pub fn recall_identity(client: &ClientKey, record: &mut LastAck) {
    // SAFETY: as for marks.
    let Some(known) = (unsafe { LAST_ACK.get(client) }) else { return };
    record.identity = known.identity;
    record.identity_length = known.identity_length;
    // SAFETY: as for marks.
    if !unsafe { LAST_ACK.get(client) }.is_some_and(|still| core::ptr::eq(still, known)) {
        record.identity_length = 0;
    }
}

/// The record of a client's last ACK, to be changed in its place.
#[inline(always)]
pub fn last_ack(client: &ClientKey) -> Option<&'static mut LastAck> {
    // SAFETY: the map gave a live pointer. It may be another client's by now, whose record then says that its lease has
    // ended; the agent compares it with what it knows.
    LAST_ACK.get_ptr_mut(client).map(|record| unsafe { &mut *record })
}

/// Forgets a client's last ACK: its lease was refused.
#[inline(always)]
pub fn forget_ack(client: &ClientKey) {
    let _ = LAST_ACK.remove(client);
}

/// Notes an ARP message, if its address is one that the agent watches.
#[inline(always)]
pub fn refresh_neighbour(key: &NeighbourKey, mac: [u8; 6], now: u64) {
    if let Some(neighbour) = NEIGHBOURS.get_ptr_mut(key) {
        // SAFETY: the map gave a live, aligned pointer; a reader on another CPU sees old or new words, and either is right.
        unsafe { *neighbour = Neighbour { seen: now, mac, reserved: [0; 2] } };
    }
}

/// Whether the client gave an identity before: it has a row, or it is a newcomer.
#[inline(always)]
pub fn is_sticky(client: &ClientKey, now: u64) -> bool {
    // SAFETY: only presence is asked for.
    if unsafe { STICKY.get(client) }.is_some() {
        return true;
    }
    NEWCOMERS
        .get(slot_of(client))
        .is_some_and(|newcomer| newcomer.client == *client && now.wrapping_sub(newcomer.time) < NEWCOMER_NANOSECONDS)
}

/// Remembers a client that identified itself; counts the live newcomer whose slot it takes.
#[inline(always)]
pub fn remember_newcomer(client: &ClientKey, now: u64) {
    if let Some(slot) = NEWCOMERS.get_ptr_mut(slot_of(client)) {
        // SAFETY: the map gave a live pointer. Two CPUs may write the slot at once; a torn entry equals neither key,
        // and reads as absent.
        let newcomer = unsafe { &mut *slot };
        let live = newcomer.time != 0 && now.wrapping_sub(newcomer.time) < NEWCOMER_NANOSECONDS;
        if live && newcomer.client != *client {
            count(Counter::NewcomersLost);
        }
        *newcomer = Newcomer { time: now, client: *client };
    }
}

/// What a budget is for.
#[derive(Clone, Copy)]
pub enum Purse {
    /// What a DHCP client may bring to the agent, by the hash over its Ethernet source and its hardware address.
    Client,
    /// What an Ethernet source may bring to the agent.
    Source,
    /// The DHCP messages of an Ethernet source, where they are policed.
    Dhcp,
    /// The Connection Requests of a source, where they are policed.
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

    /// The budget of an address, if it is known.
    #[inline(always)]
    pub fn find(self, address: u64) -> Option<&'static mut Budget> {
        // SAFETY: the map gave a live pointer. Two CPUs may update it at once: then one message more or less is let by.
        self.budgets().get_ptr_mut(address).map(|budget| unsafe { &mut *budget })
    }

    /// Opens the budget of an address.
    #[inline(always)]
    pub fn open(self, address: u64, budget: &Budget) {
        let _ = self.budgets().insert(address, budget, 0);
    }
}

/// Notes that a flow is there, and says whether the agent is to be told: it is new, has changed, or was last told
/// some time ago.
#[inline(always)]
pub fn refresh_flow(key: &FlowKey, now: u64, has_changed: bool) -> bool {
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: the map gave a live pointer to aligned words; two CPUs at once tell the agent once more.
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

/// Notes that a reply of a marked exchange leaves by an interface.
#[inline(always)]
pub fn note_reply(ifindex: u32, now: u64) {
    // Only memory can be missing, and then the agent raises an alarm that is none.
    note_time(&REPLIES, ifindex, now);
}

/// Notes that a bridge forwards a reply of another server to a marked exchange.
#[inline(always)]
pub fn note_foreign_reply(ifindex: u32, now: u64) {
    note_time(&FOREIGN_REPLIES, ifindex, now);
}

/// Notes that datagrams were merged at an interface, and not told apart.
#[inline(always)]
pub fn note_merged(ifindex: u32) {
    // SAFETY: the helper takes nothing and reads a clock.
    note_time(&MERGED, ifindex, unsafe { bpf_ktime_get_boot_ns() });
}

/// Ends the program and goes on with `lan_merged`, unless there is none or the kernel allows no further turn.
#[inline(always)]
pub fn go_on_with_parts(packet: &SkbFrame<'_>) {
    // SAFETY: what the program that ends holds lies in maps, and has no destructor.
    unsafe { TURNS.tail_call(packet.program_context(), 0) };
}

#[inline(always)]
fn note_time(times: &LruHashMap<u32, u64>, ifindex: u32, now: u64) {
    if let Some(last) = times.get_ptr_mut(ifindex) {
        // SAFETY: the map gave a live pointer to an aligned word.
        unsafe { *last = now };
        return;
    }
    let _ = times.insert(ifindex, now, 0);
}

/// The kernel index of the LAN bridge that an interface is a port of.
#[inline(always)]
pub fn bridge_of(ifindex: u32) -> Option<u32> {
    // SAFETY: the kernel keeps an entry's memory while a program runs.
    unsafe { BRIDGE_PORTS.get(ifindex) }.copied()
}

/// Notes that a reply of some message type was forwarded; whether one was before, since the last request of its exchange.
#[inline(always)]
pub fn note_answer(key: &ExchangeKey, message_type: u8) -> bool {
    let Some(mark) = EXCHANGES.get_ptr_mut(key) else { return false };
    let bit = 1u8 << (message_type & 7);
    // SAFETY: the map gave a live pointer to a byte. The copies that a bridge floods leave one after the other on one CPU.
    unsafe {
        let was_there = (*mark).answered & bit != 0;
        (*mark).answered |= bit;
        was_there
    }
}

/// The CHANGED-ADDRESS of the STUN server, if it listens there.
#[inline(always)]
pub fn listener(key: &ListenerKey) -> Option<&'static Endpoint> {
    // SAFETY: the kernel keeps an entry's memory while a program runs.
    unsafe { LISTENERS.get(key) }
}

/// Whether nobody but this machine could send from an address.
#[inline(always)]
pub fn is_own_address(address: [u8; 4]) -> bool {
    // SAFETY: only presence is asked for.
    unsafe { OWN_ADDRESSES.get(address) }.is_some()
}

/// Notes that a binding was heard of, if it is registered.
#[inline(always)]
pub fn refresh_binding(key: &BindingKey, now: u64) -> bool {
    let Some(seen) = BINDINGS.get_ptr_mut(key) else { return false };
    // SAFETY: the map gave a live pointer to an aligned word.
    unsafe { *seen = now };
    true
}

#[inline(always)]
fn slot_of(client: &ClientKey) -> u32 {
    // Sequential MAC addresses differ in few bits of the hash: the multiplication gathers all of them at the top.
    (client.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as u32 % NEWCOMERS_MAXIMUM
}
