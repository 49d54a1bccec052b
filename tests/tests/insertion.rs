//! The Gateway Identity in replies, byte for byte: a reply goes through the loaded `lan_egress`, and what comes out is
//! compared with the same reply built with the identity in it from the start, checksums included.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use tr111_common::{config::Config, counter::Counter, dhcp4::MessageType, insert::Insertion};
use tr111_tests::{
    frame::{Mac, Message, Packet, kind},
    programs::{Program, Programs},
    vectors::{D1, D2, G1, G2, hex},
};

const DEVICE: Mac = [2, 0, 0, 0, 0, 1];
const GATEWAY: Mac = [2, 0, 0, 0, 0, 0xfe];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const LEASE: [u8; 4] = [0, 0, 0x0e, 0x10];
/// Enterprise 4491 with some data of its own.
const OTHER_VENDOR: &str = "0000118b040102aabb";
/// ACS discovery in enterprise 3561: sub-option 11.
const ACS_URL: &str = "00000de9070b05687474703a";

/// What the reply is sent in, and what became of it.
struct Case {
    request: Message,
    request_packet: fn(Packet) -> Packet,
    reply_packet: fn(Packet) -> Packet,
    gateway: &'static str,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            request: Message::client(kind::REQUEST, DEVICE, 0).raw(&hex(D1)),
            request_packet: |packet| packet,
            reply_packet: |packet| packet,
            gateway: G1,
        }
    }
}

/// The start of every reply here.
fn reply(kind: u8) -> Message {
    let mut message = Message::client(kind, DEVICE, 0);
    message.op = 2;
    message.yiaddr = Ipv4Addr::new(192, 168, 1, 100);
    message.minimum = 0;
    message.option(54, &SERVER.octets()).option(51, &LEASE)
}

impl Case {
    /// Sends the request in, the reply out, and compares with `expected`.
    fn gives(&self, reply: &Message, expected: &Message, result: Insertion) -> Result<()> {
        let mut programs = Programs::load()?;
        let round = programs.start_round(&Config::default())?;
        programs.set_gateway(&hex(self.gateway)[2..])?;
        let numbered = |message: &Message| Message { xid: round, ..message.clone() }.bytes();
        let request = (self.request_packet)(Packet::from_client(DEVICE, numbered(&self.request)));
        programs.run(Program::IngressXdp, &request.bytes())?;

        let send = |message| (self.reply_packet)(Packet::from_server(GATEWAY, SERVER, numbered(message))).bytes();
        let message = if reply.options[2] == kind::OFFER { MessageType::Offer } else { MessageType::Ack };
        let verdict = programs.run(Program::Egress, &send(reply))?;
        ensure!(verdict.passed, "the reply does not pass");
        let expected = send(expected);
        ensure!(verdict.frame == expected, "the reply left as\n{:02x?}\ninstead of\n{:02x?}", verdict.frame, expected);
        for other in Insertion::ALL {
            let count = programs.count(Counter::Insertion(message, other))?;
            ensure!(count == u64::from(other == result), "{count} replies were counted as {}", other.label());
        }
        Ok(())
    }

    fn leaves_alone(&self, reply: &Message, result: Insertion) -> Result<()> {
        self.gives(reply, reply, result)
    }
}

/// GW-4, GW-5, OPT-2, OPT-5: an ACK to a device that identified itself carries codes 4, 5 and 6.
#[test]
fn an_ack_gains_the_identity_before_its_end() -> Result<()> {
    Case::default().gives(&reply(kind::ACK), &reply(kind::ACK).raw(&hex(G1)), Insertion::Inserted)
}

/// GW-4, GW-5: the very first OFFER has it, because ingress marked the exchange.
#[test]
fn the_offer_to_a_discover_gains_the_identity() -> Result<()> {
    let request = Message::client(kind::DISCOVER, DEVICE, 0).raw(&hex(D1));
    let case = Case { request, ..Case::default() };
    case.gives(&reply(kind::OFFER), &reply(kind::OFFER).raw(&hex(G1)), Insertion::Inserted)
}

/// T-13: the gateway sends its class, or leaves it out, whatever the device does with its own.
#[test]
fn the_class_of_the_gateway_is_independent_of_the_devices() -> Result<()> {
    for (device, gateway) in [(D2, G1), (D1, G2)] {
        let request = Message::client(kind::REQUEST, DEVICE, 0).raw(&hex(device));
        let case = Case { request, gateway, ..Case::default() };
        case.gives(&reply(kind::ACK), &reply(kind::ACK).raw(&hex(gateway)), Insertion::Inserted)?;
    }
    Ok(())
}

/// GW-17: an ACK to INFORM gains it as well.
#[test]
fn the_ack_to_an_inform_gains_the_identity() -> Result<()> {
    let request = Message::client(kind::INFORM, DEVICE, 0).raw(&hex(D1));
    let case = Case { request, ..Case::default() };
    case.gives(&reply(kind::ACK), &reply(kind::ACK).raw(&hex(G1)), Insertion::Inserted)
}

/// OPT-10, OPT-11: without a product class the gateway sends codes 4 and 5 only.
#[test]
fn a_gateway_without_a_class_sends_two_codes() -> Result<()> {
    let case = Case { gateway: G2, ..Case::default() };
    case.gives(&reply(kind::ACK), &reply(kind::ACK).raw(&hex(G2)), Insertion::Inserted)
}

/// GW-4: a client that never identified itself gets what the server sent, byte for byte.
#[test]
fn a_stranger_gets_the_reply_as_it_was() -> Result<()> {
    let request = Message::client(kind::REQUEST, DEVICE, 0);
    let case = Case { request, ..Case::default() };
    let mut programs = Programs::load()?;
    let round = programs.start_round(&Config::default())?;
    programs.set_gateway(&hex(G1)[2..])?;
    let request = Message { xid: round, ..case.request };
    programs.run(Program::IngressXdp, &Packet::from_client(DEVICE, request.bytes()).bytes())?;
    let reply = Message { xid: round, ..reply(kind::ACK) };
    let frame = Packet::from_server(GATEWAY, SERVER, reply.bytes()).bytes();
    let verdict = programs.run(Program::Egress, &frame)?;
    assert!(verdict.passed);
    assert_eq!(verdict.frame, frame);
    Ok(())
}

/// GW-5: a NAK never gets it (RFC 2131 table 3).
#[test]
fn a_nak_leaves_as_it_was() -> Result<()> {
    let mut programs = Programs::load()?;
    let round = programs.start_round(&Config::default())?;
    programs.set_gateway(&hex(G1)[2..])?;
    let request = Message::client(kind::REQUEST, DEVICE, round).raw(&hex(D1));
    programs.run(Program::IngressXdp, &Packet::from_client(DEVICE, request.bytes()).bytes())?;
    let mut nak = Message::client(kind::NAK, DEVICE, round).option(54, &SERVER.octets());
    nak.op = 2;
    let frame = Packet::from_server(GATEWAY, SERVER, nak.bytes()).bytes();
    let verdict = programs.run(Program::Egress, &frame)?;
    assert!(verdict.passed);
    assert_eq!(verdict.frame, frame);
    Ok(())
}

/// T-24: padding behind END gives way before the frame grows.
#[test]
fn padding_is_used_before_the_frame_grows() -> Result<()> {
    for minimum in [300, 280, 276] {
        let padded = |message: Message| Message { minimum, ..message };
        let expected = padded(reply(kind::ACK).raw(&hex(G1)));
        Case::default().gives(&padded(reply(kind::ACK)), &expected, Insertion::Inserted)?;
    }
    Ok(())
}

/// T-24: relay agent information stays last before END (RFC 3046), whatever the parity of what moves.
#[test]
fn option_82_stays_last() -> Result<()> {
    for relay in [vec![1, 4, 0, 0, 0, 7], vec![1, 5, 0, 0, 0, 7, 9]] {
        let message = reply(kind::ACK).option(82, &relay);
        let expected = reply(kind::ACK).raw(&hex(G1)).option(82, &relay);
        Case::default().gives(&message, &expected, Insertion::Inserted)?;
    }
    Ok(())
}

/// T-24: another vendor's option 125 is kept and gains our element (RFC 3925), at even and odd places.
#[test]
fn other_vendors_data_is_kept_in_front() -> Result<()> {
    for pad in [0, 1] {
        let theirs = hex(OTHER_VENDOR);
        let both = [theirs.clone(), hex(G1)[2..].to_vec()].concat();
        let message = |value: &[u8]| reply(kind::ACK).raw(&vec![0; pad]).option(125, value).option(15, b"example");
        Case::default().gives(&message(&theirs), &message(&both), Insertion::Inserted)?;
    }
    Ok(())
}

/// T-24: an element of 3561 without a Gateway Identity gains codes 4 to 6.
#[test]
fn an_element_of_ours_gains_the_codes() -> Result<()> {
    let theirs = hex(ACS_URL);
    let mut both = [theirs.clone(), hex(G1)[7..].to_vec()].concat();
    both[4] += hex(G1)[6];
    let message = |value: &[u8]| reply(kind::ACK).option(125, value).option(15, b"example");
    Case::default().gives(&message(&theirs), &message(&both), Insertion::Inserted)
}

/// T-24: where the length byte of the server's option has no room, a second instance follows (RFC 3396).
#[test]
fn a_full_option_is_followed_by_a_second_instance() -> Result<()> {
    let mut theirs = hex("0000118b");
    theirs.push(240);
    theirs.extend([1, 238]);
    theirs.extend([0x61; 238]);
    let request = Message::client(kind::REQUEST, DEVICE, 0).raw(&hex(D1)).option(57, &1400u16.to_be_bytes());
    let case = Case { request, ..Case::default() };
    let message = reply(kind::ACK).option(125, &theirs);
    case.gives(&message, &message.clone().raw(&hex(G1)), Insertion::Inserted)
}

/// T-24: a server that is configured to send the identity is left alone.
#[test]
fn a_reply_that_has_the_identity_is_left_alone() -> Result<()> {
    Case::default().leaves_alone(&reply(kind::ACK).raw(&hex(G1)), Insertion::AlreadyPresent)
}

/// T-24: no END, no change.
#[test]
fn a_reply_without_an_end_is_left_alone() -> Result<()> {
    let message = Message { end: false, ..reply(kind::ACK) };
    Case::default().leaves_alone(&message, Insertion::NoEnd)
}

/// T-24: a damaged option 125: no change.
#[test]
fn a_damaged_reply_is_left_alone() -> Result<()> {
    Case::default().leaves_alone(&reply(kind::ACK).option(125, &hex("00000de9ff0101")), Insertion::Damaged)
}

/// Bytes behind END mean nothing (RFC 2132 3.2): they give way, whatever they are, at even and odd places.
#[test]
fn bytes_behind_the_end_give_way() -> Result<()> {
    let ours = hex(G1);
    for pad in [0, 1] {
        for behind in [vec![0xff; 3], vec![0xff; 36], vec![0xff; 60], vec![1, 2, 3], (0..=90).collect()] {
            let message = |options: &[u8], behind: &[u8]| {
                let start = Message { end: false, ..reply(kind::ACK) }.raw(&vec![0; pad]);
                start.raw(options).raw(&[255]).raw(behind)
            };
            let rest = behind.get(ours.len()..).unwrap_or_default();
            Case::default().gives(&message(&[], &behind), &message(&ours, rest), Insertion::Inserted)?;
        }
    }
    Ok(())
}

/// A server may send from any port (RFC 2131 4.1), towards a client and towards a relay.
#[test]
fn a_reply_from_another_port_gains_the_identity() -> Result<()> {
    for reply_packet in
        [|packet| Packet { ports: (40067, 68), ..packet }, |packet| Packet { ports: (40067, 67), ..packet }]
    {
        let case = Case { reply_packet, ..Case::default() };
        case.gives(&reply(kind::ACK), &reply(kind::ACK).raw(&hex(G1)), Insertion::Inserted)?;
    }
    Ok(())
}

/// The Gateway Identity goes into the options field, also where `file` and `sname` carry options (option 52).
#[test]
fn a_reply_with_overloaded_fields_gains_the_identity() -> Result<()> {
    let overloaded = |options: &[u8], file: &[u8]| {
        let message = reply(kind::ACK).option(52, &[1]).raw(options);
        Message { file: file.to_vec(), ..message }
    };
    let name = hex("0c0161ff");
    Case::default().gives(&overloaded(&[], &name), &overloaded(&hex(G1), &name), Insertion::Inserted)?;
    let present = [hex(G1), vec![255]].concat();
    Case::default().leaves_alone(&overloaded(&[], &present), Insertion::AlreadyPresent)?;
    // A second instance before the one in `file` would come first (RFC 3396), and `file` cannot grow.
    let theirs = hex(OTHER_VENDOR);
    let other = [vec![125, theirs.len() as u8], theirs, vec![255]].concat();
    Case::default().leaves_alone(&overloaded(&[], &other), Insertion::NoRoom)
}

/// T-24: option 57 of the client is the limit, and 576 bytes where it gives none.
#[test]
fn a_reply_grows_only_to_what_the_client_takes() -> Result<()> {
    let filled = |bytes: usize| reply(kind::ACK).option(43, &[0x61; 200]).option(67, &vec![0x61; bytes]);
    let headers = 20 + 8;
    let fits = 576 - headers - filled(0).bytes().len() - hex(G1).len();
    Case::default().gives(&filled(fits), &filled(fits).raw(&hex(G1)), Insertion::Inserted)?;
    Case::default().leaves_alone(&filled(fits + 1), Insertion::NoRoom)?;
    let request = Message::client(kind::REQUEST, DEVICE, 0).raw(&hex(D1)).option(57, &577u16.to_be_bytes());
    let case = Case { request, ..Case::default() };
    case.gives(&filled(fits + 1), &filled(fits + 1).raw(&hex(G1)), Insertion::Inserted)
}

/// GW-4: a datagram without a UDP checksum leaves without one.
#[test]
fn a_zero_checksum_stays_zero() -> Result<()> {
    let case = Case { reply_packet: |packet| Packet { checksum: false, ..packet }, ..Case::default() };
    case.gives(&reply(kind::ACK), &reply(kind::ACK).raw(&hex(G1)), Insertion::Inserted)
}

/// GW-4, T-28: one and two VLAN tags, IP options.
#[test]
fn tags_and_ip_options_are_stepped_over() -> Result<()> {
    let wrap = |packet| Packet { tags: vec![(0x88a8, 7), (0x8100, 0x6009)], ip_options: vec![1, 1, 1, 1], ..packet };
    let case = Case { request_packet: wrap, reply_packet: wrap, ..Case::default() };
    case.gives(&reply(kind::ACK), &reply(kind::ACK).raw(&hex(G1)), Insertion::Inserted)
}

/// GW-4: a reply on another VLAN than the request is somebody else's.
#[test]
fn a_reply_on_another_vlan_is_not_touched() -> Result<()> {
    let mut programs = Programs::load()?;
    let round = programs.start_round(&Config::default())?;
    programs.set_gateway(&hex(G1)[2..])?;
    let request = Message::client(kind::REQUEST, DEVICE, round).raw(&hex(D1));
    let tagged = |packet: Packet, id| Packet { tags: vec![(0x8100, id)], ..packet }.bytes();
    programs.run(Program::IngressXdp, &tagged(Packet::from_client(DEVICE, request.bytes()), 5))?;
    let reply = Message { xid: round, ..reply(kind::ACK) };
    let frame = tagged(Packet::from_server(GATEWAY, SERVER, reply.bytes()), 6);
    assert_eq!(programs.run(Program::Egress, &frame)?.frame, frame);
    Ok(())
}

/// GW-4: relayed replies, to port 67 of the relay.
#[test]
fn a_reply_to_a_relay_gains_the_identity() -> Result<()> {
    let relayed = |message: Message| Message { giaddr: Ipv4Addr::new(10, 9, 0, 1), ..message };
    let case = Case {
        request: relayed(Message::client(kind::REQUEST, DEVICE, 0).raw(&hex(D1))),
        request_packet: |packet| Packet { ports: (67, 67), ..packet },
        reply_packet: |packet| Packet { ports: (67, 67), ..packet },
        ..Case::default()
    };
    case.gives(&relayed(reply(kind::ACK)), &relayed(reply(kind::ACK).raw(&hex(G1))), Insertion::Inserted)
}

/// OPT-6: a changed identity is in the next reply.
#[test]
fn a_changed_identity_is_in_the_next_reply() -> Result<()> {
    let mut programs = Programs::load()?;
    let round = programs.start_round(&Config::default())?;
    let request = Message::client(kind::REQUEST, DEVICE, round).raw(&hex(D1));
    programs.run(Program::IngressXdp, &Packet::from_client(DEVICE, request.bytes()).bytes())?;
    for gateway in [G1, G2, G1] {
        programs.set_gateway(&hex(gateway)[2..])?;
        let message = Message { xid: round, ..reply(kind::ACK) };
        let send = |message: &Message| Packet::from_server(GATEWAY, SERVER, message.bytes()).bytes();
        assert_eq!(programs.run(Program::Egress, &send(&message))?.frame, send(&message.raw(&hex(gateway))));
    }
    Ok(())
}

/// The largest identity that there is fits: 64 bytes of serial number and of class.
#[test]
fn the_longest_identity_goes_in_whole() -> Result<()> {
    let mut option = hex("7d9100000de98c0406303032353644");
    option.extend([5, 64]);
    option.extend([b'S'; 64]);
    option.extend([6, 64]);
    option.extend([b'C'; 64]);
    let mut programs = Programs::load()?;
    let round = programs.start_round(&Config::default())?;
    programs.set_gateway(&option[2..])?;
    let request = Message::client(kind::REQUEST, DEVICE, round).raw(&hex(D1));
    programs.run(Program::IngressXdp, &Packet::from_client(DEVICE, request.bytes()).bytes())?;
    let message = Message { xid: round, ..reply(kind::ACK) };
    let send = |message: &Message| Packet::from_server(GATEWAY, SERVER, message.bytes()).bytes();
    assert_eq!(programs.run(Program::Egress, &send(&message))?.frame, send(&message.raw(&option)));
    Ok(())
}
