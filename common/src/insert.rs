//! Planning of the insertion of the Gateway Identity into a DHCP reply (TR-111 1.2.1, RFC 3396, T-24).

use crate::{
    dhcp4::{self, Walk, WalkEnd},
    frame::Octets,
    headers::Udp,
    words::{WORD, Words},
};

/// Longest option that carries a Gateway Identity, in bytes: code, length, enterprise number, element length, and the
/// sub-options 4, 5 and 6 at their greatest lengths.
pub const OPTION_MAXIMUM: usize = 2 + 5 + 8 + 66 + 66;

/// Words reserved for the option.
pub const OPTION_WORDS: usize = OPTION_MAXIMUM.div_ceil(WORD);

/// Size of an IP datagram that every DHCP client accepts, in bytes (RFC 2131 2).
pub const MESSAGE_MINIMUM: u16 = 576;

/// Bytes of an option before its value, and of an element before its sub-options.
const OPTION_HEADER: u32 = 2;
const ELEMENT_HEADER: u32 = 5;

/// The gateway's option 125 in wire format, written by the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GatewayOption {
    /// Code, length, enterprise number 3561, element length, sub-options; zero-padded.
    pub option: Words<OPTION_WORDS>,
    /// Length of the option in bytes; 0 if no identity is set.
    pub length: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Result of the insertion of the Gateway Identity into a reply. The reply is unchanged, except for
/// [`Insertion::Inserted`] and possibly [`Insertion::Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Insertion {
    /// The identity was added.
    Inserted,
    /// The server's reply contains a Gateway Identity already.
    AlreadyPresent,
    /// The reply would exceed the client's maximum message size (option 57) or the interface's MTU, or option 125 is in
    /// `file` or `sname`, which cannot grow.
    NoRoom,
    /// The options have no END.
    NoEnd,
    /// The options are malformed.
    Damaged,
    /// The agent has not set an identity.
    Unconfigured,
    /// A kernel helper failed.
    Failed,
}

impl Insertion {
    /// All results, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Inserted,
        Self::AlreadyPresent,
        Self::NoRoom,
        Self::NoEnd,
        Self::Damaged,
        Self::Unconfigured,
        Self::Failed,
    ];

    /// Value of the metric label `result`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::AlreadyPresent => "already_present",
            Self::NoRoom => "no_room",
            Self::NoEnd => "no_end",
            Self::Damaged => "damaged",
            Self::Unconfigured => "unconfigured",
            Self::Failed => "failed",
        }
    }
}

/// The part of the gateway's option that is added to the reply. The number is the offset of that part in the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shape {
    /// The whole option.
    Option = 0,
    /// The element: it is added to an option 125 of the reply.
    Element = 2,
    /// The sub-options: they are added to an element of enterprise 3561 of the reply.
    SubOptions = 7,
}

/// A length byte of the reply that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Offset of the byte in the frame; 0 for no patch.
    pub at: u32,
    /// The current value.
    pub old: u8,
    /// The new value.
    pub new: u8,
}

/// A planned change to a reply. Offsets are relative to the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Offset at which the new bytes are inserted.
    pub at: u32,
    /// The part of the gateway's option that is inserted.
    pub shape: Shape,
    /// Number of bytes that are inserted.
    pub length: u32,
    /// End of the bytes that move: the byte after END. Bytes after END have no meaning.
    pub tail_end: u32,
    /// Bytes by which the datagram grows. Less than `length` if bytes after END are overwritten.
    pub growth: u32,
    /// The lengths that change: of the option and of the element.
    pub patches: [Patch; 2],
}

/// Plans the insertion into a reply whose options were walked.
///
/// `maximum_size` is the client's option 57 in bytes, or 0. Option 82 has to stay the last one, so new bytes are
/// inserted before it (RFC 3046 2.1).
///
/// # Errors
/// The reason for which the reply stays unchanged.
#[inline(always)]
pub fn plan<O: Octets + ?Sized>(
    octets: &O,
    udp: &Udp,
    walk: &Walk,
    option_length: u32,
    maximum_size: u16,
) -> Result<Plan, Insertion> {
    if option_length < OPTION_HEADER + ELEMENT_HEADER {
        return Err(Insertion::Unconfigured);
    }
    if walk.ended == WalkEnd::Damaged || walk.identity.is_damaged() {
        return Err(Insertion::Damaged);
    }
    let Some(end) = walk.end_option() else { return Err(Insertion::NoEnd) };
    if walk.identity.has_gateway_part() {
        return Err(Insertion::AlreadyPresent);
    }
    if walk.vendor_identifying != 0 && walk.vendor_identifying < udp.payload + dhcp4::OPTIONS {
        return Err(Insertion::NoRoom);
    }
    let mut plan = Plan {
        at: if walk.relay_agent == 0 { end } else { walk.relay_agent },
        shape: Shape::Option,
        length: option_length,
        tail_end: end + 1,
        growth: 0,
        patches: [Patch::default(); 2],
    };
    extend(octets, walk, option_length, &mut plan);
    let behind_end = udp.end.saturating_sub(plan.tail_end);
    plan.growth = plan.length.saturating_sub(behind_end);
    let maximum = if maximum_size < MESSAGE_MINIMUM { MESSAGE_MINIMUM } else { maximum_size };
    if plan.growth != 0 && udp.end + plan.growth - udp.ip > u32::from(maximum) {
        return Err(Insertion::NoRoom);
    }
    Ok(plan)
}

/// Extends an existing option 125 if its length byte allows it, because RFC 3396 splits only options that do not fit.
#[inline(always)]
fn extend<O: Octets + ?Sized>(octets: &O, walk: &Walk, option_length: u32, plan: &mut Plan) {
    let instance = walk.vendor_identifying;
    if instance == 0 {
        return;
    }
    let option = patch(octets, instance + 1);
    let instance_end = instance + OPTION_HEADER + u32::from(option.old);
    if let Some(joined_at) = walk.identity.element_length_at()
        && joined_at >= walk.joined.last()
    {
        let element_at = instance + OPTION_HEADER + (joined_at - walk.joined.last());
        let element = patch(octets, element_at);
        let element_end = element_at + 1 + u32::from(element.old);
        let length = option_length - Shape::SubOptions as u32;
        // An element in an earlier instance, or split across two, is left unchanged.
        let inside = element_end <= instance_end;
        if inside && u32::from(option.old) + length <= 255 && u32::from(element.old) + length <= 255 {
            plan.at = element_end;
            plan.shape = Shape::SubOptions;
            plan.length = length;
            plan.patches = [grown(option, length), grown(element, length)];
            return;
        }
    }
    let length = option_length - Shape::Element as u32;
    if u32::from(option.old) + length <= 255 {
        plan.at = instance_end;
        plan.shape = Shape::Element;
        plan.length = length;
        plan.patches = [grown(option, length), Patch::default()];
    }
}

#[inline(always)]
fn patch<O: Octets + ?Sized>(octets: &O, at: u32) -> Patch {
    let old = octets.octet(at);
    Patch { at, old, new: old }
}

#[inline(always)]
fn grown(patch: Patch, by: u32) -> Patch {
    Patch { new: patch.old.wrapping_add(by as u8), ..patch }
}

/// A sum of big-endian 16-bit words for Internet checksums (RFC 1071). Carries are folded at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds eight bytes as a big-endian word; the first one is at an even offset.
    #[inline(always)]
    pub fn add(&mut self, word: u64) {
        self.0 += (word >> 48) + (word >> 32 & 0xffff) + (word >> 16 & 0xffff) + (word & 0xffff);
    }

    /// Adds a byte at an even or odd offset.
    #[inline(always)]
    pub fn add_byte(&mut self, byte: u8, is_odd: bool) {
        self.0 += if is_odd { u64::from(byte) } else { u64::from(byte) << 8 };
    }

    /// Subtracts `other`, by adding its complement.
    #[inline(always)]
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 + u64::from(!other.fold()))
    }

    /// The sum of the same bytes at offsets that are greater by one.
    #[inline(always)]
    #[must_use]
    pub fn shifted(self) -> Self {
        Self(self.fold().swap_bytes().into())
    }

    /// The sum, folded to 16 bits.
    #[inline(always)]
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;

    /// RFC 1071 3, with the bytes of its example.
    #[test]
    fn sums_are_those_of_rfc_1071() {
        let mut sum = Sum::default();
        sum.add(0x0001_f203_f4f5_f6f7);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.shifted().fold(), 0xf2dd);
        let mut bytes = Sum::default();
        for (place, byte) in [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7].into_iter().enumerate() {
            bytes.add_byte(byte, place % 2 == 1);
        }
        assert_eq!(bytes.fold(), sum.fold());
        // Zero has two representations.
        assert_eq!(sum.without(bytes).fold(), 0xffff);
    }
}
