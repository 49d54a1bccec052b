//! A frame that a hook takes a closer look at.

use crate::{
    emit::{self, Facts},
    frame::Packet,
    maps::Scratch,
};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use tr111_common::{
    counter::{Class, Hook},
    frame::FRAME_CAPACITY,
    headers::{Segment, Udp},
};

/// A frame whose datagram is worth reading, copied into the scratch buffer.
pub struct Seen {
    /// The datagram.
    pub udp: Udp,
    /// Where it was seen.
    pub segment: Segment,
    /// VLAN tag that the kernel took out of the frame.
    pub metadata_tag: Option<u16>,
    /// Boot time in nanoseconds.
    pub time: u64,
    /// Bytes of the frame in the scratch buffer.
    pub captured: u32,
}

impl Seen {
    /// Copies the frame into the scratch buffer.
    #[inline(always)]
    pub fn look<P: Packet>(packet: &P, udp: Udp, scratch: &mut Scratch) -> Result<Self, Class> {
        // Bounded as 64 bits: the verifier (Linux 6.18) loses bounds that were learned of a truncated copy.
        let length = packet.len();
        if length == 0 || length > FRAME_CAPACITY || !packet.copy(&mut scratch.frame, length) {
            return Err(Class::Oversize);
        }
        let captured = length as u32;
        // SAFETY: the helper takes nothing and reads a clock.
        let time = unsafe { bpf_ktime_get_boot_ns() };
        let segment = Segment { ifindex: packet.ifindex(), vlan: udp.vlan };
        Ok(Self { udp, segment, metadata_tag: packet.metadata_tag(), time, captured })
    }

    /// Hands the frame to the agent.
    #[inline(always)]
    pub fn tell(&self, scratch: &mut Scratch, hook: Hook, class: Class) {
        let facts = Facts {
            time: self.time,
            segment: self.segment,
            metadata_tag: self.metadata_tag,
            hook,
            class,
            captured: self.captured,
        };
        emit::lan(scratch, &facts);
    }
}
