//! How many ignored requests watchers are told of: anybody can send them, as fast as the network carries.

use std::time::Duration;

use tr111_core::time::BootTime;

/// Those that are told in a [`WINDOW`].
const SHOWN: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Counts what is told and what is not.
#[derive(Debug, Default)]
pub(super) struct Refused {
    since: BootTime,
    shown: u32,
    omitted: u64,
}

impl Refused {
    /// Whether the next one is told, and if so, how many before it were not.
    pub(super) fn next(&mut self, now: BootTime) -> Option<u64> {
        if now >= self.since + WINDOW {
            (self.since, self.shown) = (now, 0);
        }
        if self.shown == SHOWN {
            self.omitted += 1;
            return None;
        }
        self.shown += 1;
        Some(self.take())
    }

    /// How many were not told since this was asked last.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.omitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_twenty_events_a_second_and_a_number() {
        let mut refused = Refused::default();
        let at = |seconds| BootTime::default() + Duration::from_secs(seconds);
        let told = (0..1_000).filter(|_| refused.next(at(5)).is_some()).count();
        assert_eq!(told, 20);
        assert_eq!(refused.next(at(6)), Some(980));
        assert_eq!(refused.next(at(6)), Some(0));
    }
}
