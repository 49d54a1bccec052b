//! Keeps the TC programs of this agent in front of those of others.
//!
//! A program that runs before ours and returns `TC_ACT_OK`, as most do, ends the chain: the agent would be blind, and
//! nobody would be told. So chains are looked at every [`INTERVAL`], and a program that is not the first of its chain any
//! more is attached again in front. Where somebody else does the same, that would go on for ever, so a program is moved
//! [`MOVES`] times an hour at most.

use std::{collections::HashMap, time::Duration};

use tr111_core::time::BootTime;
use tracing::{info, warn};

use super::{
    Dataplane, Direction, Neighbours,
    attach::{Attacher, Seat, TcOrder},
    chain::Chain,
    clsact, kernel, memory,
};
use crate::os::netlink::Filter;

/// How often chains are looked at.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// How often a program is attached again within [`PERIOD`].
const MOVES: usize = 3;
const PERIOD: Duration = Duration::from_hours(1);

/// The filters of the qdisc `clsact`, by the kernel index of the interface and the side.
pub type Filters = HashMap<(u32, Direction), Vec<Filter>>;

/// Where the programs at an interface stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Name of the interface.
    pub interface: String,
    /// Hooks at TC, and the programs of others around them.
    pub hooks: Vec<(&'static str, Neighbours)>,
    /// Why a program does not see what it should, in words.
    pub displaced: Option<String>,
}

/// A TC program with what was last seen around it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) seat: Seat,
    /// What was around it; nothing before the first look.
    seen: Option<Seen>,
    moves: Moves,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    revision: u64,
    filters: Vec<Filter>,
    neighbours: Neighbours,
    displaced: Option<String>,
}

impl From<Seat> for Watched {
    fn from(seat: Seat) -> Self {
        Self { seat, seen: None, moves: Moves::default() }
    }
}

/// When a program was moved.
#[derive(Debug, Default)]
struct Moves {
    /// The oldest is first.
    times: Vec<BootTime>,
}

impl Moves {
    /// Whether one more is allowed; if so, it counts.
    fn take(&mut self, now: BootTime) -> bool {
        self.times.retain(|time| *time + PERIOD > now);
        let is_allowed = self.times.len() < MOVES;
        if is_allowed {
            self.times.push(now);
        }
        is_allowed
    }
}

/// How a program stands in its chain.
struct Place {
    /// It is in the chain.
    is_there: bool,
    neighbours: Neighbours,
}

impl Dataplane {
    /// The chains that programs are in, for those that ask for filters.
    pub fn chains(&self) -> Vec<(u32, Direction)> {
        let mut chains: Vec<_> =
            self.watched.iter().map(|watched| (watched.seat.ifindex, watched.seat.direction)).collect();
        chains.sort_unstable();
        chains.dedup();
        chains
    }

    /// Looks at every chain, attaches programs again that are not where they should be, and gives the interfaces where
    /// something has changed.
    pub fn keep_order(&mut self, now: BootTime, filters: &Filters) -> Vec<Standing> {
        let none = Vec::new();
        let mut changed = Vec::new();
        for at in 0..self.watched.len() {
            let seat = &self.watched[at].seat;
            let filters = match filters.get(&(seat.ifindex, seat.direction)) {
                Some(filters) => filters,
                None if kernel::has_tcx() => &none,
                // The kernel did not tell.
                None => continue,
            };
            if self.look(at, now, filters) {
                changed.push(self.watched[at].seat.interface.clone());
            }
        }
        changed.dedup();
        changed.into_iter().map(|interface| self.standing(interface)).collect()
    }

    /// How the programs at an interface stand, by the last look.
    fn standing(&self, interface: String) -> Standing {
        let seen = |watched: &Watched| Some((watched.seat.program, watched.seen.clone()?));
        let here = self.watched.iter().filter(|watched| watched.seat.interface == interface);
        let (hooks, displaced): (Vec<_>, Vec<_>) = here
            .filter_map(seen)
            .map(|(program, seen)| ((clsact::hook(program), seen.neighbours), seen.displaced))
            .unzip();
        Standing { interface, hooks, displaced: displaced.into_iter().flatten().next() }
    }

    /// Looks at one program; whether something has changed around it.
    fn look(&mut self, at: usize, now: BootTime, filters: &[Filter]) -> bool {
        let Some(revision) = self.revision(at) else { return false };
        let watched = &self.watched[at];
        let is_old = watched
            .seen
            .as_ref()
            .is_some_and(|seen| seen.revision == revision && seen.filters == filters && seen.displaced.is_none());
        if is_old {
            return false;
        }
        let Some(mut place) = self.place(at, filters) else { return false };
        let mut displaced = None;
        if self.is_displaced(&place) {
            let complaint = self.complain(at, &place);
            // Another filter of the same priority that is made later runs first, so filters are not moved.
            if (kernel::has_tcx() || !place.is_there) && self.watched[at].moves.take(now) {
                match self.attach_again(at) {
                    Ok(()) => info!(interface = self.watched[at].seat.interface, "{complaint}; it was attached again"),
                    Err(error) => warn!(interface = self.watched[at].seat.interface, %error, "{complaint}"),
                }
                let Some(now) = self.place(at, filters) else { return false };
                place = now;
            }
            displaced = self.is_displaced(&place).then_some(complaint);
        }
        let revision = self.revision(at).unwrap_or(revision);
        let seen = Seen { revision, filters: filters.to_vec(), neighbours: place.neighbours, displaced };
        let watched = &mut self.watched[at];
        let is_new = watched
            .seen
            .as_ref()
            .is_none_or(|before| (&before.neighbours, &before.displaced) != (&seen.neighbours, &seen.displaced));
        watched.seen = Some(seen);
        is_new
    }

    /// Counts the changes of a program's chain; `None` where there is no chain any more. Filters have no count.
    fn revision(&self, at: usize) -> Option<u64> {
        if !kernel::has_tcx() {
            return Some(0);
        }
        let seat = &self.watched[at].seat;
        Chain::read(seat.ifindex, seat.direction).ok().map(|chain| chain.revision)
    }

    /// Where a program stands now.
    fn place(&self, at: usize, filters: &[Filter]) -> Option<Place> {
        let Watched { seat, .. } = &self.watched[at];
        let name = |filter: &Filter| filter.name.clone();
        if !kernel::has_tcx() {
            let position = filters.iter().position(|filter| clsact::is_of(filter.handle, seat.program));
            let around = |at| Neighbours::around(filters, at, |filter| clsact::is_own(filter.handle), name);
            return Some(Place { is_there: position.is_some(), neighbours: position.map(around).unwrap_or_default() });
        }
        let chain = Chain::read(seat.ifindex, seat.direction).ok()?.programs;
        let position = chain.iter().position(|id| *id == seat.id);
        let names = Chain::names(&seat.interface, seat.direction);
        let name_of = |id: &u32| names.get(id).cloned().unwrap_or_else(|| format!("program {id}"));
        let around = |at| Neighbours::around(&chain, at, |id| self.is_own(*id), name_of);
        let mut neighbours: Neighbours = position.map(around).unwrap_or_default();
        // Filters run behind all programs of the chain. A filter of ours is one that an older kernel's agent left.
        neighbours.behind.extend(filters.iter().map(name));
        Some(Place { is_there: position.is_some(), neighbours })
    }

    /// Whether a program is one of this agent's.
    fn is_own(&self, id: u32) -> bool {
        self.watched.iter().any(|watched| watched.seat.id == id || watched.seat.previous == Some(id))
    }

    /// Whether a program is not where it should be.
    fn is_displaced(&self, place: &Place) -> bool {
        !place.is_there || (self.tc_order == TcOrder::First && !place.neighbours.in_front.is_empty())
    }

    /// What is wrong with a program's place, in words.
    fn complain(&self, at: usize, place: &Place) -> String {
        let Seat { program, direction, .. } = self.watched[at].seat;
        let (program, direction) = (clsact::hook(program), direction.label());
        if !place.is_there {
            return format!("somebody took {program} off TC {direction}");
        }
        let in_front = place.neighbours.in_front.join(", ");
        format!("{in_front} runs before {program} at TC {direction} and may end the chain")
    }

    fn attach_again(&mut self, at: usize) -> Result<(), super::Error> {
        let seat = self.watched[at].seat.clone();
        let mut attacher = Attacher::new(&mut self.loaded, self.pins.as_ref(), &mut self.held, self.tc_order);
        attacher.again(seat.place(), seat.program, seat.id)?;
        if let Some(attached) = attacher.seats.pop() {
            self.watched[at].seat = attached;
        }
        memory::trim();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_moved_three_times_an_hour_and_again_when_the_first_is_an_hour_old() {
        let mut moves = Moves::default();
        let at = |seconds: u64| BootTime(seconds * 1_000_000_000);
        assert!([10, 20, 30].into_iter().all(|seconds| moves.take(at(seconds))));
        assert!(!moves.take(at(40)));
        assert!(!moves.take(at(3_609)));
        assert!(moves.take(at(3_610)));
        assert!(!moves.take(at(3_611)));
    }
}
