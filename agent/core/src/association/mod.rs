//! From DHCP exchanges on the LAN to the ManageableDevice table (TR-111 1.2.1).
//!
//! A request that carries a Device Identity is remembered until this gateway's ACK leaves; then its client gets a
//! binding in the row of that identity (GW-6). A row has one identity and one binding or more, and goes with the last
//! (GW-9, GW-10, T-10). RELEASE, DECLINE and renewals are matched by the client, because they carry no identity (T-7).
//!
//! [`Association`] does no input or output. Its owner hands it events and time by [`Association::handle`], takes what
//! follows by [`Association::poll_output`], and comes back at [`Association::next_deadline`]:
//!
//! * Events act at the kernel's time of their frame, so that a renewal that waited in the ring still counts.
//! * [`Input::Tick`] lets expire what is due, and looks after devices that are silent (GW-8, GW-11).

mod binding;
mod changes;
mod claim;
mod counts;
mod deny;
mod exchange;
mod index;
mod instances;
mod keys;
mod link;
mod liveness;
mod place;
mod reconcile;
mod reply;
mod request;
mod restore;
mod settings;
mod table;
mod wheel;

pub use binding::{Binding, Device, Record, RemovalReason, Source};
pub use counts::{Counts, IdentityResult, LifeSign, ProbeResult, Remark};
pub use deny::{Deny, DenyError};
pub use settings::Settings;
pub use table::Bindings;

use std::{collections::VecDeque, net::Ipv4Addr};

use tr111_common::{
    abi::{ClientKey, ExchangeKey, LastAck, NeighbourKey},
    counter::Hook,
    dhcp4::MessageType,
    event::Event,
    headers::Segment,
};

use self::{changes::Changes, claim::Claim, exchange::Exchanges, keys::Keys, table::Table};
use crate::{dhcp::Message, identity::DeviceIdentity, time::BootTime};

/// What happens to the core.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A frame that a program handed up.
    Event(&'a Event<'a>),
    /// The gateway's own IPv4 addresses, all of them (T-26). Until they are known, every server counts as its own.
    LocalAddresses(Vec<Ipv4Addr>),
    /// Time has passed.
    Tick,
    /// The operator changed settings. A smaller table keeps the rows that it has.
    Settings(Box<Settings>),
    /// A LAN interface lost its carrier or its programs, or is gone. Once is enough.
    LinkDown {
        /// Its kernel index.
        ifindex: u32,
    },
    /// A LAN interface works again.
    LinkUp {
        /// Its kernel index.
        ifindex: u32,
        /// The index that it had before: another one, where it was made anew.
        was: u32,
    },
    /// How an exchange ended, from the programs' map `LAST_ACK`: at start, and after the ring lost events (T-29).
    ///
    /// It acts like the ACK itself, unless something newer is known of the client or of the address. Of several, the
    /// newest comes first, so that an address that went from one client to another stays with the second.
    LastAck {
        /// The client.
        client: ClientKey,
        /// Its last ACK.
        ack: &'a LastAck,
    },
    /// The last ARP message from a client's address, from the programs' map `NEIGHBOURS`: the answer to
    /// [`Output::Inquire`], to be given before anything else, also where nothing newer is known.
    Seen {
        /// The client.
        client: ClientKey,
        /// When the message came, as far as the map knows.
        at: BootTime,
        /// Its sender hardware address; `None` where no message came since the address is watched.
        mac: Option<[u8; 6]>,
    },
    /// A search found that a client is there ([`Output::Search`]).
    Alive {
        /// The client.
        client: ClientKey,
        /// By what.
        sign: LifeSign,
    },
    /// An ARP message from an address whose holder was asked ([`Output::AskHolder`]). Each sender is told.
    Answer {
        /// The segment.
        segment: Segment,
        /// The address.
        ip: Ipv4Addr,
        /// The sender hardware address.
        mac: [u8; 6],
    },
}

/// What follows. Changes of the table come in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A new row, with its first binding.
    DeviceAdded {
        /// Instance number of the row.
        instance: u32,
        /// The row's key.
        identity: DeviceIdentity,
        /// Its first binding.
        binding: Binding,
    },
    /// A row went, with its last binding.
    DeviceRemoved {
        /// Instance number of the row.
        instance: u32,
        /// The row's key.
        identity: DeviceIdentity,
        /// The binding that it lost.
        binding: Binding,
        /// Why the binding went.
        reason: RemovalReason,
    },
    /// Another binding in a row (T-10).
    BindingAdded {
        /// Instance number of the row.
        instance: u32,
        /// The binding.
        binding: Binding,
    },
    /// A binding went, and its row has others.
    BindingRemoved {
        /// Instance number of the row.
        instance: u32,
        /// The binding.
        binding: Binding,
        /// Why it went.
        reason: RemovalReason,
    },
    /// A client that gave an identity has its address now, and gets no row.
    DeviceRefused {
        /// What it says it is.
        identity: DeviceIdentity,
        /// What would have been its binding.
        binding: Binding,
        /// Why.
        result: IdentityResult,
    },
    /// An ACK extended or changed what is known of a binding: its lease, its address, when it was seen.
    BindingRenewed {
        /// Instance number of the row.
        instance: u32,
        /// The binding as it is now.
        binding: Binding,
        /// More than times changed, and the client had a change left. Else the change may be kept later: until then the
        /// map `LAST_ACK` has it.
        changed: bool,
    },
    /// An undetermined request carried an identity after all: mark its exchange for the egress program.
    MarkExchange(ExchangeKey),
    /// A client has a binding now, and is to be known by the programs (T-4).
    Stick(ClientKey),
    /// A client has no binding any more. Its record in the map `LAST_ACK` says so at once, and goes when the store has no
    /// row of it: until then a restart would bring the row back, and after it the record would.
    Unstick {
        /// The client.
        client: ClientKey,
        /// Why its binding went.
        reason: RemovalReason,
    },
    /// The record of a client in the map `LAST_ACK` says that its lease has ended, and the table has no binding of it: the
    /// record may go, once the store agrees.
    Ended(ClientKey),
    /// A binding has the address: ARP messages from there are noted in the map `NEIGHBOURS` (T-6). An entry that is
    /// there already stays, so that a restart of the agent forgets nothing.
    Watch(NeighbourKey),
    /// No binding has the address any more, or another station has it.
    Unwatch(NeighbourKey),
    /// A client was silent for the probe interval, as far as the core knows: [`Input::Seen`] tells what the kernel does.
    Inquire {
        /// The client.
        client: ClientKey,
        /// Its address.
        neighbour: NeighbourKey,
    },
    /// A client is silent: send an ARP request for its address on its segment (GW-11).
    Probe {
        /// The client.
        client: ClientKey,
        /// The destination of the frame: the station's hardware address, or [`crate::arp::EVERYBODY`].
        mac: [u8; 6],
        /// Its address.
        ip: Ipv4Addr,
    },
    /// A client answered no probe: search for another sign of life, and tell by [`Input::Alive`] if there is one. Without
    /// it the binding is removed at `until` (GW-8, T-6).
    ///
    /// That an entry of a table exists proves nothing: neighbour entries and flows outlive devices.
    Search {
        /// The client.
        client: ClientKey,
        /// Its address.
        ip: Ipv4Addr,
        /// When the first of the lost probes was sent. A sign is newer.
        since: BootTime,
        /// When the search ends.
        until: BootTime,
    },
    /// Another client claims an address: send an ARP request for it to every station of the segment, and tell by
    /// [`Input::Answer`] who answers within a second.
    AskHolder {
        /// The segment.
        segment: Segment,
        /// The address.
        ip: Ipv4Addr,
    },
}

/// The association core.
pub struct Association {
    settings: Settings,
    table: Table,
    exchanges: Exchanges,
    claims: Vec<Claim>,
    /// Clients whose lease had ended by the store, and that nobody can ask.
    unasked: Vec<ClientKey>,
    changes: Changes,
    /// The latest time that it was told.
    now: BootTime,
    local_addresses: Vec<Ipv4Addr>,
    /// Links that are down, and when that will have been too long.
    down: Vec<(u32, BootTime)>,
    outputs: VecDeque<Output>,
    counts: Counts,
}

impl Association {
    /// An empty table.
    pub fn new(settings: Settings) -> Self {
        let keys = Keys::new(settings.kernel.seed);
        Self {
            table: Table::new(keys, settings.max_rows),
            exchanges: Exchanges::new(keys),
            claims: Vec::new(),
            unasked: Vec::new(),
            changes: Changes::new(keys, &settings),
            now: BootTime::default(),
            local_addresses: Vec::new(),
            down: Vec::new(),
            outputs: VecDeque::new(),
            counts: Counts::default(),
            settings,
        }
    }

    /// Takes what happened; `now` is the time at which the caller learned of it.
    pub fn handle(&mut self, now: BootTime, input: Input<'_>) {
        self.now = self.now.max(now);
        match input {
            Input::Event(event) => {
                let seen = BootTime(event.time).min(now);
                self.expire(seen);
                self.event(seen, event);
            }
            Input::LocalAddresses(addresses) => self.local_addresses = addresses,
            Input::Tick => {
                self.settle_unasked();
                self.expire(now);
            }
            Input::Settings(settings) => self.set_settings(now, *settings),
            Input::LinkDown { ifindex } => self.link_down(now, ifindex),
            Input::LinkUp { ifindex, was } => self.link_up(now, ifindex, was),
            Input::LastAck { client, ack } => self.last_ack(now, client, ack),
            Input::Seen { client, at, mac } => {
                if let Some(id) = self.table.client(&client) {
                    self.seen(now, id, at, mac);
                }
            }
            Input::Alive { client, sign } => {
                if let Some(id) = self.table.client(&client) {
                    self.alive(now, id, sign);
                }
            }
            Input::Answer { segment, ip, mac } => self.answered(now, segment, ip, mac),
        }
    }

    /// The next thing to do for the caller.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let forget = self.exchanges.oldest_time().map(|oldest| oldest + self.settings.exchange_age);
        let claim = self.claims.iter().map(|claim| claim.due).min();
        [self.table.next_deadline(), forget, claim, self.changes.next_deadline()].into_iter().flatten().min()
    }

    /// The rows, in the order of their instance numbers.
    pub fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        self.table.devices()
    }

    /// The rows with instance numbers above `instance`, in their order: a large table is listed in parts.
    pub fn devices_after(&self, instance: u32) -> impl Iterator<Item = Device<'_>> {
        self.table.devices_after(instance)
    }

    /// The row with an instance number.
    pub fn device(&self, instance: u32) -> Option<Device<'_>> {
        self.table.device(instance)
    }

    /// Number of rows: `ManageableDeviceNumberOfEntries` (DM-2).
    pub fn rows(&self) -> u32 {
        self.table.rows()
    }

    /// Number of bindings.
    pub fn bindings(&self) -> u32 {
        self.table.bindings()
    }

    /// The clients whose row, or whose row of another identity, waits because they had used up their changes.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &ClientKey> {
        self.changes.waiting()
    }

    /// What was counted.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn set_settings(&mut self, now: BootTime, settings: Settings) {
        let is_probed_otherwise = self.settings.probe_interval != settings.probe_interval;
        // The seed keys the indices and the clients' own keys.
        let seed = self.settings.kernel.seed;
        self.settings = settings;
        self.settings.kernel.seed = seed;
        let ids: Vec<u32> = self.table.iter().map(|(id, _)| id).collect();
        for id in ids {
            let mac = self.table.held(id).binding.mac;
            if self.is_denied(self.table.identity_of(id), &mac) {
                self.remove(id, RemovalReason::Denied);
                continue;
            }
            if is_probed_otherwise {
                self.review(id, now);
            }
            self.schedule(id);
        }
    }

    fn event(&mut self, seen: BootTime, event: &Event<'_>) {
        let Ok(message) = Message::from_event(event) else {
            self.counts.count_remark(Remark::Unreadable);
            return;
        };
        match (event.hook, message.message_type) {
            (Hook::LanIngress, MessageType::Discover | MessageType::Request | MessageType::Inform) => {
                self.request(seen, event, &message);
            }
            (Hook::LanIngress, MessageType::Release) => self.release(event, &message),
            (Hook::LanIngress, MessageType::Decline) => self.decline(event, &message),
            (Hook::LanEgress, MessageType::Ack) => self.ack(seen, event, &message),
            (Hook::LanEgress, MessageType::Nak) => self.nak(seen, event, &message),
            _ => {}
        }
    }

    fn expire(&mut self, now: BootTime) {
        while let Some(id) = self.table.poll(now) {
            self.wake(now, id);
        }
        self.settle_claims(now);
        self.settle_changes(now);
        let age = u64::try_from(self.settings.exchange_age.as_nanos()).unwrap_or(u64::MAX);
        if let Some(time) = now.0.checked_sub(age) {
            self.exchanges.forget_until(BootTime(time));
        }
    }
}
