//! Handles messages of DHCP clients.

use std::net::Ipv4Addr;

use tr111_common::{abi::ClientKey, classify, counter::Class, dhcp4::Walk, event::Event};

use super::{Association, Binding, IdentityResult, Output, Remark, RemovalReason, Source, exchange::Exchange};
use crate::{
    dhcp::Message,
    identity::{self, DeviceIdentity, IdentityError},
    short::Short,
    time::BootTime,
};

/// Longest part of a client identifier that is stored for display, in bytes. Longer ones (RFC 3396) are distinguished
/// by the hash over all bytes.
const CLIENT_ID: usize = 256;

impl Association {
    /// DISCOVER, REQUEST, INFORM: stores the request until its reply.
    pub(super) fn request(&mut self, seen: BootTime, event: &Event<'_>, message: &Message<'_>) {
        let walk = message.walk(&self.settings.kernel);
        let client = classify::client_key(event.segment, &message.fixed, &walk);
        let identity = self.identity(event.class, message, &walk);
        let key = classify::exchange_key(event.segment, &message.fixed);
        if event.class == Class::Fragment && (identity.is_some() || self.table.client(&client).is_some()) {
            self.outputs.push_back(Output::MarkExchange(key));
        }
        self.hear_from(seen, &client, message);
        let address = if message.ciaddr().is_unspecified() { message.source } else { message.ciaddr() };
        let exchange = Exchange {
            key,
            client,
            mac: message.hardware_address(),
            client_id: message.client_id().map(|bytes| Short::from(&bytes[..bytes.len().min(CLIENT_ID)])),
            sender: message.ethernet_source,
            identity,
            message: message.message_type,
            address,
            relayed: !message.giaddr().is_unspecified(),
            time: seen,
        };
        if self.exchanges.record(exchange, self.settings.max_exchanges) {
            self.counts.count_remark(Remark::ExchangeEvicted);
        }
    }

    /// Records a client's message as a sign of life of its station (T-6).
    fn hear_from(&mut self, seen: BootTime, client: &ClientKey, message: &Message<'_>) {
        let Some(id) = self.table.client(client) else { return };
        let binding = &self.table.held(id).binding;
        if binding.neighbour().is_some() && binding.mac == message.hardware_address() {
            self.hear(seen, id, seen);
        }
    }

    /// The identity in a request; its result is counted.
    fn identity(&mut self, class: Class, message: &Message<'_>, walk: &Walk) -> Option<DeviceIdentity> {
        let option = message.vendor_identifying().unwrap_or_default();
        let concluded = identity::conclude(&walk.identity, &option, &self.settings.kernel);
        match concluded {
            Ok(decoded) => {
                self.counts.count_identity(message.message_type, IdentityResult::Accepted);
                let notes = decoded.notes;
                for (noted, remark) in [
                    (notes.nul_stripped, Remark::NulStripped),
                    (notes.duplicate, Remark::Duplicate),
                    (notes.dialect_tr124, Remark::DialectTr124),
                ] {
                    if noted {
                        self.counts.count_remark(remark);
                    }
                }
                Some(decoded.identity)
            }
            Err(error) => {
                // The programs count their own refusals; and the rest of a fragment is unknown.
                let refused_here = matches!(error, IdentityError::NotUtf8) || class != Class::Sticky;
                if refused_here && class != Class::Fragment {
                    self.counts.count_identity(message.message_type, error.into());
                }
                None
            }
        }
    }

    /// RELEASE: removes the client's binding, if address and server match (GW-10, T-7).
    pub(super) fn release(&mut self, event: &Event<'_>, message: &Message<'_>) {
        let fits = |binding: &Binding| binding.ip == message.ciaddr();
        self.end(event, message, fits, RemovalReason::Released, Remark::ReleaseMismatch);
    }

    /// DECLINE: removes the client's binding, because the client refuses its address (T-7).
    pub(super) fn decline(&mut self, event: &Event<'_>, message: &Message<'_>) {
        let fits = |binding: &Binding| binding.source == Source::Request && message.requested_ip() == Some(binding.ip);
        self.end(event, message, fits, RemovalReason::Declined, Remark::DeclineMismatch);
    }

    fn end(
        &mut self,
        event: &Event<'_>,
        message: &Message<'_>,
        fits: impl Fn(&Binding) -> bool,
        reason: RemovalReason,
        mismatch: Remark,
    ) {
        let client = self.client_of(event, message);
        let id = self.table.client(&client);
        let held = id.map(|id| &self.table.held(id).binding);
        let Some(binding) = held.or_else(|| self.changes.binding_of(&client)) else {
            // A client without a binding is only counted if it names the address of a binding.
            let named = if reason == RemovalReason::Declined { message.requested_ip() } else { Some(message.ciaddr()) };
            if named.is_some_and(|ip| self.is_held(event, ip)) {
                self.counts.count_remark(mismatch);
            }
            return;
        };
        if binding.last_seen > BootTime(event.time) {
            return;
        }
        let same_server = match (binding.server, message.server_id()) {
            (Some(granted), Some(named)) => granted == named,
            _ => true,
        };
        if !same_server || !is_from(binding, message) || !fits(binding) {
            self.counts.count_remark(mismatch);
        } else if let Some(id) = id {
            self.remove(id, reason);
        } else {
            self.give_up_row(client, reason);
        }
    }

    fn is_held(&self, event: &Event<'_>, ip: Ipv4Addr) -> bool {
        self.table.holder(event.segment, ip).is_some()
    }

    fn client_of(&self, event: &Event<'_>, message: &Message<'_>) -> ClientKey {
        let walk = message.walk(&self.settings.kernel);
        classify::client_key(event.segment, &message.fixed, &walk)
    }
}

/// Whether a message is from the binding's client.
fn is_from(binding: &Binding, message: &Message<'_>) -> bool {
    binding.mac == message.hardware_address() && binding.is_sent_by(message.ethernet_source)
}
