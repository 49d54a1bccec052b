//! The kernel programs, loaded and run on frames by `BPF_PROG_TEST_RUN`, attached to nothing.

use anyhow::{Result, ensure};
use aya::{
    maps::{MapData, RingBuf},
    programs::{TestRun, TestRunOptions, TestRunResult},
};
use tr111::dataplane::{Counters, Loaded, Marks, Purpose};
use tr111_common::{
    abi::{map, program},
    config::Config,
    counter::{Class, Counter, Hook, Ring},
    dhcp4::MessageType,
    event::Event,
    identity::Refusal,
};

use crate::testing::Testing;

/// Largest frame that comes back.
const FRAME_MAXIMUM: usize = 20 * 1024;

/// `XDP_PASS` of linux/bpf.h.
const XDP_PASS: u32 = 2;
/// `TCX_NEXT` of linux/bpf.h.
const TCX_NEXT: i32 = -1;

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `lan_ingress` at XDP.
    IngressXdp,
    /// `lan_ingress` at TC.
    IngressTc,
    /// `lan_egress` at TC.
    Egress,
    /// `lan_binding` at TC.
    Binding,
    /// `wan_ingress` at XDP.
    WanXdp,
    /// `wan_ingress` at TC.
    WanTc,
    /// The program that does nothing, at XDP.
    Empty,
    /// The program that does nothing, at TC.
    EmptyTc,
}

impl Program {
    /// The hook whose frames it counts.
    pub fn hook(self) -> Hook {
        match self {
            Self::Egress | Self::EmptyTc => Hook::LanEgress,
            Self::Binding => Hook::LanBinding,
            Self::WanXdp | Self::WanTc => Hook::WanIngress,
            Self::IngressXdp | Self::IngressTc | Self::Empty => Hook::LanIngress,
        }
    }
}

/// What the programs counted, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted(Vec<u64>);

/// What a run made of a frame.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Every counter of frames that moved, and by how much.
    pub classes: Vec<(Hook, Class, u64)>,
    /// Refused identities that were counted.
    pub refusals: Vec<(MessageType, Refusal)>,
    /// The frame goes on to whatever comes next.
    pub passed: bool,
    /// The frame as it left the program.
    pub frame: Vec<u8>,
    /// Class and frame of the ring's events.
    pub events: Vec<(Class, Vec<u8>)>,
}

/// The loaded programs with their maps.
pub struct Programs {
    loaded: Loaded,
    empty: Testing,
    counters: Counters,
    marks: Marks,
    ring: RingBuf<MapData>,
    round: u32,
}

impl Programs {
    /// Loads them all.
    ///
    /// # Errors
    /// Not root, or the verifier refuses one.
    pub fn load() -> Result<Self> {
        Self::of(Loaded::load(Purpose::Gateway, false, None)?)
    }

    /// Loads those of another object with the same maps.
    ///
    /// # Errors
    /// Not root, the verifier refuses one, or the maps are others.
    pub fn load_object(object: &[u8]) -> Result<Self> {
        Self::of(Loaded::load_object(object, Purpose::Gateway)?)
    }

    fn of(mut loaded: Loaded) -> Result<Self> {
        Ok(Self {
            counters: Counters::new(loaded.take_map(map::COUNTERS)?)?,
            marks: Marks::new(&mut loaded, 0)?,
            ring: loaded.take_map(map::EVENTS_LAN)?.try_into()?,
            loaded,
            empty: Testing::load()?,
            round: 0,
        })
    }

    /// Sets what the programs are told, and starts a new round, whose number is the answer.
    ///
    /// Clients are known by hashes under the seed, so that with a new one nobody is known. Frames of a round have
    /// transactions of their own, so that no exchange is known either.
    ///
    /// # Errors
    /// A map refuses.
    pub fn start_round(&mut self, config: &Config) -> Result<u32> {
        self.round += 1;
        self.marks.set_config(&Config { seed: u64::from(self.round), ..*config })?;
        self.drain();
        Ok(self.round)
    }

    /// Sets the Gateway Identity, as the value of option 125.
    ///
    /// # Errors
    /// A map refuses.
    pub fn set_gateway(&self, value: &[u8]) -> Result<()> {
        Ok(self.marks.set_gateway(value)?)
    }

    /// Takes everything out of the ring; how much it was.
    pub fn drain(&mut self) -> usize {
        let mut records = 0;
        while self.ring.next().is_some() {
            records += 1;
        }
        records
    }

    /// Runs a program on a frame once; the records that it left in the ring, as they are.
    ///
    /// # Errors
    /// The kernel refuses to run the frame.
    pub fn records(&mut self, program: Program, frame: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.drain();
        self.time(program, frame, 1)?;
        Ok(std::iter::from_fn(|| self.ring.next().map(|record| record.to_vec())).collect())
    }

    /// The programs, for attaching.
    pub fn loaded(&mut self) -> &mut Loaded {
        &mut self.loaded
    }

    /// Runs a program on a frame once, and says what it did.
    ///
    /// # Errors
    /// The kernel refuses to run the frame.
    pub fn run(&mut self, program: Program, frame: &[u8]) -> Result<Verdict> {
        let before = self.counted()?;
        let mut out = vec![0; FRAME_MAXIMUM];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = self.test_run(program, options)?;
        let passed = match program {
            Program::IngressXdp | Program::WanXdp | Program::Empty => result.return_value == XDP_PASS,
            Program::IngressTc | Program::Egress | Program::Binding | Program::WanTc | Program::EmptyTc => {
                result.return_value.cast_signed() == TCX_NEXT
            }
        };
        out.truncate(result.data_size_out as usize);
        let after = self.counted()?;
        let mut events = Vec::new();
        while let Some(record) = self.ring.next() {
            let event = Event::parse(&record).map_err(|error| anyhow::anyhow!("{error:?}"))?;
            ensure!(event.hook == program.hook(), "an event of {:?} from {program:?}", event.hook);
            events.push((event.class, event.frame.to_vec()));
        }
        let moved: Vec<_> =
            slots().zip(before.0.iter().zip(&after.0)).map(|(slot, (old, new))| (slot, new - old)).collect();
        let classes = moved.iter().filter_map(|(counter, times)| match counter {
            Counter::Packet(hook, class) if *times != 0 => Some((*hook, *class, *times)),
            _ => None,
        });
        let refusals = moved.iter().filter_map(|(counter, times)| match counter {
            Counter::Refused(message, refusal) if *times != 0 => Some((*message, *refusal)),
            _ => None,
        });
        let told: u64 =
            moved.iter().filter(|(counter, _)| matches!(counter, Counter::RingEvents(_))).map(|(_, n)| n).sum();
        ensure!(told == events.len() as u64, "{told} events were counted, {} are in the ring", events.len());
        Ok(Verdict { classes: classes.collect(), refusals: refusals.collect(), passed, frame: out, events })
    }

    /// Nanoseconds that a program takes for a frame, the mean of `repeat` runs in one call.
    ///
    /// # Errors
    /// The kernel refuses to run the frame.
    pub fn time(&mut self, program: Program, frame: &[u8], repeat: u32) -> Result<f64> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = self.test_run(program, options)?;
        Ok(result.duration.as_secs_f64() * 1e9)
    }

    /// The value of a counter.
    ///
    /// # Errors
    /// The map refuses.
    pub fn count(&self, counter: Counter) -> Result<u64> {
        Ok(self.counters.read(counter)?)
    }

    fn test_run(&mut self, program: Program, options: TestRunOptions<'_>) -> Result<TestRunResult> {
        Ok(match program {
            Program::IngressXdp => self.loaded.xdp(program::LAN_INGRESS)?.test_run(options)?,
            Program::Empty => self.empty.empty_xdp()?.test_run(options)?,
            Program::IngressTc => self.loaded.classifier(program::LAN_INGRESS_TC)?.test_run(options)?,
            Program::Egress => self.loaded.classifier(program::LAN_EGRESS)?.test_run(options)?,
            Program::Binding => self.loaded.classifier(program::LAN_BINDING)?.test_run(options)?,
            Program::WanXdp => self.loaded.xdp(program::WAN_INGRESS)?.test_run(options)?,
            Program::WanTc => self.loaded.classifier(program::WAN_INGRESS_TC)?.test_run(options)?,
            Program::EmptyTc => self.empty.empty_classifier()?.test_run(options)?,
        })
    }

    fn counted(&self) -> Result<Counted> {
        slots().map(|counter| Ok(self.counters.read(counter)?)).collect::<Result<_>>().map(Counted)
    }
}

/// Every counter that a run may move.
fn slots() -> impl Iterator<Item = Counter> {
    let packets =
        Hook::ALL.into_iter().flat_map(|hook| Class::ALL.iter().map(move |class| Counter::Packet(hook, *class)));
    let refusals = MessageType::ALL
        .into_iter()
        .flat_map(|message| Refusal::ALL.into_iter().map(move |refusal| Counter::Refused(message, refusal)));
    let rings = Ring::ALL.into_iter().flat_map(|ring| [Counter::RingEvents(ring), Counter::RingLost(ring)]);
    packets.chain(refusals).chain(rings)
}
