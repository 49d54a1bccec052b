//! Keeps the TC programs of this agent before foreign programs.
//!
//! A foreign program that runs before an agent's program and returns `TC_ACT_OK`, as most do, ends the chain. The
//! agent's program would not see the frame. So the chains are checked every [`INTERVAL`], and a program that is no
//! longer the first of its chain is attached again in front. A foreign agent may do the same, so a program is moved at
//! most [`MOVES`] times an hour.

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

/// Interval between checks of the chains.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Maximum moves of a program within [`PERIOD`].
const MOVES: usize = 3;
const PERIOD: Duration = Duration::from_hours(1);

/// The filters of the qdisc `clsact`, by kernel index of the interface and direction.
pub type Filters = HashMap<(u32, Direction), Vec<Filter>>;

/// Position of the programs at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Name of the interface.
    pub interface: String,
    /// TC hooks, and the foreign programs around each.
    pub hooks: Vec<(&'static str, Neighbours)>,
    /// Why a program may not see all frames, as text for the user. `None` if it does.
    pub displaced: Option<String>,
}

/// A TC program and the result of its last check.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) seat: Seat,
    /// Result of the last check. `None` before the first one.
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

/// Times at which a program was moved.
#[derive(Debug, Default)]
struct Moves {
    /// Times in ascending order.
    times: Vec<BootTime>,
}

impl Moves {
    /// Whether another move is allowed. If so, records it.
    fn take(&mut self, now: BootTime) -> bool {
        self.times.retain(|time| *time + PERIOD > now);
        let is_allowed = self.times.len() < MOVES;
        if is_allowed {
            self.times.push(now);
        }
        is_allowed
    }
}

/// Position of a program in its chain.
struct Place {
    /// Whether the program is in the chain.
    is_there: bool,
    neighbours: Neighbours,
}

impl Dataplane {
    /// The chains of the agent's programs, for which [`Dataplane::keep_order`] needs the filters.
    pub fn chains(&self) -> Vec<(u32, Direction)> {
        let mut chains: Vec<_> =
            self.watched.iter().map(|watched| (watched.seat.ifindex, watched.seat.direction)).collect();
        chains.sort_unstable();
        chains.dedup();
        chains
    }

    /// Checks all chains and attaches displaced programs again. Returns the interfaces where something changed.
    pub fn keep_order(&mut self, now: BootTime, filters: &Filters) -> Vec<Standing> {
        let none = Vec::new();
        let mut changed = Vec::new();
        for at in 0..self.watched.len() {
            let seat = &self.watched[at].seat;
            let filters = match filters.get(&(seat.ifindex, seat.direction)) {
                Some(filters) => filters,
                None if kernel::has_tcx() => &none,
                // The filters could not be read.
                None => continue,
            };
            if self.look(at, now, filters) {
                changed.push(self.watched[at].seat.interface.clone());
            }
        }
        changed.dedup();
        changed.into_iter().map(|interface| self.standing(interface)).collect()
    }

    /// Position of the programs at an interface, by the last check.
    fn standing(&self, interface: String) -> Standing {
        let seen = |watched: &Watched| Some((watched.seat.program, watched.seen.clone()?));
        let here = self.watched.iter().filter(|watched| watched.seat.interface == interface);
        let (hooks, displaced): (Vec<_>, Vec<_>) = here
            .filter_map(seen)
            .map(|(program, seen)| ((clsact::hook(program), seen.neighbours), seen.displaced))
            .unzip();
        Standing { interface, hooks, displaced: displaced.into_iter().flatten().next() }
    }

    /// Checks one program. Returns whether something changed.
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
            // Filters are not moved: a filter that is created later with the same priority runs first.
            if (kernel::has_tcx() || !place.is_there) && self.watched[at].moves.take(now) {
                match self.attach_again(at) {
                    Ok(()) => info!(interface = self.watched[at].seat.interface, "{complaint}; attached it again"),
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

    /// Revision of a program's chain. `None` if the chain no longer exists. Always 0 for filters, which have no
    /// revision.
    fn revision(&self, at: usize) -> Option<u64> {
        if !kernel::has_tcx() {
            return Some(0);
        }
        let seat = &self.watched[at].seat;
        Chain::read(seat.ifindex, seat.direction).ok().map(|chain| chain.revision)
    }

    /// Current position of a program. `None` if the chain no longer exists.
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
        // Filters run after all programs of the chain.
        neighbours.behind.extend(filters.iter().map(name));
        Some(Place { is_there: position.is_some(), neighbours })
    }

    /// Whether a program belongs to this agent.
    fn is_own(&self, id: u32) -> bool {
        self.watched.iter().any(|watched| watched.seat.id == id || watched.seat.previous == Some(id))
    }

    /// Whether a program is not in its chain, or not at its position.
    fn is_displaced(&self, place: &Place) -> bool {
        !place.is_there || (self.tc_order == TcOrder::First && !place.neighbours.in_front.is_empty())
    }

    /// What is wrong with the position of a program, as text for the user.
    fn complain(&self, at: usize, place: &Place) -> String {
        let Seat { program, direction, .. } = self.watched[at].seat;
        let (program, direction) = (clsact::hook(program), direction.label());
        if !place.is_there {
            return format!("{program} was detached from TC {direction} by another process");
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
