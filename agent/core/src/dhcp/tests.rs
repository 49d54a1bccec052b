use std::{net::Ipv4Addr, time::Duration};

use proptest::prelude::*;
use tr111_common::{
    classify,
    config::Config,
    counter::Class,
    dhcp4::{MessageType, option},
    frame::PlainLoop,
    headers::Segment,
};

use super::*;
use crate::identity::decode_device;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 100);
/// Value of option 125 with the device 00256D / DEV0001 / STB.
const D1: &[u8] = b"\0\0\x0d\xe9\x16\x01\x0600256D\x02\x07DEV0001\x03\x03STB";

fn request() -> Builder {
    Builder::request(MessageType::Request, MAC, 0x1234_5678)
}

fn parse(frame: &[u8]) -> Result<Message<'_>, MessageError> {
    Message::parse_request(frame, None)
}

#[test]
fn reads_what_the_builder_wrote() {
    let frame = request()
        .ciaddr(CLIENT)
        .option(option::CLIENT_ID, b"\x01abc")
        .address(option::REQUESTED_IP, CLIENT)
        .address(option::SERVER_ID, SERVER)
        .option(option::VENDOR_IDENTIFYING, D1)
        .tag(Tag { protocol: 0x88a8, control: 0x6005 })
        .tag(Tag { protocol: 0x8100, control: 7 })
        .build();
    let message = parse(&frame).unwrap();
    assert_eq!(message.message_type, MessageType::Request);
    assert_eq!((message.fixed.xid, message.fixed.htype), (0x1234_5678, 1));
    assert_eq!(message.vlan, [5, 7]);
    assert_eq!(message.hardware_address(), MAC.into());
    assert_eq!(message.hardware_address().to_string(), "02:00:00:00:00:01");
    assert_eq!((message.source, message.destination), (CLIENT, Ipv4Addr::BROADCAST));
    assert_eq!((message.ciaddr(), message.requested_ip(), message.server_id()), (CLIENT, Some(CLIENT), Some(SERVER)));
    assert_eq!(message.client_id().as_deref(), Some(b"\x01abc".as_slice()));
    assert_eq!(message.vendor_identifying().as_deref(), Some(D1));
    assert_eq!(message.lease(), None);
}

#[test]
fn pads_to_the_length_of_bootp_and_checks_out() {
    let frame = request().build();
    assert_eq!(frame.len(), 14 + 20 + 8 + 300);
    let words = |bytes: &[u8]| -> u32 {
        let mut sum = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    };
    assert_eq!(words(&frame[14..34]), 0xffff, "IP");
    let mut udp = frame[26..34].to_vec();
    udp.extend([0, 17]);
    udp.extend(&frame[38..40]);
    udp.extend(&frame[34..]);
    assert_eq!(words(&udp), 0xffff, "UDP");
}

#[test]
fn knows_finite_and_infinite_leases() {
    let lease = |seconds: u32| {
        let frame = request().option(option::LEASE_TIME, &seconds.to_be_bytes()).build();
        parse(&frame).unwrap().lease()
    };
    assert_eq!(lease(10), Some(Lease::For(Duration::from_secs(10))));
    assert_eq!(lease(u32::MAX), Some(Lease::Infinite));
    for wrong in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[]] {
        let frame = request().option(option::LEASE_TIME, wrong).build();
        assert_eq!(parse(&frame).unwrap().lease(), None, "{wrong:?}");
    }
    let ten = 10u32.to_be_bytes();
    let frame = request().option(option::LEASE_TIME, &ten).option(option::LEASE_TIME, &[0xff; 4]).build();
    assert_eq!(parse(&frame).unwrap().lease(), lease(10), "the first of two");
}

/// RFC 3396: instances are joined into one value, wherever it is split, including empty pieces.
#[test]
fn joins_options_that_were_split() {
    for cut in 0..=D1.len() {
        let frame = request()
            .option(option::VENDOR_IDENTIFYING, &D1[..cut])
            .option(option::CLIENT_ID, b"x")
            .option(option::VENDOR_IDENTIFYING, &D1[cut..])
            .build();
        assert_eq!(parse(&frame).unwrap().vendor_identifying().as_deref(), Some(D1), "{cut}");
    }
    let long: Vec<u8> = (0..=255).cycle().take(600).collect();
    let frame = request().option(option::VENDOR_IDENTIFYING, &long).build();
    let message = parse(&frame).unwrap();
    assert_eq!(message.options().filter(|(code, _)| *code == option::VENDOR_IDENTIFYING).count(), 3);
    assert_eq!(message.vendor_identifying().as_deref(), Some(long.as_slice()));
}

/// RFC 3396, RFC 2132 9.3: the options field, then `file`, then `sname`, according to option 52.
#[test]
fn reads_options_out_of_file_and_sname() {
    let (first, rest) = D1.split_at(9);
    let (second, third) = rest.split_at(4);
    let frame = request()
        .option(option::VENDOR_IDENTIFYING, first)
        .overload(
            &[(option::VENDOR_IDENTIFYING, second)],
            &[(option::VENDOR_IDENTIFYING, third), (option::CLIENT_ID, b"id")],
        )
        .build();
    let message = parse(&frame).unwrap();
    assert_eq!(message.vendor_identifying().as_deref(), Some(D1));
    assert_eq!(message.client_id().as_deref(), Some(b"id".as_slice()));
    // Without option 52 these fields have names.
    let mut frame = request().overload(&[(option::CLIENT_ID, b"id")], &[]).build();
    let at = frame.len() - 300 + 240 + 3;
    assert_eq!(frame[at..at + 3], [option::OVERLOAD, 1, 1]);
    frame[at] = option::MAXIMUM_SIZE;
    assert_eq!(parse(&frame).unwrap().client_id(), None);
}

/// The agent has to compute the same client keys as the kernel programs; otherwise it would clear wrong marks.
#[test]
fn client_keys_equal_the_programs() {
    let config = Config { seed: 0x5eed, ..Config::default() };
    for builder in [request(), request().option(option::CLIENT_ID, &[7; 19])] {
        let frame = builder.build();
        let message = parse(&frame).unwrap();
        let udp = classify::find_request(frame.as_slice(), None).unwrap();
        let walk = classify::walk(frame.as_slice(), &udp, &config, PlainLoop);
        let of = |walk| classify::client_key(Segment::default(), &message.fixed, walk);
        assert_eq!(of(&message.walk(&config)), of(&walk));
    }
}

#[test]
fn refuses_damaged_messages_by_their_class() {
    let class = |frame: &[u8]| match parse(frame) {
        Err(MessageError::Class(class)) => Some(class),
        _ => None,
    };
    let good = request().build();
    let at = |offset: usize| 14 + 20 + 8 + offset;
    let change = |offset: usize, value| {
        let mut frame = good.clone();
        frame[offset] = value;
        frame
    };
    assert_eq!(class(&change(at(2), 17)), Some(Class::BadHlen));
    assert_eq!(class(&change(at(236), 0)), Some(Class::WrongCookie));
    assert_eq!(class(&change(at(0), 2)), Some(Class::OtherMessage));
    assert_eq!(class(&change(14 + 3, 0)), Some(Class::BadLength));
    assert_eq!(class(&good[..100]), Some(Class::BadLength));
    assert_eq!(class(&request().raw(&[61, 9, 1]).build()), Some(Class::DamagedOptions));
    assert_eq!(class(&request().raw(&[61]).build()), Some(Class::DamagedOptions));
    let mut overloaded = request().overload(&[(option::CLIENT_ID, b"id")], &[]).build();
    overloaded[at(108 + 1)] = 200;
    assert_eq!(class(&overloaded), Some(Class::DamagedOptions));
    assert_eq!(parse(&change(at(240 + 2), 99)).unwrap_err(), MessageError::NoMessageType);
}

#[test]
fn reads_a_first_fragment_as_far_as_it_goes() {
    let mut frame = request().option(option::VENDOR_IDENTIFYING, D1).raw(&[61, 50, 1]).build();
    frame[20] = 0x20;
    let message = parse(&frame).unwrap();
    assert!(message.fragment);
    assert_eq!(message.vendor_identifying().as_deref(), Some(D1));
}

/// RFC 2131 4.1: destination of a reply.
#[test]
fn addresses_replies_as_the_client_and_relay_need() {
    let reply = |message_type, request: Builder| {
        let frame = request.build();
        let reply = Builder::reply(message_type, &parse(&frame).unwrap(), [9; 6], SERVER, CLIENT).build();
        let message = Message::parse_reply(&reply, None).unwrap();
        assert_eq!((message.message_type, message.server_id()), (message_type, Some(SERVER)));
        assert_eq!(message.hardware_address(), MAC.into());
        (reply[..6].to_vec(), message.destination, message.yiaddr())
    };
    let all = vec![0xff; 6];
    let relay = Ipv4Addr::new(10, 0, 0, 1);
    assert_eq!(reply(MessageType::Ack, request()), (MAC.to_vec(), CLIENT, CLIENT));
    assert_eq!(reply(MessageType::Ack, request().broadcast()), (all.clone(), Ipv4Addr::BROADCAST, CLIENT));
    assert_eq!(reply(MessageType::Nak, request()), (all, Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED));
    assert_eq!(reply(MessageType::Ack, request().ciaddr(relay)), (MAC.to_vec(), relay, CLIENT));
    assert_eq!(reply(MessageType::Ack, request().giaddr(relay)), (MAC.to_vec(), relay, CLIENT));
}

proptest! {
    #[test]
    fn hostile_frames_never_panic(
        overload in any::<bool>(),
        changes in prop::collection::vec((0usize..500, any::<u8>()), 0..40),
        length in 0usize..600,
    ) {
        let mut builder = request().option(option::CLIENT_ID, b"\x01abcdef").option(option::VENDOR_IDENTIFYING, D1);
        if overload {
            builder = builder.overload(&[(option::VENDOR_IDENTIFYING, D1)], &[(option::SERVER_ID, &[1, 2, 3, 4])]);
        }
        let mut frame = builder.build();
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(length);
        for message in [Message::parse_request(&frame, Some(3)), Message::parse_reply(&frame, None)].into_iter().flatten() {
            let config = Config { lenient_oui: 1, ..Config::default() };
            let identity = message.vendor_identifying().map(|value| decode_device(&value, &config));
            if let Some(Ok(decoded)) = identity {
                prop_assert!(!decoded.identity.serial_number.is_empty());
            }
            let _ = (message.lease(), message.server_id(), message.requested_ip(), message.client_id());
            message.walk(&config);
        }
    }

    #[test]
    fn hostile_options_never_panic(option in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut prefixed = D1[..5].to_vec();
        prefixed.extend(&option);
        for bytes in [option, prefixed] {
            let _ = decode_device(&bytes, &Config::default());
            let _ = crate::identity::decode_gateway(&bytes, &Config::default());
        }
    }
}
