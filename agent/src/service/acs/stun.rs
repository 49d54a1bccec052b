//! The threads of the STUN server: each has a socket of its own, and they share the registry.

use std::{io, sync::atomic::Ordering, thread};

use tr111_core::acs::{First, Outcome, SourceLimit, Verdict};

use super::{
    Acs, Lesson,
    socket::{BATCH, Buffers, Outgoing, StunSocket},
};
use crate::telemetry::StunCounts;

/// What one thread works with.
#[derive(Debug)]
struct Worker {
    acs: Acs,
    socket: StunSocket,
    limit: SourceLimit,
    buffers: Buffers,
    answers: Vec<Outgoing>,
    /// Memory of answers that were sent.
    spare: Vec<Vec<u8>>,
    lessons: Vec<Lesson>,
    counts: StunCounts,
}

impl Acs {
    /// Answers STUN on all sockets, each in a thread of its own, until [`Acs::stop`]. `seed` is for the hash over sources.
    pub fn serve_stun(&self, seed: u64) -> io::Result<()> {
        for socket in &self.0.sockets {
            let mut worker = Worker {
                acs: self.clone(),
                socket: socket.clone(),
                limit: SourceLimit::new(seed, self.source_pps()),
                buffers: Buffers::new(),
                answers: Vec::with_capacity(BATCH),
                spare: Vec::with_capacity(BATCH),
                lessons: Vec::new(),
                counts: StunCounts::default(),
            };
            thread::Builder::new().name("stun".to_owned()).spawn(move || worker.run())?;
        }
        Ok(())
    }
}

impl Worker {
    fn run(&mut self) {
        while !self.acs.0.is_ending.load(Ordering::Relaxed) {
            match self.socket.receive(&mut self.buffers) {
                Ok(0) => {}
                Ok(lost) => self.acs.0.metrics.lost.inc_by(lost.into()),
                // As when an ICMP error comes back: it says nothing about the next datagram.
                Err(error) => {
                    tracing::debug!(%error, "STUN socket");
                    thread::yield_now();
                }
            }
            self.answer();
        }
    }

    /// Answers a batch. The registry is locked once, and only if somebody asks for it.
    fn answer(&mut self) {
        let now = self.acs.now();
        let settings = self.acs.settings();
        self.limit.set_rate(self.acs.source_pps());
        let mut locked = None;
        for (ends, datagram) in self.buffers.iter() {
            let is_limited = !self.limit.admits(now.boot, *ends.source.ip());
            let mut bytes = self.spare.pop().unwrap_or_default();
            let outcome = match settings.judge(ends, datagram, &mut bytes) {
                First::Settled(outcome) if is_limited => Outcome { verdict: Verdict::Limited, to: None, ..outcome },
                First::Settled(outcome) => outcome,
                First::Pending(request) => {
                    let state = locked.get_or_insert_with(|| self.acs.lock());
                    let outcome = state.server.judge(now, &request, is_limited, &mut bytes);
                    if let Some(learned) = outcome.learned {
                        self.lessons.extend(state.lesson(learned, ends));
                    }
                    outcome
                }
            };
            self.counts.count(&outcome);
            match outcome.to {
                Some(to) => self.answers.push(Outgoing { to, from: *ends.server.ip(), bytes }),
                None => self.spare.push(bytes),
            }
        }
        drop(locked);
        // An answer follows from what the registry knows; who reads of it may do so later.
        self.socket.send(self.answers.iter(), false);
        self.spare.extend(self.answers.drain(..).map(|answer| answer.bytes));
        self.counts.flush(&self.acs.0.metrics);
        for lesson in self.lessons.drain(..) {
            self.acs.learn(lesson);
        }
    }
}
