//! Probing of silent stations and removal of their bindings (GW-8, GW-11, T-6).
//!
//! The kernel programs record the last ARP message from the address of each binding, so an active device costs one map
//! look-up per probe interval. After an interval of silence, the address is probed by ARP. If all probes are lost, the
//! owner searches for other signs of life for one more interval ([`Output::Search`]), because some active devices do
//! not answer ARP. The binding is removed only after that. Devices behind a relay agent are never probed: only their
//! lease counts.

use std::time::Duration;

use super::{Association, Binding, LifeSign, Output, ProbeResult, RemovalReason};
use crate::{arp, time::BootTime};

/// Time in which a station has to answer a probe.
pub(super) const ANSWER: Duration = Duration::from_secs(1);
/// Fraction of the interval by which clients differ, so that clients which arrived together are not probed together.
const JITTER: u32 = 8;
/// Duration of the new lease of a station that is present although its stored lease has expired, if a reboot made the
/// length of the stored lease unknown.
const LEASE: Duration = Duration::from_hours(24);

/// Liveness of a binding's station.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    heard: BootTime,
    /// Time of the next step; never if the station is not probed.
    pub(super) due: BootTime,
    stage: Stage,
    /// Whether the kernel's record was requested and has not arrived.
    inquired: bool,
    /// Sender hardware address of the last ARP message, as of the last request; a repeater's if the station is behind
    /// one.
    pub(super) answered: Option<[u8; 6]>,
    /// Hardware address of a client whose claim to the address was refused. ARP messages from it are not from the
    /// station.
    pub(super) claimant: Option<[u8; 6]>,
}

/// Progress towards the removal of the station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Heard within the interval.
    Heard,
    /// `count` probes were sent, the first one at `since`.
    Probed { count: u32, since: BootTime },
    /// All probes are lost; a search for other signs of life is running.
    Searched,
}

impl Liveness {
    /// A station that was just heard and is not scheduled yet.
    pub(super) fn heard(heard: BootTime) -> Self {
        let due = BootTime::NEVER;
        Self { heard, due, stage: Stage::Heard, inquired: false, answered: None, claimant: None }
    }

    /// Records a sign of life, which ends any probing.
    fn rest(&mut self, heard: BootTime, due: BootTime) {
        *self = Self { heard, due, stage: Stage::Heard, inquired: false, ..*self };
    }

    /// Clears the addresses of the previous station.
    pub(super) fn forget_station(&mut self) {
        (self.answered, self.claimant) = (None, None);
    }

    fn remember(&mut self, mac: Option<[u8; 6]>) {
        if mac.is_some() && mac != self.claimant {
            self.answered = mac;
        }
    }
}

impl Association {
    /// Sender hardware address of the last ARP message from a client's address, as of the last request: the client's
    /// own, or that of a repeater in front of it.
    pub fn answered_by(&self, binding: &Binding) -> Option<[u8; 6]> {
        self.table.client(&binding.client).and_then(|id| self.table.held(id).liveness.answered)
    }

    /// Records an ACK to the client of a binding.
    pub(super) fn revive(&mut self, id: u32, at: BootTime) {
        let heard = self.table.held(id).liveness.heard.max(at);
        let due = self.silent_from(&self.table.held(id).binding, heard);
        self.table.liveness_mut(id).rest(heard, due);
    }

    /// Probes the station within one interval, because the length of its silence is unknown.
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
            // The record could not be read. That counts as silence, because a failing map would otherwise keep all
            // rows.
            _ => self.silent(now, id),
        }
    }

    /// Handles the kernel's record about a client's station.
    pub(super) fn seen(&mut self, now: BootTime, id: u32, at: BootTime, mac: Option<[u8; 6]>) {
        self.table.liveness_mut(id).remember(mac);
        let held = self.table.held(id);
        let is_inquired = held.liveness.inquired;
        if held.is_doubtful {
            // Without an ARP message, `at` is the time at which the address was added to the map.
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

    /// Records that the station was heard at `at`. Returns whether that ends its silence.
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

    /// Handles the sign of life that a search found. It is ignored after the search ended, because newer information
    /// exists.
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

    /// Handles an interval without a sign of life: sends the next probe, begins the search, or removes the binding.
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
        // A repeater may not forward frames to an address other than its own, so only the first of several probes is
        // unicast (RFC 1122 2.3.2.1).
        let mac = if lost == 0 && most > 1 { answered.unwrap_or(own) } else { arp::EVERYBODY };
        self.outputs.push_back(Output::Probe { client, mac, ip });
    }

    /// Whether the station of a binding is probed when it is silent.
    pub(super) fn is_probed(&self, id: u32) -> bool {
        self.silent_from(&self.table.held(id).binding, BootTime::default()) != BootTime::NEVER
    }

    /// A station is present although its stored lease has expired: the renewal was not stored. The new lease has the
    /// length of the stored one.
    fn confirm(&mut self, now: BootTime, id: u32) {
        let binding = &self.table.held(id).binding;
        let length = binding.lease_expires.and_then(|end| end.since(binding.last_seen));
        let length = length.filter(|length| !length.is_zero()).unwrap_or(LEASE);
        self.settle_doubt(id, Some(now + length));
    }

    /// Ends the doubt about a lease, given its expiry.
    pub(super) fn settle_doubt(&mut self, id: u32, lease_expires: Option<BootTime>) {
        if self.table.held(id).is_doubtful {
            self.table.settle_doubt(id, lease_expires);
            self.schedule(id);
        }
    }

    /// Time at which a station that was heard at `heard` counts as silent.
    fn silent_from(&self, binding: &Binding, heard: BootTime) -> BootTime {
        let interval = self.settings.probe_interval;
        if interval.is_zero() || binding.station().is_none() {
            return BootTime::NEVER;
        }
        heard + interval.saturating_sub(self.share_of(interval / JITTER, binding))
    }

    /// A fraction of `whole` that depends on the client.
    fn share_of(&self, whole: Duration, binding: &Binding) -> Duration {
        let share = self.table.hash_of(&binding.client) >> 32;
        let nanoseconds = whole.as_nanos().saturating_mul(u128::from(share)) >> 32;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
