//! STUN attributes (RFC 3489 11.2, TR-111 Table 5): one type for parsing and building.

use std::net::{Ipv4Addr, SocketAddrV4};

use tr111_common::stun::{
    ATTRIBUTE_HEADER, BindingForm, CONNECTION_REQUEST_BINDING, CONNECTION_REQUEST_BINDING_NUL, MAGIC_COOKIE,
    attribute as code,
};

use super::{ParseError, TransactionId};

const FAMILY_IPV4: u8 = 1;
const ADDRESS: usize = 8;
const CHANGE_IP: u8 = 0x04;
const CHANGE_PORT: u8 = 0x02;
/// All lengths are multiples of this (RFC 3489 11.2).
const ALIGNMENT: usize = 4;

/// A STUN attribute. MESSAGE-INTEGRITY is handled by [`Message::verify`](super::Message::verify) and
/// [`Builder::sign`](super::Builder::sign), because it covers the other attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute<'a> {
    /// MAPPED-ADDRESS: source of the request, as the server sees it.
    MappedAddress(SocketAddrV4),
    /// RESPONSE-ADDRESS: destination for the response.
    ResponseAddress(SocketAddrV4),
    /// CHANGE-REQUEST: the server's address from which it should respond.
    ChangeRequest(ChangeRequest),
    /// SOURCE-ADDRESS: source of the response.
    SourceAddress(SocketAddrV4),
    /// CHANGED-ADDRESS: source of a response with both changes.
    ChangedAddress(SocketAddrV4),
    /// USERNAME: the signer, or the sender (TR-111 2.2.1.3).
    Username(Username<'a>),
    /// ERROR-CODE: reason of a failure.
    ErrorCode(ErrorCode<'a>),
    /// UNKNOWN-ATTRIBUTES: mandatory attributes that the server does not know.
    UnknownAttributes(UnknownAttributes<'a>),
    /// REFLECTED-FROM: source of the request, in a response that was sent to RESPONSE-ADDRESS.
    ReflectedFrom(SocketAddrV4),
    /// XOR-MAPPED-ADDRESS of RFC 5389 (0x0020): source of the request, `XORed` with the magic cookie (T-20).
    XorMappedAddress(SocketAddrV4),
    /// XOR-MAPPED-ADDRESS of the drafts before RFC 5389 (0x8020): source of the request, `XORed` with the transaction
    /// identifier (T-20).
    DraftXorMappedAddress(SocketAddrV4),
    /// CONNECTION-REQUEST-BINDING: the sender expects UDP Connection Requests through this binding (STUN-1).
    ConnectionRequestBinding,
    /// CONNECTION-REQUEST-BINDING with NUL instead of the trailing space ([`BindingForm::Nul`]).
    ConnectionRequestBindingNul,
    /// BINDING-CHANGE: the binding changed (STUN-2).
    BindingChange,
    /// Any other attribute, or one of TR-111 with a wrong value.
    Other {
        /// Type of the attribute.
        code: u16,
        /// Value of the attribute.
        value: &'a [u8],
    },
}

/// The flags of CHANGE-REQUEST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeRequest {
    /// Respond from the other IP address.
    pub ip: bool,
    /// Respond from the other port.
    pub port: bool,
}

/// A USERNAME as received. Senders pad it with spaces to a multiple of four bytes (T-37), or with NULs to 32 bytes
/// ([`BindingForm::Nul`]).
///
/// Padding is ignored only when a name is looked up or shown. MESSAGE-INTEGRITY covers the received bytes, so the
/// padding of a signed request cannot be changed. Trailing NULs are padding in every request, also without
/// [`BindingForm::Nul`], because a device that pads with NULs does so in all its requests. This gives a sender no
/// advantage: no STUNUsername contains NULs, so names that differ in trailing NULs are the same name, whose password
/// the sender has to know; and unsigned requests replace nothing. A NUL inside a name is part of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Username<'a>(pub &'a [u8]);

impl<'a> Username<'a> {
    /// The name without trailing NULs.
    pub fn without_nuls(self) -> &'a [u8] {
        let end = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        &self.0[..end]
    }

    /// The name without trailing spaces and NULs.
    pub fn trimmed(self) -> &'a [u8] {
        let end = self.0.iter().rposition(|&byte| byte != b' ' && byte != 0).map_or(0, |last| last + 1);
        &self.0[..end]
    }
}

/// The value of ERROR-CODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// Error code, from 100 to 699.
    pub code: u16,
    /// Reason phrase in UTF-8, padded with spaces.
    pub reason: &'a [u8],
}

impl ErrorCode<'static> {
    /// 400: the request is malformed.
    pub const BAD_REQUEST: Self = Self::new(400, b"Bad Request");
    /// 401: the request has to be signed.
    pub const UNAUTHORIZED: Self = Self::new(401, b"Unauthorized");
    /// 420: the request has an unknown mandatory attribute.
    pub const UNKNOWN_ATTRIBUTE: Self = Self::new(420, b"Unknown Attribute");
    /// 430: the USERNAME is unknown or no longer valid.
    pub const STALE_CREDENTIALS: Self = Self::new(430, b"Stale Credentials");
    /// 431: MESSAGE-INTEGRITY is wrong.
    pub const INTEGRITY_CHECK_FAILURE: Self = Self::new(431, b"Integrity Check Failure");
    /// 432: MESSAGE-INTEGRITY without USERNAME.
    pub const MISSING_USERNAME: Self = Self::new(432, b"Missing Username");
    /// 433: shared secrets are issued over TLS only.
    pub const USE_TLS: Self = Self::new(433, b"Use TLS");
    /// 500: the server has a temporary failure.
    pub const SERVER_ERROR: Self = Self::new(500, b"Server Error");
    /// 600: no server will answer this request.
    pub const GLOBAL_FAILURE: Self = Self::new(600, b"Global Failure");

    const fn new(code: u16, reason: &'static [u8]) -> Self {
        Self { code, reason }
    }
}

impl ErrorCode<'_> {
    /// Class of the error code: its hundreds, 1 to 6.
    pub fn class(self) -> u8 {
        (self.code / 100) as u8
    }
}

/// The list in UNKNOWN-ATTRIBUTES.
#[derive(Clone, Copy, Debug)]
pub struct UnknownAttributes<'a>(Types<'a>);

#[derive(Clone, Copy, Debug)]
enum Types<'a> {
    Wire(&'a [u8]),
    List(&'a [u16]),
}

impl<'a> UnknownAttributes<'a> {
    /// A list of `codes`; if their number is odd, the last one is written twice (RFC 3489 11.2.10).
    pub fn new(codes: &'a [u16]) -> Self {
        Self(Types::List(codes))
    }

    /// The types, as on the wire.
    pub fn iter(self) -> impl Iterator<Item = u16> + use<'a> {
        let (wire, list): (&[u8], &[u16]) = match self.0 {
            Types::Wire(wire) => (wire, &[]),
            Types::List(list) => (&[], list),
        };
        let repeated = list.last().filter(|_| list.len() % 2 == 1);
        wire.chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .chain(list.iter().chain(repeated).copied())
    }
}

/// Compares the types on the wire.
impl PartialEq for UnknownAttributes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UnknownAttributes<'_> {}

/// Position of an attribute, for errors.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) remaining: usize,
}

impl<'a> Attribute<'a> {
    /// Type of the attribute.
    pub fn code(self) -> u16 {
        match self {
            Self::MappedAddress(_) => code::MAPPED_ADDRESS,
            Self::ResponseAddress(_) => code::RESPONSE_ADDRESS,
            Self::ChangeRequest(_) => code::CHANGE_REQUEST,
            Self::SourceAddress(_) => code::SOURCE_ADDRESS,
            Self::ChangedAddress(_) => code::CHANGED_ADDRESS,
            Self::Username(_) => code::USERNAME,
            Self::ErrorCode(_) => code::ERROR_CODE,
            Self::UnknownAttributes(_) => code::UNKNOWN_ATTRIBUTES,
            Self::ReflectedFrom(_) => code::REFLECTED_FROM,
            Self::XorMappedAddress(_) => code::XOR_MAPPED_ADDRESS,
            Self::DraftXorMappedAddress(_) => code::XOR_MAPPED_ADDRESS_OPTIONAL,
            Self::ConnectionRequestBinding | Self::ConnectionRequestBindingNul => code::CONNECTION_REQUEST_BINDING,
            Self::BindingChange => code::BINDING_CHANGE,
            Self::Other { code, .. } => code,
        }
    }

    /// The form of CONNECTION-REQUEST-BINDING; `None` for other attributes.
    pub fn binding_form(self) -> Option<BindingForm> {
        match self {
            Self::ConnectionRequestBinding => Some(BindingForm::Exact),
            Self::ConnectionRequestBindingNul => Some(BindingForm::Nul),
            Self::Other { code: code::CONNECTION_REQUEST_BINDING, .. } => Some(BindingForm::Wrong),
            _ => None,
        }
    }

    /// Whether this attribute is unknown and mandatory, so that its message has to be refused.
    pub fn is_unknown_and_mandatory(self) -> bool {
        // PASSWORD is known but not used. XOR-MAPPED-ADDRESS in the mandatory range is tolerated, because the response
        // of a newer server is usable without it (T-20).
        matches!(self, Self::Other { code, .. } if code <= code::MANDATORY_MAXIMUM
            && !matches!(code, code::PASSWORD | code::XOR_MAPPED_ADDRESS))
    }

    /// Parses a value. A malformed optional attribute is not an error.
    pub(super) fn read(code: u16, value: &'a [u8], place: Place, id: TransactionId) -> Result<Self, ParseError> {
        let Place { offset, remaining } = place;
        let form = || ParseError::Form { offset, code, declared: value.len(), remaining };
        let address = || {
            let &[_, family, high, low, ref ip @ ..]: &[u8; ADDRESS] = value.try_into().map_err(|_| form())?;
            if family != FAMILY_IPV4 {
                return Err(ParseError::Family { offset, family });
            }
            Ok(SocketAddrV4::new(Ipv4Addr::from(*ip), u16::from_be_bytes([high, low])))
        };
        Ok(match code {
            code::MAPPED_ADDRESS => Self::MappedAddress(address()?),
            code::RESPONSE_ADDRESS => Self::ResponseAddress(address()?),
            code::SOURCE_ADDRESS => Self::SourceAddress(address()?),
            code::CHANGED_ADDRESS => Self::ChangedAddress(address()?),
            code::REFLECTED_FROM => Self::ReflectedFrom(address()?),
            code::CHANGE_REQUEST => {
                let &[_, _, _, flags]: &[u8; 4] = value.try_into().map_err(|_| form())?;
                Self::ChangeRequest(ChangeRequest { ip: flags & CHANGE_IP != 0, port: flags & CHANGE_PORT != 0 })
            }
            code::USERNAME => Self::Username(Username(value)),
            code::ERROR_CODE => {
                let Some((&[_, _, class, number], reason)) = value.split_first_chunk() else { return Err(form()) };
                let class = class & 0x07;
                if !(1..=6).contains(&class) || number > 99 {
                    return Err(ParseError::ErrorNumber { offset, class, number });
                }
                Self::ErrorCode(ErrorCode { code: u16::from(class) * 100 + u16::from(number), reason })
            }
            code::UNKNOWN_ATTRIBUTES if value.len().is_multiple_of(2) => {
                Self::UnknownAttributes(UnknownAttributes(Types::Wire(value)))
            }
            code::UNKNOWN_ATTRIBUTES => return Err(form()),
            code::XOR_MAPPED_ADDRESS => match address() {
                Ok(address) => Self::XorMappedAddress(masked(address, MAGIC_COOKIE)),
                Err(_) => Self::Other { code, value },
            },
            code::XOR_MAPPED_ADDRESS_OPTIONAL => match address() {
                Ok(address) => Self::DraftXorMappedAddress(masked(address, first_bytes(id))),
                Err(_) => Self::Other { code, value },
            },
            code::CONNECTION_REQUEST_BINDING => match BindingForm::read(value, 0, value.len() as u32) {
                BindingForm::Exact => Self::ConnectionRequestBinding,
                BindingForm::Nul => Self::ConnectionRequestBindingNul,
                BindingForm::Wrong => Self::Other { code, value },
            },
            code::BINDING_CHANGE if value.is_empty() => Self::BindingChange,
            _ => Self::Other { code, value },
        })
    }

    /// Writes type, length and value.
    pub(super) fn write(self, message: &mut Vec<u8>, id: TransactionId) {
        let start = message.len();
        message.extend(self.code().to_be_bytes());
        message.extend([0, 0]);
        let address = |message: &mut Vec<u8>, address: SocketAddrV4| {
            message.extend([0, FAMILY_IPV4]);
            message.extend(address.port().to_be_bytes());
            message.extend(address.ip().octets());
        };
        match self {
            Self::MappedAddress(value)
            | Self::ResponseAddress(value)
            | Self::SourceAddress(value)
            | Self::ChangedAddress(value)
            | Self::ReflectedFrom(value) => address(message, value),
            Self::XorMappedAddress(value) => address(message, masked(value, MAGIC_COOKIE)),
            Self::DraftXorMappedAddress(value) => address(message, masked(value, first_bytes(id))),
            Self::ChangeRequest(ChangeRequest { ip, port }) => {
                message.extend([0, 0, 0, (u8::from(ip) * CHANGE_IP) | (u8::from(port) * CHANGE_PORT)]);
            }
            Self::Username(Username(value)) => {
                message.extend(value);
                pad(message, start, b' ');
            }
            Self::ErrorCode(ErrorCode { code, reason }) => {
                message.extend([0, 0, (code / 100) as u8, (code % 100) as u8]);
                message.extend(reason);
                pad(message, start, b' ');
            }
            Self::UnknownAttributes(types) => message.extend(types.iter().flat_map(u16::to_be_bytes)),
            Self::ConnectionRequestBinding => message.extend(CONNECTION_REQUEST_BINDING),
            Self::ConnectionRequestBindingNul => message.extend(CONNECTION_REQUEST_BINDING_NUL),
            Self::BindingChange => {}
            Self::Other { value, .. } => {
                message.extend(value);
                pad(message, start, 0);
            }
        }
        // The longest value is STUNUsername, of at most 256 bytes.
        let length = (message.len() - start - ATTRIBUTE_HEADER) as u16;
        message[start + 2..start + ATTRIBUTE_HEADER].copy_from_slice(&length.to_be_bytes());
    }
}

/// In RFC 3489, padding is part of the value.
fn pad(message: &mut Vec<u8>, start: usize, filler: u8) {
    let length = (message.len() - start).next_multiple_of(ALIGNMENT);
    message.resize(start + length, filler);
}

/// The address `XORed` with the mask, and the port with the first half of the mask.
fn masked(address: SocketAddrV4, mask: [u8; 4]) -> SocketAddrV4 {
    let [high, low, ..] = mask;
    let ip = u32::from(*address.ip()) ^ u32::from_be_bytes(mask);
    SocketAddrV4::new(ip.into(), address.port() ^ u16::from_be_bytes([high, low]))
}

fn first_bytes(TransactionId([a, b, c, d, ..]): TransactionId) -> [u8; 4] {
    [a, b, c, d]
}

impl std::fmt::Debug for Username<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "\"{}\"", self.0.escape_ascii())
    }
}
