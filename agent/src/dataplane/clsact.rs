//! TC programs as filters of the qdisc clsact, for kernels before 6.6, which have no TCX.
//!
//! A filter cannot be pinned, and stays where it is when its process ends. Ours have a priority and handles of their own,
//! so that the next agent replaces them in place. The program is pinned where its link would be, which says whose the
//! filter is.

use std::io;

use aya::programs::{
    ProgramError, SchedClassifier,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use tr111_common::abi::program;

use super::{Error, attach::TcOrder, chain::Direction};

/// Before everybody else's: the lowest number is first.
const FIRST: u16 = 1;
/// Behind everybody else's.
const LAST: u16 = u16::MAX;
/// `tr`, so that nobody else has the handle by chance.
const HANDLE_MAJOR: u16 = 0x7472;

/// The TC programs, and in which direction.
const PROGRAMS: [(&str, Direction); 5] = [
    (program::LAN_INGRESS_TC, Direction::Ingress),
    (program::LAN_BINDING, Direction::Ingress),
    (program::LAN_EGRESS, Direction::Egress),
    (program::WAN_INGRESS_TC, Direction::Ingress),
    (program::LAN_PORT, Direction::Egress),
];

/// The direction of a program, and the handle of its filter.
fn place(name: &str) -> Option<(Direction, TcHandle)> {
    let at = PROGRAMS.iter().position(|(program, _)| *program == name)?;
    Some((PROGRAMS[at].1, TcHandle::new(HANDLE_MAJOR, at as u16 + 1)))
}

/// The direction of a program; `None` for those of others.
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

/// The hook of a TC program: what XDP does elsewhere has the name that it has there.
pub(super) fn hook(program: &'static str) -> &'static str {
    program.strip_suffix("_tc").unwrap_or(program)
}

/// Whether a filter with this handle is one of an agent's.
pub(super) fn is_own(handle: u32) -> bool {
    handle >> 16 == u32::from(HANDLE_MAJOR)
}

/// Whether a filter with this handle is that of the program.
pub(super) fn is_of(handle: u32, name: &str) -> bool {
    place(name).is_some_and(|(_, own)| u32::from(own) == handle)
}

/// The priority of a filter, and the one that it has with the other order.
fn priorities(direction: Direction, order: TcOrder) -> (u16, u16) {
    match (direction, order) {
        (Direction::Egress, TcOrder::Last) => (LAST, FIRST),
        _ => (FIRST, LAST),
    }
}

/// The filter of a program on an interface. Dropping it takes it off.
fn filter(interface: &str, name: &str, priority: u16) -> Option<io::Result<SchedClassifierLink>> {
    let (direction, handle) = place(name)?;
    Some(SchedClassifierLink::attached(interface, direction.into(), priority, handle, None))
}

/// Attaches a program to an interface. With `replaces`, the filter that an earlier agent left gets it in one step.
/// Dropping the link takes the filter off; [`leave`] leaves it.
pub(super) fn attach(
    program: &mut SchedClassifier,
    name: &str,
    interface: &str,
    replaces: bool,
    order: TcOrder,
) -> Result<SchedClassifierLink, ProgramError> {
    let (direction, handle) = place(name).ok_or(ProgramError::NotAttached)?;
    let (priority, other) = priorities(direction, order);
    // An existing qdisc is no error, and whatever else is wrong, the attach below says.
    let _ = tc::qdisc_add_clsact(interface);
    if replaces && let Some(Ok(link)) = filter(interface, name, priority) {
        // Where there is none, the kernel refuses, and it is made.
        if let Ok(id) = program.attach_to_link(link) {
            return program.take_link(id);
        }
    }
    let options = NlOptions { priority, handle, classid: None };
    let id = program.attach_with_options(interface, direction.into(), TcAttachOptions::Netlink(options))?;
    if replaces {
        // What an earlier agent attached in the other order.
        drop(filter(interface, name, other));
    }
    program.take_link(id)
}

/// Leaves a filter where it is.
pub(super) fn leave(link: SchedClassifierLink) {
    std::mem::forget(link);
}

/// Takes the filter of a program off an interface. One that is not there is no error.
pub(super) fn detach(interface: &str, name: &str) {
    // Dropping does it, and whoever is gone, or was taken off by somebody else, is off.
    drop(filter(interface, name, FIRST));
    if place(name).is_some_and(|(direction, _)| direction == Direction::Egress) {
        drop(filter(interface, name, LAST));
    }
}

/// Takes every filter with a program of ours off an interface; whether there was one.
///
/// # Errors
/// The kernel refuses.
pub fn detach_all(interface: &str) -> io::Result<bool> {
    let mut any = false;
    for (name, direction) in PROGRAMS {
        match tc::qdisc_detach_program(interface, direction.into(), name) {
            Ok(()) => any = true,
            // Nothing of ours, no qdisc, or no interface.
            Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(TcError::NetlinkError(error)) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(any)
}
