use std::fmt;

use super::Fault;

/// A type of CWMP (TR-106 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `string`
    String,
    /// `unsignedInt`, 32 bits
    UnsignedInt,
    /// `int`, 32 bits
    Int,
    /// `boolean`
    Boolean,
}

impl Kind {
    /// The type's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::UnsignedInt => "unsignedInt",
            Self::Int => "int",
            Self::Boolean => "boolean",
        }
    }
}

/// A parameter's value; displays as CWMP writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `string`
    String(String),
    /// `unsignedInt`
    UnsignedInt(u32),
    /// `int`
    Int(i32),
    /// `boolean`
    Boolean(bool),
}

impl Value {
    /// The value's type.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::String(_) => Kind::String,
            Self::UnsignedInt(_) => Kind::UnsignedInt,
            Self::Int(_) => Kind::Int,
            Self::Boolean(_) => Kind::Boolean,
        }
    }

    /// Reads a value of `kind`: another type is fault 9006, a number out of range 9007 (DM-3).
    pub fn parse(kind: Kind, text: &str) -> Result<Self, Fault> {
        Ok(match kind {
            Kind::String => Self::String(text.to_owned()),
            Kind::UnsignedInt => Self::UnsignedInt(number(text)?),
            Kind::Int => Self::Int(number(text)?),
            Kind::Boolean => match text {
                "1" | "true" => Self::Boolean(true),
                "0" | "false" => Self::Boolean(false),
                _ => return Err(Fault::InvalidParameterType),
            },
        })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, Fault> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::InvalidParameterType);
    }
    text.parse().map_err(|_| Fault::InvalidParameterValue)
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => formatter.write_str(text),
            Self::UnsignedInt(number) => number.fmt(formatter),
            Self::Int(number) => number.fmt(formatter),
            Self::Boolean(truth) => u8::from(*truth).fmt(formatter),
        }
    }
}
