//! Maintains the ManageableDevice table from the DHCP exchanges on the LAN (TR-111 1.2.1).
//!
//! A request with a Device Identity is stored until this gateway's server sends the ACK; then its client gets a binding
//! in the row of that identity (GW-6). A row has one identity and at least one binding, and is removed with its last
//! binding (GW-9, GW-10, T-10). RELEASE, DECLINE and renewals are matched by client, because they carry no identity
//! (T-7).
//!
//! [`Association`] performs no I/O. Its owner passes events and time to [`Association::handle`], takes the results from
//! [`Association::poll_output`], and returns at [`Association::next_deadline`]:
//!
//! * Events take effect at the kernel's time of their frame, so that a renewal which was delayed in the ring still
//!   counts.
//! * [`Input::Tick`] expires leases and probes silent devices (GW-8, GW-11).

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

/// Inputs of the core.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// An event from the kernel programs.
    Event(&'a Event<'a>),
    /// All IPv4 addresses of the gateway (T-26). Until they are known, every DHCP server counts as the gateway.
    LocalAddresses(Vec<Ipv4Addr>),
    /// Time has passed.
    Tick,
    /// The operator changed settings. If the table became smaller, existing rows are kept.
    Settings(Box<Settings>),
    /// A LAN interface lost its carrier or its programs, or was removed. Need not be repeated.
    LinkDown {
        /// Kernel index of the interface.
        ifindex: u32,
    },
    /// A LAN interface works again.
    LinkUp {
        /// Kernel index of the interface.
        ifindex: u32,
        /// Previous kernel index of the interface; different if the interface was created again.
        was: u32,
    },
    /// A client's record in the map `LAST_ACK`, passed at start and after the ring lost events (T-29).
    ///
    /// It has the effect of the ACK, unless newer information about the client or the address is known. Records have to
    /// be passed newest first, so that an address that was assigned to another client stays with that client.
    LastAck {
        /// The client.
        client: ClientKey,
        /// The client's last ACK.
        ack: &'a LastAck,
    },
    /// The last ARP message from a client's address, from the map `NEIGHBOURS`. It is the reply to [`Output::Inquire`]
    /// and has to be passed before any other input, even if it is not new.
    Seen {
        /// The client.
        client: ClientKey,
        /// Time of the message, according to the map.
        at: BootTime,
        /// Sender hardware address of the message; `None` if there was no message since the address was added to the
        /// map.
        mac: Option<[u8; 6]>,
    },
    /// A search found a sign of life of a client ([`Output::Search`]).
    Alive {
        /// The client.
        client: ClientKey,
        /// The sign of life.
        sign: LifeSign,
    },
    /// An ARP message from an address whose holder was asked ([`Output::AskHolder`]), for each sender.
    Answer {
        /// Interface and VLANs of the message.
        segment: Segment,
        /// Sender protocol address.
        ip: Ipv4Addr,
        /// Sender hardware address.
        mac: [u8; 6],
    },
}

/// Outputs of the core. Changes of the table are in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A row was added, with its first binding.
    DeviceAdded {
        /// Instance number of the row.
        instance: u32,
        /// Identity of the device.
        identity: DeviceIdentity,
        /// The first binding.
        binding: Binding,
    },
    /// A row was removed, with its last binding.
    DeviceRemoved {
        /// Instance number of the row.
        instance: u32,
        /// Identity of the device.
        identity: DeviceIdentity,
        /// The removed binding.
        binding: Binding,
        /// Reason for the removal.
        reason: RemovalReason,
    },
    /// A binding was added to a row (T-10).
    BindingAdded {
        /// Instance number of the row.
        instance: u32,
        /// The binding.
        binding: Binding,
    },
    /// A binding was removed from a row that has others.
    BindingRemoved {
        /// Instance number of the row.
        instance: u32,
        /// The removed binding.
        binding: Binding,
        /// Reason for the removal.
        reason: RemovalReason,
    },
    /// A client with an identity has received an address and gets no row.
    DeviceRefused {
        /// The identity that it gave.
        identity: DeviceIdentity,
        /// The binding that it would have.
        binding: Binding,
        /// Reason for the refusal.
        result: IdentityResult,
    },
    /// An ACK changed a binding: its lease, its address or its last-seen time.
    BindingRenewed {
        /// Instance number of the row.
        instance: u32,
        /// The binding after the change.
        binding: Binding,
        /// Whether more than times changed, and the client had a change left. If `false`, the change may be stored
        /// later, because the map `LAST_ACK` has it until then.
        changed: bool,
    },
    /// A request that the programs could not parse has an identity: mark its exchange for the egress program.
    MarkExchange(ExchangeKey),
    /// A client has a binding: add it to the map `STICKY` (T-4).
    Stick(ClientKey),
    /// A client has no binding any more: record that in its entry of `LAST_ACK` at once, and delete the entry once the
    /// store has no row of it. Earlier, a restart would restore the row from the store; later, from the entry.
    Unstick {
        /// The client.
        client: ClientKey,
        /// Reason for the removal of its binding.
        reason: RemovalReason,
        /// When the client was last seen with the binding. An entry of a later ACK is that of another lease.
        seen: BootTime,
    },
    /// The client's entry in `LAST_ACK` says that its lease has ended, and the table has no binding of it. Delete the
    /// entry once the store has no row of it either.
    Ended(ClientKey),
    /// A binding has this address: add it to the map `NEIGHBOURS`, which records ARP messages (T-6). Keep an existing
    /// entry, so that a restart of the agent loses nothing.
    Watch(NeighbourKey),
    /// No binding has this address any more, or another station has it.
    Unwatch(NeighbourKey),
    /// A client was silent for the probe interval: read the kernel's record, and reply by [`Input::Seen`].
    Inquire {
        /// The client.
        client: ClientKey,
        /// The client's address.
        neighbour: NeighbourKey,
    },
    /// A client is silent: send an ARP request for its address on its segment (GW-11).
    Probe {
        /// The client.
        client: ClientKey,
        /// Destination of the frame: the station's hardware address, or [`crate::arp::EVERYBODY`].
        mac: [u8; 6],
        /// The requested address.
        ip: Ipv4Addr,
    },
    /// A client answered no probe: search for other signs of life, and report them by [`Input::Alive`]. Without one,
    /// the binding is removed at `until` (GW-8, T-6).
    ///
    /// The mere existence of a neighbour entry or a flow is no sign of life, because both outlive devices.
    Search {
        /// The client.
        client: ClientKey,
        /// The client's address.
        ip: Ipv4Addr,
        /// Time of the first lost probe. A sign of life has to be newer.
        since: BootTime,
        /// Time at which the search ends.
        until: BootTime,
    },
    /// Another client claims an address: send a broadcast ARP request for it on its segment, and report all answers
    /// within one second by [`Input::Answer`].
    AskHolder {
        /// Interface and VLANs of the address.
        segment: Segment,
        /// The claimed address.
        ip: Ipv4Addr,
    },
}

/// The association core.
pub struct Association {
    settings: Settings,
    table: Table,
    exchanges: Exchanges,
    claims: Vec<Claim>,
    /// Clients whose stored lease has expired and who cannot be probed.
    unasked: Vec<ClientKey>,
    changes: Changes,
    /// The latest time that was passed in.
    now: BootTime,
    local_addresses: Vec<Ipv4Addr>,
    /// Interfaces that are down, with the time at which their bindings are removed.
    down: Vec<(u32, BootTime)>,
    outputs: VecDeque<Output>,
    counts: Counts,
}

impl Association {
    /// A core with an empty table.
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

    /// Handles an input; `now` is the time at which the caller received it.
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

    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Time at which [`Input::Tick`] has to be passed.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let forget = self.exchanges.oldest_time().map(|oldest| oldest + self.settings.exchange_age);
        let claim = self.claims.iter().map(|claim| claim.due).min();
        [self.table.next_deadline(), forget, claim, self.changes.next_deadline()].into_iter().flatten().min()
    }

    /// The rows, ordered by instance number.
    pub fn devices(&self) -> impl Iterator<Item = Device<'_>> {
        self.table.devices()
    }

    /// The rows with instance numbers greater than `instance`, in order; for listing a large table in pages.
    pub fn devices_after(&self, instance: u32) -> impl Iterator<Item = Device<'_>> {
        self.table.devices_after(instance)
    }

    /// The row with this instance number.
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

    /// Clients whose row, or whose row of another identity, is delayed because they had no change left.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &ClientKey> {
        self.changes.waiting()
    }

    /// The counters.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The current settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn set_settings(&mut self, now: BootTime, settings: Settings) {
        let is_probed_otherwise = self.settings.probe_interval != settings.probe_interval;
        // The seed keys the indices and the client keys, so it cannot change.
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
