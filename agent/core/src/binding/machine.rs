//! The STUN client of the CPE: chooses the server, runs the session with it, and reports to the ACS.

use std::{net::SocketAddrV4, time::Duration};

use super::{
    Alarm, Binding, Bounds, Counts, Input, Output, Parameters, Phase, Report, Settings,
    context::Context,
    report::Teller,
    server::Server,
    session::{Reflection, Session},
};
use crate::time::BootTime;

/// State that is stored across restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The learned keep-alive period, with which discovery begins.
    pub learned: Option<Duration>,
    /// The last report to the ACS; it is not repeated.
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
    is_restless: bool,
    /// Time at which the last transaction of earlier sessions began.
    begun: Option<BootTime>,
}

impl Cpe {
    /// A client without a local address, which sends nothing.
    pub fn new(settings: Settings, parameters: Parameters, memory: Memory) -> Self {
        let mut teller = Teller::new(settings.damping, memory.told);
        teller.set_limit(parameters.notification_limit);
        let context = Context::new(settings, parameters, memory.learned);
        Self { context, local: None, server: None, session: None, teller, is_restless: false, begun: None }
    }

    /// Handles an input at `now`.
    pub fn handle(&mut self, now: BootTime, input: Input<'_>) {
        match input {
            Input::Parameters(parameters) => self.set_parameters(parameters),
            Input::Local(local) => {
                if self.local != local {
                    self.local = local;
                    // CPE-15, CPE-16: the previous binding is void, and the minimum period does not apply.
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

    /// The next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.context.outputs.pop_front()
    }

    /// Time at which [`Input::Tick`] has to be passed.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let server = self.server.as_ref().filter(|_| self.local.is_some());
        let server = server.map_or(BootTime::NEVER, Server::deadline);
        let session = self.session.as_ref().map_or(BootTime::NEVER, |session| session.deadline(&self.context));
        let report = self.teller.due(self.is_restless).unwrap_or(BootTime::NEVER);
        Some(server.min(session).min(report)).filter(|deadline| *deadline != BootTime::NEVER)
    }

    /// The current values of `UDPConnectionRequestAddress` and `NATDetected`.
    pub fn current(&self) -> Report {
        self.teller.report()
    }

    /// Whether [`Self::current`] is final. It is not while the first answer of a new server, or to a new local address,
    /// is outstanding; then it has the listener's own address.
    pub fn is_determined(&self) -> bool {
        match (&self.session, &self.server) {
            (Some(session), _) => !session.is_first(),
            (None, Some(server)) => !server.is_expected() || self.local.is_none(),
            (None, None) => true,
        }
    }

    /// State to be stored across restarts.
    pub fn memory(&self) -> Memory {
        Memory { learned: self.context.learned, told: self.teller.told() }
    }

    /// The binding, as the server reported it.
    pub fn binding(&self) -> Option<Binding> {
        self.session.as_ref().and_then(|session| session.binding)
    }

    /// The server in use.
    pub fn server(&self) -> Option<SocketAddrV4> {
        self.server.as_ref().and_then(Server::address)
    }

    /// The current keep-alive period; `None` without a session.
    pub fn period(&self) -> Option<Duration> {
        self.session.as_ref().map(|session| session.period(&self.context))
    }

    /// Phase of the search; `None` if there is no search: without NAT, with a fixed period, or if the server ignores
    /// RESPONSE-ADDRESS.
    pub fn phase(&self) -> Option<Phase> {
        let session = self.session.as_ref().filter(|session| session.translated().is_some())?;
        let is_searched = self.context.bounds.is_open && session.reflection != Reflection::Ignored;
        is_searched.then(|| session.search.phase())
    }

    /// Limits of the keep-alive period.
    pub fn bounds(&self) -> Bounds {
        self.context.bounds
    }

    /// The current alarms.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.context.alarms()
    }

    /// Numbers of messages, by type and result.
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

    /// Applies the bounds of the current parameters and settings.
    fn rebound(&mut self) {
        self.context.bounds = Bounds::new(&self.context.parameters, &self.context.settings);
        if let Some(session) = &mut self.session {
            session.rebound(&mut self.context);
        }
    }

    /// Chooses the server that the parameters name (CPE-7, CPE-8); none if STUN is disabled (CPE-1).
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
        // Without a local address, names cannot be resolved either.
        if let Some(server) = self.server.as_mut().filter(|_| self.local.is_some()) {
            server.tick(now, &mut self.context);
        }
    }

    /// Creates the session for the current local address and server.
    fn choose_session(&mut self, now: BootTime) {
        let wanted = self.local.zip(self.server());
        let existing = self.session.as_ref().map(|session| (session.local, session.server));
        if wanted == existing {
            return;
        }
        self.end_session();
        self.session = wanted.map(|(local, server)| {
            // CPE-21 applies across servers, too.
            let start = self.begun.map_or(now, |begun| now.max(begun + self.context.bounds.minimum));
            Session::new(local, server, start, &self.context)
        });
    }

    fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.begun = session.begun.or(self.begun);
        }
    }

    /// Updates the report, and notifies the ACS when that is due.
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
