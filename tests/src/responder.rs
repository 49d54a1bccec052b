//! A DHCP server of the stories' own: quick, with leases as short as wanted, and unpleasant on request.
//!
//! It works on a packet socket of the gateway's LAN interface. Its replies leave by that interface's egress hook, as
//! those of any server on the gateway do.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{
    frame::{BROADCAST, Mac, Message, Packet, Received, kind},
    namespace::Namespace,
    wire::Wire,
};

/// How the server answers; may change while it runs.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Lease time in seconds.
    pub lease: u32,
    /// Answers REQUEST by NAK.
    pub refuse: bool,
    /// Answers INFORM by NAK, which no server should.
    pub refuse_inform: bool,
    /// Answers nothing.
    pub silent: bool,
    /// Server identifier.
    pub server: Ipv4Addr,
    /// Further bytes for the options field of OFFER and ACK.
    pub options: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    stop: AtomicBool,
    answers: AtomicU64,
}

/// The running server.
#[derive(Debug)]
pub struct Responder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Responder {
    /// Serves addresses from `first` on, as the server `server` on `interface`.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        server: Ipv4Addr,
        first: Ipv4Addr,
        lease: u32,
    ) -> Result<Self> {
        let wire = Wire::open_incoming(namespace, interface)?;
        let mac = namespace.mac(interface)?;
        let behaviour =
            Behaviour { lease, refuse: false, refuse_inform: false, silent: false, server, options: Vec::new() };
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            stop: AtomicBool::new(false),
            answers: AtomicU64::new(0),
        });
        let mut serving = Serving { wire, mac, first, addresses: HashMap::new(), shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new().name("responder".into()).spawn(move || serving.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Changes how it answers.
    pub fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Messages that it has sent.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It had trouble with its interface.
    pub fn stop(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("the responder panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            eprintln!("responder: {error:#}");
        }
    }
}

struct Serving {
    wire: Wire,
    mac: Mac,
    first: Ipv4Addr,
    /// By client identifier, else by hardware address (RFC 2131 4.2).
    addresses: HashMap<Vec<u8>, Ipv4Addr>,
    shared: Arc<Shared>,
}

impl Serving {
    fn run(&mut self) -> Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let Some(frame) = self.wire.receive(Duration::from_millis(50))? else { continue };
            let Some(request) = Received::parse(&frame).filter(|message| message.op == 1) else { continue };
            let behaviour = self.shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(reply) = self.answer(&request, &behaviour) else { continue };
            let mut packet = Packet::from_server(self.mac, behaviour.server, reply.bytes());
            if !request.giaddr.is_unspecified() {
                // To the relay, server port on both sides (RFC 2131 4.1).
                packet.to = request.from;
                packet.destination = request.giaddr;
                packet.ports = (67, 67);
            } else if request.flags & 0x8000 == 0 && reply.options.get(2) != Some(&kind::NAK) {
                packet.to = request.from;
                packet.destination = if request.ciaddr.is_unspecified() { reply.yiaddr } else { request.ciaddr };
            } else {
                packet.to = BROADCAST;
            }
            self.wire.send(&packet.bytes())?;
            self.shared.answers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn answer(&mut self, request: &Received, behaviour: &Behaviour) -> Option<Message> {
        if behaviour.silent || request.address_option(54).is_some_and(|chosen| chosen != behaviour.server) {
            return None;
        }
        let kind = match request.kind() {
            kind::DISCOVER => kind::OFFER,
            kind::REQUEST if behaviour.refuse => kind::NAK,
            kind::INFORM if behaviour.refuse_inform => kind::NAK,
            kind::REQUEST | kind::INFORM => kind::ACK,
            _ => return None,
        };
        let mut reply = Message::answer(request, kind, behaviour.server);
        if kind == kind::NAK {
            return Some(reply);
        }
        if request.kind() == kind::INFORM {
            reply.ciaddr = request.ciaddr;
        } else {
            let client = request.option(61).unwrap_or(&request.chaddr).to_vec();
            let next = u32::from(self.first) + self.addresses.len() as u32;
            reply.yiaddr = *self.addresses.entry(client).or_insert_with(|| Ipv4Addr::from(next));
            reply = reply.option(51, &behaviour.lease.to_be_bytes());
        }
        Some(reply.option(1, &[255, 255, 0, 0]).raw(&behaviour.options))
    }
}
