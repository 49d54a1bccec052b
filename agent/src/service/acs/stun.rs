//! The threads of the STUN server. Each thread has its own socket; all share the registry.
//!
//! A thread answers most requests at once. A signed request that would count waits until the store remembers it (T-67). A
//! task of the runtime answers it then, so that a slow store delays nobody else. There are at most as many such tasks as the
//! server has accepted requests waiting, and each ends within [`PATIENCE`].
//!
//! A thread that panics would leave its socket without an answer, and the kernel would go on giving it its share of the sources.
//! So a panic costs the datagrams that were read together, and raises an alarm; a thread that panics again and again ends the
//! agent.

use std::{io, iter, mem, sync::atomic::Ordering, thread, time::Duration};

use tokio::{runtime, time::timeout};
use tr111_core::acs::{Accepted, First, Judged, Outcome, Remembered, SourceLimit, Verdict};

use super::{
    Acs, Lesson,
    socket::{BATCH, Buffers, Outgoing, StunSocket},
};
use crate::{
    essential::{self, Failure, Round, Rounds},
    registry::Journal,
    telemetry::{AcsMetrics, StunCounts},
};

/// Name of the threads.
const NAME: &str = "stun";

/// How long the store may take to remember a request before the request is answered without it. A CPE sends its last
/// copy after 7.9 s (RFC 3489 9.3).
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Worker {
    acs: Acs,
    runtime: runtime::Handle,
    socket: StunSocket,
    limit: SourceLimit,
    buffers: Buffers,
    answers: Vec<Outgoing>,
    waiting: Vec<Waiting>,
    /// Buffers of answers that were sent, for reuse.
    spare: Vec<Vec<u8>>,
    lessons: Vec<Lesson>,
    counts: StunCounts,
}

#[derive(Debug)]
struct Waiting {
    accepted: Accepted,
    answer: Vec<u8>,
}

impl Acs {
    /// Starts one thread per socket, which answers STUN until [`Acs::stop`]. `seed` keys the hash over source
    /// addresses.
    ///
    /// # Panics
    /// If it is called outside a tokio runtime.
    pub fn serve_stun(&self, seed: u64) -> io::Result<()> {
        for socket in &self.0.sockets {
            let mut worker = Worker {
                acs: self.clone(),
                runtime: runtime::Handle::current(),
                socket: socket.clone(),
                limit: SourceLimit::new(seed, self.source_pps()),
                buffers: Buffers::new(),
                answers: Vec::with_capacity(BATCH),
                waiting: Vec::new(),
                spare: Vec::with_capacity(BATCH),
                lessons: Vec::new(),
                counts: StunCounts::default(),
            };
            essential::thread(NAME, move || worker.run())?;
        }
        Ok(())
    }

    /// Answers requests after the store has said whether it remembers them.
    fn conclude(&self, socket: &StunSocket, waiting: Vec<Waiting>, remembered: impl IntoIterator<Item = Remembered>) {
        let now = self.now();
        let (mut answers, mut lessons, mut counts) = (Vec::new(), Vec::new(), StunCounts::default());
        let mut state = self.lock();
        for (Waiting { accepted, answer }, remembered) in waiting.into_iter().zip(remembered) {
            let (outcome, ends) = (state.server.conclude(now, &accepted, remembered, &answer), accepted.ends());
            counts.count(&outcome);
            lessons.extend(outcome.learned.and_then(|learned| state.lesson(learned, ends)));
            answers.extend(outcome.to.map(|to| Outgoing { to, from: *ends.server.ip(), bytes: answer }));
        }
        drop(state);
        socket.send(answers.iter(), false);
        counts.flush(&self.0.metrics);
        for lesson in lessons {
            self.learn(lesson);
        }
    }
}

/// Asks the store to remember the requests, and returns for each whether it was known before.
async fn remember(journal: &Journal, waiting: &[Waiting]) -> Vec<Remembered> {
    let requests = waiting.iter().map(|waiting| waiting.accepted.fingerprint()).collect();
    match timeout(PATIENCE, journal.remember(requests)).await {
        Ok(Ok(known)) => {
            known.into_iter().map(|known| if known { Remembered::Before } else { Remembered::Now }).collect()
        }
        // The journal logs the reason.
        Ok(Err(_)) | Err(_) => vec![Remembered::NotAtAll; waiting.len()],
    }
}

impl Worker {
    fn run(&mut self) {
        let mut rounds = Rounds::new(NAME);
        while !self.acs.0.is_ending.load(Ordering::Relaxed) {
            match rounds.run(|| self.round()) {
                Round::Done => {}
                Round::Panicked(failure) => self.go_on(&failure),
                Round::Hopeless(failure) => return essential::fail(failure),
            }
        }
    }

    fn round(&mut self) {
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

    /// Gives up what a panic left half done, and says so.
    fn go_on(&mut self, failure: &Failure) {
        tracing::error!(
            reason = failure.reason,
            "a thread of the STUN server panicked; what was read with it is not answered"
        );
        self.acs.alarm(AcsMetrics::PANICKED, None, None);
        self.answers.clear();
        self.lessons.clear();
        // The server must not wait for them for ever.
        let waiting = mem::take(&mut self.waiting);
        self.acs.conclude(&self.socket, waiting, iter::repeat(Remembered::NotAtAll));
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
                    let beyond = is_limited.then_some(&mut self.limit);
                    match state.server.judge(now, &request, beyond, &mut bytes) {
                        Judged::Settled(outcome) => {
                            self.lessons.extend(outcome.learned.and_then(|learned| state.lesson(learned, ends)));
                            outcome
                        }
                        Judged::Accepted(accepted) => {
                            self.waiting.push(Waiting { accepted, answer: bytes });
                            continue;
                        }
                    }
                }
            };
            self.counts.count(&outcome);
            match outcome.to {
                Some(to) => self.answers.push(Outgoing { to, from: *ends.server.ip(), bytes }),
                None => self.spare.push(bytes),
            }
        }
        drop(locked);
        self.ask_store();
        // Answers are sent before what was learned is stored and announced.
        self.socket.send(self.answers.iter(), false);
        self.spare.extend(self.answers.drain(..).map(|answer| answer.bytes));
        self.counts.flush(&self.acs.0.metrics);
        for lesson in self.lessons.drain(..) {
            self.acs.learn(lesson);
        }
    }

    /// Lets the store remember the requests that need it, and answers them afterwards.
    fn ask_store(&mut self) {
        let waiting = mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return;
        }
        let (acs, socket) = (self.acs.clone(), self.socket.clone());
        let Some(journal) = acs.0.journal.get().cloned() else {
            // Without a store, memory is the only record.
            return acs.conclude(&socket, waiting, iter::repeat(Remembered::Now));
        };
        self.runtime.spawn(essential::watched("stun answers", async move {
            let remembered = remember(&journal, &waiting).await;
            acs.conclude(&socket, waiting, remembered);
        }));
    }
}
