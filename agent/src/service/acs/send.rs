//! One Connection Request to one CPE (TR-111 2.2.2.3).

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::{net::lookup_host, time};
use tr111_core::{
    acs::{Cpe, Way},
    connreq::{Authority, COPIES, ConnectionRequest},
    secret::SharedSecret,
    short::Short,
};

use super::{Acs, Error, describe::text, socket::Outgoing};
use crate::{
    control::message::{self, Happening, SentRequest},
    random,
    telemetry::AcsMetrics,
};

/// Greatest additional delay of a copy, so that copies to many CPEs do not coincide (T-70).
const JITTER_MILLISECONDS: u64 = 50;

/// A Connection Request that is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) name: Option<Short>,
    pub(super) authority: Authority,
    pub(super) way: Option<Way>,
    /// The address of the server that the CPE sent its Binding Request to.
    pub(super) server: Option<SocketAddrV4>,
    pub(super) username: Short,
    pub(super) password: Short,
}

impl Order {
    /// An order for the address at which the CPE can be reached.
    pub(super) fn new(cpe: &Cpe, approach: tr111_core::acs::Approach) -> Result<Self, Error> {
        let credentials = &cpe.credentials;
        let (username, password) = (&credentials.connection_request_username, &credentials.connection_request_password);
        if username.is_empty() || password.is_empty() {
            return Err(Error::NoCredentials);
        }
        let to = cpe.state.destination(approach).ok_or(Error::NoDestination)?;
        let server = match to.way {
            Way::Authenticated => cpe.state.authenticated.map(|seen| seen.server),
            Way::Tentative => cpe.state.tentative.map(|seen| seen.server),
            // A reported address comes without the address of the server. The server of the latest binding is the best
            // guess.
            Way::Reported => cpe.state.authenticated.or(cpe.state.tentative).map(|seen| seen.server),
        };
        Ok(Self {
            name: Some(cpe.name.clone()),
            authority: to.authority,
            way: Some(to.way),
            server,
            username: username.clone(),
            password: password.clone(),
        })
    }

    /// Builds and signs the request (UCR-25 to UCR-41).
    pub(super) fn sign(&self, timestamp: u64, id: u64, nonce: [u8; 8]) -> Result<Vec<u8>, Error> {
        let nonce = format!("{:016x}", u64::from_ne_bytes(nonce));
        let username = text(&self.username);
        let authority = self.authority.clone();
        let request = ConnectionRequest { authority, timestamp, id, username: &username, nonce: &nonce };
        Ok(request.sign(&SharedSecret::new(&self.password))?)
    }
}

impl Acs {
    /// Sends a Connection Request in `copies` to the CPE of this name. Returns when the last copy has been sent.
    pub async fn send(&self, name: &str, copies: usize) -> Result<SentRequest, Error> {
        let order = self.get(name).ok_or(Error::Unknown).and_then(|cpe| Order::new(&cpe, self.approach()));
        self.carry_out(order, copies).await
    }

    /// Sends a Connection Request to an address. The CPE need not be in the registry.
    pub async fn send_to(
        &self,
        to: Authority,
        username: &str,
        password: &[u8],
        copies: usize,
    ) -> Result<SentRequest, Error> {
        let order = Order {
            name: None,
            authority: to,
            way: None,
            server: None,
            username: Short::from(username.as_bytes()),
            password: Short::from(password),
        };
        self.carry_out(Ok(order), copies).await
    }

    pub(super) async fn carry_out(&self, order: Result<Order, Error>, copies: usize) -> Result<SentRequest, Error> {
        let sent = match order {
            Ok(order) => self.try_carry_out(order, copies).await,
            Err(error) => Err(error),
        };
        let result = sent.as_ref().map_or_else(Error::label, |_| AcsMetrics::SENT);
        self.0.metrics.requests.with_label_values(&[result]).inc();
        if let Ok(sent) = &sent {
            self.tell(|| {
                Happening::ConnectionRequest(message::ConnectionRequest {
                    result: AcsMetrics::SENT.to_owned(),
                    from: sent.from.to_string(),
                    omitted: 0,
                    transport: message::Transport::Udp,
                    username: sent.username.clone(),
                    to: Some(sent.address.to_string()),
                })
            });
        }
        sent
    }

    async fn try_carry_out(&self, order: Order, copies: usize) -> Result<SentRequest, Error> {
        let address = resolve(&order.authority).await?;
        let timestamp = self.reserve(std::slice::from_ref(&order)).await?[0];
        let [nonce, jitter] =
            random::words::<2>().map_err(|error| Error::NotSent(format!("cannot read random bytes: {error}")))?;
        let id = self.next_id();
        let datagram = order.sign(timestamp, id, nonce.to_ne_bytes())?;
        let start = time::Instant::now();
        let mut from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let copies = copies.clamp(1, COPIES.len());
        for (copy, after) in COPIES.into_iter().take(copies).enumerate() {
            let jitter = if copy == 0 { 0 } else { (jitter >> (copy * 8)) % JITTER_MILLISECONDS };
            time::sleep_until(start + after + Duration::from_millis(jitter)).await;
            from = self.send_from(
                order.server,
                Outgoing { to: address, from: Ipv4Addr::UNSPECIFIED, bytes: datagram.clone() },
            )?;
        }
        Ok(SentRequest {
            username: order.name.as_deref().map(text),
            to: order.authority.to_string(),
            address,
            from,
            way: order.way.map(|way| way.label().to_owned()),
            timestamp,
            id,
            copies,
            request: text(&datagram),
        })
    }

    /// Sends a datagram from the STUN server's own socket (UCR-20): the one at the address `server`, which the CPE
    /// knows, else the first. Returns the source address; 0.0.0.0 if the route chooses it.
    fn send_from(&self, server: Option<SocketAddrV4>, mut datagram: Outgoing) -> Result<SocketAddrV4, Error> {
        let (index, from) = self.socket_for(server);
        let socket =
            self.0.sockets.get(index).ok_or_else(|| Error::NotSent("the ACS has no STUN socket".to_owned()))?;
        datagram.from = from;
        socket.send_one(&datagram).map_err(|error| Error::NotSent(error.to_string()))?;
        Ok(SocketAddrV4::new(from, socket.address().port()))
    }

    /// The index of the socket to send from, and the source address.
    pub(super) fn socket_for(&self, server: Option<SocketAddrV4>) -> (usize, Ipv4Addr) {
        let is_at = |socket: SocketAddrV4, server: SocketAddrV4| {
            socket.port() == server.port() && (socket.ip() == server.ip() || socket.ip().is_unspecified())
        };
        let known = server.and_then(|server| {
            let index = self.0.sockets.iter().position(|socket| is_at(socket.address(), server))?;
            Some((index, *server.ip()))
        });
        // Another server of the same registry was asked, or the server is not known.
        let first = || (0, self.0.sockets.first().map_or(Ipv4Addr::UNSPECIFIED, |socket| *socket.address().ip()));
        known.unwrap_or_else(first)
    }

    /// The next message id. No id is repeated within 2^32 requests (UCR-38).
    pub(super) fn next_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed).into()
    }
}

/// Resolves a host to its first IPv4 address: TR-111 Part 2 is IPv4 only (T-64). Names are looked up each time
/// (STUN-42).
pub(super) async fn resolve(Authority { host, port }: &Authority) -> Result<SocketAddrV4, Error> {
    if let Ok(address) = host.parse() {
        return Ok(SocketAddrV4::new(address, *port));
    }
    let unresolved = || Error::Unresolved { host: host.clone() };
    let mut found = lookup_host((host.as_str(), *port)).await.map_err(|_| unresolved())?;
    let first = found.find_map(|address| match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    });
    first.ok_or_else(unresolved)
}
