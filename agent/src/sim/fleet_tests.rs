use super::*;
use tr111_common::{classify, config::Config, dhcp4, frame::PlainLoop};

fn plan() -> Plan {
    Plan {
        count: 3,
        first: 1,
        rate: 10,
        oui: "00256D".into(),
        serial_prefix: "SIM".into(),
        product_class: "STB".into(),
        identify: true,
        broadcast_replies: true,
        inform_from: None,
    }
}

/// The message type of a frame, and whether the classifier finds an identity in it.
fn read(frame: &[u8]) -> (u8, bool) {
    let udp = classify::find_request(frame, None).expect("a frame towards a server");
    let walk = classify::walk(frame, &udp, &Config::default(), PlainLoop);
    (walk.message_type, walk.identity.conclude(&Config::default()).is_ok())
}

/// Turns a client's frame into the answer of a server, as `message`.
fn answer(request: &[u8], message: MessageType, address: Ipv4Addr) -> Vec<u8> {
    let mut reply = request.to_vec();
    reply[34..38].copy_from_slice(&[0, 67, 0, 68]);
    reply[42] = dhcp4::BOOTREPLY;
    reply[58..62].copy_from_slice(&address.octets());
    let options = 42 + dhcp4::OPTIONS as usize;
    reply[options + 2] = message as u8;
    let rest = [54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 0, 100, 255];
    reply[options + 3..options + 3 + rest.len()].copy_from_slice(&rest);
    reply
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

/// Takes the first device through discovery; the fleet and the time of its ACK.
fn bound_fleet() -> (Fleet, Instant) {
    let start = Instant::now();
    let mut fleet = Fleet::new(plan(), start);
    fleet.tick(start);
    let discover = fleet.take_frames().remove(0);
    assert_eq!(read(&discover), (MessageType::Discover as u8, true));
    fleet.handle(&answer(&discover, MessageType::Offer, ADDRESS), start);
    let request = fleet.take_frames().remove(0);
    assert_eq!(read(&request), (MessageType::Request as u8, true));
    fleet.handle(&answer(&request, MessageType::Ack, ADDRESS), start);
    assert_eq!(fleet.bound(), 1);
    (fleet, start)
}

#[test]
fn devices_start_at_the_rate_of_the_plan() {
    let start = Instant::now();
    let mut fleet = Fleet::new(plan(), start);
    fleet.tick(start);
    assert_eq!(fleet.take_frames().len(), 1);
    fleet.tick(start + Duration::from_millis(200));
    assert_eq!(fleet.take_frames().len(), 2);
}

#[test]
fn a_silent_server_is_asked_again_and_later_each_time() {
    let start = Instant::now();
    let mut fleet = Fleet::new(Plan { count: 1, ..plan() }, start);
    fleet.tick(start);
    assert_eq!(fleet.take_frames().len(), 1);
    fleet.tick(start + Duration::from_millis(900));
    assert!(fleet.take_frames().is_empty());
    fleet.tick(start + Duration::from_millis(1300));
    assert_eq!(fleet.take_frames().len(), 1);
    assert!(fleet.next_deadline().expect("a further try") >= start + Duration::from_millis(3300));
}

#[test]
fn a_reply_of_another_transaction_is_ignored() {
    let start = Instant::now();
    let mut fleet = Fleet::new(plan(), start);
    fleet.tick(start);
    let mut discover = fleet.take_frames().remove(0);
    discover[46] ^= 1;
    fleet.handle(&answer(&discover, MessageType::Offer, ADDRESS), start);
    assert!(fleet.take_frames().is_empty());
}

#[test]
fn a_bound_device_answers_arp_and_renews_at_half_of_its_lease() {
    let (mut fleet, start) = bound_fleet();
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    arp.extend(ADDRESS.octets());
    fleet.handle(&arp, start);
    let reply = fleet.take_frames().remove(0);
    assert_eq!(reply[..6], [2, 0, 0, 0, 0, 9]);
    assert_eq!(reply[22..32], [2, b'T', b'R', 0, 0, 1, 10, 0, 0, 7]);

    fleet.tick(start + Duration::from_secs(49));
    fleet.take_frames();
    fleet.tick(start + Duration::from_secs(50));
    let frames = fleet.take_frames();
    let renewal = frames.iter().find(|frame| read(frame).0 == MessageType::Request as u8).expect("a renewal");
    assert_eq!(renewal[54..58], ADDRESS.octets());
}

#[test]
fn release_names_the_server_and_carries_no_identity() {
    let (mut fleet, start) = bound_fleet();
    fleet.release(start);
    fleet.tick(start);
    let frames = fleet.take_frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(read(&frames[0]), (MessageType::Release as u8, false));
    assert_eq!(frames[0][30..34], [10, 0, 0, 1]);
    assert_eq!(fleet.bound(), 0);
}

#[test]
fn nak_starts_over() {
    let start = Instant::now();
    let mut fleet = Fleet::new(Plan { count: 1, ..plan() }, start);
    fleet.tick(start);
    let discover = fleet.take_frames().remove(0);
    fleet.handle(&answer(&discover, MessageType::Offer, ADDRESS), start);
    let request = fleet.take_frames().remove(0);
    fleet.handle(&answer(&request, MessageType::Nak, Ipv4Addr::UNSPECIFIED), start);
    fleet.tick(start + NAK_PAUSE);
    assert_eq!(read(&fleet.take_frames().remove(0)).0, MessageType::Discover as u8);
}

#[test]
fn inform_uses_consecutive_addresses() {
    let start = Instant::now();
    let mut fleet = Fleet::new(Plan { inform_from: Some(ADDRESS), ..plan() }, start);
    fleet.tick(start + Duration::from_secs(1));
    let sources: Vec<_> = fleet.take_frames().iter().map(|frame| (read(frame).0, frame[29])).collect();
    assert_eq!(sources, [(8, 7), (8, 8), (8, 9)]);
}
