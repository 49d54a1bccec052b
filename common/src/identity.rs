//! The Device Identity in DHCP option 125 (TR-111 1.2.5, RFC 3925), read as it comes.
//!
//! [`Scan`] takes the bytes of the joined option (RFC 3396: all instances, in order) piece by piece, so it runs in the
//! kernel, where the instances lie apart, and over a joined slice. It keeps spans, not bytes: offsets count from the
//! start of the joined option. [`Scan::conclude`] then says what the option means.

use crate::{
    config::{Config, Dialect},
    frame::Octets,
};

/// IANA enterprise number of the DSL Forum, now the Broadband Forum (TR-111 1.2.5).
pub const DSL_FORUM: u32 = 3561;

/// Longest serial number and product class, in bytes (TR-111 Table 2).
pub const TEXT_MAXIMUM: u16 = 64;

/// Sub-options of enterprise 3561 in option 125 (TR-111 Table 1). Codes 0 and 255 are ordinary codes here.
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

/// Number of sub-option codes that are kept: 1 to 6.
const KEPT: usize = 6;
/// First bytes of an OUI that are kept: `00:25:6D` is the longest form that any knob accepts.
const OUI_BYTES: usize = 8;

/// Where a part of an identity stands in the joined option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u16,
    /// Bytes, trailing NULs left out.
    pub length: u16,
}

/// A Device Identity that was found: where its texts stand, and its OUI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Six upper-case hexadecimal digits.
    pub oui: [u8; 6],
    /// The serial number, 1 to 64 bytes.
    pub serial_number: Span,
    /// The product class, at most 64 bytes; empty where the device gives none.
    pub product_class: Span,
    /// The option follows TR-124's layout (requirement T-21).
    pub tr124: bool,
}

/// Why a message has no Device Identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// No option 125.
    Absent,
    /// Option 125 without an element of an accepted enterprise.
    WrongEnterprise,
    /// OUI or serial number missing or empty (OPT-8).
    Incomplete,
    /// The OUI is not six hexadecimal digits (DM-5).
    BadOui,
    /// Serial number or product class above 64 bytes (DM-6, DM-7).
    TooLong,
    /// A control character or an inner NUL (SEC-9).
    ControlCharacter,
    /// A length runs past the end of its container (T-19b).
    Damaged,
}

impl Refusal {
    /// Every refusal, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Absent,
        Self::WrongEnterprise,
        Self::Incomplete,
        Self::BadOui,
        Self::TooLong,
        Self::ControlCharacter,
        Self::Damaged,
    ];

    /// The value of the metric's `result` label.
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Field {
    start: u16,
    /// Bytes up to the last one that is not NUL.
    length: u16,
    present: bool,
    control: bool,
    /// Trailing NULs so far.
    nuls: u16,
}

/// Most bytes of a text that one call takes.
pub const RUN: u32 = 8;

const ENTERPRISE: u8 = 0;
const ELEMENT_LENGTH: u8 = 1;
const CODE: u8 = 2;
const LENGTH: u8 = 3;
const DATA: u8 = 4;
const FOREIGN: u8 = 5;

/// The state of reading one message's option 125.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Scan {
    enterprise: u32,
    position: u16,
    element_start: u16,
    stage: u8,
    enterprise_bytes: u8,
    element_left: u8,
    code: u8,
    left: u8,
    keep: bool,
    ours: bool,
    damaged: bool,
    duplicate: bool,
    nul: bool,
    /// The first bytes of the OUI, the first one on top.
    oui: u64,
    /// Where the length byte of the first element of [`DSL_FORUM`] stands in the frame, 0 without one.
    element_length_at: u32,
    fields: [Field; KEPT],
}

impl Default for Scan {
    fn default() -> Self {
        Self::new()
    }
}

impl Scan {
    /// Nothing read yet.
    pub const fn new() -> Self {
        Self {
            enterprise: 0,
            position: 0,
            element_start: 0,
            stage: ENTERPRISE,
            enterprise_bytes: 0,
            element_left: 0,
            code: 0,
            left: 0,
            keep: false,
            ours: false,
            damaged: false,
            duplicate: false,
            nul: false,
            oui: 0,
            element_length_at: 0,
            fields: [Field { start: 0, length: 0, present: false, control: false, nuls: 0 }; KEPT],
        }
    }

    /// Takes the next bytes of the joined option from `at`, at most `available` of them, and returns how many, so that
    /// the kernel's loop turns once for a sub-option of up to [`RUN`] bytes. A header that is cut by the end of an
    /// instance of the option (RFC 3396) is taken byte by byte.
    #[inline(always)]
    pub fn feed<O: Octets + ?Sized>(&mut self, octets: &O, at: u32, available: u32, config: &Config) -> u32 {
        let mut taken = 0;
        if self.stage == CODE && available >= 2 && self.element_left >= 2 {
            self.take_code(octets.octet(at));
            self.take_length(octets.octet(at + 1));
            taken = 2;
        } else if self.stage == ENTERPRISE && self.enterprise_bytes == 0 && available >= 5 {
            self.element_start = self.position;
            self.enterprise = octets.be32(at);
            self.position = self.position.wrapping_add(4);
            self.take_element_length(octets.octet(at + 4), at + 4, config);
            taken = 5;
        } else if self.stage != DATA && self.stage != FOREIGN {
            self.take_header_byte(octets.octet(at), at, config);
            taken = 1;
        }
        if self.stage == DATA || self.stage == FOREIGN {
            taken += self.take_run(octets, at + taken, available - taken);
        }
        taken
    }

    /// Takes up to [`RUN`] bytes of a text, or of an element that is not ours.
    #[inline(always)]
    fn take_run<O: Octets + ?Sized>(&mut self, octets: &O, at: u32, available: u32) -> u32 {
        let left = if self.stage == DATA { self.left } else { self.element_left };
        let run = u32::from(left).min(available).min(RUN);
        if self.stage == DATA && self.keep {
            self.keep_run(octets, at, run);
        }
        self.position = self.position.wrapping_add(run as u16);
        self.element_left -= run as u8;
        self.left = self.left.wrapping_sub(run as u8);
        if self.stage == DATA && self.left == 0 {
            self.close_field();
        } else if self.element_left == 0 {
            self.stage = ENTERPRISE;
        }
        run
    }

    /// Takes one byte of an enterprise number, a code or a length.
    #[inline(always)]
    fn take_header_byte(&mut self, byte: u8, at: u32, config: &Config) {
        match self.stage {
            ENTERPRISE => {
                if self.enterprise_bytes == 0 {
                    self.enterprise = 0;
                    self.element_start = self.position;
                }
                self.position = self.position.wrapping_add(1);
                self.enterprise = self.enterprise << 8 | u32::from(byte);
                self.enterprise_bytes += 1;
                if self.enterprise_bytes == 4 {
                    self.stage = ELEMENT_LENGTH;
                }
            }
            ELEMENT_LENGTH => self.take_element_length(byte, at, config),
            CODE => self.take_code(byte),
            _ => self.take_length(byte),
        }
    }

    #[inline(always)]
    fn take_element_length(&mut self, byte: u8, at: u32, config: &Config) {
        self.position = self.position.wrapping_add(1);
        if self.enterprise == DSL_FORUM && self.element_length_at == 0 {
            self.element_length_at = at;
        }
        self.element_left = byte;
        self.enterprise_bytes = 0;
        self.stage = if config.accepts(self.enterprise) {
            self.ours = true;
            CODE
        } else {
            FOREIGN
        };
        if byte == 0 {
            self.stage = ENTERPRISE;
        }
    }

    #[inline(always)]
    fn take_code(&mut self, byte: u8) {
        self.position = self.position.wrapping_add(1);
        self.code = byte;
        self.element_left -= 1;
        self.stage = LENGTH;
        if self.element_left == 0 {
            // A code without a length.
            self.discard_element();
        }
    }

    #[inline(always)]
    fn take_length(&mut self, byte: u8) {
        self.position = self.position.wrapping_add(1);
        self.element_left -= 1;
        self.left = byte;
        if byte > self.element_left {
            self.discard_element();
            return;
        }
        self.open_field();
        self.stage = DATA;
        if byte == 0 {
            self.close_field();
        }
    }

    /// Ends the option. An element that is still open was cut off, and is discarded whole.
    #[inline(always)]
    pub fn finish(&mut self) {
        if self.stage != ENTERPRISE {
            self.discard_element();
        } else if self.enterprise_bytes != 0 {
            self.damaged = true;
        }
    }

    /// Whether any byte was read.
    pub fn is_present(&self) -> bool {
        self.position != 0
    }

    /// A sub-option came twice; the first was taken (T-19a).
    pub fn has_duplicate(&self) -> bool {
        self.duplicate
    }

    /// Trailing NULs were left out (T-18).
    pub fn has_trailing_nul(&self) -> bool {
        self.nul
    }

    /// Whether a length ran past the end of its container.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Any part of a Gateway Identity is there (codes 4 to 6).
    #[inline(always)]
    pub fn has_gateway_part(&self) -> bool {
        let [_, _, _, oui, serial, class] = self.fields;
        oui.present || serial.present || class.present
    }

    /// Where the length byte of the first element of [`DSL_FORUM`] stands in the frame.
    #[inline(always)]
    pub fn element_length_at(&self) -> Option<u32> {
        if self.element_length_at == 0 { None } else { Some(self.element_length_at) }
    }

    /// What the option says, once [`Scan::finish`] was called.
    ///
    /// # Errors
    /// Why it is no Device Identity.
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

    /// The kept span of sub-option `code` (1 to 6), whatever it holds.
    pub fn span(&self, code: u8) -> Option<Span> {
        let field = self.fields.get(usize::from(code).wrapping_sub(1))?;
        field.present.then_some(Span { start: field.start, length: field.length })
    }

    #[inline(always)]
    fn field(&mut self) -> Option<&mut Field> {
        self.fields.get_mut(usize::from(self.code).wrapping_sub(1))
    }

    #[inline(always)]
    fn open_field(&mut self) {
        let start = self.position;
        self.keep = false;
        if self.code == sub_option::DEVICE_MANUFACTURER_OUI && !self.fields[0].present {
            self.oui = 0;
        }
        if let Some(field) = self.field() {
            if field.present {
                self.duplicate = true;
            } else {
                *field = Field { start, present: true, ..Field::default() };
                self.keep = true;
            }
        }
    }

    /// Keeps what matters of the next `run` bytes of a text: where its last byte stands that is not NUL, and whether a
    /// control character or an inner NUL is among them. All eight bytes of a word are judged at once, each in its own
    /// byte of the masks.
    #[inline(always)]
    fn keep_run<O: Octets + ?Sized>(&mut self, octets: &O, at: u32, run: u32) {
        const HIGH: u64 = 0x8080_8080_8080_8080;
        const LOW_SEVEN: u64 = !HIGH;
        const BELOW_SPACE: u64 = 0x6060_6060_6060_6060;

        if run == 0 {
            return;
        }
        let word = octets.be64(at) & (u64::MAX << (64 - 8 * (run & 15)));
        let low = word & LOW_SEVEN;
        let text = ((low + LOW_SEVEN) | word) & HIGH;
        let printable = (low + BELOW_SPACE) | word;
        let delete = word ^ LOW_SEVEN;
        let not_delete = ((delete & LOW_SEVEN) + LOW_SEVEN) | delete;
        let control = text & !(printable & not_delete) != 0;

        let position = self.position;
        let is_oui = self.code == sub_option::DEVICE_MANUFACTURER_OUI;
        let Some(field) = self.field() else { return };
        let first = position.wrapping_sub(field.start);
        if text == 0 {
            field.nuls += run as u16;
        } else {
            let behind = text.trailing_zeros() / 8;
            let length = RUN - behind;
            let inner_nul = field.nuls != 0 || text >> (8 * behind) != HIGH >> (8 * behind);
            field.control |= control || inner_nul;
            field.nuls = (run - length) as u16;
            field.length = first + length as u16;
        }
        if is_oui && usize::from(first) < OUI_BYTES {
            self.oui |= word >> (8 * first);
        }
    }

    #[inline(always)]
    fn close_field(&mut self) {
        if self.keep {
            let stripped = self.field().is_some_and(|field| field.nuls != 0);
            self.nul |= stripped;
        }
        self.stage = if self.element_left == 0 { ENTERPRISE } else { CODE };
    }

    /// T-19b: a damaged element is discarded whole; what earlier elements gave stays.
    #[inline(always)]
    fn discard_element(&mut self) {
        self.damaged = true;
        let start = self.element_start;
        for field in &mut self.fields {
            if field.start >= start {
                *field = Field::default();
            }
        }
        self.stage = if self.element_left == 0 { ENTERPRISE } else { FOREIGN };
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

#[inline(always)]
fn is_separator(byte: u8) -> bool {
    byte == b':' || byte == b'-'
}

/// Three raw bytes as six digits (T-16, `lenient_oui`); bytes that are NUL at the end count.
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
