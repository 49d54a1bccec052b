//! A STUN server at the addresses of the test vectors, and its clients.

use std::{net::SocketAddrV4, time::Duration};

use super::cpe;
use crate::{
    acs::{
        Accepted, Cpe, Ends, First, Judged, Learned, Now, Outcome, Remembered, Server, Settings, SourceLimit, State,
        Verdict,
    },
    identity::tests::bytes,
    stun::{Attribute, Builder, MessageType, Username, Variant},
    time::{BootTime, UnixTime},
};

pub use crate::stun::tests::vectors::*;

/// The server of the test vectors, which knows CPE57689.
pub struct Lab {
    pub server: Server,
    pub now: Now,
    /// The store's reply to accepted requests.
    pub remembered: Remembered,
}

/// The result of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    /// Destination and bytes of the answer.
    pub sent: Option<(SocketAddrV4, Vec<u8>)>,
    pub learned: Option<Learned>,
}

impl Answer {
    fn new(Outcome { verdict, to, learned, .. }: Outcome, answer: Vec<u8>) -> Self {
        Self { verdict, sent: to.map(|to| (to, answer)), learned }
    }
}

impl Lab {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let mut server = Server::new(7, settings);
        server.registry_mut().add(cpe("CPE57689")).expect("the first");
        let now = Now { boot: BootTime(1), unix: UnixTime(1_700_000_000) };
        Self { server, now, remembered: Remembered::Now }
    }

    pub fn cpe(&self) -> &Cpe {
        let registry = self.server.registry();
        registry.number(USER).and_then(|number| registry.get(number)).expect("it is there")
    }

    pub fn state(&self) -> &State {
        &self.cpe().state
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.boot = self.now.boot + time;
        self.now.unix.0 += time.as_secs();
    }

    /// Sends a request from the address of the test vectors.
    pub fn ask(&mut self, datagram: &[u8]) -> Answer {
        self.ask_from(MAPPED, datagram)
    }

    pub fn ask_from(&mut self, source: SocketAddrV4, datagram: &[u8]) -> Answer {
        self.ask_limited(source, datagram, None)
    }

    /// Asks from a source that sends too much where there is a limit `beyond` for known CPEs.
    pub fn ask_limited(&mut self, source: SocketAddrV4, datagram: &[u8], beyond: Option<&mut SourceLimit>) -> Answer {
        let (judged, answer) = self.judge(source, datagram, beyond);
        match judged {
            Judged::Settled(outcome) => Answer::new(outcome, answer),
            Judged::Accepted(accepted) => self.conclude(&accepted, answer),
        }
    }

    /// Everything before the store is asked.
    pub fn judge(
        &mut self,
        source: SocketAddrV4,
        datagram: &[u8],
        beyond: Option<&mut SourceLimit>,
    ) -> (Judged, Vec<u8>) {
        let mut answer = Vec::new();
        let settings = self.server.settings();
        let judged = match settings.judge(Ends { source, server: SERVER }, datagram, &mut answer) {
            First::Settled(outcome) => Judged::Settled(outcome),
            First::Pending(request) => self.server.judge(self.now, &request, beyond, &mut answer),
        };
        (judged, answer)
    }

    /// Completes a request after the store's reply.
    pub fn conclude(&mut self, accepted: &Accepted, answer: Vec<u8>) -> Answer {
        Answer::new(self.server.conclude(self.now, accepted, self.remembered, &answer), answer)
    }

    /// Sends a request in hexadecimal digits, and returns the answer.
    pub fn told(&mut self, request: &str) -> Option<Vec<u8>> {
        self.ask(&bytes(request)).sent.map(|(to, answer)| {
            assert_eq!(to, MAPPED);
            answer
        })
    }
}

/// A Binding Request of CPE57689 with CONNECTION-REQUEST-BINDING.
pub fn keep_alive(first: u8) -> Builder {
    Builder::new(MessageType::BindingRequest, id(first))
        .attribute(Attribute::ConnectionRequestBinding)
        .attribute(Attribute::Username(Username(USER)))
}

/// A Binding Request with BINDING-CHANGE.
pub fn change(first: u8) -> Builder {
    keep_alive(first).attribute(Attribute::BindingChange)
}

/// A signed Binding Request with BINDING-CHANGE.
pub fn signed(first: u8) -> Vec<u8> {
    change(first).sign(&secret(), Variant::A)
}

/// Another port of the same NAT.
pub fn moved(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*MAPPED.ip(), port)
}
