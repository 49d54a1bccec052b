//! Merges what several servers that share a store learn about one CPE.
//!
//! The store gives each change of a binding a revision, and each server knows the revision of its copy
//! ([`State::revision`]). A change that a server learns is based on that revision. If the store has a later one by
//! another server, the server was disconnected or both learned a change at the same time. Which one is newer is
//! unknown, so the binding in the store is kept and the CPE has to sign again. Times do not decide, because a clock
//! that is wrong for a moment would then decide for years.

use std::net::SocketAddrV4;

use super::{Cpe, Reported, Seen, State};

/// The record of a CPE in a shared store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The CPE.
    pub cpe: Cpe,
    /// The server that changed the binding last.
    pub author: Author,
}

/// The last author of a binding in a shared store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// Number of the server; 0 if there is none.
    pub server: u32,
    /// Revision on which the first of the server's consecutive changes is based.
    pub base: u64,
}

/// The author and the revision of a change. Both are 0 if the store is not shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the server; greater than 0 in a shared store.
    pub server: u32,
    /// Revision of the change; greater than all previous ones.
    pub revision: u64,
}

impl Record {
    /// The record of a new CPE.
    pub fn new(stamp: Stamp, mut cpe: Cpe) -> Self {
        let base = cpe.state.revision;
        cpe.state.revision = stamp.revision;
        Self { cpe, author: Author { server: stamp.server, base } }
    }

    /// Merges a binding that a server learned (STUN-26, STUN-31, T-65).
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
                // No server is the author, so all servers take over the record.
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

    /// Merges a report of the CPE to its ACS (STUN-41). A report with a revision was lost by the store and is written
    /// again.
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
    /// Sets the latest report of the CPE to its ACS (STUN-41).
    pub fn report(&mut self, told: Reported) {
        self.reported = Some(Box::new(told));
        self.is_reported_last = true;
    }

    /// Takes over the stored state of the CPE that another server wrote.
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

    /// Takes over the stored state of the CPE that this server wrote; a binding that it learned since then is kept.
    pub fn confirm(&mut self, stored: &Self) {
        self.revision = self.revision.max(stored.revision);
        self.follow_report(stored);
        if address(self.authenticated) == address(stored.authenticated) {
            self.is_reported_last = stored.is_reported_last;
        }
    }

    /// Whether both states have the same bindings, ignoring times.
    pub fn has_binding_of(&self, other: &Self) -> bool {
        let ends = |state: &Self| {
            [state.authenticated, state.tentative].map(|seen| seen.map(|seen| (seen.address, seen.server)))
        };
        (ends(self), self.must_verify) == (ends(other), other.must_verify)
    }

    /// The CPE's report, if `other` has none or an older one.
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

    /// Takes over the bindings of `other`, and keeps the later times of equal addresses.
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
