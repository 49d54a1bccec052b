//! Attaching programs to interfaces: native XDP where possible, else TC. Generic XDP only on request.

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

/// Requested hook of an ingress program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native XDP, or TC if native XDP is not possible.
    #[default]
    Auto,
    /// Native XDP. Fails if it is not possible.
    Native,
    /// Generic XDP, which copies every frame.
    Generic,
    /// TC.
    Tc,
}

/// Position of the agent's TC programs among foreign TC programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcOrder {
    /// Before all foreign programs. The order is restored if another program is attached in front.
    #[default]
    First,
    /// At egress after the programs that are attached at the start, to see what is sent on the wire. The order is not
    /// restored.
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
    /// Native XDP, in the driver.
    Native,
    /// Generic XDP, in the network stack.
    Generic,
    /// TC.
    Tc,
}

impl Mode {
    /// Name in messages and in JSON.
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

/// Role of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// LAN interface of a gateway.
    Lan,
    /// WAN interface of a gateway.
    Wan,
    /// Interface of an ACS on which CPEs reach the STUN server.
    Cpes,
    /// Port of a LAN bridge of a gateway.
    Port,
}

impl Side {
    /// Name in messages and in JSON.
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
    /// Name of the hook.
    pub program: &'static str,
    /// How the program is attached.
    pub mode: Mode,
}

/// The programs that are attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Kernel index of the interface.
    pub ifindex: u32,
    /// Role of the interface.
    pub side: Side,
    /// Attached programs.
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

/// An interface with its current index. An interface that is removed and created again has the same name and another
/// index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// Name of the interface.
    pub(super) interface: &'a str,
    /// Kernel index of the interface.
    pub(super) ifindex: u32,
}

impl<'a> Place<'a> {
    /// Looks the interface up in this network namespace.
    pub(super) fn find(interface: &'a str) -> Result<Self, Error> {
        Ok(Self { interface, ifindex: ifindex(interface)? })
    }
}

/// Refuses an interface to which a program of another agent is attached. Programs that are pinned in `pins` are this
/// agent's own. Before Linux 6.6 the attached programs cannot be listed, and only the control socket shows another
/// agent.
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

/// The hook at which `lan_ingress` sees a request on the same segment as the reply. In mode `auto` this is TC if XDP
/// might see another segment: below VLAN devices, because drivers remove the tag from a frame before XDP runs, and TC
/// finds it in metadata; and on a bond, because XDP runs on the interfaces of the bond.
fn on_its_segment(interface: &str, wanted: XdpMode) -> XdpMode {
    let reason = match wanted {
        XdpMode::Auto if has_vlan_devices(interface) => "the interface has VLAN devices",
        XdpMode::Auto if is_bond(interface) => "the interface is a bond",
        _ => return wanted,
    };
    info!(interface, reason, "TC ingress is used instead of XDP");
    XdpMode::Tc
}

/// Whether an interface has VLAN devices. `false` without the kernel module or without `/proc`.
fn has_vlan_devices(interface: &str) -> bool {
    // `lan0.10        | 10  | lan0`
    let devices = fs::read_to_string("/proc/thread-self/net/vlan/config").unwrap_or_default();
    devices.lines().any(|line| line.rsplit_once('|').is_some_and(|(_, below)| below.trim() == interface))
}

/// Whether an interface is a bond. `false` without the kernel module or without `/proc`.
fn is_bond(interface: &str) -> bool {
    Path::new("/proc/thread-self/net/bonding").join(interface).exists()
}

/// A link that is not pinned and ends with the agent.
#[derive(Debug)]
pub(super) struct Held {
    /// Name of the interface.
    pub(super) interface: String,
    program: &'static str,
    _link: HeldLink,
}

/// An attached TC program of this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// Name of the interface.
    pub(super) interface: String,
    /// Kernel index of the interface.
    pub(super) ifindex: u32,
    /// Name of the program.
    pub(super) program: &'static str,
    /// Direction of the frames that the program sees.
    pub(super) direction: Direction,
    /// Kernel id of the program.
    pub(super) id: u32,
    /// Kernel id of the copy that the program replaced. The kernel detaches that copy with a delay.
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

/// Names of an ingress program, which is compiled for both hooks.
struct IngressNames {
    xdp: &'static str,
    tc: &'static str,
}

const LAN: IngressNames = IngressNames { xdp: program::LAN_INGRESS, tc: program::LAN_INGRESS_TC };
const WAN: IngressNames = IngressNames { xdp: program::WAN_INGRESS, tc: program::WAN_INGRESS_TC };

/// Attaches programs to interfaces.
pub(super) struct Attacher<'a> {
    loaded: &'a mut Loaded,
    /// Directory of pinned links. `None`: links are not pinned.
    pins: Option<&'a Pins>,
    /// Links that are not pinned.
    held: &'a mut Vec<Held>,
    order: TcOrder,
    /// Links that this attacher pinned, except for adopted ones.
    pinned: Vec<(Place<'a>, &'static str, Mode)>,
    /// TC programs that this attacher attached.
    pub(super) seats: Vec<Seat>,
}

impl<'a> Attacher<'a> {
    pub(super) fn new(loaded: &'a mut Loaded, pins: Option<&'a Pins>, held: &'a mut Vec<Held>, order: TcOrder) -> Self {
        Self { loaded, pins, held, order, pinned: Vec::new(), seats: Vec::new() }
    }

    /// Attaches to all interfaces or to none. On an error new links are removed, and links of an earlier agent are
    /// kept.
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

    /// Attaches the programs of a side to an interface. Links of an earlier agent get the new programs.
    pub(super) fn interface(&mut self, interface: &'a str, side: Side, wanted: XdpMode) -> Result<Attachment, Error> {
        let place = Place::find(interface)?;
        let programs = match side {
            Side::Lan => {
                // Egress first, so that the reply to each observed request is observed as well.
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

    /// Attaches the program that answers requests at XDP. TC cannot replace it: without XDP, the socket answers all
    /// requests.
    fn line_rate(&mut self, place: Place<'a>, wanted: XdpMode) -> Result<Option<Mode>, Error> {
        let Place { interface, .. } = place;
        let mode = match wanted {
            XdpMode::Auto | XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
            XdpMode::Tc => {
                warn!(interface, "the line-rate path needs XDP; the socket answers all requests");
                return Ok(None);
            }
        };
        match self.xdp(place, program::ACS_STUN, mode) {
            Ok(()) => Ok(Some(mode)),
            Err(XdpFailure::Other(error)) => Err(error),
            Err(XdpFailure::Impossible(reason)) if wanted == XdpMode::Auto => {
                warn!(interface, reason, "native XDP is not possible; the socket answers all requests");
                Ok(None)
            }
            Err(XdpFailure::Impossible(reason)) => {
                Err(Error::Xdp { interface: interface.to_owned(), mode: mode.label(), reason })
            }
        }
    }

    /// Detaches programs that an earlier agent attached in a mode that is not wanted.
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
            // The pin keeps the link, so the descriptor can be closed.
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

    /// Attaches a TC program. A link of an earlier agent gets the new program.
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
            // The link may be detached, or its interface may have moved to another network namespace.
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

    /// Attaches a TC program again at its position among foreign programs, and then detaches the earlier one. The
    /// kernel cannot move a link and attaches a program only once, so the new program is a copy. Its seat is the last
    /// of `seats`. `previous` is the kernel id of the earlier program.
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

    /// Attaches the program as a filter and replaces the filter of an earlier agent. Without pins the owner of an
    /// existing filter is unknown. It is replaced as well, because it most likely belongs to an agent that was killed.
    fn filter(&mut self, place: Place<'a>, name: &'static str) -> Result<SchedClassifierLink, ProgramError> {
        let replaces = self.pins.is_none_or(|pins| pins.has_link(place, name, Mode::Tc));
        let program = self.loaded.classifier(name).map_err(|_| ProgramError::NotLoaded)?;
        clsact::attach(program, name, place.interface, replaces, self.order)
    }

    /// Pins the program of a filter, which marks the filter as this agent's. The filter stays attached when the agent
    /// ends.
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

fn tc_error(place: Place<'_>, program: &'static str, error: &ProgramError) -> Error {
    let interface = place.interface.to_owned();
    match errno(error) {
        Some(libc::EPERM) => Error::Privileges,
        Some(libc::EEXIST) => Error::AlreadyRunning { interface },
        _ => Error::Tc { interface, program, reason: reason(error) },
    }
}

/// Updates a pinned link of an earlier agent to this agent's program with `take_over`. Returns `false` if there is no
/// link, or if its interface no longer exists. The program must then be attached.
fn adopt(
    pins: Option<&Pins>,
    place: Place<'_>,
    program: &'static str,
    mode: Mode,
    take_over: impl FnOnce(FdLink) -> Result<(), ProgramError>,
) -> bool {
    let Some((pins, link)) = pins.and_then(|pins| Some((pins, pins.link(place, program, mode)?))) else { return false };
    let Err(error) = take_over(link) else { return true };
    info!(interface = place.interface, program, reason = reason(&error), "a pinned link is no longer valid");
    pins.forget(place, program, mode);
    false
}

fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => ProgramError::SyscallError(error),
        LinkError::InvalidLink | LinkError::UnknownLinkType(_) => ProgramError::NotAttached,
    }
}

/// XDP could not be attached.
enum XdpFailure {
    /// The driver does not support it, or the slot is taken. TC may work.
    Impossible(String),
    /// TC would fail as well.
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
