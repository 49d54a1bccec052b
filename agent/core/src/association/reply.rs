//! Handles DHCP replies.

use std::net::Ipv4Addr;

use tr111_common::{abi::ClientKey, classify, dhcp4::MessageType, event::Event};

use super::{Association, Binding, Remark, RemovalReason, Source, exchange::Exchange};
use crate::{
    dhcp::{Lease, Message},
    identity::DeviceIdentity,
    time::BootTime,
};

impl Association {
    /// ACK: completes the exchange and creates the binding of a client with an identity (GW-6).
    pub(super) fn ack(&mut self, seen: BootTime, event: &Event<'_>, message: &Message<'_>) {
        let Some(exchange) = self.find_answered(event, message).and_then(|id| self.exchanges.take(id)) else { return };
        if exchange.message == MessageType::Inform {
            self.inform_acknowledged(seen, exchange, None);
        } else {
            // An ACK to a DISCOVER is a rapid commit (RFC 4039) and grants a lease like an ACK to a REQUEST.
            let given = [message.yiaddr(), message.ciaddr()];
            self.lease_acknowledged(seen, exchange, given, message.lease(), message.server_id());
        }
    }

    /// NAK: ends the lease; a client that gets an ACK within the grace period keeps its row (T-8).
    ///
    /// A NAK only answers a REQUEST (RFC 2131 3.1, 4.3.5). It has no effect on other exchanges and on their leases, and none
    /// where another station sent the request in the client's name.
    pub(super) fn nak(&mut self, seen: BootTime, event: &Event<'_>, message: &Message<'_>) {
        let Some(id) = self.find_answered(event, message) else { return };
        if self.exchanges.get(id).is_none_or(|exchange| exchange.message != MessageType::Request) {
            self.counts.count_remark(Remark::MisplacedNak);
            return;
        }
        let Some(exchange) = self.exchanges.take(id) else { return };
        let client = exchange.client;
        let id = self.table.client(&client);
        let held = id.map(|id| &self.table.held(id).binding);
        if held.or_else(|| self.changes.binding_of(&client)).is_some_and(|binding| !binding.is_sent_by(exchange.sender))
        {
            self.counts.count_remark(Remark::MisplacedNak);
            return;
        }
        let Some(id) = id else {
            if self.changes.binding_of(&client).is_some_and(|binding| binding.last_seen <= seen) {
                self.give_up_row(client, RemovalReason::Refused);
            }
            return;
        };
        if self.table.held(id).binding.source == Source::Request && !self.is_newer(id, seen) {
            self.changes.forget(&client);
            self.table.start_grace(id, seen + self.settings.nak_grace);
            self.schedule(id);
        }
    }

    /// The exchange that a reply answers, if the reply is from this gateway (T-26).
    ///
    /// A repeated reply finds no exchange, because the first one removed it.
    fn find_answered(&mut self, event: &Event<'_>, message: &Message<'_>) -> Option<u32> {
        let key = classify::exchange_key(event.segment, &message.fixed);
        let id = self.exchanges.lookup(&key);
        let Some((id, exchange)) = id.and_then(|id| Some((id, self.exchanges.get(id)?))) else {
            self.counts.count_remark(Remark::UnmatchedReply);
            return None;
        };
        if !self.is_own_reply(exchange, message) {
            self.counts.count_remark(Remark::ForeignServer);
            return None;
        }
        Some(id)
    }

    /// Whether the server is this gateway, or is behind the client's relay agent or this gateway's own.
    fn is_own_reply(&self, exchange: &Exchange, message: &Message<'_>) -> bool {
        let is_local = |address| self.local_addresses.contains(&address);
        self.local_addresses.is_empty()
            || self.settings.accept_foreign_server
            || exchange.relayed
            || is_local(message.giaddr())
            || is_local(message.server_id().unwrap_or(message.source))
    }

    /// Whether a server has an address of this gateway.
    pub(super) fn is_own_server(&self, server: Ipv4Addr) -> bool {
        self.local_addresses.is_empty() || self.settings.accept_foreign_server || self.local_addresses.contains(&server)
    }

    /// Handles an ACK that gives an address: the first valid one of `given`, else that of the request.
    pub(super) fn lease_acknowledged(
        &mut self,
        seen: BootTime,
        exchange: Exchange,
        given: [Ipv4Addr; 2],
        lease: Option<Lease>,
        server: Option<Ipv4Addr>,
    ) {
        let mut addresses = given.into_iter().chain([exchange.address]);
        let Some(ip) = addresses.find(|address| !address.is_unspecified()) else {
            self.counts.count_remark(Remark::AckWithoutAddress);
            return;
        };
        let lease_expires = match lease {
            Some(Lease::For(duration)) => Some(seen + duration),
            Some(Lease::Infinite) => None,
            None => {
                // RFC 2131 table 3 requires a lease time. Without one, the previous expiry is kept.
                self.counts.count_remark(Remark::AckWithoutLease);
                let current = self.table.client(&exchange.client);
                current.and_then(|id| self.table.held(id).binding.lease_expires)
            }
        };
        let Exchange { client, mac, client_id, sender, relayed, identity, message, .. } = exchange;
        let (source, sender) = (Source::Request, Some(sender));
        let binding =
            Binding { client, mac, client_id, sender, ip, source, lease_expires, server, relayed, last_seen: seen };
        if let Some(identity) = identity.or_else(|| self.known_identity(&client)) {
            self.place(message, identity, binding);
        }
    }

    /// T-9: a client that renews without an identity keeps its row, or the identity for which it waits.
    fn known_identity(&mut self, client: &ClientKey) -> Option<DeviceIdentity> {
        let of_row = || self.table.client(client).map(|id| self.table.identity_of(id));
        let identity = self.changes.identity_of(client).or_else(of_row)?.clone();
        self.counts.count_remark(Remark::RenewWithoutIdentity);
        Some(identity)
    }

    /// GW-17: handles the ACK to an INFORM. The client configured the address itself. If another client holds the
    /// address, that client is asked first, unless it is `asked`, which did not answer.
    pub(super) fn inform_acknowledged(&mut self, seen: BootTime, exchange: Exchange, asked: Option<ClientKey>) {
        let ip = exchange.address;
        if ip.is_unspecified() {
            self.counts.count_remark(Remark::AckWithoutAddress);
            return;
        }
        let holder = self.table.holder(exchange.client.segment, ip);
        let same_host = holder.filter(|id| {
            let binding = &self.table.held(*id).binding;
            binding.mac == exchange.mac && binding.is_sent_by(exchange.sender)
        });
        let current = self.table.client(&exchange.client).or(same_host);
        let identity = exchange.identity.clone().or_else(|| self.known_identity(&exchange.client));
        let Some(identity) = identity else { return };

        if let Some(id) = current.filter(|id| self.table.held(*id).is_leased()) {
            // The lease has precedence over the INFORM, and continues with the same address.
            if self.table.is_of(id, &identity) {
                self.changes.forget(&self.table.held(id).binding.client);
                self.table.touch(id, seen);
                self.renewed(id, seen, false);
            } else if !self.table.held(id).binding.is_sent_by(exchange.sender) {
                // Another station sent the INFORM in the client's name.
                self.counts.count_remark(Remark::AddressConflict);
            } else {
                let binding = Binding { last_seen: seen, ..self.table.held(id).binding.clone() };
                self.place(exchange.message, identity, binding);
            }
            return;
        }
        if let Some(another) = holder.filter(|id| Some(*id) != current) {
            let held = self.table.held(another);
            if held.is_leased() {
                self.counts.count_remark(Remark::AddressConflict);
                return;
            }
            if self.may_dispute(another, &exchange) && asked != Some(held.binding.client) {
                self.claim(seen, Exchange { identity: Some(identity), ..exchange }, another);
                return;
            }
        }
        let Exchange { client, mac, client_id, sender, relayed, message, .. } = exchange;
        let (source, lease_expires, server) = (Source::Inform, None, None::<Ipv4Addr>);
        let sender = Some(sender);
        let binding =
            Binding { client, mac, client_id, sender, ip, source, lease_expires, server, relayed, last_seen: seen };
        self.place(message, identity, binding);
    }
}
