//! STUN on the wire (RFC 3489 11), with the two attributes of TR-111 (2.2.1.3, Table 5).

use crate::{
    dhcp4::Hash,
    frame::{Octets, Repeat, Step},
};

mod answer;

pub use answer::{ANSWER, Answer, DATAGRAM, Datagram};

/// Default UDP port of a STUN server.
pub const PORT: u16 = 3478;

/// Length of the message header in bytes: type, length and transaction identifier.
pub const HEADER: usize = 20;

/// Length of an attribute's type and length fields in bytes.
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
    /// XOR-MAPPED-ADDRESS of RFC 5389, sent by servers newer than TR-111. The value is `XORed` with
    /// [`MAGIC_COOKIE`](super::MAGIC_COOKIE).
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// XOR-MAPPED-ADDRESS of the drafts between RFC 3489 and RFC 5389. The value is `XORed` with the transaction
    /// identifier.
    pub const XOR_MAPPED_ADDRESS_OPTIONAL: u16 = 0x8020;
    /// CONNECTION-REQUEST-BINDING.
    pub const CONNECTION_REQUEST_BINDING: u16 = 0xc001;
    /// BINDING-CHANGE.
    pub const BINDING_CHANGE: u16 = 0xc002;
    /// Attributes with types up to this one are mandatory: a receiver has to understand them (RFC 3489 11.2).
    pub const MANDATORY_MAXIMUM: u16 = 0x7fff;
}

/// The first four bytes of the transaction identifier in a request of RFC 5389 (6).
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Value of CONNECTION-REQUEST-BINDING. The trailing space is part of it.
pub const CONNECTION_REQUEST_BINDING: [u8; 20] = *b"dslforum.org/TR-111 ";

/// Value of CONNECTION-REQUEST-BINDING in the form [`BindingForm::Nul`].
pub const CONNECTION_REQUEST_BINDING_NUL: [u8; 20] = *b"dslforum.org/TR-111\0";

/// The form of a CONNECTION-REQUEST-BINDING attribute. If a message has several, the greatest form is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BindingForm {
    /// A wrong text, or not 20 bytes: the attribute is ignored (STUN-1).
    Wrong,
    /// [`CONNECTION_REQUEST_BINDING`], as TR-111 Table 5 specifies it.
    Exact,
    /// [`CONNECTION_REQUEST_BINDING_NUL`], with NUL instead of the trailing space. It is accepted. It is sent by
    /// set-top boxes that copy their texts into zero-filled fields; their USERNAME is padded with NULs to 32 bytes.
    Nul,
}

impl BindingForm {
    /// All forms, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Wrong, Self::Exact, Self::Nul];

    /// Value of the metric label `form`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Exact => "exact",
            Self::Nul => "nul",
        }
    }

    /// The form of the attribute value of `length` bytes at `at`.
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

/// Signals of a Binding Request about its binding (TR-111 2.2.1.3), as an observer on the path reads them. They are not
/// authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Signals {
    /// Whether CONNECTION-REQUEST-BINDING is present in an accepted form: the CPE expects Connection Requests through
    /// this binding (STUN-1).
    pub connection_request_binding: bool,
    /// Whether it is present as [`BindingForm::Nul`].
    pub nul_binding: bool,
    /// Whether it is present as [`BindingForm::Wrong`].
    pub wrong_binding: bool,
    /// Whether BINDING-CHANGE is present: the CPE's binding has changed (STUN-2).
    pub binding_change: bool,
    /// Whether the attributes do not end at the end of the message.
    pub damaged: bool,
}

impl Signals {
    /// The form of CONNECTION-REQUEST-BINDING; `None` if the attribute is absent.
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

/// The attributes of a Binding Request in the strict format of RFC 3489. The line-rate path uses it and leaves requests
/// in other formats to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Demands {
    /// Signals about the binding.
    pub signals: Signals,
    /// Whether MESSAGE-INTEGRITY is present.
    pub signed: bool,
    /// Whether a mandatory attribute other than MESSAGE-INTEGRITY and the first USERNAME is present.
    pub demanding: bool,
    /// Whether a length is not a multiple of four, which RFC 3489 requires.
    pub unaligned: bool,
    /// Offset of the value of USERNAME; 0 without one.
    username: u32,
    /// Length of USERNAME in bytes.
    username_length: u32,
    /// Offset of the next attribute.
    at: u32,
}

impl Demands {
    /// Reads the message in the bytes `start` to `end`. Returns `false` if it is not a Binding Request with the right
    /// length.
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

    /// Like [`Demands::read`], but parses a damaged message again with the lengths of RFC 5389, which do not include
    /// padding (T-37).
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
        // BINDING-CHANGE is ignored without CONNECTION-REQUEST-BINDING (STUN-3).
        self.signals.binding_change &= self.signals.connection_request_binding;
        is_request
    }

    /// Reads the attributes in the bytes `at` to `end`; values are padded to a multiple of `padding` plus one bytes.
    #[inline(always)]
    fn walk<O: Octets + ?Sized, R: Repeat>(&mut self, octets: &O, at: u32, end: u32, padding: u32, repeat: R) {
        *self = Self { at, ..Self::default() };
        repeat.repeat(ATTRIBUTES_MAXIMUM, &mut WalkStep { demands: self, end, padding, octets });
        self.signals.damaged = self.at != end;
    }

    /// Whether USERNAME is present.
    #[inline(always)]
    pub fn has_username(&self) -> bool {
        self.username != 0
    }

    /// The hash under `seed` of the name in USERNAME. It equals the [`username_hash`] of the name padded with spaces.
    ///
    /// Trailing NULs count as padding only together with [`BindingForm::Nul`]. In other requests they are part of the
    /// name, which is then unknown here and left to the server behind the socket.
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
                // Attributes after MESSAGE-INTEGRITY are not part of the message (RFC 3489 11.2.8).
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

/// Longest USERNAME in bytes: STUNUsername has at most 256 (DM-25).
pub const USERNAME_MAXIMUM: u32 = 256;

/// Finds the last four bytes of a NUL-padded name that are not all NUL, and sets `username_length` to their end.
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

/// Index that matches no group of four bytes.
const NOWHERE: u32 = u32::MAX;

/// The hash under `seed` of the USERNAME of `length` bytes at `at`; `length` is a multiple of four.
#[inline(always)]
pub fn username_hash<O: Octets + ?Sized, R: Repeat>(octets: &O, at: u32, length: u32, seed: u64, repeat: R) -> u64 {
    hash(octets, at, length, NOWHERE, seed, repeat)
}

/// Like [`username_hash`], but the NULs at the end of the four bytes with index `blanks_at` are hashed as spaces.
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

/// Replaces the trailing NULs of four bytes, which are not all NUL, by spaces.
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

/// The upper and the lower half of a word.
#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    [(word >> 16) as u16, word as u16]
}

/// Whether a message of type `kind` is a STUN server's response to a Binding Request.
#[inline(always)]
pub fn is_binding_answer(kind: u16) -> bool {
    kind == message::BINDING_RESPONSE || kind == message::BINDING_ERROR_RESPONSE
}

#[cfg(test)]
mod tests;
