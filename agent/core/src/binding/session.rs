//! Session between one local address and one STUN server: what is sent, and when.

use std::{net::SocketAddrV4, time::Duration};

use super::{
    Alarm, Output, Search, Socket,
    context::Context,
    exchange::{Aim, Exchange, Probe, Purpose},
    keepalive::{Activity, PATIENCE},
};
use crate::{
    stun::{GIVE_UP, LISTEN, Progress},
    time::BootTime,
};

/// Age from which a NAT treats a binding as established. Linux keeps a flow for 30 s, and for 120 s once it has carried
/// packets in both directions for more than 2 s (`nf_conntrack_udp_timeout_stream`).
const SETTLE: Duration = Duration::from_secs(3);
/// With a minimum period above this, a refresh would be too late for [`SETTLE`]. A datagram of the secondary socket is
/// used instead, because the minimum does not apply to it (CPE-26).
const LATE: Duration = Duration::from_secs(20);

/// Whether the server sends responses to the address in RESPONSE-ADDRESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reflection {
    /// Not tested yet.
    Unknown,
    Honoured,
    /// Ignored or refused (T-46).
    Ignored,
}

/// Which conclusions the binding allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Too new: the NAT may give it a longer timeout later, so it is refreshed once before it is tested.
    Young,
    Grown,
    /// A test showed that it expired, so the next answer has a new one.
    Lapsed,
}

/// A binding that a response reported, translated or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The listener's address that the server sees.
    pub mapped: SocketAddrV4,
    /// Time of the first response with this address.
    pub since: BootTime,
    /// Time of the last response with this address.
    pub seen: BootTime,
    /// Whether the last response was signed (CPE-14).
    pub is_authenticated: bool,
    /// The address to restore if the response is contradicted (SEC-3).
    pub(super) before: Option<SocketAddrV4>,
}

impl Binding {
    /// Whether the response can no longer be contradicted (RFC 3489 9.4).
    pub(super) fn is_settled(&self, now: BootTime) -> bool {
        now >= self.since + LISTEN
    }
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) local: SocketAddrV4,
    pub(super) server: SocketAddrV4,
    pub(super) activity: Activity,
    /// Time at which the last transaction of the primary socket began.
    pub(super) begun: Option<BootTime>,
    /// Earliest time of the first transaction.
    start: BootTime,
    /// Requests without an answer, at most one per purpose.
    pub(super) running: Vec<Exchange>,
    /// Answered requests that may receive a contradicting answer (SEC-3).
    pub(super) answered: Vec<Exchange>,
    pub(super) binding: Option<Binding>,
    /// The binding that the last BINDING-CHANGE announced.
    pub(super) announced: Option<SocketAddrV4>,
    /// Consecutive BINDING-CHANGE requests whose answer showed another binding.
    pub(super) hops: u8,
    pub(super) search: Search,
    pub(super) reflection: Reflection,
    /// Time from the last datagram sent to the next refresh, if no test comes before.
    pub(super) interval: Duration,
    /// Whether a test ended, and the binding has to be refreshed as soon as the minimum allows (T-47).
    pub(super) is_refresh_due: bool,
    pub(super) age: Age,
    /// Consecutive failed refreshes.
    pub(super) failures: u32,
    /// Time at which the first of the unanswered refreshes began.
    pub(super) silent_since: Option<BootTime>,
    /// Time at which the binding is given up (T-44).
    pub(super) forget: BootTime,
    /// Time of the next test for an improvement.
    pub(super) look: BootTime,
    /// Time until which a contradiction makes every report doubtful (CPE-41).
    pub(super) doubtful: Option<BootTime>,
    /// Whether the server's name should be resolved again.
    pub(super) is_lost: bool,
}

impl Session {
    /// A session whose first request is sent at `start`.
    pub(super) fn new(local: SocketAddrV4, server: SocketAddrV4, start: BootTime, context: &Context) -> Self {
        let bounds = context.bounds;
        let search = match context.learned {
            Some(learned) => Search::resume(bounds.minimum, bounds.longest, learned),
            None => Search::new(bounds.minimum, bounds.longest),
        };
        Self {
            local,
            server,
            activity: Activity::default(),
            begun: None,
            start,
            running: Vec::new(),
            answered: Vec::new(),
            binding: None,
            announced: None,
            hops: 0,
            search,
            reflection: Reflection::Unknown,
            interval: bounds.minimum,
            is_refresh_due: false,
            age: Age::Grown,
            failures: 0,
            silent_since: None,
            forget: BootTime::NEVER,
            look: BootTime::NEVER,
            doubtful: None,
            is_lost: false,
        }
    }

    /// The public address of the binding; `None` without address translation (CPE-10).
    pub(super) fn translated(&self) -> Option<SocketAddrV4> {
        self.binding.map(|binding| binding.mapped).filter(|mapped| *mapped != self.local)
    }

    /// Whether the first answer is outstanding.
    pub(super) fn is_first(&self) -> bool {
        self.binding.is_none() && self.failures == 0
    }

    /// Whether the binding is likely to change soon (CPE-41): tests let it expire, it has just expired, or responses
    /// contradict each other.
    pub(super) fn is_restless(&self, now: BootTime) -> bool {
        let is_searching = self.reflection == Reflection::Honoured && self.search.disturbs();
        let is_gone = self.age == Age::Lapsed && self.failures == 0;
        is_searching || is_gone || self.doubtful.is_some_and(|until| now < until)
    }

    pub(super) fn rebound(&mut self, context: &mut Context) {
        self.search.rebound(context.bounds.minimum, context.bounds.longest);
        self.schedule(context);
    }

    /// Retries after a change of credentials.
    pub(super) fn try_anew(&mut self, context: &mut Context) {
        self.failures = 0;
        self.schedule(context);
    }

    /// The period that keeps the binding, as far as is known.
    pub(super) fn period(&self, context: &Context) -> Duration {
        let is_learned =
            context.bounds.is_open && self.translated().is_some() && self.reflection == Reflection::Honoured;
        let period = if is_learned { self.search.period() } else { context.settings.default_period };
        context.bounds.clamp(period)
    }

    /// Computes the time to the next refresh, with jitter.
    pub(super) fn schedule(&mut self, context: &mut Context) {
        let pause = self.failures.checked_sub(1).map(|doublings| {
            let pause = context.bounds.minimum.saturating_mul(1 << doublings.min(16));
            context.bounds.clamp(pause.min(context.settings.longest_pause))
        });
        let period = pause.unwrap_or_else(|| match self.period(context) {
            period if self.age == Age::Young => period.min(SETTLE.max(context.bounds.minimum)),
            period => period,
        });
        self.interval = context.jittered(period).max(context.bounds.minimum);
    }

    /// Time for which the binding has to be quiet for the next test; `None` if a refresh comes next.
    fn plan(&self, context: &Context) -> Option<Duration> {
        let is_wanted = context.bounds.is_open && self.translated().is_some();
        let is_possible = self.failures == 0 && self.running.is_empty() && self.activity.is_quiet();
        if !is_wanted || !is_possible || self.is_refresh_due {
            return None;
        }
        match self.reflection {
            Reflection::Unknown => Some(Duration::ZERO),
            Reflection::Honoured if self.age == Age::Young => (context.bounds.minimum > LATE).then_some(SETTLE),
            Reflection::Honoured => self.search.candidate(),
            Reflection::Ignored => None,
        }
    }

    /// Time of the next refresh: after the period; or, while a test is planned or an answer is outstanding, at the
    /// latest time that the maximum allows.
    fn refresh_at(&self, context: &Context) -> BootTime {
        let Some(begun) = self.begun else { return self.start };
        let waits = self.running.iter().any(|exchange| exchange.purpose != Purpose::Change);
        if waits || self.plan(context).is_some() {
            return self.activity.refresh_at(context.bounds.maximum);
        }
        let interval = if self.is_refresh_due { Duration::ZERO } else { self.interval };
        // CPE-21.
        self.activity.refresh_at(interval).max(begun + context.bounds.minimum)
    }

    fn probe_at(&self, context: &Context) -> BootTime {
        self.plan(context).map_or(BootTime::NEVER, |quiet| self.activity.quiet_at(quiet))
    }

    pub(super) fn deadline(&self, context: &Context) -> BootTime {
        let waits = self.running.iter().map(|exchange| match exchange.purpose {
            Purpose::Probe(probe) => exchange.wake.min(probe.deadline),
            _ => exchange.wake,
        });
        let doubtful = self.doubtful.unwrap_or(BootTime::NEVER);
        let timers = [self.refresh_at(context), self.probe_at(context), self.forget, self.look, doubtful];
        waits.chain(timers).min().unwrap_or(BootTime::NEVER)
    }

    pub(super) fn tick(&mut self, now: BootTime, context: &mut Context) {
        self.doubtful = self.doubtful.filter(|until| now < *until);
        self.answered.retain_mut(|exchange| !matches!(exchange.transaction.poll(now), Progress::Done));
        self.advance(now, context);
        if now >= self.forget {
            self.forget = BootTime::NEVER;
            self.binding = None;
            self.announced = None;
        }
        if now >= self.look {
            self.look = now + context.settings.look_higher;
            match self.reflection {
                Reflection::Ignored => self.reflection = Reflection::Unknown,
                _ => self.search.look_higher(),
            }
        }
        if now >= self.refresh_at(context) {
            self.begin(now, Purpose::Refresh, false, context);
        } else if now >= self.probe_at(context)
            && let Some(candidate) = self.plan(context)
            && let Some(target) = self.translated()
        {
            let aim = match self.reflection {
                Reflection::Honoured if self.age == Age::Young => Aim::Settle,
                Reflection::Honoured => Aim::Period { candidate, quiet: self.activity.quiet(now) },
                _ => Aim::Server,
            };
            let deadline = (now + PATIENCE).min(self.activity.refresh_at(context.bounds.maximum));
            self.begin(now, Purpose::Probe(Probe { aim, target, deadline }), false, context);
        }
    }

    /// Starts a transaction, replacing one with the same purpose (T-42), and sends its first copy.
    pub(super) fn begin(&mut self, now: BootTime, purpose: Purpose, sign: bool, context: &mut Context) {
        self.running.retain(|exchange| !purpose.supersedes(exchange.purpose));
        if purpose.socket() == Socket::Primary {
            self.begun = Some(now);
        }
        if purpose == Purpose::Refresh {
            self.is_refresh_due = false;
            // If the maximum is shorter than RFC 3489's schedule, silence is detected across several transactions.
            if self.silent_since.and_then(|since| now.since(since)).is_some_and(|silence| silence >= GIVE_UP) {
                self.unanswered(now, context);
            }
            self.silent_since.get_or_insert(now);
        }
        self.running.push(Exchange::new(now, self.server, purpose, sign, context));
        self.advance(now, context);
    }

    /// Sends the copies that are due, and ends the transactions that timed out.
    fn advance(&mut self, now: BootTime, context: &mut Context) {
        let mut ended = Vec::new();
        let mut position = 0;
        while let Some(exchange) = self.running.get_mut(position) {
            let purpose = exchange.purpose;
            if matches!(purpose, Purpose::Probe(probe) if now >= probe.deadline) {
                ended.push(self.running.remove(position).purpose);
                continue;
            }
            match exchange.transaction.poll(now) {
                Progress::Transmit(request) => {
                    let (socket, to, datagram) = (purpose.socket(), self.server, request.to_vec());
                    context.outputs.push_back(Output::Transmit { socket, to, datagram });
                    context.count("binding_request", "sent");
                    if socket == Socket::Primary {
                        self.activity.sent(now);
                    }
                }
                Progress::Wait(until) => {
                    exchange.wake = until;
                    position += 1;
                }
                Progress::TimedOut | Progress::Done => ended.push(self.running.remove(position).purpose),
            }
        }
        for purpose in ended {
            match purpose {
                Purpose::Refresh => self.unanswered(now, context),
                // CPE-36: no further attempt until the binding changes again.
                Purpose::Change => {}
                Purpose::Probe(probe) => self.missed(now, probe, context),
            }
        }
    }

    /// Handles the lack of answers to refreshes.
    fn unanswered(&mut self, now: BootTime, context: &mut Context) {
        context.raise(Alarm::ServerUnreachable);
        self.is_lost = true;
        self.silent_since = None;
        self.failed(now, context);
    }

    /// Handles a refresh without a result.
    pub(super) fn failed(&mut self, now: BootTime, context: &mut Context) {
        if self.binding.is_some() && self.forget == BootTime::NEVER {
            self.forget = now + self.period(context);
        }
        self.failures = self.failures.saturating_add(1);
        self.schedule(context);
    }
}
