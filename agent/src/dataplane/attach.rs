//! Attaching to interfaces: native XDP, else TC (design decision: nothing that works is given up for the faster hook).

use std::{fmt, fs, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError},
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::{self, XdpLink},
};
use tr111_common::abi::program;
use tracing::{info, warn};

use super::{
    Error, Loaded, Pins,
    chain::{Chain, Direction},
    clsact,
    error::{errno, reason},
    kernel,
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

/// Where TC programs run among those of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcOrder {
    /// Before all of them. The place is taken again when somebody else takes it.
    #[default]
    First,
    /// At egress behind those that are there at the start, to see what goes out on the wire. Nothing is moved.
    Last,
}

impl TcOrder {
    fn link(self, direction: Direction) -> LinkOrder {
        match (direction, self) {
            (Direction::Egress, Self::Last) => LinkOrder::last(),
            _ => LinkOrder::first(),
        }
    }
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
    /// The ACS.
    Wan,
    /// CPEs, where this machine is their STUN server.
    Cpes,
    /// The devices, as a port of a LAN bridge.
    Port,
}

impl Side {
    /// The word for people and for JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
            Self::Cpes => "cpes",
            Self::Port => "port",
        }
    }
}

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramMode {
    /// Name of its hook.
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

impl Attachment {
    pub(super) fn place(&self) -> Place<'_> {
        Place { interface: &self.interface, ifindex: self.ifindex }
    }
}

/// The kernel index of an interface in this network namespace.
pub(super) fn ifindex(interface: &str) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| Error::NoInterface(interface.to_owned()))
}

/// An interface as it is now: it may go, and its name come back with another index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// Name of the interface.
    pub(super) interface: &'a str,
    /// Its kernel index.
    pub(super) ifindex: u32,
}

impl<'a> Place<'a> {
    /// The interface of that name in this network namespace.
    pub(super) fn find(interface: &'a str) -> Result<Self, Error> {
        Ok(Self { interface, ifindex: ifindex(interface)? })
    }
}

/// Refuses an interface where a program of another agent is attached. What this agent's pins hold is its own. Kernels
/// before 6.6 cannot be asked, and there the control socket tells.
pub(super) fn refuse_second_agent(interface: &str, pins: Option<&Pins>) -> Result<(), Error> {
    let place = Place::find(interface)?;
    let Ok((_, programs)) = SchedClassifier::query_tcx(interface, TcAttachType::Egress) else { return Ok(()) };
    let attached = programs.iter().filter(|info| info.name_as_str() == Some(program::LAN_EGRESS)).count();
    let own = pins.is_some_and(|pins| pins.has_link(place, program::LAN_EGRESS, Mode::Tc));
    if attached > usize::from(own) {
        return Err(Error::AlreadyRunning { interface: interface.to_owned() });
    }
    Ok(())
}

/// How `lan_ingress` has to attach to see a frame on the same segment as its reply. TC it is, unless the operator says
/// otherwise, where XDP may see another: below VLAN devices, because drivers take the tag out of a frame before XDP runs and
/// TC finds it in metadata; and on a bond, because XDP runs on the interfaces that it is made of.
fn on_its_segment(interface: &str, wanted: XdpMode) -> XdpMode {
    let reason = match wanted {
        XdpMode::Auto if has_vlan_devices(interface) => "there are VLAN devices on it",
        XdpMode::Auto if is_bond(interface) => "it is a bond",
        _ => return wanted,
    };
    info!(interface, "{reason}: TC ingress in place of XDP");
    XdpMode::Tc
}

/// Whether the kernel has VLAN devices on an interface. Without the module, or without `/proc`, there are none.
fn has_vlan_devices(interface: &str) -> bool {
    // `lan0.10        | 10  | lan0`
    let devices = fs::read_to_string("/proc/thread-self/net/vlan/config").unwrap_or_default();
    devices.lines().any(|line| line.rsplit_once('|').is_some_and(|(_, below)| below.trim() == interface))
}

/// Whether an interface is a bond. As above.
fn is_bond(interface: &str) -> bool {
    Path::new("/proc/thread-self/net/bonding").join(interface).exists()
}

/// A link that ends with the agent, because it is not pinned.
#[derive(Debug)]
pub(super) struct Held {
    /// Where it is attached.
    pub(super) interface: String,
    program: &'static str,
    _link: HeldLink,
}

/// A TC program of this agent at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// Name of the interface.
    pub(super) interface: String,
    /// Its kernel index.
    pub(super) ifindex: u32,
    /// Name of the program.
    pub(super) program: &'static str,
    /// Which frames it sees.
    pub(super) direction: Direction,
    /// Kernel id of the program.
    pub(super) id: u32,
    /// Kernel id of the copy in whose place it was attached: the kernel takes a moment to take that off.
    pub(super) previous: Option<u32>,
}

impl Seat {
    pub(super) fn place(&self) -> Place<'_> {
        Place { interface: &self.interface, ifindex: self.ifindex }
    }
}

#[derive(Debug)]
enum HeldLink {
    Xdp(#[expect(dead_code, reason = "held for its drop")] XdpLink),
    Tc(#[expect(dead_code, reason = "held for its drop")] SchedClassifierLink),
}

/// The names of an ingress program: one classifier, for either hook.
struct IngressNames {
    xdp: &'static str,
    tc: &'static str,
}

const LAN: IngressNames = IngressNames { xdp: program::LAN_INGRESS, tc: program::LAN_INGRESS_TC };
const WAN: IngressNames = IngressNames { xdp: program::WAN_INGRESS, tc: program::WAN_INGRESS_TC };

/// Where programs are attached from.
pub(super) struct Attacher<'a> {
    /// The programs.
    loaded: &'a mut Loaded,
    /// Where links are pinned.
    pins: Option<&'a Pins>,
    /// Links that are not.
    held: &'a mut Vec<Held>,
    /// Where TC programs run among those of others.
    order: TcOrder,
    /// What was pinned here and now, and not found: its place, program and mode.
    pinned: Vec<(Place<'a>, &'static str, Mode)>,
    /// TC programs that are attached now.
    pub(super) seats: Vec<Seat>,
}

impl<'a> Attacher<'a> {
    pub(super) fn new(loaded: &'a mut Loaded, pins: Option<&'a Pins>, held: &'a mut Vec<Held>, order: TcOrder) -> Self {
        Self { loaded, pins, held, order, pinned: Vec::new(), seats: Vec::new() }
    }

    /// Attaches to every interface, or to none: what an earlier agent left stays, and what is new goes again.
    pub(super) fn all(
        &mut self,
        interfaces: impl IntoIterator<Item = (&'a str, Side)>,
        wanted: XdpMode,
    ) -> Result<Vec<Attachment>, Error> {
        let attached = interfaces.into_iter().map(|(name, side)| self.interface(name, side, wanted)).collect();
        if let (Err(_), Some(pins)) = (&attached, self.pins) {
            for (place, program, mode) in self.pinned.drain(..) {
                pins.forget(place, program, mode);
            }
        }
        attached
    }

    /// Attaches the programs of a side to an interface, or gives the links that are there the new programs.
    pub(super) fn interface(&mut self, interface: &'a str, side: Side, wanted: XdpMode) -> Result<Attachment, Error> {
        let place = Place::find(interface)?;
        let programs = match side {
            Side::Lan => {
                // Egress first: a request that is seen must find its reply watched.
                self.classifier(place, program::LAN_EGRESS)?;
                self.classifier(place, program::LAN_BINDING)?;
                let mode = self.ingress(place, &LAN, on_its_segment(interface, wanted))?;
                vec![
                    ProgramMode { program: program::LAN_INGRESS, mode },
                    ProgramMode { program: program::LAN_BINDING, mode: Mode::Tc },
                    ProgramMode { program: program::LAN_EGRESS, mode: Mode::Tc },
                ]
            }
            Side::Wan => {
                let mode = self.ingress(place, &WAN, wanted)?;
                vec![ProgramMode { program: program::WAN_INGRESS, mode }]
            }
            Side::Port => {
                self.classifier(place, program::LAN_PORT)?;
                vec![ProgramMode { program: program::LAN_PORT, mode: Mode::Tc }]
            }
            Side::Cpes => {
                let mode = self.line_rate(place, wanted)?;
                mode.into_iter().map(|mode| ProgramMode { program: program::ACS_STUN, mode }).collect()
            }
        };
        if let Some(first) = programs.first() {
            info!(interface, mode = %first.mode, "{} programs attached", side.label().to_uppercase());
        }
        Ok(Attachment { interface: interface.to_owned(), ifindex: place.ifindex, side, programs })
    }

    fn ingress(&mut self, place: Place<'a>, names: &IngressNames, wanted: XdpMode) -> Result<Mode, Error> {
        let Place { interface, .. } = place;
        let mode = match wanted {
            XdpMode::Auto | XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
            XdpMode::Tc => Mode::Tc,
        };
        self.leave_other_modes(place, names, wanted);
        let is_at_tc = || self.pins.is_some_and(|pins| pins.has_link(place, names.tc, Mode::Tc));
        if mode == Mode::Tc || (wanted == XdpMode::Auto && is_at_tc()) {
            self.classifier(place, names.tc)?;
            return Ok(Mode::Tc);
        }
        let Err(error) = self.xdp(place, names.xdp, mode) else { return Ok(mode) };
        let reason = match error {
            XdpFailure::Other(error) => return Err(error),
            XdpFailure::Impossible(reason) => reason,
        };
        if wanted != XdpMode::Auto {
            return Err(Error::Xdp { interface: interface.to_owned(), mode: mode.label(), reason });
        }
        warn!(interface, reason, "native XDP is not possible, falling back to TC ingress");
        self.classifier(place, names.tc)?;
        Ok(Mode::Tc)
    }

    /// Attaches what answers requests in place, for which TC is no substitute: without it the socket answers alone.
    fn line_rate(&mut self, place: Place<'a>, wanted: XdpMode) -> Result<Option<Mode>, Error> {
        let Place { interface, .. } = place;
        let mode = match wanted {
            XdpMode::Auto | XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
            XdpMode::Tc => {
                warn!(interface, "answers cannot be given at TC: the socket gives them alone");
                return Ok(None);
            }
        };
        match self.xdp(place, program::ACS_STUN, mode) {
            Ok(()) => Ok(Some(mode)),
            Err(XdpFailure::Other(error)) => Err(error),
            Err(XdpFailure::Impossible(reason)) if wanted == XdpMode::Auto => {
                warn!(interface, reason, "native XDP is not possible: the socket gives all answers alone");
                Ok(None)
            }
            Err(XdpFailure::Impossible(reason)) => {
                Err(Error::Xdp { interface: interface.to_owned(), mode: mode.label(), reason })
            }
        }
    }

    /// Takes off what an earlier agent attached in a mode that is no longer wanted.
    fn leave_other_modes(&self, place: Place<'_>, names: &IngressNames, wanted: XdpMode) {
        let Some(pins) = self.pins else { return };
        let (native, generic, tc) = match wanted {
            XdpMode::Auto => (true, false, true),
            XdpMode::Native => (true, false, false),
            XdpMode::Generic => (false, true, false),
            XdpMode::Tc => (false, false, true),
        };
        for (stays, program, mode) in
            [(native, names.xdp, Mode::Native), (generic, names.xdp, Mode::Generic), (tc, names.tc, Mode::Tc)]
        {
            if !stays {
                pins.forget(place, program, mode);
            }
        }
    }

    fn xdp(&mut self, place: Place<'a>, name: &'static str, mode: Mode) -> Result<(), XdpFailure> {
        let program = self.loaded.xdp(name)?;
        let is_adopted = adopt(self.pins, place, name, mode, |link| {
            let id = program.attach_to_link(XdpLink::try_from(link).map_err(link_error)?)?;
            // The pin keeps the link; this agent's hold on it may go.
            program.take_link(id).map(drop)
        });
        if is_adopted {
            return Ok(());
        }
        let flag = if mode == Mode::Generic { xdp::XdpMode::Skb } else { xdp::XdpMode::Driver };
        let id = program.attach(place.interface, flag).map_err(|error| XdpFailure::from(&error))?;
        let link = program.take_link(id).map_err(|error| XdpFailure::from(&error))?;
        match self.pins {
            Some(pins) => {
                let link = FdLink::try_from(link).map_err(|error| XdpFailure::from(&link_error(error)))?;
                pins.keep(link, place, name, mode)?;
                self.pinned.push((place, name, mode));
            }
            None => self.hold(place, name, HeldLink::Xdp(link)),
        }
        Ok(())
    }

    /// Attaches a TC program, or gives the link that an earlier agent left the new program.
    fn classifier(&mut self, place: Place<'a>, name: &'static str) -> Result<(), Error> {
        let direction = clsact::direction(name)?;
        let program = self.loaded.loaded_classifier(name)?;
        let id = program.info().map_err(|_| Error::Missing(name))?.id();
        let interface = place.interface.to_owned();
        let seat = Seat { interface, ifindex: place.ifindex, program: name, direction, id, previous: None };
        if !kernel::has_tcx() {
            let link = self.filter(place, name).map_err(|error| tc_error(place, name, &error))?;
            self.keep_filter(place, name, link)?;
            self.seats.push(seat);
            return Ok(());
        }
        let mut is_last = false;
        let is_adopted = adopt(self.pins, place, name, Mode::Tc, |link| {
            let id = program.attach_to_link(SchedClassifierLink::try_from(link).map_err(link_error)?)?;
            program.take_link(id)?;
            // A link may be that of an interface which moved to another network namespace, or have been detached.
            let chain = Chain::read(place.ifindex, direction).unwrap_or_default();
            is_last = chain.programs.last() == Some(&seat.id);
            if chain.programs.contains(&seat.id) { Ok(()) } else { Err(ProgramError::NotAttached) }
        });
        if is_adopted && !is_last && self.order == TcOrder::Last && direction == Direction::Egress {
            return self.again(place, name, id);
        }
        if !is_adopted {
            let link = attach(program, place, name, self.order.link(direction))?;
            match self.pins {
                Some(pins) => {
                    let link = FdLink::try_from(link).map_err(|error| tc_error(place, name, &link_error(error)))?;
                    pins.keep(link, place, name, Mode::Tc)?;
                    self.pinned.push((place, name, Mode::Tc));
                }
                None => self.hold(place, name, HeldLink::Tc(link)),
            }
        }
        self.seats.push(seat);
        Ok(())
    }

    /// Attaches a TC program anew, at its place among those of others, and then takes the earlier one off. The kernel
    /// moves no link, and attaches a program only once, so the new one is a copy. Its seat is the last of `seats`.
    /// `previous` is the kernel id of the earlier one.
    pub(super) fn again(&mut self, place: Place<'a>, name: &'static str, previous: u32) -> Result<(), Error> {
        if !kernel::has_tcx() {
            return self.classifier(place, name);
        }
        let direction = clsact::direction(name)?;
        let program = self.loaded.load_copy(name)?;
        let id = program.info().map_err(|_| Error::Missing(name))?.id();
        let link = attach(program, place, name, self.order.link(direction))?;
        if let Some(pins) = self.pins {
            let link = FdLink::try_from(link).map_err(|error| tc_error(place, name, &link_error(error)))?;
            pins.replace(link, place, name, Mode::Tc)?;
        } else {
            self.held.retain(|held| held.interface != place.interface || held.program != name);
            self.hold(place, name, HeldLink::Tc(link));
        }
        let (interface, previous) = (place.interface.to_owned(), Some(previous));
        self.seats.push(Seat { interface, ifindex: place.ifindex, program: name, direction, id, previous });
        Ok(())
    }

    /// The program as a filter of the interface, in the place of what an earlier agent left. Without pins nobody can
    /// tell whose a filter is that is there: most likely that of an agent that was killed.
    fn filter(&mut self, place: Place<'a>, name: &'static str) -> Result<SchedClassifierLink, ProgramError> {
        let replaces = self.pins.is_none_or(|pins| pins.has_link(place, name, Mode::Tc));
        let program = self.loaded.classifier(name).map_err(|_| ProgramError::NotLoaded)?;
        clsact::attach(program, name, place.interface, replaces, self.order)
    }

    /// Marks a filter as ours, and leaves it in the kernel's hands.
    fn keep_filter(&mut self, place: Place<'a>, name: &'static str, link: SchedClassifierLink) -> Result<(), Error> {
        let Some(pins) = self.pins else {
            self.hold(place, name, HeldLink::Tc(link));
            return Ok(());
        };
        let was_pinned = pins.has_link(place, name, Mode::Tc);
        pins.keep_program(self.loaded.classifier(name)?, place, name)?;
        clsact::leave(link);
        if !was_pinned {
            self.pinned.push((place, name, Mode::Tc));
        }
        Ok(())
    }

    fn hold(&mut self, place: Place<'_>, program: &'static str, link: HeldLink) {
        self.held.push(Held { interface: place.interface.to_owned(), program, _link: link });
    }
}

/// Attaches a TC program by a link.
fn attach(
    program: &mut SchedClassifier,
    place: Place<'_>,
    name: &'static str,
    order: LinkOrder,
) -> Result<SchedClassifierLink, Error> {
    let direction = clsact::direction(name)?.into();
    let attached = program
        .attach_with_options(place.interface, direction, TcAttachOptions::TcxOrder(order))
        .and_then(|id| program.take_link(id));
    attached.map_err(|error| tc_error(place, name, &error))
}

/// What an error of a TC program means for the agent.
fn tc_error(place: Place<'_>, program: &'static str, error: &ProgramError) -> Error {
    let interface = place.interface.to_owned();
    match errno(error) {
        Some(libc::EPERM) => Error::Privileges,
        Some(libc::EEXIST) => Error::AlreadyRunning { interface },
        _ => Error::Tc { interface, program, reason: reason(error) },
    }
}

/// Gives the link that an earlier agent pinned this agent's program by `take_over`. Without one, or where it is the
/// link of an interface that is gone, the program is to be attached anew.
fn adopt(
    pins: Option<&Pins>,
    place: Place<'_>,
    program: &'static str,
    mode: Mode,
    take_over: impl FnOnce(FdLink) -> Result<(), ProgramError>,
) -> bool {
    let Some((pins, link)) = pins.and_then(|pins| Some((pins, pins.link(place, program, mode)?))) else { return false };
    let Err(error) = take_over(link) else { return true };
    info!(interface = place.interface, program, reason = reason(&error), "what was pinned no longer holds");
    pins.forget(place, program, mode);
    false
}

/// What a link's error means for its program.
fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => ProgramError::SyscallError(error),
        LinkError::InvalidLink | LinkError::UnknownLinkType(_) => ProgramError::NotAttached,
    }
}

/// Why XDP is not attached.
enum XdpFailure {
    /// The driver or the slot: TC is worth a try.
    Impossible(String),
    /// It would not help.
    Other(Error),
}

impl From<Error> for XdpFailure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<&ProgramError> for XdpFailure {
    fn from(error: &ProgramError) -> Self {
        if errno(error) == Some(libc::EPERM) { Self::Other(Error::Privileges) } else { Self::Impossible(reason(error)) }
    }
}
