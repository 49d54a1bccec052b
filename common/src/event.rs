//! Records of the ring buffer: a header, followed by the frame as the program saw it.

use crate::{counter::Class, headers::Segment};

/// Header of a record. [`Header::captured`] bytes of the frame follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Boot time of the frame in nanoseconds (`bpf_ktime_get_boot_ns`).
    pub time: u64,
    /// Interface and VLANs of the frame; the VLANs include the tag in the metadata.
    pub segment: Segment,
    /// Bytes of the frame that follow.
    pub captured: u32,
    /// VLAN tag that the kernel removed from the frame, as `0x1_0000 | tci`; 0 if there was none.
    pub metadata_tag: u32,
    /// Number of a [`Class`].
    pub class: u8,
    /// Number of a [`crate::counter::Hook`].
    pub hook: u8,
    /// Always 0.
    pub reserved: [u8; 6],
}

/// Size of a [`Header`] in bytes.
pub const HEADER_BYTES: usize = 32;

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// Reasons for which a record of the ring is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The record is shorter than its header, or than the frame that the header announces.
    Truncated {
        /// Bytes that the record should have.
        needed: usize,
        /// Bytes that the record has.
        length: usize,
    },
    /// The number of the class is unknown to this version.
    UnknownClass(u8),
    /// The number of the hook is unknown to this version.
    UnknownHook(u8),
}

/// A parsed record of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Boot time of the frame in nanoseconds.
    pub time: u64,
    /// Interface and VLANs of the frame.
    pub segment: Segment,
    /// Tag control information of the VLAN tag that the kernel removed from the frame.
    pub metadata_tag: Option<u16>,
    /// Classification of the frame.
    pub class: Class,
    /// The hook that saw the frame. For a frame that a bridge forwards from port to port, the hook of the bridge that
    /// would have seen it.
    pub hook: crate::counter::Hook,
    /// The captured bytes of the frame.
    pub frame: &'a [u8],
}

impl<'a> Event<'a> {
    /// Parses one record.
    ///
    /// # Errors
    /// See [`RecordError`]. A record that was written by the programs of this version never fails.
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
