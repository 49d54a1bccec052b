//! The Device Identity in DHCP option 125 (TR-111 1.2.5, RFC 3925).
//!
//! [`Joined`] joins the instances of the option into one value (RFC 3396). [`Scan`] parses the joined value and keeps
//! spans instead of bytes; their offsets are relative to the start of the joined value. [`Scan::conclude`] validates
//! the result.

use crate::{
    config::{Config, Dialect},
    frame::{GATHERED_MAXIMUM, GATHERED_WORDS, Octets, Repeat, Source, Step, first_bytes},
    words::Words,
};

/// IANA enterprise number of the DSL Forum, now the Broadband Forum (TR-111 1.2.5).
pub const DSL_FORUM: u32 = 3561;

/// Greatest length of a serial number and of a product class, in bytes (TR-111 Table 2).
pub const TEXT_MAXIMUM: u16 = 64;

/// Sub-option codes of enterprise 3561 in option 125 (TR-111 Table 1). The codes 0 and 255 have no special meaning.
pub mod sub_option {
    /// Manufacturer OUI of the device.
    pub const DEVICE_MANUFACTURER_OUI: u8 = 1;
    /// Serial number of the device.
    pub const DEVICE_SERIAL_NUMBER: u8 = 2;
    /// Product class of the device.
    pub const DEVICE_PRODUCT_CLASS: u8 = 3;
    /// Manufacturer OUI of the gateway.
    pub const GATEWAY_MANUFACTURER_OUI: u8 = 4;
    /// Serial number of the gateway.
    pub const GATEWAY_SERIAL_NUMBER: u8 = 5;
    /// Product class of the gateway.
    pub const GATEWAY_PRODUCT_CLASS: u8 = 6;
}

/// Sub-option codes that are kept: 1 to 6.
const KEPT: usize = 6;
/// Bytes of an OUI that are kept; `00:25:6D` is the longest accepted form.
const OUI_BYTES: usize = 8;

/// Position of a part of an identity in the joined value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u16,
    /// Length in bytes, without trailing NULs.
    pub length: u16,
}

/// A valid Device Identity: its OUI and the positions of its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Six upper-case hexadecimal digits.
    pub oui: [u8; 6],
    /// The serial number, 1 to 64 bytes.
    pub serial_number: Span,
    /// The product class, at most 64 bytes; empty if the device sends none.
    pub product_class: Span,
    /// Whether the option has the layout of TR-124 (T-21).
    pub tr124: bool,
}

/// Reasons for which a message has no valid Device Identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// The message has no option 125.
    Absent,
    /// Option 125 has no element of an accepted enterprise number.
    WrongEnterprise,
    /// The OUI or the serial number is missing or empty (OPT-8).
    Incomplete,
    /// The OUI is not six hexadecimal digits (DM-5).
    BadOui,
    /// The serial number or the product class has more than 64 bytes (DM-6, DM-7).
    TooLong,
    /// A text contains a control character or a NUL that is not trailing (SEC-9).
    ControlCharacter,
    /// A length extends past the end of its container (T-19b).
    Damaged,
}

impl Refusal {
    /// All refusals, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Absent,
        Self::WrongEnterprise,
        Self::Incomplete,
        Self::BadOui,
        Self::TooLong,
        Self::ControlCharacter,
        Self::Damaged,
    ];

    /// Value of the metric label `result`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::WrongEnterprise => "wrong_enterprise",
            Self::Incomplete => "incomplete",
            Self::BadOui => "bad_oui",
            Self::TooLong => "too_long",
            Self::ControlCharacter => "control_character",
            Self::Damaged => "damaged",
        }
    }
}

/// The joined values of all instances of option 125 in a message (RFC 3396), at most [`GATHERED_MAXIMUM`] bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Joined {
    value: Words<GATHERED_WORDS>,
    length: u32,
    /// Offset of the last instance.
    last: u32,
    /// Number of instances, including those that did not fit.
    instances: u16,
    /// 1 if an instance did not fit.
    overflow: u8,
    reserved: [u8; 5],
}

impl Joined {
    /// Removes all instances.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.length = 0;
        self.last = 0;
        self.instances = 0;
        self.overflow = 0;
    }

    /// Appends the value of an instance: the `length` bytes at `at`, at most 255.
    #[inline(always)]
    pub fn append<S: Source + ?Sized>(&mut self, source: &S, at: u32, length: u32) {
        self.instances = self.instances.saturating_add(1);
        self.last = self.length;
        if length == 0 {
            return;
        }
        let place = self.length;
        let fits = place + length <= GATHERED_MAXIMUM && source.copy_to(at, length, &mut self.value, place);
        if fits {
            self.length = place + length;
        } else {
            self.overflow = 1;
        }
    }

    /// Number of instances of the option.
    #[inline(always)]
    pub const fn instances(&self) -> u16 {
        self.instances
    }

    /// Offset of the last instance in the joined value.
    #[inline(always)]
    pub const fn last(&self) -> u32 {
        self.last
    }

    /// Length of the joined value in bytes.
    #[inline(always)]
    pub const fn length(&self) -> u32 {
        self.length
    }

    /// The first `N` words of the joined value; bytes beyond its length are undefined. `None` if the buffer is shorter.
    #[inline(always)]
    pub fn first<const N: usize>(&self) -> Option<Words<N>> {
        self.value.0.first_chunk().copied().map(Words)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Field {
    start: u16,
    /// Length without trailing NULs.
    length: u16,
    /// Number of trailing NULs.
    nuls: u16,
    present: bool,
    control: bool,
}

/// Length of the enterprise number and the length byte of an element (RFC 3925 4).
const ELEMENT_HEADER: u32 = 5;
/// Length of the code and the length byte of a sub-option.
const SUB_OPTION_HEADER: u32 = 2;

/// The parsed option 125 of a message.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Scan {
    /// The first bytes of the OUI, as a big-endian word.
    oui: u64,
    at: u32,
    end: u32,
    element_start: u32,
    element_end: u32,
    /// Offset of the length byte of the first element of [`DSL_FORUM`]; 0 without one.
    element_length_at: u32,
    ours: bool,
    damaged: bool,
    duplicate: bool,
    nul: bool,
    fields: [Field; KEPT],
}

impl Default for Scan {
    fn default() -> Self {
        Self::new()
    }
}

impl Scan {
    /// The scan of an empty value.
    pub const fn new() -> Self {
        Self {
            oui: 0,
            at: 0,
            end: 0,
            element_start: 0,
            element_end: 0,
            element_length_at: 0,
            ours: false,
            damaged: false,
            duplicate: false,
            nul: false,
            fields: [Field { start: 0, length: 0, nuls: 0, present: false, control: false }; KEPT],
        }
    }

    /// Parses a joined value of `length` bytes, at most 65,535, because spans have 16 bits.
    #[inline(always)]
    pub fn read<O: Octets + ?Sized, R: Repeat>(&mut self, octets: &O, length: u32, config: &Config, repeat: R) {
        self.end = length;
        // Each iteration consumes a header, which has at least two bytes.
        repeat.repeat(length.div_ceil(SUB_OPTION_HEADER), &mut ScanStep { scan: self, octets, config, repeat });
    }

    /// Parses the value in `joined`.
    #[inline(always)]
    pub fn read_joined<R: Repeat>(&mut self, joined: &Joined, config: &Config, repeat: R) {
        self.read(&joined.value, joined.length, config, repeat);
        self.damaged |= joined.overflow != 0;
    }

    /// Whether the message has an option 125.
    pub fn is_present(&self) -> bool {
        self.end != 0
    }

    /// Whether a sub-option occurred twice; the first one is used (T-19a).
    pub fn has_duplicate(&self) -> bool {
        self.duplicate
    }

    /// Whether trailing NULs were removed (T-18).
    pub fn has_trailing_nul(&self) -> bool {
        self.nul
    }

    /// Whether a length extended past the end of its container.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Whether any part of a Gateway Identity is present (codes 4 to 6).
    #[inline(always)]
    pub fn has_gateway_part(&self) -> bool {
        let [_, _, _, oui, serial, class] = self.fields;
        oui.present || serial.present || class.present
    }

    /// Offset in the joined value of the length byte of the first element of [`DSL_FORUM`].
    #[inline(always)]
    pub fn element_length_at(&self) -> Option<u32> {
        if self.element_length_at == 0 { None } else { Some(self.element_length_at) }
    }

    /// Validates the parsed option as a Device Identity.
    ///
    /// # Errors
    /// The reason for which the option is not a valid Device Identity.
    #[inline(always)]
    pub fn conclude(&self, config: &Config) -> Result<Found, Refusal> {
        if !self.is_present() {
            return Err(Refusal::Absent);
        }
        let [oui, second, third, fourth, fifth, sixth] = self.fields;
        let looks_tr124 = fourth.present && !fifth.present && !sixth.present;
        let tr124 = match config.dialect() {
            Dialect::Auto => looks_tr124,
            Dialect::Tr111 => false,
            Dialect::Tr124 => true,
        };
        let (serial, class) = if tr124 { (fourth, second) } else { (second, third) };
        if oui.length == 0 || serial.length == 0 {
            return Err(if self.damaged {
                Refusal::Damaged
            } else if self.ours {
                Refusal::Incomplete
            } else {
                Refusal::WrongEnterprise
            });
        }
        let oui = self.oui_digits(oui, config).ok_or(Refusal::BadOui)?;
        if serial.length > TEXT_MAXIMUM || class.length > TEXT_MAXIMUM {
            return Err(Refusal::TooLong);
        }
        if serial.control || class.control {
            return Err(Refusal::ControlCharacter);
        }
        Ok(Found {
            oui,
            serial_number: Span { start: serial.start, length: serial.length },
            product_class: Span { start: class.start, length: class.length },
            tr124,
        })
    }

    /// The span of sub-option `code` (1 to 6), without validation; `None` if the sub-option is absent.
    pub fn span(&self, code: u8) -> Option<Span> {
        let field = self.fields.get(usize::from(code).wrapping_sub(1))?;
        field.present.then_some(Span { start: field.start, length: field.length })
    }

    #[inline(always)]
    fn oui_digits(&self, field: Field, config: &Config) -> Option<[u8; 6]> {
        let raw = self.oui.to_be_bytes();
        let digits = match field.length {
            6 => [raw[0], raw[1], raw[2], raw[3], raw[4], raw[5]],
            8 if config.lenient_oui != 0 && is_separator(raw[2]) && raw[2] == raw[5] => {
                [raw[0], raw[1], raw[3], raw[4], raw[6], raw[7]]
            }
            1..=3 if config.lenient_oui != 0 && field.length + field.nuls == 3 => return Some(from_raw(raw)),
            _ => return None,
        };
        let mut upper = [0; 6];
        let mut valid = true;
        for (to, from) in upper.iter_mut().zip(digits) {
            valid &= from.is_ascii_hexdigit();
            *to = from.to_ascii_uppercase();
        }
        valid.then_some(upper)
    }
}

struct ScanStep<'a, O: ?Sized, R> {
    scan: &'a mut Scan,
    octets: &'a O,
    config: &'a Config,
    repeat: R,
}

impl<O: Octets + ?Sized, R: Repeat> Step for ScanStep<'_, O, R> {
    /// Parses the header of an element, or one sub-option.
    #[inline(always)]
    fn step(&mut self, _: u32) -> bool {
        let at = self.scan.at;
        if at >= self.scan.end {
            return false;
        }
        if at >= self.scan.element_end { self.open_element(at) } else { self.take_sub_option(at) }
    }
}

impl<O: Octets + ?Sized, R: Repeat> ScanStep<'_, O, R> {
    /// Enters an element of an accepted enterprise number and skips any other. A truncated element ends the parsing.
    #[inline(always)]
    fn open_element(&mut self, at: u32) -> bool {
        let scan = &mut *self.scan;
        let data = at + ELEMENT_HEADER;
        if data > scan.end {
            scan.damaged = true;
            return false;
        }
        let enterprise = self.octets.be32(at);
        if enterprise == DSL_FORUM && scan.element_length_at == 0 {
            scan.element_length_at = data - 1;
        }
        let end = data + u32::from(self.octets.octet(data - 1));
        let accepted = self.config.accepts(enterprise);
        scan.ours |= accepted;
        if end > scan.end {
            scan.damaged = true;
            return false;
        }
        scan.element_start = at;
        scan.element_end = end;
        scan.at = if accepted { data } else { end };
        true
    }

    #[inline(always)]
    fn take_sub_option(&mut self, at: u32) -> bool {
        let scan = &mut *self.scan;
        let value = at + SUB_OPTION_HEADER;
        let length = u32::from(self.octets.octet(at + 1));
        if value > scan.element_end || value + length > scan.element_end {
            // T-19b: a damaged element is discarded as a whole; the values of earlier elements are kept.
            scan.damaged = true;
            scan.at = scan.element_end;
            let from = scan.element_start;
            self.repeat.repeat(KEPT as u32, &mut DiscardStep { fields: &mut scan.fields, from });
            return true;
        }
        scan.at = value + length;
        let code = self.octets.octet(at);
        let Some(field) = scan.fields.get_mut(usize::from(code).wrapping_sub(1)) else { return true };
        if field.present {
            scan.duplicate = true;
            return true;
        }
        *field = Field { start: value as u16, length: length as u16, nuls: 0, present: true, control: false };
        if code == sub_option::DEVICE_MANUFACTURER_OUI {
            scan.oui = first_bytes(self.octets.be64(value), length);
        }
        if length != 0 && self.octets.octet(value + length - 1) == 0 {
            scan.nul = true;
            self.repeat.repeat(length, &mut TrimStep { field, octets: self.octets, value });
        }
        let length = u32::from(field.length);
        self.repeat.repeat(length.div_ceil(8), &mut TextStep { field, octets: self.octets, value, length });
        true
    }
}

/// Clears the fields that start at or after `from`.
struct DiscardStep<'a> {
    fields: &'a mut [Field; KEPT],
    from: u32,
}

impl Step for DiscardStep<'_> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        match self.fields.get_mut(index as usize) {
            Some(field) if u32::from(field.start) >= self.from => *field = Field::default(),
            _ => {}
        }
        true
    }
}

/// T-18: removes one trailing NUL from a text.
struct TrimStep<'a, O: ?Sized> {
    field: &'a mut Field,
    octets: &'a O,
    value: u32,
}

impl<O: Octets + ?Sized> Step for TrimStep<'_, O> {
    #[inline(always)]
    fn step(&mut self, _: u32) -> bool {
        let length = u32::from(self.field.length);
        if length == 0 || self.octets.octet(self.value + length - 1) != 0 {
            return false;
        }
        self.field.length -= 1;
        self.field.nuls += 1;
        true
    }
}

/// SEC-9: looks for control characters, including inner NULs, in eight bytes of a text at once.
struct TextStep<'a, O: ?Sized> {
    field: &'a mut Field,
    octets: &'a O,
    value: u32,
    length: u32,
}

impl<O: Octets + ?Sized> Step for TextStep<'_, O> {
    #[inline(always)]
    fn step(&mut self, index: u32) -> bool {
        const ONES: u64 = u64::MAX / 0xff;
        const HIGH: u64 = ONES << 7;
        const SPACES: u64 = ONES * 0x20;
        const DELETES: u64 = ONES * 0x7f;

        let left = self.length - index * 8;
        let text = self.octets.be64(self.value + index * 8);
        let word = first_bytes(text, left) | (SPACES & !first_bytes(u64::MAX, left));
        // A byte below `limit` causes a borrow, and the first borrow can only come from such a byte.
        let below = |word: u64, limit: u64| word.wrapping_sub(limit) & !word & HIGH;
        if below(word, SPACES) | below(word ^ DELETES, ONES) != 0 {
            self.field.control = true;
            return false;
        }
        true
    }
}

#[inline(always)]
fn is_separator(byte: u8) -> bool {
    byte == b':' || byte == b'-'
}

/// Converts an OUI of three raw bytes to six digits (T-16, `lenient_oui`); trailing NUL bytes are part of the OUI.
#[inline(always)]
fn from_raw(raw: [u8; OUI_BYTES]) -> [u8; 6] {
    [
        digit(raw[0] >> 4),
        digit(raw[0] & 15),
        digit(raw[1] >> 4),
        digit(raw[1] & 15),
        digit(raw[2] >> 4),
        digit(raw[2] & 15),
    ]
}

#[inline(always)]
fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
