//! A station that is silent is probed, and its binding is removed when nothing shows that it is there (GW-8, GW-11, T-6).
//!
//! The kernel notes when an ARP message was last sent from the address of a binding, so a device that talks costs one
//! inquiry for each probe interval. After an interval of silence the address is probed by ARP. When every probe was
//! lost, the owner searches for other signs of life for one more interval ([`Output::Search`]): some devices answer no
//! ARP and talk all the same. Only then the binding is removed. What is behind a relay is never probed: its lease alone
//! tells.

use std::time::Duration;

use super::{Association, Binding, LifeSign, Output, ProbeResult, RemovalReason};
use crate::{arp, time::BootTime};

/// How long a station may take to answer a probe.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// The part of the interval by which clients differ, so that those who came together are not probed together.
const JITTER: u32 = 8;
/// How long the lease of a station lasts that is there although its lease had ended by the store, where a reboot made the
/// length of that lease unknown.
const LEASE: Duration = Duration::from_hours(24);

/// What is known of a binding's station.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    /// Its last sign of life.
    heard: BootTime,
    /// When to do the next thing; never, where nobody is probed.
    pub(super) due: BootTime,
    stage: Stage,
    /// The kernel's time was asked for, and is not known yet.
    inquired: bool,
    /// The hardware address of its last ARP message, as of the last inquiry. Behind a repeater it is the repeater's.
    pub(super) answered: Option<[u8; 6]>,
    /// The hardware address of a client that claimed the address and was refused. ARP messages from there tell nothing
    /// of the station's own hardware address.
    pub(super) claimant: Option<[u8; 6]>,
}

/// How far the station is from being given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It was heard within the interval.
    Heard,
    /// So many probes are lost or under way, the first of them sent at `since`.
    Probed { count: u32, since: BootTime },
    /// All probes are lost, and other signs of life are searched for.
    Searched,
}

impl Liveness {
    /// Of a station that was heard, and that nobody has to look after yet.
    pub(super) fn heard(heard: BootTime) -> Self {
        let due = BootTime::NEVER;
        Self { heard, due, stage: Stage::Heard, inquired: false, answered: None, claimant: None }
    }

    /// The station was heard, and what was asked of it is answered.
    fn rest(&mut self, heard: BootTime, due: BootTime) {
        *self = Self { heard, due, stage: Stage::Heard, inquired: false, ..*self };
    }

    /// Another station has the address now.
    pub(super) fn forget_station(&mut self) {
        (self.answered, self.claimant) = (None, None);
    }

    /// Notes where the last ARP message came from.
    fn remember(&mut self, mac: Option<[u8; 6]>) {
        if mac.is_some() && mac != self.claimant {
            self.answered = mac;
        }
    }
}

impl Association {
    /// The hardware address of the last ARP message from a client's address, as of the last inquiry: the client's own, or
    /// that of a repeater in front of it.
    pub fn answered_by(&self, binding: &Binding) -> Option<[u8; 6]> {
        self.table.client(&binding.client).and_then(|id| self.table.held(id).liveness.answered)
    }

    /// An ACK went to the client of a binding.
    pub(super) fn revive(&mut self, id: u32, at: BootTime) {
        let heard = self.table.held(id).liveness.heard.max(at);
        let due = self.silent_from(&self.table.held(id).binding, heard);
        self.table.liveness_mut(id).rest(heard, due);
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
        self.table.liveness_mut(id).rest(heard, due);
    }

    /// The time for the next step has come.
    pub(super) fn look_after(&mut self, now: BootTime, id: u32) {
        if let Some(end) = self.unreachable_until(id) {
            if end <= now {
                self.remove(id, RemovalReason::Disconnected);
            } else {
                let liveness = self.table.liveness_mut(id);
                liveness.rest(liveness.heard, end);
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
    pub(super) fn seen(&mut self, now: BootTime, id: u32, at: BootTime, mac: Option<[u8; 6]>) {
        self.table.liveness_mut(id).remember(mac);
        let held = self.table.held(id);
        let is_inquired = held.liveness.inquired;
        if held.is_doubtful {
            // Without an ARP message, `at` is when the address began to be watched.
            if mac.is_some() && held.binding.lease_expires.is_some_and(|end| at > end) {
                self.confirm(now, id);
            } else {
                if is_inquired {
                    self.silent(now, id);
                }
                return;
            }
        }
        if !self.hear(now, id, at) && is_inquired {
            self.silent(now, id);
        }
    }

    /// The station of a binding was heard at `at`. Whether that ends its silence.
    pub(super) fn hear(&mut self, now: BootTime, id: u32, at: BootTime) -> bool {
        let Liveness { heard, stage, .. } = self.table.held(id).liveness;
        let latest = heard.max(at.min(now));
        self.table.heard(id, latest);
        let due = self.silent_from(&self.table.held(id).binding, latest);
        let was_silent = stage != Stage::Heard;
        let ends_silence = due > now || (was_silent && latest > heard);
        if ends_silence {
            if was_silent {
                self.counts.count_probe(ProbeResult::Answered);
            }
            self.table.liveness_mut(id).rest(latest, due);
            self.schedule(id);
        } else {
            self.table.liveness_mut(id).heard = latest;
        }
        ends_silence
    }

    /// A search found a sign of life. Only a search that still runs counts: whatever else was heard is newer.
    pub(super) fn alive(&mut self, now: BootTime, id: u32, sign: LifeSign) {
        if self.table.held(id).liveness.stage != Stage::Searched {
            return;
        }
        self.counts.count_sign(sign);
        if self.table.held(id).is_doubtful {
            self.confirm(now, id);
        }
        self.table.heard(id, now);
        let due = self.silent_from(&self.table.held(id).binding, now);
        self.table.liveness_mut(id).rest(now, due);
        self.schedule(id);
    }

    /// Nothing was heard of the station for an interval, nor after the last probe.
    fn silent(&mut self, now: BootTime, id: u32) {
        let (lost, since) = match self.table.held(id).liveness.stage {
            Stage::Heard => (0, now),
            Stage::Probed { count, since } => {
                self.counts.count_probe(ProbeResult::Unanswered);
                (count, since)
            }
            Stage::Searched if self.table.held(id).is_doubtful => return self.remove(id, RemovalReason::Expired),
            Stage::Searched => return self.remove(id, RemovalReason::Disconnected),
        };
        let most = self.settings.probe_count.max(1);
        let (stage, due) = if lost < most {
            (Stage::Probed { count: lost + 1, since }, now + ANSWER)
        } else {
            (Stage::Searched, now + self.settings.probe_interval)
        };
        let liveness = self.table.liveness_mut(id);
        *liveness = Liveness { due, stage, inquired: false, ..*liveness };
        let answered = liveness.answered;
        self.schedule(id);
        let binding = &self.table.held(id).binding;
        let (client, ip) = (binding.client, binding.ip);
        let Some(own) = binding.station() else { return };
        if stage == Stage::Searched {
            self.outputs.push_back(Output::Search { client, ip, since, until: due });
            return;
        }
        // A repeater may forward nothing to an address that is not its own, so only the first of several probes is
        // unicast (RFC 1122 2.3.2.1).
        let mac = if lost == 0 && most > 1 { answered.unwrap_or(own) } else { arp::EVERYBODY };
        self.outputs.push_back(Output::Probe { client, mac, ip });
    }

    /// Whether the station of a binding is probed when it is silent.
    pub(super) fn is_probed(&self, id: u32) -> bool {
        self.silent_from(&self.table.held(id).binding, BootTime::default()) != BootTime::NEVER
    }

    /// A station is there although its lease had ended by the store: the renewal was not written. The new lease is no
    /// longer than the one before.
    fn confirm(&mut self, now: BootTime, id: u32) {
        let binding = &self.table.held(id).binding;
        let length = binding.lease_expires.and_then(|end| end.since(binding.last_seen));
        let length = length.filter(|length| !length.is_zero()).unwrap_or(LEASE);
        self.settle_doubt(id, Some(now + length));
    }

    /// The end of a lease that was doubtful is known.
    pub(super) fn settle_doubt(&mut self, id: u32, lease_expires: Option<BootTime>) {
        if self.table.held(id).is_doubtful {
            self.table.settle_doubt(id, lease_expires);
            self.schedule(id);
        }
    }

    /// When a station that was heard at `heard` counts as silent.
    fn silent_from(&self, binding: &Binding, heard: BootTime) -> BootTime {
        let interval = self.settings.probe_interval;
        if interval.is_zero() || binding.station().is_none() {
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
