//! All CPEs of an ACS, in memory.

use std::{collections::BTreeSet, fmt, mem};

use hashbrown::{HashTable, hash_table};
use siphasher::sip::SipHasher13;
use thiserror::Error;

use super::{Cpe, Credentials, Seen, State};
use crate::{short::Short, slab::Slab, stun::Username};

/// Another CPE has this STUNUsername (STUN-21).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("another CPE has this STUNUsername")]
pub struct Taken;

/// Who is told of each settled binding ([`State::settled`]) that comes, moves or goes: that another one settles, or none,
/// ends the one before. Times do not count.
pub trait Follower: fmt::Debug + Send {
    /// The CPE of this name has another one, or none.
    fn settled(&mut self, name: &Short, before: Option<Seen>, after: Option<Seen>);
}

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
    /// Names under which a store holds something that cannot be read.
    unreadable: BTreeSet<Short>,
    follower: Option<Box<dyn Follower>>,
}

impl Registry {
    /// An empty registry that hashes under a random `seed`: everybody may ask for any name.
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

    /// Tells `follower` of the settled bindings, those that are there and each change.
    pub fn follow(&mut self, mut follower: Box<dyn Follower>) {
        for (_, cpe) in self.iter_from(0) {
            tell(&mut *follower, &cpe.name, None, cpe.state.settled());
        }
        self.follower = Some(follower);
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

    /// Takes a CPE out.
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

    /// The number of the CPE that a USERNAME names: by its very bytes, else without the padding (T-37): NULs, then also
    /// blanks.
    pub fn named(&self, username: Username<'_>) -> Option<u32> {
        [username.0, username.without_nuls(), username.trimmed()].into_iter().find_map(|name| self.number(name))
    }

    /// The CPE with a number.
    pub fn get(&self, number: u32) -> Option<&Cpe> {
        self.cpes.get(number)
    }

    /// Changes what was learned of the CPE with a number.
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

    /// Gives the CPE with a number other credentials. What was learned of it stays.
    pub fn set_credentials(&mut self, number: u32, credentials: Credentials) -> Option<Credentials> {
        self.cpes.get_mut(number).map(|cpe| mem::replace(&mut cpe.credentials, credentials))
    }

    /// A store holds something under `name` that cannot be read, or no more.
    pub fn set_unreadable(&mut self, name: &Short, is_unreadable: bool) {
        if is_unreadable {
            self.unreadable.insert(name.clone());
        } else {
            self.unreadable.remove(name);
        }
    }

    /// Forgets unreadable records whose name is not one that `is_there` knows.
    pub fn keep_unreadable(&mut self, is_there: impl FnMut(&Short) -> bool) {
        self.unreadable.retain(is_there);
    }

    /// How many records cannot be read.
    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Whether a record that cannot be read has this name.
    pub fn is_unreadable(&self, name: &[u8]) -> bool {
        !self.unreadable.is_empty() && self.unreadable.contains(&Short::from(name))
    }

    /// All CPEs from number `first` on, in the order of their numbers.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, &Cpe)> {
        self.cpes.iter_from(first)
    }
}

/// Tells of a change, if it is one.
fn tell(follower: &mut dyn Follower, name: &Short, before: Option<Seen>, after: Option<Seen>) {
    let ends = |seen: Option<Seen>| seen.map(|seen| (seen.address, seen.server));
    if ends(before) != ends(after) {
        follower.settled(name, before, after);
    }
}
