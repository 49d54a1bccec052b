//! The kernel programs, loaded and run on frames by `BPF_PROG_TEST_RUN`, attached to nothing.

use anyhow::{Context, Result, ensure};
use aya::{
    maps::{Array, HashMap, MapData, RingBuf},
    programs::{TestRun, TestRunOptions, TestRunResult},
};
use tr111::dataplane::{Counters, Loaded};
use tr111_common::{
    abi::{ExchangeKey, Mark, map, program},
    config::Config,
    counter::{Class, Counter, Hook, Ring},
    dhcp4::MessageType,
    event::Event,
    identity::Refusal,
};

/// The program that does nothing, as the object file has it.
const BENCH_EMPTY: &str = "bench_empty";
/// Bytes of a [`Config`] in the map.
const CONFIG_BYTES: usize = size_of::<Config>();
/// Bytes of an [`ExchangeKey`] in the map.
const EXCHANGE_BYTES: usize = size_of::<ExchangeKey>();
/// Bytes of a [`Mark`] in the map.
const MARK_BYTES: usize = size_of::<Mark>();
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
    /// The program that does nothing, at XDP.
    Empty,
}

impl Program {
    /// The hook whose frames it counts.
    pub fn hook(self) -> Hook {
        match self {
            Self::Egress => Hook::LanEgress,
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
    counters: Counters,
    config: Array<MapData, [u8; CONFIG_BYTES]>,
    exchanges: HashMap<MapData, [u8; EXCHANGE_BYTES], [u8; MARK_BYTES]>,
    ring: RingBuf<MapData>,
    rounds: u64,
}

impl Programs {
    /// Loads them all.
    ///
    /// # Errors
    /// Not root, or the verifier refuses one.
    pub fn load() -> Result<Self> {
        let mut loaded = Loaded::load(false)?;
        loaded.xdp(BENCH_EMPTY)?.load().context("bench_empty")?;
        Ok(Self {
            counters: Counters::new(loaded.take_map(map::COUNTERS)?)?,
            config: loaded.take_map(map::CONFIG)?.try_into()?,
            exchanges: loaded.take_map(map::EXCHANGES)?.try_into()?,
            ring: loaded.take_map(map::EVENTS_LAN)?.try_into()?,
            loaded,
            rounds: 0,
        })
    }

    /// Forgets every client and exchange, and sets what the programs are told.
    ///
    /// # Errors
    /// A map refuses.
    pub fn reset(&mut self, config: &Config) -> Result<()> {
        self.rounds += 1;
        // Clients are known by hashes under the seed: with a new one, nobody is known.
        self.config.set(0, config_bytes(&Config { seed: self.rounds, ..*config }), 0)?;
        let keys: Vec<_> = self.exchanges.keys().collect::<Result<_, _>>()?;
        for key in keys {
            self.exchanges.remove(&key)?;
        }
        self.drain();
        Ok(())
    }

    /// Takes everything out of the ring; how much it was.
    pub fn drain(&mut self) -> usize {
        let mut records = 0;
        while self.ring.next().is_some() {
            records += 1;
        }
        records
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
            Program::IngressXdp | Program::Empty => result.return_value == XDP_PASS,
            Program::IngressTc | Program::Egress => result.return_value.cast_signed() == TCX_NEXT,
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

    /// Median nanoseconds that a program takes for a frame, over `repeat` runs in one call.
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
            Program::Empty => self.loaded.xdp(BENCH_EMPTY)?.test_run(options)?,
            Program::IngressTc => self.loaded.classifier(program::LAN_INGRESS_TC)?.test_run(options)?,
            Program::Egress => self.loaded.classifier(program::LAN_EGRESS)?.test_run(options)?,
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

/// A [`Config`] as it lies in memory: `repr(C)`, every gap a named field.
fn config_bytes(config: &Config) -> [u8; CONFIG_BYTES] {
    let mut bytes = Vec::with_capacity(CONFIG_BYTES);
    bytes.extend(config.seed.to_ne_bytes());
    bytes.extend(config.budget_interval.to_ne_bytes());
    bytes.extend(config.budget_burst.to_ne_bytes());
    bytes.extend([config.dialect, config.lenient_oui]);
    bytes.extend(config.reserved);
    bytes.extend(config.enterprises.iter().flat_map(|enterprise| enterprise.to_ne_bytes()));
    bytes.try_into().expect("every field is here")
}
