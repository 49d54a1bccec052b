//! Tests of the conflict check by ARP before an address is used (RFC 2131 3.1 step 5, RFC 5227).

use super::*;

const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A device after the ACK, with its first probe sent.
fn checking() -> Bench {
    let mut bench = Bench::asking();
    let discover = bench.message(MessageType::Discover);
    bench.reply(MessageType::Offer, &discover, None);
    let request = bench.message(MessageType::Request);
    bench.reply(MessageType::Ack, &request, Some(&gateway("GW0001", "IGD")));
    assert!(bench.device.is_checking());
    bench
}

/// GatewayInfo and address are not set before one second of silence.
#[test]
fn an_address_is_probed_for_and_then_announced() {
    let mut bench = checking();
    let probe = ArpRequest { sender: (MAC, Ipv4Addr::UNSPECIFIED), target: ADDRESS };
    assert_eq!((&bench.arps[..], bench.addresses.len(), bench.info()[2]), (&[probe][..], 0, ""));
    let began = bench.now;
    bench.check();
    assert_eq!(bench.now.since(began), Some(Duration::from_secs(1)));
    let announcement = ArpRequest { sender: (MAC, ADDRESS), target: ADDRESS };
    assert_eq!(bench.arps, [probe, probe, announcement]);
    assert_eq!((&bench.addresses[..], bench.info()[2]), (&[ADDRESS][..], "GW0001"));
}

/// DEV-2: DECLINE carries no identity. RFC 2131 table 5: it has address and server, and is sent without an address.
#[test]
fn an_address_of_somebody_else_is_declined_and_the_search_rests_for_ten_seconds() {
    let theirs = ArpRequest { sender: (MAC, Ipv4Addr::UNSPECIFIED), target: ADDRESS }.reply(NEIGHBOUR);
    let taking = ArpRequest { sender: (NEIGHBOUR, Ipv4Addr::UNSPECIFIED), target: ADDRESS }.to_everybody();
    let announced = ArpRequest { sender: (NEIGHBOUR, ADDRESS), target: ADDRESS }.to_everybody();
    for claim in [theirs, taking, announced] {
        let mut bench = checking();
        bench.handle(Input::Frame(&claim));
        let decline = bench.message(MessageType::Decline);
        let message = parsed(&decline);
        assert_eq!((message.requested_ip(), message.server_id()), (Some(ADDRESS), Some(SERVER)));
        assert_eq!((message.ciaddr(), message.destination), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
        assert_eq!((bench.addresses.len(), bench.changes.len(), bench.sent.len()), (0, 0, 0));
        assert_eq!(bench.wait(), Duration::from_secs(10));
        bench.bind(None, Some(&gateway("GW0001", "IGD")));
        assert_eq!(bench.info()[2], "GW0001");
    }
}

#[test]
fn other_stations_and_the_own_probe_are_no_conflict() {
    let mut bench = checking();
    let own = ArpRequest { sender: (MAC, Ipv4Addr::UNSPECIFIED), target: ADDRESS }.to_everybody();
    let other = ArpRequest { sender: (NEIGHBOUR, OTHER_SERVER), target: ADDRESS }.to_everybody();
    for frame in [own, other] {
        bench.handle(Input::Frame(&frame));
    }
    bench.check();
    assert_eq!(bench.addresses, [ADDRESS]);
}
