//! The owner of the table between a ring, the programs' maps, clients and watchers, all of them made up.

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{broadcast, mpsc, oneshot};
use tr111_common::{
    abi::{ClientKey, ExchangeKey},
    config::Config,
    counter::{Class, Counter, Hook},
    dhcp4::{MessageType, option},
    event::{Event, RecordError},
    headers::Segment,
};
use tr111_core::{
    dhcp::{Builder, Message},
    identity::DeviceIdentity,
    model::Root,
};

use super::{
    association::{Ended, Facts, Owner, Parts},
    *,
};
use crate::{
    control::message::{self, Happening, Interface},
    dataplane,
    telemetry::{KernelCounters, Telemetry, log::Log},
};

const LAN: u32 = 7;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const LEASED: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 100);
const PATIENCE: Duration = Duration::from_secs(10);

/// Records of a ring: hook, class and frame; `None` is a record that is no event.
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

    fn unstick(&self, client: &ClientKey) {
        self.sticky.lock().expect("nobody panics").retain(|stuck| stuck != client);
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
    network: mpsc::Sender<NetworkChange>,
    watcher: broadcast::Receiver<Arc<message::Event>>,
    maps: Maps,
    telemetry: Arc<Telemetry>,
    owner: tokio::task::JoinHandle<io::Result<Ended>>,
}

fn start() -> Lab {
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
    let lan0 = Interface { name: "lan0".to_owned(), side: "lan".to_owned(), hooks: Vec::new() };
    let parts = Parts {
        facts: Facts {
            role: "gateway",
            started: Clock::now(),
            interfaces: vec![(LAN, lan0)],
            pin_dir: "/sys/fs/bpf/tr111".into(),
            metrics: None,
        },
        programs: maps.clone(),
        counters: NoCounters,
        telemetry: Arc::clone(&telemetry),
        events,
        knobs: Knobs::new(Values::default()),
        model: Model::new(Root::Igd, device_info),
        log: Log::start("off"),
    };
    let owner = tokio::spawn(Owner::new(parts, 1).run(Ring(records), asked, changes));
    Lab { ring, asks, network, watcher, maps, telemetry, owner }
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

#[tokio::test]
async fn an_interface_that_goes_takes_its_devices_with_it() {
    let mut lab = start();
    lab.lease().await;
    assert!(matches!(lab.told().await, Happening::DeviceAdded(_)));
    lab.network.send(NetworkChange::LinkGone { ifindex: LAN + 1 }).await.expect("the owner reads");
    lab.network.send(NetworkChange::LinkGone { ifindex: LAN }).await.expect("the owner reads");
    let Happening::DeviceRemoved(removal) = lab.told().await else { panic!("not a removal") };
    assert_eq!(removal.reason, "disconnected");
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
