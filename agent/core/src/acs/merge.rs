//! One CPE, learned of by several servers that share a store.
//!
//! The store numbers the changes of bindings, and each server knows with which number it has the binding of a CPE: its
//! [`State::revision`]. What a server learns is based on that number. If the store has a later one by another server, the
//! server was cut off or the two learned at the same moment: nobody knows what is newer, so the store's counts, and the CPE
//! has to sign again. Times say nothing about the order: a clock that was wrong for a moment would decide for years.

use std::net::SocketAddrV4;

use super::{Cpe, Reported, Seen, State};

/// What a store has of a CPE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The CPE.
    pub cpe: Cpe,
    /// Who changed its binding last.
    pub author: Author,
}

/// Who changed the binding of a record last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The server; 0: none in particular.
    pub server: u32,
    /// The number on which the last of its changes in a row was based, before the store numbered it.
    pub base: u64,
}

/// Who makes a change, and its number. Both are 0 where no other server writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The server; not 0 where there are several.
    pub server: u32,
    /// Greater than every number before.
    pub revision: u64,
}

impl Record {
    /// A CPE that was not there.
    pub fn new(stamp: Stamp, mut cpe: Cpe) -> Self {
        let base = cpe.state.revision;
        cpe.state.revision = stamp.revision;
        Self { cpe, author: Author { server: stamp.server, base } }
    }

    /// Takes the binding that a server learned (STUN-26, STUN-31, T-65).
    pub fn learn(&mut self, stamp: Stamp, learned: &State) {
        let state = &mut self.cpe.state;
        let is_elsewhere = address(learned.authenticated) != address(state.authenticated);
        let base = learned.revision;
        let is_own = self.author.server == stamp.server && self.author.base <= base;
        if state.revision > base && !is_own {
            let is_contradicted = learned.authenticated.is_some() && is_elsewhere;
            if (is_contradicted || learned.must_verify) && !state.must_verify {
                state.must_verify = true;
                state.revision = stamp.revision;
                // Nobody's, so that all servers take it.
                self.author = Author { server: 0, base: stamp.revision };
            }
            return;
        }
        if state.has_binding_of(learned) {
            return;
        }
        state.take_binding(learned);
        state.is_reported_last &= !is_elsewhere;
        state.revision = stamp.revision;
        self.author = Author { server: stamp.server, base };
    }

    /// Takes what a CPE told its ACS (STUN-41). One that has a number already was lost and is told again.
    pub fn report(&mut self, stamp: Stamp, told: &Reported) {
        let state = &mut self.cpe.state;
        if told.revision == 0 {
            state.report(Reported { revision: stamp.revision, ..told.clone() });
        } else if told.revision > report_number(state) {
            state.report(told.clone());
        }
    }
}

impl State {
    /// Takes what the CPE told its ACS now (STUN-41).
    pub fn report(&mut self, told: Reported) {
        self.reported = Some(Box::new(told));
        self.is_reported_last = true;
    }

    /// Takes what a store has of the CPE, as another server wrote it.
    pub fn follow(&mut self, stored: &Self) {
        let is_newer = stored.revision > self.revision;
        if is_newer {
            self.take_binding(stored);
            self.revision = stored.revision;
        }
        if self.follow_report(stored) || is_newer {
            self.is_reported_last = stored.is_reported_last;
        }
    }

    /// The same where this server changed the binding last: what it learned since counts.
    pub fn confirm(&mut self, stored: &Self) {
        self.revision = self.revision.max(stored.revision);
        self.follow_report(stored);
        if address(self.authenticated) == address(stored.authenticated) {
            self.is_reported_last = stored.is_reported_last;
        }
    }

    /// Whether the binding is that of `other`, whatever the times.
    pub fn has_binding_of(&self, other: &Self) -> bool {
        let ends = |state: &Self| {
            [state.authenticated, state.tentative].map(|seen| seen.map(|seen| (seen.address, seen.server)))
        };
        (ends(self), self.must_verify) == (ends(other), other.must_verify)
    }

    /// What the CPE told its ACS, where `other` knows less of that.
    pub fn report_missing_in(&self, other: &Self) -> Option<&Reported> {
        self.reported.as_deref().filter(|told| other.reported.is_none() || told.revision > report_number(other))
    }

    fn follow_report(&mut self, stored: &Self) -> bool {
        let is_newer = report_number(stored) > report_number(self);
        if is_newer {
            self.reported.clone_from(&stored.reported);
        }
        is_newer
    }

    /// Takes the binding of `other`. That one may have heard of it earlier.
    fn take_binding(&mut self, other: &Self) {
        let known = [self.authenticated, self.tentative];
        self.authenticated = other.authenticated;
        self.tentative = other.tentative;
        self.must_verify = other.must_verify;
        for seen in [&mut self.authenticated, &mut self.tentative].into_iter().flatten() {
            for known in known.into_iter().flatten().filter(|known| known.address == seen.address) {
                seen.last_seen = seen.last_seen.max(known.last_seen);
            }
        }
    }
}

fn address(seen: Option<Seen>) -> Option<SocketAddrV4> {
    seen.map(|seen| seen.address)
}

fn report_number(state: &State) -> u64 {
    state.reported.as_ref().map_or(0, |told| told.revision)
}
