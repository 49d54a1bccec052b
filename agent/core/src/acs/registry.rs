//! All CPEs of an ACS, in memory.

use std::{collections::BTreeSet, fmt, mem};

use hashbrown::{HashTable, hash_table};
use siphasher::sip::SipHasher13;
use thiserror::Error;

use super::{Cpe, Credentials, Seen, State};
use crate::{short::Short, slab::Slab, stun::Username};

/// Error: another CPE has this STUNUsername (STUN-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("another CPE has this STUNUsername")]
pub struct Taken;

/// Receives each change of a settled binding ([`State::settled`]): that it appears, changes its address, or disappears.
/// Changes of times are not reported.
pub trait Follower: fmt::Debug + Send {
    /// The settled binding of the CPE of this name changed from `before` to `after`.
    fn settled(&mut self, name: &Short, before: Option<Seen>, after: Option<Seen>);
}

/// CPEs by STUNUsername.
///
/// Each CPE has a number until it is removed. Numbers serve for look-up and for paging through a list.
#[derive(Debug)]
pub struct Registry {
    hasher: SipHasher13,
    cpes: Slab<Cpe>,
    by_name: HashTable<u32>,
    /// Number of CPEs with an authenticated binding.
    authenticated: u32,
    /// Names whose record in the store cannot be read.
    unreadable: BTreeSet<Short>,
    follower: Option<Box<dyn Follower>>,
}

impl Registry {
    /// An empty registry. `seed` has to be random, because senders choose the names that are hashed.
    pub fn new(seed: u64) -> Self {
        let hasher = SipHasher13::new_with_keys(seed, seed.rotate_left(32));
        Self {
            hasher,
            cpes: Slab::with_capacity(0),
            by_name: HashTable::new(),
            authenticated: 0,
            unreadable: BTreeSet::new(),
            follower: None,
        }
    }

    /// Reports all settled bindings, and every later change, to `follower`.
    pub fn follow(&mut self, mut follower: Box<dyn Follower>) {
        for (_, cpe) in self.iter_from(0) {
            tell(&mut *follower, &cpe.name, None, cpe.state.settled());
        }
        self.follower = Some(follower);
    }

    /// Number of CPEs.
    pub fn len(&self) -> u32 {
        self.cpes.len()
    }

    /// Number of CPEs with an authenticated binding.
    pub fn authenticated(&self) -> u32 {
        self.authenticated
    }

    /// Whether there are no CPEs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a CPE and returns its number.
    pub fn add(&mut self, cpe: Cpe) -> Result<u32, Taken> {
        let Self { hasher, cpes, by_name, authenticated, follower, .. } = self;
        let is_authenticated = cpe.state.authenticated.is_some();
        let same = |&id: &u32| cpes[id].name == cpe.name;
        let hash_of = |&id: &u32| hasher.hash(&cpes[id].name);
        match by_name.entry(hasher.hash(&cpe.name), same, hash_of) {
            hash_table::Entry::Occupied(_) => Err(Taken),
            hash_table::Entry::Vacant(vacant) => {
                if let Some(follower) = follower {
                    tell(&mut **follower, &cpe.name, None, cpe.state.settled());
                }
                let id = cpes.insert(cpe);
                vacant.insert(id);
                *authenticated += u32::from(is_authenticated);
                Ok(id)
            }
        }
    }

    /// Removes the CPE of this name and returns it.
    pub fn remove(&mut self, name: &[u8]) -> Option<Cpe> {
        let Self { hasher, cpes, by_name, authenticated, follower, .. } = self;
        let found = by_name.find_entry(hasher.hash(name), |&id| *cpes[id].name == *name).ok()?;
        let (id, _) = found.remove();
        let cpe = cpes.remove(id)?;
        *authenticated -= u32::from(cpe.state.authenticated.is_some());
        if let Some(follower) = follower {
            tell(&mut **follower, &cpe.name, cpe.state.settled(), None);
        }
        Some(cpe)
    }

    /// The number of the CPE with exactly this name.
    pub fn number(&self, name: &[u8]) -> Option<u32> {
        self.by_name.find(self.hasher.hash(name), |&id| *self.cpes[id].name == *name).copied()
    }

    /// The number of the CPE that a USERNAME denotes: an exact match, else without trailing NULs, else also without
    /// trailing spaces (T-37).
    pub fn named(&self, username: Username<'_>) -> Option<u32> {
        [username.0, username.without_nuls(), username.trimmed()].into_iter().find_map(|name| self.number(name))
    }

    /// The CPE with this number.
    pub fn get(&self, number: u32) -> Option<&Cpe> {
        self.cpes.get(number)
    }

    /// Changes the learned state of the CPE with this number.
    pub fn update<T>(&mut self, number: u32, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let Cpe { name, state, .. } = self.cpes.get_mut(number)?;
        let (before, settled) = (state.authenticated.is_some(), state.settled());
        let result = change(state);
        self.authenticated = self.authenticated - u32::from(before) + u32::from(state.authenticated.is_some());
        if let Some(follower) = &mut self.follower {
            tell(&mut **follower, name, settled, state.settled());
        }
        Some(result)
    }

    /// Replaces the credentials of the CPE with this number, and returns the previous ones. Its learned state is kept.
    pub fn set_credentials(&mut self, number: u32, credentials: Credentials) -> Option<Credentials> {
        self.cpes.get_mut(number).map(|cpe| mem::replace(&mut cpe.credentials, credentials))
    }

    /// Records whether the store has an unreadable record under `name`.
    pub fn set_unreadable(&mut self, name: &Short, is_unreadable: bool) {
        if is_unreadable {
            self.unreadable.insert(name.clone());
        } else {
            self.unreadable.remove(name);
        }
    }

    /// Forgets the unreadable records whose name `is_there` does not accept.
    pub fn keep_unreadable(&mut self, is_there: impl FnMut(&Short) -> bool) {
        self.unreadable.retain(is_there);
    }

    /// Number of unreadable records.
    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Whether there is an unreadable record with this name.
    pub fn is_unreadable(&self, name: &[u8]) -> bool {
        !self.unreadable.is_empty() && self.unreadable.contains(&Short::from(name))
    }

    /// All CPEs from number `first` on, in the order of their numbers.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, &Cpe)> {
        self.cpes.iter_from(first)
    }
}

/// Calls `follower` if the binding changed.
fn tell(follower: &mut dyn Follower, name: &Short, before: Option<Seen>, after: Option<Seen>) {
    let ends = |seen: Option<Seen>| seen.map(|seen| (seen.address, seen.server));
    if ends(before) != ends(after) {
        follower.settled(name, before, after);
    }
}
