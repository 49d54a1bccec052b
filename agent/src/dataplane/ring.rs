//! Reading of the LAN ring.

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

/// Maximum events per call, so that requests and timers are served under load.
const BATCH: usize = 256;

/// Minimum time between two batches. The kernel wakes the reader of an empty ring for each event. On a busy LAN these
/// context switches, three for each DHCP exchange, cost more than the processing of the events. While events are in the
/// ring, the kernel does not wake the reader. On a quiet LAN the first event after a pause is read immediately.
const PAUSE: Duration = Duration::from_millis(1);

/// Registers a ring with the tokio runtime of the caller.
pub(super) fn watch<T: AsRawFd>(ring: T) -> Result<AsyncFd<T>, Error> {
    // SAFETY: a ring owns the descriptor of its map, and keeps it open and unchanged until the ring is dropped. The
    // registration ends before that.
    unsafe { AsyncFd::register(ring) }.map_err(|error| Error::Runtime(error.into()))
}

/// Reader of the ring `EVENTS_LAN`.
pub struct LanRing {
    ring: AsyncFd<RingBuf<MapData>>,
    /// Earliest time of the next batch.
    next: Instant,
}

impl std::fmt::Debug for LanRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LanRing")
    }
}

impl LanRing {
    /// Takes the map `EVENTS_LAN`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Map`] if the map has another type, [`Error::Runtime`] if the ring cannot be registered with the
    /// runtime.
    pub fn new(map: Map) -> Result<Self, Error> {
        let ring = RingBuf::try_from(map).map_err(|source| Error::Map { name: map::EVENTS_LAN, source })?;
        Ok(Self { ring: watch(ring)?, next: Instant::now() })
    }

    /// Waits for events and passes a batch of them to `take`, in order. Returns their number. Cancel-safe: events that
    /// were not passed stay in the ring.
    ///
    /// # Errors
    /// The runtime can no longer wait for the ring.
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
