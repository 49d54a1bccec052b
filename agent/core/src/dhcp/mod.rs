//! DHCP messages (RFC 2131, RFC 2132, RFC 3396): [`Message`] parses a frame, [`Builder`] builds one.

mod builder;
mod message;
#[cfg(test)]
mod tests;

pub use builder::{Builder, Tag};
pub use message::{Message, MessageError};

use std::{fmt, time::Duration};

use tr111_common::dhcp4::{CHADDR, Fixed};

/// A client's hardware address, of at most 16 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareAddress {
    /// Zero-padded beyond `length`.
    bytes: [u8; CHADDR],
    length: u8,
}

impl HardwareAddress {
    /// The hardware address in a message.
    pub fn of(fixed: &Fixed) -> Self {
        Self::new(fixed.chaddr.first(), fixed.hlen)
    }

    /// The first `length` bytes of `bytes`, at most 16.
    pub fn new(mut bytes: [u8; CHADDR], length: u8) -> Self {
        let length = length.min(CHADDR as u8);
        bytes[usize::from(length)..].fill(0);
        Self { bytes, length }
    }

    /// A hardware address of these bytes; `None` if there are more than 16.
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

/// Writes hexadecimal bytes with colons between them.
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
    /// A finite lease time.
    For(Duration),
    /// 0xFFFFFFFF: an infinite lease.
    Infinite,
}

impl Lease {
    /// The lease time for the option's value in seconds.
    pub fn from_seconds(seconds: u32) -> Self {
        if seconds == u32::MAX { Self::Infinite } else { Self::For(Duration::from_secs(u64::from(seconds))) }
    }
}
