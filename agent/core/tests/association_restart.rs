//! Tests of the table after a restart of the agent, and after ACKs that the agent missed.

mod lan;

use std::{net::Ipv4Addr, time::Duration};

use lan::{Client, Lan, device, ip};
use tr111_common::{abi::LastAck, dhcp4::MessageType};
use tr111_core::{
    arp::EVERYBODY,
    association::{Binding, Output, Record, RemovalReason, Settings, Source},
    time::BootTime,
};

const HOUR: u32 = 3_600;

fn probing() -> Lan {
    Lan::with(Settings { probe_interval: Duration::from_mins(1), ..Settings::default() })
}

/// T-30: rows, bindings, leases, clients and the number of entries are restored, and nothing is reported as new.
#[test]
fn a_restart_changes_nothing() {
    let mut lan = probing();
    lan.join(&Client::new(1, "A").with_id(b"\x01id"), ip(1), HOUR);
    lan.join(&Client::new(2, "A"), ip(2), u32::MAX);
    lan.inform(&Client::new(3, "C"), ip(3));
    lan.changes();
    let (before, sticky, watched) = (lan.records(), lan.sticky.clone(), lan.neighbours.clone());
    lan.restart();
    assert_eq!(lan.core.rows(), 2);
    assert_eq!(lan.changes(), [""; 0]);
    assert_eq!(lan.records(), before);
    assert_eq!(
        (lan.sticky.clone(), lan.neighbours.clone()),
        (sticky, watched),
        "T-4: the clients are sticky as before"
    );
    // Restored rows behave like others: they are renewed, released and expire.
    lan.renew(&Client::new(2, "A"), ip(2), HOUR);
    lan.release(&Client::new(1, "A").with_id(b"\x01id"), ip(1));
    assert_eq!(lan.changes(), ["-192.168.1.1 released"]);
    lan.pass_s(3_610);
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// T-30: a lease that expired meanwhile is removed at the first tick, with its row.
#[test]
fn leases_that_ran_out_meanwhile_expire_at_once() {
    let mut lan = Lan::new();
    lan.join(&Client::new(1, "A"), ip(1), 10);
    lan.join(&Client::new(2, "B"), ip(2), HOUR);
    lan.changes();
    let (records, next) = (lan.records(), lan.core.next_instance());
    lan.now = lan.now + Duration::from_mins(10);
    lan.restart_with(records, next);
    assert_eq!(lan.core.rows(), 2, "the number of entries does not dip before the removal is told");
    lan.pass_s(0);
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// T-31, T-56: after a reboot with a clock that is years behind, stored times are years ahead. A lease is not longer
/// than before.
#[test]
fn after_a_reboot_with_a_clock_that_is_behind_leases_end() {
    let mut lan = Lan::new();
    lan.join(&Client::new(1, "A"), ip(1), HOUR);
    lan.join(&Client::new(2, "B"), ip(2), u32::MAX);
    lan.changes();
    let (mut records, next) = (lan.records(), lan.core.next_instance());
    for record in &mut records {
        let years = Duration::from_hours(24 * 365 * 50);
        (record.first_seen, record.last_seen) = (record.first_seen + years, record.last_seen + years);
        for binding in &mut record.bindings {
            binding.last_seen = binding.last_seen + years;
            binding.lease_expires = binding.lease_expires.map(|end| end + years);
        }
    }
    lan.restart_with(records, next);
    lan.pass_s(3_590);
    assert_eq!(lan.changes(), [""; 0]);
    lan.pass_s(20);
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// T-30: all stations are probed within one probe interval, at different times; absent ones are removed.
#[test]
fn after_a_restart_everybody_is_asked_for() {
    let mut lan = probing();
    for number in 0..100 {
        lan.inform(&Client::new(number, &format!("S{number}")), ip(number));
    }
    for number in 50..100 {
        lan.off.insert(Client::silent(number).mac);
    }
    let (records, next) = (lan.records(), lan.core.next_instance());
    lan.now = lan.now + Duration::from_hours(1);
    // A new map: there were no ARP messages since the last ACK.
    lan.restart_with(records.clone(), next);
    for record in &records {
        let neighbour = record.bindings[0].neighbour().unwrap();
        lan.neighbours.insert(neighbour, (record.last_seen, None));
    }
    lan.pass_s(30);
    let asked: std::collections::HashSet<_> =
        lan.probes.iter().map(|(_, mac)| *mac).filter(|mac| *mac != EVERYBODY).collect();
    assert!((25..75).contains(&asked.len()), "about half were probed by now: {}", asked.len());
    lan.pass_s(34 + 60);
    assert_eq!(lan.core.rows(), 50);
}

/// Two stored rows after a loss of power during which their leases expired: the kernel's maps are empty, and the
/// renewal of the first lease was not stored.
fn after_a_loss_of_power() -> Lan {
    let mut lan = probing();
    for number in 1..=2 {
        lan.join(&Client::new(number, &format!("S{number}")), ip(number), 600);
    }
    lan.off.insert(Client::silent(2).mac);
    lan.changes();
    let (records, next) = (lan.records(), lan.core.next_instance());
    lan.now = lan.now + Duration::from_secs(700);
    lan.restart_with(records, next);
    lan
}

/// T-30: after a loss of power, stations whose stored lease has expired are probed. A present device keeps its row,
/// with a lease that is not longer than the last one; the others are removed as expired.
#[test]
fn after_a_loss_of_power_a_lease_that_has_ended_is_asked_for_before_its_row_goes() {
    let mut lan = after_a_loss_of_power();
    lan.pass_s(0);
    assert_eq!((lan.changes(), lan.core.rows()), (vec![], 2));
    lan.pass_s(60 + 3 + 60);
    assert_eq!(lan.changes(), ["-S2 expired"]);
    assert_eq!(lan.rows().into_keys().collect::<Vec<_>>(), ["S1"]);
    let asked = lan.probes.iter().filter(|(_, mac)| *mac == Client::silent(2).mac || *mac == EVERYBODY).count();
    assert_eq!(asked, 3, "{:?}", lan.probes);
    let ends = lan.core.record(1).unwrap().bindings[0].lease_expires.unwrap();
    let left = ends.since(lan.now).unwrap();
    assert!((400..600).contains(&left.as_secs()), "{left:?}");
    lan.pass(left + Duration::from_secs(2));
    assert_eq!(lan.changes(), ["-S1 expired"]);
}

/// Other signs of life are searched for as usual, and a device that renews needs no probe.
#[test]
fn after_a_loss_of_power_other_signs_of_life_count_too() {
    let mut lan = after_a_loss_of_power();
    lan.off.insert(Client::silent(1).mac);
    lan.talkers.insert(ip(1));
    lan.renew(&Client::new(2, "S2"), ip(2), 600);
    lan.off.remove(&Client::silent(2).mac);
    lan.pass_s(200);
    assert_eq!((lan.changes(), lan.core.rows()), (vec![], 2));
    lan.pass_s(410);
    assert_eq!(lan.changes(), ["-S2 expired"]);
}

/// T-31: after a reboot the length of an expired lease is unknown. A present device then keeps its row for 24 hours.
#[test]
fn after_a_reboot_a_device_that_is_there_keeps_its_row() {
    let mut lan = after_a_loss_of_power();
    let (mut records, next) = (lan.records(), lan.core.next_instance());
    for record in &mut records {
        (record.first_seen, record.last_seen) = (BootTime::default(), BootTime::default());
        record.bindings[0].last_seen = BootTime::default();
        record.bindings[0].lease_expires = Some(BootTime::default());
    }
    lan.restart_with(records, next);
    lan.changes();
    lan.pass_s(200);
    assert_eq!(lan.changes(), ["-S2 expired"]);
    lan.pass(Duration::from_hours(23));
    assert_eq!(lan.changes(), [""; 0]);
    lan.pass(Duration::from_hours(1));
    assert_eq!(lan.changes(), ["-S1 expired"]);
}

/// The programs' record is at least as new as the store, so after a SIGKILL no lease is in doubt.
#[test]
fn a_lease_that_has_ended_by_the_programs_record_goes_at_once() {
    let mut lan = probing();
    let client = Client::new(1, "A");
    lan.join(&client, ip(1), 600);
    lan.changes();
    let ack = lan.last_ack(&client, MessageType::Request, ip(1), 600);
    let (records, next) = (lan.records(), lan.core.next_instance());
    lan.now = lan.now + Duration::from_secs(700);
    lan.restart_with(records, next);
    lan.reconcile(&client, &ack);
    lan.pass_s(0);
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// A renewal that was not stored is in the programs' record, which is read before the events in the ring: until then no
/// lease is removed.
#[test]
fn no_lease_ends_before_the_programs_records_are_read() {
    for relay in [None, Some(ip(200))] {
        let mut lan = probing();
        let client = Client { relay, ..Client::new(1, "A") };
        lan.join(&client, ip(1), 600);
        lan.changes();
        let (records, next) = (lan.records(), lan.core.next_instance());
        lan.pass_s(300);
        let ack = lan.last_ack(&client, MessageType::Request, ip(1), 600);
        lan.pass_s(400);
        lan.restart_with(records, next);
        lan.changes();
        lan.send(&Client::new(2, "B"), MessageType::Discover, |b| b);
        lan.reconcile(&client, &ack);
        lan.pass_s(100);
        assert_eq!((lan.changes(), lan.core.devices().next().map(|row| row.instance)), (vec![], Some(1)));
        lan.off.insert(client.mac);
        lan.pass_s(110);
        assert_eq!(lan.changes().len(), 1, "the lease of the record ends");
    }
}

/// Behind a relay agent, stations cannot be probed.
#[test]
fn after_a_loss_of_power_a_lease_behind_a_relay_is_over_at_its_end() {
    let mut lan = probing();
    let client = Client { relay: Some(ip(200)), ..Client::new(1, "A") };
    lan.join(&client, ip(1), 600);
    lan.changes();
    let (records, next) = (lan.records(), lan.core.next_instance());
    lan.now = lan.now + Duration::from_secs(700);
    lan.restart_with(records, next);
    lan.pass_s(0);
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// T-32: instance numbers of rows that were removed before the restart are not reused.
#[test]
fn instance_numbers_grow_over_a_restart() {
    let mut lan = Lan::new();
    for number in 1..=3 {
        lan.join(&Client::new(number, &format!("S{number}")), ip(number), HOUR);
    }
    lan.release(&Client::new(3, "S3"), ip(3));
    lan.restart();
    lan.join(&Client::new(3, "S3"), ip(3), HOUR);
    assert_eq!(lan.core.devices().map(|device| device.instance).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(lan.core.next_instance(), 5);
}

fn binding(lan: &Lan, number: u8) -> Binding {
    let client = Client::silent(number);
    Binding {
        client: lan.key_of(&client),
        mac: client.mac.into(),
        client_id: None,
        sender: None,
        ip: ip(number),
        source: Source::Request,
        lease_expires: Some(lan.now + Duration::from_secs(100)),
        server: None,
        relayed: false,
        last_seen: lan.now,
    }
}

fn record(lan: &Lan, instance: u32, serial: &str, clients: &[u8]) -> Record {
    Record {
        instance,
        identity: device(serial),
        first_seen: lan.now,
        last_seen: lan.now,
        bindings: clients.iter().map(|number| binding(lan, *number)).collect(),
    }
}

/// Contradicting records are left out, so the table is consistent (GW-7, DM-4).
#[test]
fn contradictions_in_the_store_are_left_out() {
    let mut lan = Lan::new();
    let mut same_address = record(&lan, 8, "H", &[8]);
    same_address.bindings[0].ip = ip(1);
    let records = vec![
        record(&lan, 1, "A", &[1, 2]),
        record(&lan, 2, "A", &[3]),    // the same identity: one row
        record(&lan, 1, "D", &[4]),    // the same number: another one
        record(&lan, 5, "E", &[]),     // no binding: no row
        record(&lan, 6, "F", &[2]),    // its client has a binding
        record(&lan, 7, "G", &[7, 7]), // one client twice
        same_address,
    ];
    lan.restart_with(records.clone(), 4);
    let rows: Vec<(u32, String)> =
        lan.core.devices().map(|row| (row.instance, row.identity.serial_number.to_string())).collect();
    assert_eq!(rows, [(1, "A".into()), (4, "D".into()), (7, "G".into())]);
    assert_eq!(lan.rows()["A"], [1, 2, 3]);
    assert_eq!(lan.core.next_instance(), 8);
    // A second restore changes nothing.
    let before = lan.records();
    lan.core.restore(lan.now, records, 4);
    assert_eq!((lan.records(), lan.core.poll_output()), (before, None));
}

/// T-31: times in the future, from a clock that was ahead, are limited to now.
#[test]
fn times_from_the_future_are_now() {
    let mut lan = Lan::new();
    let mut ahead = record(&lan, 1, "A", &[1]);
    let later = lan.now + Duration::from_secs(1_000);
    (ahead.first_seen, ahead.last_seen, ahead.bindings[0].last_seen) = (later, later, later);
    lan.restart_with(vec![ahead], 2);
    let row = lan.core.device(1).unwrap();
    assert_eq!((row.first_seen, row.last_seen), (lan.now, lan.now));
}

/// T-30: every change by an ACK is an output, so that it can be stored.
#[test]
fn renewals_are_put_out() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), 100);
    lan.outputs.clear();
    lan.pass_s(50);
    lan.renew(&client, ip(100), 100);
    let expected = lan.core.record(1).unwrap().bindings.remove(0);
    assert_eq!(expected.lease_expires, Some(lan.now + Duration::from_secs(100)));
    assert_eq!(lan.outputs, [Output::BindingRenewed { instance: 1, binding: expected, changed: false }]);
    lan.pass_s(10);
    lan.outputs.clear();
    lan.inform(&client, ip(100));
    let [Output::BindingRenewed { binding, changed: false, .. }] = &lan.outputs[..] else {
        panic!("{:?}", lan.outputs)
    };
    assert_eq!(binding.last_seen, lan.now);
    lan.outputs.clear();
    lan.renew(&client, ip(101), 100);
    assert!(matches!(&lan.outputs[..], [.., Output::BindingRenewed { changed: true, .. }]), "another address");
}

/// T-29: an ACK that the ring lost adds the same row as the ACK would have.
#[test]
fn a_lost_ack_makes_its_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let ack = lan.last_ack(&client, MessageType::Request, ip(100), 100);
    lan.pass_s(40);
    lan.reconcile(&client, &ack);
    assert_eq!(lan.changes(), ["+A"]);
    let binding = lan.core.record(1).unwrap().bindings.remove(0);
    assert_eq!((binding.ip, binding.source, binding.mac), (ip(100), Source::Request, client.mac.into()));
    assert_eq!(binding.server, Some(lan::GATEWAY));
    lan.reconcile(&client, &ack);
    assert_eq!(lan.outputs, [], "once");
    lan.pass_s(59);
    assert_eq!(lan.changes(), [""; 0]);
    lan.pass_s(3);
    assert_eq!(lan.changes(), ["-A expired"], "the lease counts from the ACK");
}

/// T-29: a lost ACK to an INFORM adds a row without a lease.
#[test]
fn a_lost_ack_to_inform_makes_its_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let ack = lan.last_ack(&client, MessageType::Inform, ip(50), 0);
    lan.reconcile(&client, &ack);
    let binding = lan.core.record(1).unwrap().bindings.remove(0);
    assert_eq!((binding.ip, binding.source, binding.lease_expires), (ip(50), Source::Inform, None));
}

/// T-29: a lost renewal extends the lease, keeps the client identifier, and ends a grace period; an old ACK has no
/// effect.
#[test]
fn a_lost_renewal_extends_the_lease() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A").with_id(b"\x01id"));
    let old = lan.last_ack(&client, MessageType::Request, ip(99), HOUR);
    lan.pass_s(1);
    lan.join(&client, ip(100), 100);
    lan.reconcile(&client, &old);
    assert_eq!(lan.rows()["A"], [100]);
    lan.pass_s(90);
    lan.nak(&client, ip(100));
    lan.pass_s(1);
    // T-9: without an identity, too.
    let ack = lan.last_ack(&Client { option: None, ..client.clone() }, MessageType::Request, ip(100), 100);
    lan.reconcile(&client, &ack);
    let binding = lan.core.record(1).unwrap().bindings.remove(0);
    assert_eq!(binding.client_id.as_deref(), Some(&b"\x01id"[..]));
    lan.pass_s(95);
    assert_eq!(lan.changes(), ["+A"]);
}

/// T-29: an expired lease adds no row, and ends the client's present one.
#[test]
fn a_lost_ack_whose_lease_is_over_makes_no_row() {
    let (mut lan, client, known) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    lan.join(&known, ip(2), HOUR);
    lan.pass_s(1);
    let ack = lan.last_ack(&client, MessageType::Request, ip(1), 10);
    let shorter = lan.last_ack(&known, MessageType::Request, ip(2), 10);
    lan.pass_s(11);
    lan.reconcile(&client, &ack);
    assert_eq!(lan.changes(), ["+B"]);
    lan.reconcile(&known, &shorter);
    lan.pass(Duration::from_millis(100));
    assert_eq!(lan.changes(), ["-B expired"]);
}

/// T-29: an address that was assigned to another client stays with that client.
#[test]
fn a_lost_ack_takes_no_address_from_its_next_holder() {
    let (mut lan, first, second) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    let ack = lan.last_ack(&first, MessageType::Request, ip(100), HOUR);
    lan.pass_s(10);
    lan.join(&second, ip(100), HOUR);
    lan.reconcile(&first, &ack);
    assert_eq!(lan.changes(), ["+B"]);
}

/// T-29: a lease whose end the programs recorded has ended, whether or not the store has it; a newer binding and one
/// with another address are kept.
#[test]
fn a_lease_that_ended_unheard_is_over() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    let ack = lan.last_ack(&client, MessageType::Request, ip(100), HOUR);
    let (records, next) = (lan.records(), lan.core.next_instance());
    for (ended_by, reason) in [
        (MessageType::Release as u8, RemovalReason::Released),
        (MessageType::Decline as u8, RemovalReason::Declined),
        (RemovalReason::Disconnected.number(), RemovalReason::Disconnected),
        (RemovalReason::Expired.number(), RemovalReason::Expired),
    ] {
        lan.restart_with(records.clone(), next);
        lan.changes();
        let elsewhere = LastAck { ended_by, address: ip(9).octets(), ..ack };
        lan.reconcile(&client, &elsewhere);
        let older = LastAck { ended_by, time: ack.time - 1, ..ack };
        lan.reconcile(&client, &older);
        assert_eq!(lan.changes(), [""; 0]);
        lan.reconcile(&client, &LastAck { ended_by, ..ack });
        assert_eq!(lan.changes(), [format!("-A {}", reason.label())]);
        lan.outputs.clear();
        lan.reconcile(&client, &LastAck { ended_by, ..ack });
        let key = lan.key_of(&client);
        assert_eq!(lan.outputs, [Output::Ended(key)], "the record may go");
    }
}

/// T-26, GW-2: an ACK of another server, or to a client without an identity, adds no row.
#[test]
fn a_lost_ack_that_would_have_made_no_row_makes_none() {
    let mut lan = Lan::new();
    let mut foreign = lan.last_ack(&Client::new(1, "A"), MessageType::Request, ip(1), HOUR);
    foreign.server = ip(66).octets();
    lan.reconcile(&Client::new(1, "A"), &foreign);
    let unknown = lan.last_ack(&Client::silent(2), MessageType::Request, ip(2), HOUR);
    lan.reconcile(&Client::silent(2), &unknown);
    let nowhere = lan.last_ack(&Client::new(3, "C"), MessageType::Request, Ipv4Addr::UNSPECIFIED, HOUR);
    lan.reconcile(&Client::new(3, "C"), &nowhere);
    assert_eq!(lan.core.rows(), 0);
    // Behind a relay agent any server is accepted.
    foreign.giaddr = ip(2).octets();
    lan.reconcile(&Client::new(1, "A"), &foreign);
    assert_eq!(lan.changes(), ["+A"]);
    assert!(lan.core.record(1).unwrap().bindings[0].relayed);
}

/// T-29, T-31: events that waited in the ring while the last ACK was read are older and have no effect.
#[test]
fn events_from_before_the_last_ack_are_history() {
    let (mut lan, client, other) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    lan.join(&client, ip(1), HOUR);
    let then = lan.now + Duration::from_secs(10);
    lan.pass_s(20);
    let ack = lan.last_ack(&client, MessageType::Request, ip(5), HOUR);
    lan.reconcile(&client, &ack);
    let known = lan.records();
    lan.now = then;
    lan.release(&client, ip(5));
    lan.decline(&client, ip(5));
    lan.nak(&client, ip(5));
    lan.join(&client, ip(9), HOUR);
    lan.join(&other, ip(5), HOUR);
    assert_eq!((lan.changes(), lan.records()), (vec!["+A".to_owned()], known));
    lan.pass_s(100);
    assert_eq!(lan.changes(), [""; 0], "no grace runs");
    lan.release(&client, ip(5));
    assert_eq!(lan.changes(), ["-A released"]);
}
