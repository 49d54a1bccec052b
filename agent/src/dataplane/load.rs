//! Loading the object that agent/build.rs compiled.

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapError},
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use tr111_common::abi::{map, program};

use super::{Error, Pins, error::errno, pins::MAPS};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tr111"));

/// Diagnostics of the programs that `log_programs` lets through: all.
const LOG_ALL: u8 = 5;

/// Which programs are wanted. The maps of the others get room for next to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What a gateway sees on its LAN and WAN.
    Gateway,
    /// The line-rate path of an ACS.
    Acs,
}

impl Purpose {
    fn xdp(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => &[program::LAN_INGRESS, program::WAN_INGRESS],
            Self::Acs => &[program::ACS_STUN],
        }
    }

    fn classifiers(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => {
                &[program::LAN_INGRESS_TC, program::LAN_EGRESS, program::LAN_BINDING, program::WAN_INGRESS_TC]
            }
            Self::Acs => &[],
        }
    }

    /// The larger maps that its programs have no use for.
    fn unused(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => &[map::LISTENERS, map::BINDINGS],
            Self::Acs => &[
                map::EXCHANGES,
                map::STICKY,
                map::NEWCOMERS,
                map::LAST_ACK,
                map::NEIGHBOURS,
                map::BUDGETS,
                map::DHCP_BUDGETS,
                map::WAN_BUDGETS,
                map::FLOWS,
            ],
        }
    }
}

/// Programs in the kernel, attached to nothing yet.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads and verifies the programs for `purpose`.
    ///
    /// With `pins`, maps that an earlier agent left are taken over, and new ones are left for the next.
    ///
    /// `log_programs` compiles their diagnostics in; otherwise the verifier removes them.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(purpose: Purpose, log_programs: bool, pins: Option<&Pins>) -> Result<Self, Error> {
        let level: u8 = if log_programs { LOG_ALL } else { 0 };
        let mut object = EbpfLoader::new();
        object.override_global("AYA_LOG_LEVEL", &level, true);
        for name in purpose.unused() {
            object.map_max_entries(name, 1);
        }
        if let Some(pins) = pins {
            for name in MAPS {
                object.map_pin_path(name, pins.map(name)?);
            }
        }
        let mut loaded = Self { ebpf: object.load(OBJECT).map_err(load_error)? };
        for &name in purpose.xdp() {
            loaded.xdp(name)?.load().map_err(|error| verifier_error(name, &error))?;
        }
        for &name in purpose.classifiers() {
            loaded.classifier(name)?.load().map_err(|error| verifier_error(name, &error))?;
        }
        Ok(loaded)
    }

    /// An XDP program of the object.
    ///
    /// # Errors
    /// [`Error::Missing`]
    pub fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::Xdp(program)) => Ok(program),
            _ => Err(Error::Missing(name)),
        }
    }

    /// A TC program of the object.
    ///
    /// # Errors
    /// [`Error::Missing`]
    pub fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::SchedClassifier(program)) => Ok(program),
            _ => Err(Error::Missing(name)),
        }
    }

    /// Takes a map out of the object.
    ///
    /// # Errors
    /// [`Error::Missing`]
    pub fn take_map(&mut self, name: &'static str) -> Result<Map, Error> {
        self.ebpf.take_map(name).ok_or(Error::Missing(name))
    }

    /// The reader of the programs' diagnostics.
    pub(super) fn logger(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf).map_err(|_| Error::Missing("AYA_LOGS"))
    }
}

fn load_error(error: EbpfError) -> Error {
    let refused = match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => io_error.raw_os_error(),
        EbpfError::ProgramError(inner) => errno(inner),
        _ => None,
    };
    if refused == Some(libc::EPERM) { Error::Privileges } else { Error::Load(error) }
}

fn verifier_error(program: &'static str, error: &ProgramError) -> Error {
    if errno(error) == Some(libc::EPERM) {
        return Error::Privileges;
    }
    let reason = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let line = log.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("processed "));
            format!("{io_error}: {}", line.unwrap_or("no word from the verifier"))
        }
        other => other.to_string(),
    };
    Error::Verifier { program, reason }
}
