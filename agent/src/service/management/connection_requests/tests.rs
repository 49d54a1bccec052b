use std::{net::SocketAddrV4, time::Duration};

use tempfile::TempDir;
use tokio::sync::{broadcast, oneshot};
use tr111_core::{
    identity::GatewayIdentity,
    model::{Root, Side},
};

use super::*;
use crate::{
    service::{Ask, Clock, Fault, Kept, Model, management::Subject, open_store},
    store::{Group, encode, meta},
    telemetry::Telemetry,
};

const SERVER: &str = "Device.ManagementServer.";

struct Device;

impl Subject for Device {
    fn side(&self) -> Side {
        Side::Device
    }

    fn stored_values(&self, _: u32) -> Vec<(&'static str, Vec<u8>)> {
        Vec::new()
    }
}

fn written(address: &str) -> Written {
    let binding = binding::Parameters {
        url: "http://acs.example".to_owned(),
        stun_server_address: address.to_owned(),
        ..binding::Parameters::default()
    };
    Written { binding, ..Written::default() }
}

/// Starts with the contents of `directory`, or with `first` at the first start.
fn management(directory: &TempDir, first: Written) -> Management {
    let (store, mut kept) = open_store(directory.path(), |_| None).expect("a store");
    let identity = GatewayIdentity {
        manufacturer_oui: "00256D".parse().expect("an OUI"),
        serial_number: "DEV0001".parse().expect("text"),
        product_class: "STB".parse().expect("text"),
    };
    let telemetry = Telemetry::plain("device").expect("consistent names");
    let (events, _) = broadcast::channel(16);
    Management::new(Model::new(Root::Device1, identity, first), &mut kept, store, 0, &telemetry, events)
}

fn name(name: &str) -> String {
    format!("{SERVER}{name}")
}

/// Sets parameters, and waits until they are on disk or refused.
async fn set(management: &mut Management, writes: &[(&str, &str)]) -> Result<(), Fault> {
    let (reply, mut answer) = oneshot::channel();
    let parameters = writes.iter().map(|(path, value)| (name(path), (*value).to_owned())).collect();
    management.answer(&Device, Ask::Set { parameters, by_acs: false, reply });
    management.finish(&Device).await;
    answer.try_recv().expect("an answer")
}

async fn notify(management: &mut Management, path: &str, attribute: Notification) {
    let (reply, mut answer) = oneshot::channel();
    management.answer(&Device, Ask::Notify { path: name(path), attribute, reply });
    management.finish(&Device).await;
    answer.try_recv().expect("an answer").expect("no fault");
}

async fn get(management: &mut Management, path: &str) -> String {
    let (reply, answer) = oneshot::channel();
    management.answer(&Device, Ask::Get { paths: vec![name(path)], reply });
    answer.await.expect("an answer").expect("no fault").remove(0).value
}

/// The pending notifications: names without their object, and values.
fn pending(management: &Management) -> Vec<Vec<(String, String)>> {
    let parameters = |one: &tr111_core::notification::Pending| {
        one.parameters.iter().map(|(name, value)| (name.replace(SERVER, ""), value.clone())).collect()
    };
    management.notifier.core().pending(0).map(parameters).collect()
}

fn report(port: u16) -> Report {
    Report { address: Some(SocketAddrV4::new([198, 51, 100, 7].into(), port)), nat_detected: true }
}

/// The service reports a binding. `told` is what was notified before.
fn hear(management: &mut Management, report: Report, is_determined: bool, told: Option<Report>) {
    let memory = binding::Memory { told, ..binding::Memory::default() };
    let state = cpe::State { memory, ..cpe::State::default() };
    let what = cpe::What::Changed { report, local: LISTENER, is_determined };
    management.heard(cpe::News { time: Clock::now(), what, state });
}

const LISTENER: Option<SocketAddrV4> = Some(SocketAddrV4::new(std::net::Ipv4Addr::new(192, 168, 1, 100), 7547));

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// DM-22, DM-26: new values, also of the password, reach the service at once, and unchanged values are not passed
/// again.
#[tokio::test]
async fn what_is_set_reaches_the_service() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut management = management(&directory, written("stun.example"));
    let mut demands = management.demands();
    assert_eq!(demands.borrow().binding.stun_server_address, "stun.example");
    let writes = [("STUNEnable", "1"), ("STUNPassword", "s3cret"), ("ConnectionRequestUsername", "CPE1")];
    set(&mut management, &writes).await.expect("writable");
    assert!(demands.has_changed().expect("the owner is there"));
    let now = demands.borrow_and_update().clone();
    assert_eq!((now.binding.stun_enable, now.binding.stun_password.as_str()), (true, "s3cret"));
    assert_eq!(now.connection_request_username, "CPE1");
    assert!(!format!("{now:?}").contains("s3cret"));
    set(&mut management, &writes[..1]).await.expect("writable");
    assert!(!demands.has_changed().expect("the owner is there"));
}

/// DM-20, DM-29: the values are those of the service; from the write that disables STUN on, they are the local address.
#[tokio::test]
async fn the_report_is_read_and_is_local_in_the_transaction_that_turns_stun_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut management = management(&directory, written(""));
    assert_eq!(get(&mut management, "UDPConnectionRequestAddress").await, "");
    set(&mut management, &[("STUNEnable", "1")]).await.expect("writable");
    hear(&mut management, report(40_001), true, None);
    assert_eq!(get(&mut management, "UDPConnectionRequestAddress").await, "198.51.100.7:40001");
    assert_eq!(get(&mut management, "NATDetected").await, "1");
    notify(&mut management, "NATDetected", Notification::Active).await;
    for enable in ["0", "1"] {
        // A report from before STUN was disabled does not count.
        set(&mut management, &[("STUNEnable", enable)]).await.expect("writable");
        assert_eq!(get(&mut management, "UDPConnectionRequestAddress").await, "192.168.1.100:7547");
        assert_eq!(get(&mut management, "NATDetected").await, "0");
    }
    assert_eq!(pending(&management), [vec![pair("NATDetected", "0")]]);
}

/// CPE-40, DM-20, STUN-6: an Active notification of the address, which causes a session, waits until it is announced; a
/// Passive one goes with the next session. An ACS that learns of changes from its STUN server sets neither, and no
/// session is caused.
#[tokio::test]
async fn the_address_is_notified_when_it_is_announced() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut management = management(&directory, written(""));
    set(&mut management, &[("STUNEnable", "1")]).await.expect("writable");
    hear(&mut management, report(1), true, None);
    management.announce(Clock::now());
    assert!(pending(&management).is_empty(), "nobody asked");

    notify(&mut management, "UDPConnectionRequestAddress", Notification::Active).await;
    hear(&mut management, report(2), true, None);
    hear(&mut management, report(3), true, None);
    assert!(pending(&management).is_empty(), "not announced");
    management.announce(Clock::now());
    let told = vec![pair("UDPConnectionRequestAddress", "198.51.100.7:3")];
    assert_eq!(pending(&management), std::slice::from_ref(&told));

    notify(&mut management, "UDPConnectionRequestAddress", Notification::Passive).await;
    notify(&mut management, "STUNUsername", Notification::Active).await;
    hear(&mut management, report(4), true, None);
    management.announce(Clock::now());
    assert_eq!(pending(&management).len(), 1);
    set(&mut management, &[("STUNUsername", "CPE1")]).await.expect("writable");
    let both = vec![pair("STUNUsername", "CPE1"), pair("UDPConnectionRequestAddress", "198.51.100.7:4")];
    assert_eq!(pending(&management), [told, both]);
    // A value that was sent along is not sent again when it would have been due.
    management.announce(Clock::now());
    set(&mut management, &[("STUNUsername", "CPE2")]).await.expect("writable");
    assert_eq!(pending(&management)[2], [pair("STUNUsername", "CPE2")]);
}

/// CPE-39, DM-29: an unchanged binding after a restart is not notified, although the local address is read until the
/// first response. A changed binding is notified.
#[tokio::test]
async fn only_another_binding_is_news_after_a_restart() {
    let listening = Report { address: LISTENER, nat_detected: false };
    for (address, is_news) in [(report(1), false), (report(2), true), (listening, true)] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut management = management(&directory, written(""));
        set(&mut management, &[("STUNEnable", "1")]).await.expect("writable");
        for (path, attribute) in [
            ("NATDetected", Notification::Active),
            ("UDPConnectionRequestAddress", Notification::Passive),
            ("STUNUsername", Notification::Active),
        ] {
            notify(&mut management, path, attribute).await;
        }
        let told = Some(report(1));
        management.know(cpe::State { memory: binding::Memory { told, ..Default::default() }, ..Default::default() });
        hear(&mut management, listening, false, told);
        assert_eq!(get(&mut management, "UDPConnectionRequestAddress").await, "192.168.1.100:7547");
        assert!(pending(&management).is_empty());
        hear(&mut management, address, true, told);
        set(&mut management, &[("STUNUsername", "CPE1")]).await.expect("writable");
        let names: Vec<String> = pending(&management).into_iter().flatten().map(|(name, _)| name).collect();
        assert_eq!(names.contains(&"UDPConnectionRequestAddress".to_owned()), is_news, "{names:?}");
        assert_eq!(names.contains(&"NATDetected".to_owned()), !address.nat_detected, "{names:?}");
        // The stored state has the latest NATDetected, which does not wait for the address.
        assert_eq!(management.cpe_state.memory.told.map(|told| told.nat_detected), Some(address.nat_detected));
    }
}

/// T-72: a change of the hidden password is notified, with an empty value, unless the ACS made it.
#[tokio::test]
async fn the_notification_of_a_hidden_password_has_no_value() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut management = management(&directory, written(""));
    notify(&mut management, "STUNPassword", Notification::Active).await;
    set(&mut management, &[("STUNPassword", "s3cret")]).await.expect("writable");
    assert_eq!(pending(&management), [vec![pair("STUNPassword", "")]]);
    // The same value is not a change.
    set(&mut management, &[("STUNPassword", "s3cret")]).await.expect("writable");
    let (reply, _answer) = oneshot::channel();
    let parameters = vec![pair(&name("STUNPassword"), "another")];
    management.answer(&Device, Ask::Set { parameters, by_acs: true, reply });
    management.finish(&Device).await;
    assert_eq!(pending(&management).len(), 1);
}

/// TR-111 2.2.4.1: all parameters of Table 6 accept Active and Passive, DM-26 included.
#[tokio::test]
async fn every_parameter_of_table_6_takes_active_and_passive() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut management = management(&directory, written(""));
    let names = [
        "UDPConnectionRequestAddress",
        "UDPConnectionRequestAddressNotificationLimit",
        "STUNEnable",
        "STUNServerAddress",
        "STUNServerPort",
        "STUNUsername",
        "STUNPassword",
        "STUNMaximumKeepAlivePeriod",
        "STUNMinimumKeepAlivePeriod",
        "NATDetected",
    ];
    for path in names {
        for attribute in [Notification::Active, Notification::Passive] {
            notify(&mut management, path, attribute).await;
            assert_eq!(management.notifier.core().attribute(&name(path)), attribute, "{path}");
        }
    }
}

/// T-45: the periods are checked after the whole write, whatever the order, and a refused write changes nothing.
#[tokio::test]
async fn minimum_and_maximum_are_judged_after_the_whole_write() {
    const MINIMUM: &str = "STUNMinimumKeepAlivePeriod";
    const MAXIMUM: &str = "STUNMaximumKeepAlivePeriod";
    let directory = tempfile::tempdir().expect("a directory");
    let mut management = management(&directory, written(""));
    let refused = |path: &str| Fault { code: 9007, name: "Invalid parameter value", path: name(path) };
    assert_eq!(set(&mut management, &[("STUNUsername", "x"), (MAXIMUM, "29")]).await, Err(refused(MAXIMUM)));
    assert_eq!(set(&mut management, &[(MAXIMUM, "0")]).await, Err(refused(MAXIMUM)));
    assert_eq!(get(&mut management, "STUNUsername").await, "");
    for writes in
        [[(MAXIMUM, "20"), (MINIMUM, "10")], [(MINIMUM, "40"), (MAXIMUM, "40")], [(MAXIMUM, "0"), (MINIMUM, "0")]]
    {
        set(&mut management, &writes).await.expect("consistent");
    }
    assert_eq!(set(&mut management, &[(MINIMUM, "1")]).await, Err(refused(MINIMUM)));
    set(&mut management, &[(MINIMUM, "100"), (MAXIMUM, "-1")]).await.expect("no maximum");
}

/// T-71: written values take precedence over the configuration after a restart. A store of a version without Table 6
/// starts with the configuration's values of Table 6.
#[tokio::test]
async fn what_is_written_holds_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut first = management(&directory, written("first.example"));
    let writes = [("STUNServerAddress", "acs.example"), ("STUNPassword", "s3cret"), ("STUNServerPort", "3479")];
    set(&mut first, &writes).await.expect("writable");
    drop(first);
    let second = management(&directory, written("second.example"));
    let kept = second.model.written().binding.clone();
    assert_eq!((kept.stun_server_address.as_str(), kept.stun_server_port), ("acs.example", 3479));
    assert_eq!(kept.stun_password, "s3cret");
    drop(second);

    // Limit, URL, user and password: the fields of the former version.
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _): (_, Kept) = open_store(directory.path(), |_| None).expect("a store");
    let old = encode(&(7_u32, "http://old.example", "user", "password"));
    store.commit(Group { meta: vec![(meta::PARAMETERS, old)], ..Group::default() });
    tokio::time::timeout(Duration::from_secs(5), store.committed()).await.expect("in time");
    drop(store);
    let now = management(&directory, written("first.example"));
    let values = now.model.written();
    assert_eq!((values.notification_limit, values.connection_request_password.as_str()), (7, "password"));
    assert_eq!(values.binding.url, "http://old.example");
    assert_eq!(values.binding.stun_server_address, "first.example");
}
