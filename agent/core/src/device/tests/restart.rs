//! Tests of the state that is stored across restarts.

use super::*;

const INFORM: Mode = Mode::Inform { interval: HOUR };

/// The stored state of a device with this gateway.
fn informed(serial: &str) -> Bench {
    let mut bench = Bench::informing();
    let inform = bench.message(MessageType::Inform);
    bench.reply(MessageType::Ack, &inform, Some(&gateway(serial, "IGD")));
    bench
}

/// The stored state of a device with a lease, one second after the ACK.
fn leased() -> Bench {
    let mut bench = Bench::asking();
    bench.bind(None, Some(&gateway("GW0001", "IGD")));
    bench
}

/// DEV-8: a start is not a change; a gateway that was replaced meanwhile is.
#[test]
fn a_restart_tells_only_what_changed_meanwhile() {
    for (serial, changes) in [("GW0001", 0), ("GW0002", 1)] {
        let before = informed("GW0001");
        let mut bench = Bench::restarted(INFORM, before.now, before.kept);
        assert_eq!(bench.info()[2], "GW0001");
        bench.handle(Input::Link(true));
        bench.handle(Input::Address(Some(ADDRESS)));
        let inform = bench.message(MessageType::Inform);
        bench.reply(MessageType::Ack, &inform, Some(&gateway(serial, "IGD")));
        assert_eq!((bench.info()[2], bench.changes.len()), (serial, changes));
        assert_eq!(bench.kept.info, *bench.device.gateway_info());
    }
}

/// DEV-9: an address that does not return was lost while the device was off.
#[test]
fn a_start_without_an_address_waits_for_one_and_then_forgets_the_gateway() {
    let before = informed("GW0001");
    let mut bench = Bench::restarted(INFORM, before.now, before.kept);
    bench.handle(Input::Link(true));
    bench.handle(Input::Address(None));
    assert_eq!((bench.info()[2], bench.changes.len()), ("GW0001", 0));
    assert_eq!(bench.wait(), Duration::from_mins(2));
    assert_eq!((bench.info(), bench.changes.len(), bench.device.next_deadline()), (["", "", ""], 1, None));
}

/// DEV-2: RFC 2131 3.2, the REQUEST for a stored lease carries the identity; its ACK restores the address.
#[test]
fn a_lease_is_confirmed_after_a_restart() {
    let before = leased();
    let mut bench = Bench::restarted(Mode::Dhcp, before.now, before.kept);
    bench.handle(Input::Link(true));
    let request = bench.message(MessageType::Request);
    let message = parsed(&request);
    assert_eq!((message.requested_ip(), message.server_id()), (Some(ADDRESS), None));
    assert!(message.ciaddr().is_unspecified());
    assert!(bench.addresses.is_empty());
    bench.reply(MessageType::Ack, &request, Some(&gateway("GW0001", "IGD")));
    bench.check();
    assert_eq!((&bench.addresses[..], bench.info()[2], bench.changes.len()), (&[ADDRESS][..], "GW0001", 0));
}

/// RFC 2131 3.2: without a reply, a lease is used until it expires.
#[test]
fn a_lease_that_nobody_confirms_is_used_to_its_end() {
    let before = leased();
    let mut bench = Bench::restarted(Mode::Dhcp, before.now, before.kept);
    bench.handle(Input::Link(true));
    for _ in 0..2 {
        bench.message(MessageType::Request);
        bench.wait();
    }
    assert_eq!((&bench.addresses[..], bench.info()[2]), (&[ADDRESS][..], "GW0001"));
    while bench.device.lease().is_some() {
        bench.wait();
    }
    assert_eq!((bench.info(), bench.addresses.len(), bench.kept.lease.is_none()), (["", "", ""], 0, true));
}

/// DEV-9: a lease that expired while the device was off clears GatewayInfo.
#[test]
fn a_lease_that_ended_meanwhile_is_lost() {
    let before = leased();
    let mut bench = Bench::restarted(Mode::Dhcp, before.now + HOUR, before.kept);
    bench.handle(Input::Link(true));
    bench.message(MessageType::Discover);
    assert_eq!((bench.info(), bench.changes.len()), (["", "", ""], 1));
}

/// A refused lease is lost, as is a lease of another interface.
#[test]
fn a_lease_that_is_refused_or_of_another_interface_is_lost() {
    let before = leased();
    let mut bench = Bench::restarted(Mode::Dhcp, before.now, before.kept.clone());
    bench.handle(Input::Link(true));
    let request = bench.message(MessageType::Request);
    bench.reply(MessageType::Nak, &request, None);
    assert_eq!((bench.info(), bench.changes.len(), bench.device.lease()), (["", "", ""], 1, None));

    let other = State { mac: SERVER_MAC, ..before.kept };
    let mut bench = Bench::restarted(Mode::Dhcp, before.now, other);
    bench.handle(Input::Link(true));
    bench.message(MessageType::Discover);
    assert_eq!((bench.info(), bench.changes.len()), (["", "", ""], 1));
}
