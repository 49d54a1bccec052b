//! Tests with hosts that send false, excessive or malformed data.

mod lan;

use std::{net::Ipv4Addr, time::Duration};

use lan::{Client, Lan, ip};
use tr111_common::{
    counter::{Class, Hook},
    dhcp4::MessageType,
    event::Event,
    headers::Segment,
    identity::Refusal,
};
use tr111_core::association::{IdentityResult, Input, Output, Remark, Settings};

const HOUR: u32 = 3_600;

fn identity(parts: &[(u8, &[u8])]) -> Vec<u8> {
    let data: Vec<u8> = parts.iter().flat_map(|(code, text)| [&[*code, text.len() as u8], *text].concat()).collect();
    [&[0, 0, 0x0d, 0xe9, data.len() as u8], data.as_slice()].concat()
}

/// SEC-8: a full table refuses new devices and keeps the existing ones.
#[test]
fn a_full_table_evicts_nobody() {
    let mut lan = Lan::with(Settings { max_rows: 2, ..Settings::default() });
    for number in 1..=4 {
        lan.join(&Client::new(number, &format!("S{number}")), ip(number), HOUR);
    }
    assert_eq!(lan.changes(), ["+S1", "+S2"]);
    assert_eq!(lan.core.counts().identity(MessageType::Request, IdentityResult::TableFull), 2);
    // Existing devices renew, change and share their rows as before.
    lan.renew(&Client::new(1, "S1"), ip(1), HOUR);
    lan.join(&Client::new(2, "S2b"), ip(2), HOUR);
    lan.join(&Client::new(5, "S1"), ip(5), HOUR);
    assert_eq!(lan.changes(), ["-S2 identity_changed", "+S2b", "+192.168.1.5"]);
    lan.release(&Client::new(2, "S2b"), ip(2));
    lan.join(&Client::new(3, "S3"), ip(3), HOUR);
    assert_eq!(lan.changes(), ["-S2b released", "+S3"]);
}

/// SEC-8: the number of clients of one identity is bounded, too.
#[test]
fn one_identity_cannot_fill_the_memory() {
    let mut lan = Lan::with(Settings { max_rows: 10, ..Settings::default() });
    for number in 1..=30 {
        lan.join(&Client::new(number, "A"), ip(number), HOUR);
    }
    assert_eq!((lan.core.rows(), lan.core.bindings()), (1, 20));
    assert_eq!(lan.core.counts().identity(MessageType::Request, IdentityResult::TableFull), 10);
}

fn refused(lan: &Lan, result: IdentityResult) -> u64 {
    lan.core.counts().identity(MessageType::Request, result)
}

/// SEC-8: of a thousand clients with one identity, as many have a binding as a row may have. Existing ones are kept,
/// renew and may move; a removed one makes room; other rows are not affected.
#[test]
fn one_row_has_a_bounded_number_of_bindings() {
    let mut lan = Lan::with(Settings { max_bindings_per_row: 3, ..Settings::default() });
    for number in 1..=200 {
        lan.join(&Client::new(number, "A"), ip(number), HOUR);
    }
    assert_eq!((lan.core.rows(), lan.core.bindings(), lan.sticky.len()), (1, 3, 3));
    assert_eq!(lan.changes(), ["+A", "+192.168.1.2", "+192.168.1.3"]);
    assert_eq!(refused(&lan, IdentityResult::RowCap), 197);
    lan.renew(&Client::new(1, "A"), ip(1), HOUR);
    lan.join(&Client::new(2, "A"), ip(22), HOUR);
    lan.join(&Client::new(9, "B"), ip(9), HOUR);
    assert_eq!((lan.changes(), refused(&lan, IdentityResult::RowCap)), (vec!["+B".to_owned()], 197));
    // An address that moves to another client of the row, and a client that leaves.
    lan.join(&Client::new(4, "A"), ip(3), HOUR);
    assert_eq!(lan.changes(), ["+192.168.1.3", "-192.168.1.3 expired"]);
    lan.release(&Client::new(1, "A"), ip(1));
    lan.join(&Client::new(5, "A"), ip(5), HOUR);
    assert_eq!(lan.changes(), ["-192.168.1.1 released", "+192.168.1.5"]);
    // A row whose clients have left has room for new ones.
    lan.join(&Client::new(5, "B"), ip(5), HOUR);
    lan.join(&Client::new(6, "A"), ip(6), HOUR);
    assert_eq!(lan.changes(), ["-192.168.1.5 identity_changed", "+192.168.1.5", "+192.168.1.6"]);
    assert_eq!(refused(&lan, IdentityResult::RowCap), 197);
}

/// SEC-8: a full row takes no binding at a restart, neither from the store nor from the programs' records.
#[test]
fn a_row_is_bounded_over_a_restart_too() {
    let mut lan = Lan::new();
    for number in 1..=5 {
        lan.join(&Client::new(number, "A"), ip(number), HOUR);
    }
    let kept = lan.records();
    lan.pass_s(1);
    let acks = [3, 4, 5].map(|number| {
        let client = Client::new(number, "A");
        (lan.last_ack(&client, MessageType::Request, ip(number), HOUR), client)
    });
    let now = lan.now;
    let mut lan = Lan::with(Settings { max_bindings_per_row: 2, ..Settings::default() });
    lan.now = now;
    lan.restart_with(kept, 9);
    assert_eq!(lan.core.bindings(), 2);
    for (ack, client) in acks {
        lan.reconcile(&client, &ack);
    }
    assert_eq!(refused(&lan, IdentityResult::RowCap), 3);
    let row = &lan.records()[0];
    assert_eq!(row.bindings.iter().map(|binding| binding.ip).collect::<Vec<_>>(), [ip(1), ip(2)]);
    // A lower limit at run time removes no binding.
    let smaller = Settings { max_bindings_per_row: 1, ..lan.core.settings().clone() };
    lan.handle(Input::Settings(Box::new(smaller)));
    assert_eq!(lan.core.bindings(), 2);
    lan.release(&Client::new(1, "A"), ip(1));
    lan.join(&Client::new(3, "A"), ip(3), HOUR);
    assert_eq!(lan.core.bindings(), 1);
}

/// SEC-8: of ten thousand identities from one hardware address, as many get a row as the limit allows.
#[test]
fn one_hardware_address_brings_a_bounded_number_of_identities() {
    let mut lan = Lan::new();
    for number in 0..10_000u32 {
        let client = Client::new(1, &format!("S{number}")).with_id(&number.to_be_bytes());
        lan.join(&client, Ipv4Addr::from(0x0a00_0000 + number), HOUR);
    }
    assert_eq!((lan.core.rows(), lan.core.bindings()), (16, 16));
    assert_eq!(lan.core.counts().identity(MessageType::Request, IdentityResult::MacCap), 10_000 - 16);
    assert_eq!(lan.core.counts().identity(MessageType::Request, IdentityResult::Accepted), 10_000);
    lan.join(&Client::new(2, "other"), ip(2), HOUR);
    assert_eq!(lan.core.rows(), 17, "others are not shut out");
}

/// SEC-8: ten thousand identities of one client are one row at a time.
#[test]
fn one_client_has_one_row() {
    let mut lan = Lan::new();
    for number in 0..100u32 {
        lan.join(&Client::new(1, &format!("S{number}")), ip(1), HOUR);
    }
    assert_eq!(lan.core.rows(), 1);
    lan.pass_s(60);
    assert_eq!(lan.rows().into_keys().collect::<Vec<_>>(), ["S99"]);
}

/// SEC-8: the number of clients behind one address with one identity is bounded, too.
#[test]
fn one_hardware_address_brings_a_bounded_number_of_clients() {
    let mut lan = Lan::with(Settings { max_identities_per_mac: 2, ..Settings::default() });
    for number in 0..100 {
        lan.join(&Client::new(1, "A").with_id(&[number]), ip(number), HOUR);
    }
    assert_eq!((lan.core.rows(), lan.core.bindings()), (1, 16));
}

/// A change of identity that the limit refuses removes the old row, because no client has that identity any more.
#[test]
fn a_refused_change_of_identity_ends_the_old_row() {
    let mut lan = Lan::with(Settings { max_rows: 2, ..Settings::default() });
    lan.join(&Client::new(1, "A"), ip(1), HOUR);
    lan.join(&Client::new(2, "A"), ip(2), HOUR);
    lan.join(&Client::new(3, "B"), ip(3), HOUR);
    lan.changes();
    lan.join(&Client::new(2, "C"), ip(2), HOUR);
    assert_eq!(lan.changes(), ["-192.168.1.2 identity_changed"]);
    assert_eq!(lan.sticky.len(), 2);
}

/// The number of stored requests is bounded: the oldest is discarded first.
#[test]
fn requests_without_an_answer_are_bounded() {
    let mut lan = Lan::with(Settings { max_exchanges: 3, ..Settings::default() });
    let frames: Vec<_> = (1..=4)
        .map(|number| lan.send(&Client::new(number, &format!("S{number}")), MessageType::Request, |b| b))
        .collect();
    assert_eq!(lan.core.counts().remark(Remark::ExchangeEvicted), 1);
    for (frame, host) in frames.iter().zip(1..) {
        lan.ack(frame, ip(host), HOUR);
    }
    assert_eq!(lan.changes(), ["+S2", "+S3", "+S4"]);
}

/// SEC-9: text that is not clean UTF-8 adds no row and is counted; quotes and braces are ordinary text.
#[test]
fn text_is_clean_or_refused() {
    let mut lan = Lan::new();
    let mut join = |number: u8, serial: &[u8]| {
        let option = Some(identity(&[(1, b"00256D"), (2, serial)]));
        lan.join(&Client { option, ..Client::silent(number) }, ip(number), HOUR);
        let counts = lan.core.counts();
        (lan.core.rows(), counts.identities().filter(|(_, _, n)| *n > 0).map(|(_, r, _)| r.label()).last())
    };
    assert_eq!(join(1, b"\xff\xfe"), (0, Some("not_utf8")));
    assert_eq!(join(2, b"\"}\\# HELP x"), (1, Some("not_utf8")));
    assert_eq!(join(3, "\u{9b}2J".as_bytes()).0, 1);
    let counts = lan.core.counts();
    let control = IdentityResult::Refused(Refusal::ControlCharacter);
    assert_eq!(counts.identity(MessageType::Request, IdentityResult::NotUtf8), 1);
    assert_eq!(counts.identity(MessageType::Request, control), 1, "U+009B is two bytes, so only the agent sees it");
    assert_eq!(lan.rows().into_keys().collect::<Vec<_>>(), ["\"}\\# HELP x"]);
}

/// Refusals of a known client's identity are counted by the programs, and not by the agent again.
#[test]
fn refusals_of_known_clients_are_counted_once() {
    let (mut lan, client) = (Lan::new(), Client::new(1, "A"));
    lan.join(&client, ip(1), HOUR);
    let incomplete = Client { option: Some(identity(&[(1, b"00256D")])), ..client };
    lan.send(&incomplete, MessageType::Request, |b| b);
    assert_eq!(lan.class, Some(Class::Sticky));
    let refused = IdentityResult::Refused(Refusal::Incomplete);
    assert_eq!(lan.core.counts().identity(MessageType::Request, refused), 0);
}

/// T-18, T-19a, T-21: tolerated deviations are counted.
#[test]
fn what_is_tolerated_is_remarked() {
    let mut lan = Lan::new();
    for parts in [
        [(1, b"00256D".as_slice()), (2, b"S1\0"), (9, b"")],
        [(1, b"00256D"), (2, b"S2"), (2, b"S3")],
        [(1, b"00256D"), (2, b"class"), (4, b"S4")],
    ] {
        let client = Client { option: Some(identity(&parts)), ..Client::silent(1) };
        lan.send(&client, MessageType::Inform, |b| b);
    }
    for remark in [Remark::NulStripped, Remark::Duplicate, Remark::DialectTr124] {
        assert_eq!(lan.core.counts().remark(remark), 1, "{}", remark.label());
    }
}

#[test]
fn an_event_that_is_no_message_is_counted() {
    let mut lan = Lan::new();
    let segment = Segment { ifindex: 1, vlan: [0; 2] };
    for (frame, class) in [(&[0u8; 20][..], Class::Request), (&[], Class::Fragment)] {
        let event = Event { time: 0, segment, metadata_tag: None, class, hook: Hook::LanIngress, frame };
        lan.handle(Input::Event(&event));
    }
    assert_eq!(lan.core.counts().remark(Remark::Unreadable), 2);
}

/// Changed settings take effect at once, but a smaller table keeps its rows.
#[test]
fn settings_may_change_while_it_runs() {
    let mut lan = Lan::new();
    for number in 1..=3 {
        lan.inform(&Client::new(number, &format!("S{number}")), ip(number));
    }
    let age = Some(Duration::from_secs(100));
    let mut changed = Settings { max_rows: 1, inform_maximum_age: age, ..lan.core.settings().clone() };
    // The seed keys the clients, so it is not changed.
    changed.kernel.seed += 1;
    lan.handle(Input::Settings(Box::new(changed)));
    lan.inform(&Client::new(1, "S1"), ip(1));
    lan.inform(&Client::new(4, "S4"), ip(4));
    assert_eq!(lan.core.rows(), 3);
    lan.pass_s(101);
    assert_eq!(lan.core.rows(), 0);
}

/// T-31: extreme durations neither overflow nor expire.
#[test]
fn extreme_times_do_no_harm() {
    let settings = Settings { nak_grace: Duration::MAX, expiry_guard: Duration::MAX, ..Settings::default() };
    let mut lan = Lan::with(settings);
    lan.join(&Client::new(1, "A"), ip(1), u32::MAX - 1);
    lan.nak(&Client::new(1, "A"), ip(1));
    lan.join(&Client::new(2, "B"), ip(2), 0);
    lan.pass(Duration::from_hours(24 * 365 * 300));
    assert_eq!(lan.core.rows(), 2);
}

/// GW-16: a device that is excluded by identity (with any class or one class) or by hardware address gets no row, and
/// is counted and reported; other devices get theirs. A new rule removes the row, and a removed rule admits the device.
#[test]
fn a_denied_device_gets_no_row() {
    let deny = |rules: &[&str]| -> Vec<_> { rules.iter().map(|rule| rule.parse().unwrap()).collect() };
    let settings = |rules: &[&str]| Settings { deny: deny(rules), ..Settings::default() };
    let mut lan = Lan::with(settings(&["00256D/A", "00256D/B/STB", "00256D/B2/none", "02:00:00:00:00:03"]));
    for (number, serial) in (1..).zip(["A", "B", "C", "D", "B2"]) {
        lan.join(&Client::new(number, serial), ip(number), HOUR);
    }
    let denied = |lan: &Lan| -> Vec<String> {
        let refused = lan.outputs.iter().filter_map(|output| match output {
            Output::DeviceRefused { identity, result: IdentityResult::Denied, .. } => Some(identity),
            _ => None,
        });
        refused.map(|identity| identity.serial_number.to_string()).collect()
    };
    assert_eq!(denied(&lan), ["A", "B", "C"]);
    let count = |lan: &Lan| -> u64 {
        let counts = lan.core.counts().identities().filter(|(_, result, _)| *result == IdentityResult::Denied);
        counts.map(|(_, _, count)| count).sum()
    };
    assert_eq!(count(&lan), 3);
    assert_eq!(lan.changes(), ["+D", "+B2"]);

    lan.handle(Input::Settings(Box::new(settings(&["00256D/D"]))));
    assert_eq!(lan.changes(), ["-D denied"]);
    lan.renew(&Client::new(1, "A"), ip(1), HOUR);
    lan.renew(&Client::new(4, "D"), ip(4), HOUR);
    assert_eq!((lan.changes(), count(&lan)), (vec!["+A".to_owned()], 4));

    // A rule that was added while no agent was running.
    let kept = lan.records();
    let mut lan = Lan::with(settings(&["00256D/A"]));
    lan.restart_with(kept, 9);
    assert_eq!(lan.records().iter().map(|row| row.identity.serial_number.as_str()).collect::<Vec<_>>(), ["B2"]);
}
