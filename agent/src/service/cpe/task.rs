//! The task: provides the cores with sockets, time and name lookups.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    task::{JoinSet, yield_now},
};
use tr111_core::{
    binding::{self, Cpe, Input, Output, Socket},
    connreq::{Credential, Datagram, Listener, Payload, must_be_encoded},
    time::{BootTime, UnixTime},
};

use super::{News, Own, Parts, State, Udp, What, local, refused::Refused};
use crate::{
    config,
    control::message::Transport,
    service::{Ask, Clock, NetworkChange, management::Demands, timer::Timer, watch_network},
    telemetry::CpeMetrics,
};

/// Datagrams that are read from a socket before other events are processed.
const BATCH: usize = 64;
/// Buffer size in bytes: the longest UDP datagram. A Connection Request may have a body of any length (UCR-16), and all
/// of it must be present.
const DATAGRAM: usize = 65_536;

pub(super) struct Task {
    cpe: Cpe,
    listener: Listener,
    seed: [u64; 2],
    primary: Udp,
    /// Opened for the first test of the binding.
    secondary: Option<Udp>,
    lost: [u32; 2],
    buffer: Vec<u8>,
    demands: watch::Receiver<Demands>,
    knobs: watch::Receiver<config::Cpe>,
    own: watch::Sender<Own>,
    owner: mpsc::Sender<Ask>,
    news: Vec<News>,
    metrics: CpeMetrics,
    refused: Refused,
    timer: Timer,
    network: mpsc::Receiver<NetworkChange>,
    /// Name lookups in progress: the name and its addresses.
    names: JoinSet<(String, Vec<Ipv4Addr>)>,
    /// The server for which the local address was determined.
    towards: Option<SocketAddrV4>,
    local: Option<SocketAddrV4>,
}

impl Task {
    pub(super) fn new(
        parts: Parts,
        state: State,
        (demands, knobs): (watch::Receiver<Demands>, watch::Receiver<config::Cpe>),
        own: watch::Sender<Own>,
    ) -> io::Result<Self> {
        let settings = binding::Settings { seed: parts.seed, ..parts.knobs.stun };
        let binding = demands.borrow().binding.clone();
        if let Some(character) = must_be_encoded(&demands.borrow().connection_request_username) {
            tracing::warn!(
                ?character,
                "ConnectionRequestUsername needs percent-encoding; requests that do not encode it are refused"
            );
        }
        Ok(Self {
            cpe: Cpe::new(settings, binding, state.memory),
            listener: Listener::new(Credential::new(b"", b""), parts.knobs.connreq, state.last),
            seed: parts.seed,
            primary: parts.socket,
            secondary: None,
            lost: [0; 2],
            buffer: vec![0; DATAGRAM],
            demands,
            knobs,
            own,
            owner: parts.owner,
            news: Vec::new(),
            metrics: parts.metrics,
            refused: Refused::new(Transport::Udp, parts.events),
            timer: Timer::new()?,
            network: watch_network()?,
            names: JoinSet::new(),
            towards: None,
            local: None,
        })
    }

    /// Runs until the handle is dropped.
    pub(super) async fn run(mut self) {
        self.obey();
        self.find_local();
        loop {
            self.carry_out().await;
            if let Err(error) = self.timer.set(self.cpe.next_deadline()) {
                return tracing::error!(%error, "cannot set the timer; Connection Requests stop");
            }
            tokio::select! {
                changed = self.demands.changed() => match changed {
                    Ok(()) => self.obey(),
                    Err(_) => return,
                },
                changed = self.knobs.changed() => match changed {
                    Ok(()) => self.obey(),
                    Err(_) => return,
                },
                () = self.primary.readable() => self.drain(Socket::Primary),
                () = readable(self.secondary.as_ref()) => self.drain(Socket::Secondary),
                () = self.primary.writable() => self.primary.flush(),
                () = writable(self.secondary.as_ref()) => if let Some(secondary) = &mut self.secondary {
                    secondary.flush();
                },
                rung = self.timer.ring() => {
                    if let Err(error) = rung {
                        return tracing::error!(%error, "cannot read the timer; Connection Requests stop");
                    }
                    // A route can change without an address change, which netlink would report.
                    self.find_local();
                    self.cpe.handle(Clock::now(), Input::Tick);
                }
                Some(_) = self.network.recv() => self.find_local(),
                Some(Ok((host, addresses))) = self.names.join_next() => {
                    self.cpe.handle(Clock::now(), Input::Resolved { host: &host, addresses: &addresses });
                }
            }
            // A flood must not delay clients, watchers and metrics.
            yield_now().await;
        }
    }

    /// Applies the current parameters and knobs.
    fn obey(&mut self) {
        let demands = self.demands.borrow_and_update().clone();
        let knobs = self.knobs.borrow_and_update().clone();
        let now = Clock::now();
        self.cpe.handle(now, Input::Settings(binding::Settings { seed: self.seed, ..knobs.stun }));
        self.cpe.handle(now, Input::Asked(demands.is_address_asked));
        self.cpe.handle(now, Input::Parameters(demands.binding));
        self.listener.set_settings(knobs.connreq);
        let (username, password) = (&demands.connection_request_username, &demands.connection_request_password);
        self.listener.set_credential(Credential::new(username.as_bytes(), password.as_bytes()));
    }

    /// Determines the source address of datagrams again.
    fn find_local(&mut self) {
        let bound = self.primary.address();
        let address = local::address(*bound.ip(), self.towards);
        self.local = address.map(|address| SocketAddrV4::new(address, bound.port()));
        self.cpe.handle(Clock::now(), Input::Local(self.local));
    }

    /// Reads a bounded number of datagrams from a socket.
    fn drain(&mut self, which: Socket) {
        let (now, unix) = (Clock::now(), Clock::trusted());
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut is_heard = false;
        for _ in 0..BATCH {
            let socket = match which {
                Socket::Primary => &mut self.primary,
                Socket::Secondary => match &mut self.secondary {
                    Some(socket) => socket,
                    None => break,
                },
            };
            let received = match socket.try_receive(&mut buffer) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, ?which, "cannot receive from the socket");
                    break;
                }
            };
            match (Payload::of(&buffer[..received.length]), which) {
                (Payload::Stun(datagram), socket) => {
                    self.cpe.handle(now, Input::Received { socket, source: received.source, datagram });
                }
                (Payload::ConnectionRequest(datagram), Socket::Primary) => {
                    is_heard = true;
                    self.request(now, unix, datagram, received.source);
                }
                (_, Socket::Primary) => {
                    is_heard = true;
                    self.metrics.requests.with_label_values(&[CpeMetrics::UNKNOWN]).inc();
                }
                (_, Socket::Secondary) => {}
            }
        }
        self.buffer = buffer;
        if is_heard {
            self.cpe.handle(now, Input::Heard);
        }
        let [primary, secondary] = &mut self.lost;
        self.metrics.lost.with_label_values(&["primary"]).inc_by(self.primary.lost_since(primary));
        if let Some(socket) = &self.secondary {
            self.metrics.lost.with_label_values(&["secondary"]).inc_by(socket.lost_since(secondary));
        }
    }

    /// Processes a Connection Request. No reply is ever sent (UCR-15).
    fn request(&mut self, now: BootTime, unix: Option<UnixTime>, datagram: Datagram<'_>, from: SocketAddrV4) {
        match self.listener.receive(unix, datagram) {
            Ok(request) => {
                self.metrics.requests.with_label_values(&[CpeMetrics::ACCEPTED]).inc();
                tracing::info!(%from, ts = request.timestamp(), id = request.id(), "Connection Request accepted");
                let omitted = self.refused.omitted();
                self.tell(now, What::Requested { from, omitted });
            }
            Err(refusal) => {
                self.metrics.requests.with_label_values(&[refusal.label()]).inc();
                self.refused.tell(now, refusal.label(), &from);
            }
        }
    }

    fn tell(&mut self, time: BootTime, what: What) {
        let state = State { last: self.listener.last_accepted(), memory: self.cpe.memory() };
        self.news.push(News { time, what, state });
    }

    /// Carries out the outputs of the cores and sends news to the owner.
    async fn carry_out(&mut self) {
        if self.cpe.server() != self.towards {
            self.towards = self.cpe.server();
            self.find_local();
        }
        while let Some(output) = self.cpe.poll_output() {
            match output {
                Output::Transmit { socket, to, datagram } => {
                    if let Err(error) = self.transmit(socket, to, &datagram) {
                        tracing::debug!(%error, %to, "cannot send a STUN request");
                    }
                }
                Output::Resolve { host } => {
                    self.names.spawn(resolve(host));
                }
                Output::Changed(report) => {
                    let address = report.udp_connection_request_address();
                    tracing::info!(address, nat_detected = report.nat_detected, "Connection Request address changed");
                    let (local, is_determined) = (self.local, self.cpe.is_determined());
                    self.tell(Clock::now(), What::Changed { report, local, is_determined });
                }
                Output::Notify(_) => self.tell(Clock::now(), What::Due),
                Output::Learned { period } => {
                    tracing::info!(?period, "keep-alive period learned");
                    self.tell(Clock::now(), What::Learned);
                }
                Output::Alarm(alarm) => {
                    tracing::warn!(alarm = alarm.label(), "NAT binding alarm raised");
                    self.metrics.alarms.with_label_values(&[alarm.label()]).set(1);
                }
                Output::Cleared(alarm) => {
                    tracing::info!(alarm = alarm.label(), "NAT binding alarm cleared");
                    self.metrics.alarms.with_label_values(&[alarm.label()]).set(0);
                }
            }
        }
        self.metrics.follow(&self.cpe);
        let own = Own {
            username: self.demands.borrow().binding.stun_username.clone(),
            report: self.cpe.current(),
            binding: self.cpe.binding(),
            period: self.cpe.period(),
        };
        self.own.send_if_modified(|known| std::mem::replace(known, own.clone()) != own);
        for news in std::mem::take(&mut self.news) {
            // If the owner has ended, this task ends too.
            let _ = self.owner.send(Ask::Heard(news)).await;
        }
    }

    fn transmit(&mut self, socket: Socket, to: SocketAddrV4, datagram: &[u8]) -> io::Result<()> {
        match socket {
            Socket::Primary => self.primary.send(datagram, to),
            Socket::Secondary => {
                let secondary = match &mut self.secondary {
                    Some(secondary) => secondary,
                    none => {
                        let bound = SocketAddrV4::new(*self.primary.address().ip(), 0);
                        none.insert(Udp::bind(bound).map_err(io::Error::other)?)
                    }
                };
                secondary.send(datagram, to)
            }
        }
    }
}

async fn readable(socket: Option<&Udp>) {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

async fn writable(socket: Option<&Udp>) {
    match socket {
        Some(socket) => socket.writable().await,
        None => std::future::pending().await,
    }
}

/// Looks up the IPv4 addresses of a name; empty if there are none.
async fn resolve(host: String) -> (String, Vec<Ipv4Addr>) {
    let ipv4 = |address| match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    };
    let found = lookup_host((host.as_str(), 0)).await.map(|found| found.filter_map(ipv4).collect());
    let addresses = found.unwrap_or_else(|error| {
        tracing::debug!(%error, host, "cannot resolve the name of the STUN server");
        Vec::new()
    });
    (host, addresses)
}
