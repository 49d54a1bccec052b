//! Tests of the rows of the table on a LAN with one DHCP server: what adds them and what removes them.

mod lan;

use std::{net::Ipv4Addr, time::Duration};

use lan::{Client, GATEWAY, GATEWAY_MAC, Lan, device, ip};
use tr111_common::{
    counter::Class,
    dhcp4::{MessageType, option},
};
use tr111_core::{
    association::{Input, Remark, Settings, Source},
    dhcp::Tag,
};

const HOUR: u32 = 3_600;

/// GW-6, T-5: a row is added by the ACK, and not by an OFFER.
#[test]
fn a_row_appears_at_the_ack() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let discover = lan.send(&client, MessageType::Discover, |b| b);
    lan.answer(&discover, MessageType::Offer, ip(100), |b| b);
    let request = lan.send(&client, MessageType::Request, |b| b.address(option::REQUESTED_IP, ip(100)));
    assert_eq!(lan.core.rows(), 0);
    lan.ack(&request, ip(100), HOUR);
    let row = lan.core.device(1).unwrap();
    assert_eq!(*row.identity, device("A"));
    let binding = row.bindings.clone().next().unwrap();
    assert_eq!((binding.ip, binding.source, binding.mac), (ip(100), Source::Request, client.mac.into()));
    assert_eq!(binding.lease_expires, Some(lan.now + Duration::from_secs(u64::from(HOUR))));
    assert_eq!((binding.server, binding.relayed, binding.client_id.clone()), (Some(GATEWAY), false, None));
    assert_eq!(lan.changes(), ["+A"]);
}

/// GW-6: a REQUEST that is answered by NAK, or not at all, adds no row.
#[test]
fn without_an_ack_there_is_no_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.nak(&client, ip(100));
    lan.send(&client, MessageType::Request, |b| b);
    lan.pass_s(3_600);
    assert_eq!((lan.core.rows(), lan.changes().len()), (0, 0));
    assert_eq!(lan.core.next_deadline(), None, "nothing is waited for any more");
}

/// GW-6: an ACK that arrives after its request was discarded, or in another transaction, adds no row.
#[test]
fn an_ack_needs_its_request() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let request = lan.send(&client, MessageType::Request, |b| b);
    lan.pass_s(61);
    lan.ack(&request, ip(100), HOUR);
    let mut other = lan.send(&client, MessageType::Request, |b| b);
    other[14 + 28 + 7] ^= 0x55;
    lan.ack(&other, ip(100), HOUR);
    assert_eq!(lan.core.rows(), 0);
    assert_eq!(lan.core.counts().remark(Remark::UnmatchedReply), 1, "the programs saw the second");
}

/// GW-7: an identity that has a row is not added again.
#[test]
fn a_repeated_exchange_adds_nothing() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    lan.join(&client, ip(100), HOUR);
    lan.renew(&client, ip(100), HOUR);
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.device(1).unwrap().bindings.count(), 1);
}

#[test]
fn a_repeated_ack_changes_nothing() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let request = lan.send(&client, MessageType::Request, |b| b);
    lan.ack(&request, ip(100), 10);
    let deadline = lan.core.next_deadline();
    lan.pass_s(5);
    lan.ack(&request, ip(100), 10);
    assert_eq!(lan.core.next_deadline(), deadline);
    lan.pass_s(7);
    assert_eq!(lan.changes(), ["+A", "-A expired"]);
}

/// GW-8: a row is kept while its lease is valid, without any traffic. GW-9: it is removed when the lease expires,
/// within the guard time and a tick of 67 ms.
#[test]
fn a_lease_that_is_not_renewed_ends_the_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), 10);
    lan.pass(Duration::from_millis(10_999));
    assert_eq!(lan.changes(), ["+A"]);
    lan.pass(Duration::from_millis(69));
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// GW-9: a renewal extends the lease.
#[test]
fn a_renewal_keeps_the_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), 10);
    for _ in 0..5 {
        lan.pass_s(5);
        lan.renew(&client, ip(100), 10);
    }
    assert_eq!(lan.changes(), ["+A"]);
    lan.pass_s(12);
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// T-31: a lease counts from the time of its ACK, even if the event was delayed in the ring.
#[test]
fn a_renewal_that_waited_in_the_ring_still_counts() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), 10);
    lan.pass_s(9);
    let request = lan.send(&client, MessageType::Request, |b| b.ciaddr(ip(100)));
    let message = tr111_core::dhcp::Message::parse_request(&request, None).unwrap();
    let ack = tr111_core::dhcp::Builder::reply(MessageType::Ack, &message, GATEWAY_MAC, GATEWAY, ip(100))
        .option(option::LEASE_TIME, &10u32.to_be_bytes())
        .build();
    let left = lan.now;
    lan.now = left + Duration::from_secs(8);
    let segment = tr111_common::headers::Segment { ifindex: lan::LAN, vlan: [0; 2] };
    let hook = tr111_common::counter::Hook::LanEgress;
    lan.handle(Input::Event(&tr111_common::event::Event {
        time: left.0,
        segment,
        metadata_tag: None,
        class: Class::Ack,
        hook,
        frame: &ack,
    }));
    lan.handle(Input::Tick);
    assert_eq!(lan.changes(), ["+A"]);
    let expires = lan.core.device(1).unwrap().bindings.next().unwrap().lease_expires;
    assert_eq!(expires, Some(left + Duration::from_secs(10)));
}

#[test]
fn an_infinite_lease_never_expires() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), u32::MAX);
    lan.pass(Duration::from_hours(24 * 365 * 50));
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.device(1).unwrap().bindings.next().unwrap().lease_expires, None);
}

/// RFC 2131 requires a lease time; a renewal without one keeps the previous expiry.
#[test]
fn an_ack_without_a_lease_time_keeps_the_lease_that_was_known() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), 10);
    let request = lan.send(&client, MessageType::Request, |b| b.ciaddr(ip(100)));
    lan.answer(&request, MessageType::Ack, ip(100), |b| b);
    assert_eq!(lan.core.counts().remark(Remark::AckWithoutLease), 1);
    lan.pass_s(12);
    assert_eq!(lan.changes(), ["+A", "-A expired"]);
    let request = lan.send(&client, MessageType::Request, |b| b);
    lan.answer(&request, MessageType::Ack, ip(100), |b| b);
    assert_eq!(lan.core.device(2).unwrap().bindings.next().unwrap().lease_expires, None);
}

/// GW-10: RELEASE removes the row at once.
#[test]
fn release_ends_the_row_at_once() {
    for client in [Client::new(1, "A"), Client::new(1, "A").with_id(b"\x01id")] {
        let mut lan = Lan::new();
        lan.join(&client, ip(100), HOUR);
        lan.release(&client, ip(100));
        assert_eq!(lan.changes(), ["+A", "-A released"]);
    }
}

/// GW-10, T-7: a RELEASE with another hardware address, client identifier, address or server removes nothing.
#[test]
fn a_release_that_does_not_fit_ends_nothing() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A").with_id(b"\x01id"));
    lan.join(&client, ip(100), HOUR);
    lan.release(&Client { mac: [2, 9, 9, 9, 9, 9], ..client.clone() }, ip(100));
    lan.release(&client.clone().with_id(b"\x01other"), ip(100));
    lan.release(&Client { id: None, ..client.clone() }, ip(100));
    lan.release(&client, ip(101));
    lan.send(&client, MessageType::Release, |b| b.ciaddr(ip(100)).address(option::SERVER_ID, ip(9)));
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.counts().remark(Remark::ReleaseMismatch), 5);
    // An unknown client that releases an unused address is not counted.
    lan.release(&Client::silent(77), ip(200));
    assert_eq!(lan.core.counts().remark(Remark::ReleaseMismatch), 5);
    lan.send(&client, MessageType::Release, |b| b.ciaddr(ip(100)));
    assert_eq!(lan.changes(), ["-A released"], "the server's identifier may be missing");
}

/// T-7: a DECLINE after the ACK removes the row, if it has the client's address.
#[test]
fn decline_ends_the_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    lan.decline(&Client::new(2, "B"), ip(100));
    lan.decline(&client, ip(101));
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.counts().remark(Remark::DeclineMismatch), 2);
    lan.decline(&client, ip(100));
    assert_eq!(lan.changes(), ["-A declined"]);
}

/// GW-17: INFORM and ACK add a row without a lease, with the client's own address. T-6: the row does not expire, and
/// RELEASE with its address removes it.
#[test]
fn inform_makes_a_row_without_a_lease() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.inform(&client, ip(50));
    let binding = lan.core.device(1).unwrap().bindings.next().unwrap().clone();
    assert_eq!((binding.ip, binding.source, binding.lease_expires), (ip(50), Source::Inform, None));
    lan.pass(Duration::from_hours(1_000));
    lan.release(&client, ip(51));
    assert_eq!(lan.changes(), ["+A"]);
    lan.release(&client, ip(50));
    assert_eq!(lan.changes(), ["-A released"]);
}

/// T-6: a row from an INFORM may have a maximum age, which each INFORM restarts.
#[test]
fn inform_rows_may_age() {
    let settings = Settings { inform_maximum_age: Some(Duration::from_secs(100)), ..Settings::default() };
    let (mut lan, client) = (Lan::with(settings), Client::new(1, "A"));
    lan.inform(&client, ip(50));
    lan.pass_s(90);
    lan.inform(&client, ip(50));
    lan.pass_s(99);
    assert_eq!(lan.changes(), ["+A"]);
    lan.pass_s(2);
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// T-6: an INFORM of a client with a lease keeps the lease.
#[test]
fn inform_leaves_a_lease_alone() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), 100);
    let expires = lan.core.device(1).unwrap().bindings.next().unwrap().lease_expires;
    lan.pass_s(50);
    lan.inform(&client, ip(100));
    // Another process on the same host, without a client identifier or with a different one.
    lan.inform(&client.clone().with_id(b"\x01daemon"), ip(100));
    let binding = lan.core.device(1).unwrap().bindings.next().unwrap().clone();
    assert_eq!((binding.source, binding.lease_expires, binding.last_seen), (Source::Request, expires, lan.now));
    lan.pass_s(52);
    assert_eq!(lan.changes(), ["+A", "-A expired"]);
}

/// The client chooses a static address itself, so it cannot take a leased address from another client.
#[test]
fn inform_cannot_take_a_leased_address() {
    let mut lan = Lan::new();
    lan.join(&Client::new(1, "A"), ip(100), HOUR);
    lan.inform(&Client::new(2, "B"), ip(100));
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.counts().remark(Remark::AddressConflict), 1);
    assert_eq!(lan.asked, 0, "the server's word is enough");
}

/// The source address is used for an INFORM without `ciaddr`; without both, the INFORM is ignored.
#[test]
fn inform_needs_an_address() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let inform = lan.send(&client, MessageType::Inform, |b| b);
    lan.answer(&inform, MessageType::Ack, Ipv4Addr::UNSPECIFIED, |b| b.to(client.mac, ip(50)));
    assert_eq!(lan.core.counts().remark(Remark::AckWithoutAddress), 1);
    let inform = lan.send(&client, MessageType::Inform, |b| b.from(client.mac, ip(50)));
    lan.answer(&inform, MessageType::Ack, Ipv4Addr::UNSPECIFIED, |b| b.to(client.mac, ip(50)));
    assert_eq!(lan.rows()["A"], [50]);
}

/// GW-1, GW-3: identities are inspected in DISCOVER, REQUEST and INFORM, unicast and broadcast, tagged and untagged; in
/// no other message.
#[test]
fn identities_are_seen_wherever_they_are_inspected() {
    use tr111_core::association::IdentityResult::Accepted;
    let mut lan = Lan::new();
    let tag = Tag { protocol: 0x8100, control: 5 };
    let mut expected = 0;
    for tags in [vec![], vec![tag], vec![Tag { protocol: 0x88a8, control: 6 }, tag]] {
        let client = Client { tags, ..Client::new(1, "A") };
        for broadcast in [true, false] {
            expected += 1;
            for message in [MessageType::Discover, MessageType::Request, MessageType::Inform] {
                lan.send(&client, message, |b| if broadcast { b } else { b.to(GATEWAY_MAC, GATEWAY) });
                assert_eq!(lan.core.counts().identity(message, Accepted), expected);
            }
            for message in [MessageType::Release, MessageType::Decline, MessageType::Offer, MessageType::Ack] {
                let identity = device("A").encode();
                lan.send(&client, message, |b| b.option(option::VENDOR_IDENTIFYING, &identity));
            }
        }
    }
    let all: u64 = lan.core.counts().identities().map(|(_, _, count)| count).sum();
    assert_eq!(all, 3 * expected);
}

/// T-32: instance numbers increase and are not reused.
#[test]
fn instance_numbers_are_never_reused() {
    let mut lan = Lan::new();
    for (number, instance) in (1..=4).zip(1..) {
        let client = Client::new(number, &format!("S{number}"));
        lan.join(&client, ip(number), HOUR);
        assert!(lan.core.device(instance).is_some());
        lan.release(&client, ip(number));
    }
    lan.join(&Client::new(1, "S1"), ip(1), HOUR);
    assert_eq!(lan.core.devices().map(|device| device.instance).collect::<Vec<_>>(), [5]);
}
