//! The agent's side of the kernel programs: loading, attaching, rings, counters, and the maps that the agent writes.

mod attach;
mod counters;
mod error;
mod load;
mod marks;
mod memory;
pub mod preflight;
mod ring;

use tr111_common::config::Config;
use tracing::warn;

pub use self::{
    attach::{Attachment, Mode, ProgramMode, Side, XdpMode},
    counters::Counters,
    error::Error,
    load::Loaded,
    marks::Marks,
    ring::LanRing,
};

/// What to attach, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// LAN interfaces, by name.
    pub lan: Vec<String>,
    /// How `lan_ingress` attaches.
    pub xdp_mode: XdpMode,
    /// Settings for the programs.
    pub config: Config,
    /// Pass the programs' own diagnostics to the log.
    pub log_programs: bool,
}

/// Loaded and attached programs. Dropping it takes them off.
#[derive(Debug)]
pub struct Dataplane {
    loaded: Loaded,
    attachments: Vec<Attachment>,
    counters: Counters,
    marks: Marks,
    ring: Option<LanRing>,
}

impl Dataplane {
    /// Loads the programs and attaches them to every interface; on an error nothing stays attached.
    ///
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// What is missing, in words for who installs the agent.
    pub fn start(options: &Options) -> Result<Self, Error> {
        for interface in &options.lan {
            attach::refuse_second_agent(interface)?;
        }
        let mut loaded = Loaded::load(options.log_programs)?;
        let counters = Counters::new(loaded.take_map(tr111_common::abi::map::COUNTERS)?)?;
        let marks = Marks::new(&mut loaded)?;
        marks.set_config(&options.config)?;
        let ring = LanRing::new(loaded.take_map(tr111_common::abi::map::EVENTS_LAN)?)?;
        if options.log_programs {
            forward_logs(loaded.logger()?)?;
        }
        let attachments = options
            .lan
            .iter()
            .map(|name| attach::lan(&mut loaded, name, options.xdp_mode))
            .collect::<Result<_, _>>()?;
        memory::trim();
        Ok(Self { loaded, attachments, counters, marks, ring: Some(ring) })
    }

    /// Where programs are attached.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
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

/// Refuses interfaces that another agent has, before anything is taken or loaded for them.
///
/// # Errors
/// [`Error::AlreadyRunning`], [`Error::NoInterface`].
pub fn refuse_second_agent(interfaces: &[String]) -> Result<(), Error> {
    interfaces.iter().try_for_each(|interface| attach::refuse_second_agent(interface))
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
