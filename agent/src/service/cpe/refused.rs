//! Announces refused Connection Requests to watchers. The rate is limited, because anybody can send such requests at
//! any rate.

use std::{fmt::Display, sync::Arc, time::Duration};

use tokio::sync::broadcast;
use tr111_core::time::BootTime;

use crate::{
    control::message::{ConnectionRequest, Event, Happening, Transport},
    service::Clock,
};

/// Number of refused requests that are announced per [`WINDOW`].
const SHOWN: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Announces the refused requests of one transport.
#[derive(Debug)]
pub(super) struct Refused {
    transport: Transport,
    events: broadcast::Sender<Arc<Event>>,
    clock: Clock,
    gauge: Gauge,
}

impl Refused {
    pub(super) fn new(transport: Transport, events: broadcast::Sender<Arc<Event>>) -> Self {
        Self { transport, events, clock: Clock::new(), gauge: Gauge::default() }
    }

    /// Announces a refused request, or counts it as omitted.
    pub(super) fn tell(&mut self, now: BootTime, result: &str, from: &dyn Display) {
        let Some(omitted) = self.gauge.next(now) else { return };
        tracing::debug!(%from, result, omitted, transport = ?self.transport, "Connection Request refused");
        if self.events.receiver_count() > 0 {
            self.clock.follow();
            let (transport, result, from) = (self.transport, result.to_owned(), from.to_string());
            let what = Happening::ConnectionRequest(ConnectionRequest {
                result,
                from,
                omitted,
                transport,
                username: None,
                to: None,
            });
            // A failed send means that there are no receivers.
            let _ = self.events.send(Arc::new(Event { time: self.clock.rfc3339(now), what }));
        }
    }

    /// Takes the number of omitted requests since the last announcement or call.
    pub(super) fn omitted(&mut self) -> u64 {
        self.gauge.take()
    }
}

/// Limits the rate of announcements and counts omitted requests.
#[derive(Debug, Default)]
struct Gauge {
    since: BootTime,
    shown: u32,
    omitted: u64,
}

impl Gauge {
    /// If the next request may be announced, returns how many were omitted before it.
    fn next(&mut self, now: BootTime) -> Option<u64> {
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

    fn take(&mut self) -> u64 {
        std::mem::take(&mut self.omitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_in_twenty_events_a_second_and_a_number() {
        let mut gauge = Gauge::default();
        let at = |seconds| BootTime::default() + Duration::from_secs(seconds);
        let told = (0..1_000).filter(|_| gauge.next(at(5)).is_some()).count();
        assert_eq!(told, 20);
        assert_eq!(gauge.next(at(6)), Some(980));
        assert_eq!(gauge.next(at(6)), Some(0));
    }
}
