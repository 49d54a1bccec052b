//! The ACS: its registry of CPEs and what may be asked of it. The control socket and the HTTP interface use the same
//! [`Acs`].

mod describe;
mod error;
mod owner;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use tr111_core::{
    acs::{Approach, Change, Cpe, Credentials, Registry, Reported},
    short::Short,
};

pub use self::{
    error::Error,
    owner::{Owner, Parts},
};
use super::Clock;
use crate::control::message::{BindingChange, Event, Happening, NatBinding};

/// Most bytes of a string of TR-111 Table 6.
const TEXT: usize = 256;

/// An ACS, as often as it is needed: all copies are the same one.
#[derive(Clone, Debug)]
pub struct Acs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct State {
    registry: Registry,
    approach: Approach,
}

/// Some of a list that is too long for one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Some of it.
    pub items: Vec<T>,
    /// Where the next page starts; `None` where this one is the last.
    pub next: Option<u32>,
}

/// How many CPEs there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// All.
    pub cpes: u64,
    /// Those whose binding was signed.
    pub authenticated: u64,
}

impl Acs {
    /// An ACS without CPEs. Names are hashed under a random `seed`; what happens is told to `events`.
    pub fn new(seed: u64, approach: Approach, events: broadcast::Sender<Arc<Event>>) -> Self {
        let state = Mutex::new(State { registry: Registry::new(seed), approach });
        Self(Arc::new(Shared { state, events }))
    }

    /// At most `limit` CPEs, from number `from` on.
    pub fn list(&self, from: u32, limit: usize) -> Page<Cpe> {
        self.page(from, limit, |_, cpe| [cpe.clone()])
    }

    /// Bindings of at most `limit` CPEs, from number `from` on: of each CPE all that is known of where it is, signed
    /// or not (T-65).
    pub fn bindings(&self, from: u32, limit: usize) -> Page<NatBinding> {
        self.page(from, limit, |_, cpe| describe::bindings(cpe))
    }

    fn page<T, I: IntoIterator<Item = T>>(
        &self,
        from: u32,
        limit: usize,
        describe: impl Fn(&State, &Cpe) -> I,
    ) -> Page<T> {
        let state = self.lock();
        let mut cpes = state.registry.iter_from(from);
        let items = cpes.by_ref().take(limit).flat_map(|(_, cpe)| describe(&state, cpe)).collect();
        let next = cpes.next().map(|(number, _)| number);
        Page { items, next }
    }

    /// The CPE with this STUNUsername.
    pub fn get(&self, name: &str) -> Option<Cpe> {
        let state = self.lock();
        state.registry.number(name.as_bytes()).and_then(|number| state.registry.get(number)).cloned()
    }

    /// How many there are.
    pub fn size(&self) -> Size {
        let state = self.lock();
        let cpes = u64::from(state.registry.len());
        Size { cpes, authenticated: state.registry.authenticated().into() }
    }

    /// Adds a CPE of which nothing is known yet (STUN-20, STUN-21).
    pub async fn add(&self, name: &str, credentials: Credentials) -> Result<(), Error> {
        judge("STUNUsername", name.as_bytes(), 1)?;
        judge_credentials(&credentials)?;
        let cpe = Cpe { name: Short::from(name.as_bytes()), credentials, state: tr111_core::acs::State::default() };
        self.lock().registry.add(cpe.clone()).map_err(|_| Error::Taken)?;
        self.keep(Change::Put(Box::new(cpe))).await
    }

    /// Gives a CPE other credentials. What was learned of it stays.
    pub async fn set_credentials(&self, name: &str, credentials: Credentials) -> Result<(), Error> {
        judge_credentials(&credentials)?;
        let changed = self.change(name, |registry, number| {
            registry.set_credentials(number, credentials);
        })?;
        self.keep(Change::Put(Box::new(changed))).await
    }

    /// Forgets a CPE.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let cpe = self.lock().registry.remove(name.as_bytes()).ok_or(Error::Unknown)?;
        self.keep(Change::Removed(cpe.name)).await
    }

    /// Takes what the CPE told its ACS in an Inform (STUN-41, STUN-44).
    pub async fn report(&self, name: &str, reported: Reported) -> Result<(), Error> {
        let change = BindingChange {
            username: Some(name.to_owned()),
            address: Some(reported.address.to_string()),
            authenticated: Some(false),
            nat_detected: reported.nat_detected,
        };
        let cpe = self.change(name, |registry, number| {
            registry.update(number, |state| state.reported = Some(Box::new(reported)));
        })?;
        self.keep(Change::State(cpe.name, Box::new(cpe.state))).await?;
        self.tell(|| Happening::BindingChanged(change));
        Ok(())
    }

    /// Has the next Binding Request of a CPE signed, whatever it says (STUN-30).
    pub async fn verify(&self, name: &str) -> Result<(), Error> {
        let cpe = self.change(name, |registry, number| {
            registry.update(number, |state| state.must_verify = true);
        })?;
        self.keep(Change::State(cpe.name, Box::new(cpe.state))).await
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.events.subscribe()
    }

    /// How bindings are learned (STUN-18).
    pub fn approach(&self) -> Approach {
        self.lock().approach
    }

    /// Changes how bindings are learned.
    fn set_approach(&self, approach: Approach) {
        self.lock().approach = approach;
    }

    /// Changes the CPE of a name, and gives it as it is then.
    fn change(&self, name: &str, change: impl FnOnce(&mut Registry, u32)) -> Result<Cpe, Error> {
        let mut state = self.lock();
        let number = state.registry.number(name.as_bytes()).ok_or(Error::Unknown)?;
        change(&mut state.registry, number);
        state.registry.get(number).cloned().ok_or(Error::Unknown)
    }

    /// Comes back when a change is kept. Without a store, memory is all there is.
    #[expect(clippy::unused_async, reason = "whoever asks waits for the store")]
    async fn keep(&self, change: Change) -> Result<(), Error> {
        tracing::debug!(cpe = %change.name().escape_ascii(), "changed");
        Ok(())
    }

    /// Tells watchers, if there are any.
    fn tell(&self, what: impl FnOnce() -> Happening) {
        if self.0.events.receiver_count() > 0 {
            // Whoever listened may have gone meanwhile.
            let _ = self.0.events.send(Arc::new(Event { time: Clock::rfc3339_now(), what: what() }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the registry is whole before the next begins.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges a string of TR-111 Table 6.
fn judge(what: &'static str, text: &[u8], least: usize) -> Result<(), Error> {
    let is_text = std::str::from_utf8(text).is_ok_and(|text| !text.chars().any(char::is_control));
    if is_text && (least..=TEXT).contains(&text.len()) { Ok(()) } else { Err(Error::Text { what, least }) }
}

fn judge_credentials(credentials: &Credentials) -> Result<(), Error> {
    judge("STUNPassword", &credentials.stun_password, 0)?;
    judge("ConnectionRequestUsername", &credentials.connection_request_username, 0)?;
    judge("ConnectionRequestPassword", &credentials.connection_request_password, 0)
}
