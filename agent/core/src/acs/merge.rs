//! One CPE, learned of by several servers.

use super::{Seen, State};

impl State {
    /// Takes in what another server, or a store that several share, knows of the same CPE: of each part the later one,
    /// whoever learned it (T-65). Where two are of the same second, `other` counts.
    pub fn merge(&mut self, other: &Self) {
        later(&mut self.authenticated, other.authenticated);
        later(&mut self.tentative, other.tentative);
        // A tentative binding is one that came after the signed one.
        if let (Some(signed), Some(unsigned)) = (self.authenticated, self.tentative)
            && (unsigned.since <= signed.since || unsigned.address == signed.address)
        {
            self.tentative = None;
        }
        if let Some(told) = &other.reported
            && self.reported.as_ref().is_none_or(|known| known.at <= told.at)
        {
            self.reported.clone_from(&other.reported);
        }
        self.must_verify = other.must_verify;
    }
}

fn later(known: &mut Option<Seen>, other: Option<Seen>) {
    let Some(other) = other else { return };
    match known {
        Some(seen) if (seen.address, seen.since) == (other.address, other.since) => {
            seen.last_seen = seen.last_seen.max(other.last_seen);
        }
        Some(seen) if seen.since > other.since => {}
        _ => *known = Some(other),
    }
}
