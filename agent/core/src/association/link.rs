//! LAN interfaces that lose their carrier or go, and come back (GW-11).
//!
//! While a link is down nobody behind it is heard, and nobody can be asked: silence says nothing about one device, and
//! no probe is spent. What counts is how long the link is down. After the probe interval and its probes, everybody behind
//! it has left the LAN. Where it is back before, everybody starts afresh and is asked within one interval. So a switch
//! that restarts costs no row, and a cable that is pulled costs every row behind it, no later than if each device had
//! left on its own. Behind a relay the lease alone tells, as ever.
//!
//! An interface that was made anew has the old name and another index: the bindings move to it.

use tr111_common::{abi::ClientKey, headers::Segment};

use super::{Association, Binding, Output, RemovalReason, liveness::ANSWER};
use crate::time::BootTime;

impl Association {
    /// Nobody behind the interface is heard from now on.
    pub(super) fn link_down(&mut self, now: BootTime, ifindex: u32) {
        if self.down.iter().all(|(down, _)| *down != ifindex) {
            let end = now + self.settings.probe_interval + ANSWER * self.settings.probe_count;
            self.down.push((ifindex, end));
        }
    }

    /// The interface that had the index `was` works, as `ifindex`.
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

    /// When the link of a binding will have been down for too long, if it is down.
    pub(super) fn unreachable_until(&self, id: u32) -> Option<BootTime> {
        let ifindex = self.table.held(id).binding.segment().ifindex;
        self.down.iter().find(|(down, _)| *down == ifindex).map(|(_, end)| *end)
    }

    /// Moves a binding to another interface. Where the client, or another with its address, is there already, that
    /// came later, and the binding goes.
    fn relocate(&mut self, id: u32, ifindex: u32) -> bool {
        let held = self.table.held(id);
        let (before, grace, is_doubtful) = (held.binding.clone(), held.grace, held.is_doubtful);
        let segment = Segment { ifindex, ..before.segment() };
        let client = ClientKey { segment, ..before.client };
        if self.table.client(&client).is_some() || self.table.holder(segment, before.ip).is_some() {
            self.remove(id, RemovalReason::Disconnected);
            return false;
        }
        let (left, neighbour) = (before.client, before.neighbour());
        self.table.replace(id, Binding { client, ..before });
        self.table.start_grace(id, grace);
        if is_doubtful {
            self.table.doubt(id);
        }
        let reason = RemovalReason::Disconnected;
        self.outputs.extend([Output::Unstick { client: left, reason }, Output::Stick(client)]);
        self.unwatch(neighbour);
        self.watch(id);
        true
    }
}
