//! Loading of the object file that `agent/build.rs` compiles.

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapError, ProgramArray},
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use tr111_common::abi::{map, program};

use super::{
    Error, Pins,
    error::errno,
    pins::MAPS,
    verifier::{LogDepth, Refusal, Verification},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tr111"));

/// Log level of the programs with `log_programs`: all messages.
const LOG_ALL: u8 = 5;

/// The role that needs programs. Maps that only other roles need get one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Programs of a gateway.
    Gateway,
    /// Line-rate path of an ACS.
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
            Self::Gateway => &[
                program::LAN_INGRESS_TC,
                program::LAN_MERGED,
                program::LAN_EGRESS,
                program::LAN_PORT,
                program::LAN_BINDING,
                program::WAN_INGRESS_TC,
            ],
            Self::Acs => &[],
        }
    }

    /// All programs, in the order in which they are loaded.
    fn programs(self) -> impl Iterator<Item = &'static str> {
        self.xdp().iter().chain(self.classifiers()).copied()
    }

    /// Large maps that the programs do not use.
    fn unused(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => &[map::LISTENERS, map::OWN_ADDRESSES, map::BINDINGS],
            Self::Acs => &[
                map::EXCHANGES,
                map::STICKY,
                map::NEWCOMERS,
                map::LAST_ACK,
                map::NEIGHBOURS,
                map::BUDGETS,
                map::SOURCE_BUDGETS,
                map::DHCP_BUDGETS,
                map::WAN_BUDGETS,
                map::FLOWS,
            ],
        }
    }
}

/// Loaded programs, not attached yet.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
}

impl Loaded {
    /// Loads and verifies the programs for `purpose`.
    ///
    /// With `pins`, maps of an earlier agent are adopted, and new maps are pinned.
    ///
    /// `log_programs` enables the diagnostics of the programs. Otherwise the verifier removes the code for them.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(purpose: Purpose, log_programs: bool, pins: Option<&Pins>) -> Result<Self, Error> {
        Self::create(OBJECT, purpose, log_programs, pins, LogDepth::Reasons)?.load_programs(purpose)
    }

    /// Loads and verifies the programs of another object file with the same maps, for benchmarks that compare two
    /// builds.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load_object(object: &[u8], purpose: Purpose) -> Result<Self, Error> {
        Self::create(object, purpose, false, None, LogDepth::Reasons)?.load_programs(purpose)
    }

    /// Verifies all programs for `purpose` without keeping them.
    ///
    /// # Errors
    /// See [`Error`]. A program that the verifier rejects is not an error.
    pub fn verify(purpose: Purpose, depth: LogDepth) -> Result<Vec<Verification>, Error> {
        let mut loaded = Self::create(OBJECT, purpose, false, None, depth)?;
        let verify = |name| Ok(Verification { program: name, outcome: loaded.load_program(name)? });
        purpose.programs().map(verify).collect()
    }

    /// Creates the maps. The programs are loaded later.
    fn create(
        object: &[u8],
        purpose: Purpose,
        log_programs: bool,
        pins: Option<&Pins>,
        depth: LogDepth,
    ) -> Result<Self, Error> {
        let level: u8 = if log_programs { LOG_ALL } else { 0 };
        let mut loader = EbpfLoader::new();
        loader.override_global("AYA_LOG_LEVEL", &level, true);
        loader.verifier_log_level(match depth {
            LogDepth::Reasons => VerifierLogLevel::STATS,
            LogDepth::Instructions => VerifierLogLevel::DEBUG | VerifierLogLevel::STATS,
        });
        for name in purpose.unused() {
            loader.map_max_entries(name, 1);
        }
        if let Some(pins) = pins {
            for name in MAPS {
                loader.map_pin_path(name, pins.map(name)?);
            }
        }
        Ok(Self { ebpf: loader.load(object).map_err(load_error)? })
    }

    fn load_programs(mut self, purpose: Purpose) -> Result<Self, Error> {
        for program in purpose.programs() {
            self.load_program(program)?.map_err(|Refusal { reason, .. }| Error::Verifier { program, reason })?;
        }
        if purpose == Purpose::Gateway {
            self.connect_merged()?;
        }
        Ok(self)
    }

    /// Sets the tail call from `lan_ingress_tc` to `lan_merged`.
    fn connect_merged(&mut self) -> Result<(), Error> {
        let wrong = |source| Error::Map { name: map::TURNS, source };
        let merged = self.classifier(program::LAN_MERGED)?.fd().and_then(|fd| Ok(fd.try_clone()?));
        let merged = merged.map_err(|error| Error::Load(error.into()))?;
        // The map stays in the object, because the kernel clears it when no process has it open.
        let turns = self.ebpf.map_mut(map::TURNS).ok_or(Error::Missing(map::TURNS))?;
        ProgramArray::try_from(turns).and_then(|mut turns| turns.set(0, &merged, 0)).map_err(wrong)
    }

    /// Loads a program. Returns the number of verified instructions, or 0 if the kernel does not report it.
    fn load_program(&mut self, name: &'static str) -> Result<Result<u32, Refusal>, Error> {
        let program = self.ebpf.program_mut(name).ok_or(Error::Missing(name))?;
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => return Err(Error::Missing(name)),
        };
        match loaded {
            Ok(()) => {
                let info = program.info().map_err(|_| Error::Missing(name))?;
                Ok(Ok(info.verified_instruction_count().unwrap_or_default()))
            }
            Err(error) if errno(&error) == Some(libc::EPERM) => Err(Error::Privileges),
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                Ok(Err(Refusal::new(&io_error, verifier_log.to_string())))
            }
            Err(other) => Ok(Err(Refusal { reason: other.to_string(), log: String::new() })),
        }
    }

    /// A TC program, loaded.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) fn loaded_classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        if self.classifier(name)?.fd().is_err() {
            // The last attempt to load a copy failed.
            return self.load_copy(name);
        }
        self.classifier(name)
    }

    /// Loads another copy of a TC program. Attached copies stay attached. Later attachments use the new copy.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) fn load_copy(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        match self.classifier(name)?.unload() {
            // An earlier attempt to load a copy failed.
            Ok(()) | Err(ProgramError::NotLoaded) => {}
            Err(error) => return Err(Error::Load(error.into())),
        }
        self.load_program(name)?.map_err(|Refusal { reason, .. }| Error::Verifier { program: name, reason })?;
        self.classifier(name)
    }

    /// An XDP program of the object file.
    ///
    /// # Errors
    /// [`Error::Missing`]
    pub fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::Xdp(program)) => Ok(program),
            _ => Err(Error::Missing(name)),
        }
    }

    /// A TC program of the object file.
    ///
    /// # Errors
    /// [`Error::Missing`]
    pub fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::SchedClassifier(program)) => Ok(program),
            _ => Err(Error::Missing(name)),
        }
    }

    /// Moves a map out of the object file.
    ///
    /// # Errors
    /// [`Error::Missing`]
    pub fn take_map(&mut self, name: &'static str) -> Result<Map, Error> {
        self.ebpf.take_map(name).ok_or(Error::Missing(name))
    }

    /// Reader of the programs' diagnostics.
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
