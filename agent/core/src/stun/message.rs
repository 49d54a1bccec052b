//! From a datagram to its attributes, without memory of its own.

use std::net::SocketAddrV4;

use tr111_common::stun::{ATTRIBUTE_HEADER, BindingForm, HEADER, attribute as code};

use super::{
    Attribute, ChangeRequest, ErrorCode, IntegrityError, MessageType, ParseError, SharedSecret, TransactionId,
    UnknownAttributes, Username, Variant, Variants, attribute::Place, integrity,
};
use crate::secret::DIGEST;

/// The first twenty bytes of a message, without its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub message_type: MessageType,
    /// What it answers, or is answered by.
    pub transaction_id: TransactionId,
}

impl Header {
    /// Reads the header alone, so that a request with damaged attributes can be answered with 400.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let Some((&[t0, t1, l0, l1, ref id @ ..], body)) = datagram.split_first_chunk::<HEADER>() else {
            return Err(ParseError::Truncated { length: datagram.len() });
        };
        let number = u16::from_be_bytes([t0, t1]);
        let message_type = MessageType::from_wire(number).ok_or(ParseError::UnknownType(number))?;
        let declared = usize::from(u16::from_be_bytes([l0, l1]));
        if declared != body.len() {
            return Err(ParseError::Length { declared, remaining: body.len() });
        }
        Ok(Self { message_type, transaction_id: TransactionId(*id) })
    }
}

/// A datagram that is a STUN message: every attribute up to MESSAGE-INTEGRITY is whole and has its form.
///
/// What follows MESSAGE-INTEGRITY is not looked at (RFC 3489 11.2.8). Which attributes make sense in which message is
/// for the reader: RFC 3489 ignores one that is known and stands in the wrong message.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    header: Header,
    datagram: &'a [u8],
    attributes: Attributes<'a>,
    integrity: Option<Integrity<'a>>,
}

/// MESSAGE-INTEGRITY: where it begins, and so what it covers.
#[derive(Clone, Copy, Debug)]
struct Integrity<'a> {
    offset: usize,
    digest: &'a [u8; DIGEST],
}

impl<'a> Message<'a> {
    /// Reads a whole datagram.
    ///
    /// Lengths are RFC 3489's, which are multiples of four and count the padding. Where they do not lead to the end
    /// of the message, RFC 5389's padding behind the length is tried (T-37).
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let header = Header::parse(datagram)?;
        let walk = |alignment| walk(Attributes { datagram, at: HEADER, alignment, id: header.transaction_id });
        let (attributes, integrity) = walk(1).or_else(|error| walk(4).map_err(|_| error))?;
        Ok(Self { header, datagram, attributes, integrity })
    }

    /// What the message is.
    pub fn message_type(&self) -> MessageType {
        self.header.message_type
    }

    /// What it answers, or is answered by.
    pub fn transaction_id(&self) -> TransactionId {
        self.header.transaction_id
    }

    /// The attributes before MESSAGE-INTEGRITY, in their order.
    pub fn attributes(&self) -> Attributes<'a> {
        self.attributes.clone()
    }

    /// MAPPED-ADDRESS.
    pub fn mapped_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::MappedAddress(address) = attribute { Some(address) } else { None })
    }

    /// XOR-MAPPED-ADDRESS of RFC 5389 (T-20).
    pub fn xor_mapped_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::XorMappedAddress(address) = attribute { Some(address) } else { None })
    }

    /// XOR-MAPPED-ADDRESS of the drafts before RFC 5389 (T-20).
    pub fn draft_xor_mapped_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| match attribute {
            Attribute::DraftXorMappedAddress(address) => Some(address),
            _ => None,
        })
    }

    /// RESPONSE-ADDRESS.
    pub fn response_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::ResponseAddress(address) = attribute { Some(address) } else { None })
    }

    /// CHANGE-REQUEST; one that is missing asks for no change.
    pub fn change_request(&self) -> ChangeRequest {
        self.find(|attribute| if let Attribute::ChangeRequest(change) = attribute { Some(change) } else { None })
            .unwrap_or_default()
    }

    /// SOURCE-ADDRESS.
    pub fn source_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::SourceAddress(address) = attribute { Some(address) } else { None })
    }

    /// CHANGED-ADDRESS.
    pub fn changed_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::ChangedAddress(address) = attribute { Some(address) } else { None })
    }

    /// REFLECTED-FROM.
    pub fn reflected_from(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::ReflectedFrom(address) = attribute { Some(address) } else { None })
    }

    /// USERNAME.
    pub fn username(&self) -> Option<Username<'a>> {
        self.find(|attribute| if let Attribute::Username(username) = attribute { Some(username) } else { None })
    }

    /// ERROR-CODE.
    pub fn error_code(&self) -> Option<ErrorCode<'a>> {
        self.find(|attribute| if let Attribute::ErrorCode(error) = attribute { Some(error) } else { None })
    }

    /// UNKNOWN-ATTRIBUTES.
    pub fn unknown_attributes(&self) -> Option<UnknownAttributes<'a>> {
        self.find(|attribute| if let Attribute::UnknownAttributes(list) = attribute { Some(list) } else { None })
    }

    /// Whether the request's source listens for UDP Connection Requests (STUN-1).
    pub fn has_connection_request_binding(&self) -> bool {
        self.binding_form() >= Some(BindingForm::Exact)
    }

    /// How CONNECTION-REQUEST-BINDING is written; `None` where there is no attribute of its type.
    pub fn binding_form(&self) -> Option<BindingForm> {
        self.attributes().filter_map(Attribute::binding_form).max()
    }

    /// Whether the request tells of a change: BINDING-CHANGE counts only with CONNECTION-REQUEST-BINDING (STUN-3).
    pub fn has_binding_change(&self) -> bool {
        self.has_connection_request_binding()
            && self.attributes().any(|attribute| attribute == Attribute::BindingChange)
    }

    /// The types that have to be understood and are not, repetitions included.
    pub fn not_understood(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.attributes().filter(|attribute| attribute.is_unknown_and_mandatory()).map(Attribute::code)
    }

    /// Whether the message has a MESSAGE-INTEGRITY, right or wrong.
    pub fn is_signed(&self) -> bool {
        self.integrity.is_some()
    }

    /// The value of MESSAGE-INTEGRITY, right or wrong.
    pub fn integrity(&self) -> Option<&'a [u8; DIGEST]> {
        self.integrity.map(|integrity| integrity.digest)
    }

    /// Compares MESSAGE-INTEGRITY, in constant time, with each of `variants` in turn, and says which one it was.
    pub fn verify(&self, secret: &SharedSecret, variants: Variants) -> Result<Variant, IntegrityError> {
        let Integrity { offset, digest } = self.integrity.ok_or(IntegrityError::Missing)?;
        let signed = &self.datagram[..offset];
        variants
            .iter()
            .find(|&variant| integrity::verifies(secret, signed, variant, digest))
            .ok_or(IntegrityError::Mismatch)
    }

    fn find<T>(&self, wanted: impl FnMut(Attribute<'a>) -> Option<T>) -> Option<T> {
        self.attributes().find_map(wanted)
    }
}

/// Walks to MESSAGE-INTEGRITY or to the end, whichever is first.
fn walk(from: Attributes<'_>) -> Result<(Attributes<'_>, Option<Integrity<'_>>), ParseError> {
    let mut rest = from.clone();
    loop {
        let offset = rest.at;
        let Some((code, value)) = rest.step()? else { return Ok((from, None)) };
        if code == code::MESSAGE_INTEGRITY {
            let remaining = rest.datagram.len() - offset - ATTRIBUTE_HEADER;
            let form = ParseError::Form { offset, code, declared: value.len(), remaining };
            let digest = value.try_into().map_err(|_| form)?;
            return Ok((Attributes { datagram: &from.datagram[..offset], ..from }, Some(Integrity { offset, digest })));
        }
        let place = Place { offset, remaining: from.datagram.len() - offset - ATTRIBUTE_HEADER };
        Attribute::read(code, value, place, from.id)?;
    }
}

/// The attributes of a [`Message`], in their order.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    datagram: &'a [u8],
    at: usize,
    alignment: usize,
    id: TransactionId,
}

impl<'a> Attributes<'a> {
    /// Type and value of the next attribute; `None` at the end.
    fn step(&mut self) -> Result<Option<(u16, &'a [u8])>, ParseError> {
        let offset = self.at;
        let rest = &self.datagram[offset..];
        if rest.is_empty() {
            return Ok(None);
        }
        let Some((&[c0, c1, l0, l1], behind)) = rest.split_first_chunk::<ATTRIBUTE_HEADER>() else {
            return Err(ParseError::Overrun { offset, declared: 0, remaining: rest.len() });
        };
        let declared = usize::from(u16::from_be_bytes([l0, l1]));
        let Some(value) = behind.get(..declared).filter(|_| behind.len() >= declared.next_multiple_of(self.alignment))
        else {
            return Err(ParseError::Overrun { offset, declared, remaining: behind.len() });
        };
        self.at += ATTRIBUTE_HEADER + declared.next_multiple_of(self.alignment);
        Ok(Some((u16::from_be_bytes([c0, c1]), value)))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        // The walk in `Message::parse` found every attribute whole, so neither reading fails.
        let (offset, (code, value)) = (self.at, self.step().ok()??);
        let place = Place { offset, remaining: self.datagram.len() - offset - ATTRIBUTE_HEADER };
        Attribute::read(code, value, place, self.id).ok()
    }
}
