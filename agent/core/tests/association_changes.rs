//! Tests of the limit on a client's changes of the table, each of which has to be written to disk (SEC-8).

mod lan;

use std::time::Duration;

use lan::{Client, Lan, device, ip};
use tr111_common::dhcp4::MessageType;
use tr111_core::association::{IdentityResult, Output, Remark, RemovalReason, Settings};

const HOUR: u32 = 3_600;
/// Default burst of changes.
const BURST: usize = 8;

fn delayed(lan: &Lan) -> u64 {
    lan.core.counts().remark(Remark::ChangeDelayed)
}

/// Number of outputs that have to be written to disk before they are reported.
fn written(lan: &mut Lan) -> usize {
    let is_written = |output: &Output| {
        matches!(
            output,
            Output::DeviceAdded { .. }
                | Output::DeviceRemoved { .. }
                | Output::BindingAdded { .. }
                | Output::BindingRemoved { .. }
                | Output::BindingRenewed { changed: true, .. }
        )
    };
    let count = lan.outputs.iter().filter(|output| is_written(output)).count();
    lan.outputs.clear();
    count
}

/// After a burst, one change per minute is made. Meanwhile the row keeps its identity, its lease is renewed, and the
/// latest identity is used for the next change.
#[test]
fn an_identity_that_changes_too_often_waits_for_its_turn() {
    let mut lan = Lan::new();
    for number in 0..200 {
        lan.renew(&Client::new(1, &format!("S{number}")), ip(1), HOUR);
        lan.pass(Duration::from_millis(100));
    }
    // The first row is not counted as a change.
    assert_eq!(lan.rows().into_keys().collect::<Vec<_>>(), ["S8"]);
    assert_eq!(written(&mut lan), 1 + 2 * BURST);
    assert_eq!((delayed(&lan), lan.core.waiting().len()), (191, 1));
    let binding = lan.core.devices().next().unwrap().bindings.next().unwrap().clone();
    assert_eq!(binding.last_seen + Duration::from_millis(100), lan.now, "its lease goes on");
    lan.pass_s(41);
    assert_eq!(lan.changes(), ["-S8 identity_changed", "+S199"]);
    assert_eq!((lan.core.waiting().len(), lan.core.next_deadline().is_some()), (0, true));
    // Over hours: one change per minute.
    lan.outputs.clear();
    for number in 0..3 * HOUR {
        lan.renew(&Client::new(1, &format!("D{number}")), ip(1), HOUR);
        lan.pass_s(1);
    }
    let written = written(&mut lan);
    assert!((2 * 175..=2 * 181).contains(&written), "{written}");
}

/// A renewal with the row's own identity discards the waiting change; a renewal without an identity keeps it.
#[test]
fn the_newest_identity_counts() {
    let mut lan = Lan::new();
    for number in 0..=BURST {
        lan.renew(&Client::new(1, &format!("S{number}")), ip(1), HOUR);
    }
    lan.changes();
    lan.renew(&Client::new(1, "X"), ip(1), HOUR);
    lan.renew(&Client::new(1, "S8"), ip(1), HOUR);
    lan.pass_s(120);
    assert_eq!(lan.changes(), [""; 0]);
    for number in 0..4 {
        lan.renew(&Client::new(1, &format!("T{number}")), ip(1), HOUR);
    }
    lan.renew(&Client::silent(1), ip(1), HOUR);
    lan.changes();
    lan.pass_s(60);
    assert_eq!(lan.changes(), ["-T1 identity_changed", "+T3"]);
    // The waiting change is discarded with the row.
    lan.renew(&Client::new(1, "U"), ip(1), HOUR);
    lan.release(&Client::new(1, "U"), ip(1));
    assert_eq!(lan.changes(), ["-T3 released"]);
    lan.pass_s(600);
    assert_eq!(lan.changes(), [""; 0]);
}

/// A client that repeatedly releases and obtains its address: removals are immediate, and its next row is delayed.
#[test]
fn a_client_that_comes_and_goes_waits_for_its_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    for _ in 0..BURST {
        lan.join(&client, ip(1), HOUR);
        lan.release(&client, ip(1));
    }
    assert_eq!(written(&mut lan), 2 * BURST);
    lan.join(&client, ip(1), HOUR);
    lan.renew(&Client::silent(1), ip(1), HOUR);
    assert_eq!((lan.changes(), lan.core.rows(), lan.core.waiting().len()), (vec![], 0, 1));
    lan.pass_s(60);
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.waiting().len(), 0);
    lan.release(&client, ip(1));
    assert_eq!(lan.changes(), ["-A released"]);
    // A waiting client that leaves, is refused, or loses its lease or its address gets no row.
    lan.join(&client, ip(1), HOUR);
    lan.release(&client, ip(9));
    assert_eq!(lan.core.waiting().len(), 1, "another address");
    lan.release(&client, ip(1));
    assert_eq!(lan.core.waiting().len(), 0);
    lan.join(&client, ip(1), HOUR);
    lan.nak(&client, ip(1));
    assert_eq!(lan.core.waiting().len(), 0);
    lan.join(&client, ip(1), 100);
    lan.pass_s(180);
    assert_eq!((lan.changes(), lan.core.waiting().len()), (vec!["+A".to_owned(), "-A expired".to_owned()], 0));
}

/// A lease that expires, and an address that another client obtains, while the client is waiting.
#[test]
fn who_loses_its_address_while_it_waits_gets_no_row() {
    let settings = Settings { change_burst: 1, change_interval: Duration::from_hours(1), ..Settings::default() };
    let mut lan = Lan::with(settings);
    let (client, other) = (Client::new(1, "A"), Client::new(2, "B"));
    let start = |lan: &mut Lan, lease| {
        lan.join(&client, ip(1), HOUR);
        lan.release(&client, ip(1));
        lan.changes();
        lan.join(&client, ip(1), lease);
        assert_eq!(lan.core.waiting().len(), 1);
    };
    start(&mut lan, 60);
    lan.pass_s(HOUR.into());
    assert_eq!((lan.changes(), lan.core.waiting().len()), (vec![], 0));
    start(&mut lan, u32::MAX);
    lan.pass_s(1);
    lan.join(&other, ip(1), u32::MAX);
    lan.pass_s(HOUR.into());
    assert_eq!((lan.changes(), lan.core.waiting().len()), (vec!["+B".to_owned()], 0));
}

/// An Ethernet source that invents clients has a limit, too; clients behind a relay agent have separate limits.
#[test]
fn a_station_that_invents_clients_waits_as_well() {
    let (mut lan, station) = (Lan::new(), Client::new(1, "A"));
    for number in 0..200u8 {
        let client = station.clone().with_id(&[0, number, number]);
        lan.join(&client, ip(1), HOUR);
        lan.release(&client, ip(1));
    }
    let count = written(&mut lan);
    assert_eq!(count, 2 * 8 * BURST);
    let mut lan = Lan::new();
    for number in 0..200u8 {
        let client = Client { relay: Some(ip(200)), ..station.clone().with_id(&[0, number, number]) };
        lan.join(&client, ip(1), HOUR);
        lan.release(&client, ip(1));
    }
    assert_eq!(written(&mut lan), 400);
}

/// The number of waiting clients is bounded; further ones are refused and counted.
#[test]
fn the_number_of_those_that_wait_is_bounded() {
    let mut lan = Lan::with(Settings { change_burst: 1, ..Settings::default() });
    let client = |number: u16| Client::new(1, "A").with_id(&[&[0], &number.to_be_bytes()[..]].concat());
    for number in 0..8 {
        lan.join(&client(number), ip(1), HOUR);
        lan.release(&client(number), ip(1));
    }
    for number in 8..1_100 {
        lan.join(&client(number), std::net::Ipv4Addr::from(0x0a00_0000 + u32::from(number)), HOUR);
    }
    assert_eq!(lan.core.waiting().len(), 1_024);
    assert_eq!(lan.core.counts().identity(MessageType::Request, IdentityResult::ChangeCap), 1_100 - 8 - 1_024);
}

/// An address that changes too often is shown at once and stored with the next renewal.
#[test]
fn an_address_that_changes_too_often_is_kept_later() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    for number in 0..100 {
        lan.inform(&client, ip(number + 1));
    }
    assert_eq!(lan.rows()["A"], [100]);
    assert_eq!(written(&mut lan), 1 + BURST);
}

/// T-29: the programs have a record of the change that was waiting when the agent was killed.
#[test]
fn what_waits_is_not_lost_with_the_agent() {
    let mut lan = Lan::new();
    let client = Client::new(1, "NEXT");
    for number in 0..=BURST {
        lan.renew(&Client::new(1, &format!("S{number}")), ip(1), HOUR);
    }
    lan.pass_s(1);
    lan.renew(&client, ip(1), HOUR);
    let ack = lan.last_ack(&client, MessageType::Request, ip(1), HOUR);
    lan.reconcile(&client, &ack);
    assert_eq!((lan.core.waiting().len(), delayed(&lan)), (1, 1), "it waits already");
    lan.restart();
    lan.changes();
    lan.reconcile(&client, &ack);
    assert_eq!(lan.changes(), ["-S8 identity_changed", "+NEXT"]);
    lan.reconcile(&client, &ack);
    assert_eq!(lan.changes(), [""; 0]);
    assert_eq!(lan.core.devices().next().unwrap().identity, &device("NEXT"));

    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    for _ in 0..BURST {
        lan.join(&client, ip(1), HOUR);
        lan.release(&client, ip(1));
    }
    lan.pass_s(1);
    lan.join(&client, ip(1), HOUR);
    let ack = lan.last_ack(&client, MessageType::Request, ip(1), HOUR);
    lan.reconcile(&client, &ack);
    assert_eq!((lan.core.waiting().len(), delayed(&lan)), (1, 1), "it waits already");
    lan.reconcile(&client, &tr111_common::abi::LastAck { ended_by: RemovalReason::Released.number(), ..ack });
    assert_eq!(lan.core.waiting().len(), 0);
    lan.restart();
    lan.changes();
    lan.reconcile(&client, &ack);
    assert_eq!(lan.changes(), ["+A"]);
}
