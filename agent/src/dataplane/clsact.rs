//! TC programs as filters of the qdisc clsact, for kernels before 6.6, which have no TCX.
//!
//! A filter cannot be pinned, and it stays attached when its process ends. The agent's filters have fixed priorities
//! and handles, so that the next agent replaces them in place. The program of a filter is pinned at the path where a
//! link would be pinned. This pin records the owner of the filter.

use std::io;

use aya::programs::{
    ProgramError, SchedClassifier,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use tr111_common::abi::program;

use super::{Error, attach::TcOrder, chain::Direction};

/// Priority before all foreign filters. The lowest number runs first.
const FIRST: u16 = 1;
/// Priority after all foreign filters.
const LAST: u16 = u16::MAX;
/// Major number of the handles: `tr` in ASCII, which other programs are unlikely to use.
const HANDLE_MAJOR: u16 = 0x7472;

/// The TC programs and their directions. The index determines the handle.
const PROGRAMS: [(&str, Direction); 5] = [
    (program::LAN_INGRESS_TC, Direction::Ingress),
    (program::LAN_BINDING, Direction::Ingress),
    (program::LAN_EGRESS, Direction::Egress),
    (program::WAN_INGRESS_TC, Direction::Ingress),
    (program::LAN_PORT, Direction::Egress),
];

/// Direction and filter handle of a program of this agent.
fn place(name: &str) -> Option<(Direction, TcHandle)> {
    let at = PROGRAMS.iter().position(|(program, _)| *program == name)?;
    Some((PROGRAMS[at].1, TcHandle::new(HANDLE_MAJOR, at as u16 + 1)))
}

/// The direction of a program of this agent. `None` for foreign programs.
pub(super) fn direction_of(name: &str) -> Option<Direction> {
    place(name).map(|(direction, _)| direction)
}

/// The direction of a program of the object.
///
/// # Errors
/// [`Error::Missing`]
pub(super) fn direction(name: &'static str) -> Result<Direction, Error> {
    direction_of(name).ok_or(Error::Missing(name))
}

/// The name of a program's hook: the TC variant of an ingress program has the name of the XDP variant.
pub(super) fn hook(program: &'static str) -> &'static str {
    program.strip_suffix("_tc").unwrap_or(program)
}

/// Whether a handle is that of a filter of an agent.
pub(super) fn is_own(handle: u32) -> bool {
    handle >> 16 == u32::from(HANDLE_MAJOR)
}

/// Whether a handle is that of the program's filter.
pub(super) fn is_of(handle: u32, name: &str) -> bool {
    place(name).is_some_and(|(_, own)| u32::from(own) == handle)
}

/// The priority of a filter with this order, and its priority with the other order.
fn priorities(direction: Direction, order: TcOrder) -> (u16, u16) {
    match (direction, order) {
        (Direction::Egress, TcOrder::Last) => (LAST, FIRST),
        _ => (FIRST, LAST),
    }
}

/// A link for the filter of a program on an interface. Dropping it detaches the filter.
fn filter(interface: &str, name: &str, priority: u16) -> Option<io::Result<SchedClassifierLink>> {
    let (direction, handle) = place(name)?;
    Some(SchedClassifierLink::attached(interface, direction.into(), priority, handle, None))
}

/// Attaches a program to an interface. With `replaces`, the filter of an earlier agent is replaced atomically. Dropping
/// the link detaches the filter, unless [`leave`] is called.
pub(super) fn attach(
    program: &mut SchedClassifier,
    name: &str,
    interface: &str,
    replaces: bool,
    order: TcOrder,
) -> Result<SchedClassifierLink, ProgramError> {
    let (direction, handle) = place(name).ok_or(ProgramError::NotAttached)?;
    let (priority, other) = priorities(direction, order);
    // The qdisc may exist already. Other errors make the attach below fail.
    let _ = tc::qdisc_add_clsact(interface);
    if replaces && let Some(Ok(link)) = filter(interface, name, priority) {
        // If there is no filter, the kernel refuses and a new filter is created below.
        if let Ok(id) = program.attach_to_link(link) {
            return program.take_link(id);
        }
    }
    let options = NlOptions { priority, handle, classid: None };
    let id = program.attach_with_options(interface, direction.into(), TcAttachOptions::Netlink(options))?;
    if replaces {
        // Detach the filter that an earlier agent attached with the other order.
        drop(filter(interface, name, other));
    }
    program.take_link(id)
}

/// Keeps a filter attached when its link is dropped.
pub(super) fn leave(link: SchedClassifierLink) {
    std::mem::forget(link);
}

/// Detaches the filter of a program from an interface. A filter that does not exist is not an error.
pub(super) fn detach(interface: &str, name: &str) {
    // Dropping the link detaches the filter. Errors are ignored: the interface or the filter no longer exists.
    drop(filter(interface, name, FIRST));
    if place(name).is_some_and(|(direction, _)| direction == Direction::Egress) {
        drop(filter(interface, name, LAST));
    }
}

/// Detaches all filters of agents from an interface. Returns whether there was one.
///
/// # Errors
/// The kernel refuses.
pub fn detach_all(interface: &str) -> io::Result<bool> {
    let mut any = false;
    for (name, direction) in PROGRAMS {
        match tc::qdisc_detach_program(interface, direction.into(), name) {
            Ok(()) => any = true,
            // There is no filter of an agent, no qdisc, or no interface.
            Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(TcError::NetlinkError(error)) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(any)
}
