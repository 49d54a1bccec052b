//! From a datagram to a Binding Request, and the answers that need no memory: most of them.

use std::{mem, net::SocketAddrV4};

use tr111_common::stun::BindingForm;

use super::{
    Approach,
    verdict::{Outcome, Verdict},
};
use crate::{
    secret::SharedSecret,
    stun::{
        Attribute, Builder, Header, Message, MessageType, ParseError, TransactionId, UnknownAttributes, Username,
        Variant, Variants,
    },
};

/// Most types that a 420 lists.
const UNKNOWN_MAXIMUM: usize = 32;

/// When an unsigned request is answered with 401, from the fewest to the most (STUN-17, STUN-23, STUN-30). All but the last
/// ask only CPEs that have a STUNPassword (T-66).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Challenge {
    /// It tells of a change.
    Change,
    /// Or it comes from elsewhere than the last signed one of its CPE.
    #[default]
    Moved,
    /// It comes from a CPE that hears Connection Requests.
    Binding,
    /// Always.
    All,
}

/// Where an answer may go that is wanted elsewhere (SEC-7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseAddress {
    /// To another port of the sender's own address, which is all that TR-111 needs.
    #[default]
    Own,
    /// Anywhere: the server is a reflector then.
    Any,
    /// Nowhere.
    Off,
}

/// What becomes of copies of a signed request (T-25).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// They get the same answer again.
    #[default]
    Replay,
    /// They are ignored, as TR-111 2.2.2.2.1 has it: a lost answer stays lost.
    Drop,
}

/// What an operator decides about the STUN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How bindings are learned.
    pub approach: Approach,
    /// Which unsigned requests are answered with 401.
    pub challenge: Challenge,
    /// Forms of MESSAGE-INTEGRITY that are accepted (T-19).
    pub variants: Variants,
    /// Where answers may go.
    pub response_address: ResponseAddress,
    /// What becomes of copies.
    pub duplicates: Duplicates,
    /// Whether the CPEs are known. While the registry cannot be read, requests with USERNAME are ignored: a 430 would tell
    /// their CPEs that nobody knows them. No operator sets it.
    pub is_registry_readable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            approach: Approach::default(),
            challenge: Challenge::default(),
            variants: Variants::FIELD,
            response_address: ResponseAddress::default(),
            duplicates: Duplicates::default(),
            is_registry_readable: true,
        }
    }
}

/// The two ends of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Where it came from.
    pub source: SocketAddrV4,
    /// The address of ours that it came to, and that answers.
    pub server: SocketAddrV4,
}

/// A Binding Request whose attributes are whole.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub(super) datagram: &'a [u8],
    pub(super) message: Message<'a>,
    pub(super) ends: Ends,
    pub(super) username: Option<Username<'a>>,
    /// How CONNECTION-REQUEST-BINDING is written, where an attribute of its type is.
    pub(super) binding: Option<BindingForm>,
    /// Without the other one, nobody asks (STUN-3).
    pub(super) has_binding_change: bool,
    response_address: Option<SocketAddrV4>,
    is_understood: bool,
}

/// How far a datagram comes without the registry.
#[derive(Clone, Debug)]
pub enum First<'a> {
    /// To its end.
    Settled(Outcome),
    /// The registry has to be asked: it is signed, or names a CPE that hears Connection Requests.
    Pending(Request<'a>),
}

impl Settings {
    /// Judges a datagram, and answers what needs no registry into `answer`.
    pub fn judge<'a>(self, ends: Ends, datagram: &'a [u8], answer: &mut Vec<u8>) -> First<'a> {
        let request = match Request::read(ends, datagram, answer) {
            Err(outcome) => return First::Settled(outcome),
            Ok(request) if !self.is_registry_readable && request.username.is_some() => {
                let silent = Outcome::silent(Some(MessageType::BindingRequest), Verdict::Unreadable);
                return First::Settled(Outcome { binding: request.binding, ..silent });
            }
            Ok(request) if request.needs_registry(self.approach) => return First::Pending(request),
            Ok(request) => request,
        };
        let outcome = if self.challenge == Challenge::All {
            request.refuse(Verdict::Unauthorized, answer)
        } else {
            request.grant(self, None, answer)
        };
        First::Settled(Outcome { binding: request.binding, ..outcome })
    }
}

impl<'a> Request<'a> {
    /// Reads a Binding Request. Whatever else it is has its outcome already.
    fn read(ends: Ends, datagram: &'a [u8], answer: &mut Vec<u8>) -> Result<Self, Outcome> {
        if ends.source.port() == 0 {
            return Err(Outcome::silent(None, Verdict::BadSource));
        }
        // A length that is not the datagram's is somebody else's protocol; an error might go to a bystander.
        let Ok(header) = Header::parse(datagram) else { return Err(Outcome::silent(None, Verdict::NotStun)) };
        let refused = |verdict, answer: &mut Vec<u8>| refuse(header, ends.source, verdict, [].into_iter(), answer);
        match header.message_type {
            MessageType::BindingRequest => {}
            MessageType::SharedSecretRequest => return Err(refused(Verdict::UseTls, answer)),
            other => return Err(Outcome::silent(Some(other), Verdict::NotARequest)),
        }
        match Message::parse(datagram) {
            Ok(message) => Ok(Request::new(datagram, message, ends)),
            Err(ParseError::Truncated { .. } | ParseError::Length { .. } | ParseError::UnknownType(_)) => {
                Err(Outcome::silent(None, Verdict::NotStun))
            }
            Err(_) => Err(refused(Verdict::BadRequest, answer)),
        }
    }

    /// Looks at the attributes once.
    fn new(datagram: &'a [u8], message: Message<'a>, ends: Ends) -> Self {
        let mut request = Self {
            datagram,
            message,
            ends,
            username: None,
            binding: None,
            has_binding_change: false,
            response_address: None,
            is_understood: true,
        };
        for attribute in request.message.attributes() {
            request.binding = request.binding.max(attribute.binding_form());
            match attribute {
                Attribute::Username(username) => request.username = request.username.or(Some(username)),
                Attribute::ResponseAddress(address) => {
                    request.response_address = request.response_address.or(Some(address));
                }
                Attribute::BindingChange => request.has_binding_change = true,
                other => request.is_understood &= !other.is_unknown_and_mandatory(),
            }
        }
        request
    }

    /// The id of its transaction.
    pub fn transaction_id(&self) -> TransactionId {
        self.message.transaction_id()
    }

    fn needs_registry(&self, approach: Approach) -> bool {
        self.message.is_signed()
            || (self.has_connection_request_binding() && self.username.is_some() && approach.is_stun())
    }

    /// Whether its source listens for UDP Connection Requests (STUN-1).
    pub(super) fn has_connection_request_binding(&self) -> bool {
        self.binding >= Some(BindingForm::Exact)
    }

    /// The last checks, and the one Binding Response: to its source, or where it asks for if that is allowed. It is signed
    /// if the request was (RFC 3489 8.1).
    pub(super) fn grant(
        &self,
        settings: Settings,
        signer: Option<(&SharedSecret, Variant)>,
        answer: &mut Vec<u8>,
    ) -> Outcome {
        if !self.is_understood {
            return self.refuse(Verdict::UnknownAttribute, answer);
        }
        let Ends { source, server } = self.ends;
        let elsewhere = self.elsewhere(settings);
        // There is one address and one port, so CHANGE-REQUEST is ignored, and the other address is this one
        // (STUN-14 to STUN-16).
        let memory = mem::take(answer);
        let mut response = Builder::reuse(memory, MessageType::BindingResponse, self.transaction_id())
            .attribute(Attribute::MappedAddress(source))
            .attribute(Attribute::SourceAddress(server))
            .attribute(Attribute::ChangedAddress(server));
        if elsewhere.is_some() {
            response = response.attribute(Attribute::ReflectedFrom(source));
        }
        let verdict = if signer.is_some() { Verdict::Authenticated } else { Verdict::Answered };
        *answer = match signer {
            Some((secret, variant)) => response.sign(secret, variant),
            None => response.build(),
        };
        let to = Some(elsewhere.unwrap_or(source));
        Outcome { message_type: Some(MessageType::BindingRequest), verdict, to, learned: None, binding: None }
    }

    /// RESPONSE-ADDRESS, where it is heeded. Where it is not, it is as if it were not there (SEC-7).
    pub(super) fn elsewhere(&self, settings: Settings) -> Option<SocketAddrV4> {
        self.response_address.filter(|wanted| match settings.response_address {
            ResponseAddress::Own => wanted.ip() == self.ends.source.ip() && wanted.port() != 0,
            ResponseAddress::Any => wanted.port() != 0,
            ResponseAddress::Off => false,
        })
    }

    /// The answer with an error, to the source whatever else was asked for (RFC 3489 8.1).
    pub(super) fn refuse(&self, verdict: Verdict, answer: &mut Vec<u8>) -> Outcome {
        let header =
            Header { message_type: MessageType::BindingRequest, transaction_id: self.message.transaction_id() };
        let unknown = self.message.not_understood().filter(|_| verdict == Verdict::UnknownAttribute);
        refuse(header, self.ends.source, verdict, unknown, answer)
    }
}

/// Writes an error with the id of the request.
fn refuse(
    header: Header,
    to: SocketAddrV4,
    verdict: Verdict,
    unknown: impl Iterator<Item = u16>,
    answer: &mut Vec<u8>,
) -> Outcome {
    let message_type = header.message_type;
    let Some(error) = verdict.error() else { return Outcome::silent(Some(message_type), verdict) };
    let kind = match message_type {
        MessageType::SharedSecretRequest => MessageType::SharedSecretErrorResponse,
        _ => MessageType::BindingErrorResponse,
    };
    let mut message =
        Builder::reuse(mem::take(answer), kind, header.transaction_id).attribute(Attribute::ErrorCode(error));
    let (mut types, mut count) = ([0; UNKNOWN_MAXIMUM], 0);
    for code in unknown {
        if count < UNKNOWN_MAXIMUM && !types[..count].contains(&code) {
            types[count] = code;
            count += 1;
        }
    }
    if count > 0 {
        message = message.attribute(Attribute::UnknownAttributes(UnknownAttributes::new(&types[..count])));
    }
    *answer = message.build();
    Outcome { message_type: Some(message_type), verdict, to: Some(to), learned: None, binding: None }
}
