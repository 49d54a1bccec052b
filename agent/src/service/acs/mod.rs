//! The ACS: the STUN server, the registry of CPEs and the sender of Connection Requests. The control socket and the
//! HTTP interface both work through [`Acs`].

mod association;
mod bulk;
mod clock;
pub(crate) mod describe;
mod error;
mod import;
mod kept;
mod line_rate;
mod owner;
mod send;
mod socket;
mod stun;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use tokio::sync::{Semaphore, broadcast, watch};
use tr111_core::{
    acs::{Approach, Change, Cpe, Credentials, Ends, Learned, Now, Registry, Reported, Server, Settings},
    short::Short,
};

use self::send::Order;
pub use self::{
    bulk::{Bulk, Selection},
    error::Error,
    import::Import,
    kept::NotAdded,
    line_rate::Places,
    owner::{Owner, Parts},
    socket::{BindError, StunSocket},
};
use super::Clock;
use crate::{
    config::AcsKnobs,
    control::message::{Alarm, BindingChange, Event, Happening, NatBinding},
    dataplane::Bindings,
    registry::Health,
    telemetry::AcsMetrics,
};

/// Greatest length of a string of TR-111 Table 6, in bytes.
const TEXT: usize = 256;

/// Handle to the ACS. Clones share one state.
#[derive(Clone, Debug)]
pub struct Acs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A copy of the server's settings, for requests that do not need the registry.
    settings: RwLock<Settings>,
    source_pps: AtomicU32,
    max_cpes: AtomicU32,
    /// The turn of the one import that is under way.
    imports: Arc<Semaphore>,
    sockets: Vec<StunSocket>,
    next_id: AtomicU32,
    is_ending: AtomicBool,
    events: broadcast::Sender<Arc<Event>>,
    metrics: AcsMetrics,
    clock: clock::AcsClock,
    journal: kept::Keeper,
    /// Why the registry cannot be read. While this is set, no CPE is known.
    unreadable: OnceLock<String>,
    association: association::Shared,
    /// The bindings of the line-rate path. Not set without a line-rate path.
    line_rate: OnceLock<Bindings>,
    /// Whether the line-rate path may answer.
    is_line_rate_allowed: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    server: Server,
}

/// What the STUN server learned about a CPE. It is stored and announced after the registry's lock is released.
#[derive(Debug)]
struct Lesson {
    learned: Learned,
    cpe: Cpe,
    ends: Ends,
}

/// A page of a list that is too long for one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Number of the first CPE of the next page; `None` on the last page.
    pub next: Option<u32>,
}

/// Number of CPEs in the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// All CPEs.
    pub cpes: u64,
    /// CPEs with an authenticated binding.
    pub authenticated: u64,
    /// Records that cannot be decoded.
    pub unreadable: u64,
}

impl Acs {
    /// Creates an ACS without CPEs on these sockets. `seed` must be random: it keys the hashes over names and addresses
    /// that senders choose. Events are sent to `events`.
    pub fn new(
        seed: u64,
        knobs: &AcsKnobs,
        sockets: Vec<StunSocket>,
        events: broadcast::Sender<Arc<Event>>,
        metrics: AcsMetrics,
    ) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State { server: Server::new(seed, knobs.stun) }),
            settings: RwLock::new(knobs.stun),
            source_pps: AtomicU32::new(knobs.source_pps),
            max_cpes: AtomicU32::new(knobs.max_cpes),
            imports: Arc::new(Semaphore::new(1)),
            sockets,
            // Most likely another number than before the last restart.
            next_id: AtomicU32::new((seed >> 32) as u32 ^ seed as u32),
            is_ending: AtomicBool::new(false),
            events,
            metrics,
            clock: clock::AcsClock::default(),
            journal: kept::Keeper::new(),
            unreadable: OnceLock::new(),
            association: association::Shared::new(),
            line_rate: OnceLock::new(),
            is_line_rate_allowed: watch::Sender::new(line_rate::is_allowed(knobs.stun)),
        }))
    }

    /// Returns at most `limit` CPEs, from number `from` on.
    pub fn list(&self, from: u32, limit: usize) -> Page<Cpe> {
        self.page(from, limit, |cpe| [cpe.clone()])
    }

    /// Returns the bindings of at most `limit` CPEs, from number `from` on: every known address of each CPE,
    /// authenticated or not (T-65).
    pub fn bindings(&self, from: u32, limit: usize) -> Page<NatBinding> {
        self.page(from, limit, describe::bindings)
    }

    fn page<T, I: IntoIterator<Item = T>>(&self, from: u32, limit: usize, describe: impl Fn(&Cpe) -> I) -> Page<T> {
        let now = self.now();
        let mut state = self.lock();
        if let Some(bindings) = self.0.line_rate.get() {
            let numbers = state.server.registry().iter_from(from).take(limit).map(|(number, _)| number);
            for number in numbers.collect::<Vec<_>>() {
                state.hear(now, number, bindings);
            }
        }
        let mut cpes = state.server.registry().iter_from(from);
        let items = cpes.by_ref().take(limit).flat_map(|(_, cpe)| describe(cpe)).collect();
        let next = cpes.next().map(|(number, _)| number);
        Page { items, next }
    }

    /// Returns the CPE with this STUNUsername.
    pub fn get(&self, name: &str) -> Option<Cpe> {
        let now = self.now();
        let mut state = self.lock();
        let number = state.server.registry().number(name.as_bytes())?;
        if let Some(bindings) = self.0.line_rate.get() {
            state.hear(now, number, bindings);
        }
        state.server.registry().get(number).cloned()
    }

    /// Returns how many CPEs the registry has.
    pub fn size(&self) -> Size {
        let state = self.lock();
        let registry = state.server.registry();
        Size {
            cpes: registry.len().into(),
            authenticated: registry.authenticated().into(),
            unreadable: registry.unreadable() as u64,
        }
    }

    /// Adds a CPE that has credentials and no binding yet (STUN-20, STUN-21).
    pub async fn add(&self, name: &str, credentials: Credentials) -> Result<(), Error> {
        self.add_all(vec![(name.to_owned(), credentials)]).await.map_err(|not_added| not_added.error)
    }

    /// Replaces the credentials of a CPE and keeps its bindings. Credentials that have not changed are not written
    /// again.
    pub async fn set_credentials(&self, name: &str, credentials: Credentials) -> Result<(), Error> {
        judge_credentials(&credentials)?;
        if self.get(name).ok_or(Error::Unknown)?.credentials == credentials && self.health() == Health::Working {
            return Ok(());
        }
        let mut before = None;
        let changed = self.change(name, |registry, number| {
            before = registry.set_credentials(number, credentials);
        })?;
        let kept = self.keep(Change::Put(Box::new(changed))).await;
        if let (Err(_), Some(before)) = (&kept, before) {
            // The CPE may have been removed meanwhile.
            let _ = self.change(name, |registry, number| drop(registry.set_credentials(number, before)));
        }
        kept
    }

    /// Removes a CPE, or a record that cannot be decoded.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let removed = {
            let mut state = self.lock();
            let registry = state.server.registry_mut();
            let removed = registry.remove(name.as_bytes());
            if removed.is_none() && !registry.is_unreadable(name.as_bytes()) {
                return Err(Error::Unknown);
            }
            removed
        };
        let name = Short::from(name.as_bytes());
        let kept = self.keep(Change::Removed(name.clone())).await;
        let mut state = self.lock();
        let registry = state.server.registry_mut();
        match (&kept, removed) {
            (Ok(()), _) => registry.set_unreadable(&name, false),
            // Another CPE of this name may have been added meanwhile.
            (Err(_), Some(cpe)) => drop(registry.add(cpe)),
            (Err(_), None) => {}
        }
        kept
    }

    /// Stores what the CPE reported to its ACS in an Inform (STUN-41, STUN-44). A repeated report of an empty address
    /// is not written again.
    pub async fn report(&self, name: &str, reported: Reported) -> Result<(), Error> {
        let told = reported.clone();
        let change = BindingChange {
            address: reported.address.as_ref().map(ToString::to_string),
            nat_detected: reported.nat_detected,
            username: Some(name.to_owned()),
            authenticated: Some(false),
        };
        let (mut is_news, mut before) = (true, Default::default());
        let cpe = self.change(name, |registry, number| {
            registry.update(number, |state| {
                before = (state.reported.clone(), state.is_reported_last);
                let known = state.reported.as_deref();
                // The store assigns the revision; until then the old one stays, so that an older report cannot win.
                let revision = known.map_or(0, |before| before.revision);
                let known = known.map(|known| (known.address.is_some(), known.nat_detected)).unwrap_or_default();
                is_news = reported.address.is_some() || known != (false, reported.nat_detected);
                if is_news {
                    state.report(Reported { revision, ..reported });
                }
            });
        })?;
        if !is_news {
            return Ok(());
        }
        if let Err(error) = self.keep(Change::Reported(cpe.name, Box::new(told.clone()))).await {
            // If the CPE reports it again, it is news again.
            let is_latest = |now: &Reported| (now.at, &now.address) == (told.at, &told.address);
            self.change(name, |registry, number| {
                registry.update(number, |state| {
                    if state.reported.as_deref().is_some_and(is_latest) {
                        (state.reported, state.is_reported_last) = before;
                    }
                });
            })?;
            return Err(error);
        }
        self.tell(|| Happening::BindingChanged(change));
        Ok(())
    }

    /// Requires the CPE to sign its next Binding Request, whatever the challenge policy is (STUN-30).
    pub async fn verify(&self, name: &str) -> Result<(), Error> {
        let cpe = self.change(name, |registry, number| {
            registry.update(number, |state| state.must_verify = true);
        })?;
        self.keep(Change::State(cpe.name, Box::new(cpe.state))).await
    }

    /// Subscribes to the events from now on.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.events.subscribe()
    }

    /// Returns how bindings are learned (STUN-18).
    pub fn approach(&self) -> Approach {
        self.settings().approach
    }

    /// Lets the line-rate path answer keep-alives of settled bindings. The receiver says whether the path may answer.
    pub fn answer_at_line_rate(&self, bindings: Bindings) -> watch::Receiver<bool> {
        let settled = line_rate::Settled::new(bindings.clone(), self.0.clock.clone());
        self.lock().server.registry_mut().follow(Box::new(settled));
        // This is called at most once.
        let _ = self.0.line_rate.set(bindings);
        self.0.is_line_rate_allowed.subscribe()
    }

    /// Stops the threads of the STUN server.
    pub fn stop(&self) {
        self.0.is_ending.store(true, Ordering::Relaxed);
    }

    /// Applies the knobs.
    fn set_knobs(&self, knobs: &AcsKnobs) {
        let stun = Settings { is_registry_readable: self.readable().is_ok(), ..knobs.stun };
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = stun;
        self.lock().server.set_settings(stun);
        self.0.source_pps.store(knobs.source_pps, Ordering::Relaxed);
        self.0.max_cpes.store(knobs.max_cpes, Ordering::Relaxed);
        self.set_association(knobs.association);
        self.0.is_line_rate_allowed.send_replace(line_rate::is_allowed(knobs.stun));
    }

    fn settings(&self) -> Settings {
        *self.0.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn source_pps(&self) -> u32 {
        self.0.source_pps.load(Ordering::Relaxed)
    }

    fn max_cpes(&self) -> u32 {
        self.0.max_cpes.load(Ordering::Relaxed)
    }

    /// Changes the CPE of a name, and gives it as it is then.
    fn change(&self, name: &str, change: impl FnOnce(&mut Registry, u32)) -> Result<Cpe, Error> {
        let mut state = self.lock();
        let registry = state.server.registry_mut();
        let number = registry.number(name.as_bytes()).ok_or(Error::Unknown)?;
        change(registry, number);
        registry.get(number).cloned().ok_or(Error::Unknown)
    }

    fn note_size(&self) {
        let Size { cpes, authenticated, .. } = self.size();
        self.0.metrics.cpes.set(i64::try_from(cpes).unwrap_or(i64::MAX));
        self.0.metrics.bindings.set(i64::try_from(authenticated).unwrap_or(i64::MAX));
    }

    /// Stores and announces what the STUN server learned.
    fn learn(&self, lesson: Lesson) {
        let Lesson { learned, cpe, ends } = lesson;
        let username = describe::text(&cpe.name);
        // A tentative binding is not proven, so anybody can cause many of them. It is stored only where nothing better
        // can be known: for a CPE without a password.
        let is_kept = match learned {
            Learned::Authenticated { .. } => true,
            Learned::Tentative { .. } => cpe.credentials.stun_password.is_empty(),
            Learned::Replayed { .. } | Learned::NotKept { .. } => false,
        };
        if is_kept {
            self.keep_later(Change::State(cpe.name, Box::new(cpe.state)));
        }
        let authenticated = match learned {
            Learned::Authenticated { is_new: false, .. } => return,
            Learned::Authenticated { .. } => true,
            Learned::Tentative { .. } => false,
            Learned::Replayed { .. } => return self.alarm(AcsMetrics::REPLAYED, Some(username), Some(ends)),
            Learned::NotKept { .. } => return self.alarm(AcsMetrics::NOT_KEPT, Some(username), Some(ends)),
        };
        self.tell(|| {
            Happening::BindingChanged(BindingChange {
                address: Some(ends.source.to_string()),
                nat_detected: None,
                username: Some(username),
                authenticated: Some(authenticated),
            })
        });
    }

    /// Counts an alarm and announces it, with the CPE and the source of the request that caused it.
    fn alarm(&self, alarm: &str, username: Option<String>, ends: Option<Ends>) {
        self.0.metrics.alarms.with_label_values(&[alarm]).inc();
        let (alarm, from) = (alarm.to_owned(), ends.map(|ends| ends.source.to_string()));
        self.tell(|| Happening::Alarm(Alarm { alarm, username, from, ..Alarm::default() }));
    }

    /// Sends an event if there are receivers.
    fn tell(&self, what: impl FnOnce() -> Happening) {
        if self.0.events.receiver_count() > 0 {
            // The last receiver may have gone meanwhile.
            let _ = self.0.events.send(Arc::new(Event { time: Clock::rfc3339_now(), what: what() }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave a half-made change: each change of the registry is complete before the next one begins.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes over the time at which the line-rate path last received a keep-alive of this CPE.
    fn hear(&mut self, now: Now, number: u32, bindings: &Bindings) {
        let registry = self.server.registry_mut();
        let heard = registry
            .get(number)
            .and_then(|cpe| cpe.state.settled().and_then(|seen| line_rate::heard(now, bindings, &cpe.name, seen)));
        if let Some(heard) = heard {
            registry.update(number, |state| state.heard(heard));
        }
    }

    fn lesson(&self, learned: Learned, ends: Ends) -> Option<Lesson> {
        let (Learned::Authenticated { number, .. }
        | Learned::Tentative { number }
        | Learned::Replayed { number }
        | Learned::NotKept { number }) = learned;
        let cpe = self.server.registry().get(number)?.clone();
        Some(Lesson { learned, cpe, ends })
    }
}

/// Checks a string of TR-111 Table 6: UTF-8 without control characters, `least` to 256 bytes.
fn judge(what: &'static str, text: &[u8], least: usize) -> Result<(), Error> {
    let is_text = std::str::from_utf8(text).is_ok_and(|text| !text.chars().any(char::is_control));
    if is_text && (least..=TEXT).contains(&text.len()) { Ok(()) } else { Err(Error::Text { what, least }) }
}

fn judge_credentials(credentials: &Credentials) -> Result<(), Error> {
    judge("STUNPassword", &credentials.stun_password, 0)?;
    judge("ConnectionRequestUsername", &credentials.connection_request_username, 0)?;
    judge("ConnectionRequestPassword", &credentials.connection_request_password, 0)
}
