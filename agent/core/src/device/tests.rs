use proptest::prelude::*;
use tr111_common::{
    config::Config,
    dhcp4::{MessageType, option},
};

use super::*;
use crate::{
    arp::ArpRequest,
    binding,
    dhcp::{Builder, Message},
    identity::{GatewayIdentity, decode_device},
    model::{Notification, Root, Side, Source},
    notification::{self, Notifications},
};

mod check;
mod restart;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 100);
const HOUR: Duration = Duration::from_hours(1);

fn identity() -> DeviceIdentity {
    DeviceIdentity {
        manufacturer_oui: "00256D".parse().expect("an OUI"),
        serial_number: "DEV0001".parse().expect("text"),
        product_class: "STB".parse().expect("text"),
    }
}

fn gateway(serial: &str, class: &str) -> Vec<u8> {
    let identity = GatewayIdentity {
        manufacturer_oui: "00256D".parse().expect("an OUI"),
        serial_number: serial.parse().expect("text"),
        product_class: class.parse().expect("text"),
    };
    identity.encode()
}

/// A device, the time, and its outputs.
struct Bench {
    device: Device,
    now: BootTime,
    /// Frames that the device sent and the test has not read.
    sent: VecDeque<Vec<u8>>,
    changes: Vec<(GatewayInfo, GatewayInfo)>,
    addresses: Vec<Ipv4Addr>,
    /// ARP messages that the device sent.
    arps: Vec<ArpRequest>,
    /// The stored state.
    kept: State,
}

impl Bench {
    fn new(mode: Mode) -> Self {
        Self::restarted(mode, BootTime(1_000_000_000), State::default())
    }

    /// A device that starts at `now` with a stored state.
    fn restarted(mode: Mode, now: BootTime, kept: State) -> Self {
        let settings = Settings { mac: MAC, identity: identity(), mode, seed: 7 };
        Self {
            device: Device::new(&settings, kept.clone()),
            now,
            sent: VecDeque::new(),
            changes: Vec::new(),
            addresses: Vec::new(),
            arps: Vec::new(),
            kept,
        }
    }

    /// A device in INFORM mode, with link and address.
    fn informing() -> Self {
        let mut bench = Self::new(Mode::Inform { interval: HOUR });
        bench.handle(Input::Link(true));
        bench.handle(Input::Address(Some(ADDRESS)));
        bench
    }

    /// A device in DHCP mode, with a link.
    fn asking() -> Self {
        let mut bench = Self::new(Mode::Dhcp);
        bench.handle(Input::Link(true));
        bench
    }

    fn handle(&mut self, input: Input<'_>) {
        self.device.handle(self.now, input);
        while let Some(output) = self.device.poll_output() {
            match output {
                Output::Transmit(frame) => self.sent.push_back(frame),
                Output::Arp(frame) => self.arps.push(ArpRequest::parse(&frame).expect("a request")),
                Output::Declined(address) => assert_eq!(address, ADDRESS),
                Output::Keep(state) => self.kept = state,
                Output::GatewayInfoChanged { old, new } => self.changes.push((old, new)),
                Output::Configure(address) => self.addresses.push(address.address),
                Output::Deconfigure(address) => self.addresses.retain(|held| *held != address.address),
            }
        }
    }

    /// The next message that the device sent, after a check of its type and of the presence of the identity.
    fn message(&mut self, expected: MessageType) -> Vec<u8> {
        let frame = self.sent.pop_front().expect("a message");
        let message = parsed(&frame);
        assert_eq!(message.message_type, expected);
        let option = message.vendor_identifying();
        if matches!(expected, MessageType::Release | MessageType::Decline) {
            assert_eq!(option, None);
        } else {
            let found = decode_device(&option.expect("option 125"), &Config::default());
            assert_eq!(found.expect("an identity").identity, identity());
        }
        frame
    }

    fn reply(&mut self, message_type: MessageType, to: &[u8], vendor: Option<&[u8]>) {
        self.reply_from(SERVER, message_type, to, vendor);
    }

    fn reply_from(&mut self, server: Ipv4Addr, message_type: MessageType, to: &[u8], vendor: Option<&[u8]>) {
        let message = parsed(to);
        let (address, lease) = match message.message_type {
            MessageType::Inform => (Ipv4Addr::UNSPECIFIED, None),
            _ => (ADDRESS, Some(1_000u32)),
        };
        let mut reply = Builder::reply(message_type, &message, SERVER_MAC, server, address);
        if let Some(lease) = lease {
            reply = reply.option(option::LEASE_TIME, &lease.to_be_bytes()).option(1, &[255, 255, 255, 0]);
        }
        if let Some(vendor) = vendor {
            reply = reply.option(option::VENDOR_IDENTIFYING, vendor);
        }
        self.handle(Input::Frame(&reply.build()));
    }

    /// Advances to the next deadline; returns the elapsed time.
    fn wait(&mut self) -> Duration {
        let deadline = self.device.next_deadline().expect("something to wait for").max(self.now);
        let waited = deadline.since(self.now).expect("it is to come");
        self.now = deadline;
        self.handle(Input::Tick);
        waited
    }

    /// Completes an exchange from DISCOVER to ACK, with these values of option 125 in OFFER and ACK.
    fn bind(&mut self, offer: Option<&[u8]>, ack: Option<&[u8]>) {
        let discover = self.message(MessageType::Discover);
        self.reply(MessageType::Offer, &discover, offer);
        let request = self.message(MessageType::Request);
        self.reply(MessageType::Ack, &request, ack);
        self.check();
    }

    /// Completes the conflict check; no other station has the address.
    fn check(&mut self) {
        while self.device.is_checking() {
            self.wait();
        }
    }

    fn info(&self) -> [&str; 3] {
        GatewayParameter::ALL.map(|parameter| self.device.gateway_info().get(parameter))
    }
}

fn parsed(frame: &[u8]) -> Message<'_> {
    Message::parse_request(frame, None).expect("a client's message")
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// DEV-2, DEV-10: INFORM is sent from the device's address with its identity; DEV-3: the ACK sets GatewayInfo.
#[test]
fn an_inform_carries_the_identity_and_its_ack_fills_gateway_info() {
    let mut bench = Bench::informing();
    let inform = bench.message(MessageType::Inform);
    assert_eq!((parsed(&inform).ciaddr(), parsed(&inform).source), (ADDRESS, ADDRESS));
    assert_eq!(bench.info(), ["", "", ""]);
    bench.reply(MessageType::Ack, &inform, Some(&gateway("GW0001", "IGD")));
    assert_eq!(bench.info(), ["00256D", "IGD", "GW0001"]);
    assert_eq!(bench.changes.len(), 1);
}

/// DEV-3: only an ACK in this transaction is used.
#[test]
fn replies_to_others_change_nothing() {
    let mut bench = Bench::informing();
    let inform = bench.message(MessageType::Inform);
    let strangers = [
        Builder::request(MessageType::Inform, MAC, parsed(&inform).fixed.xid ^ 1).ciaddr(ADDRESS).build(),
        Builder::request(MessageType::Inform, SERVER_MAC, parsed(&inform).fixed.xid).ciaddr(ADDRESS).build(),
    ];
    for stranger in strangers {
        bench.reply(MessageType::Ack, &stranger, Some(&gateway("GW0001", "IGD")));
    }
    bench.reply(MessageType::Offer, &inform, Some(&gateway("GW0001", "IGD")));
    assert_eq!((bench.info(), bench.changes.len()), (["", "", ""], 0));
}

#[test]
fn an_unanswered_inform_is_repeated_with_back_off_and_then_after_the_interval() {
    let mut bench = Bench::informing();
    for expected in [4.0, 8.0, 16.0, 32.0, 64.0] {
        bench.message(MessageType::Inform);
        let waited = seconds(bench.wait());
        assert!((waited - expected).abs() <= 1.0, "{waited} s instead of {expected} s");
    }
    assert!(bench.sent.is_empty(), "it rests");
    assert!((seconds(bench.wait()) - seconds(HOUR)).abs() <= 1.0);
    bench.message(MessageType::Inform);
}

#[test]
fn an_answered_inform_is_repeated_after_the_interval_and_when_link_or_address_change() {
    let mut bench = Bench::informing();
    let inform = bench.message(MessageType::Inform);
    bench.reply(MessageType::Ack, &inform, Some(&gateway("GW0001", "IGD")));
    assert!((seconds(bench.wait()) - seconds(HOUR)).abs() <= 1.0);
    bench.message(MessageType::Inform);
    bench.handle(Input::Link(false));
    assert_eq!(bench.device.next_deadline(), None);
    bench.handle(Input::Link(true));
    bench.message(MessageType::Inform);
    bench.handle(Input::Address(Some(OTHER_SERVER)));
    assert_eq!(parsed(&bench.message(MessageType::Inform)).ciaddr(), OTHER_SERVER);
    bench.handle(Input::Address(Some(OTHER_SERVER)));
    assert!(bench.sent.is_empty(), "nothing changed");
    assert_eq!(bench.info(), ["00256D", "IGD", "GW0001"]);
}

/// DEV-9: the loss of the address clears GatewayInfo.
#[test]
fn the_loss_of_the_address_empties_gateway_info() {
    let mut bench = Bench::informing();
    let inform = bench.message(MessageType::Inform);
    bench.reply(MessageType::Ack, &inform, Some(&gateway("GW0001", "IGD")));
    bench.handle(Input::Address(None));
    assert_eq!(bench.info(), ["", "", ""]);
    assert_eq!((bench.changes.len(), bench.device.next_deadline()), (2, None));
}

/// DEV-5: parameters that are missing in an ACK become empty.
#[test]
fn missing_parts_replace_old_values_by_empty_ones() {
    let code_4_only = [&[0, 0, 0x0d, 0xe9, 8, 4, 6][..], b"00256D"].concat();
    for (option, expected) in [
        (Some(gateway("GW0002", "")), ["00256D", "", "GW0002"]),
        (Some(code_4_only), ["00256D", "", ""]),
        (Some(vec![0, 0, 0x0d, 0xe9, 0]), ["", "", ""]),
        (Some(vec![0, 0, 0x11, 0x8b, 2, 1, 0]), ["", "", ""]),
        (None, ["", "", ""]),
    ] {
        let mut bench = Bench::informing();
        let inform = bench.message(MessageType::Inform);
        bench.reply(MessageType::Ack, &inform, Some(&gateway("GW0001", "IGD")));
        bench.wait();
        let inform = bench.message(MessageType::Inform);
        bench.reply(MessageType::Ack, &inform, option.as_deref());
        assert_eq!(bench.info(), expected, "{option:02x?}");
        assert_eq!(bench.changes.len(), 2);
    }
}

/// DEV-3: an echo of the device's own identity is not a gateway identity.
#[test]
fn an_echo_of_the_own_identity_is_not_taken_for_a_gateway() {
    let mut bench = Bench::informing();
    let inform = bench.message(MessageType::Inform);
    bench.reply(MessageType::Ack, &inform, Some(&identity().encode()));
    assert_eq!((bench.info(), bench.changes.len()), (["", "", ""], 0));
}

/// DEV-1, DEV-2, DEV-3: DISCOVER and REQUEST carry the identity; the ACK brings address and GatewayInfo.
#[test]
fn a_full_exchange_brings_address_and_gateway_info() {
    let mut bench = Bench::asking();
    let discover = bench.message(MessageType::Discover);
    bench.reply(MessageType::Offer, &discover, None);
    let request = bench.message(MessageType::Request);
    let message = parsed(&request);
    assert_eq!(message.fixed.xid, parsed(&discover).fixed.xid);
    assert_eq!((message.server_id(), message.requested_ip()), (Some(SERVER), Some(ADDRESS)));
    assert!(message.ciaddr().is_unspecified());
    assert!(bench.addresses.is_empty());
    bench.reply(MessageType::Ack, &request, Some(&gateway("GW0001", "IGD")));
    bench.check();
    assert_eq!(bench.addresses, [ADDRESS]);
    assert_eq!(bench.device.lease(), Some(Address { address: ADDRESS, prefix_length: 24, router: None }));
    assert_eq!((bench.info(), bench.changes.len()), (["00256D", "IGD", "GW0001"], 1));
}

/// DEV-4: the identity in the OFFER of the selected server is used if the ACK has none; otherwise that of the ACK.
#[test]
fn the_offer_is_provisional_and_the_ack_decides() {
    let (one, other) = (gateway("GW0001", "IGD"), gateway("GW0002", "IGD"));
    for (offer, ack, serial) in [
        (Some(&one), None, "GW0001"),
        (Some(&one), Some(&other), "GW0002"),
        (None, Some(&other), "GW0002"),
        (None, None, ""),
    ] {
        let mut bench = Bench::asking();
        bench.bind(offer.map(|value| &value[..]), ack.map(|value| &value[..]));
        assert_eq!(bench.info()[2], serial);
        assert_eq!(bench.changes.len(), usize::from(!serial.is_empty()));
    }
}

/// DEV-4: the first offer is accepted; OFFER, ACK and NAK of other servers are ignored.
#[test]
fn servers_that_were_not_selected_change_nothing() {
    let mut bench = Bench::asking();
    let discover = bench.message(MessageType::Discover);
    bench.reply(MessageType::Offer, &discover, None);
    let request = bench.message(MessageType::Request);
    let wrong = gateway("WRONG", "");
    for kind in [MessageType::Offer, MessageType::Ack, MessageType::Nak] {
        bench.reply_from(OTHER_SERVER, kind, &request, Some(&wrong));
    }
    assert_eq!((bench.info(), bench.changes.len(), bench.sent.len()), (["", "", ""], 0, 0));
    bench.reply(MessageType::Ack, &request, Some(&gateway("GW0001", "IGD")));
    bench.check();
    assert_eq!(bench.info()[2], "GW0001");
    assert_eq!(parsed(&request).server_id(), Some(SERVER));
}

/// DEV-2: renewal and rebinding carry the identity. A renewal is sent to the server, a rebinding is broadcast.
#[test]
fn a_lease_is_renewed_at_half_of_its_time_and_rebound_at_seven_eighths() {
    let mut bench = Bench::asking();
    let identity = gateway("GW0001", "IGD");
    let requested = bench.now;
    bench.bind(None, Some(&identity));
    bench.wait();
    assert!((seconds(bench.now.since(requested).expect("later")) - 500.0).abs() < 0.001);
    let renewal = bench.message(MessageType::Request);
    let message = parsed(&renewal);
    assert_eq!((message.ciaddr(), message.destination), (ADDRESS, SERVER));
    assert_eq!((&renewal[..6], message.requested_ip(), message.server_id()), (&SERVER_MAC[..], None, None));
    bench.reply(MessageType::Ack, &renewal, Some(&identity));
    assert_eq!(bench.changes.len(), 1, "the same gateway is no change");

    let renewed = bench.now;
    bench.wait();
    let mut last = bench.message(MessageType::Request);
    while bench.now.since(renewed).expect("later") < Duration::from_secs(875) {
        assert_eq!(parsed(&last).destination, SERVER);
        let waited = bench.wait();
        let late = bench.now.since(renewed).expect("later") >= Duration::from_secs(875);
        assert!(late || waited >= Duration::from_mins(1), "no haste, until T2");
        last = bench.message(MessageType::Request);
    }
    assert!((seconds(bench.now.since(renewed).expect("later")) - 875.0).abs() < 0.001);
    assert_eq!((parsed(&last).destination, parsed(&last).ciaddr()), (Ipv4Addr::BROADCAST, ADDRESS));
    bench.reply_from(OTHER_SERVER, MessageType::Ack, &last, Some(&identity));
    assert_eq!(bench.addresses, [ADDRESS]);
    assert_eq!((bench.info()[2], bench.changes.len()), ("GW0001", 1));
}

/// DEV-5: a renewal without a gateway identity clears GatewayInfo.
#[test]
fn a_renewal_without_the_identity_empties_gateway_info() {
    let mut bench = Bench::asking();
    bench.bind(Some(&gateway("GW0001", "IGD")), None);
    bench.wait();
    let renewal = bench.message(MessageType::Request);
    bench.reply(MessageType::Ack, &renewal, None);
    assert_eq!((bench.info(), bench.changes.len()), (["", "", ""], 2));
}

/// DEV-9: the expiry of a lease removes the address and clears GatewayInfo.
#[test]
fn expiry_empties_gateway_info_and_the_search_begins_again() {
    let mut bench = Bench::asking();
    let bound = bench.now;
    bench.bind(None, Some(&gateway("GW0001", "IGD")));
    while bench.device.lease().is_some() {
        bench.sent.clear();
        bench.wait();
    }
    assert!((seconds(bench.now.since(bound).expect("later")) - 1000.0).abs() < 0.001);
    assert_eq!((bench.info(), bench.addresses.len(), bench.changes.len()), (["", "", ""], 0, 2));
    bench.message(MessageType::Discover);
}

/// DEV-9: a lease expires without a link, too.
#[test]
fn a_lease_ends_without_a_link_too() {
    let mut bench = Bench::asking();
    bench.bind(None, Some(&gateway("GW0001", "IGD")));
    bench.handle(Input::Link(false));
    assert_eq!(bench.info()[2], "GW0001");
    bench.wait();
    assert_eq!((bench.info(), bench.addresses.len()), (["", "", ""], 0));
    assert_eq!((bench.sent.len(), bench.device.next_deadline()), (0, None));
}

/// DEV-2, DEV-9: RELEASE carries no identity (RFC 2131 table 5), and clears GatewayInfo.
#[test]
fn a_release_goes_to_the_server_and_empties_gateway_info() {
    let mut bench = Bench::asking();
    bench.bind(None, Some(&gateway("GW0001", "IGD")));
    bench.handle(Input::Release);
    let release = bench.message(MessageType::Release);
    let message = parsed(&release);
    assert_eq!((message.ciaddr(), message.server_id(), message.destination), (ADDRESS, Some(SERVER), SERVER));
    assert_eq!((bench.info(), bench.addresses.len(), bench.changes.len()), (["", "", ""], 0, 2));
    bench.handle(Input::Link(true));
    assert_eq!((bench.sent.len(), bench.device.next_deadline()), (0, None), "it is over");
}

#[test]
fn a_nak_ends_the_lease_and_the_search_begins_again_after_a_pause() {
    let mut bench = Bench::asking();
    bench.bind(None, Some(&gateway("GW0001", "IGD")));
    bench.wait();
    let renewal = bench.message(MessageType::Request);
    bench.reply(MessageType::Nak, &renewal, None);
    assert_eq!((bench.info(), bench.addresses.len(), bench.sent.len()), (["", "", ""], 0, 0));
    assert!(bench.wait() >= Duration::from_secs(1));
    bench.bind(None, Some(&gateway("GW0002", "IGD")));
    assert_eq!((bench.info()[2], bench.addresses.len()), ("GW0002", 1));
}

/// DEV-2: the REQUEST after the return of the link carries the identity.
#[test]
fn a_lease_is_confirmed_when_the_link_comes_back() {
    let mut bench = Bench::asking();
    bench.bind(None, Some(&gateway("GW0001", "IGD")));
    bench.handle(Input::Link(false));
    bench.handle(Input::Link(true));
    let request = bench.message(MessageType::Request);
    let message = parsed(&request);
    assert_eq!((message.requested_ip(), message.server_id()), (Some(ADDRESS), None));
    assert!(message.ciaddr().is_unspecified());
    bench.reply(MessageType::Ack, &request, Some(&gateway("GW0002", "IGD")));
    bench.check();
    assert_eq!((bench.info()[2], bench.changes.len()), ("GW0002", 2));
}

#[test]
fn a_server_that_never_acknowledges_is_given_up_and_discovers_back_off() {
    let mut bench = Bench::asking();
    let discover = bench.message(MessageType::Discover);
    bench.reply(MessageType::Offer, &discover, None);
    for _ in 0..4 {
        bench.message(MessageType::Request);
        bench.wait();
    }
    for expected in [4.0, 8.0, 16.0, 32.0, 64.0, 64.0] {
        bench.message(MessageType::Discover);
        let waited = seconds(bench.wait());
        assert!((waited - expected).abs() <= 1.0, "{waited} s instead of {expected} s");
    }
}

/// A device with an empty data model.
struct Model;

impl Source for Model {
    fn root(&self) -> Root {
        Root::Device1
    }

    fn side(&self) -> Side {
        Side::Device
    }

    fn device_info(&self) -> &GatewayIdentity {
        unreachable!("nobody reads values")
    }

    fn binding(&self) -> &binding::Parameters {
        unreachable!("nobody reads values")
    }

    fn number_of_entries(&self) -> u32 {
        0
    }

    fn notification_limit(&self) -> u32 {
        0
    }

    fn instances(&self) -> Vec<u32> {
        Vec::new()
    }

    fn device(&self, _: u32) -> Option<&DeviceIdentity> {
        None
    }
}

const NAMES: [&str; 3] =
    ["Device.GatewayInfo.ManufacturerOUI", "Device.GatewayInfo.ProductClass", "Device.GatewayInfo.SerialNumber"];

fn notifications() -> Notifications {
    Notifications::new(Root::Device1, notification::Settings::default(), attributes::first_state(Root::Device1))
}

/// DEV-6, DEV-7: Active is the default, and is set again by every write of the ACS URL.
#[test]
fn attributes_are_active_until_set_and_again_when_the_url_is_written() {
    let mut notifications = notifications();
    let attributes = |notifications: &Notifications| NAMES.map(|name| notifications.attribute(name));
    assert_eq!(attributes(&notifications), [Notification::Active; 3]);
    notifications.set(&Model, "Device.GatewayInfo.", Notification::Off).expect("allowed");
    assert_eq!(attributes(&notifications), [Notification::Off; 3]);
    attributes::url_written(&mut notifications, &Model).expect("allowed");
    assert_eq!(attributes(&notifications), [Notification::Active; 3]);
}

/// DEV-8, T-3: one notification has exactly the changed parameters.
#[test]
fn a_change_of_gateway_info_is_one_notification() {
    let mut notifications = notifications();
    let mut bench = Bench::informing();
    for (serial, expected) in [("GW0001", &NAMES[..]), ("GW0002", &NAMES[2..]), ("GW0002", &[])] {
        let inform = bench.message(MessageType::Inform);
        bench.reply(MessageType::Ack, &inform, Some(&gateway(serial, "IGD")));
        for (old, new) in bench.changes.drain(..) {
            attributes::changed(&mut notifications, bench.now, Root::Device1, &old, &new);
        }
        let told: Vec<_> = std::iter::from_fn(|| notifications.poll_output()).collect();
        let names = told.iter().flat_map(|notification::Output::Notify { parameters, .. }| parameters);
        assert_eq!(names.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(told.len(), usize::from(!expected.is_empty()));
        bench.wait();
    }
}

proptest! {
    /// DEV-3, DEV-5: for any inputs in any order, each change starts at the value of the previous one, and the device
    /// has a deadline whenever it has a link.
    #[test]
    fn changes_form_a_chain(mode in any::<bool>(), steps in prop::collection::vec((0u8..9, any::<u8>()), 1..60)) {
        let mut bench = if mode { Bench::informing() } else { Bench::asking() };
        let mut heard = Vec::new();
        for (step, detail) in steps {
            heard.extend(bench.sent.drain(..));
            let vendor = (detail % 3 > 0).then(|| gateway(&format!("GW{}", detail % 3), "IGD"));
            let last = heard.last().filter(|frame| parsed(frame).message_type != MessageType::Release).cloned();
            let before = bench.changes.len();
            match (step, last) {
                (0, Some(frame)) => bench.reply(MessageType::Offer, &frame, vendor.as_deref()),
                (1 | 2, Some(frame)) => bench.reply(MessageType::Ack, &frame, vendor.as_deref()),
                (3, Some(frame)) => bench.reply(MessageType::Nak, &frame, vendor.as_deref()),
                (4, _) => bench.handle(Input::Link(detail % 4 > 0)),
                (5, _) => bench.handle(Input::Address((detail % 4 > 0).then_some(ADDRESS))),
                (6, Some(mut frame)) => {
                    let length = frame.len();
                    frame[usize::from(detail) % length] ^= detail;
                    bench.handle(Input::Frame(&frame));
                }
                _ if bench.device.next_deadline().is_some() => drop(bench.wait()),
                _ => {}
            }
            prop_assert!(bench.changes.len() <= before + 1);
        }
        let mut known = GatewayInfo::default();
        for (old, new) in &bench.changes {
            prop_assert_eq!(old, &known);
            prop_assert_ne!(old, new);
            known.clone_from(new);
        }
        prop_assert_eq!(bench.device.gateway_info(), &known);
        let held: Vec<_> = bench.device.lease().map(|lease| lease.address).into_iter().collect();
        prop_assert_eq!(&bench.addresses, &held);
    }
}
