//! The agent's side of the kernel programs: loading, attaching, pinning, ring buffers, counters and maps.

mod attach;
mod bindings;
mod chain;
mod clsact;
mod counters;
mod error;
mod kernel;
mod line_rate;
mod load;
mod marks;
mod memory;
mod netns;
mod order;
mod pins;
mod pod;
mod ports;
pub mod preflight;
mod ring;
mod verifier;

use tr111_common::config::Config;
use tracing::warn;

use self::{
    attach::{Attacher, Held},
    order::Watched,
};
pub use self::{
    attach::{Attachment, Mode, ProgramMode, Side, TcOrder, XdpMode},
    bindings::Bindings,
    chain::{Direction, Neighbours},
    clsact::detach_all as detach_filters,
    counters::Counters,
    error::Error,
    kernel::has_tcx,
    line_rate::{LineRate, Listener},
    load::{Loaded, Purpose},
    marks::Marks,
    order::{Filters, INTERVAL as ORDER_INTERVAL, Standing},
    pins::{Pins, Unpinned, pinned_interfaces, unpin},
    ports::{Bridges, Port},
    ring::LanRing,
    verifier::{LogDepth, Refusal, Verification},
};

/// Settings of a gateway's dataplane.
#[derive(Clone, Debug)]
pub struct Options {
    /// LAN interfaces, by name.
    pub lan: Vec<String>,
    /// WAN interfaces, by name.
    pub wan: Vec<String>,
    /// Existing ports of LAN bridges. `None`: ports are not watched.
    pub ports: Option<Vec<Port>>,
    /// Hook of the ingress programs.
    pub xdp_mode: XdpMode,
    /// Position of TC programs among foreign TC programs.
    pub tc_order: TcOrder,
    /// Settings of the programs. If maps of an earlier agent are adopted, the seed in them is kept.
    pub config: Config,
    /// Value of option 125 with the Gateway Identity.
    pub gateway: Vec<u8>,
    /// Log the diagnostics of the programs.
    pub log_programs: bool,
}

/// Loaded and attached programs of a gateway. Dropping it detaches programs that are not pinned.
#[derive(Debug)]
pub struct Dataplane {
    loaded: Loaded,
    pins: Option<Pins>,
    held: Vec<Held>,
    xdp_mode: XdpMode,
    tc_order: TcOrder,
    /// The TC programs, and the foreign programs around them.
    watched: Vec<Watched>,
    wan: Vec<String>,
    follows_ports: bool,
    attachments: Vec<Attachment>,
    /// Interfaces that did not exist at the start.
    missing: Vec<(String, Side)>,
    counters: Counters,
    marks: Marks,
    ring: Option<LanRing>,
}

impl Dataplane {
    /// Loads the programs and attaches them to all existing interfaces. On an error no new program stays attached.
    /// Programs that an earlier agent pinned keep running, and the next start adopts them.
    ///
    /// With `pins`, maps of an earlier agent are adopted and its links get the new programs, so that no frame passes
    /// unobserved. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(options: &Options, pins: Option<Pins>) -> Result<Self, Error> {
        refuse_second_agent(&options.lan, pins.as_ref())?;
        let had_maps = pins.as_ref().is_none_or(Pins::has_maps);
        let started = Self::load(options, pins.as_ref());
        if let (Err(_), false, Some(pins)) = (&started, had_maps, &pins) {
            pins.forget_maps();
        }
        Ok(Self { pins, ..started? })
    }

    /// As [`Dataplane::start`]; the field `pins` is not set.
    fn load(options: &Options, pins: Option<&Pins>) -> Result<Self, Error> {
        let mut loaded = Loaded::load(Purpose::Gateway, options.log_programs, pins)?;
        let counters = Counters::new(loaded.take_map(tr111_common::abi::map::COUNTERS)?)?;
        let marks = Marks::new(&mut loaded, options.config.seed)?;
        // The settings and the Gateway Identity must be in place before the first frame.
        marks.set_config(&options.config)?;
        marks.set_gateway(&options.gateway)?;
        let ring = LanRing::new(loaded.take_map(tr111_common::abi::map::EVENTS_LAN)?)?;
        if options.log_programs {
            forward_logs(loaded.logger()?)?;
        }
        let mut held = Vec::new();
        let lan = options.lan.iter().map(|name| (name.as_str(), Side::Lan));
        let wan = options.wan.iter().map(|name| (name.as_str(), Side::Wan));
        let (present, missing): (Vec<_>, Vec<_>) = lan.chain(wan).partition(|(name, _)| attach::ifindex(name).is_ok());
        let mut attacher = Attacher::new(&mut loaded, pins, &mut held, options.tc_order);
        // Ports before their bridges, so that the reply to each observed request is observed as well.
        let wanted = options.ports.as_deref().unwrap_or_default();
        let at_ports: Vec<_> = wanted.iter().filter_map(|port| first_port(&mut attacher, &marks, port)).collect();
        let mut attachments = attacher.all(present, options.xdp_mode)?;
        attachments.extend(at_ports);
        let watched = attacher.seats.into_iter().map(Watched::from).collect();
        if let Some(pins) = pins {
            pins.tidy(attachments.iter().map(Attachment::place));
        }
        memory::trim();
        let ring = Some(ring);
        Ok(Self {
            loaded,
            pins: None,
            held,
            xdp_mode: options.xdp_mode,
            tc_order: options.tc_order,
            watched,
            wan: options.wan.clone(),
            follows_ports: options.ports.is_some(),
            attachments,
            missing: missing.into_iter().map(|(name, side)| (name.to_owned(), side)).collect(),
            counters,
            marks,
            ring,
        })
    }

    /// Attaches to a LAN or WAN interface that appeared after the start.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn attach(&mut self, interface: &str) -> Result<Attachment, Error> {
        attach::refuse_second_agent(interface, self.pins.as_ref())?;
        let mut attacher = Attacher::new(&mut self.loaded, self.pins.as_ref(), &mut self.held, self.tc_order);
        let side = if self.wan.iter().any(|name| name == interface) { Side::Wan } else { Side::Lan };
        let mut attachments = attacher.all([(interface, side)], self.xdp_mode)?;
        self.watched.extend(attacher.seats.into_iter().map(Watched::from));
        attachments.pop().ok_or_else(|| Error::NoInterface(interface.to_owned()))
    }

    /// Attaches to a port of a LAN bridge.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn attach_port(&mut self, port: &Port) -> Result<Attachment, Error> {
        let mut attacher = Attacher::new(&mut self.loaded, self.pins.as_ref(), &mut self.held, self.tc_order);
        let attachment = attach_port(&mut attacher, &self.marks, port)?;
        self.watched.extend(attacher.seats.into_iter().map(Watched::from));
        Ok(attachment)
    }

    /// Detaches from a port of a LAN bridge.
    pub fn release_port(&mut self, port: &Port) {
        self.release(&port.name);
        self.marks.remove_port(port.ifindex);
    }

    /// Whether ports of LAN bridges are watched.
    pub fn follows_ports(&self) -> bool {
        self.follows_ports
    }

    /// Detaches from an interface, which may no longer exist.
    pub fn release(&mut self, interface: &str) {
        self.held.retain(|held| held.interface != interface);
        self.watched.retain(|watched| watched.seat.interface != interface);
        if let Some(pins) = &self.pins {
            pins.forget_interface(interface);
        }
    }

    /// Whether the programs are pinned and keep running when the agent ends.
    pub fn is_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Detaches all programs and removes all pins.
    pub fn detach(mut self) {
        self.held.clear();
        if let Some(pins) = self.pins.take() {
            pins.remove();
        }
    }

    /// Interfaces with the programs that were attached at the start.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Interfaces that did not exist at the start, and their sides.
    pub fn missing(&self) -> &[(String, Side)] {
        &self.missing
    }

    /// The counters of the programs.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The maps that agent and programs share.
    pub fn marks(&self) -> Marks {
        self.marks.clone()
    }

    /// The reader of the LAN ring. `None` after the first call.
    pub fn take_lan_ring(&mut self) -> Option<LanRing> {
        self.ring.take()
    }

    /// The loaded programs.
    pub fn loaded_mut(&mut self) -> &mut Loaded {
        &mut self.loaded
    }
}

/// Attaches to a port of a LAN bridge at the start. A failure is logged, and the next change of the port leads to
/// another attempt.
fn first_port<'a>(attacher: &mut Attacher<'a>, marks: &Marks, port: &'a Port) -> Option<Attachment> {
    let result = attach_port(attacher, marks, port);
    result.inspect_err(|error| warn!(port = port.name, %error, "cannot watch a port of a LAN bridge")).ok()
}

fn attach_port<'a>(attacher: &mut Attacher<'a>, marks: &Marks, port: &'a Port) -> Result<Attachment, Error> {
    // The program needs the index of the bridge from the first frame on.
    marks.add_port(port.ifindex, port.bridge)?;
    let result = attacher.interface(&port.name, Side::Port, XdpMode::Tc);
    result.inspect_err(|_| marks.remove_port(port.ifindex))
}

/// Checks the LAN interfaces before anything is loaded. Fails if another agent is attached to one of them, or if none
/// of them exists. Some may appear later, such as a bridge or a USB adapter.
///
/// # Errors
/// [`Error::AlreadyRunning`], [`Error::NoInterface`].
pub fn refuse_second_agent(interfaces: &[String], pins: Option<&Pins>) -> Result<(), Error> {
    let present = interfaces.iter().filter(|interface| attach::ifindex(interface).is_ok());
    let is_any = present
        .map(|interface| attach::refuse_second_agent(interface, pins))
        .try_fold(false, |_, one| one.map(|()| true))?;
    match interfaces.first() {
        Some(first) if !is_any => Err(Error::NoInterface(first.clone())),
        _ => Ok(()),
    }
}

/// Forwards the diagnostics of the programs to the log.
fn forward_logs(logger: aya_log::EbpfLogger<&'static dyn log::Log>) -> Result<(), Error> {
    let mut logger = ring::watch(logger)?;
    tokio::spawn(async move {
        loop {
            match logger.readable_mut().await {
                Ok(mut guard) => {
                    guard.get_inner_mut().flush();
                    guard.clear_ready();
                }
                Err(error) => {
                    warn!(%error, "cannot read the diagnostics of the kernel programs");
                    return;
                }
            }
        }
    });
    Ok(())
}
