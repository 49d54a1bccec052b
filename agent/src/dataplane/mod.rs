//! The agent's side of the kernel programs: loading, attaching, rings, counters, and the maps that the agent writes.

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

/// What to attach, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// LAN interfaces, by name.
    pub lan: Vec<String>,
    /// WAN interfaces, by name.
    pub wan: Vec<String>,
    /// Ports of LAN bridges that are there; `None` where ports are not watched.
    pub ports: Option<Vec<Port>>,
    /// How `lan_ingress` attaches.
    pub xdp_mode: XdpMode,
    /// Where TC programs run among those of others.
    pub tc_order: TcOrder,
    /// Settings for the programs. Where maps of an earlier agent are taken over, their seed stays.
    pub config: Config,
    /// Value of option 125 with the Gateway Identity.
    pub gateway: Vec<u8>,
    /// Pass the programs' own diagnostics to the log.
    pub log_programs: bool,
}

/// Loaded and attached programs. Dropping it takes off what is not pinned.
#[derive(Debug)]
pub struct Dataplane {
    loaded: Loaded,
    pins: Option<Pins>,
    held: Vec<Held>,
    xdp_mode: XdpMode,
    tc_order: TcOrder,
    /// The TC programs, and what is around them.
    watched: Vec<Watched>,
    wan: Vec<String>,
    /// Ports of LAN bridges are watched.
    follows_ports: bool,
    attachments: Vec<Attachment>,
    /// What was not there at the start.
    missing: Vec<(String, Side)>,
    counters: Counters,
    marks: Marks,
    ring: Option<LanRing>,
}

impl Dataplane {
    /// Loads the programs and attaches them to every interface that is there. On an error nothing stays attached but what an earlier
    /// agent had pinned: that goes on, and the next start adopts it.
    ///
    /// With `pins`, what an earlier agent left is adopted: its maps stay, its links get the new programs, and no frame
    /// passes without one. Needs a tokio runtime.
    ///
    /// # Errors
    /// What is missing, in words for who installs the agent.
    pub fn start(options: &Options, pins: Option<Pins>) -> Result<Self, Error> {
        refuse_second_agent(&options.lan, pins.as_ref())?;
        let had_maps = pins.as_ref().is_none_or(Pins::has_maps);
        let started = Self::load(options, pins.as_ref());
        if let (Err(_), false, Some(pins)) = (&started, had_maps, &pins) {
            pins.forget_maps();
        }
        Ok(Self { pins, ..started? })
    }

    /// What [`Dataplane::start`] gives, but for `pins`.
    fn load(options: &Options, pins: Option<&Pins>) -> Result<Self, Error> {
        let mut loaded = Loaded::load(Purpose::Gateway, options.log_programs, pins)?;
        let counters = Counters::new(loaded.take_map(tr111_common::abi::map::COUNTERS)?)?;
        let marks = Marks::new(&mut loaded, options.config.seed)?;
        // Before the first frame: what the programs are told, and what they insert.
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
        // Ports before their bridges: a request that is seen must find its reply watched.
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

    /// Attaches to an interface that came back.
    ///
    /// # Errors
    /// What is missing, in words for who runs the agent.
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
    /// What is missing, in words for who runs the agent.
    pub fn attach_port(&mut self, port: &Port) -> Result<Attachment, Error> {
        let mut attacher = Attacher::new(&mut self.loaded, self.pins.as_ref(), &mut self.held, self.tc_order);
        let attachment = attach_port(&mut attacher, &self.marks, port)?;
        self.watched.extend(attacher.seats.into_iter().map(Watched::from));
        Ok(attachment)
    }

    /// Takes off what is attached to a port.
    pub fn release_port(&mut self, port: &Port) {
        self.release(&port.name);
        self.marks.remove_port(port.ifindex);
    }

    /// Whether ports of LAN bridges are watched.
    pub fn follows_ports(&self) -> bool {
        self.follows_ports
    }

    /// Takes off what is attached to an interface, or was while it was there.
    pub fn release(&mut self, interface: &str) {
        self.held.retain(|held| held.interface != interface);
        self.watched.retain(|watched| watched.seat.interface != interface);
        if let Some(pins) = &self.pins {
            pins.forget_interface(interface);
        }
    }

    /// Whether the programs outlive the agent.
    pub fn is_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Takes everything off, pins included.
    pub fn detach(mut self) {
        self.held.clear();
        if let Some(pins) = self.pins.take() {
            pins.remove();
        }
    }

    /// Where programs are attached.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Interfaces that were not there, and which way they face.
    pub fn missing(&self) -> &[(String, Side)] {
        &self.missing
    }

    /// A reader of the programs' counters.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// A writer of the maps that programs read.
    pub fn marks(&self) -> Marks {
        self.marks.clone()
    }

    /// The LAN ring, once.
    pub fn take_lan_ring(&mut self) -> Option<LanRing> {
        self.ring.take()
    }

    /// The programs behind it.
    pub fn loaded_mut(&mut self) -> &mut Loaded {
        &mut self.loaded
    }
}

/// Attaches to a port of a LAN bridge at the start. One that cannot be watched is tried again with the next change around it.
fn first_port<'a>(attacher: &mut Attacher<'a>, marks: &Marks, port: &'a Port) -> Option<Attachment> {
    let result = attach_port(attacher, marks, port);
    result.inspect_err(|error| warn!(port = port.name, %error, "a port of a LAN bridge is not watched")).ok()
}

fn attach_port<'a>(attacher: &mut Attacher<'a>, marks: &Marks, port: &'a Port) -> Result<Attachment, Error> {
    // The program has to know the bridge with the first frame.
    marks.add_port(port.ifindex, port.bridge)?;
    let result = attacher.interface(&port.name, Side::Port, XdpMode::Tc);
    result.inspect_err(|_| marks.remove_port(port.ifindex))
}

/// Refuses interfaces that another agent has, before anything is taken or loaded for them. Some may not be there yet:
/// a bridge that the system makes later, a USB adapter. Where none is, it is a mistake more likely than not.
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

/// Reads the programs' diagnostics into the agent's log.
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
                    warn!(%error, "the programs' diagnostics end here");
                    return;
                }
            }
        }
    });
    Ok(())
}
