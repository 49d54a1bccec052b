//! The programs of tests and benchmarks (`ebpf/src/testing.rs`): an object that the agent does not have.

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{ProgramError, SchedClassifier, Xdp},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TR111_TESTING_OBJECT"));

/// The object. Its programs are loaded as they are asked for.
#[derive(Debug)]
pub struct Testing {
    ebpf: Ebpf,
}

impl Testing {
    /// Creates its maps.
    ///
    /// # Errors
    /// Not root.
    pub fn load() -> Result<Self> {
        Ok(Self { ebpf: EbpfLoader::new().load(OBJECT)? })
    }

    /// The program that does nothing, at XDP.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn empty_xdp(&mut self) -> Result<&mut Xdp> {
        self.xdp("bench_empty")
    }

    /// The program that does nothing, at TC.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn empty_classifier(&mut self) -> Result<&mut SchedClassifier> {
        self.classifier("bench_empty_tc")
    }

    /// An XDP program, loaded.
    ///
    /// # Errors
    /// There is none of that name, or the kernel refuses it.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program: &mut Xdp = self.ebpf.program_mut(name).context("no such program")?.try_into()?;
        once(program.load()).with_context(|| name.to_owned())?;
        Ok(program)
    }

    /// A TC program, loaded.
    ///
    /// # Errors
    /// There is none of that name, or the kernel refuses it.
    pub fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program: &mut SchedClassifier = self.ebpf.program_mut(name).context("no such program")?.try_into()?;
        once(program.load()).with_context(|| name.to_owned())?;
        Ok(program)
    }

    /// Takes a map out.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn take_map(&mut self, name: &str) -> Result<Map> {
        self.ebpf.take_map(name).with_context(|| format!("no map {name}"))
    }
}

/// A program that is loaded already is as good as one that is loaded now.
fn once(loaded: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match loaded {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other,
    }
}
