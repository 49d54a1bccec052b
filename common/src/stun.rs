//! Classic STUN on the wire (RFC 3489 11), with the two attributes of TR-111 (2.2.1.3, Table 5).

use crate::frame::{Octets, Repeat, Step};

/// UDP port of a STUN server.
pub const PORT: u16 = 3478;

/// Type, length and transaction id.
pub const HEADER: usize = 20;

/// Type and length of an attribute.
pub const ATTRIBUTE_HEADER: usize = 4;

/// Message types (RFC 3489 11.1).
pub mod message {
    /// Binding Request.
    pub const BINDING_REQUEST: u16 = 0x0001;
    /// Binding Response.
    pub const BINDING_RESPONSE: u16 = 0x0101;
    /// Binding Error Response.
    pub const BINDING_ERROR_RESPONSE: u16 = 0x0111;
    /// Shared Secret Request.
    pub const SHARED_SECRET_REQUEST: u16 = 0x0002;
    /// Shared Secret Response.
    pub const SHARED_SECRET_RESPONSE: u16 = 0x0102;
    /// Shared Secret Error Response.
    pub const SHARED_SECRET_ERROR_RESPONSE: u16 = 0x0112;
}

/// Attribute types (RFC 3489 11.2, TR-111 Table 5).
pub mod attribute {
    /// MAPPED-ADDRESS.
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    /// RESPONSE-ADDRESS.
    pub const RESPONSE_ADDRESS: u16 = 0x0002;
    /// CHANGE-REQUEST.
    pub const CHANGE_REQUEST: u16 = 0x0003;
    /// SOURCE-ADDRESS.
    pub const SOURCE_ADDRESS: u16 = 0x0004;
    /// CHANGED-ADDRESS.
    pub const CHANGED_ADDRESS: u16 = 0x0005;
    /// USERNAME.
    pub const USERNAME: u16 = 0x0006;
    /// PASSWORD.
    pub const PASSWORD: u16 = 0x0007;
    /// MESSAGE-INTEGRITY.
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// ERROR-CODE.
    pub const ERROR_CODE: u16 = 0x0009;
    /// UNKNOWN-ATTRIBUTES.
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    /// REFLECTED-FROM.
    pub const REFLECTED_FROM: u16 = 0x000b;
    /// XOR-MAPPED-ADDRESS of RFC 5389, which servers newer than TR-111 send.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// XOR-MAPPED-ADDRESS of the drafts between RFC 3489 and RFC 5389.
    pub const XOR_MAPPED_ADDRESS_OPTIONAL: u16 = 0x8020;
    /// CONNECTION-REQUEST-BINDING.
    pub const CONNECTION_REQUEST_BINDING: u16 = 0xc001;
    /// BINDING-CHANGE.
    pub const BINDING_CHANGE: u16 = 0xc002;
    /// Types up to this one have to be understood (RFC 3489 11.2).
    pub const MANDATORY_MAXIMUM: u16 = 0x7fff;
}

/// The value of CONNECTION-REQUEST-BINDING: the space at its end belongs to it.
pub const CONNECTION_REQUEST_BINDING: [u8; 20] = *b"dslforum.org/TR-111 ";

/// Most attributes that one walk reads.
const ATTRIBUTES_MAXIMUM: u32 = 32;

/// What a Binding Request says of the binding that it came through (TR-111 2.2.1.3), as an observer on the path reads
/// it: nothing of it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Signals {
    at: u32,
    end: u32,
    /// CONNECTION-REQUEST-BINDING was there: Connection Requests are expected through this binding (STUN-1).
    pub connection_request_binding: bool,
    /// BINDING-CHANGE was there: the binding is another one than before (STUN-2).
    pub binding_change: bool,
    /// Attributes do not lead to the end of the message.
    pub damaged: bool,
}

impl Signals {
    /// Reads the message from `start` to `end`; `None` where that is no Binding Request whose length agrees.
    #[inline(always)]
    pub fn read<O: Octets + ?Sized, R: Repeat>(octets: &O, start: u32, end: u32, repeat: R) -> Option<Self> {
        let attributes = start + HEADER as u32;
        if end < attributes
            || octets.be16(start) != message::BINDING_REQUEST
            || u32::from(octets.be16(start + 2)) != end - attributes
        {
            return None;
        }
        let mut signals = Self::walk(octets, attributes, end, 0, repeat);
        if signals.damaged {
            // Lengths of RFC 3489 count their padding; those of RFC 5389 do not (T-37).
            signals = Self::walk(octets, attributes, end, 3, repeat);
        }
        // BINDING-CHANGE means something only beside the other one (STUN-3).
        signals.binding_change &= signals.connection_request_binding;
        Some(signals)
    }

    /// Reads the attributes from `at` to `end`, each of them followed by what makes its length a multiple of
    /// `padding` plus one.
    #[inline(always)]
    fn walk<O: Octets + ?Sized, R: Repeat>(octets: &O, at: u32, end: u32, padding: u32, repeat: R) -> Self {
        let mut signals = Self { at, end, connection_request_binding: false, binding_change: false, damaged: false };
        repeat.repeat(ATTRIBUTES_MAXIMUM, &mut SignalsStep { signals: &mut signals, octets, padding });
        signals.damaged |= signals.at != end;
        signals
    }
}

struct SignalsStep<'a, O: ?Sized> {
    signals: &'a mut Signals,
    octets: &'a O,
    padding: u32,
}

impl<O: Octets + ?Sized> Step for SignalsStep<'_, O> {
    #[inline(always)]
    fn step(&mut self, _: u32) -> bool {
        let signals = &mut *self.signals;
        let at = signals.at;
        let value = at + ATTRIBUTE_HEADER as u32;
        if at >= signals.end {
            return false;
        }
        let length = u32::from(self.octets.be16(at + 2));
        if value > signals.end || value + length > signals.end {
            signals.damaged = true;
            return false;
        }
        match self.octets.be16(at) {
            // What stands behind the signature is not part of the message (RFC 3489 11.2.8).
            attribute::MESSAGE_INTEGRITY => {
                signals.at = signals.end;
                return false;
            }
            attribute::CONNECTION_REQUEST_BINDING => {
                let is_it = length == CONNECTION_REQUEST_BINDING.len() as u32 && is_value(self.octets, value);
                signals.connection_request_binding |= is_it;
            }
            attribute::BINDING_CHANGE => signals.binding_change |= length == 0,
            _ => {}
        }
        signals.at = value + ((length + self.padding) & !self.padding);
        true
    }
}

/// Whether the twenty bytes at `at` are the value of CONNECTION-REQUEST-BINDING.
#[inline(always)]
fn is_value<O: Octets + ?Sized>(octets: &O, at: u32) -> bool {
    let value = const { words(CONNECTION_REQUEST_BINDING) };
    octets.be32(at) == value[0]
        && octets.be32(at + 4) == value[1]
        && octets.be32(at + 8) == value[2]
        && octets.be32(at + 12) == value[3]
        && octets.be32(at + 16) == value[4]
}

/// Twenty bytes as words in network order.
const fn words(bytes: [u8; 20]) -> [u32; 5] {
    let mut words = [0; 5];
    let mut at = 0;
    while at < 20 {
        words[at / 4] = words[at / 4] << 8 | bytes[at] as u32;
        at += 1;
    }
    words
}

/// Whether a datagram is the answer of a STUN server to a Binding Request, by its first bytes.
#[inline(always)]
pub fn is_binding_answer(kind: u16) -> bool {
    kind == message::BINDING_RESPONSE || kind == message::BINDING_ERROR_RESPONSE
}

#[cfg(test)]
mod tests;
