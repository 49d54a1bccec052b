//! Claims to an address that belongs to another client (GW-17).
//!
//! The address in an INFORM is not assigned by a server, so it may belong to another client. If that holder has no
//! lease for it, the holder is asked by ARP first, as often as a silent device is probed. If the holder answers, the
//! claim is refused and counted (`address_conflict`). Otherwise the claimant gets a binding and the holder's binding is
//! removed.
//!
//! The claimant has configured the address and answers too. An answer therefore counts only if it comes from a hardware
//! address of the holder: its own, or the one that last answered for its binding (that of a repeater in front of it).

use std::net::Ipv4Addr;

use tr111_common::{abi::ClientKey, headers::Segment};

use super::{Association, Output, Remark, exchange::Exchange, liveness::ANSWER};
use crate::time::BootTime;

/// Most claims that are pending; further ones are refused. A LAN host can invent claims.
const CLAIMS_MAXIMUM: usize = 256;

/// An acknowledged INFORM that waits for the decision about its address.
pub(super) struct Claim {
    /// The INFORM, with the identity for its binding.
    exchange: Exchange,
    seen: BootTime,
    holder: ClientKey,
    /// The hardware addresses from which the holder answered before the claim.
    answers: [Option<[u8; 6]>; 3],
    /// Number of ARP requests sent.
    asked: u32,
    /// Time until which the last request may be answered.
    pub(super) due: BootTime,
}

impl Claim {
    fn is_to(&self, segment: Segment, ip: Ipv4Addr) -> bool {
        self.exchange.client.segment == segment && self.exchange.address == ip
    }

    /// Whether an answer from `mac` comes from the holder, and not from the station that sent the claim.
    fn is_disputed_by(&self, mac: [u8; 6]) -> bool {
        self.answers.contains(&Some(mac)) && self.exchange.sender != mac
    }
}

impl Association {
    /// Whether the holder can answer by ARP, and is not the sender of `exchange` itself.
    pub(super) fn may_dispute(&self, holder: u32, exchange: &Exchange) -> bool {
        let binding = &self.table.held(holder).binding;
        binding.station().is_some() && (binding.mac != exchange.mac || !binding.is_sent_by(exchange.sender))
    }

    /// Begins a claim to the address of `exchange`, and asks the holder. A new claim to the address replaces an earlier
    /// one.
    pub(super) fn claim(&mut self, seen: BootTime, exchange: Exchange, holder: u32) {
        let (segment, ip) = (exchange.client.segment, exchange.address);
        let held = self.table.held(holder);
        let (holder, answers) =
            (held.binding.client, [held.binding.station(), held.binding.sender, held.liveness.answered]);
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

    /// Handles an ARP message from an address.
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

    /// Repeats unanswered requests, and accepts a claim after the last of them.
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

    /// Discards claims on an interface that was removed.
    pub(super) fn forget_claims(&mut self, ifindex: u32) {
        self.claims.retain(|claim| claim.exchange.client.segment.ifindex != ifindex);
    }
}
