//! LAN interfaces that lose their carrier or disappear, and return (GW-11).
//!
//! While a link is down, no device behind it can be heard or probed, so silence says nothing about a single device and
//! no probe is sent. The duration of the outage decides. If it exceeds the probe interval plus the time for the probes,
//! all devices behind the link are removed. If the link returns earlier, all devices are treated as just heard and are
//! probed within one interval. A switch that restarts therefore removes no row, and a pulled cable removes every row
//! behind it, no later than if each device had left on its own. For devices behind a relay agent, only the lease
//! counts.
//!
//! An interface that was created again has the same name and another index; its bindings move to the new index.

use tr111_common::{abi::ClientKey, headers::Segment};

use super::{Association, Binding, Output, RemovalReason, liveness::ANSWER};
use crate::time::BootTime;

impl Association {
    /// Handles the loss of an interface.
    pub(super) fn link_down(&mut self, now: BootTime, ifindex: u32) {
        if self.down.iter().all(|(down, _)| *down != ifindex) {
            let end = now + self.settings.probe_interval + ANSWER * self.settings.probe_count;
            self.down.push((ifindex, end));
        }
    }

    /// Handles the return of the interface with the former index `was`, now `ifindex`.
    pub(super) fn link_up(&mut self, now: BootTime, ifindex: u32, was: u32) {
        self.down.retain(|(down, _)| ![ifindex, was].contains(down));
        if was != ifindex {
            self.forget_claims(was);
            self.forget_changes(was);
        }
        let behind = self.table.iter().filter(|(_, held)| held.binding.segment().ifindex == was);
        let ids: Vec<u32> = behind.map(|(id, _)| id).collect();
        for id in ids {
            if was == ifindex || self.relocate(id, ifindex) {
                self.review(id, now);
                self.schedule(id);
            }
        }
    }

    /// Time at which the link of a binding has been down for too long; `None` if it is up.
    pub(super) fn unreachable_until(&self, id: u32) -> Option<BootTime> {
        let ifindex = self.table.held(id).binding.segment().ifindex;
        self.down.iter().find(|(down, _)| *down == ifindex).map(|(_, end)| *end)
    }

    /// Moves a binding to another interface. If the client or its address already has a binding there, that one is
    /// newer and this binding is removed.
    fn relocate(&mut self, id: u32, ifindex: u32) -> bool {
        let held = self.table.held(id);
        let (before, grace, is_doubtful) = (held.binding.clone(), held.grace, held.is_doubtful);
        let segment = Segment { ifindex, ..before.segment() };
        let client = ClientKey { segment, ..before.client };
        if self.table.client(&client).is_some() || self.table.holder(segment, before.ip).is_some() {
            self.remove(id, RemovalReason::Disconnected);
            return false;
        }
        let (left, neighbour, seen) = (before.client, before.neighbour(), before.last_seen);
        self.table.replace(id, Binding { client, ..before });
        self.table.start_grace(id, grace);
        if is_doubtful {
            self.table.doubt(id);
        }
        let reason = RemovalReason::Disconnected;
        self.outputs.extend([Output::Unstick { client: left, reason, seen }, Output::Stick(client)]);
        self.unwatch(neighbour);
        self.watch(id);
        true
    }
}
