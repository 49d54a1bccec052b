//! The LAN ring, as the task that owns it reads it.

use std::{os::fd::AsRawFd, time::Duration};

use aya::maps::{Map, MapData, RingBuf};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};
use tr111_common::{
    abi::map,
    event::{Event, RecordError},
};

use super::Error;

/// Most events that one call takes, so that requests and timers get their turn under load.
const BATCH: usize = 256;

/// How long after a batch the next one is taken at the earliest. The kernel wakes the reader of an empty ring for every
/// event, and on a busy LAN that costs the machine more than all that is done with the events: a switch to the agent
/// and back, three times for each exchange of a DHCP server that works on the same cores. While events wait, it wakes
/// nobody. On a quiet LAN nothing waits: the first event after a pause is taken at once.
const PAUSE: Duration = Duration::from_millis(1);

/// Registers a ring with the runtime. Needs a tokio runtime.
pub(super) fn watch<T: AsRawFd>(ring: T) -> Result<AsyncFd<T>, Error> {
    // SAFETY: a ring owns its map's descriptor and keeps it open and unchanged until it is dropped, and the
    // registration ends before that.
    unsafe { AsyncFd::register(ring) }.map_err(|error| Error::Runtime(error.into()))
}

/// The reading end of `EVENTS_LAN`.
pub struct LanRing {
    ring: AsyncFd<RingBuf<MapData>>,
    /// When the next batch may be taken.
    next: Instant,
}

impl std::fmt::Debug for LanRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LanRing")
    }
}

impl LanRing {
    /// Over the map `EVENTS_LAN`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Map`] if it is another kind of map, [`Error::Runtime`] if it cannot be watched.
    pub fn new(map: Map) -> Result<Self, Error> {
        let ring = RingBuf::try_from(map).map_err(|source| Error::Map { name: map::EVENTS_LAN, source })?;
        Ok(Self { ring: watch(ring)?, next: Instant::now() })
    }

    /// Waits for events and gives a batch of them, in order, to `take`. Cancel-safe: what was not given stays.
    ///
    /// # Errors
    /// When the runtime can no longer watch the ring.
    pub async fn next_batch<F>(&mut self, mut take: F) -> std::io::Result<usize>
    where
        F: FnMut(Result<Event<'_>, RecordError>),
    {
        loop {
            drop(self.ring.readable().await?);
            if Instant::now() < self.next {
                sleep_until(self.next).await;
            }
            let mut guard = self.ring.readable_mut().await?;
            let ring = guard.get_inner_mut();
            let mut taken = 0;
            while taken < BATCH {
                let Some(record) = ring.next() else { break };
                take(Event::parse(&record));
                taken += 1;
            }
            if taken < BATCH {
                guard.clear_ready();
                self.next = Instant::now() + PAUSE;
            }
            if taken > 0 {
                return Ok(taken);
            }
        }
    }
}
