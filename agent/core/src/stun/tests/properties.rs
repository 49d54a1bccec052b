use std::net::SocketAddrV4;

use proptest::{collection::vec, prelude::*};
use tr111_common::{
    frame::PlainLoop,
    stun::{Demands, Signals, attribute},
};

use super::vectors::secret;
use crate::stun::*;

const TYPES: [MessageType; 6] = [
    MessageType::BindingRequest,
    MessageType::BindingResponse,
    MessageType::BindingErrorResponse,
    MessageType::SharedSecretRequest,
    MessageType::SharedSecretResponse,
    MessageType::SharedSecretErrorResponse,
];

/// The data that an [`Attribute`] borrows.
#[derive(Debug, Clone)]
enum Owned {
    Address(u8, SocketAddrV4),
    Change(bool, bool),
    Name(Vec<u8>),
    Error(u16, Vec<u8>),
    Unknown(Vec<u16>),
    Binding,
    NulBinding,
    Changed,
    Other(u16, Vec<u8>),
}

impl Owned {
    fn attribute(&self) -> Attribute<'_> {
        match self {
            Self::Address(0, address) => Attribute::MappedAddress(*address),
            Self::Address(1, address) => Attribute::ResponseAddress(*address),
            Self::Address(2, address) => Attribute::SourceAddress(*address),
            Self::Address(3, address) => Attribute::ChangedAddress(*address),
            Self::Address(4, address) => Attribute::ReflectedFrom(*address),
            Self::Address(5, address) => Attribute::XorMappedAddress(*address),
            Self::Address(_, address) => Attribute::DraftXorMappedAddress(*address),
            Self::Change(ip, port) => Attribute::ChangeRequest(ChangeRequest { ip: *ip, port: *port }),
            Self::Name(name) => Attribute::Username(Username(name)),
            Self::Error(code, reason) => Attribute::ErrorCode(ErrorCode { code: *code, reason }),
            Self::Unknown(codes) => Attribute::UnknownAttributes(UnknownAttributes::new(codes)),
            Self::Binding => Attribute::ConnectionRequestBinding,
            Self::NulBinding => Attribute::ConnectionRequestBindingNul,
            Self::Changed => Attribute::BindingChange,
            Self::Other(code, value) => Attribute::Other { code: *code, value },
        }
    }
}

/// Bytes whose length needs no padding.
fn aligned(words: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<[u8; 4]>(), 0..words).prop_map(|words| words.concat())
}

fn attributes() -> impl Strategy<Value = Owned> {
    prop_oneof![
        (0..7u8, any::<SocketAddrV4>()).prop_map(|(which, address)| Owned::Address(which, address)),
        any::<(bool, bool)>().prop_map(|(ip, port)| Owned::Change(ip, port)),
        aligned(64).prop_map(Owned::Name),
        (100..700u16, aligned(16)).prop_map(|(code, reason)| Owned::Error(code, reason)),
        vec(any::<u16>(), 0..8).prop_map(Owned::Unknown),
        Just(Owned::Binding),
        Just(Owned::NulBinding),
        aligned(8).prop_map(|value| Owned::Other(attribute::CONNECTION_REQUEST_BINDING, value)),
        Just(Owned::Changed),
        (0x4000..0x8000u16, aligned(8)).prop_map(|(code, value)| Owned::Other(code, value)),
    ]
}

/// Datagrams that often pass the first checks: a valid header, and attributes of known types.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let codes = prop_oneof![1..0x0cu16, Just(attribute::CONNECTION_REQUEST_BINDING), any::<u16>()];
    let wild = (codes, 0..12u16, vec(any::<u8>(), 0..12))
        .prop_map(|(code, length, value)| [&code.to_be_bytes()[..], &length.to_be_bytes(), &value].concat());
    let known = attributes().prop_map(|owned| {
        Builder::new(TYPES[0], TransactionId([7; 16])).attribute(owned.attribute()).build().split_off(20)
    });
    let padded = vec(any::<u8>(), 0..12).prop_map(|name| {
        let length = (name.len() as u16).to_be_bytes();
        [&[0, 6], &length[..], &name, &[0; 3][..name.len().next_multiple_of(4) - name.len()]].concat()
    });
    let attribute = prop_oneof![1 => wild, 6 => known, 2 => padded, 1 => Just(vec![0, 8, 0, 20].into_iter().chain([9; 20]).collect())];
    (0..6usize, vec(attribute, 0..8)).prop_map(|(kind, attributes)| {
        let mut datagram = Builder::new(TYPES[kind.saturating_sub(3)], TransactionId([7; 16])).build();
        datagram.extend(attributes.concat());
        let length = datagram.len() as u16 - 20;
        datagram[2..4].copy_from_slice(&length.to_be_bytes());
        datagram
    })
}

fn read(datagram: &[u8]) {
    let Ok(message) = Message::parse(datagram) else { return };
    let walked = message.attributes().map(|attribute| format!("{attribute:?}").len()).sum::<usize>();
    let looked_at = [message.mapped_address(), message.xor_mapped_address(), message.response_address()];
    let _ = (walked, looked_at, message.username().map(Username::trimmed), message.error_code());
    let _ =
        (message.has_binding_change(), message.not_understood().count(), message.verify(&secret(), Variants::FIELD));
    let _ = message.unknown_attributes().map(|list| list.iter().count());
}

proptest! {
    /// No datagram makes the parser panic.
    #[test]
    fn any_bytes_are_read_without_panic(datagram in vec(any::<u8>(), 0..256), plausible in plausible()) {
        read(&datagram);
        read(&plausible);
    }

    /// STUN-5: the kernel programs read the same from a Binding Request as its server.
    #[test]
    fn programs_and_agent_see_the_same(plausible in plausible()) {
        let mut demands = Demands::default();
        let found = demands
            .read_leniently(plausible.as_slice(), 0, plausible.len() as u32, PlainLoop)
            .then_some(demands.signals);
        let Ok(message) = Message::parse(&plausible) else { return Ok(()) };
        let expected = (message.message_type() == MessageType::BindingRequest)
            .then_some((message.binding_form(), message.has_connection_request_binding(), message.has_binding_change(), false));
        let seen = |found: Signals| {
            (found.binding_form(), found.connection_request_binding, found.binding_change, found.damaged)
        };
        prop_assert_eq!(found.map(seen), expected);
    }

    /// STUN-1, T-19: a built message is parsed to the same attributes, signed or not.
    #[test]
    fn what_is_written_is_read(
        kind in 0..6usize,
        id: [u8; 16],
        owned in vec(attributes(), 0..8),
        variant in prop_oneof![Just(Variant::A), Just(Variant::B), Just(Variant::E)],
    ) {
        let write = || owned.iter().fold(Builder::new(TYPES[kind], TransactionId(id)), |builder, owned| {
            builder.attribute(owned.attribute())
        });
        for datagram in [write().build(), write().sign(&secret(), variant)] {
            let message = Message::parse(&datagram).unwrap();
            prop_assert_eq!(message.message_type(), TYPES[kind]);
            prop_assert_eq!(message.transaction_id(), TransactionId(id));
            let written: Vec<_> = owned.iter().map(Owned::attribute).collect();
            prop_assert_eq!(message.attributes().collect::<Vec<_>>(), written);
            if message.is_signed() {
                prop_assert_eq!(message.verify(&secret(), variant.into()), Ok(variant));
            }
        }
    }
}
