//! The line-rate path: which bindings it may answer for, and on which interfaces and addresses it answers.

use std::net::SocketAddrV4;

use tokio::sync::{mpsc, watch};
use tr111_core::{
    acs::{Challenge, Follower, Now, Seen, Settings},
    short::Short,
    time::{BootTime, UnixTime},
};

use super::clock::AcsClock;
use crate::{
    control::message::Interface,
    dataplane::{self, Attachment, Bindings, Counters, LineRate, Listener},
    service::{
        InterfaceState, NetworkChange,
        network::{Address, Link},
    },
};

/// Copies the settled bindings of the registry into the kernel program's map.
#[derive(Debug)]
pub(super) struct Settled {
    bindings: Bindings,
    clock: AcsClock,
    is_full: bool,
}

impl Settled {
    pub(super) fn new(bindings: Bindings, clock: AcsClock) -> Self {
        Self { bindings, clock, is_full: false }
    }
}

impl Follower for Settled {
    fn settled(&mut self, name: &Short, before: Option<Seen>, after: Option<Seen>) {
        if let Some(Seen { address, server, .. }) = before {
            self.bindings.forget(name, address, server);
        }
        let Some(Seen { address, server, last_seen, .. }) = after else { return };
        // The socket answers for bindings that the program does not know.
        match self.bindings.register(name, address, server, boot_of(self.clock.now(), last_seen)) {
            Ok(()) => self.is_full = false,
            Err(error) if !self.is_full => {
                tracing::warn!(%error, "cannot add a binding to the line-rate path; the socket answers for it");
                self.is_full = true;
            }
            Err(_) => {}
        }
    }
}

/// Returns when the kernel program last received a keep-alive of this binding.
pub(super) fn heard(now: Now, bindings: &Bindings, name: &Short, seen: Seen) -> Option<UnixTime> {
    let since = now.boot.since(bindings.last_seen(name, seen.address, seen.server)?)?;
    Some(UnixTime(now.unix.0.saturating_sub(since.as_secs())))
}

fn boot_of(now: Now, time: UnixTime) -> BootTime {
    let ago = now.unix.0.saturating_sub(time.0).saturating_mul(1_000_000_000);
    BootTime(now.boot.0.saturating_sub(ago))
}

/// Whether the settings allow the line-rate path to answer. Where every Binding Request must be signed, only the socket
/// can answer.
pub(super) fn is_allowed(settings: Settings) -> bool {
    settings.challenge < Challenge::Binding
}

/// An interface that is configured for the line-rate path.
#[derive(Debug)]
struct Known {
    name: String,
    /// The link; `None` while the interface does not exist.
    link: Option<Link>,
    attached: Option<Attachment>,
    /// The last error of an attachment that was logged, so that it is logged once.
    complaint: String,
}

/// Keeps the program attached to its interfaces and gives it the server's addresses. Detaches the program when dropped.
#[derive(Debug)]
pub struct Places {
    line_rate: LineRate,
    interfaces: Vec<Known>,
    listen: Vec<SocketAddrV4>,
    addresses: Vec<Address>,
    told: watch::Sender<Vec<Interface>>,
}

impl Places {
    /// Attaches the program to `interfaces`. The program answers nothing until [`Places::keep`] runs.
    ///
    /// # Errors
    /// An interface does not exist, or the program cannot be attached to it.
    pub fn start(
        mut line_rate: LineRate,
        interfaces: &[String],
        listen: Vec<SocketAddrV4>,
    ) -> Result<Self, dataplane::Error> {
        let attach = |name: &String| {
            let attached = Some(line_rate.attach(name)?);
            Ok(Known { name: name.clone(), link: None, attached, complaint: String::new() })
        };
        let interfaces = interfaces.iter().map(attach).collect::<Result<_, dataplane::Error>>()?;
        let places = Self { line_rate, interfaces, listen, addresses: Vec::new(), told: watch::Sender::default() };
        places.tell();
        Ok(places)
    }

    /// Subscribes to the states of the interfaces, for clients.
    pub fn interfaces(&self) -> watch::Receiver<Vec<Interface>> {
        self.told.subscribe()
    }

    /// The bindings that the kernel program knows.
    pub fn bindings(&self) -> Bindings {
        self.line_rate.bindings()
    }

    /// A reader of the kernel program's counters.
    pub fn counters(&self) -> Counters {
        self.line_rate.counters()
    }

    /// Follows changes of links and addresses, and lets the program answer while `is_allowed` is true.
    pub async fn keep(mut self, mut network: mpsc::Receiver<NetworkChange>, mut is_allowed: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                change = network.recv() => match change {
                    Some(change) => self.follow(change),
                    None => return std::future::pending().await,
                },
                changed = is_allowed.changed() => if changed.is_err() { return },
            }
            let is_allowed = *is_allowed.borrow_and_update();
            let places: Vec<_> = if is_allowed { self.places().collect() } else { Vec::new() };
            let own = self.addresses.iter();
            let own = own.flat_map(|own| own.broadcasts().into_iter().flatten().chain([own.address])).collect();
            if let Err(error) = self.line_rate.listen(places, &own) {
                tracing::warn!(%error, "cannot give the server's addresses to the line-rate path");
            }
            self.tell();
        }
    }

    fn follow(&mut self, change: NetworkChange) {
        match change {
            NetworkChange::Addresses(addresses) => self.addresses = addresses,
            NetworkChange::LinkGone { ifindex } => self.gone(|link| link.ifindex == ifindex),
            NetworkChange::Link(link) => self.link(&link),
            NetworkChange::Links(links) => {
                self.gone(|link| links.iter().all(|other| other.ifindex != link.ifindex));
                for link in &links {
                    self.link(link);
                }
            }
        }
    }

    fn gone(&mut self, is_gone: impl Fn(&Link) -> bool) {
        for known in self.interfaces.iter_mut().filter(|known| known.link.as_ref().is_some_and(&is_gone)) {
            tracing::warn!(
                interface = known.name,
                "interface removed; the line-rate path is attached again when the interface returns"
            );
            self.line_rate.release(&known.name);
            (known.link, known.attached) = (None, None);
        }
    }

    fn link(&mut self, link: &Link) {
        self.gone(|known| known.ifindex == link.ifindex && known.name != link.name);
        let Some(known) = self.interfaces.iter_mut().find(|known| known.name == link.name) else { return };
        if known.attached.as_ref().is_none_or(|attached| attached.ifindex != link.ifindex) {
            self.line_rate.release(&known.name);
            known.attached = match self.line_rate.attach(&known.name) {
                Ok(attached) => Some(attached),
                Err(error) => {
                    let complaint = error.to_string();
                    // Every message about the link causes another attempt.
                    if complaint != known.complaint {
                        tracing::warn!(interface = known.name, %error, "cannot attach the line-rate path");
                        known.complaint = complaint;
                    }
                    None
                }
            };
        }
        known.link = Some(link.clone());
    }

    /// Pairs each address of the server with the interface that has the address and the program. Packets for the
    /// address that arrive on another interface are left to the network stack, which may route them or not.
    fn places(&self) -> impl Iterator<Item = Listener> {
        let links = self.interfaces.iter().filter(|known| known.has_program()).filter_map(|known| {
            let link = known.link.as_ref()?;
            Some((link.ifindex, link.mac?))
        });
        links.flat_map(move |(ifindex, mac)| {
            let own = self.addresses.iter().filter(move |own| own.ifindex == ifindex && !own.address.is_loopback());
            let is_there =
                |listen: &SocketAddrV4, own: &Address| listen.ip().is_unspecified() || *listen.ip() == own.address;
            own.flat_map(move |own| {
                let heard = self.listen.iter().filter(move |listen| is_there(listen, own));
                heard.map(move |listen| {
                    let address = SocketAddrV4::new(own.address, listen.port());
                    // The server has one address and one port, so CHANGED-ADDRESS is this address (STUN-14, STUN-15).
                    Listener { ifindex, mac, address, changed: address }
                })
            })
        })
    }

    fn tell(&self) {
        self.told.send_replace(self.interfaces.iter().map(Known::describe).collect());
    }
}

impl Known {
    fn has_program(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| !attached.programs.is_empty())
    }

    fn describe(&self) -> Interface {
        let state = match (&self.link, self.has_program()) {
            (None, false) => InterfaceState::Gone,
            (Some(_), false) => InterfaceState::Detached,
            (Some(link), true) if !link.is_up => InterfaceState::Down,
            _ => InterfaceState::Up,
        };
        let described = self.attached.clone().map(Interface::from);
        Interface {
            name: self.name.clone(),
            side: dataplane::Side::Cpes.label().to_owned(),
            state: state.label().to_owned(),
            hooks: described.map(|interface| interface.hooks).unwrap_or_default(),
        }
    }
}
