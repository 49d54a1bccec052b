//! What a ring carries: a header, then the frame as the program saw it.

use crate::{counter::Class, headers::Segment};

/// Header of an event. The frame follows, [`Header::captured`] bytes of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Kernel time of the frame, `bpf_ktime_get_boot_ns`.
    pub time: u64,
    /// Where the frame was seen, its VLANs normalised from frame and metadata.
    pub segment: Segment,
    /// Bytes of the frame that follow.
    pub captured: u32,
    /// VLAN tag that the kernel took out of the frame, `0x1_0000 | tci`, or 0 without one.
    pub metadata_tag: u32,
    /// A [`Class`] as its number.
    pub class: u8,
    /// A [`crate::counter::Hook`] as its number.
    pub hook: u8,
    /// Always 0.
    pub reserved: [u8; 6],
}

/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = 32;

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// An event that a ring's record cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Shorter than its header, or than the frame that the header announces.
    Truncated {
        /// Bytes that the record should have.
        needed: usize,
        /// Bytes that it has.
        length: usize,
    },
    /// A class that this version does not know.
    UnknownClass(u8),
    /// A hook that this version does not know.
    UnknownHook(u8),
}

/// An event as the agent reads it from a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Kernel time of the frame, boot time in nanoseconds.
    pub time: u64,
    /// Where the frame was seen.
    pub segment: Segment,
    /// VLAN tag control information that the kernel took out of the frame.
    pub metadata_tag: Option<u16>,
    /// What the program took the frame for.
    pub class: Class,
    /// Where the program is attached; of what a port of a bridge forwards, the hook of the bridge that did not see it.
    pub hook: crate::counter::Hook,
    /// The frame.
    pub frame: &'a [u8],
}

impl<'a> Event<'a> {
    /// Reads one record of a ring.
    ///
    /// # Errors
    /// See [`RecordError`]; a record that the programs of this version wrote never fails.
    pub fn parse(record: &'a [u8]) -> Result<Self, RecordError> {
        let truncated = |needed| RecordError::Truncated { needed, length: record.len() };
        let (header, rest) = record.split_at_checked(HEADER_BYTES).ok_or(truncated(HEADER_BYTES))?;
        let u16_at = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let time = u64::from(u32_at(0)) | u64::from(u32_at(4)) << 32;
        let captured = u32_at(16) as usize;
        let frame = rest.get(..captured).ok_or(truncated(HEADER_BYTES + captured))?;
        let tag = u32_at(20);
        Ok(Self {
            time: if cfg!(target_endian = "little") { time } else { time.rotate_left(32) },
            segment: Segment { ifindex: u32_at(8), vlan: [u16_at(12), u16_at(14)] },
            metadata_tag: (tag != 0).then_some(tag as u16),
            class: *Class::ALL.get(usize::from(header[24])).ok_or(RecordError::UnknownClass(header[24]))?,
            hook: *crate::counter::Hook::ALL
                .get(usize::from(header[25]))
                .ok_or(RecordError::UnknownHook(header[25]))?,
            frame,
        })
    }
}

#[cfg(test)]
mod tests;
