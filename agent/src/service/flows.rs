//! The NAT bindings of LAN devices as the gateway observes them: the flows that carry CONNECTION-REQUEST-BINDING
//! (TR-111 2.2.1.3), the devices they belong to, and their NAT timeouts.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tr111_common::{
    abi::{FLOWS_MAXIMUM, Flow, FlowKey},
    classify,
    event::Event,
    headers::{self, Wanted},
    stun::USERNAME_MAXIMUM,
};
use tr111_core::{
    association::Association,
    stun::{Message, Username},
    time::BootTime,
};

use super::Clock;
use crate::{
    control::message::NatBinding,
    nat::{self, Ends, Extension, Nat},
    os::netlink::{self, Netlink},
};

/// Time from a Binding Request at LAN ingress to the entry of its flow in the connection tracker. The stack needs less.
const CONFIRMED: Duration = Duration::from_millis(100);
/// Tolerance between the timeout of a flow and the extended timeout: the connection tracker has its own tick.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Greatest number of flows, twice what the programs can record, so that the flows are rarely compared.
const CROWD: usize = 2 * FLOWS_MAXIMUM as usize;

/// Upper bound of the memory of a flow, in bytes: 64 MiB for [`CROWD`] flows.
#[cfg(test)]
const FLOW: usize = 512;

/// Greatest number of concurrent lookups of new flows. Each takes little more than [`CONFIRMED`], so more than 2000
/// flows per second can be looked up.
const LOOKS: usize = 256;

/// The content of Binding Requests, by flow. None of it is authenticated.
#[derive(Debug)]
pub(super) struct Flows {
    heard: HashMap<FlowKey, Heard>,
    looks: Arc<Semaphore>,
}

impl Default for Flows {
    fn default() -> Self {
        Self { heard: HashMap::new(), looks: Arc::new(Semaphore::new(LOOKS)) }
    }
}

#[derive(Clone, Debug)]
struct Heard {
    /// STUNUsername, of at most 256 bytes (DM-25).
    username: Option<Box<[u8]>>,
    /// When the flow was first seen, or its last BINDING-CHANGE.
    changed: BootTime,
}

/// A flow with its binding, without the data of the connection tracker.
pub(super) struct Listed {
    key: FlowKey,
    flow: Flow,
    binding: NatBinding,
}

impl Flows {
    /// Takes an event of the hook `lan_binding`. Returns the key of a new flow.
    pub(super) fn take(&mut self, event: &Event<'_>) -> Option<FlowKey> {
        let udp = headers::find_udp(event.frame, event.metadata_tag, Wanted::Any).ok()?;
        let key = classify::flow_key(event.frame, event.segment, &udp);
        let payload = event.frame.get(udp.payload as usize..udp.end as usize)?;
        let message = Message::parse(payload).ok()?;
        let name = message.username().map(Username::trimmed);
        let username = name.filter(|name| name.len() <= USERNAME_MAXIMUM as usize).map(Box::from);
        let is_new = !self.heard.contains_key(&key);
        let heard = self.heard.entry(key).or_insert(Heard { username: None, changed: BootTime(event.time) });
        if message.has_binding_change() {
            heard.changed = BootTime(event.time);
        }
        if username.is_some() {
            heard.username = username;
        }
        is_new.then_some(key)
    }

    /// Removes the flows that the programs no longer know.
    pub(super) fn retain(&mut self, known: &HashMap<FlowKey, Flow>) {
        self.heard.retain(|key, _| known.contains_key(key));
    }

    /// Whether there are more flows than the programs can know, so that [`Self::retain`] is due. Any host can forge
    /// flows.
    pub(super) fn is_crowded(&self) -> bool {
        self.heard.len() >= CROWD
    }

    /// A permit to look up a new flow, released when it is dropped. `None` if too many lookups are running; the flow is
    /// then not counted as extended, but is listed correctly.
    pub(super) fn leave_to_look(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.looks).try_acquire_owned().ok()
    }

    pub(super) fn len(&self) -> usize {
        self.heard.len()
    }

    /// The flows that the programs still know, ordered by address. Other flows are removed.
    pub(super) fn list(&mut self, known: Vec<(FlowKey, Flow)>, core: &Association, clock: &Clock) -> Vec<Listed> {
        let known: HashMap<FlowKey, Flow> = known.into_iter().collect();
        self.retain(&known);
        let mut owners = HashMap::new();
        for device in core.devices() {
            for binding in device.bindings {
                owners.insert((binding.client.segment.ifindex, binding.ip), device.identity);
            }
        }
        let mut listed: Vec<Listed> = known
            .into_iter()
            .map(|(key, flow)| {
                let heard = self.heard.get(&key);
                let source = Ipv4Addr::from(key.source);
                let owner = owners.get(&(key.segment.ifindex, source));
                let binding = NatBinding {
                    username: heard
                        .and_then(|heard| heard.username.as_deref())
                        .map(|name| String::from_utf8_lossy(name).into_owned()),
                    address: SocketAddrV4::new(source, key.source_port).to_string(),
                    changed: heard.map(|heard| clock.rfc3339(heard.changed)),
                    last_seen: Some(clock.rfc3339(BootTime(flow.seen))),
                    device: Some(owner.map_or_else(|| source.to_string(), ToString::to_string)),
                    ..NatBinding::default()
                };
                Listed { key, flow, binding }
            })
            .collect();
        listed.sort_unstable_by_key(|listed| listed.key);
        listed
    }
}

/// Completes the list with data of the connection tracker and of the nft table.
pub(super) async fn look_up(listed: Vec<Listed>, nat: Option<Look>) -> Vec<NatBinding> {
    let mut bindings = Vec::with_capacity(listed.len());
    let marked = match &nat {
        Some(look) if !listed.is_empty() => look.marked().await,
        _ => None,
    };
    for Listed { key, flow, mut binding } in listed {
        let entry = match &nat {
            Some(look) => look.entry(&key).await,
            None => None,
        };
        if let Some(entry) = entry {
            binding.address = entry.mapped.to_string();
        }
        let extension = nat.as_ref().map_or(Extension::Off, |look| look.extension);
        let timeout = entry.map(|entry| entry.left + Clock::now().since(BootTime(flow.seen)).unwrap_or_default());
        let judged = judge(extension, timeout, has_lost_mark(extension, &key, flow, marked.as_ref()));
        binding.timeout_s = timeout.map(|left| match (judged, extension) {
            (None, Extension::On { timeout, .. }) => timeout.as_secs(),
            _ => left.as_secs(),
        });
        binding.extended = Some(judged.is_none() && timeout.is_some());
        binding.why = judged.map(ToOwned::to_owned);
        bindings.push(binding);
    }
    bindings
}

/// Returns why a flow with the remaining timeout `left` is not extended; `None` if it is extended.
fn judge(extension: Extension, left: Option<Duration>, has_lost_mark: bool) -> Option<&'static str> {
    match (extension, left) {
        (Extension::Off, _) => Some("off"),
        (Extension::NoNft, _) => Some("no_nft"),
        (Extension::Owned(_), _) => Some("table_of_another_gateway"),
        (Extension::On { .. }, None) => Some("no_flow"),
        (Extension::On { timeout, .. }, Some(left)) if left + TOLERANCE < timeout => {
            Some(if has_lost_mark { "mark_missing" } else { "flow_older_than_policy" })
        }
        (Extension::On { .. }, Some(_)) => None,
    }
}

/// Whether the rule did not see the mark of a flow, although the program marked a packet of the flow after the rule was
/// added: another rule or program has changed the mark. `marked` are the flows whose mark the rule saw; `None` if that
/// is not known.
fn has_lost_mark(extension: Extension, key: &FlowKey, flow: Flow, marked: Option<&HashSet<Ends>>) -> bool {
    let (Extension::On { since, .. }, Some(marked)) = (extension, marked) else { return false };
    let seen = BootTime(flow.seen);
    since <= seen && seen + nat::MEMORY > Clock::now() && !marked.contains(&ends(key))
}

/// Source and destination of a flow.
fn ends(key: &FlowKey) -> Ends {
    (
        SocketAddrV4::new(key.source.into(), key.source_port),
        SocketAddrV4::new(key.destination.into(), key.destination_port),
    )
}

/// The data for a lookup outside the owner's task.
#[derive(Clone, Debug)]
pub(super) struct Look {
    conntrack: Option<Netlink>,
    extension: Extension,
}

impl Look {
    pub(super) fn new(nat: &Nat) -> Self {
        Self { conntrack: nat.conntrack(), extension: nat.extension() }
    }

    /// The flows whose mark the rule saw.
    async fn marked(&self) -> Option<HashSet<Ends>> {
        let Extension::On { .. } = self.extension else { return None };
        tokio::task::spawn_blocking(nat::marked).await.ok()?
    }

    async fn entry(&self, key: &FlowKey) -> Option<netlink::Flow> {
        let (source, destination) = ends(key);
        let found = self.conntrack.as_ref()?.udp_flow(source, destination).await;
        found.inspect_err(|error| tracing::debug!(%error, "cannot read the connection tracker")).ok()?
    }

    /// Whether a flow has the extended timeout. Waits until the connection tracker has the new flow.
    pub(super) async fn is_extended(&self, key: &FlowKey) -> bool {
        let Extension::On { .. } = self.extension else { return false };
        sleep(CONFIRMED).await;
        let left = self.entry(key).await.map(|entry| entry.left);
        judge(self.extension, left.map(|left| left + CONFIRMED), false).is_none()
    }
}

#[cfg(test)]
mod tests {
    use tr111_common::{
        counter::{Class, Hook},
        headers::Segment,
    };

    use super::*;

    /// SEC-8: forged flows do not exhaust memory: flows that the programs have forgotten are removed.
    #[test]
    fn flows_that_the_programs_forgot_go_when_it_is_crowded() {
        let mut flows = Flows::default();
        let key = |number: u32| FlowKey {
            segment: Segment::default(),
            source: number.to_be_bytes(),
            destination: [203, 0, 113, 10],
            source_port: 5000,
            destination_port: 3478,
        };
        let heard = Heard { username: None, changed: BootTime(1) };
        flows.heard.extend((1..CROWD as u32).map(|number| (key(number), heard.clone())));
        assert!(!flows.is_crowded());
        flows.heard.insert(key(0), heard);
        assert!(flows.is_crowded());
        flows.retain(&HashMap::from([(key(7), Flow::default())]));
        assert_eq!(flows.heard.into_keys().collect::<Vec<_>>(), [key(7)]);
    }

    /// Passes a Binding Request with USERNAME, in the form in which the hook delivers it.
    fn take(flows: &mut Flows, username: &[u8]) -> Option<Box<[u8]>> {
        let attribute = [&[0, 6], &(username.len() as u16).to_be_bytes()[..], username].concat();
        let stun = [&[0, 1], &(attribute.len() as u16).to_be_bytes()[..], &[7; 16], &attribute].concat();
        let udp_length = (8 + stun.len() as u16).to_be_bytes();
        let udp = [&[0x13, 0x88, 0x0d, 0x96][..], &udp_length, &[0, 0], &stun].concat();
        let total = (20 + udp.len() as u16).to_be_bytes();
        let ip = [&[0x45, 0][..], &total, &[0, 0, 0, 0, 64, 17, 0, 0, 10, 111, 2, 5, 203, 0, 113, 10], &udp].concat();
        let frame = [&[2; 12][..], &[8, 0], &ip].concat();
        let (class, hook, segment) = (Class::Binding, Hook::LanBinding, Segment::default());
        let key = flows.take(&Event { time: 1, segment, metadata_tag: None, class, hook, frame: &frame });
        flows.heard.remove(&key.expect("a new flow")).expect("it is known").username
    }

    /// DM-25: a longer USERNAME is not a STUNUsername and is not stored.
    #[test]
    fn usernames_are_bounded_where_they_come_in() {
        let mut flows = Flows::default();
        assert_eq!(take(&mut flows, b"CPE1    ").as_deref(), Some(b"CPE1".as_slice()));
        assert_eq!(take(&mut flows, b"CPE1\0\0\0\0").as_deref(), Some(b"CPE1".as_slice()));
        assert_eq!(take(&mut flows, b"CPE\x001\0\0\0").as_deref(), Some(b"CPE\x001".as_slice()));
        assert_eq!(take(&mut flows, &[0xff; 256]).as_deref(), Some([0xff; 256].as_slice()));
        assert_eq!(take(&mut flows, &[1; 260]), None);
        assert_eq!(take(&mut flows, &[b'x'; 1_400]), None);
    }

    /// SEC-8: at most 512 bytes per flow, 64 MiB for all flows.
    #[test]
    fn memory_of_a_flow_is_bounded() {
        // Overhead of the allocator for each allocation.
        const HEAD: usize = 16;
        const { assert!(CROWD * FLOW == 64 << 20) };
        let flows: HashMap<FlowKey, Heard> = HashMap::with_capacity(CROWD);
        // A hash map of the standard library has 8/7 slots of its capacity, with a control byte for each.
        let table = (flows.capacity() * 8 / 7) * (size_of::<(FlowKey, Heard)>() + 1) + HEAD;
        let names = CROWD * (USERNAME_MAXIMUM as usize + HEAD);
        assert!(table + names <= CROWD * FLOW, "{table} and {names}");
    }

    /// SEC-8: a flood of forged flows causes a bounded number of requests to the connection tracker.
    #[test]
    fn so_many_flows_are_looked_up_at_a_time_and_no_more() {
        let flows = Flows::default();
        let mut under_way: Vec<_> = (0..LOOKS).map_while(|_| flows.leave_to_look()).collect();
        assert_eq!(under_way.len(), LOOKS);
        assert!(flows.leave_to_look().is_none());
        under_way.pop();
        assert!(flows.leave_to_look().is_some(), "one that is done makes room");
    }

    /// STUN-5: the reason is given for a flow that is not extended.
    #[test]
    fn says_why_a_flow_is_not_extended() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let on = Extension::On { timeout: Duration::from_mins(5), since: BootTime(1) };
        assert_eq!(judge(on, seconds(300), false), None);
        assert_eq!(judge(on, seconds(299), true), None);
        assert_eq!(judge(on, seconds(120), false), Some("flow_older_than_policy"));
        assert_eq!(judge(on, seconds(120), true), Some("mark_missing"));
        assert_eq!(judge(on, None, true), Some("no_flow"));
        assert_eq!(judge(Extension::Off, seconds(30), false), Some("off"));
        assert_eq!(judge(Extension::NoNft, seconds(30), false), Some("no_nft"));
        let owned = Extension::Owned(nat::Owner { pid: Some(1) });
        assert_eq!(judge(owned, seconds(30), false), Some("table_of_another_gateway"));
    }

    /// STUN-5: a mark is missing if the rule must have seen it and did not.
    #[test]
    fn a_mark_is_missing_only_where_the_rule_had_to_see_it() {
        let key = FlowKey {
            segment: Segment::default(),
            source: [192, 168, 1, 2],
            destination: [203, 0, 113, 10],
            source_port: 5000,
            destination_port: 3478,
        };
        let now = Clock::now();
        let on = Extension::On { timeout: Duration::from_mins(5), since: now };
        let seen = |at: BootTime| Flow { seen: at.0, told: 0 };
        let (none, all) = (HashSet::new(), HashSet::from([ends(&key)]));
        assert!(has_lost_mark(on, &key, seen(now), Some(&none)));
        assert!(!has_lost_mark(on, &key, seen(now), Some(&all)), "the rule saw it");
        assert!(!has_lost_mark(on, &key, seen(now), None), "nobody knows");
        assert!(!has_lost_mark(on, &key, seen(BootTime(now.0 - 1)), Some(&none)), "before the rule");
        assert!(!has_lost_mark(Extension::NoNft, &key, seen(now), Some(&none)), "no rule");
    }
}
