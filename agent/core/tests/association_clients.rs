//! Tests of clients that change, share an identity, move and contradict each other, where TR-111 is ambiguous.

mod lan;

use std::net::Ipv4Addr;

use lan::{Client, GATEWAY, Lan, ip};
use tr111_common::{
    counter::Class,
    dhcp4::{MessageType, option},
};
use tr111_core::{
    association::{Input, Output, Remark, Settings, Source},
    dhcp::Tag,
};

const HOUR: u32 = 3_600;

/// T-8: an ACK within the grace period after a NAK keeps the row and its instance number.
#[test]
fn an_ack_soon_after_a_nak_keeps_the_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    lan.nak(&client, ip(100));
    lan.pass_s(9);
    lan.join(&client, ip(101), HOUR);
    lan.pass_s(60);
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.device(1).unwrap().bindings.next().unwrap().ip, ip(101));
}

/// T-8: without an ACK the row is removed at the end of the grace period, which further NAKs do not extend.
#[test]
fn a_nak_ends_the_row_after_its_grace() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    lan.nak(&client, ip(100));
    lan.pass_s(5);
    lan.nak(&client, ip(100));
    lan.pass_s(4);
    assert_eq!(lan.changes(), ["+A"]);
    lan.pass_s(2);
    assert_eq!(lan.changes(), ["-A refused"]);
}

/// T-8: the lease may expire before the end of the grace period.
#[test]
fn a_lease_may_end_within_the_grace() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), 5);
    lan.nak(&client, ip(100));
    lan.pass_s(7);
    assert_eq!(lan.changes(), ["+A", "-A expired"]);
}

#[test]
fn a_nak_does_not_touch_a_static_address() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.inform(&client, ip(50));
    lan.nak(&client, ip(100));
    lan.pass_s(60);
    assert_eq!(lan.changes(), ["+A"]);
}

/// RFC 2131 4.3.5: a NAK only answers a REQUEST. A NAK to an INFORM or a DISCOVER ends no lease, and the exchange still
/// waits for a valid reply.
#[test]
fn a_nak_to_anything_but_a_request_ends_nothing() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    let seen = lan.core.device(1).unwrap().last_seen;
    let mut informed = Vec::new();
    for message_type in [MessageType::Discover, MessageType::Inform] {
        informed = lan.send(&client, message_type, |b| b.ciaddr(ip(100)));
        lan.answer(&informed, MessageType::Nak, Ipv4Addr::UNSPECIFIED, |b| b);
    }
    lan.pass_s(11);
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.counts().remark(Remark::MisplacedNak), 2);
    lan.answer(&informed, MessageType::Ack, Ipv4Addr::UNSPECIFIED, |b| b);
    assert!(lan.core.device(1).unwrap().last_seen > seen, "the ACK that came after the NAK counts");
    lan.pass_s(u64::from(HOUR));
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// T-8, SEC-8: another station sends a REQUEST for a wrong address in the client's name. The NAK to it ends nothing.
#[test]
fn a_nak_to_a_forged_request_ends_nothing() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    let forged = lan.send(&client, MessageType::Request, |b| {
        b.ethernet_source([2, 0, 0, 0, 0, 9]).address(option::REQUESTED_IP, ip(77))
    });
    lan.answer(&forged, MessageType::Nak, Ipv4Addr::UNSPECIFIED, |b| b);
    lan.pass_s(60);
    assert_eq!((lan.changes(), lan.core.counts().remark(Remark::MisplacedNak)), (vec!["+A".to_owned()], 1));
    lan.nak(&client, ip(77));
    lan.pass_s(60);
    assert_eq!(lan.changes(), ["-A refused"]);
}

/// T-8: after a NAK, the INFORM of a device that changed to a static address takes over the row.
#[test]
fn an_inform_after_a_nak_takes_the_row_over() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    lan.nak(&client, ip(100));
    lan.inform(&client, ip(50));
    lan.pass_s(2 * u64::from(HOUR));
    let binding = lan.core.device(1).unwrap().bindings.next().unwrap().clone();
    assert_eq!((binding.ip, binding.source, binding.lease_expires), (ip(50), Source::Inform, None));
    assert_eq!(lan.changes(), ["+A"]);
}

/// T-9: a client that renews its lease without an identity keeps its row.
#[test]
fn a_renewal_without_identity_extends_the_lease() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), 10);
    let silent = Client { option: None, ..client };
    for _ in 0..4 {
        lan.pass_s(5);
        lan.renew(&silent, ip(100), 10);
        assert_eq!(lan.class, Some(Class::Ack));
    }
    assert_eq!(lan.changes(), ["+A"]);
    assert_eq!(lan.core.counts().remark(Remark::RenewWithoutIdentity), 4);
    lan.pass_s(12);
    assert_eq!(lan.changes(), ["-A expired"]);
    // The programs still know the newcomer, but the agent has no identity of a client without a row.
    lan.join(&silent, ip(100), 10);
    assert_eq!(lan.core.rows(), 0);
}

/// GW-6: the identity may be in any request of the exchange.
#[test]
fn the_identity_of_a_discover_counts_for_its_request() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let discover = lan.send(&client, MessageType::Discover, |b| b);
    let mut request = discover.clone();
    // The same transaction, with the message type changed to REQUEST and option 125 replaced by an unknown option.
    let at = 14 + 20 + 8 + 240;
    assert_eq!(request[at..at + 3], [option::MESSAGE_TYPE, 1, 1]);
    request[at + 2] = MessageType::Request as u8;
    request[at + 3] = 200;
    lan.ingress(&request);
    assert_eq!(lan.class, Some(Class::Sticky));
    lan.ack(&request, ip(100), HOUR);
    assert_eq!(lan.changes(), ["+A"]);
}

/// GW-2: two clients with the same hardware address and transaction identifier have separate identities.
#[test]
fn an_identity_stays_with_its_client() {
    let mut lan = Lan::new();
    lan.send(&Client::new(1, "A").with_id(b"first"), MessageType::Request, |b| b);
    lan.xid -= 1;
    let second = Client::silent(1).with_id(b"second");
    let mut request = lan.send(&second, MessageType::Request, |b| b);
    request[20] = 0x20;
    lan.ingress(&request);
    assert_eq!(lan.class, Some(Class::Fragment), "told in any case");
    request[20] = 0;
    lan.ack(&request, ip(100), HOUR);
    assert_eq!(lan.core.rows(), 0);
}

/// T-10, GW-7: two clients with one identity are two bindings in one row, which is removed with the last binding.
#[test]
fn an_identity_on_two_clients_is_one_row() {
    let mut lan = Lan::new();
    let (wired, wireless) = (Client::new(1, "A"), Client::new(2, "A"));
    lan.join(&wired, ip(1), HOUR);
    lan.join(&wireless, ip(2), HOUR);
    assert_eq!(lan.rows()["A"], [1, 2]);
    assert_eq!(lan.core.counts().remark(Remark::IdentityShared), 1);
    lan.release(&wired, ip(1));
    assert_eq!((lan.core.rows(), lan.rows()["A"].clone()), (1, vec![2]));
    lan.release(&wireless, ip(2));
    assert_eq!(lan.changes(), ["+A", "+192.168.1.2", "-192.168.1.1 released", "-A released"]);
}

/// T-11: another identity of the same client is a removal and an addition.
#[test]
fn a_client_may_change_its_identity() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    lan.join(&Client::new(1, "B"), ip(100), HOUR);
    assert_eq!(lan.changes(), ["+A", "-A identity_changed", "+B"]);
    // By an INFORM, too, which does not change the lease.
    let expires = lan.core.device(2).unwrap().bindings.next().unwrap().lease_expires;
    lan.pass_s(10);
    lan.inform(&Client::new(1, "C"), ip(100));
    assert_eq!(lan.changes(), ["-B identity_changed", "+C"]);
    let binding = lan.core.device(3).unwrap().bindings.next().unwrap().clone();
    assert_eq!((binding.source, binding.lease_expires), (Source::Request, expires));
}

/// T-11: if the previous identity has other clients, its row is kept.
#[test]
fn a_shared_row_outlives_one_clients_change() {
    let mut lan = Lan::new();
    lan.join(&Client::new(1, "A"), ip(1), HOUR);
    lan.join(&Client::new(2, "A"), ip(2), HOUR);
    lan.join(&Client::new(2, "B"), ip(2), HOUR);
    assert_eq!(lan.rows().into_iter().collect::<Vec<_>>(), [("A".into(), vec![1]), ("B".into(), vec![2])]);
}

/// T-11: many clients behind one hardware address, such as a bridge, have a row each.
#[test]
fn client_identifiers_tell_clients_behind_one_address_apart() {
    let mut lan = Lan::new();
    for (host, serial) in [(1, "A"), (2, "B"), (3, "C")] {
        lan.join(&Client::new(1, serial).with_id(serial.as_bytes()), ip(host), HOUR);
    }
    assert_eq!(lan.changes(), ["+A", "+B", "+C"]);
    lan.release(&Client::new(1, "B").with_id(b"B"), ip(2));
    assert_eq!(lan.rows().into_keys().collect::<Vec<_>>(), ["A", "C"]);
}

/// GW-7: boxes of one image share a client identifier. Where they hold different addresses, each is a client of its own.
#[test]
fn one_client_identifier_behind_several_addresses_is_several_clients() {
    let mut lan = Lan::new();
    for (host, serial) in [(1, "A"), (2, "B"), (3, "C")] {
        lan.join(&Client::new(host, serial).with_id(b"image"), ip(host), HOUR);
    }
    assert_eq!(lan.changes(), ["+A", "+B", "+C"]);
    lan.release(&Client::new(2, "B").with_id(b"image"), ip(2));
    assert_eq!(lan.rows().into_keys().collect::<Vec<_>>(), ["A", "C"]);
}

/// GW-7: VLANs are different segments, on which the same client is two clients of one row.
#[test]
fn segments_are_told_apart() {
    let mut lan = Lan::new();
    let tagged = |vlan| Client { tags: vec![Tag { protocol: 0x8100, control: vlan }], ..Client::new(1, "A") };
    lan.join(&tagged(5), ip(100), HOUR);
    lan.join(&tagged(6), ip(100), HOUR);
    assert_eq!(lan.rows()["A"], [100, 100]);
    lan.release(&tagged(6), ip(100));
    let vlans: Vec<_> = lan.core.device(1).unwrap().bindings.map(|binding| binding.segment().vlan).collect();
    assert_eq!(vlans, [[5, 0]]);
}

/// T-26: another DHCP server on the LAN adds and removes no rows, unless the operator accepts it.
#[test]
fn foreign_servers_do_not_count() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let request = lan.send(&client, MessageType::Request, |b| b);
    lan.answer_from(ip(66), &request, MessageType::Ack, ip(100), |b| b.option(option::LEASE_TIME, &[0, 0, 1, 0]));
    assert_eq!((lan.core.rows(), lan.core.counts().remark(Remark::ForeignServer)), (0, 1));
    lan.ack(&request, ip(100), HOUR);
    assert_eq!(lan.changes(), ["+A"], "the gateway's own ACK to the same request still counts");
    let request = lan.send(&client, MessageType::Request, |b| b);
    lan.answer_from(ip(66), &request, MessageType::Nak, ip(0), |b| b);
    lan.pass_s(60);
    assert_eq!(lan.changes(), [""; 0]);

    let mut lan = Lan::with(Settings { accept_foreign_server: true, ..Settings::default() });
    let request = lan.send(&client, MessageType::Request, |b| b);
    lan.answer_from(ip(66), &request, MessageType::Ack, ip(100), |b| b);
    assert_eq!(lan.changes(), ["+A"]);
}

/// T-26: behind a relay agent, of the client or of this gateway, the server is elsewhere.
#[test]
fn relayed_exchanges_have_servers_elsewhere() {
    let far = Ipv4Addr::new(10, 0, 0, 1);
    let mut lan = Lan::new();
    let relayed = Client { relay: Some(ip(2)), ..Client::new(1, "A") };
    let request = lan.send(&relayed, MessageType::Request, |b| b);
    lan.answer_from(far, &request, MessageType::Ack, ip(100), |b| b.option(option::LEASE_TIME, &[0, 0, 1, 0]));
    assert!(lan.core.device(1).unwrap().bindings.next().unwrap().relayed);
    let request = lan.send(&Client::new(2, "B"), MessageType::Request, |b| b);
    lan.answer_from(far, &request, MessageType::Ack, ip(101), |b| b.giaddr(GATEWAY));
    assert!(!lan.core.device(2).unwrap().bindings.next().unwrap().relayed);
    let request = lan.send(&Client::new(3, "C"), MessageType::Request, |b| b);
    lan.answer_from(far, &request, MessageType::Ack, ip(102), |b| b.giaddr(ip(77)));
    assert_eq!(lan.changes(), ["+A", "+B"]);
}

#[test]
fn until_addresses_are_known_every_server_counts() {
    let mut lan = Lan::new();
    lan.handle(Input::LocalAddresses(Vec::new()));
    let request = lan.send(&Client::new(1, "A"), MessageType::Request, |b| b);
    lan.answer_from(ip(66), &request, MessageType::Ack, ip(100), |b| b);
    assert_eq!(lan.changes(), ["+A"]);
}

/// GW-9: a server that assigns an address to another client has ended the previous lease.
#[test]
fn an_address_has_one_client() {
    let mut lan = Lan::new();
    lan.join(&Client::new(1, "A"), ip(100), HOUR);
    lan.join(&Client::new(2, "B"), ip(100), HOUR);
    assert_eq!(lan.changes(), ["+A", "-A expired", "+B"]);
    assert_eq!(lan.core.counts().remark(Remark::AddressReassigned), 1);
    // The same device with another client identifier: a boot loader, then its operating system. The row is kept.
    lan.join(&Client::new(2, "B").with_id(b"system"), ip(100), HOUR);
    assert_eq!(lan.changes(), ["+192.168.1.100", "-192.168.1.100 expired"]);
    // The same with another identity.
    lan.join(&Client::new(2, "C").with_id(b"other"), ip(100), HOUR);
    assert_eq!(lan.changes(), ["-B identity_changed", "+C"]);
}

#[test]
fn a_client_may_move_onto_the_address_of_another() {
    let mut lan = Lan::new();
    lan.join(&Client::new(1, "A"), ip(1), HOUR);
    lan.join(&Client::new(2, "A"), ip(2), HOUR);
    lan.join(&Client::new(3, "C"), ip(3), HOUR);
    lan.changes();
    lan.join(&Client::new(1, "A"), ip(2), HOUR);
    assert_eq!(lan.changes(), ["-192.168.1.2 expired"]);
    lan.join(&Client::new(1, "A"), ip(3), HOUR);
    assert_eq!(lan.changes(), ["-C expired"]);
    lan.join(&Client::new(4, "D"), ip(2), HOUR);
    assert_eq!(lan.rows().into_iter().collect::<Vec<_>>(), [("A".into(), vec![3]), ("D".into(), vec![2])]);
}

/// T-4: the programs learn a client with its first binding, and forget it with its last.
#[test]
fn clients_stick_as_long_as_they_have_a_binding() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    let stuck = lan.outputs.iter().filter(|output| matches!(output, Output::Stick(_))).count();
    assert_eq!((stuck, lan.sticky.len()), (1, 1));
    lan.join(&Client::new(1, "B"), ip(100), HOUR);
    let unstuck = lan.outputs.iter().filter(|output| matches!(output, Output::Unstick { .. })).count();
    assert_eq!((unstuck, lan.sticky.len()), (0, 1), "a client that changes its identity is never unknown");
    lan.release(&client, ip(100));
    assert!(lan.sticky.is_empty());
}

/// T-28: an identity in `file` or `sname` is used like any other.
#[test]
fn an_identity_in_an_overloaded_field_makes_a_row() {
    let mut lan = Lan::new();
    let (silent, identity) = (Client::silent(1), lan::device("A").encode());
    let request =
        lan.send(&silent, MessageType::Request, |b| b.overload(&[(option::VENDOR_IDENTIFYING, &identity)], &[]));
    assert_eq!((lan.class, lan.outputs.len()), (Some(Class::Request), 0), "the programs have marked it themselves");
    lan.ack(&request, ip(100), HOUR);
    assert_eq!(lan.changes(), ["+A"]);
}

/// T-28: the agent evaluates first fragments.
#[test]
fn first_fragments_are_concluded_here() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let mut frame = lan.send(&client, MessageType::Request, |b| b);
    frame[20] = 0x20;
    lan.outputs.clear();
    lan.ingress(&frame);
    assert_eq!(lan.class, Some(Class::Fragment));
    assert!(matches!(lan.outputs[..], [Output::MarkExchange(_)]));
    frame[20] = 0;
    lan.ack(&frame, ip(100), HOUR);
    assert_eq!(lan.changes(), ["+A"]);
}

/// An ACK to a DISCOVER (rapid commit, RFC 4039) grants a lease.
#[test]
fn rapid_commit_makes_a_row() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    let discover = lan.send(&client, MessageType::Discover, |b| b.option(80, b""));
    lan.ack(&discover, ip(100), 10);
    lan.pass_s(12);
    assert_eq!(lan.changes(), ["+A", "-A expired"]);
}
