//! Classic STUN on the wire (RFC 3489 11), with the two attributes of TR-111 (2.2.1.3, Table 5).

use crate::{
    dhcp4::Hash,
    frame::{Octets, Repeat, Step},
};

mod answer;

pub use answer::{ANSWER, Answer, DATAGRAM, Datagram};

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
    /// XOR-MAPPED-ADDRESS of RFC 5389, which servers newer than TR-111 send. It is `XORed` with
    /// [`MAGIC_COOKIE`](super::MAGIC_COOKIE).
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// XOR-MAPPED-ADDRESS of the drafts between RFC 3489 and RFC 5389. It is `XORed` with the transaction id.
    pub const XOR_MAPPED_ADDRESS_OPTIONAL: u16 = 0x8020;
    /// CONNECTION-REQUEST-BINDING.
    pub const CONNECTION_REQUEST_BINDING: u16 = 0xc001;
    /// BINDING-CHANGE.
    pub const BINDING_CHANGE: u16 = 0xc002;
    /// Types up to this one have to be understood (RFC 3489 11.2).
    pub const MANDATORY_MAXIMUM: u16 = 0x7fff;
}

/// The first four bytes of the transaction id in a request of RFC 5389 (6).
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// The value of CONNECTION-REQUEST-BINDING: the space at its end belongs to it.
pub const CONNECTION_REQUEST_BINDING: [u8; 20] = *b"dslforum.org/TR-111 ";

/// The value of CONNECTION-REQUEST-BINDING as [`BindingForm::Nul`] has it.
pub const CONNECTION_REQUEST_BINDING_NUL: [u8; 20] = *b"dslforum.org/TR-111\0";

/// How an attribute of type CONNECTION-REQUEST-BINDING is written. Of several in one message the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BindingForm {
    /// Another text, or not 20 bytes: it means nothing (STUN-1).
    Wrong,
    /// [`CONNECTION_REQUEST_BINDING`], as TR-111 Table 5 has it.
    Exact,
    /// [`CONNECTION_REQUEST_BINDING_NUL`], with NUL for the blank at the end. It means the same. Set-top boxes send it that
    /// copy both texts of a request into fields filled with zeros: their USERNAME has NULs behind it, to 32 bytes.
    Nul,
}

impl BindingForm {
    /// Every form, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Wrong, Self::Exact, Self::Nul];

    /// The value of the metric's `form` label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Exact => "exact",
            Self::Nul => "nul",
        }
    }

    /// The form of the value of `length` bytes at `at`.
    #[inline(always)]
    pub fn read<O: Octets + ?Sized>(octets: &O, at: u32, length: u32) -> Self {
        const START: u64 = u64::from_be_bytes(*b"dslforum");
        const MIDDLE: u64 = u64::from_be_bytes(*b".org/TR-");
        const EXACT: u32 = u32::from_be_bytes(*b"111 ");
        const NUL: u32 = u32::from_be_bytes(*b"111\0");
        if length != CONNECTION_REQUEST_BINDING.len() as u32
            || octets.be64(at) != START
            || octets.be64(at + 8) != MIDDLE
        {
            return Self::Wrong;
        }
        match octets.be32(at + 16) {
            EXACT => Self::Exact,
            NUL => Self::Nul,
            _ => Self::Wrong,
        }
    }
}

/// Most attributes that one walk reads.
const ATTRIBUTES_MAXIMUM: u32 = 32;

/// What a Binding Request says of the binding that it came through (TR-111 2.2.1.3), as an observer on the path reads
/// it: nothing of it is authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Signals {
    /// CONNECTION-REQUEST-BINDING was there: Connection Requests are expected through this binding (STUN-1).
    pub connection_request_binding: bool,
    /// It was there as [`BindingForm::Nul`].
    pub nul_binding: bool,
    /// An attribute of its type was there with another text or length.
    pub wrong_binding: bool,
    /// BINDING-CHANGE was there: the binding is another one than before (STUN-2).
    pub binding_change: bool,
    /// Attributes do not lead to the end of the message.
    pub damaged: bool,
}

impl Signals {
    /// How CONNECTION-REQUEST-BINDING is written; `None` where there is no attribute of its type.
    #[inline(always)]
    pub fn binding_form(self) -> Option<BindingForm> {
        if self.nul_binding {
            Some(BindingForm::Nul)
        } else if self.connection_request_binding {
            Some(BindingForm::Exact)
        } else if self.wrong_binding {
            Some(BindingForm::Wrong)
        } else {
            None
        }
    }
}

/// What a Binding Request asks for, as RFC 3489 writes it and no other way: for who may leave all others to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Demands {
    /// What it says of its binding.
    pub signals: Signals,
    /// MESSAGE-INTEGRITY was there.
    pub signed: bool,
    /// An attribute that has to be understood was there, other than MESSAGE-INTEGRITY and the first USERNAME.
    pub demanding: bool,
    /// A length is no multiple of four, as RFC 3489 has them all.
    pub unaligned: bool,
    /// Where the value of USERNAME starts; 0 without one.
    username: u32,
    /// Bytes of it.
    username_length: u32,
    /// Where the next attribute starts.
    at: u32,
}

impl Demands {
    /// Reads the message from `start` to `end`; `false` where that is no Binding Request whose length agrees.
    #[inline(always)]
    pub fn read<O: Octets + ?Sized, R: Repeat>(&mut self, octets: &O, start: u32, end: u32, repeat: R) -> bool {
        let attributes = start + HEADER as u32;
        let [kind, length] = halves(octets.be32(start));
        let is_request = end >= attributes && kind == message::BINDING_REQUEST && u32::from(length) == end - attributes;
        if is_request {
            self.walk(octets, attributes, end, 0, repeat);
        }
        is_request
    }

    /// The same, and of a damaged message once more with lengths as RFC 5389 has them: without their padding (T-37).
    #[inline(always)]
    pub fn read_leniently<O: Octets + ?Sized, R: Repeat>(
        &mut self,
        octets: &O,
        start: u32,
        end: u32,
        repeat: R,
    ) -> bool {
        let is_request = self.read(octets, start, end, repeat);
        if is_request && self.signals.damaged {
            self.walk(octets, start + HEADER as u32, end, 3, repeat);
        }
        // BINDING-CHANGE means something only beside the other one (STUN-3).
        self.signals.binding_change &= self.signals.connection_request_binding;
        is_request
    }

    /// Reads the attributes from `at` to `end`, each followed by what makes its length a multiple of `padding` plus one.
    #[inline(always)]
    fn walk<O: Octets + ?Sized, R: Repeat>(&mut self, octets: &O, at: u32, end: u32, padding: u32, repeat: R) {
        *self = Self { at, ..Self::default() };
        repeat.repeat(ATTRIBUTES_MAXIMUM, &mut WalkStep { demands: self, end, padding, octets });
        self.signals.damaged = self.at != end;
    }

    /// Whether a USERNAME was there.
    #[inline(always)]
    pub fn has_username(&self) -> bool {
        self.username != 0
    }

    /// The hash under `seed` of the name in USERNAME, as [`username_hash`] has it of a name that is padded with blanks.
    ///
    /// NULs at the end are padding only beside [`BindingForm::Nul`]. In other requests they belong to the name, which then
    /// is nobody's here, and the server behind the socket decides.
    #[inline(always)]
    pub fn username_hash<O: Octets + ?Sized, R: Repeat>(&mut self, octets: &O, seed: u64, repeat: R) -> u64 {
        let mut blanks_at = NOWHERE;
        let length = self.username_length;
        if self.signals.nul_binding && length <= USERNAME_MAXIMUM {
            self.username_length = 0;
            repeat.repeat(length.div_ceil(4), &mut NameEndStep { demands: self, octets });
            blanks_at = (self.username_length / 4).wrapping_sub(1);
        }
        hash(octets, self.username, self.username_length, blanks_at, seed, repeat)
    }
}

struct WalkStep<'a, O: ?Sized> {
    demands: &'a mut Demands,
    end: u32,
    padding: u32,
    octets: &'a O,
}

impl<O: Octets + ?Sized> Step for WalkStep<'_, O> {
    #[inline(always)]
    fn step(&mut self, _: u32) -> bool {
        let demands = &mut *self.demands;
        let at = demands.at;
        let value = at + ATTRIBUTE_HEADER as u32;
        if at >= self.end || value > self.end {
            return false;
        }
        let [kind, length] = halves(self.octets.be32(at));
        let length = u32::from(length);
        if value + length > self.end {
            return false;
        }
        demands.at = value + ((length + self.padding) & !self.padding);
        demands.unaligned |= length % 4 != 0;
        match kind {
            attribute::MESSAGE_INTEGRITY => {
                demands.signed = true;
                // What stands behind the signature is not part of the message (RFC 3489 11.2.8).
                demands.at = self.end;
            }
            attribute::USERNAME if demands.username == 0 => {
                demands.username = value;
                demands.username_length = length;
            }
            ..=attribute::MANDATORY_MAXIMUM => demands.demanding = true,
            attribute::CONNECTION_REQUEST_BINDING => {
                let form = BindingForm::read(self.octets, value, length);
                demands.signals.connection_request_binding |= form != BindingForm::Wrong;
                demands.signals.nul_binding |= form == BindingForm::Nul;
                demands.signals.wrong_binding |= form == BindingForm::Wrong;
            }
            attribute::BINDING_CHANGE => demands.signals.binding_change |= length == 0,
            _ => {}
        }
        true
    }
}

/// Bytes of the longest USERNAME: STUNUsername has at most 256 (DM-25).
pub const USERNAME_MAXIMUM: u32 = 256;

/// Finds the four bytes in which a name ends that has NULs behind it: `username_length` counts up to the last ones that
/// are not all NUL.
struct NameEndStep<'a, O: ?Sized> {
    demands: &'a mut Demands,
    octets: &'a O,
}

impl<O: Octets + ?Sized> Step for NameEndStep<'_, O> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        if self.octets.be32(self.demands.username + index * 4) != 0 {
            self.demands.username_length = (index + 1) * 4;
        }
        true
    }
}

/// No index of four bytes.
const NOWHERE: u32 = u32::MAX;

/// The hash of a USERNAME of a multiple of four bytes at `at`, under `seed`.
#[inline(always)]
pub fn username_hash<O: Octets + ?Sized, R: Repeat>(octets: &O, at: u32, length: u32, seed: u64, repeat: R) -> u64 {
    hash(octets, at, length, NOWHERE, seed, repeat)
}

/// The same, with blanks for the NULs at the end of the four bytes with index `blanks_at`.
#[inline(always)]
fn hash<O: Octets + ?Sized, R: Repeat>(octets: &O, at: u32, length: u32, blanks_at: u32, seed: u64, repeat: R) -> u64 {
    let mut hash = Hash::new(seed);
    hash.add(length.into());
    let length = if length < USERNAME_MAXIMUM { length } else { USERNAME_MAXIMUM };
    repeat.repeat(length.div_ceil(4), &mut HashStep { hash: &mut hash, octets, at, blanks_at });
    hash.value()
}

struct HashStep<'a, O: ?Sized> {
    hash: &'a mut Hash,
    octets: &'a O,
    at: u32,
    blanks_at: u32,
}

impl<O: Octets + ?Sized> Step for HashStep<'_, O> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        let word = self.octets.be32(self.at + index * 4);
        let word = if index == self.blanks_at { with_blanks(word) } else { word };
        self.hash.add(word.into());
        true
    }
}

/// Four bytes, not all of them NUL, with blanks for the NULs at their end.
#[inline(always)]
const fn with_blanks(word: u32) -> u32 {
    const BLANKS: u32 = u32::from_be_bytes(*b"    ");
    if word & 0xff != 0 {
        word
    } else if word & 0xffff != 0 {
        word | (BLANKS & 0xff)
    } else if word & 0x00ff_ffff != 0 {
        word | (BLANKS & 0xffff)
    } else {
        word | (BLANKS & 0x00ff_ffff)
    }
}

/// Two fields of a header.
#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    [(word >> 16) as u16, word as u16]
}

/// Whether a datagram is the answer of a STUN server to a Binding Request, by its first bytes.
#[inline(always)]
pub fn is_binding_answer(kind: u16) -> bool {
    kind == message::BINDING_RESPONSE || kind == message::BINDING_ERROR_RESPONSE
}

#[cfg(test)]
mod tests;
