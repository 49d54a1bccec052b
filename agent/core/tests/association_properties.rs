//! Property tests: any order of messages, compared with a simple model.
//!
//! After each event, [`lan::Lan`] checks that the table, its outputs and its counters agree, and that each row has a
//! binding and a unique key. These tests also compare the table with the model.

mod lan;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use lan::{Client, GATEWAY, Lan, ip};
use proptest::prelude::*;
use tr111_common::dhcp4::{MessageType, option};
use tr111_core::{association::Settings, dhcp::Message, time::BootTime};

/// Few clients, identities and addresses, so that they interfere.
const CLIENTS: u8 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// A DISCOVER without a reply.
    Discover(u8, Option<u8>),
    /// A REQUEST and its reply: an address and a lease in seconds, NAK, or none.
    Request(u8, Option<u8>, Answer),
    Inform(u8, Option<u8>, u8, bool),
    Release(u8, u8),
    Decline(u8, u8),
    /// The last ACK or NAK is sent again.
    Repeat,
    /// The agent restarts.
    Restart,
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Ack(u8, u32),
    Foreign(u8),
    Nak,
    Silence,
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    let serial = || prop::option::weighted(0.8, 0u8..4);
    let host = || 1u8..5;
    let answer = prop_oneof![
        6 => (host(), prop_oneof![Just(0u32), 1u32..200, Just(u32::MAX)]).prop_map(|(host, lease)| Answer::Ack(host, lease)),
        1 => host().prop_map(Answer::Foreign),
        2 => Just(Answer::Nak),
        1 => Just(Answer::Silence),
    ];
    prop_oneof![
        1 => (client(), serial()).prop_map(|(client, serial)| Step::Discover(client, serial)),
        6 => (client(), serial(), answer).prop_map(|(client, serial, answer)| Step::Request(client, serial, answer)),
        2 => (client(), serial(), host(), any::<bool>()).prop_map(|(c, s, h, answered)| Step::Inform(c, s, h, answered)),
        2 => (client(), host()).prop_map(|(client, host)| Step::Release(client, host)),
        1 => (client(), host()).prop_map(|(client, host)| Step::Decline(client, host)),
        1 => Just(Step::Repeat),
        1 => Just(Step::Restart),
        3 => prop_oneof![0u64..30, 0u64..300].prop_map(Step::Pass),
    ]
}

fn client(number: u8, serial: Option<u8>) -> Client {
    let client = match serial {
        Some(serial) => Client::new(number / 2, &format!("S{serial}")),
        None => Client::silent(number / 2),
    };
    // Two clients behind each hardware address.
    if number.is_multiple_of(2) { client } else { client.with_id(&[number]) }
}

/// The model's state of a client.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    serial: u8,
    host: u8,
    leased: bool,
    lease: Option<BootTime>,
    grace: Option<BootTime>,
}

impl Known {
    fn end(&self) -> BootTime {
        let lease = self.lease.map_or(BootTime::NEVER, |end| end + Duration::from_secs(1));
        lease.min(self.grace.unwrap_or(BootTime::NEVER))
    }
}

#[derive(Default)]
struct Model {
    clients: BTreeMap<u8, Known>,
}

impl Model {
    fn expire(&mut self, now: BootTime) {
        self.clients.retain(|_, known| known.end() > now);
    }

    /// Whether the core may still have a binding that expired less than a tick (67 ms) ago.
    fn has_just_expired(&self, now: BootTime) -> bool {
        let tick = Duration::from_millis(70);
        self.clients.values().any(|known| known.end() <= now && known.end() + tick > now)
    }

    fn held_by_another(&self, client: u8, host: u8) -> Option<u8> {
        self.clients.iter().find(|(number, known)| **number != client && known.host == host).map(|(number, _)| *number)
    }

    fn acknowledge(&mut self, client: u8, serial: Option<u8>, host: u8, lease: Option<BootTime>) {
        let Some(serial) = serial.or_else(|| self.clients.get(&client).map(|known| known.serial)) else { return };
        if let Some(other) = self.held_by_another(client, host) {
            self.clients.remove(&other);
        }
        self.clients.insert(client, Known { serial, host, leased: true, lease, grace: None });
    }

    fn inform(&mut self, client: u8, serial: Option<u8>, host: u8) {
        let holder = self.clients.iter().find(|(_, known)| known.host == host).map(|(number, _)| *number);
        let same_host = holder.filter(|holder| holder / 2 == client / 2);
        let current = if self.clients.contains_key(&client) { Some(client) } else { same_host };
        let known = current.map(|number| self.clients[&number].clone());
        let Some(serial) = serial.or_else(|| self.clients.get(&client).map(|known| known.serial)) else { return };
        let is_leased = |known: &Known| known.leased && known.grace.is_none();
        if let (Some(number), Some(known)) = (current, known.filter(is_leased)) {
            self.clients.insert(number, Known { serial, ..known });
            return;
        }
        // If another station has the address, it answers ARP.
        let keeps = |holder: u8| is_leased(&self.clients[&holder]) || holder / 2 != client / 2;
        if holder.is_some_and(|holder| Some(holder) != current && keeps(holder)) {
            return;
        }
        if let Some(other) = self.held_by_another(client, host) {
            self.clients.remove(&other);
        }
        self.clients.insert(client, Known { serial, host, leased: false, lease: None, grace: None });
    }

    fn rows(&self) -> BTreeMap<String, Vec<u8>> {
        let mut rows: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for known in self.clients.values() {
            rows.entry(format!("S{}", known.serial)).or_default().push(known.host);
        }
        sorted(rows)
    }
}

/// The order of the bindings in a row is not modelled.
fn sorted(mut rows: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    for hosts in rows.values_mut() {
        hosts.sort_unstable();
    }
    rows
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    // All stations answer, so none is removed for silence, and changes are not limited.
    let mut lan = Lan::with(Settings {
        probe_interval: Duration::from_mins(1),
        change_interval: Duration::ZERO,
        ..Settings::default()
    });
    let mut model = Model::default();
    let mut last: Option<(Vec<u8>, MessageType, Ipv4Addr)> = None;
    for step in steps {
        match step.clone() {
            Step::Discover(number, serial) => {
                lan.send(&client(number, serial), MessageType::Discover, |b| b);
            }
            Step::Request(number, serial, answer) => {
                let sender = client(number, serial);
                let request = lan.send(&sender, MessageType::Request, |b| b);
                match answer {
                    Answer::Ack(host, lease) => {
                        lan.ack(&request, ip(host), lease);
                        let end = lan.now + Duration::from_secs(u64::from(lease));
                        model.acknowledge(number, serial, host, (lease != u32::MAX).then_some(end));
                        last = Some((request, MessageType::Ack, ip(host)));
                    }
                    Answer::Foreign(host) => lan.answer_from(ip(66), &request, MessageType::Ack, ip(host), |b| b),
                    Answer::Nak => {
                        lan.answer(&request, MessageType::Nak, ip(0), |b| b);
                        let end = lan.now + Duration::from_secs(10);
                        if let Some(known) = model.clients.get_mut(&number).filter(|known| known.leased) {
                            known.grace.get_or_insert(end);
                        }
                        last = Some((request, MessageType::Nak, ip(0)));
                    }
                    Answer::Silence => {}
                }
            }
            Step::Inform(number, serial, host, answered) => {
                let inform = lan.send(&client(number, serial), MessageType::Inform, |b| b.ciaddr(ip(host)));
                if answered {
                    lan.answer(&inform, MessageType::Ack, Ipv4Addr::UNSPECIFIED, |b| b);
                    model.inform(number, serial, host);
                }
            }
            Step::Release(number, host) => {
                lan.send(&client(number, None), MessageType::Release, |b| {
                    b.ciaddr(ip(host)).address(option::SERVER_ID, GATEWAY)
                });
                if model.clients.get(&number).is_some_and(|known| known.host == host) {
                    model.clients.remove(&number);
                }
            }
            Step::Decline(number, host) => {
                lan.send(&client(number, None), MessageType::Decline, |b| b.address(option::REQUESTED_IP, ip(host)));
                if model.clients.get(&number).is_some_and(|known| known.host == host && known.leased) {
                    model.clients.remove(&number);
                }
            }
            Step::Repeat => {
                if let Some((request, message_type, address)) = &last {
                    lan.answer(request, *message_type, *address, |b| b.option(option::LEASE_TIME, &[0, 0, 0, 9]));
                }
            }
            Step::Restart => {
                lan.restart();
                // The grace period does not survive a restart.
                model.clients.values_mut().for_each(|known| known.grace = None);
            }
            Step::Pass(seconds) => {
                lan.pass_s(seconds);
                while model.has_just_expired(lan.now) {
                    lan.pass(Duration::from_millis(100));
                }
            }
        }
        model.expire(lan.now);
        prop_assert_eq!(sorted(lan.rows()), model.rows(), "after {:?}", step);
    }
    // In the end all leases but the infinite ones expire.
    lan.pass(Duration::from_hours(1));
    model.clients.retain(|_, known| known.end() == BootTime::NEVER);
    prop_assert_eq!(sorted(lan.rows()), model.rows());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// GW-6, GW-7, GW-9, GW-10, GW-17: the rows follow from acknowledged exchanges, releases and time.
    #[test]
    fn any_order_of_messages_makes_the_rows_of_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(steps)?;
    }

    /// GW-6, GW-7: after any input in any state, each row has had an ACK, has a binding and is unique.
    #[test]
    fn mutated_messages_never_break_the_table(
        steps in prop::collection::vec((0..CLIENTS, 0u8..3, 1u8..5, 0u8..8, prop::collection::vec((0usize..400, any::<u8>()), 0..3)), 1..60),
        max_rows in 1u32..4,
    ) {
        let mut lan = Lan::with(Settings { max_rows, max_identities_per_mac: 2, max_exchanges: 3, change_burst: 1, ..Settings::default() });
        let mut acknowledged = false;
        for (number, serial, host, kind, changes) in steps {
            let sender = client(number, Some(serial));
            let mutate = |frame: &mut Vec<u8>| {
                for (at, value) in &changes {
                    if let Some(byte) = frame.get_mut(*at) {
                        *byte = *value;
                    }
                }
            };
            let message_type = match kind {
                0 => MessageType::Discover,
                1 => MessageType::Inform,
                2 => MessageType::Release,
                3 => MessageType::Decline,
                _ => MessageType::Request,
            };
            let mut frame = lan.send(&sender, message_type, |b| b.ciaddr(ip(host)));
            mutate(&mut frame);
            lan.ingress(&frame);
            prop_assert!(acknowledged || lan.core.rows() == 0);
            if kind % 2 == 1 && Message::parse_request(&frame, None).is_ok() {
                acknowledged = true;
                lan.ack(&frame, ip(host), u32::from(serial) * 7);
            }
            lan.pass(Duration::from_millis(u64::from(host) * 700));
            prop_assert!(lan.core.rows() <= max_rows && lan.core.bindings() <= 2 * max_rows);
        }
        lan.pass(Duration::from_hours(1));
    }
}
