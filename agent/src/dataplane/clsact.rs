//! TC programs as filters of the qdisc clsact, for kernels before 6.6, which have no TCX.
//!
//! A filter cannot be pinned, and stays where it is when its process ends. Ours have a priority and handles of their own,
//! so that the next agent replaces them in place. The program is pinned where its link would be, which says whose the
//! filter is.

use std::io;

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use tr111_common::abi::program;

/// In front of everybody else's, in both directions.
const PRIORITY: u16 = 1;
/// `tr`, so that nobody else has the handle by chance.
const HANDLE_MAJOR: u16 = 0x7472;

/// The programs that can be filters, and in which direction.
const PROGRAMS: [(&str, TcAttachType); 4] = [
    (program::LAN_INGRESS_TC, TcAttachType::Ingress),
    (program::LAN_BINDING, TcAttachType::Ingress),
    (program::LAN_EGRESS, TcAttachType::Egress),
    (program::WAN_INGRESS_TC, TcAttachType::Ingress),
];

/// The direction of a program, and the handle of its filter.
fn place(name: &str) -> Option<(TcAttachType, TcHandle)> {
    let at = PROGRAMS.iter().position(|(program, _)| *program == name)?;
    Some((PROGRAMS[at].1, TcHandle::new(HANDLE_MAJOR, at as u16 + 1)))
}

/// The filter of a program on an interface. Dropping it takes it off.
fn filter(interface: &str, name: &str) -> Option<io::Result<SchedClassifierLink>> {
    let (direction, handle) = place(name)?;
    Some(SchedClassifierLink::attached(interface, direction, PRIORITY, handle, None))
}

/// Attaches a program to an interface. With `replaces`, the filter that an earlier agent left gets it in one step.
/// Dropping the link takes the filter off; [`leave`] leaves it.
pub(super) fn attach(
    program: &mut SchedClassifier,
    name: &str,
    interface: &str,
    replaces: bool,
) -> Result<SchedClassifierLink, ProgramError> {
    let (direction, handle) = place(name).ok_or(ProgramError::NotAttached)?;
    // An existing qdisc is no error, and whatever else is wrong, the attach below says.
    let _ = tc::qdisc_add_clsact(interface);
    if replaces && let Some(Ok(link)) = filter(interface, name) {
        // Where there is none, the kernel refuses, and it is made.
        if let Ok(id) = program.attach_to_link(link) {
            return program.take_link(id);
        }
    }
    let options = NlOptions { priority: PRIORITY, handle, classid: None };
    let id = program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options))?;
    program.take_link(id)
}

/// Leaves a filter where it is.
pub(super) fn leave(link: SchedClassifierLink) {
    std::mem::forget(link);
}

/// Takes the filter of a program off an interface. One that is not there is no error.
pub(super) fn detach(interface: &str, name: &str) {
    // Dropping does it, and whoever is gone, or was taken off by somebody else, is off.
    drop(filter(interface, name));
}

/// Takes every filter with a program of ours off an interface; whether there was one.
///
/// # Errors
/// The kernel refuses.
pub fn detach_all(interface: &str) -> io::Result<bool> {
    let mut any = false;
    for (name, direction) in PROGRAMS {
        match tc::qdisc_detach_program(interface, direction, name) {
            Ok(()) => any = true,
            // Nothing of ours, no qdisc, or no interface.
            Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(TcError::NetlinkError(error)) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(any)
}
