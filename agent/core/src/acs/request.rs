//! Parses Binding Requests, and answers the ones that need no registry.

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

/// Most attribute types that an error 420 lists.
const UNKNOWN_MAXIMUM: usize = 32;

/// Which unsigned requests are answered with 401; each value includes the ones before it (STUN-17, STUN-23, STUN-30).
/// All but the last one apply only to CPEs with a STUNPassword (T-66).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Challenge {
    /// Requests with BINDING-CHANGE.
    Change,
    /// Also requests from another address than the CPE's last signed one.
    #[default]
    Moved,
    /// Also all other requests with CONNECTION-REQUEST-BINDING.
    Binding,
    /// All requests.
    All,
}

/// Which RESPONSE-ADDRESS is honoured (SEC-7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseAddress {
    /// Another port of the sender's own address; TR-111 needs no more.
    #[default]
    Own,
    /// Any address. The server can then be used as a reflector.
    Any,
    /// None: the attribute is ignored.
    Off,
}

/// How copies of a signed request are handled (T-25).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// Copies receive the same answer again.
    #[default]
    Replay,
    /// Copies are ignored, as TR-111 2.2.2.2.1 requires. A lost answer is then not repeated.
    Drop,
}

/// The operator's settings of the STUN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How bindings are learned.
    pub approach: Approach,
    /// Which unsigned requests are answered with 401.
    pub challenge: Challenge,
    /// Accepted variants of MESSAGE-INTEGRITY (T-19).
    pub variants: Variants,
    /// Which RESPONSE-ADDRESS is honoured.
    pub response_address: ResponseAddress,
    /// How copies of signed requests are handled.
    pub duplicates: Duplicates,
    /// Whether the registry is available; not an operator's setting. While it is not, requests with USERNAME are
    /// ignored, because an error 430 would tell their CPEs that they are unknown.
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

/// Source and destination of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source of the datagram.
    pub source: SocketAddrV4,
    /// Destination of the datagram, one of this server's addresses. Answers are sent from it.
    pub server: SocketAddrV4,
}

/// A Binding Request with well-formed attributes.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub(super) datagram: &'a [u8],
    pub(super) message: Message<'a>,
    pub(super) ends: Ends,
    pub(super) username: Option<Username<'a>>,
    /// The form of CONNECTION-REQUEST-BINDING; `None` if the attribute is absent.
    pub(super) binding: Option<BindingForm>,
    /// Whether BINDING-CHANGE is present. Ignored without CONNECTION-REQUEST-BINDING (STUN-3).
    pub(super) has_binding_change: bool,
    response_address: Option<SocketAddrV4>,
    is_understood: bool,
}

/// Result of the first step, without the registry.
#[derive(Clone, Debug)]
pub enum First<'a> {
    /// The datagram is handled.
    Settled(Outcome),
    /// The registry is needed: the request is signed, or names a CPE with CONNECTION-REQUEST-BINDING.
    Pending(Request<'a>),
}

impl Settings {
    /// Handles a datagram as far as that needs no registry. An answer is written to `answer`.
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
    /// Parses a Binding Request. Any other datagram is handled completely.
    fn read(ends: Ends, datagram: &'a [u8], answer: &mut Vec<u8>) -> Result<Self, Outcome> {
        if ends.source.port() == 0 {
            return Err(Outcome::silent(None, Verdict::BadSource));
        }
        // A message with a wrong length belongs to another protocol. It gets no error, which might reach an uninvolved
        // host.
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

    /// Transaction identifier of the request.
    pub fn transaction_id(&self) -> TransactionId {
        self.message.transaction_id()
    }

    fn needs_registry(&self, approach: Approach) -> bool {
        self.message.is_signed()
            || (self.has_connection_request_binding() && self.username.is_some() && approach.is_stun())
    }

    /// Whether the sender expects Connection Requests through this binding (STUN-1).
    pub(super) fn has_connection_request_binding(&self) -> bool {
        self.binding >= Some(BindingForm::Exact)
    }

    /// Performs the last checks and writes the Binding Response, for the source or an allowed RESPONSE-ADDRESS. The
    /// response is signed if the request was (RFC 3489 8.1).
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
        // The server has one address and one port: CHANGE-REQUEST is ignored, and CHANGED-ADDRESS is this address
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

    /// The RESPONSE-ADDRESS, if it is honoured; otherwise the attribute is ignored (SEC-7).
    pub(super) fn elsewhere(&self, settings: Settings) -> Option<SocketAddrV4> {
        self.response_address.filter(|wanted| match settings.response_address {
            ResponseAddress::Own => wanted.ip() == self.ends.source.ip() && wanted.port() != 0,
            ResponseAddress::Any => wanted.port() != 0,
            ResponseAddress::Off => false,
        })
    }

    /// Writes an error response. It is always sent to the source of the request (RFC 3489 8.1).
    pub(super) fn refuse(&self, verdict: Verdict, answer: &mut Vec<u8>) -> Outcome {
        let header =
            Header { message_type: MessageType::BindingRequest, transaction_id: self.message.transaction_id() };
        let unknown = self.message.not_understood().filter(|_| verdict == Verdict::UnknownAttribute);
        refuse(header, self.ends.source, verdict, unknown, answer)
    }
}

/// Writes an error response with the transaction identifier of the request.
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
