//! `acs_stun`, loaded and run on frames by `BPF_PROG_TEST_RUN`, attached to nothing.

use anyhow::Result;
use aya::programs::{TestRun as _, TestRunOptions, Xdp, xdp};
use tr111::dataplane::{Bindings, LineRate, Loaded, Purpose, XdpMode};
use tr111_common::{
    abi::program,
    counter::{Class, Counter, Hook},
};
use tr111_core::time::BootTime;

use crate::{
    corpus::acs::{NAMES, SERVERS, SOURCE, listeners, own_addresses},
    namespace::Namespace,
    testing::Testing,
};

/// Seed of the hash over names.
const SEED: u64 = 7;
/// Longest frame that comes back.
const FRAME_MAXIMUM: usize = 2048;
/// `XDP_TX` of linux/bpf.h.
const XDP_TX: u32 = 3;

/// The loaded program, which knows what the corpus takes for granted: where the server listens, and who is registered.
pub struct Program {
    line_rate: LineRate,
    empty: Testing,
}

/// What a run made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Every class that was counted.
    pub classes: Vec<(Class, u64)>,
    /// The frame goes back where it came from.
    pub is_sent_back: bool,
    /// The frame as it left the program.
    pub frame: Vec<u8>,
}

impl Program {
    /// Loads it.
    ///
    /// # Errors
    /// Not root, or the verifier refuses it.
    pub fn load() -> Result<Self> {
        Self::of(LineRate::load(XdpMode::Native, SEED)?)
    }

    /// Loads that of another object with the same maps.
    ///
    /// # Errors
    /// Not root, the verifier refuses it, or the maps are others.
    pub fn load_object(object: &[u8]) -> Result<Self> {
        Self::of(LineRate::over(Loaded::load_object(object, Purpose::Acs)?, XdpMode::Native, SEED)?)
    }

    fn of(mut line_rate: LineRate) -> Result<Self> {
        line_rate.listen(listeners(), &own_addresses())?;
        for name in NAMES {
            line_rate.bindings().register(name.as_bytes(), SOURCE, SERVERS[0], BootTime(1))?;
        }
        Ok(Self { line_rate, empty: Testing::load()? })
    }

    /// The registered bindings.
    pub fn bindings(&self) -> Bindings {
        self.line_rate.bindings()
    }

    /// Runs it on a frame once.
    ///
    /// # Errors
    /// The kernel refuses to run the frame.
    pub fn run(&mut self, frame: &[u8]) -> Result<Verdict> {
        let before = self.counted()?;
        let mut out = vec![0; FRAME_MAXIMUM];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = self.program()?.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        let moved = Class::ALL.iter().zip(before.into_iter().zip(self.counted()?));
        let classes = moved.filter(|(_, (old, new))| old != new).map(|(class, (old, new))| (*class, new - old));
        Ok(Verdict { classes: classes.collect(), is_sent_back: result.return_value == XDP_TX, frame: out })
    }

    /// Nanoseconds that a program takes that does nothing, and that this one takes: means of `repeat` runs.
    ///
    /// # Errors
    /// The kernel refuses to run the frame.
    pub fn time(&mut self, frame: &[u8], repeat: u32) -> Result<(f64, f64)> {
        let nanoseconds = |program: &Xdp| {
            let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
            anyhow::Ok(program.test_run(options)?.duration.as_secs_f64() * 1e9)
        };
        Ok((nanoseconds(self.empty.empty_xdp()?)?, nanoseconds(self.program()?)?))
    }

    /// Nanoseconds that this one takes.
    ///
    /// # Errors
    /// The kernel refuses to run the frame.
    pub fn time_alone(&mut self, frame: &[u8], repeat: u32) -> Result<f64> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        Ok(self.program()?.test_run(options)?.duration.as_secs_f64() * 1e9)
    }

    fn program(&mut self) -> Result<&mut Xdp> {
        Ok(self.line_rate.loaded_mut().xdp(program::ACS_STUN)?)
    }

    fn counted(&self) -> Result<Vec<u64>> {
        let counters = self.line_rate.counters();
        Class::ALL.iter().map(|class| Ok(counters.read(Counter::Packet(Hook::AcsStun, *class))?)).collect()
    }
}

/// A program on an interface that lets every frame pass: a veth whose peer has no program swallows what `XDP_TX` sends.
pub struct Passing {
    _program: Testing,
}

impl Passing {
    /// Attaches it, natively.
    ///
    /// # Errors
    /// The slot is taken.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self> {
        let mut program = Testing::load()?;
        let passing = program.empty_xdp()?;
        namespace.enter(|| passing.attach(interface, xdp::XdpMode::Driver))?;
        Ok(Self { _program: program })
    }
}
