//! DHCP messages (RFC 2131, RFC 2132, RFC 3396): [`Message`] reads one out of a frame, [`Builder`] makes a frame.

mod builder;
mod message;
#[cfg(test)]
mod tests;

pub use builder::{Builder, Tag};
pub use message::{Message, MessageError};

use std::{fmt, time::Duration};

use tr111_common::dhcp4::{CHADDR, Fixed};

/// A client's hardware address, of up to 16 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareAddress {
    /// Zero behind `length`.
    bytes: [u8; CHADDR],
    length: u8,
}

impl HardwareAddress {
    /// The address in a message.
    pub fn of(fixed: &Fixed) -> Self {
        Self::new(fixed.chaddr.first(), fixed.hlen)
    }

    /// The first `length` of `bytes`, at most all of them.
    pub fn new(mut bytes: [u8; CHADDR], length: u8) -> Self {
        let length = length.min(CHADDR as u8);
        bytes[usize::from(length)..].fill(0);
        Self { bytes, length }
    }

    /// An address of these bytes; `None` where they are more than 16.
    pub fn from_bytes(address: &[u8]) -> Option<Self> {
        let mut bytes = [0; CHADDR];
        bytes.get_mut(..address.len())?.copy_from_slice(address);
        Some(Self { bytes, length: address.len() as u8 })
    }

    /// The bytes of the address.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl From<[u8; 6]> for HardwareAddress {
    fn from(mac: [u8; 6]) -> Self {
        let mut bytes = [0; CHADDR];
        bytes[..6].copy_from_slice(&mac);
        Self { bytes, length: 6 }
    }
}

/// Bytes in hexadecimal, separated by colons.
impl fmt::Display for HardwareAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.as_bytes().iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(formatter, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for HardwareAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A lease time (option 51).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// So long.
    For(Duration),
    /// 0xFFFFFFFF: for ever.
    Infinite,
}

impl Lease {
    /// From the option's value in seconds.
    pub fn from_seconds(seconds: u32) -> Self {
        if seconds == u32::MAX { Self::Infinite } else { Self::For(Duration::from_secs(u64::from(seconds))) }
    }
}
