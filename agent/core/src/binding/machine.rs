//! The CPE: which server, whether a session with it, and what the ACS is told.

use std::{net::SocketAddrV4, time::Duration};

use super::{
    Alarm, Binding, Bounds, Counts, Input, Output, Parameters, Phase, Report, Settings,
    context::Context,
    report::Teller,
    server::Server,
    session::{Reflection, Session},
};
use crate::time::BootTime;

/// What is worth to be kept over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The period that was learned: discovery begins with it.
    pub learned: Option<Duration>,
    /// What the ACS was told last: it is not told the same again.
    pub told: Option<Report>,
}

/// The STUN client of the CPE.
#[derive(Debug)]
pub struct Cpe {
    context: Context,
    local: Option<SocketAddrV4>,
    server: Option<Server>,
    session: Option<Session>,
    teller: Teller,
    /// The binding is likely to change again, as far as is known.
    is_restless: bool,
    /// When the newest transaction of an earlier session began.
    begun: Option<BootTime>,
}

impl Cpe {
    /// A CPE without an address, which therefore is silent.
    pub fn new(settings: Settings, parameters: Parameters, memory: Memory) -> Self {
        let mut teller = Teller::new(settings.damping, memory.told);
        teller.set_limit(parameters.notification_limit);
        let context = Context::new(settings, parameters, memory.learned);
        Self { context, local: None, server: None, session: None, teller, is_restless: false, begun: None }
    }

    /// Takes what happened at `now`.
    pub fn handle(&mut self, now: BootTime, input: Input<'_>) {
        match input {
            Input::Parameters(parameters) => self.set_parameters(parameters),
            Input::Local(local) => {
                if self.local != local {
                    self.local = local;
                    // CPE-15, CPE-16: what was known is void, and the minimum does not hold.
                    self.end_session();
                    self.begun = None;
                }
            }
            Input::Resolved { host, addresses } => {
                if let Some(server) = &mut self.server {
                    server.resolved(now, host, addresses, &mut self.context);
                }
            }
            Input::Received { socket, source, datagram } => {
                if let Some(session) = &mut self.session {
                    session.receive(now, socket, source, datagram, &mut self.context);
                }
            }
            Input::Heard => {
                if let Some(session) = &mut self.session {
                    session.activity.heard(now);
                }
            }
            Input::Asked(is_asked) => self.teller.set_asked(is_asked),
            Input::Settings(settings) => self.set_settings(settings),
            Input::Tick => {}
        }
        self.choose_server(now);
        self.choose_session(now);
        if let Some(session) = &mut self.session {
            session.tick(now, &mut self.context);
            if let Some(server) = &mut self.server {
                if std::mem::take(&mut session.is_lost) {
                    server.doubt(now);
                    server.tick(now, &mut self.context);
                } else if session.failures == 0 {
                    server.trust();
                }
            }
        }
        self.report(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.context.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let server = self.server.as_ref().filter(|_| self.local.is_some());
        let server = server.map_or(BootTime::NEVER, Server::deadline);
        let session = self.session.as_ref().map_or(BootTime::NEVER, |session| session.deadline(&self.context));
        let report = self.teller.due(self.is_restless).unwrap_or(BootTime::NEVER);
        Some(server.min(session).min(report)).filter(|deadline| *deadline != BootTime::NEVER)
    }

    /// `UDPConnectionRequestAddress` and `NATDetected`, as they are now.
    pub fn current(&self) -> Report {
        self.teller.report()
    }

    /// Whether [`Self::current`] is what is known, and not merely the listener's own address while a first answer is
    /// waited for: that of a new server, or to a new local address.
    pub fn is_determined(&self) -> bool {
        match (&self.session, &self.server) {
            (Some(session), _) => !session.is_first(),
            (None, Some(server)) => !server.is_expected() || self.local.is_none(),
            (None, None) => true,
        }
    }

    /// What to keep over a restart.
    pub fn memory(&self) -> Memory {
        Memory { learned: self.context.learned, told: self.teller.told() }
    }

    /// The binding, as far as the server told of one.
    pub fn binding(&self) -> Option<Binding> {
        self.session.as_ref().and_then(|session| session.binding)
    }

    /// The server that is asked.
    pub fn server(&self) -> Option<SocketAddrV4> {
        self.server.as_ref().and_then(Server::address)
    }

    /// The keep-alive period in use; `None` without a session.
    pub fn period(&self) -> Option<Duration> {
        self.session.as_ref().map(|session| session.period(&self.context))
    }

    /// The phase of the search; `None` where the period is not searched: without translation, with a fixed period, and
    /// with a server that does not honour RESPONSE-ADDRESS.
    pub fn phase(&self) -> Option<Phase> {
        let session = self.session.as_ref().filter(|session| session.translated().is_some())?;
        let is_searched = self.context.bounds.is_open && session.reflection != Reflection::Ignored;
        is_searched.then(|| session.search.phase())
    }

    /// The bounds of the period.
    pub fn bounds(&self) -> Bounds {
        self.context.bounds
    }

    /// What is wrong now.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.context.alarms()
    }

    /// Messages so far, by type and result.
    pub fn counts(&self) -> &Counts {
        &self.context.counts
    }

    fn set_parameters(&mut self, parameters: Parameters) {
        self.teller.set_limit(parameters.notification_limit);
        let credentials =
            |parameters: &Parameters| (parameters.stun_username.clone(), parameters.stun_password.clone());
        let is_credible = credentials(&self.context.parameters) == credentials(&parameters);
        self.context.parameters = parameters;
        if let Some(session) = self.session.as_mut().filter(|_| !is_credible) {
            session.try_anew(&mut self.context);
        }
        self.rebound();
    }

    fn set_settings(&mut self, settings: Settings) {
        self.teller.set_damping(settings.damping);
        self.context.settings = settings;
        self.rebound();
    }

    /// Goes on between the bounds that the parameters and the settings allow now.
    fn rebound(&mut self) {
        self.context.bounds = Bounds::new(&self.context.parameters, &self.context.settings);
        if let Some(session) = &mut self.session {
            session.rebound(&mut self.context);
        }
    }

    /// The server that the parameters name now (CPE-7, CPE-8), or none where STUN is off (CPE-1).
    fn choose_server(&mut self, now: BootTime) {
        let parameters = &self.context.parameters;
        if !parameters.stun_enable {
            self.server = None;
            self.end_session();
            self.begun = None;
            return self.context.clear_all();
        }
        let Some(host) = parameters.stun_server() else {
            self.server = None;
            return self.context.raise(Alarm::NoServer);
        };
        if !self.server.as_ref().is_some_and(|server| server.is(host, parameters.stun_server_port)) {
            self.server = Some(Server::new(now, host, parameters.stun_server_port));
            self.context.clear(Alarm::Unresolved);
        }
        self.context.clear(Alarm::NoServer);
        // Without an address there is nobody to ask, not even for a name.
        if let Some(server) = self.server.as_mut().filter(|_| self.local.is_some()) {
            server.tick(now, &mut self.context);
        }
    }

    /// A session for the address and the server of now.
    fn choose_session(&mut self, now: BootTime) {
        let wanted = self.local.zip(self.server());
        let existing = self.session.as_ref().map(|session| (session.local, session.server));
        if wanted == existing {
            return;
        }
        self.end_session();
        self.session = wanted.map(|(local, server)| {
            // CPE-21 holds for another server, too.
            let start = self.begun.map_or(now, |begun| now.max(begun + self.context.bounds.minimum));
            Session::new(local, server, start, &self.context)
        });
    }

    fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.begun = session.begun.or(self.begun);
        }
    }

    /// What the ACS may read, and is told.
    fn report(&mut self, now: BootTime) {
        let translated = self.session.as_ref().and_then(Session::translated);
        let report = Report { address: translated.or(self.local), nat_detected: translated.is_some() };
        if self.teller.set(now, report) {
            self.context.outputs.push_back(Output::Changed(report));
        }
        self.is_restless =
            !self.is_determined() || self.session.as_ref().is_some_and(|session| session.is_restless(now));
        if self.teller.due(self.is_restless).is_some_and(|due| due <= now) {
            let report = self.teller.tell(now);
            self.context.outputs.push_back(Output::Notify(report));
        }
    }
}
