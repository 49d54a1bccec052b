//! All CPEs of an ACS, in memory.

use std::mem;

use hashbrown::{HashTable, hash_table};
use siphasher::sip::SipHasher13;
use thiserror::Error;

use super::{Cpe, Credentials, State};
use crate::{slab::Slab, stun::Username};

/// Another CPE has this STUNUsername (STUN-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("another CPE has this STUNUsername")]
pub struct Taken;

/// CPEs by STUNUsername.
///
/// Each has a number for as long as it stays, by which it is found again and pages of a list continue.
#[derive(Debug)]
pub struct Registry {
    hasher: SipHasher13,
    cpes: Slab<Cpe>,
    by_name: HashTable<u32>,
    /// CPEs whose binding is authenticated.
    authenticated: u32,
}

impl Registry {
    /// An empty registry that hashes under a random `seed`: everybody may ask for any name.
    pub fn new(seed: u64) -> Self {
        let hasher = SipHasher13::new_with_keys(seed, seed.rotate_left(32));
        Self { hasher, cpes: Slab::with_capacity(0), by_name: HashTable::new(), authenticated: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.cpes.len()
    }

    /// How many of them have an authenticated binding.
    pub fn authenticated(&self) -> u32 {
        self.authenticated
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a CPE and gives its number.
    pub fn add(&mut self, cpe: Cpe) -> Result<u32, Taken> {
        let Self { hasher, cpes, by_name, authenticated } = self;
        let is_authenticated = cpe.state.authenticated.is_some();
        let same = |&id: &u32| cpes[id].name == cpe.name;
        let hash_of = |&id: &u32| hasher.hash(&cpes[id].name);
        match by_name.entry(hasher.hash(&cpe.name), same, hash_of) {
            hash_table::Entry::Occupied(_) => Err(Taken),
            hash_table::Entry::Vacant(vacant) => {
                let id = cpes.insert(cpe);
                vacant.insert(id);
                *authenticated += u32::from(is_authenticated);
                Ok(id)
            }
        }
    }

    /// Takes a CPE out.
    pub fn remove(&mut self, name: &[u8]) -> Option<Cpe> {
        let Self { hasher, cpes, by_name, authenticated } = self;
        let found = by_name.find_entry(hasher.hash(name), |&id| *cpes[id].name == *name).ok()?;
        let (id, _) = found.remove();
        let cpe = cpes.remove(id)?;
        *authenticated -= u32::from(cpe.state.authenticated.is_some());
        Some(cpe)
    }

    /// The number of the CPE with exactly this name.
    pub fn number(&self, name: &[u8]) -> Option<u32> {
        self.by_name.find(self.hasher.hash(name), |&id| *self.cpes[id].name == *name).copied()
    }

    /// The number of the CPE that a USERNAME names: by its very bytes, else without the padding (T-37).
    pub fn named(&self, username: Username<'_>) -> Option<u32> {
        self.number(username.0).or_else(|| self.number(username.trimmed()))
    }

    /// The CPE with a number.
    pub fn get(&self, number: u32) -> Option<&Cpe> {
        self.cpes.get(number)
    }

    /// Changes what was learned of the CPE with a number.
    pub fn update<T>(&mut self, number: u32, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let state = &mut self.cpes.get_mut(number)?.state;
        let before = state.authenticated.is_some();
        let result = change(state);
        self.authenticated = self.authenticated - u32::from(before) + u32::from(state.authenticated.is_some());
        Some(result)
    }

    /// Gives the CPE with a number other credentials. What was learned of it stays.
    pub fn set_credentials(&mut self, number: u32, credentials: Credentials) -> Option<Credentials> {
        self.cpes.get_mut(number).map(|cpe| mem::replace(&mut cpe.credentials, credentials))
    }

    /// All CPEs from number `first` on, in the order of their numbers.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, &Cpe)> {
        self.cpes.iter_from(first)
    }
}
