//! Tests of an INFORM with an address that belongs to another client (GW-17).

mod lan;

use std::{net::Ipv4Addr, time::Duration};

use lan::{Client, Lan, ip};
use tr111_common::dhcp4::MessageType;
use tr111_core::association::{Remark, Settings};

const HOUR: u32 = 3_600;
const REPEATER: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];

fn conflicts(lan: &Lan) -> u64 {
    lan.core.counts().remark(Remark::AddressConflict)
}

/// A device that answers for its static address keeps it, however often other clients claim it; each claim is counted.
#[test]
fn a_static_address_is_not_taken_from_a_device_that_answers() {
    let (mut lan, holder, claimant) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    lan.inform(&holder, ip(50));
    lan.rivals.push((ip(50), claimant.mac));
    for claims in 1..=3 {
        lan.inform(&claimant, ip(50));
        lan.pass_s(10);
        assert_eq!((conflicts(&lan), lan.asked), (claims, claims as u32));
    }
    // A client with an address of its own cannot take it either.
    let mover = Client::new(3, "C");
    lan.inform(&mover, ip(51));
    lan.inform(&mover, ip(50));
    lan.pass_s(10);
    assert_eq!((conflicts(&lan), lan.changes()), (4, vec!["+A".to_owned(), "+C".to_owned()]));
    assert_eq!(lan.rows()["C"], [51]);
}

/// A replacement device obtains the address after the previous device left three requests in three seconds unanswered.
/// The replacement's own answers do not count.
#[test]
fn a_static_address_goes_to_another_device_when_the_first_is_silent() {
    let (mut lan, holder, claimant) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    lan.inform(&holder, ip(50));
    lan.off.insert(holder.mac);
    lan.rivals.push((ip(50), claimant.mac));
    lan.inform(&claimant, ip(50));
    lan.pass(Duration::from_millis(2_900));
    assert_eq!((lan.changes(), lan.asked), (vec!["+A".to_owned()], 3));
    lan.pass(Duration::from_millis(300));
    assert_eq!((lan.changes(), conflicts(&lan)), (vec!["-A disconnected".to_owned(), "+B".to_owned()], 0));
    assert_eq!((lan.rows()["B"].clone(), lan.core.next_deadline().is_some()), (vec![50], false));
}

/// One lost answer has no effect.
#[test]
fn an_answer_to_the_last_question_is_enough() {
    let (mut lan, holder, claimant) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    lan.inform(&holder, ip(50));
    lan.off.insert(holder.mac);
    lan.inform(&claimant, ip(50));
    lan.pass(Duration::from_millis(1_500));
    lan.off.remove(&holder.mac);
    lan.pass_s(10);
    assert_eq!((lan.changes(), lan.asked, conflicts(&lan)), (vec!["+A".to_owned()], 3, 1));
}

/// Behind a repeater, the repeater answers for the previous device and counts as that device; the claimant's own
/// answers never count.
#[test]
fn the_hardware_address_that_last_answered_is_the_holders() {
    let settings = Settings { probe_interval: Duration::from_mins(1), ..Settings::default() };
    let (mut lan, holder, claimant) = (Lan::with(settings), Client::new(1, "A"), Client::new(2, "B"));
    lan.repeaters.insert(holder.mac, REPEATER);
    lan.inform(&holder, ip(50));
    lan.pass_s(300);
    lan.rivals.push((ip(50), claimant.mac));
    for claims in 1..=3 {
        lan.inform(&claimant, ip(50));
        assert_eq!(conflicts(&lan), claims);
        // The claimant sends the last ARP message, and the agent reads the record.
        lan.arp(ip(50), claimant.mac);
        lan.pass_s(120);
    }
    let binding = lan.core.device(1).unwrap().bindings.next().unwrap().clone();
    assert_eq!(lan.core.answered_by(&binding), Some(REPEATER));
    assert_eq!(lan.changes(), ["+A"]);
    lan.off.insert(holder.mac);
    lan.inform(&claimant, ip(50));
    lan.pass_s(4);
    assert_eq!(lan.changes(), ["-A disconnected", "+B"]);
}

/// A repeated claim is not delayed, and of several claimants the last one obtains the address.
#[test]
fn of_several_claims_the_last_one_counts() {
    let (mut lan, holder) = (Lan::new(), Client::new(1, "A"));
    lan.inform(&holder, ip(50));
    lan.off.insert(holder.mac);
    for number in [2, 2, 3, 3] {
        lan.inform(&Client::new(number, &format!("S{number}")), ip(50));
        lan.pass(Duration::from_millis(700));
    }
    assert_eq!((lan.asked, conflicts(&lan)), (3, 1));
    lan.pass(Duration::from_millis(300));
    assert_eq!(lan.changes(), ["+A", "-A disconnected", "+S3"]);
}

/// A holder that leaves, or obtains a lease, while it is being asked.
#[test]
fn a_holder_may_go_or_get_a_lease_while_it_is_asked() {
    let (mut lan, holder, claimant) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    lan.off.insert(holder.mac);
    lan.inform(&holder, ip(50));
    lan.inform(&claimant, ip(50));
    lan.renew(&holder, ip(50), HOUR);
    lan.pass_s(4);
    assert_eq!((lan.changes(), conflicts(&lan)), (vec!["+A".to_owned()], 1));
    lan.nak(&holder, ip(50));
    lan.inform(&claimant, ip(50));
    lan.release(&holder, ip(50));
    lan.pass_s(4);
    assert_eq!(lan.changes(), ["-A released", "+B"]);
}

/// A claim that is only known from the programs' record of the ACK: the holder is asked, too.
#[test]
fn a_claim_that_was_missed_is_asked_for() {
    let (mut lan, holder, claimant) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    lan.inform(&holder, ip(50));
    lan.pass_s(5);
    let ack = lan.last_ack(&claimant, MessageType::Inform, ip(50), 0);
    lan.restart();
    lan.reconcile(&claimant, &ack);
    lan.pass_s(4);
    assert_eq!((lan.changes(), lan.asked), (vec!["+A".to_owned()], 1));
}

/// SEC-8: the number of claims is bounded, and invented claims do not affect the addresses.
#[test]
fn claims_are_bounded() {
    let mut lan = Lan::new();
    let address = |number: u16| Ipv4Addr::from(u32::from(ip(0)) + u32::from(number));
    let device = |number: u16, kind: u8| Client {
        mac: [2, kind, 0, 0, (number >> 8) as u8, number as u8],
        ..Client::new(0, &format!("{kind}-{number}"))
    };
    for number in 1..=300 {
        lan.inform(&device(number, 0), address(number));
        lan.off.insert(device(number, 0).mac);
    }
    for number in 1..=300 {
        lan.inform(&device(number, 1), address(number));
    }
    assert_eq!((lan.asked, conflicts(&lan), lan.core.rows()), (256, 44, 300));
    lan.pass_s(4);
    let taken = lan.rows().keys().filter(|serial| serial.starts_with("1-")).count();
    assert_eq!((taken, lan.core.rows()), (256, 300));
}

/// SEC-8: an INFORM that another station sends with the hardware address and the address of a device changes neither its
/// lease nor its identity. A device with a static address is asked, and keeps its row while it answers.
#[test]
fn an_inform_in_the_name_of_another_device_takes_nothing() {
    const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 9];
    let (mut lan, leased, fixed) = (Lan::new(), Client::new(1, "A"), Client::new(2, "B"));
    lan.join(&leased, ip(40), HOUR);
    lan.inform(&fixed, ip(50));
    lan.changes();
    for (victim, address) in [(&leased, ip(40)), (&fixed, ip(50))] {
        lan.rivals.push((address, SENDER));
        let sender = Client { mac: victim.mac, ..Client::new(9, "X") }.with_id(b"forger");
        let forged = lan.send(&sender, MessageType::Inform, |b| b.ethernet_source(SENDER).ciaddr(address));
        lan.answer(&forged, MessageType::Ack, Ipv4Addr::UNSPECIFIED, |b| b);
        lan.pass_s(10);
    }
    assert_eq!((lan.changes(), conflicts(&lan)), (vec![], 2));
    assert_eq!(lan.rows().into_iter().collect::<Vec<_>>(), [("A".into(), vec![40]), ("B".into(), vec![50])]);
    // The device itself may change its identity.
    lan.inform(&Client::new(2, "C"), ip(50));
    assert_eq!(lan.changes(), ["-B identity_changed", "+C"]);
}
