//! The line-rate path: which bindings it may answer for, and where it answers.

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

/// Has the program know what is settled in the registry.
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
        // The socket answers for those that the program does not know.
        match self.bindings.register(name, address, server, boot_of(self.clock.now(), last_seen)) {
            Ok(()) => self.is_full = false,
            Err(error) if !self.is_full => {
                tracing::warn!(%error, "keep-alives of some bindings are not answered at line rate");
                self.is_full = true;
            }
            Err(_) => {}
        }
    }
}

/// When a binding was last heard of, by the program.
pub(super) fn heard(now: Now, bindings: &Bindings, name: &Short, seen: Seen) -> Option<UnixTime> {
    let since = now.boot.since(bindings.last_seen(name, seen.address, seen.server)?)?;
    Some(UnixTime(now.unix.0.saturating_sub(since.as_secs())))
}

fn boot_of(now: Now, time: UnixTime) -> BootTime {
    let ago = now.unix.0.saturating_sub(time.0).saturating_mul(1_000_000_000);
    BootTime(now.boot.0.saturating_sub(ago))
}

/// Whether an operator's settings leave anything to answer without asking the registry: where keep-alives have to be
/// signed, the socket answers all of it.
pub(super) fn is_allowed(settings: Settings) -> bool {
    settings.challenge < Challenge::Binding
}

/// One of the interfaces with the line-rate path.
#[derive(Debug)]
struct Known {
    name: String,
    /// As it is now; `None` while it is gone.
    link: Option<Link>,
    attached: Option<Attachment>,
    /// Why it is not, as it was told.
    complaint: String,
}

/// Keeps the program on its interfaces, and tells it where the server listens. Dropping it takes the program off.
#[derive(Debug)]
pub struct Places {
    line_rate: LineRate,
    interfaces: Vec<Known>,
    listen: Vec<SocketAddrV4>,
    addresses: Vec<Address>,
    told: watch::Sender<Vec<Interface>>,
}

impl Places {
    /// Attaches to `interfaces`. The program answers nothing until [`Places::keep`].
    ///
    /// # Errors
    /// What is missing, in words for who runs the agent.
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

    /// The interfaces as they are now, for clients.
    pub fn interfaces(&self) -> watch::Receiver<Vec<Interface>> {
        self.told.subscribe()
    }

    /// The bindings that the program knows.
    pub fn bindings(&self) -> Bindings {
        self.line_rate.bindings()
    }

    /// A reader of the program's counters.
    pub fn counters(&self) -> Counters {
        self.line_rate.counters()
    }

    /// Follows `network`, and answers while `is_allowed`.
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
                tracing::warn!(%error, "the line-rate path does not know where the server listens");
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
            tracing::warn!(interface = known.name, "the interface is gone; the line-rate path is back when it is");
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
                    // Each message about the interface is another try.
                    if complaint != known.complaint {
                        tracing::warn!(interface = known.name, %error, "no line-rate path on the interface");
                        known.complaint = complaint;
                    }
                    None
                }
            };
        }
        known.link = Some(link.clone());
    }

    /// Each address of the server, on the interface with the program that has the address. What comes in for it elsewhere
    /// is the stack's business, which may route it or not.
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
                    // There is one address and one port, so CHANGED-ADDRESS is this one (STUN-14, STUN-15).
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
