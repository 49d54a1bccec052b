//! Parser of the form-encoded query (TR-111 2.2.2.3, HTML 4.01 17.13.4).

use super::{Field, Refusal, uri};
use crate::secret::DIGEST;

const SHA256_DIGITS: usize = 64;

/// A canonical decimal number. The signature covers its digits; the checks use its value (T-53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a> {
    /// The digits, without leading zeros.
    pub digits: &'a [u8],
    /// The value.
    pub value: u64,
}

impl<'a> Number<'a> {
    fn read(digits: &'a [u8], field: Field) -> Result<Self, Refusal> {
        let canonical = matches!(digits, [b'0'] | [b'1'..=b'9', ..]);
        let step = |value: u64, &byte: &u8| {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 { None } else { value.checked_mul(10)?.checked_add(digit.into()) }
        };
        canonical
            .then(|| digits.iter().try_fold(0, step))
            .flatten()
            .map(|value| Self { digits, value })
            .ok_or(Refusal::BadNumber(field))
    }
}

/// The value of a field, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'a> {
    wire: &'a [u8],
    escaped: bool,
}

impl<'a> Encoded<'a> {
    /// Whether the value can be decoded: each `%` is followed by two hexadecimal digits.
    pub fn is_sound(self) -> bool {
        !self.escaped || uri::is_sound(self.wire)
    }

    /// The bytes on the wire.
    pub fn wire(self) -> &'a [u8] {
        self.wire
    }

    /// Whether the value has a `+` or a `%`, so that it differs from the bytes on the wire.
    pub fn is_escaped(self) -> bool {
        self.escaped
    }

    /// Passes the decoded value to `sink` in pieces, without allocating.
    pub fn decode(self, mut sink: impl FnMut(&[u8])) {
        let mut rest = self.wire;
        if !self.escaped {
            return sink(rest);
        }
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'+' | b'%')) {
            sink(&rest[..at]);
            let (byte, length) = match rest[at..] {
                [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    (digit(high) << 4 | digit(low), 3)
                }
                [b'%', ..] => (b'%', 1),
                _ => (b' ', 1),
            };
            sink(&[byte]);
            rest = &rest[at + length..];
        }
        sink(rest);
    }
}

/// The value of a hexadecimal digit; other bytes are not passed.
fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20).wrapping_sub(b'a').wrapping_add(10) & 0x0f,
    }
}

/// The digits of a signature. They are decoded only when an HMAC is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignatureDigits<'a>(&'a [u8; 2 * DIGEST]);

impl<'a> SignatureDigits<'a> {
    fn read(wire: &'a [u8]) -> Result<Self, Refusal> {
        // Without early exit, so that the compiler can vectorise the loop.
        if !wire.iter().fold(true, |all, byte| all & byte.is_ascii_hexdigit()) {
            return Err(Refusal::SignatureForm);
        }
        match (wire.try_into(), wire.len()) {
            (Ok(digits), _) => Ok(Self(digits)),
            (_, SHA256_DIGITS) => Err(Refusal::Sha256Signature),
            _ => Err(Refusal::SignatureForm),
        }
    }

    pub(super) fn value(self) -> [u8; DIGEST] {
        std::array::from_fn(|at| digit(self.0[2 * at]) << 4 | digit(self.0[2 * at + 1]))
    }
}

/// Checks a number as soon as it is parsed.
pub(super) trait Judge<'a>: Fn(Field, Number<'a>) -> Result<(), Refusal> {}

impl<'a, F: Fn(Field, Number<'a>) -> Result<(), Refusal>> Judge<'a> for F {}

impl Field {
    /// The field with this name.
    #[inline]
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"ts" => Self::Ts,
            b"id" => Self::Id,
            b"un" => Self::Un,
            b"cn" => Self::Cn,
            b"sig" => Self::Sig,
            _ => return None,
        })
    }
}

/// The five fields during parsing, in any order (T-52).
#[derive(Default)]
pub(super) struct Fields<'a> {
    ts: Option<Number<'a>>,
    id: Option<Number<'a>>,
    un: Option<Encoded<'a>>,
    cn: Option<Encoded<'a>>,
    sig: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Stores the value of a field; `escaped` says whether it has a `+` or a `%`.
    ///
    /// In `un` and `cn`, a `%` without two hexadecimal digits is allowed: an ACS that does not encode sends it, and the
    /// signature shows whether this is one (T-51).
    #[inline]
    pub(super) fn note(
        &mut self,
        field: Field,
        wire: &'a [u8],
        escaped: bool,
        judge: &impl Judge<'a>,
    ) -> Result<(), Refusal> {
        let value = Encoded { wire, escaped };
        match field {
            Field::Un => once(&mut self.un, field, || Ok(value)),
            Field::Cn => once(&mut self.cn, field, || Ok(value)),
            _ if !value.is_sound() => Err(Refusal::BadEncoding(field)),
            Field::Ts => once(&mut self.ts, field, || number(wire, field, judge)),
            Field::Id => once(&mut self.id, field, || number(wire, field, judge)),
            Field::Sig => once(&mut self.sig, field, || Ok(wire)),
        }
    }

    pub(super) fn finish(self) -> Result<Query<'a>, Refusal> {
        fn present<T>(value: Option<T>, field: Field) -> Result<T, Refusal> {
            value.ok_or(Refusal::MissingField(field))
        }
        Ok(Query {
            timestamp: present(self.ts, Field::Ts)?,
            id: present(self.id, Field::Id)?,
            username: present(self.un, Field::Un)?,
            nonce: present(self.cn, Field::Cn)?,
            signature: SignatureDigits::read(present(self.sig, Field::Sig)?)?,
        })
    }
}

fn number<'a>(wire: &'a [u8], field: Field, judge: &impl Judge<'a>) -> Result<Number<'a>, Refusal> {
    let number = Number::read(wire, field)?;
    judge(field, number).map(|()| number)
}

/// Sets `slot`; an error if it is set already.
fn once<T>(slot: &mut Option<T>, field: Field, value: impl FnOnce() -> Result<T, Refusal>) -> Result<(), Refusal> {
    if slot.is_some() {
        return Err(Refusal::DuplicateField(field));
    }
    *slot = Some(value()?);
    Ok(())
}

/// The fields of a request, all well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Query<'a> {
    pub(super) timestamp: Number<'a>,
    pub(super) id: Number<'a>,
    pub(super) username: Encoded<'a>,
    pub(super) nonce: Encoded<'a>,
    pub(super) signature: SignatureDigits<'a>,
}
