//! Recovers ACKs that the ring lost, or that were sent while no agent was running (T-29).

use std::net::Ipv4Addr;

use tr111_common::{
    abi::{ClientKey, ExchangeKey, LastAck},
    dhcp4::MessageType,
};

use super::{Association, Output, RemovalReason, exchange::Exchange};
use crate::{
    dhcp::{HardwareAddress, Lease},
    identity::{self, DeviceIdentity},
    time::BootTime,
};

impl Association {
    pub(super) fn last_ack(&mut self, now: BootTime, client: ClientKey, ack: &LastAck) {
        let seen = BootTime(ack.time).min(now);
        if let Some(reason) = RemovalReason::of(ack) {
            self.lease_ended(seen, client, ack.address.into(), reason);
            return;
        }
        let Some(message) = MessageType::from_wire(ack.message_type) else { return };
        let (given, server) = (Ipv4Addr::from(ack.address), Ipv4Addr::from(ack.server));
        let current = self.table.client(&client);
        let holder = self.table.holder(client.segment, given);
        let held = [current, holder].into_iter().flatten().map(|id| &self.table.held(id).binding);
        let is_known = held.chain(self.changes.binding_of(&client)).any(|binding| binding.last_seen >= seen);
        let server = Some(server).filter(|server| !server.is_unspecified());
        let relayed = ack.giaddr != [0; 4];
        let is_foreign = !relayed && server.is_some_and(|server| !self.is_own_server(server));
        let lease = (ack.lease != 0).then(|| Lease::from_seconds(ack.lease));
        let is_over = match lease {
            Some(Lease::For(duration)) => seen + duration + self.settings.expiry_guard <= now,
            _ => false,
        };
        if let Some(id) = current {
            self.table.recall_sender(id, ack.source);
            // The record is at least as new as the store, so the lease is not in doubt any more.
            self.settle_doubt(id, self.table.held(id).binding.lease_expires);
        }
        let option: Vec<u8> = ack.identity.bytes().take(ack.identity_length.into()).collect();
        let identity = identity::decode_device(&option, &self.settings.kernel).ok().map(|decoded| decoded.identity);
        if let (Some(id), Some(identity)) = (current, &identity)
            && self.awaits_identity(id, seen, identity)
        {
            self.place(message, identity.clone(), self.table.held(id).binding.clone());
            return;
        }
        // An expired lease creates no row; but for a known client it is the current lease.
        if is_known || is_foreign || (is_over && current.is_none()) {
            return;
        }
        let mac = HardwareAddress::new(ack.chaddr.first(), ack.hlen);
        // The programs store only a hash of the client identifier.
        let client_id = current.and_then(|id| self.table.held(id).binding.client_id.clone());
        let key =
            ExchangeKey { segment: client.segment, chaddr: ack.chaddr, xid: 0, htype: ack.htype, reserved: [0; 3] };
        let address = given;
        let exchange = Exchange {
            key,
            client,
            mac,
            client_id,
            sender: ack.source,
            identity,
            message,
            address,
            relayed,
            time: seen,
        };
        if message == MessageType::Inform {
            self.inform_acknowledged(seen, exchange, None);
        } else {
            self.lease_acknowledged(seen, exchange, [given; 2], lease, server);
        }
    }

    /// Whether the binding is that of the ACK at `seen`, but its row has another identity: the identity of the ACK was
    /// waiting when the agent ended.
    fn awaits_identity(&self, id: u32, seen: BootTime, identity: &DeviceIdentity) -> bool {
        let binding = &self.table.held(id).binding;
        let is_waiting = self.changes.identity_of(&binding.client) == Some(identity);
        binding.last_seen == seen && !self.table.is_of(id, identity) && !is_waiting
    }

    /// Handles a lease that ended while no agent was running. The record of a client without a row may be deleted.
    fn lease_ended(&mut self, seen: BootTime, client: ClientKey, ip: Ipv4Addr, reason: RemovalReason) {
        match self.table.client(&client) {
            Some(id) if self.table.held(id).binding.ip == ip && !self.is_newer(id, seen) => self.remove(id, reason),
            Some(_) => {}
            None => match self.changes.binding_of(&client) {
                Some(binding) if binding.ip == ip && binding.last_seen <= seen => self.give_up_row(client, reason),
                Some(_) => {}
                None => self.outputs.push_back(Output::Ended(client)),
            },
        }
    }
}
