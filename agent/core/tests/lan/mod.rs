//! A simulated LAN for the association core: clients, a DHCP server, and the decisions of the kernel programs, made by
//! the same code. The invariants of the core are checked after each step.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
    time::Duration,
};

use tr111_common::{
    abi::{ClientKey, ExchangeKey, LastAck, NeighbourKey},
    classify::{self, Request},
    config::Config,
    counter::{Class, Hook, Outcome},
    dhcp4::{MessageType, option},
    event::Event,
    frame::PlainLoop,
    headers::Segment,
    words::Words,
};
use tr111_core::{
    arp::EVERYBODY,
    association::{Association, Binding, Input, LifeSign, Output, Record, RemovalReason, Settings, Source},
    dhcp::{Builder, Message, Tag},
    identity::DeviceIdentity,
    time::BootTime,
};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub const LAN: u32 = 7;

/// The LAN address with this host number.
pub fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, host)
}

/// The device 00256D / `serial` / STB.
pub fn device(serial: &str) -> DeviceIdentity {
    DeviceIdentity {
        manufacturer_oui: "00256D".parse().unwrap(),
        serial_number: serial.parse().unwrap(),
        product_class: "STB".parse().unwrap(),
    }
}

#[derive(Clone, Debug)]
pub struct Client {
    pub mac: [u8; 6],
    /// Client identifier (option 61), if the client sends one.
    pub id: Option<Vec<u8>>,
    /// Value of option 125, if the client sends it.
    pub option: Option<Vec<u8>>,
    pub tags: Vec<Tag>,
    pub relay: Option<Ipv4Addr>,
}

impl Client {
    /// A client with its own hardware address and an identity.
    pub fn new(number: u8, serial: &str) -> Self {
        Self { option: Some(device(serial).encode()), ..Self::silent(number) }
    }

    /// A client without an identity.
    pub fn silent(number: u8) -> Self {
        Self { mac: [2, 0, 0, 0, 0, number], id: None, option: None, tags: Vec::new(), relay: None }
    }

    pub fn with_id(self, client_id: &[u8]) -> Self {
        Self { id: Some(client_id.to_vec()), ..self }
    }
}

pub struct Lan {
    pub core: Association,
    pub now: BootTime,
    pub outputs: Vec<Output>,
    /// Class of the last request or reply.
    pub class: Option<Class>,
    pub marked: HashSet<ExchangeKey>,
    pub sticky: HashSet<ClientKey>,
    newcomers: HashSet<ClientKey>,
    config: Config,
    /// Transaction identifier of the last message.
    pub xid: u32,
    added: u32,
    removed: u32,
    restored: u32,
    /// Highest instance number so far.
    last_instance: u32,
    /// The map `NEIGHBOURS`: time and sender hardware address of the last ARP message.
    pub neighbours: HashMap<NeighbourKey, (BootTime, Option<[u8; 6]>)>,
    /// Hardware addresses of clients that are switched off.
    pub off: HashSet<[u8; 6]>,
    /// Hardware addresses of clients, with that of the repeater in front of each.
    pub repeaters: HashMap<[u8; 6], [u8; 6]>,
    /// Additional hardware addresses that answer for an address, before its client does.
    pub rivals: Vec<(Ipv4Addr, [u8; 6])>,
    /// Addresses from which a search finds frames.
    pub talkers: HashSet<Ipv4Addr>,
    /// Searches: their start, the time that a sign of life has to exceed, and their end.
    pub searches: Vec<[BootTime; 3]>,
    /// Number of the next probes that are lost.
    pub lossy: u32,
    /// Number of ARP requests to holders of addresses.
    pub asked: u32,
    /// Time and destination of each probe.
    pub probes: Vec<(BootTime, [u8; 6])>,
}

impl Lan {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(mut settings: Settings) -> Self {
        settings.kernel.seed = 0x5eed;
        let config = settings.kernel;
        let mut core = Association::new(settings);
        let now = BootTime::default() + Duration::from_secs(1_000);
        core.handle(now, Input::LocalAddresses(vec![Ipv4Addr::LOCALHOST, GATEWAY]));
        Self {
            core,
            now,
            outputs: Vec::new(),
            class: None,
            marked: HashSet::new(),
            sticky: HashSet::new(),
            newcomers: HashSet::new(),
            config,
            xid: 0,
            added: 0,
            removed: 0,
            restored: 0,
            last_instance: 0,
            neighbours: HashMap::new(),
            off: HashSet::new(),
            repeaters: HashMap::new(),
            rivals: Vec::new(),
            talkers: HashSet::new(),
            searches: Vec::new(),
            lossy: 0,
            asked: 0,
            probes: Vec::new(),
        }
    }

    /// Sends a client's message with the options that `shape` adds; returns the frame.
    pub fn send(
        &mut self,
        client: &Client,
        message_type: MessageType,
        shape: impl FnOnce(Builder) -> Builder,
    ) -> Vec<u8> {
        self.xid += 1;
        let mut builder = Builder::request(message_type, client.mac, self.xid);
        for tag in &client.tags {
            builder = builder.tag(*tag);
        }
        if let Some(id) = &client.id {
            builder = builder.option(option::CLIENT_ID, id);
        }
        let inspected = !matches!(message_type, MessageType::Release | MessageType::Decline);
        if let (Some(identity), true) = (&client.option, inspected) {
            builder = builder.option(option::VENDOR_IDENTIFYING, identity);
        }
        builder = shape(builder);
        if let Some(relay) = client.relay {
            builder = builder.giaddr(relay);
        }
        let frame = builder.build();
        self.ingress(&frame);
        frame
    }

    /// Sends the server's reply to a frame.
    pub fn answer(
        &mut self,
        request: &[u8],
        message_type: MessageType,
        address: Ipv4Addr,
        shape: impl FnOnce(Builder) -> Builder,
    ) {
        self.answer_from(GATEWAY, request, message_type, address, shape);
    }

    pub fn answer_from(
        &mut self,
        server: Ipv4Addr,
        request: &[u8],
        message_type: MessageType,
        address: Ipv4Addr,
        shape: impl FnOnce(Builder) -> Builder,
    ) {
        let message = Message::parse_request(request, None).unwrap();
        let mut builder = Builder::reply(message_type, &message, GATEWAY_MAC, server, address);
        for vlan in message.vlan.into_iter().filter(|vlan| *vlan != 0) {
            builder = builder.tag(Tag { protocol: 0x8100, control: vlan });
        }
        let frame = shape(builder).build();
        self.egress(&frame);
    }

    /// A complete exchange: DISCOVER, OFFER, REQUEST, ACK.
    pub fn join(&mut self, client: &Client, address: Ipv4Addr, lease_s: u32) {
        let discover = self.send(client, MessageType::Discover, |b| b);
        self.answer(&discover, MessageType::Offer, address, |b| b.option(option::LEASE_TIME, &lease_s.to_be_bytes()));
        let request = self.send(client, MessageType::Request, |b| b.address(option::REQUESTED_IP, address));
        self.ack(&request, address, lease_s);
    }

    pub fn ack(&mut self, request: &[u8], address: Ipv4Addr, lease_s: u32) {
        self.answer(request, MessageType::Ack, address, |b| b.option(option::LEASE_TIME, &lease_s.to_be_bytes()));
    }

    /// A renewal: REQUEST and ACK.
    pub fn renew(&mut self, client: &Client, address: Ipv4Addr, lease_s: u32) {
        let request = self.send(client, MessageType::Request, |b| b.ciaddr(address).to(GATEWAY_MAC, GATEWAY));
        self.ack(&request, address, lease_s);
    }

    /// A REQUEST that the server refuses.
    pub fn nak(&mut self, client: &Client, address: Ipv4Addr) {
        let request = self.send(client, MessageType::Request, |b| b.address(option::REQUESTED_IP, address));
        self.answer(&request, MessageType::Nak, Ipv4Addr::UNSPECIFIED, |b| b);
    }

    /// INFORM and its ACK.
    pub fn inform(&mut self, client: &Client, address: Ipv4Addr) {
        let inform = self.send(client, MessageType::Inform, |b| b.ciaddr(address));
        self.answer(&inform, MessageType::Ack, Ipv4Addr::UNSPECIFIED, |b| b);
    }

    pub fn release(&mut self, client: &Client, address: Ipv4Addr) {
        self.send(client, MessageType::Release, |b| b.ciaddr(address).address(option::SERVER_ID, GATEWAY));
    }

    pub fn decline(&mut self, client: &Client, address: Ipv4Addr) {
        self.send(client, MessageType::Decline, |b| {
            b.address(option::REQUESTED_IP, address).address(option::SERVER_ID, GATEWAY)
        });
    }

    /// Advances the clock, and calls the core at each of its deadlines.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.core.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.handle(Input::Tick);
        }
        self.now = end;
        self.handle(Input::Tick);
    }

    pub fn pass_s(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// The behaviour of `lan_ingress` (ebpf/src/lan.rs).
    pub fn ingress(&mut self, frame: &[u8]) {
        let judged = classify::find_request(frame, None).and_then(|udp| {
            let fixed = classify::request_fixed(frame, &udp)?;
            let walk = classify::walk(frame, &udp, &self.config, PlainLoop);
            let segment = Segment { ifindex: LAN, vlan: udp.vlan };
            let client = classify::client_key(segment, &fixed, &walk);
            let (class, identified) = match classify::judge_request(&udp, &walk, &self.config) {
                Request::Pass(class) => return Err(class),
                Request::Ends(class) => (class, None),
                Request::Tell { class, identified } => (class, Some(identified)),
                Request::Unidentified(_, refusal) => {
                    if !self.sticky.contains(&client) && !self.newcomers.contains(&client) {
                        return Err(classify::unidentified(refusal));
                    }
                    (Class::Sticky, Some(true))
                }
            };
            if let Some(identified) = identified {
                self.marked.insert(classify::exchange_key(segment, &fixed));
                if identified && class != Class::Sticky {
                    self.newcomers.insert(client);
                }
            }
            Ok((segment, class))
        });
        self.tell(Hook::LanIngress, judged, frame);
    }

    /// The behaviour of `lan_egress`.
    pub fn egress(&mut self, frame: &[u8]) {
        let judged = classify::find_reply(frame, None).and_then(|udp| {
            let fixed = classify::reply_fixed(frame, &udp)?;
            let segment = Segment { ifindex: LAN, vlan: udp.vlan };
            if !self.marked.contains(&classify::exchange_key(segment, &fixed)) {
                return Err(Class::Unmarked);
            }
            let walk = classify::walk(frame, &udp, &self.config, PlainLoop);
            Ok((segment, classify::judge_reply(&udp, &walk)))
        });
        self.tell(Hook::LanEgress, judged, frame);
    }

    fn tell(&mut self, hook: Hook, judged: Result<(Segment, Class), Class>, frame: &[u8]) {
        let (Ok((_, class)) | Err(class)) = judged;
        self.class = Some(class);
        if let Ok((segment, class)) = judged
            && class.outcome() == Outcome::HandedUp
        {
            self.handle(Input::Event(&Event { time: self.now.0, segment, metadata_tag: None, class, hook, frame }));
        }
    }

    pub fn handle(&mut self, input: Input<'_>) {
        self.core.handle(self.now, input);
        self.carry_out();
        self.check();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match &output {
                Output::DeviceAdded { instance, .. } => {
                    self.added += 1;
                    assert!(*instance > self.last_instance, "instance number {instance} was given out before");
                    self.last_instance = *instance;
                }
                Output::DeviceRemoved { .. } => self.removed += 1,
                Output::Stick(client) => assert!(self.sticky.insert(*client), "stuck twice: {client:?}"),
                Output::Unstick { client, .. } => assert!(self.sticky.remove(client), "not stuck: {client:?}"),
                Output::Watch(neighbour) => {
                    assert_eq!(self.neighbours.insert(*neighbour, (self.now, None)), None, "watched twice");
                }
                Output::Unwatch(neighbour) => assert!(self.neighbours.remove(neighbour).is_some(), "not watched"),
                Output::Inquire { client, neighbour } => {
                    let (at, mac) = self.neighbours[neighbour];
                    self.core.handle(self.now, Input::Seen { client: *client, at, mac });
                }
                Output::Probe { client, mac, ip } => {
                    self.probes.push((self.now, *mac));
                    if self.lossy > 0 {
                        self.lossy -= 1;
                    } else if let Some(answer) = self.holder(|binding| binding.client == *client)
                        && [EVERYBODY, answer].contains(mac)
                    {
                        self.hear(client.segment, *ip, answer);
                    }
                }
                Output::Search { client, ip, since, until } => {
                    self.searches.push([self.now, *since, *until]);
                    if self.talkers.contains(ip) {
                        self.core.handle(self.now, Input::Alive { client: *client, sign: LifeSign::Frame });
                    }
                }
                Output::AskHolder { segment, ip } => {
                    self.asked += 1;
                    let holder = self.holder(|binding| binding.ip == *ip && binding.segment() == *segment);
                    let rivals = self.rivals.iter().filter(|(held, _)| held == ip).map(|(_, mac)| *mac);
                    for mac in rivals.chain(holder).collect::<Vec<_>>() {
                        self.hear(*segment, *ip, mac);
                        self.core.handle(self.now, Input::Answer { segment: *segment, ip: *ip, mac });
                    }
                }
                _ => {}
            }
            self.outputs.push(output);
        }
    }

    /// The hardware address from which the client of a binding answers; `None` if it does not.
    fn holder(&self, is_it: impl Fn(&Binding) -> bool) -> Option<[u8; 6]> {
        let binding = self.core.devices().flat_map(|device| device.bindings).find(|binding| is_it(binding))?;
        let own: [u8; 6] = binding.mac.as_bytes().try_into().ok()?;
        (!self.off.contains(&own)).then(|| self.repeaters.get(&own).copied().unwrap_or(own))
    }

    /// The behaviour of the programs on an ARP message.
    fn hear(&mut self, segment: Segment, ip: Ipv4Addr, mac: [u8; 6]) {
        if let Some(heard) = self.neighbours.get_mut(&NeighbourKey { segment, address: ip.octets() }) {
            *heard = (self.now, Some(mac));
        }
    }

    /// An ARP message from an address on the untagged segment.
    pub fn arp(&mut self, ip: Ipv4Addr, mac: [u8; 6]) {
        self.hear(Segment { ifindex: LAN, vlan: [0; 2] }, ip, mac);
    }

    pub fn records(&self) -> Vec<Record> {
        self.core.devices().map(|device| self.core.record(device.instance).unwrap()).collect()
    }

    /// Restarts the agent with its stored state.
    pub fn restart(&mut self) {
        let records = self.records();
        self.restart_with(records, self.core.next_instance());
    }

    pub fn restart_with(&mut self, records: Vec<Record>, next_instance: u32) {
        let settings = self.core.settings().clone();
        self.core = Association::new(settings);
        (self.added, self.removed) = (0, 0);
        self.sticky.clear();
        self.neighbours.clear();
        self.core.handle(self.now, Input::LocalAddresses(vec![Ipv4Addr::LOCALHOST, GATEWAY]));
        self.core.restore(self.now, records, next_instance);
        self.restored = self.core.rows();
        self.carry_out();
        self.check();
    }

    /// The record that `lan_egress` stores for an ACK to `client`.
    pub fn last_ack(&self, client: &Client, message_type: MessageType, address: Ipv4Addr, lease: u32) -> LastAck {
        let mut ack = LastAck {
            time: self.now.0,
            lease,
            address: address.octets(),
            server: GATEWAY.octets(),
            giaddr: client.relay.unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
            chaddr: Words::of(&client.mac),
            htype: 1,
            hlen: 6,
            message_type: message_type as u8,
            identity_length: 0,
            source: client.mac,
            ended_by: 0,
            reserved: [0; 5],
            identity: Words::ZERO,
        };
        if let Some(option) = &client.option {
            ack.identity_length = option.len() as u8;
            ack.identity = Words::of(option);
        }
        ack
    }

    /// The client's key in the programs' maps.
    pub fn key_of(&self, client: &Client) -> ClientKey {
        let mut builder = Builder::request(MessageType::Discover, client.mac, 1);
        if let Some(id) = &client.id {
            builder = builder.option(option::CLIENT_ID, id);
        }
        let frame = builder.build();
        let message = Message::parse_request(&frame, None).unwrap();
        let walk = message.walk(&self.config);
        classify::client_key(Segment { ifindex: LAN, vlan: [0; 2] }, &message.fixed, &walk)
    }

    /// Passes a client's last ACK to the agent.
    pub fn reconcile(&mut self, client: &Client, ack: &LastAck) {
        let key = self.key_of(client);
        self.handle(Input::LastAck { client: key, ack });
    }

    /// Checks the invariants: one row per identity, a binding in every row, one binding per client, one client per
    /// address; outputs and counters agree with the table.
    fn check(&self) {
        let core = &self.core;
        let (mut identities, mut clients, mut addresses) = (BTreeSet::new(), HashSet::new(), HashSet::new());
        let (mut last_instance, mut stations) = (0, HashSet::new());
        for device in core.devices() {
            assert!(device.instance > last_instance, "instance numbers grow");
            last_instance = device.instance;
            assert!(identities.insert(device.identity.clone()), "two rows for {}", device.identity);
            assert!(device.bindings.clone().count() > 0, "{} has no binding", device.identity);
            for binding in device.bindings {
                assert!(clients.insert(binding.client), "two bindings for a client");
                stations.extend(binding.neighbour());
                assert!(addresses.insert((binding.segment(), binding.ip)), "two clients at {}", binding.ip);
                assert!(binding.last_seen <= device.last_seen && device.first_seen <= device.last_seen);
            }
        }
        assert_eq!(core.rows() as usize, identities.len());
        assert_eq!(core.bindings() as usize, clients.len());
        assert_eq!(self.restored + self.added - self.removed, core.rows());
        assert!(core.next_instance() > last_instance);
        assert_eq!(self.neighbours.keys().copied().collect::<HashSet<_>>(), stations, "exactly these are watched");
        clients.extend(core.waiting());
        assert_eq!(self.sticky, clients, "the programs know exactly the clients with a binding, and those that wait");
        let added: u64 = Source::ALL.into_iter().map(|source| core.counts().additions(source)).sum();
        let removed: u64 = RemovalReason::ALL.into_iter().map(|reason| core.counts().removals(reason)).sum();
        assert_eq!((added, removed), (u64::from(self.added), u64::from(self.removed)));
    }

    /// Serial number of every row, with the last byte of each address of its bindings.
    pub fn rows(&self) -> BTreeMap<String, Vec<u8>> {
        let row = |device: tr111_core::association::Device<'_>| {
            (device.identity.serial_number.to_string(), device.bindings.map(|binding| binding.ip.octets()[3]).collect())
        };
        self.core.devices().map(row).collect()
    }

    /// Additions and removals since the last call: `+serial` or `-serial reason`.
    pub fn changes(&mut self) -> Vec<String> {
        let change = |output: Output| match output {
            Output::DeviceAdded { identity, .. } => Some(format!("+{}", identity.serial_number)),
            Output::DeviceRemoved { identity, reason, .. } => {
                Some(format!("-{} {}", identity.serial_number, reason.label()))
            }
            Output::BindingAdded { binding, .. } => Some(format!("+{}", binding.ip)),
            Output::BindingRemoved { binding, reason, .. } => Some(format!("-{} {}", binding.ip, reason.label())),
            _ => None,
        };
        self.outputs.drain(..).filter_map(change).collect()
    }
}
