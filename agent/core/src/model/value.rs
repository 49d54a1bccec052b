use std::fmt;

use super::Fault;

/// A CWMP type (TR-106 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The type `string`.
    String,
    /// The type `unsignedInt`, 32 bits.
    UnsignedInt,
    /// The type `int`, 32 bits.
    Int,
    /// The type `boolean`.
    Boolean,
}

impl Kind {
    /// Name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::UnsignedInt => "unsignedInt",
            Self::Int => "int",
            Self::Boolean => "boolean",
        }
    }
}

/// The value of a parameter. Displayed as CWMP writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A value of the type `string`.
    String(String),
    /// A value of the type `unsignedInt`.
    UnsignedInt(u32),
    /// A value of the type `int`.
    Int(i32),
    /// A value of the type `boolean`.
    Boolean(bool),
}

impl Value {
    /// Type of the value.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::String(_) => Kind::String,
            Self::UnsignedInt(_) => Kind::UnsignedInt,
            Self::Int(_) => Kind::Int,
            Self::Boolean(_) => Kind::Boolean,
        }
    }

    /// Parses a value of type `kind`: another type is fault 9006, a number out of range is fault 9007 (DM-3).
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
