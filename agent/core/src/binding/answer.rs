//! Handles the responses of the STUN server.

use std::net::SocketAddrV4;

use tr111_common::stun::attribute as code;

use super::{
    Alarm, Output, Phase, Socket, Verdict,
    context::Context,
    exchange::{Aim, Exchange, Probe, Purpose},
    session::{Age, Binding, Reflection, Session},
};
use crate::{
    stun::{Discarded, LISTEN, Message, Response, UnknownAttributes},
    time::BootTime,
};

/// Number of consecutive BINDING-CHANGE requests whose answer shows yet another binding, after which the next one waits
/// for a refresh. With a NAT that maps every datagram anew, they would never end.
const HOPS: u8 = 3;

const UNAUTHORIZED: u16 = 401;
const GLOBAL_FAILURE: u16 = 600;

impl Session {
    pub(super) fn receive(
        &mut self,
        now: BootTime,
        socket: Socket,
        source: SocketAddrV4,
        datagram: &[u8],
        context: &mut Context,
    ) {
        if socket == Socket::Primary {
            self.activity.heard(now);
        }
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(error) => return context.count("unreadable", error.label()),
        };
        let label = message.message_type().label();
        let is_its = |exchange: &Exchange| exchange.transaction.id() == message.transaction_id();
        if let Some(position) = self.running.iter().position(is_its) {
            match self.running[position].transaction.receive(now, source, &message) {
                Ok(response) => {
                    context.count(label, "accepted");
                    let exchange = self.running.remove(position);
                    let (purpose, is_signed) = (exchange.purpose, exchange.is_signed);
                    self.answered.push(exchange);
                    self.answer(now, socket, purpose, is_signed, response, &message, context);
                }
                Err(discarded) => context.count(label, discarded.label()),
            }
        } else if let Some(exchange) = self.answered.iter_mut().find(|exchange| is_its(exchange)) {
            let purpose = exchange.purpose;
            let Err(discarded) = exchange.transaction.receive(now, source, &message) else { return };
            context.count(label, discarded.label());
            if matches!(discarded, Discarded::Attack(_)) {
                self.contradicted(now, purpose, context);
            }
        } else {
            context.count(label, Discarded::OtherTransaction.label());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a response, with all that it is judged by")]
    fn answer(
        &mut self,
        now: BootTime,
        socket: Socket,
        purpose: Purpose,
        is_signed: bool,
        response: Response,
        message: &Message<'_>,
        context: &mut Context,
    ) {
        match (purpose, response) {
            // CPE-13, T-39: the request is repeated with a signature, in a new transaction.
            (_, Response::Refused { code: UNAUTHORIZED }) if !is_signed && context.parameters.secret().is_some() => {
                self.begin(now, purpose, true, context);
            }
            (Purpose::Probe(probe), Response::Bound { mapped_address }) => {
                self.probed(now, socket, probe, mapped_address, context);
            }
            (Purpose::Probe(probe), Response::Refused { code }) => {
                self.probe_refused(now, probe, code, message, context);
            }
            (_, Response::Bound { mapped_address }) => {
                self.bound(now, purpose, mapped_address, context);
                self.binding = self.binding.map(|binding| Binding { is_authenticated: is_signed, ..binding });
            }
            (_, Response::Refused { code }) => {
                context.raise(Alarm::of_code(code));
                // A failed BINDING-CHANGE is not repeated (CPE-36, T-38).
                if purpose == Purpose::Refresh {
                    self.silent_since = None;
                    self.failed(now, context);
                    if code >= GLOBAL_FAILURE {
                        self.interval = context.bounds.clamp(context.settings.longest_pause);
                    }
                }
            }
        }
    }

    /// Handles the mapped address of the primary socket (CPE-11, CPE-12).
    fn bound(&mut self, now: BootTime, purpose: Purpose, mapped: SocketAddrV4, context: &mut Context) {
        for alarm in Alarm::UNTIL_ANSWERED {
            context.clear(alarm);
        }
        self.failures = 0;
        self.silent_since = None;
        self.forget = BootTime::NEVER;
        self.is_lost = false;
        let is_other = self.binding.is_none_or(|binding| binding.mapped != mapped);
        let is_new = is_other || self.age == Age::Lapsed;
        if is_other {
            // The previous binding; if that is too young to be sure of, the one before it.
            let settled =
                |binding: Binding| if binding.is_settled(now) { Some(binding.mapped) } else { binding.before };
            let before = self.binding.and_then(settled);
            // A change without a test: the binding may have expired within the period.
            if self.binding.is_some() && self.age != Age::Lapsed {
                self.search.doubt();
            }
            self.binding = Some(Binding { mapped, since: now, seen: now, is_authenticated: false, before });
        }
        self.binding = self.binding.map(|binding| Binding { seen: now, ..binding });
        if purpose == Purpose::Refresh {
            self.search.refreshed();
            self.hops = 0;
            // Only once, because a binding that does not survive the minimum period is always new.
            self.age = if is_new && self.age != Age::Young { Age::Young } else { Age::Grown };
            if self.doubtful.is_some() {
                self.doubtful = Some(now + LISTEN);
            }
        }
        if self.announced == Some(mapped) {
            if purpose == Purpose::Refresh {
                context.clear(Alarm::Unstable);
                context.clear(Alarm::Contradiction);
            }
        } else if purpose == Purpose::Change && self.hops >= HOPS {
            context.raise(Alarm::Unstable);
        } else {
            self.hops += u8::from(purpose == Purpose::Change);
            self.announced = Some(mapped);
            self.begin(now, Purpose::Change, false, context);
        }
        self.schedule(context);
    }

    /// Handles two contradicting responses: both are discarded (SEC-3).
    fn contradicted(&mut self, now: BootTime, purpose: Purpose, context: &mut Context) {
        context.raise(Alarm::Contradiction);
        if matches!(purpose, Purpose::Probe(_)) {
            return;
        }
        // A binding from before these responses is kept.
        if let Some(binding) = self.binding.filter(|binding| !binding.is_settled(now)) {
            self.binding = binding.before.map(|mapped| Binding {
                mapped,
                is_authenticated: false,
                before: Some(mapped),
                ..binding
            });
        }
        self.running.retain(|exchange| exchange.purpose != Purpose::Change);
        self.doubtful = Some(BootTime::NEVER);
        self.schedule(context);
        self.interval = context.bounds.minimum;
    }

    /// Handles the answer to a test. If it arrives at the primary socket, the binding still exists. Its MAPPED-ADDRESS
    /// is that of the secondary socket, and is not related to the binding (T-73).
    fn probed(
        &mut self,
        now: BootTime,
        socket: Socket,
        probe: Probe,
        mapped_address: SocketAddrV4,
        context: &mut Context,
    ) {
        match (socket, probe.aim) {
            (Socket::Primary, Aim::Server) => {
                self.reflection = Reflection::Honoured;
                context.clear(Alarm::ProbeUnsupported);
                self.search.doubt();
                self.schedule(context);
            }
            (Socket::Primary, Aim::Settle) => {
                self.activity.expected(now);
                self.age = Age::Grown;
                self.schedule(context);
            }
            (Socket::Primary, Aim::Period { .. }) => self.judged(now, probe, Verdict::Alive, context),
            // The NAT assigned the port of the expired binding to the secondary socket.
            (Socket::Secondary, Aim::Period { .. }) if mapped_address == probe.target => {
                self.judged(now, probe, Verdict::Lapsed, context);
            }
            // The server ignored RESPONSE-ADDRESS.
            (Socket::Secondary, _) => self.unsupported(now, context),
        }
    }

    fn probe_refused(&mut self, now: BootTime, probe: Probe, error: u16, message: &Message<'_>, context: &mut Context) {
        let mut unknown = message.unknown_attributes().into_iter().flat_map(UnknownAttributes::iter);
        let is_unknown = unknown.any(|attribute| attribute == code::RESPONSE_ADDRESS);
        context.count("probe", if is_unknown { "response_address_unknown" } else { "refused" });
        match probe.aim {
            // The server has a temporary failure, so the test has no result.
            Aim::Settle => self.age = Age::Grown,
            Aim::Period { .. } if (500..GLOBAL_FAILURE).contains(&error) => self.is_refresh_due = true,
            _ => self.unsupported(now, context),
        }
    }

    /// Handles a test without an answer.
    pub(super) fn missed(&mut self, now: BootTime, probe: Probe, context: &mut Context) {
        match probe.aim {
            Aim::Server => self.unsupported(now, context),
            Aim::Settle => {
                self.age = Age::Grown;
                self.schedule(context);
            }
            Aim::Period { .. } => self.judged(now, probe, Verdict::Lapsed, context),
        }
    }

    /// Records that the period cannot be learned from this server. It is tried again later (T-46).
    fn unsupported(&mut self, now: BootTime, context: &mut Context) {
        self.reflection = Reflection::Ignored;
        self.look = now + context.settings.look_higher;
        context.raise(Alarm::ProbeUnsupported);
        self.schedule(context);
    }

    fn judged(&mut self, now: BootTime, probe: Probe, verdict: Verdict, context: &mut Context) {
        let Aim::Period { candidate, quiet } = probe.aim else { return };
        context.count("probe", if verdict == Verdict::Alive { "alive" } else { "lapsed" });
        let known = self.search.learned();
        self.search.judge(candidate, quiet, verdict);
        self.is_refresh_due = true;
        if verdict == Verdict::Lapsed {
            self.age = Age::Lapsed;
        }
        self.schedule(context);
        if self.search.phase() == Phase::Discovery {
            return;
        }
        match self.search.learned() {
            Some(period) if known != Some(period) => {
                self.look = now + context.settings.look_higher;
                context.clear(Alarm::MinimumTooLong);
                if context.learned.replace(period) != Some(period) {
                    context.outputs.push_back(Output::Learned { period });
                }
            }
            Some(_) => {}
            None => context.raise(Alarm::MinimumTooLong),
        }
    }
}
