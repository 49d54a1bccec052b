//! Claims to an address that another client has (GW-17).
//!
//! The address in an INFORM is its sender's own word. Where another client has the address without a lease, that holder
//! is asked by ARP first, as often as a silent device is probed. While it answers, the claim is refused and counted
//! (`address_conflict`). When it does not, the claimant gets its binding and the holder loses its own.
//!
//! The claimant has the address as well, and answers too. So an answer counts only from a hardware address of the holder:
//! its own, or the one that last answered for its binding, which is a repeater's where the holder is behind one.

use std::net::Ipv4Addr;

use tr111_common::{abi::ClientKey, headers::Segment};

use super::{Association, Output, Remark, exchange::Exchange, liveness::ANSWER};
use crate::time::BootTime;

/// Most addresses that are claimed at a time; a claim to one more is refused. A host on the LAN can invent claims.
const CLAIMS_MAXIMUM: usize = 256;

/// An acknowledged INFORM that waits until its address is known to be free.
pub(super) struct Claim {
    /// The INFORM, with the identity that its binding gets.
    exchange: Exchange,
    /// When it was acknowledged.
    seen: BootTime,
    /// The client that has the address.
    holder: ClientKey,
    /// The hardware addresses from which the holder answers, as they were known before the claim.
    answers: [Option<[u8; 6]>; 2],
    /// How often the holder was asked.
    asked: u32,
    /// When the answer to the last question is late.
    pub(super) due: BootTime,
}

impl Claim {
    fn is_to(&self, segment: Segment, ip: Ipv4Addr) -> bool {
        self.exchange.client.segment == segment && self.exchange.address == ip
    }

    /// Whether an answer from `mac` is the holder's.
    fn is_disputed_by(&self, mac: [u8; 6]) -> bool {
        self.answers.contains(&Some(mac)) && self.exchange.mac != mac.into()
    }
}

impl Association {
    /// Whether the holder of an address can tell by ARP that it still has it, when the sender of `exchange` claims it.
    pub(super) fn may_dispute(&self, holder: u32, exchange: &Exchange) -> bool {
        let binding = &self.table.held(holder).binding;
        binding.station().is_some() && binding.mac != exchange.mac
    }

    /// The address of `exchange` is claimed: its holder is asked. Of several claims to an address the last one counts.
    pub(super) fn claim(&mut self, seen: BootTime, exchange: Exchange, holder: u32) {
        let (segment, ip) = (exchange.client.segment, exchange.address);
        let held = self.table.held(holder);
        let (holder, answers) = (held.binding.client, [held.binding.station(), held.liveness.answered]);
        if let Some(claim) = self.claims.iter_mut().find(|claim| claim.is_to(segment, ip) && claim.holder == holder) {
            if claim.exchange.client != exchange.client {
                self.counts.count_remark(Remark::AddressConflict);
            }
            (claim.exchange, claim.seen) = (exchange, seen);
            return;
        }
        self.claims.retain(|claim| !claim.is_to(segment, ip));
        if self.claims.len() >= CLAIMS_MAXIMUM {
            self.counts.count_remark(Remark::AddressConflict);
            return;
        }
        self.claims.push(Claim { exchange, seen, holder, answers, asked: 1, due: self.now + ANSWER });
        self.outputs.push_back(Output::AskHolder { segment, ip });
    }

    /// A station answered for an address.
    pub(super) fn answered(&mut self, now: BootTime, segment: Segment, ip: Ipv4Addr, mac: [u8; 6]) {
        let disputed = |claim: &Claim| claim.is_to(segment, ip) && claim.is_disputed_by(mac);
        let Some(at) = self.claims.iter().position(disputed) else { return };
        let claim = self.claims.swap_remove(at);
        self.counts.count_remark(Remark::AddressConflict);
        if let Some(id) = self.table.client(&claim.holder).filter(|id| self.table.held(*id).binding.ip == ip) {
            let liveness = self.table.liveness_mut(id);
            liveness.answered = Some(mac);
            liveness.claimant = claim.exchange.mac.as_bytes().try_into().ok();
            self.hear(now, id, now);
        }
    }

    /// Asks again for holders that did not answer in time, and lets the claim count where one was asked often enough.
    pub(super) fn settle_claims(&mut self, now: BootTime) {
        let mut at = 0;
        while let Some(claim) = self.claims.get_mut(at) {
            if claim.due > now {
                at += 1;
            } else if claim.asked < self.settings.probe_count {
                (claim.asked, claim.due) = (claim.asked + 1, now + ANSWER);
                let (segment, ip) = (claim.exchange.client.segment, claim.exchange.address);
                self.outputs.push_back(Output::AskHolder { segment, ip });
            } else {
                let Claim { exchange, seen, holder, .. } = self.claims.swap_remove(at);
                self.inform_acknowledged(seen, exchange, Some(holder));
            }
        }
    }

    /// Forgets claims behind an interface that is no more.
    pub(super) fn forget_claims(&mut self, ifindex: u32) {
        self.claims.retain(|claim| claim.exchange.client.segment.ifindex != ifindex);
    }
}
