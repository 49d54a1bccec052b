//! Chains of TC programs (TCX, Linux 6.6): the programs at one side of an interface, in the order in which they run.
//!
//! Any verdict except `TCX_NEXT` ends the chain, and later programs do not see the frame. The kernel sends no event
//! when a chain changes, but the chain has a revision number.

use std::{collections::HashMap, io, mem};

use aya::programs::{SchedClassifier, TcAttachType};
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};

/// Maximum programs in a chain (`BPF_MPROG_MAX`).
const LONGEST: usize = 64;

/// Direction of frames at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Received frames.
    Ingress,
    /// Sent frames.
    Egress,
}

impl Direction {
    /// Name in messages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn tcx(self) -> bpf_attach_type {
        match self {
            Self::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
            Self::Egress => bpf_attach_type::BPF_TCX_EGRESS,
        }
    }
}

impl From<Direction> for TcAttachType {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Ingress,
            Direction::Egress => Self::Egress,
        }
    }
}

/// The programs of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Revision number, which grows with each change.
    pub(super) revision: u64,
    /// Kernel ids of the programs, in the order in which they run.
    pub(super) programs: Vec<u32>,
}

impl Chain {
    /// Reads the chain at one side of an interface. Unlike aya's query, this one needs no `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// The interface does not exist, or the kernel has no TCX.
    pub(super) fn read(ifindex: u32, direction: Direction) -> io::Result<Self> {
        let mut programs = vec![0u32; LONGEST];
        // SAFETY: `bpf_attr` is a union of plain numbers, for which all bits zero are values.
        let mut attributes: bpf_attr = unsafe { mem::zeroed() };
        attributes.query.__bindgen_anon_1.target_ifindex = ifindex;
        attributes.query.attach_type = direction.tcx() as u32;
        attributes.query.prog_ids = programs.as_mut_ptr().expose_provenance() as u64;
        attributes.query.__bindgen_anon_2.count = LONGEST as u32;
        let (command, size) = (bpf_cmd::BPF_PROG_QUERY as libc::c_int, size_of::<bpf_attr>());
        // SAFETY: the kernel writes at most `count` numbers to `prog_ids`, and at most `size` bytes to `attributes`.
        let status = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size) };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `query` is the member that was written above and by the kernel. All bit patterns of its numbers are
        // valid.
        let (count, revision) = unsafe { (attributes.query.__bindgen_anon_2.count, attributes.query.revision) };
        programs.truncate(count as usize);
        Ok(Self { revision, programs })
    }

    /// Names of the programs in the chain, by kernel id. Empty if this process lacks the permission.
    pub(super) fn names(interface: &str, direction: Direction) -> HashMap<u32, String> {
        let Ok((_, programs)) = SchedClassifier::query_tcx(interface, direction.into()) else { return HashMap::new() };
        let named = programs.iter().filter_map(|program| Some((program.id(), program.name_as_str()?.to_owned())));
        named.filter(|(_, name)| !name.is_empty()).collect()
    }
}

/// Foreign programs before and after a program of this agent, in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Programs that run before it and may end the chain.
    pub in_front: Vec<String>,
    /// Programs that run after it and may still drop the frame.
    pub behind: Vec<String>,
}

impl Neighbours {
    /// The neighbours of the program at index `at`. `is_own` is true for programs of the agent.
    pub(super) fn around<T>(chain: &[T], at: usize, is_own: impl Fn(&T) -> bool, name: impl Fn(&T) -> String) -> Self {
        let others = |part: &[T]| part.iter().filter(|one| !is_own(one)).map(&name).collect();
        Self { in_front: others(&chain[..at]), behind: others(&chain[at + 1..]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_the_agent_are_no_neighbours() {
        let around = Neighbours::around(&[7, 1, 8, 2, 9], 1, |id| *id < 3, ToString::to_string);
        assert_eq!(around, Neighbours { in_front: vec!["7".into()], behind: vec!["8".into(), "9".into()] });
        assert_eq!(Neighbours::around(&[1], 0, |id| *id < 3, ToString::to_string), Neighbours::default());
    }
}
