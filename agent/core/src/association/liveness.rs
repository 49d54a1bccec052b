//! Who is silent is asked, and who does not answer is gone (GW-11, T-6).
//!
//! The kernel notes when a station was last heard, so a device that talks costs one inquiry for each probe interval.
//! Only after an interval of silence is it probed, and only after several probes without an answer does it go. What is
//! behind a relay is never probed: its lease alone tells.

use std::time::Duration;

use super::{Association, Binding, Output, ProbeResult, RemovalReason};
use crate::time::BootTime;

/// How long a station may take to answer a probe.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// The part of the interval by which clients differ, so that those who came together are not probed together.
const JITTER: u32 = 8;

/// What is known of a binding's station.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    /// Its last sign of life.
    heard: BootTime,
    /// When to do the next thing; never, where nobody is probed.
    pub(super) due: BootTime,
    /// Probes since it went silent.
    probes: u32,
    /// The kernel's time was asked for, and is not known yet.
    inquired: bool,
}

impl Liveness {
    /// Of a station that was heard, and that nobody has to look after yet.
    pub(super) fn heard(heard: BootTime) -> Self {
        Self { heard, due: BootTime::NEVER, probes: 0, inquired: false }
    }
}

impl Association {
    /// An ACK went to the client of a binding.
    pub(super) fn revive(&mut self, id: u32, at: BootTime) {
        let heard = self.table.held(id).liveness.heard.max(at);
        let due = self.silent_from(&self.table.held(id).binding, heard);
        *self.table.liveness_mut(id) = Liveness { due, ..Liveness::heard(heard) };
    }

    /// Nobody knows how long the station was silent: it is asked for within one interval.
    pub(super) fn review(&mut self, id: u32, now: BootTime) {
        let held = self.table.held(id);
        let heard = held.liveness.heard;
        let interval = self.settings.probe_interval;
        let due = if self.silent_from(&held.binding, heard) == BootTime::NEVER {
            BootTime::NEVER
        } else {
            now + self.share_of(interval, &held.binding)
        };
        *self.table.liveness_mut(id) = Liveness { due, ..Liveness::heard(heard) };
    }

    /// The time for the next step has come.
    pub(super) fn look_after(&mut self, now: BootTime, id: u32) {
        if let Some(end) = self.unreachable_until(id) {
            if end <= now {
                self.remove(id, RemovalReason::Disconnected);
            } else {
                let liveness = self.table.liveness_mut(id);
                *liveness = Liveness { due: end, ..Liveness::heard(liveness.heard) };
                self.schedule(id);
            }
            return;
        }
        let held = self.table.held(id);
        let (client, neighbour) = (held.binding.client, held.binding.neighbour());
        match neighbour {
            Some(neighbour) if !held.liveness.inquired => {
                let liveness = self.table.liveness_mut(id);
                (liveness.inquired, liveness.due) = (true, now + ANSWER);
                self.schedule(id);
                self.outputs.push_back(Output::Inquire { client, neighbour });
            }
            // Nobody could say. That counts as silence, or a failing map would keep everybody.
            _ => self.silent(now, id),
        }
    }

    /// What the kernel knows of a client's station.
    pub(super) fn seen(&mut self, now: BootTime, id: u32, at: BootTime) {
        let Liveness { heard, probes, inquired, .. } = self.table.held(id).liveness;
        let latest = heard.max(at.min(now));
        self.table.heard(id, latest);
        let due = self.silent_from(&self.table.held(id).binding, latest);
        if due > now || (probes > 0 && latest > heard) {
            if probes > 0 {
                self.counts.count_probe(ProbeResult::Answered);
            }
            *self.table.liveness_mut(id) = Liveness { due, ..Liveness::heard(latest) };
            self.schedule(id);
            return;
        }
        self.table.liveness_mut(id).heard = latest;
        if inquired {
            self.silent(now, id);
        }
    }

    /// Nothing was heard of the station for an interval, nor after the last probe.
    fn silent(&mut self, now: BootTime, id: u32) {
        let most = self.settings.probe_count.max(1);
        let liveness = self.table.liveness_mut(id);
        if liveness.probes > 0 {
            self.counts.count_probe(ProbeResult::Unanswered);
        }
        if liveness.probes >= most {
            self.remove(id, RemovalReason::Disconnected);
            return;
        }
        *liveness = Liveness { due: now + ANSWER, probes: liveness.probes + 1, inquired: false, ..*liveness };
        self.schedule(id);
        let Binding { client, ip, .. } = self.table.held(id).binding;
        if let Some(neighbour) = self.table.held(id).binding.neighbour() {
            let (segment, mac) = (neighbour.segment, neighbour.mac);
            self.outputs.push_back(Output::Probe { client, segment, mac, ip });
        }
    }

    /// When a station that was heard at `heard` counts as silent.
    fn silent_from(&self, binding: &Binding, heard: BootTime) -> BootTime {
        let interval = self.settings.probe_interval;
        if interval.is_zero() || binding.neighbour().is_none() {
            return BootTime::NEVER;
        }
        heard + interval.saturating_sub(self.share_of(interval / JITTER, binding))
    }

    /// A part of `whole` that is the client's own.
    fn share_of(&self, whole: Duration, binding: &Binding) -> Duration {
        let share = self.table.hash_of(&binding.client) >> 32;
        let nanoseconds = whole.as_nanos().saturating_mul(u128::from(share)) >> 32;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
