//! Parser of STUN messages; it does not allocate memory.

use std::net::SocketAddrV4;

use tr111_common::stun::{ATTRIBUTE_HEADER, BindingForm, HEADER, attribute as code};

use super::{
    Attribute, ChangeRequest, ErrorCode, IntegrityError, MessageType, ParseError, SharedSecret, TransactionId,
    UnknownAttributes, Username, Variant, Variants, attribute::Place, integrity,
};
use crate::secret::DIGEST;

/// The header of a message, without its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Message type.
    pub message_type: MessageType,
    /// Transaction identifier, which request and response share.
    pub transaction_id: TransactionId,
}

impl Header {
    /// Parses only the header, so that a request with malformed attributes can be answered with error 400.
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

/// A parsed STUN message: all attributes before MESSAGE-INTEGRITY are complete and well-formed.
///
/// Attributes after MESSAGE-INTEGRITY are ignored (RFC 3489 11.2.8). Whether an attribute makes sense in a message is
/// for the caller to decide: RFC 3489 ignores known attributes in the wrong message.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    header: Header,
    datagram: &'a [u8],
    attributes: Attributes<'a>,
    integrity: Option<Integrity<'a>>,
}

/// MESSAGE-INTEGRITY: its offset, which is the length of the text that it covers, and its value.
#[derive(Clone, Copy, Debug)]
struct Integrity<'a> {
    offset: usize,
    digest: &'a [u8; DIGEST],
}

impl<'a> Message<'a> {
    /// Parses a datagram.
    ///
    /// The lengths of RFC 3489 are multiples of four and include the padding. If they do not lead to the end of the
    /// message, it is parsed again with the lengths of RFC 5389, which do not include padding (T-37).
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let header = Header::parse(datagram)?;
        let walk = |alignment| walk(Attributes { datagram, at: HEADER, alignment, id: header.transaction_id });
        let (attributes, integrity) = walk(1).or_else(|error| walk(4).map_err(|_| error))?;
        Ok(Self { header, datagram, attributes, integrity })
    }

    /// Message type.
    pub fn message_type(&self) -> MessageType {
        self.header.message_type
    }

    /// Transaction identifier, which request and response share.
    pub fn transaction_id(&self) -> TransactionId {
        self.header.transaction_id
    }

    /// The attributes before MESSAGE-INTEGRITY, in order.
    pub fn attributes(&self) -> Attributes<'a> {
        self.attributes.clone()
    }

    /// MAPPED-ADDRESS; `None` if it is absent.
    pub fn mapped_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::MappedAddress(address) = attribute { Some(address) } else { None })
    }

    /// XOR-MAPPED-ADDRESS of RFC 5389, decoded (T-20).
    pub fn xor_mapped_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::XorMappedAddress(address) = attribute { Some(address) } else { None })
    }

    /// XOR-MAPPED-ADDRESS of the drafts before RFC 5389, decoded (T-20).
    pub fn draft_xor_mapped_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| match attribute {
            Attribute::DraftXorMappedAddress(address) => Some(address),
            _ => None,
        })
    }

    /// RESPONSE-ADDRESS; `None` if it is absent.
    pub fn response_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::ResponseAddress(address) = attribute { Some(address) } else { None })
    }

    /// CHANGE-REQUEST; no flags if it is absent.
    pub fn change_request(&self) -> ChangeRequest {
        self.find(|attribute| if let Attribute::ChangeRequest(change) = attribute { Some(change) } else { None })
            .unwrap_or_default()
    }

    /// SOURCE-ADDRESS; `None` if it is absent.
    pub fn source_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::SourceAddress(address) = attribute { Some(address) } else { None })
    }

    /// CHANGED-ADDRESS; `None` if it is absent.
    pub fn changed_address(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::ChangedAddress(address) = attribute { Some(address) } else { None })
    }

    /// REFLECTED-FROM; `None` if it is absent.
    pub fn reflected_from(&self) -> Option<SocketAddrV4> {
        self.find(|attribute| if let Attribute::ReflectedFrom(address) = attribute { Some(address) } else { None })
    }

    /// USERNAME; `None` if it is absent.
    pub fn username(&self) -> Option<Username<'a>> {
        self.find(|attribute| if let Attribute::Username(username) = attribute { Some(username) } else { None })
    }

    /// ERROR-CODE; `None` if it is absent.
    pub fn error_code(&self) -> Option<ErrorCode<'a>> {
        self.find(|attribute| if let Attribute::ErrorCode(error) = attribute { Some(error) } else { None })
    }

    /// UNKNOWN-ATTRIBUTES; `None` if it is absent.
    pub fn unknown_attributes(&self) -> Option<UnknownAttributes<'a>> {
        self.find(|attribute| if let Attribute::UnknownAttributes(list) = attribute { Some(list) } else { None })
    }

    /// Whether the sender expects UDP Connection Requests through this binding (STUN-1).
    pub fn has_connection_request_binding(&self) -> bool {
        self.binding_form() >= Some(BindingForm::Exact)
    }

    /// The form of CONNECTION-REQUEST-BINDING; `None` if the attribute is absent.
    pub fn binding_form(&self) -> Option<BindingForm> {
        self.attributes().filter_map(Attribute::binding_form).max()
    }

    /// Whether BINDING-CHANGE is present; it is ignored without CONNECTION-REQUEST-BINDING (STUN-3).
    pub fn has_binding_change(&self) -> bool {
        self.has_connection_request_binding()
            && self.attributes().any(|attribute| attribute == Attribute::BindingChange)
    }

    /// The types of the unknown mandatory attributes, including repetitions.
    pub fn not_understood(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.attributes().filter(|attribute| attribute.is_unknown_and_mandatory()).map(Attribute::code)
    }

    /// Whether the message has MESSAGE-INTEGRITY, valid or not.
    pub fn is_signed(&self) -> bool {
        self.integrity.is_some()
    }

    /// The value of MESSAGE-INTEGRITY, valid or not; `None` if it is absent.
    pub fn integrity(&self) -> Option<&'a [u8; DIGEST]> {
        self.integrity.map(|integrity| integrity.digest)
    }

    /// Compares MESSAGE-INTEGRITY with each of `variants`, in constant time. Returns the variant that matches.
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

/// Parses the attributes up to MESSAGE-INTEGRITY or the end of the message.
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

/// Iterator over the attributes of a [`Message`], in order.
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
        // `Message::parse` has checked all attributes, so neither step fails.
        let (offset, (code, value)) = (self.at, self.step().ok()??);
        let place = Place { offset, remaining: self.datagram.len() - offset - ATTRIBUTE_HEADER };
        Attribute::read(code, value, place, self.id).ok()
    }
}
