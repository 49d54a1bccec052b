//! Simulation of a CPE, a NAT and a STUN server with a simulated clock.
//!
//! Every datagram of the CPE is parsed and checked against the requirements of TR-111 for all datagrams.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use tr111_core::{
    binding::{Alarm, Cpe, Input, Memory, Output, Parameters, Report, Settings, Socket},
    stun::{
        Attribute, Builder, ErrorCode, Message, MessageType, SharedSecret, TransactionId, UnknownAttributes, Variant,
    },
    stun::{GIVE_UP, Variants},
    time::BootTime,
};

pub const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 3478);
pub const OTHER_SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 20), 3478);
pub const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 100), 7547);
const SECONDARY_PORT: u16 = 7548;
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Delay of a datagram between CPE and server, in one direction.
pub const WAY: Duration = Duration::from_millis(20);
pub const USERNAME: &str = "CPE57689";
pub const PASSWORD: &str = "stunpassword1234";

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Parameters of a CPE that uses STUN.
pub fn enabled(minimum: u32, maximum: i32) -> Parameters {
    Parameters {
        stun_enable: true,
        stun_server_address: SERVER.ip().to_string(),
        stun_minimum_keep_alive_period: minimum,
        stun_maximum_keep_alive_period: maximum,
        ..Parameters::default()
    }
}

/// `enabled` with credentials.
pub fn provisioned(minimum: u32, maximum: i32) -> Parameters {
    Parameters { stun_username: USERNAME.to_owned(), stun_password: PASSWORD.to_owned(), ..enabled(minimum, maximum) }
}

/// A NAT like that of Linux: one mapping per source and destination, which admits datagrams from the destination only.
#[derive(Debug)]
pub struct Nat {
    /// Timeout of a mapping; `None` for no NAT.
    pub timeout: Option<Duration>,
    /// Whether a new mapping gets another port.
    pub moves: bool,
    /// Whether incoming datagrams refresh a mapping.
    pub refreshed_by_answers: bool,
    /// Timeout of flows that carried packets in both directions for more than two seconds, as in Linux.
    pub stream: Option<Duration>,
    mappings: HashMap<(SocketAddrV4, SocketAddrV4), Mapping>,
    next_port: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mapping {
    port: u16,
    created: BootTime,
    is_two_way: bool,
    end: BootTime,
    /// Time without a mapping before this one.
    gone: Duration,
}

impl Mapping {
    fn refresh(&mut self, now: BootTime, timeout: Duration, stream: Option<Duration>) {
        let is_stream = self.is_two_way && now > self.created + seconds(2);
        self.end = now + stream.filter(|_| is_stream).unwrap_or(timeout);
    }

    fn gone(&self, now: BootTime) -> Duration {
        self.gone + now.since(self.end).unwrap_or_default()
    }
}

impl Nat {
    fn out(&mut self, now: BootTime, source: SocketAddrV4, destination: SocketAddrV4) -> SocketAddrV4 {
        let Some(timeout) = self.timeout else { return source };
        let mapping = self.mappings.entry((source, destination)).or_default();
        if now >= mapping.end {
            let port = if self.moves || mapping.port == 0 { self.next_port } else { mapping.port };
            let gone = if mapping.port == 0 { Duration::ZERO } else { mapping.gone(now) };
            *mapping = Mapping { port, created: now, gone, ..Mapping::default() };
            self.next_port += 1;
        }
        mapping.refresh(now, timeout, self.stream);
        SocketAddrV4::new(PUBLIC, mapping.port)
    }

    fn back(&mut self, now: BootTime, source: SocketAddrV4, destination: SocketAddrV4) -> Option<SocketAddrV4> {
        let Some(timeout) = self.timeout else { return Some(destination) };
        let ((inside, _), mapping) = self.mappings.iter_mut().find(|((_, server), mapping)| {
            *server == source && destination == SocketAddrV4::new(PUBLIC, mapping.port) && now < mapping.end
        })?;
        mapping.is_two_way = true;
        if self.refreshed_by_answers {
            mapping.refresh(now, timeout, self.stream);
        }
        Some(*inside)
    }

    /// Removes all mappings.
    pub fn reboot(&mut self) {
        self.mappings.clear();
    }
}

/// Requests that need a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    Nothing,
    /// Requests with BINDING-CHANGE (STUN-23).
    Changes,
    Everything,
}

#[derive(Debug)]
pub struct Server {
    pub honours_response_address: bool,
    pub demand: Demand,
    /// Password for the server's signatures; `None` for unsigned responses.
    pub password: Option<&'static str>,
    pub is_silent: bool,
    /// Error in response to every request.
    pub error: Option<u16>,
    /// Attribute that is refused with error 420.
    pub unknown: Option<u16>,
    /// Mapped address of a forged response that follows each genuine one.
    pub forged: Option<SocketAddrV4>,
    /// Whether each datagram appears to come from another port.
    pub scatters: bool,
    /// Attribute with the source of the request.
    pub mapped: fn(SocketAddrV4) -> Attribute<'static>,
}

/// A datagram that the CPE sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at: BootTime,
    pub socket: Socket,
    pub to: SocketAddrV4,
    pub id: TransactionId,
    /// Whether it is the first copy.
    pub is_new: bool,
    pub is_change: bool,
    pub is_signed: bool,
    pub username: Option<Vec<u8>>,
    pub response_address: Option<SocketAddrV4>,
    pub datagram: Vec<u8>,
}

#[derive(Debug)]
enum Travelling {
    ToServer { source: SocketAddrV4, destination: SocketAddrV4, datagram: Vec<u8> },
    ToNat { source: SocketAddrV4, destination: SocketAddrV4, datagram: Vec<u8> },
}

pub struct World {
    pub now: BootTime,
    pub cpe: Cpe,
    pub nat: Nat,
    pub server: Server,
    pub local: Option<SocketAddrV4>,
    pub sent: Vec<Sent>,
    pub outputs: Vec<(BootTime, Output)>,
    travelling: BTreeMap<(BootTime, u64), Travelling>,
    serial: u64,
    served: u16,
    refused: Vec<TransactionId>,
    /// Addresses of names.
    pub names: HashMap<String, Vec<Ipv4Addr>>,
    /// Delay of timers.
    pub lateness: Duration,
}

impl World {
    /// A CPE with these parameters and a local address, behind a NAT with this timeout.
    pub fn new(parameters: Parameters, timeout: Option<Duration>) -> Self {
        let mut world = Self::silent(parameters, timeout, Memory::default());
        world.set_local(Some(LOCAL));
        world
    }

    /// A CPE without a local address.
    pub fn silent(parameters: Parameters, timeout: Option<Duration>, memory: Memory) -> Self {
        let settings = Settings { seed: [0x5eed, 0xfeed], variants: Variants::STRICT, ..Settings::default() };
        Self {
            now: BootTime::default() + seconds(1_000),
            cpe: Cpe::new(settings, parameters, memory),
            nat: Nat {
                timeout,
                moves: true,
                refreshed_by_answers: true,
                stream: None,
                mappings: HashMap::new(),
                next_port: 40_001,
            },
            server: Server {
                honours_response_address: true,
                demand: Demand::Nothing,
                password: Some(PASSWORD),
                is_silent: false,
                error: None,
                unknown: None,
                forged: None,
                scatters: false,
                mapped: Attribute::MappedAddress,
            },
            local: None,
            sent: Vec::new(),
            outputs: Vec::new(),
            travelling: BTreeMap::new(),
            serial: 0,
            served: 0,
            refused: Vec::new(),
            names: HashMap::new(),
            lateness: Duration::ZERO,
        }
    }

    pub fn set_local(&mut self, local: Option<SocketAddrV4>) {
        self.local = local;
        self.handle(Input::Local(local));
    }

    pub fn set(&mut self, parameters: Parameters) {
        self.handle(Input::Parameters(parameters));
    }

    pub fn handle(&mut self, input: Input<'_>) {
        self.cpe.handle(self.now, input);
        self.collect();
    }

    /// Advances the clock.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut steps = 0;
        loop {
            let arrival = self.travelling.keys().next().map_or(BootTime::NEVER, |(at, _)| *at);
            let deadline = self.cpe.next_deadline().unwrap_or(BootTime::NEVER);
            let next = arrival.min(deadline + self.lateness);
            if next > end {
                break;
            }
            steps = if next > self.now { 0 } else { steps + 1 };
            assert!(steps < 1_000, "the machine does not rest at {:?}: {:?}", self.now, self.cpe);
            self.now = self.now.max(next);
            if arrival <= self.now {
                let (_, travelling) = self.travelling.pop_first().unwrap();
                self.arrive(travelling);
            } else {
                self.handle(Input::Tick);
            }
        }
        self.now = end;
    }

    /// Advances the clock until `done`, at most by `limit`; returns the elapsed time.
    pub fn pass_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            let passed = self.now.since(start).unwrap();
            assert!(passed < limit, "not within {limit:?}: {:?}", self.cpe);
            self.pass(Duration::from_millis(100));
        }
        self.now.since(start).unwrap()
    }

    /// Average number of datagrams per hour, tests included, of a CPE that has learned the period.
    pub fn keep_alive_packets(&mut self, hours: u32) -> f64 {
        self.pass_until(seconds(10_000), |world| world.learned().is_some());
        let before = self.sent.len();
        self.pass(seconds(3_600) * hours);
        f64::from(u32::try_from(self.sent.len() - before).unwrap()) / f64::from(hours)
    }

    fn collect(&mut self) {
        while let Some(output) = self.cpe.poll_output() {
            match &output {
                Output::Transmit { socket, to, datagram } => self.transmit(*socket, *to, datagram),
                Output::Resolve { host } => {
                    let (host, addresses) = (host.clone(), self.names.get(host).cloned().unwrap_or_default());
                    self.outputs.push((self.now, output));
                    self.handle(Input::Resolved { host: &host, addresses: &addresses });
                    continue;
                }
                _ => {}
            }
            self.outputs.push((self.now, output));
        }
    }

    fn transmit(&mut self, socket: Socket, to: SocketAddrV4, datagram: &[u8]) {
        let message = Message::parse(datagram).expect("the CPE sends messages");
        assert_eq!(message.message_type(), MessageType::BindingRequest);
        let id = message.transaction_id();
        // Copies are sent within seconds, so it is enough to search the last datagrams.
        let first = self.sent.iter().rev().take(100).find(|sent| sent.id == id);
        // RFC 3489 9.3: copies are identical.
        assert!(first.is_none_or(|first| first.datagram == datagram && first.to == to));
        let sent = Sent {
            at: self.now,
            socket,
            to,
            id,
            is_new: first.is_none(),
            is_change: message.has_binding_change(),
            is_signed: message.is_signed(),
            username: message.username().map(|username| username.0.to_vec()),
            response_address: message.response_address(),
            datagram: datagram.to_vec(),
        };
        let is_primary = socket == Socket::Primary;
        // CPE-28, CPE-29.
        assert_eq!(message.has_connection_request_binding(), is_primary);
        // CPE-32: neither RESPONSE-ADDRESS nor CHANGE-REQUEST.
        assert_eq!(sent.response_address.is_some(), !is_primary);
        assert_eq!(message.change_request(), tr111_core::stun::ChangeRequest::default());
        if sent.is_signed && sent.is_new {
            // CPE-17: signed only after a 401.
            assert!(self.refused.pop().is_some(), "signed on its own: {sent:?}");
            assert!(message.verify(&SharedSecret::new(PASSWORD.as_bytes()), Variant::A.into()).is_ok());
        }
        self.sent.push(sent);
        let local = self.local.expect("nothing leaves without an address");
        let source = if is_primary { local } else { SocketAddrV4::new(*local.ip(), SECONDARY_PORT) };
        let source = self.nat.out(self.now, source, to);
        self.travel(Travelling::ToServer { source, destination: to, datagram: datagram.to_vec() });
    }

    fn travel(&mut self, travelling: Travelling) {
        self.serial += 1;
        self.travelling.insert((self.now + WAY, self.serial), travelling);
    }

    /// Sends a datagram from outside.
    pub fn send_from(&mut self, source: SocketAddrV4, destination: SocketAddrV4, datagram: Vec<u8>) {
        self.travel(Travelling::ToNat { source, destination, datagram });
    }

    fn arrive(&mut self, travelling: Travelling) {
        match travelling {
            Travelling::ToServer { source, destination, datagram } => self.serve(source, destination, &datagram),
            Travelling::ToNat { source, destination, datagram } => {
                let Some(inside) = self.nat.back(self.now, source, destination) else { return };
                let Some(local) = self.local.filter(|local| local.ip() == inside.ip()) else { return };
                let socket = if inside.port() == local.port() { Socket::Primary } else { Socket::Secondary };
                self.handle(match (datagram[0], socket) {
                    (b'G', Socket::Primary) => Input::Heard,
                    _ => Input::Received { socket, source, datagram: &datagram },
                });
            }
        }
    }

    /// The server's response, with the checks in the order of RFC 3489.
    fn serve(&mut self, source: SocketAddrV4, destination: SocketAddrV4, datagram: &[u8]) {
        let message = Message::parse(datagram).unwrap();
        let id = message.transaction_id();
        let source = if self.server.scatters {
            self.served += 1;
            SocketAddrV4::new(*source.ip(), 50_000 + self.served % 10_000)
        } else {
            source
        };
        if self.server.is_silent {
            return;
        }
        let wants_signature = match self.server.demand {
            Demand::Nothing => false,
            Demand::Changes => message.has_binding_change(),
            Demand::Everything => true,
        };
        let error = |code| Builder::new(MessageType::BindingErrorResponse, id).attribute(Attribute::ErrorCode(code));
        let refusal = match (self.server.error, self.server.unknown) {
            (Some(code), _) => {
                if code == ErrorCode::UNAUTHORIZED.code && !message.is_signed() {
                    self.refused.push(id);
                }
                Some(error(ErrorCode { code, reason: b"Scripted" }))
            }
            _ if wants_signature && !message.is_signed() => {
                self.refused.push(id);
                Some(error(ErrorCode::UNAUTHORIZED))
            }
            (_, Some(code)) if message.attributes().any(|attribute| attribute.code() == code) => {
                let list = [code];
                let list = Attribute::UnknownAttributes(UnknownAttributes::new(&list));
                Some(error(ErrorCode::UNKNOWN_ATTRIBUTE).attribute(list))
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            let seen = self.nat_address(source);
            return self.send_from(destination, seen, refusal.build());
        }
        let response_address = message.response_address().filter(|_| self.server.honours_response_address);
        let answer = |mapped| {
            let response = Builder::new(MessageType::BindingResponse, id)
                .attribute((self.server.mapped)(mapped))
                .attribute(Attribute::SourceAddress(destination))
                .attribute(Attribute::ChangedAddress(destination));
            match self.server.password.filter(|_| message.is_signed()) {
                Some(password) => response.sign(&SharedSecret::new(password.as_bytes()), Variant::A),
                None => response.build(),
            }
        };
        let genuine = answer(source);
        let forged = self.server.forged.map(answer);
        let to = response_address.unwrap_or_else(|| self.nat_address(source));
        self.send_from(destination, to, genuine);
        if let Some(forged) = forged {
            self.send_from(destination, to, forged);
        }
    }

    /// Destination of a datagram to this source while the server reports changed ports.
    fn nat_address(&self, source: SocketAddrV4) -> SocketAddrV4 {
        if !self.server.scatters {
            return source;
        }
        let port = self
            .nat
            .mappings
            .iter()
            .find(|((inside, _), _)| Some(*inside) == self.local)
            .map(|(_, mapping)| mapping.port);
        SocketAddrV4::new(*source.ip(), port.unwrap_or(LOCAL.port()))
    }

    /// First copies from the primary socket.
    pub fn requests(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| sent.socket == Socket::Primary && sent.is_new)
    }

    /// First copies with BINDING-CHANGE.
    pub fn changes(&self) -> impl Iterator<Item = &Sent> {
        self.requests().filter(|sent| sent.is_change)
    }

    /// First copies from the secondary socket.
    pub fn probes(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(|sent| sent.socket == Socket::Secondary && sent.is_new)
    }

    pub fn notified(&self) -> Vec<(BootTime, Report)> {
        let notified = |(at, output): &(BootTime, Output)| match output {
            Output::Notify(report) => Some((*at, *report)),
            _ => None,
        };
        self.outputs.iter().filter_map(notified).collect()
    }

    pub fn has_raised(&self, alarm: Alarm) -> bool {
        self.outputs.iter().any(|(_, output)| *output == Output::Alarm(alarm))
    }

    pub fn learned(&self) -> Option<Duration> {
        self.cpe.memory().learned
    }

    /// Public address of the binding in the NAT.
    pub fn mapping(&self) -> Option<SocketAddrV4> {
        let mapping = self.nat.mappings.get(&(self.local?, SERVER))?;
        (self.now < mapping.end).then(|| SocketAddrV4::new(PUBLIC, mapping.port))
    }

    /// Total time without a binding so far, in which the CPE was unreachable.
    pub fn gone(&self) -> Duration {
        let mapping = self.local.and_then(|local| self.nat.mappings.get(&(local, SERVER)));
        mapping.map_or(Duration::ZERO, |mapping| mapping.gone(self.now))
    }

    /// Advances the clock; returns the longest time without a binding. Times below 100 ms are ignored.
    pub fn longest_gap(&mut self, duration: Duration) -> Duration {
        const LOOK: Duration = Duration::from_millis(100);
        let (mut longest, mut gap) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..duration.as_millis() / LOOK.as_millis() {
            self.pass(LOOK);
            gap = if self.mapping().is_some() { Duration::ZERO } else { gap + LOOK };
            longest = longest.max(gap);
        }
        longest
    }

    /// CPE-21: a refresh is not sooner than the minimum period after the previous request. CPE-22: no gap is longer
    /// than the maximum period.
    pub fn assert_periods(&self, minimum: Duration, maximum: Option<Duration>) {
        let primary: Vec<&Sent> = self.sent.iter().filter(|sent| sent.socket == Socket::Primary).collect();
        for pair in primary.windows(2) {
            let gap = pair[1].at.since(pair[0].at).unwrap();
            assert!(maximum.is_none_or(|maximum| gap <= maximum), "silent for {gap:?}: {pair:?}");
        }
        let new: Vec<&Sent> = self.requests().collect();
        for pair in new.windows(2) {
            let gap = pair[1].at.since(pair[0].at).unwrap();
            let is_exempt = pair[1].is_change || pair[1].is_signed;
            assert!(is_exempt || gap >= minimum, "after {gap:?}: {pair:?}");
        }
    }
}

/// Time until a server is considered silent.
pub const SILENCE: Duration = GIVE_UP;
