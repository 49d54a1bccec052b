//! The owner of the table between a ring, the programs' maps, clients and watchers, all of them made up.

use std::{
    collections::HashMap,
    fs, io,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, oneshot};
use tr111_common::{
    abi::{ClientKey, ExchangeKey, Flow, FlowKey, LastAck, Neighbour, NeighbourKey},
    config::Config,
    counter::{Class, Counter, Hook},
    dhcp4::{MessageType, option},
    event::{Event, RecordError},
    headers::Segment,
};
use tr111_core::{
    association::RemovalReason,
    dhcp::{Builder, Message},
    identity::DeviceIdentity,
    model::{Notification, Root},
    time::BootTime,
};

use super::{
    association::{Ended, Facts, Owner, Parts},
    *,
};
use crate::{
    control::message::{self, Happening, Interface},
    dataplane, store,
    telemetry::{KernelCounters, Telemetry, log::Log},
};

const LAN: u32 = 7;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const LEASED: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 100);
const PATIENCE: Duration = Duration::from_secs(10);

/// Records of a ring: hook, class and frame; `None` is a record that cannot be decoded.
type Record = Option<(Hook, Class, Vec<u8>)>;

struct Ring(mpsc::Receiver<Record>);

impl Events for Ring {
    async fn next_batch(&mut self, mut take: impl FnMut(Result<Event<'_>, RecordError>)) -> io::Result<usize> {
        match self.0.recv().await {
            Some(Some((hook, class, frame))) => take(Ok(Event {
                time: Clock::now().0,
                segment: Segment { ifindex: LAN, vlan: [0, 0] },
                metadata_tag: None,
                class,
                hook,
                frame: &frame,
            })),
            Some(None) => take(Err(RecordError::UnknownClass(200))),
            None => std::future::pending().await,
        }
        Ok(1)
    }
}

#[derive(Clone, Default)]
struct Maps {
    sticky: Arc<Mutex<Vec<ClientKey>>>,
    config: Arc<Mutex<Option<Config>>>,
    neighbours: Arc<Mutex<HashMap<NeighbourKey, Neighbour>>>,
    merged: Arc<Mutex<Option<BootTime>>>,
}

impl Programs for Maps {
    fn set_config(&self, config: &Config) -> Result<(), dataplane::Error> {
        *self.config.lock().expect("nobody panics") = Some(*config);
        Ok(())
    }

    fn mark_exchange(&self, _: &ExchangeKey) -> Result<(), dataplane::Error> {
        Ok(())
    }

    fn stick(&self, client: &ClientKey) -> Result<(), dataplane::Error> {
        self.sticky.lock().expect("nobody panics").push(*client);
        Ok(())
    }

    fn unstick(&self, client: &ClientKey, _: RemovalReason, _: BootTime) {
        self.sticky.lock().expect("nobody panics").retain(|stuck| stuck != client);
    }

    fn forget_ended(&self, _: &ClientKey) {}

    fn retain_sticky(&self, keep: impl Fn(&ClientKey) -> bool) {
        self.sticky.lock().expect("nobody panics").retain(keep);
    }

    fn watch(&self, key: &NeighbourKey, now: BootTime) -> Result<(), dataplane::Error> {
        let heard = Neighbour { seen: now.0, ..Neighbour::default() };
        self.neighbours.lock().expect("nobody panics").entry(*key).or_insert(heard);
        Ok(())
    }

    fn unwatch(&self, key: &NeighbourKey) {
        self.neighbours.lock().expect("nobody panics").remove(key);
    }

    fn retain_watched(&self, keep: impl Fn(&NeighbourKey) -> bool) {
        self.neighbours.lock().expect("nobody panics").retain(|key, _| keep(key));
    }

    fn neighbour(&self, key: &NeighbourKey) -> Option<Neighbour> {
        self.neighbours.lock().expect("nobody panics").get(key).copied()
    }

    fn last_foreign_reply(&self, _: u32) -> Option<BootTime> {
        None
    }

    fn last_merged(&self, ifindex: u32) -> Option<BootTime> {
        self.merged.lock().expect("nobody panics").filter(|_| ifindex == LAN)
    }

    fn last_reply(&self, _: u32) -> Option<BootTime> {
        None
    }

    fn last_acks(&self) -> Vec<(ClientKey, LastAck)> {
        Vec::new()
    }

    fn flows(&self) -> Vec<(FlowKey, Flow)> {
        Vec::new()
    }
}

struct NoCounters;

impl KernelCounters for NoCounters {
    fn read(&self, _: Counter) -> u64 {
        0
    }
}

struct Lab {
    ring: mpsc::Sender<Record>,
    asks: mpsc::Sender<Ask>,
    network: mpsc::Sender<LanChange>,
    watcher: broadcast::Receiver<Arc<message::Event>>,
    maps: Maps,
    telemetry: Arc<Telemetry>,
    owner: tokio::task::JoinHandle<io::Result<Ended>>,
    directory: Arc<TempDir>,
}

fn start() -> Lab {
    start_in(Arc::new(tempfile::tempdir().expect("a directory")))
}

fn start_in(directory: Arc<TempDir>) -> Lab {
    let (ring, records) = mpsc::channel(16);
    let (asks, asked) = mpsc::channel(4);
    let (network, changes) = mpsc::channel(4);
    let (events, watcher) = broadcast::channel(16);
    let maps = Maps::default();
    let telemetry = Arc::new(Telemetry::new("gateway", NoCounters).expect("consistent names"));
    let device_info = tr111_core::identity::GatewayIdentity {
        manufacturer_oui: "00256D".parse().expect("an OUI"),
        serial_number: "GW0001".parse().expect("text"),
        product_class: "IGD".parse().expect("text"),
    };
    let lan0 = Interface { name: "lan0".to_owned(), side: "lan".to_owned(), state: "up".to_owned(), hooks: Vec::new() };
    let (store, kept) = open_store(directory.path(), lan).expect("a store");
    let prober = Prober::start(telemetry.probes_sent.clone());
    let parts = Parts {
        facts: Facts {
            role: "gateway",
            started: Clock::now(),
            interfaces: vec![(LAN, lan0)],
            pin_dir: "/sys/fs/bpf/tr111".into(),
            metrics: None,
            tcp_connection_requests: "external".to_owned(),
        },
        programs: maps.clone(),
        counters: NoCounters,
        telemetry: Arc::clone(&telemetry),
        events,
        knobs: Knobs::new(Values::default()),
        model: Model::new(Root::Igd, device_info, Written::default()),
        log: Log::start("off"),
        search: Search::start(prober.clone(), asks.clone(), None),
        prober,
        nat: None,
    };
    network.try_send(LanChange::Addresses(vec![GATEWAY])).expect("room");
    let owner = tokio::spawn(Owner::new(parts, kept, 1, store).run(Ring(records), asked, changes));
    Lab { ring, asks, network, watcher, maps, telemetry, owner, directory }
}

fn lan(name: &str) -> Option<u32> {
    (name == "lan0").then_some(LAN)
}

fn request(kind: MessageType) -> Builder {
    let identity = DeviceIdentity {
        manufacturer_oui: "00256D".parse().expect("an OUI"),
        serial_number: "DEV0001".parse().expect("text"),
        product_class: "STB".parse().expect("text"),
    };
    Builder::request(kind, MAC, 1).option(option::VENDOR_IDENTIFYING, &identity.encode())
}

impl Lab {
    async fn see(&self, hook: Hook, class: Class, frame: Vec<u8>) {
        self.ring.send(Some((hook, class, frame))).await.expect("the owner reads");
    }

    async fn lease(&self) {
        let request = request(MessageType::Request).build();
        let asked = Message::parse_request(&request, None).expect("a request");
        let ack = Builder::reply(MessageType::Ack, &asked, GATEWAY_MAC, GATEWAY, LEASED)
            .option(option::LEASE_TIME, &600u32.to_be_bytes())
            .build();
        self.see(Hook::LanIngress, Class::Request, request.clone()).await;
        self.see(Hook::LanEgress, Class::Ack, ack).await;
    }

    /// Stops the agent, and starts another one with the same store.
    async fn restart(self) -> Self {
        self.asks.send(Ask::Stop).await.expect("the owner answers");
        let ended = tokio::time::timeout(PATIENCE, self.owner).await.expect("in time").expect("no panic");
        assert!(matches!(ended, Ok(Ended::Stopped)));
        start_in(self.directory)
    }

    async fn release(&self) {
        let release = Builder::request(MessageType::Release, MAC, 2).from(MAC, LEASED).ciaddr(LEASED).build();
        self.see(Hook::LanIngress, Class::Release, release).await;
    }

    async fn notifications(&self, after: u64) -> Vec<(u64, String)> {
        let events = self.ask(|reply| Ask::Notifications { after, reply }).await;
        let told = events.into_iter().map(|event| match event.what {
            Happening::Notification(told) => (told.sequence, told.parameters[0].value.clone()),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    async fn told(&mut self) -> Happening {
        let event = tokio::time::timeout(PATIENCE, self.watcher.recv()).await.expect("in time").expect("an event");
        event.what.clone()
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> T {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.expect("the owner answers");
        tokio::time::timeout(PATIENCE, answer).await.expect("in time").expect("an answer")
    }
}

#[tokio::test]
async fn an_acknowledged_request_reaches_programs_watchers_clients_and_metrics_and_a_release_undoes_it() {
    let mut lab = start();
    lab.lease().await;
    let Happening::DeviceAdded(change) = lab.told().await else { panic!("not an addition") };
    assert_eq!((change.instance, change.serial_number.as_str()), (1, "DEV0001"));
    assert_eq!(change.bindings[0].interface, "lan0");
    assert_eq!(lab.maps.sticky.lock().expect("nobody panics").len(), 1);

    let devices = lab.ask(|reply| Ask::Devices { after: 0, reply }).await;
    assert_eq!(devices.len(), 1);
    assert_eq!(
        (devices[0].bindings[0].mac.as_str(), devices[0].bindings[0].ip.as_str()),
        ("02:00:00:00:00:01", "192.168.1.100")
    );
    assert!(devices[0].bindings[0].lease_expires.is_some());
    assert!(lab.ask(|reply| Ask::Devices { after: 1, reply }).await.is_empty());
    assert_eq!(lab.ask(Ask::Status).await.table.rows, 1);
    let metrics = lab.telemetry.render().expect("encodes");
    assert!(metrics.contains("tr111_manageable_devices 1\n"), "{metrics}");
    assert!(metrics.contains("tr111_event_latency_seconds_count 2\n"), "{metrics}");

    let release = Builder::request(MessageType::Release, MAC, 2).from(MAC, LEASED).ciaddr(LEASED).build();
    lab.see(Hook::LanIngress, Class::Release, release).await;
    let Happening::DeviceRemoved(removal) = lab.told().await else { panic!("not a removal") };
    assert_eq!((removal.reason.as_str(), removal.change.serial_number.as_str()), ("released", "DEV0001"));
    assert!(lab.maps.sticky.lock().expect("nobody panics").is_empty());
}

/// GW-11: devices behind a link that stays down are removed after the probe window; devices behind others are not.
#[tokio::test]
async fn an_interface_that_stays_away_takes_its_devices_with_it() {
    let mut lab = start();
    let knobs = ["probe_interval_s", "probe_count"].map(|key| (format!("gateway.association.{key}"), "1".to_owned()));
    lab.ask(|reply| Ask::Tune { settings: knobs.to_vec(), reply }).await.expect("in range");
    lab.lease().await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    let gone = |name: &str| LanChange::Interface { name: name.to_owned(), state: InterfaceState::Gone, attached: None };
    lab.network.send(gone("lan1")).await.expect("the owner reads");
    lab.network.send(gone("lan0")).await.expect("the owner reads");
    let Happening::DeviceRemoved(removal) = lab.told().await else { panic!("not a removal") };
    assert_eq!(removal.reason, "disconnected");
    assert_eq!(lab.ask(Ask::Status).await.interfaces[0].state, "gone");
}

/// Merged datagrams that could not be separated raise an alarm, as an event and in `status`, until ten minutes after
/// the last one. The alarm ends at once if the interface is removed.
#[tokio::test]
async fn merged_datagrams_are_an_alarm_for_ten_minutes() {
    let mut lab = start();
    let maps = lab.maps.clone();
    let merged = |time| *maps.merged.lock().expect("nobody panics") = Some(time);
    let told = async |lab: &mut Lab| match lab.told().await {
        Happening::Alarm(told) => (told.alarm, told.interface, told.cleared),
        other => panic!("{other:?}"),
    };
    let expected = |cleared| ("merged".to_owned(), Some("lan0".to_owned()), cleared);
    let now = Clock::now();
    merged(now);
    assert_eq!(told(&mut lab).await, expected(false));
    let alarms = lab.ask(Ask::Status).await.alarms;
    assert!(alarms[0].detail.contains("rx-gro-list off rx-udp-gro-forwarding off"), "{alarms:?}");
    // A machine with a shorter uptime cannot have seen an earlier one.
    if let Some(earlier) = now.0.checked_sub(600_000_000_000) {
        merged(BootTime(earlier));
        assert_eq!(told(&mut lab).await, expected(true));
        merged(Clock::now());
        assert_eq!(told(&mut lab).await, expected(false));
    }
    let gone = LanChange::Interface { name: "lan0".to_owned(), state: InterfaceState::Gone, attached: None };
    lab.network.send(gone).await.expect("the owner reads");
    assert_eq!(told(&mut lab).await, expected(true));
    // The programs' record outlives the interface. The owner checks it every second.
    let again = tokio::time::timeout(Duration::from_millis(2_500), lab.watcher.recv()).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test]
async fn a_record_that_is_no_event_is_counted_and_the_next_one_is_read() {
    let mut lab = start();
    lab.ring.send(None).await.expect("the owner reads");
    lab.lease().await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    assert_eq!(lab.telemetry.damaged_records.get(), 1);
}

#[tokio::test]
async fn a_knob_reaches_core_and_programs_and_a_lease_ends_by_its_timer() {
    let mut lab = start();
    lab.ask(|reply| Ask::Tune {
        settings: vec![
            ("gateway.association.inform_maximum_age_s".to_owned(), "1".to_owned()),
            ("gateway.association.dialect".to_owned(), "tr111".to_owned()),
        ],
        reply,
    })
    .await
    .expect("in range");
    let config = lab.maps.config.lock().expect("nobody panics").expect("written");
    assert_eq!((config.dialect, config.seed), (1, 1));

    let inform = request(MessageType::Inform).from(MAC, LEASED).ciaddr(LEASED).build();
    let asked = Message::parse_request(&inform, None).expect("an INFORM");
    let ack = Builder::reply(MessageType::Ack, &asked, GATEWAY_MAC, GATEWAY, Ipv4Addr::UNSPECIFIED).build();
    lab.see(Hook::LanIngress, Class::Inform, inform.clone()).await;
    lab.see(Hook::LanEgress, Class::Ack, ack).await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    let Happening::DeviceRemoved(removal) = lab.told().await else { panic!("not a removal") };
    assert_eq!(removal.reason, "expired");
}

#[tokio::test]
async fn a_client_that_names_another_directory_does_not_stop_the_agent_and_one_that_names_its_own_does() {
    let lab = start();
    let (_left, answered) = oneshot::channel();
    let refused = lab.ask(|reply| Ask::Detach { pin_dir: Some("/other".into()), reply, answered }).await;
    assert!(refused.expect_err("another agent's").contains("/sys/fs/bpf/tr111"));
    let (_left, answered) = oneshot::channel();
    let (reply, _) = oneshot::channel();
    let own = Some("/sys/fs/bpf/tr111".into());
    lab.asks.send(Ask::Detach { pin_dir: own, reply, answered }).await.expect("the owner answers");
    let ended = tokio::time::timeout(PATIENCE, lab.owner).await.expect("in time").expect("no panic");
    assert!(matches!(ended, Ok(Ended::Detached { .. })));
}

/// T-32: instance numbers are not reused. T-30: rows are present after a restart, from the first answer on.
#[tokio::test]
async fn rows_and_instance_numbers_survive_a_restart() {
    let mut lab = start();
    lab.lease().await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    let before = lab.ask(|reply| Ask::Devices { after: 0, reply }).await;

    let mut lab = lab.restart().await;
    let after = lab.ask(|reply| Ask::Devices { after: 0, reply }).await;
    assert_eq!(after, before);
    assert_eq!(lab.maps.sticky.lock().expect("nobody panics").len(), 1);
    assert_eq!(lab.maps.neighbours.lock().expect("nobody panics").len(), 1);
    lab.release().await;
    assert!(matches!(lab.told().await, Happening::DeviceRemoved(_)));

    let mut lab = lab.restart().await;
    assert!(lab.ask(|reply| Ask::Devices { after: 0, reply }).await.is_empty());
    lab.lease().await;
    let Happening::DeviceAdded(change) = lab.told().await else { panic!("not an addition") };
    assert_eq!(change.instance, 2);
}

#[tokio::test]
async fn a_row_is_on_the_disk_before_anybody_is_told() {
    let mut lab = start();
    lab.lease().await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    // The state that a power failure would leave now.
    let copy = tempfile::tempdir().expect("a directory");
    fs::copy(lab.directory.path().join(store::FILE), copy.path().join(store::FILE)).expect("readable");
    let (_store, kept) = open_store(copy.path(), lan).expect("a store");
    assert_eq!((kept.rows.len(), kept.next_instance), (1, 2));
}

/// The end of the only row's lease, as a power failure would leave it now.
fn stored_lease(lab: &Lab) -> BootTime {
    let copy = tempfile::tempdir().expect("a directory");
    fs::copy(lab.directory.path().join(store::FILE), copy.path().join(store::FILE)).expect("readable");
    let (_store, kept) = open_store(copy.path(), lan).expect("a store");
    kept.rows[0].bindings[0].lease_expires.expect("a lease")
}

/// A renewal waits for the store's interval, other changes do not, and nothing waits when the agent stops.
#[tokio::test]
async fn a_renewal_waits_for_the_interval_of_the_store_and_is_written_when_the_agent_stops() {
    let mut lab = start();
    let interval = |value: &str| vec![("agent.store_interval_ms".to_owned(), value.to_owned())];
    lab.ask(|reply| Ask::Tune { settings: interval("3600000"), reply }).await.expect("in range");
    lab.lease().await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    let first = stored_lease(&lab);
    let renew = async |lab: &Lab, events: u64| {
        lab.lease().await;
        while !lab.telemetry.render().expect("encodes").contains(&format!("_latency_seconds_count {events}\n")) {
            tokio::task::yield_now().await;
        }
    };
    renew(&lab, 4).await;
    let limit = "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit";
    let parameters = vec![(limit.to_owned(), "30".to_owned())];
    lab.ask(|reply| Ask::Set { parameters, by_acs: false, reply }).await.expect("written at once");
    assert_eq!(stored_lease(&lab), first);

    let lab = lab.restart().await;
    let second = stored_lease(&lab);
    assert!(second > first);
    lab.ask(|reply| Ask::Tune { settings: interval("3600000"), reply }).await.expect("in range");
    renew(&lab, 2).await;
    assert_eq!(stored_lease(&lab), second);
    lab.ask(|reply| Ask::Tune { settings: interval("0"), reply }).await.expect("in range");
    let written = async {
        while stored_lease(&lab) == second {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("a shorter interval counts at once");
}

/// GW-13, DM-2: additions and removals are notified in order, and kept until they are acknowledged, also over a
/// restart.
#[tokio::test]
async fn notifications_wait_for_their_acknowledgement_over_a_restart() {
    let mut lab = start();
    let path = || "InternetGatewayDevice.ManagementServer.ManageableDeviceNumberOfEntries".to_owned();
    lab.ask(|reply| Ask::Notify { path: path(), attribute: Notification::Active, reply }).await.expect("accepted");
    lab.lease().await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    let Happening::Notification(told) = lab.told().await else { panic!("not a notification") };
    assert_eq!((told.sequence, told.kind.as_str(), told.parameters[0].value.as_str()), (1, "4 VALUE CHANGE", "1"));

    let mut lab = lab.restart().await;
    assert_eq!(lab.notifications(0).await, [(1, "1".to_owned())]);
    lab.release().await;
    assert!(matches!(lab.told().await, Happening::DeviceRemoved(_)));
    assert!(matches!(lab.told().await, Happening::Notification(_)));
    assert_eq!(lab.notifications(1).await, [(2, "0".to_owned())]);
    assert!(lab.ask(|reply| Ask::Acknowledge { sequence: 3, reply }).await.is_err());
    lab.ask(|reply| Ask::Acknowledge { sequence: 1, reply }).await.expect("there was one");
    let metrics = lab.telemetry.render().expect("encodes");
    let sent = "tr111_notifications_total{parameter=\"ManageableDeviceNumberOfEntries\",result=\"sent\"} 1\n";
    assert!(metrics.contains(sent), "{metrics}");

    let lab = lab.restart().await;
    assert_eq!(lab.notifications(0).await, [(2, "0".to_owned())]);
    assert!(lab.ask(Ask::Status).await.last_notification.is_some());
}

/// DM-9: Active on the parameters of rows is refused. DM-10: Passive is accepted. Attributes and values survive a
/// restart.
#[tokio::test]
async fn attributes_and_written_values_survive_a_restart() {
    let mut lab = start();
    lab.lease().await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    let serial = || "InternetGatewayDevice.ManagementServer.ManageableDevice.1.SerialNumber".to_owned();
    let limit = || "InternetGatewayDevice.ManagementServer.ManageableDeviceNotificationLimit".to_owned();
    let active = lab.ask(|reply| Ask::Notify { path: serial(), attribute: Notification::Active, reply }).await;
    assert_eq!(active.expect_err("refused").code, 9009);
    lab.ask(|reply| Ask::Notify { path: serial(), attribute: Notification::Passive, reply }).await.expect("accepted");
    lab.ask(|reply| Ask::Set { parameters: vec![(limit(), "30".to_owned())], by_acs: false, reply })
        .await
        .expect("writable");

    let lab = lab.restart().await;
    let found = lab.ask(|reply| Ask::Get { paths: vec![serial(), limit()], reply }).await.expect("there");
    assert_eq!((found[0].notification.as_str(), found[1].value.as_str()), ("passive", "30"));
}
