//! Tests of silent devices: which are probed, when, and with which result.

mod lan;

use std::{collections::HashSet, time::Duration};

use lan::{Client, Lan, ip};
use tr111_common::dhcp4::MessageType;
use tr111_core::{
    arp::EVERYBODY,
    association::{Input, LifeSign, Output, ProbeResult, Record, Settings},
};

const HOUR: u32 = 3_600;
/// Longer than the probe interval and three unanswered probes, in seconds.
const PROBED_S: u64 = 60 + 4;
/// `PROBED_S` and the search after it.
const WINDOW_S: u64 = PROBED_S + 60;

fn lan() -> Lan {
    Lan::with(settings())
}

fn settings() -> Settings {
    Settings { probe_interval: Duration::from_mins(1), probe_count: 3, ..Settings::default() }
}

/// GW-11: a device that left loses its row after the probe interval, three probes and a search.
#[test]
fn a_device_that_left_loses_its_row() {
    let (mut lan, client) = (lan(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    lan.off.insert(client.mac);
    lan.pass_s(50);
    assert_eq!((lan.changes(), lan.probes.len()), (vec!["+A".to_owned()], 0));
    lan.pass_s(WINDOW_S - 50 - 14);
    assert_eq!(lan.changes(), [""; 0]);
    lan.pass_s(14);
    assert_eq!(lan.changes(), ["-A disconnected"]);
    assert_eq!((lan.probes.len(), lan.searches.len()), (3, 1));
    for pair in lan.probes.windows(2) {
        let gap = pair[1].0.since(pair[0].0).unwrap();
        assert!(gap >= Duration::from_secs(1) && gap < Duration::from_millis(1_100), "{gap:?} between probes");
    }
    assert_eq!(lan.core.counts().probes(ProbeResult::Unanswered), 3);
    assert_eq!(lan.core.next_deadline(), None, "nobody is left to look after");
}

/// GW-11: one or two lost probes do not remove the row.
#[test]
fn a_lost_probe_ends_nothing() {
    for lossy in 1..=2 {
        let (mut lan, client) = (lan(), Client::new(1, "A"));
        lan.join(&client, ip(100), HOUR);
        lan.lossy = lossy;
        lan.pass_s(PROBED_S);
        assert_eq!(lan.changes(), ["+A"]);
        assert_eq!(lan.probes.len() as u32, lossy + 1);
        assert_eq!(lan.core.counts().probes(ProbeResult::Unanswered), u64::from(lossy));
        assert_eq!(lan.core.counts().probes(ProbeResult::Answered), 1);
        // The number of lost probes restarts with the next silence.
        lan.lossy = 2;
        lan.pass_s(PROBED_S);
        assert_eq!(lan.changes(), [""; 0]);
    }
}

/// GW-8: a device that answers keeps its row without DHCP messages, with one probe per interval.
#[test]
fn a_device_that_answers_stays() {
    let (mut lan, client) = (lan(), Client::new(1, "A"));
    lan.join(&client, ip(100), 100 * HOUR);
    lan.pass_s(u64::from(HOUR));
    assert_eq!(lan.changes(), ["+A"]);
    assert!((60..=70).contains(&lan.probes.len()), "{} probes in an hour", lan.probes.len());
    let row = lan.core.device(1).unwrap();
    assert!(lan.now.since(row.last_seen).unwrap() <= Duration::from_mins(1), "a sign of life counts for the row");
}

/// T-6: recent ARP messages in the kernel's record make a probe unnecessary.
#[test]
fn a_device_that_talks_is_not_probed() {
    let (mut lan, client) = (lan(), Client::new(1, "A"));
    lan.inform(&client, ip(50));
    for _ in 0..100 {
        lan.pass_s(40);
        lan.arp(ip(50), client.mac);
    }
    let asked = lan.outputs.iter().filter(|output| matches!(output, Output::Inquire { .. })).count();
    assert!((60..=100).contains(&asked), "asked for {asked} times in 4000 s");
    assert_eq!((lan.changes(), lan.probes.len()), (vec!["+A".to_owned()], 0));
}

/// GW-8, T-6: a device that does not answer ARP is kept as long as frames with its address arrive.
#[test]
fn a_device_that_talks_but_answers_no_arp_stays() {
    let (mut lan, client) = (lan(), Client::new(1, "A"));
    lan.join(&client, ip(100), 100 * HOUR);
    lan.off.insert(client.mac);
    lan.talkers.insert(ip(100));
    lan.pass_s(600);
    assert_eq!(lan.changes(), ["+A"]);
    assert!((9..=11).contains(&lan.searches.len()), "{} searches in 600 s", lan.searches.len());
    assert_eq!(lan.core.counts().signs(LifeSign::Frame), lan.searches.len() as u64);
    let first_probe = lan.probes[0].0;
    let [begun, since, until] = lan.searches[0];
    assert_eq!((since, until), (first_probe, begun + Duration::from_mins(1)));
    assert!(begun.since(first_probe).unwrap() >= Duration::from_secs(3));
    assert!(lan.core.device(1).unwrap().last_seen >= begun, "a sign of life is seen in the row");
    lan.talkers.clear();
    lan.pass_s(WINDOW_S);
    assert_eq!(lan.changes(), ["-A disconnected"]);
}

/// An ARP message or an ACK during the search keeps the device; later results of the search are ignored.
#[test]
fn arp_or_an_ack_ends_the_search() {
    for by_arp in [true, false] {
        let (mut lan, client) = (lan(), Client::new(1, "A"));
        lan.join(&client, ip(100), HOUR);
        lan.off.insert(client.mac);
        while lan.searches.is_empty() {
            lan.pass_s(1);
        }
        lan.pass_s(30);
        if by_arp {
            lan.arp(ip(100), client.mac);
        } else {
            lan.renew(&client, ip(100), HOUR);
        }
        lan.pass_s(31);
        let late = Input::Alive { client: lan.key_of(&client), sign: LifeSign::Flow };
        lan.handle(late);
        assert_eq!((lan.changes(), lan.core.counts().signs(LifeSign::Flow)), (vec!["+A".to_owned()], 0));
        lan.pass_s(WINDOW_S);
        assert_eq!(lan.changes(), ["-A disconnected"]);
    }
}

/// T-6: a row from an INFORM is kept and removed by liveness alone.
#[test]
fn an_inform_row_goes_with_its_device() {
    let (mut lan, client) = (lan(), Client::new(1, "A"));
    lan.inform(&client, ip(50));
    lan.pass(Duration::from_hours(10));
    assert_eq!(lan.changes(), ["+A"]);
    lan.off.insert(client.mac);
    lan.pass_s(WINDOW_S);
    assert_eq!(lan.changes(), ["-A disconnected"]);
}

/// T-6: for a device behind a relay agent, only its lease counts.
#[test]
fn relayed_devices_are_never_probed() {
    let (mut lan, client) = (lan(), Client { relay: Some(ip(2)), ..Client::new(1, "A") });
    lan.join(&client, ip(100), HOUR);
    lan.off.insert(client.mac);
    assert!(lan.neighbours.is_empty(), "and not watched");
    lan.pass_s(3_500);
    assert_eq!((lan.changes(), lan.probes.len()), (vec!["+A".to_owned()], 0));
    lan.pass_s(200);
    assert_eq!(lan.changes(), ["-A expired"]);
}

/// T-10: a row of two stations is kept while one of them is present.
#[test]
fn a_row_stays_while_one_of_its_stations_answers() {
    let mut lan = lan();
    let (wired, wireless) = (Client::new(1, "A"), Client::new(2, "A"));
    lan.join(&wired, ip(1), HOUR);
    lan.join(&wireless, ip(2), HOUR);
    lan.off.insert(wired.mac);
    lan.pass_s(WINDOW_S);
    assert_eq!(lan.changes(), ["+A", "+192.168.1.2", "-192.168.1.1 disconnected"]);
    lan.off.insert(wireless.mac);
    lan.pass_s(WINDOW_S);
    assert_eq!(lan.changes(), ["-A disconnected"]);
}

/// The addresses whose ARP messages are recorded.
fn watched(lan: &Lan) -> Vec<[u8; 4]> {
    let mut addresses: Vec<_> = lan.neighbours.keys().map(|neighbour| neighbour.address).collect();
    addresses.sort_unstable();
    addresses
}

/// An address is recorded while a binding has it; messages of an earlier station do not count for a later one.
#[test]
fn an_address_is_watched_while_a_binding_has_it() {
    let mut lan = lan();
    let (one, other) = (Client::new(1, "A").with_id(b"1"), Client::new(1, "A").with_id(b"2"));
    lan.join(&one, ip(1), HOUR);
    lan.join(&other, ip(2), HOUR);
    assert_eq!(watched(&lan), [ip(1).octets(), ip(2).octets()]);
    lan.release(&one, ip(1));
    lan.join(&other, ip(3), HOUR);
    assert_eq!(watched(&lan), [ip(3).octets()]);
    // The client moves to another station, and the device to another client, with the same address.
    lan.arp(ip(3), [7; 6]);
    let moved = Client { mac: [2, 0, 0, 0, 0, 9], ..other };
    lan.join(&moved, ip(3), HOUR);
    assert_eq!(lan.neighbours.values().copied().collect::<Vec<_>>(), [(lan.now, None)]);
    lan.arp(ip(3), [7; 6]);
    lan.join(&Client::new(10, "A"), ip(3), HOUR);
    assert_eq!(lan.neighbours.values().copied().collect::<Vec<_>>(), [(lan.now, None)]);
    lan.release(&Client::new(10, "A"), ip(3));
    assert!(lan.neighbours.is_empty());
}

/// GW-8: a device behind a repeater, which answers with its own hardware address and forwards no frames to others, is
/// kept. The repeater's address is then known and is probed by unicast.
#[test]
fn a_device_behind_a_repeater_stays() {
    const REPEATER: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
    let (mut lan, client) = (lan(), Client::new(1, "A"));
    lan.repeaters.insert(client.mac, REPEATER);
    lan.join(&client, ip(100), 100 * HOUR);
    let answered_by = |lan: &Lan| lan.core.answered_by(lan.core.device(1).unwrap().bindings.next().unwrap());
    assert_eq!(answered_by(&lan), None);
    lan.pass_s(600);
    assert_eq!(lan.changes(), ["+A"]);
    let destinations: Vec<_> = lan.probes.iter().map(|(_, mac)| *mac).collect();
    assert_eq!(destinations[..2], [client.mac, EVERYBODY], "the device itself is asked first, then everybody");
    assert!(destinations.len() >= 10 && destinations[2..].iter().all(|mac| *mac == REPEATER), "{destinations:02x?}");
    assert_eq!(answered_by(&lan), Some(REPEATER));
    lan.off.insert(client.mac);
    lan.pass_s(WINDOW_S);
    assert_eq!(lan.changes(), ["-A disconnected"]);
}

/// T-6: a DHCP message is a sign of life of the client that sent it, but not if another station sent it.
#[test]
fn a_dhcp_message_is_a_sign_of_life_of_its_sender_only() {
    let (mut lan, client) = (lan(), Client::new(1, "A").with_id(b"1"));
    lan.join(&client, ip(100), HOUR);
    lan.off.insert(client.mac);
    for _ in 0..4 {
        lan.pass_s(50);
        lan.send(&client, MessageType::Discover, |b| b);
    }
    assert_eq!((lan.changes(), lan.probes.len()), (vec!["+A".to_owned()], 0));
    let another = Client { mac: [2, 0, 0, 0, 0, 9], ..client };
    lan.pass_s(50);
    lan.send(&another, MessageType::Discover, |b| b);
    lan.pass_s(WINDOW_S - 50);
    assert_eq!(lan.changes(), ["-A disconnected"]);
}

/// An ACK is a sign of life, also during probing.
#[test]
fn an_ack_ends_the_probing() {
    let (mut lan, client) = (lan(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    lan.off.insert(client.mac);
    while lan.probes.len() < 2 {
        lan.pass(Duration::from_millis(100));
    }
    lan.renew(&client, ip(100), HOUR);
    lan.pass_s(50);
    assert_eq!((lan.changes(), lan.probes.len()), (vec!["+A".to_owned()], 2));
}

/// A map that cannot be read gives no sign of life.
#[test]
fn an_inquiry_without_an_answer_is_silence() {
    let (mut lan, client) = (lan(), Client::new(1, "A"));
    lan.join(&client, ip(100), HOUR);
    let mut probes = 0;
    // Without the harness, which would answer.
    while let Some(deadline) = lan.core.next_deadline() {
        lan.core.handle(deadline, Input::Tick);
        probes += std::iter::from_fn(|| lan.core.poll_output()).filter(|o| matches!(o, Output::Probe { .. })).count();
    }
    assert_eq!((probes, lan.core.rows()), (3, 0));
}

/// Clients that arrived together are probed at different times.
#[test]
fn probes_are_spread() {
    let mut lan = lan();
    for number in 0..200 {
        lan.inform(&Client::new(number, &format!("S{number}")), ip(number));
    }
    let start = lan.now;
    lan.pass_s(60);
    let after: Vec<Duration> = lan.probes.iter().map(|(at, _)| at.since(start).unwrap()).collect();
    assert_eq!(after.len(), 200);
    assert!(after.iter().all(|after| *after > Duration::from_millis(52_400)), "no more than an eighth early");
    let different: HashSet<u64> = after.iter().map(Duration::as_secs).collect();
    assert!(different.len() >= 7, "over {} different seconds", different.len());
}

/// An interval of 0 disables probing; after it is enabled, all devices are probed within one interval.
#[test]
fn probing_may_be_switched() {
    let mut lan = Lan::with(Settings { probe_interval: Duration::ZERO, ..settings() });
    for number in 0..100 {
        lan.inform(&Client::new(number, &format!("S{number}")), ip(number));
        lan.off.insert(Client::silent(number).mac);
    }
    lan.pass_s(1_000);
    assert_eq!((lan.core.rows(), lan.probes.len()), (100, 0));
    lan.handle(Input::Settings(Box::new(settings())));
    assert_eq!(lan.probes.len(), 0);
    lan.pass_s(30 + 63);
    assert!((20..80).contains(&lan.core.rows()), "about half are gone: {} are left", lan.core.rows());
    lan.handle(Input::Settings(Box::new(Settings { nak_grace: Duration::ZERO, ..settings() })));
    lan.pass_s(WINDOW_S - 93);
    assert_eq!(lan.core.rows(), 0, "another setting starts nothing anew");
}

/// Present devices are kept with the shortest interval and one probe, too.
#[test]
fn one_second_and_one_probe_keep_who_answers() {
    let settings = Settings { probe_interval: Duration::from_secs(1), probe_count: 1, ..Settings::default() };
    let (mut lan, there, gone) = (Lan::with(settings), Client::new(1, "A"), Client::new(2, "B"));
    lan.inform(&there, ip(1));
    lan.inform(&gone, ip(2));
    lan.off.insert(gone.mac);
    lan.pass_s(100);
    assert_eq!(lan.changes(), ["+A", "+B", "-B disconnected"]);
}

/// GW-11: the rows behind a link that is down too long are removed, and no others.
#[test]
fn rows_go_with_a_link_that_stays_down() {
    let mut lan = lan();
    lan.join(&Client::new(1, "A"), ip(1), HOUR);
    lan.pass_s(30);
    lan.inform(&Client::new(2, "B"), ip(2));
    lan.handle(Input::LinkDown { ifindex: lan::LAN + 1 });
    lan.handle(Input::LinkDown { ifindex: lan::LAN });
    // A repeated report has no effect.
    lan.pass_s(20);
    lan.handle(Input::LinkDown { ifindex: lan::LAN });
    lan.pass_s(PROBED_S - 1 - 20 - 1);
    assert_eq!(lan.changes(), ["+A", "+B"]);
    lan.pass_s(2);
    let mut gone = lan.changes();
    gone.sort();
    assert_eq!(gone, ["-A disconnected", "-B disconnected"]);
    assert_eq!(lan.probes.len(), 0, "nobody can be asked behind a link that is down");
}

/// GW-11: a flapping link removes no row, not even of devices that were silent and being probed; devices that have left
/// are removed by the following probes.
#[test]
fn a_link_that_flaps_costs_no_row_but_of_who_does_not_answer_after() {
    let (mut lan, stays, leaves) = (lan(), Client::new(1, "A"), Client::new(2, "B"));
    lan.join(&stays, ip(1), HOUR);
    lan.join(&leaves, ip(2), HOUR);
    lan.off.extend([stays.mac, leaves.mac]);
    while lan.probes.len() < 2 {
        lan.pass_s(1);
    }
    lan.handle(Input::LinkDown { ifindex: lan::LAN });
    lan.pass_s(50);
    lan.off.remove(&stays.mac);
    lan.handle(Input::LinkUp { ifindex: lan::LAN, was: lan::LAN });
    assert_eq!(lan.changes(), ["+A", "+B"]);
    lan.pass_s(WINDOW_S);
    assert_eq!(lan.changes(), ["-B disconnected"]);
    lan.pass_s(WINDOW_S);
    assert_eq!(lan.changes(), [""; 0]);
}

/// After an interface was created again with another index, rows keep their instance numbers and bindings, the programs
/// know the clients by the new index, and liveness, lease and RELEASE work there.
#[test]
fn bindings_move_to_the_interface_that_was_made_anew() {
    let (mut lan, stays, leaves) = (lan(), Client::new(1, "A"), Client::new(2, "B"));
    lan.join(&stays, ip(1), HOUR);
    lan.join(&leaves, ip(2), HOUR);
    let before = lan.records();
    let new = lan::LAN + 1;
    lan.handle(Input::LinkDown { ifindex: lan::LAN });
    lan.pass_s(10);
    lan.handle(Input::LinkUp { ifindex: new, was: lan::LAN });
    let moved: Vec<_> = lan.records();
    let segments: HashSet<u32> = moved.iter().map(|row| row.bindings[0].segment().ifindex).collect();
    assert_eq!(segments, HashSet::from([new]));
    let facts = |rows: &[Record]| -> Vec<_> {
        rows.iter().map(|row| (row.instance, row.bindings[0].ip, row.bindings[0].lease_expires)).collect()
    };
    assert_eq!(facts(&moved), facts(&before));
    assert!(lan.sticky.iter().all(|client| client.segment.ifindex == new));
    assert!(lan.neighbours.keys().all(|neighbour| neighbour.segment.ifindex == new));
    lan.off.insert(leaves.mac);
    lan.pass_s(2 * WINDOW_S);
    assert_eq!(lan.changes(), ["+A", "+B", "-B disconnected"]);
}
