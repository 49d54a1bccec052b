//! Classic STUN on the wire (RFC 3489 11), with the two attributes of TR-111 (2.2.1.3, Table 5).
//!
//! The programs ask one thing: does this datagram say that its source listens for UDP Connection Requests
//! ([`Binding`], STUN-5)? They change nothing, so a message that is damaged is none of theirs. The agent's parser
//! judges it.

use crate::{
    frame::{FRAME_CAPACITY, Frame, Repeat, Step},
    headers::Udp,
};

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

/// Attributes that the programs look at; a Binding Request of TR-111 has at most five.
pub const ATTRIBUTES_MAXIMUM: u32 = 16;

/// The header of a datagram whose length says that it is STUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// One of [`message`], or another number.
    pub message_type: u16,
    /// Transaction id.
    pub transaction_id: [u8; 16],
}

impl Header {
    /// Reads the header at the start of the UDP payload.
    ///
    /// `None` where the first byte or the length says that it is something else (T-63), and for a fragment.
    #[inline(always)]
    pub fn load<F: Frame + ?Sized>(frame: &F, udp: &Udp) -> Option<Self> {
        // Type and length first: that is what other traffic on the port costs.
        let [high, low, length @ ..]: [u8; 4] = frame.load(udp.payload as usize)?;
        let length = u32::from(u16::from_be_bytes(length));
        if high > 1 || udp.fragment || udp.payload + HEADER as u32 + length != udp.end {
            return None;
        }
        let transaction_id = frame.load(udp.payload as usize + 4)?;
        Some(Self { message_type: u16::from_be_bytes([high, low]), transaction_id })
    }
}

/// What a Binding Request says of its source (TR-111 2.2.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// CONNECTION-REQUEST-BINDING: Connection Requests will come to this binding.
    pub connection_request: bool,
    /// BINDING-CHANGE; it counts only with the other (STUN-3).
    pub change: bool,
    /// MESSAGE-INTEGRITY, right or wrong.
    pub signed: bool,
}

impl Binding {
    /// Finds the Binding Request in `udp` and walks its attributes; `None` for everything else.
    #[inline(always)]
    pub fn find<F: Frame + ?Sized, R: Repeat>(frame: &F, udp: &Udp, repeat: R) -> Option<Self> {
        let header = Header::load(frame, udp)?;
        if header.message_type != message::BINDING_REQUEST {
            return None;
        }
        let mut walk = Walk::new(frame, udp, 0);
        repeat.repeat(ATTRIBUTES_MAXIMUM, &mut walk);
        if walk.at != udp.end && walk.unaligned {
            // RFC 5389's padding behind the length, where RFC 3489's reading leads nowhere (T-37).
            walk = Walk::new(frame, udp, 3);
            repeat.repeat(ATTRIBUTES_MAXIMUM, &mut walk);
        }
        (walk.at == udp.end).then_some(walk.binding)
    }
}

/// A walk over the attributes of a message, one a turn.
struct Walk<'a, F: ?Sized> {
    frame: &'a F,
    at: u32,
    end: u32,
    /// Alignment of attributes less one: 0 or 3.
    padding: u32,
    unaligned: bool,
    binding: Binding,
}

impl<'a, F: Frame + ?Sized> Walk<'a, F> {
    #[inline(always)]
    fn new(frame: &'a F, udp: &Udp, padding: u32) -> Self {
        let at = udp.payload + HEADER as u32;
        Self { frame, at, end: udp.end, padding, unaligned: false, binding: Binding::default() }
    }

    /// Whether the value of CONNECTION-REQUEST-BINDING stands at `at`, compared in words.
    #[inline(always)]
    fn is_connection_request(&self, at: usize) -> bool {
        let (Some(first), Some(second), Some(last)) =
            (self.frame.load::<8>(at), self.frame.load::<8>(at + 8), self.frame.load::<4>(at + 16))
        else {
            return false;
        };
        u64::from_ne_bytes(first) == u64::from_ne_bytes(*b"dslforum")
            && u64::from_ne_bytes(second) == u64::from_ne_bytes(*b".org/TR-")
            && u32::from_ne_bytes(last) == u32::from_ne_bytes(*b"111 ")
    }
}

impl<F: Frame + ?Sized> Step for Walk<'_, F> {
    #[inline(always)]
    fn step(&mut self, _: u32) -> bool {
        if self.at >= self.end || self.at as usize >= FRAME_CAPACITY {
            return false;
        }
        // The mask is what the verifier believes.
        let at = self.at as usize & (FRAME_CAPACITY - 1);
        let Some([c0, c1, l0, l1]) = self.frame.load::<ATTRIBUTE_HEADER>(at) else { return false };
        let (code, length) = (u16::from_be_bytes([c0, c1]), u32::from(u16::from_be_bytes([l0, l1])));
        if code == attribute::MESSAGE_INTEGRITY {
            // What follows it is ignored (RFC 3489 11.2.8).
            self.binding.signed = true;
            self.at = self.end;
            return false;
        }
        self.unaligned |= !length.is_multiple_of(4);
        let value = at + ATTRIBUTE_HEADER;
        if code == attribute::CONNECTION_REQUEST_BINDING
            && length == CONNECTION_REQUEST_BINDING.len() as u32
            && self.is_connection_request(value)
        {
            self.binding.connection_request = true;
        }
        self.binding.change |= code == attribute::BINDING_CHANGE && length == 0;
        // Behind the end, the message is damaged: the walk has to stop at the end exactly.
        self.at += ATTRIBUTE_HEADER as u32 + ((length + self.padding) & !self.padding);
        true
    }
}

#[cfg(test)]
mod tests;
