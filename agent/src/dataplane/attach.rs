//! Attaching to interfaces: native XDP, else TC (design decision: nothing that works is given up for the faster hook).

use std::fmt;

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
        xdp,
    },
    util::KernelVersion,
};
use tr111_common::abi::program;
use tracing::{info, warn};

use super::{
    Error, Loaded,
    error::{errno, reason},
};

/// How `lan_ingress` is to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native, else TC.
    #[default]
    Auto,
    /// Native or not at all.
    Native,
    /// Generic: copies every frame; only on request.
    Generic,
    /// TC.
    Tc,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// XDP in the driver.
    Native,
    /// XDP in the stack.
    Generic,
    /// TC.
    Tc,
}

impl Mode {
    /// The word for people and for JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Which way an interface faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The devices.
    Lan,
}

impl Side {
    /// The word for people and for JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lan => "lan",
        }
    }
}

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramMode {
    /// Name of the hook.
    pub program: &'static str,
    /// How it is attached.
    pub mode: Mode,
}

/// What is attached to one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its kernel index.
    pub ifindex: u32,
    /// Which way it faces.
    pub side: Side,
    /// Its programs.
    pub programs: Vec<ProgramMode>,
}

/// Whether this kernel is the named one or newer.
pub(super) fn kernel_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, 0))
}

/// The kernel index of an interface in this network namespace.
pub(super) fn ifindex(interface: &str) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| Error::NoInterface(interface.to_owned()))
}

/// Refuses an interface where another agent's program is attached. Kernels before 6.6 cannot be asked, and there the
/// control socket tells.
pub(super) fn refuse_second_agent(interface: &str) -> Result<(), Error> {
    ifindex(interface)?;
    let Ok((_, programs)) = SchedClassifier::query_tcx(interface, TcAttachType::Egress) else { return Ok(()) };
    if programs.iter().any(|info| info.name_as_str() == Some(program::LAN_EGRESS)) {
        return Err(Error::AlreadyRunning { interface: interface.to_owned() });
    }
    Ok(())
}

/// Attaches the LAN programs to an interface.
pub(super) fn lan(loaded: &mut Loaded, interface: &str, wanted: XdpMode) -> Result<Attachment, Error> {
    let ifindex = ifindex(interface)?;
    // Egress first: a request that is seen must find its reply watched.
    classifier(loaded, interface, program::LAN_EGRESS, TcAttachType::Egress)?;
    let mode = lan_ingress(loaded, interface, wanted)?;
    info!(interface, %mode, "LAN programs attached");
    let programs = vec![
        ProgramMode { program: program::LAN_INGRESS, mode },
        ProgramMode { program: program::LAN_EGRESS, mode: Mode::Tc },
    ];
    Ok(Attachment { interface: interface.to_owned(), ifindex, side: Side::Lan, programs })
}

fn lan_ingress(loaded: &mut Loaded, interface: &str, wanted: XdpMode) -> Result<Mode, Error> {
    let (mode, flag, fall_back) = match wanted {
        XdpMode::Auto => (Mode::Native, xdp::XdpMode::Driver, true),
        XdpMode::Native => (Mode::Native, xdp::XdpMode::Driver, false),
        XdpMode::Generic => (Mode::Generic, xdp::XdpMode::Skb, false),
        XdpMode::Tc => {
            classifier(loaded, interface, program::LAN_INGRESS_TC, TcAttachType::Ingress)?;
            return Ok(Mode::Tc);
        }
    };
    let Err(error) = loaded.xdp(program::LAN_INGRESS)?.attach(interface, flag) else { return Ok(mode) };
    if errno(&error) == Some(libc::EPERM) {
        return Err(Error::Privileges);
    }
    let reason = reason(&error);
    if !fall_back {
        return Err(Error::Xdp { interface: interface.to_owned(), mode: mode.label(), reason });
    }
    warn!(interface, reason, "native XDP is not possible, falling back to TC ingress");
    classifier(loaded, interface, program::LAN_INGRESS_TC, TcAttachType::Ingress)?;
    Ok(Mode::Tc)
}

/// Attaches a TC program: first at ingress, to see what the wire brought; last at egress, to see what the wire gets.
fn classifier(
    loaded: &mut Loaded,
    interface: &str,
    name: &'static str,
    attach_type: TcAttachType,
) -> Result<(), Error> {
    let fail = |error: &ProgramError| match errno(error) {
        Some(libc::EPERM) => Error::Privileges,
        _ => Error::Tc { interface: interface.to_owned(), program: name, reason: reason(error) },
    };
    // TCX is there from Linux 6.6.
    let options = if kernel_at_least(6, 6) {
        let order = if matches!(attach_type, TcAttachType::Ingress) { LinkOrder::first() } else { LinkOrder::last() };
        TcAttachOptions::TcxOrder(order)
    } else {
        // An existing qdisc is no error, and whatever else is wrong, the attach below says.
        let _ = tc::qdisc_add_clsact(interface);
        TcAttachOptions::Netlink(NlOptions::default())
    };
    loaded
        .classifier(name)?
        .attach_with_options(interface, attach_type, options)
        .map(|_| ())
        .map_err(|error| fail(&error))
}
