//! Between the data model and the service that hears Connection Requests: what it is asked for goes there, and what it
//! found out comes back.

use std::{io, net::SocketAddr};

use tokio::sync::watch;
use tr111_core::{
    binding::{self, Report},
    connreq::Refusal,
    model::{self, Notification},
    notification::{self, Cause},
    time::BootTime,
};

use super::{
    super::{Clock, cpe, parameters::Written},
    Management,
};
use crate::{
    config,
    control::message::{self, Happening, Transport},
};

/// What the ACS and the operator ask of Connection Requests.
#[derive(Clone, PartialEq, Eq)]
pub struct Demands {
    /// `URL`, and TR-111 Table 6.
    pub binding: binding::Parameters,
    /// Active is set on `UDPConnectionRequestAddress` (CPE-39).
    pub is_address_asked: bool,
    /// `ConnectionRequestUsername`
    pub connection_request_username: String,
    /// `ConnectionRequestPassword`
    pub connection_request_password: String,
}

impl Demands {
    /// Of these values, with this attribute of `UDPConnectionRequestAddress`.
    pub(super) fn new(written: &Written, address: Notification) -> Self {
        let written = written.clone();
        Self {
            binding: written.binding,
            is_address_asked: address == Notification::Active,
            connection_request_username: written.connection_request_username,
            connection_request_password: written.connection_request_password,
        }
    }
}

/// The password is not shown.
impl std::fmt::Debug for Demands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demands")
            .field("binding", &self.binding)
            .field("is_address_asked", &self.is_address_asked)
            .field("connection_request_username", &self.connection_request_username)
            .finish_non_exhaustive()
    }
}

impl Management {
    /// What the ACS and the operator ask of Connection Requests, now and whenever it changes.
    pub(super) fn demands(&self) -> watch::Receiver<Demands> {
        self.demands.subscribe()
    }

    /// Starts what hears Connection Requests and keeps the binding.
    pub(in super::super) fn hear(&mut self, parts: cpe::Parts) -> io::Result<()> {
        let (handle, state) = cpe::Handle::start(parts, self.demands())?;
        self.cpe = Some(handle);
        self.know(state);
        Ok(())
    }

    /// Takes what an earlier agent left: a binding that is the same again is no news.
    fn know(&mut self, state: cpe::State) {
        self.cpe_state = state;
        self.known = state.memory.told.unwrap_or_default();
    }

    /// The knobs changed.
    pub(in super::super) fn set_knobs(&self, knobs: config::Cpe) {
        if let Some(cpe) = &self.cpe {
            cpe.set_knobs(knobs);
        }
    }

    /// It has news. Its state goes to the disk before anybody is told (UCR-7).
    pub(super) fn heard(&mut self, cpe::News { time, what, state }: cpe::News) {
        self.cpe_state = state;
        let event = match what {
            cpe::What::Changed { report, local, is_determined } => {
                self.model.put_report(report, local);
                if is_determined {
                    self.report_changed(time);
                }
                Some(Happening::BindingChanged(message::BindingChange {
                    address: report.address.map(|address| address.to_string()),
                    nat_detected: Some(report.nat_detected),
                    username: None,
                    authenticated: None,
                }))
            }
            cpe::What::Due => {
                self.announce(time);
                None
            }
            cpe::What::Learned => None,
            cpe::What::Requested { from, omitted } => Some(self.requested(time, Transport::Udp, from.into(), omitted)),
        };
        if let Some(told) = &mut self.cpe_state.memory.told {
            // NATDetected has no limit, so it may have been told since.
            told.nat_detected = self.known.nat_detected;
        }
        self.changed();
        if let Some(what) = event {
            let time = self.clock().rfc3339(time);
            self.tell(message::Event { time, what });
        }
    }

    /// A TCP Connection Request was accepted (UCR-2).
    pub(super) fn woken(&mut self, from: SocketAddr, omitted: u64) {
        let now = Clock::now();
        let what = self.requested(now, Transport::Tcp, from, omitted);
        let time = self.clock().rfc3339(now);
        self.tell(message::Event { time, what });
    }

    /// Asks for a session with the ACS, by the event `6 CONNECTION REQUEST`.
    fn requested(&mut self, now: BootTime, transport: Transport, from: SocketAddr, omitted: u64) -> Happening {
        self.notifier.core_mut().handle(now, notification::Input::ConnectionRequest);
        self.notify(true);
        let result = Refusal::ACCEPTED.to_owned();
        Happening::ConnectionRequest(message::ConnectionRequest {
            result,
            from: from.to_string(),
            omitted,
            transport,
            username: None,
            to: None,
        })
    }

    /// `UDPConnectionRequestAddressNotificationLimit` and damping are over: the ACS is told of the address, if it set
    /// Active on it (CPE-39 to CPE-41).
    pub(super) fn announce(&mut self, now: BootTime) {
        self.report_changed(now);
        let name = model::udp_connection_request_address(self.model.root());
        let value = self.model.report().udp_connection_request_address();
        let is_active = self.notifier.core().attribute(&name) == Notification::Active;
        // The value that was told before is only the notifier's business while it waits, and this does not.
        let is_changed = is_active && self.notifier.changed(now, &name, "", &value, Cause::Other);
        self.notify(is_changed);
    }

    /// Tells of `NATDetected` and `UDPConnectionRequestAddress` as they are now, where they differ from what they were
    /// when this was asked last (DM-20, DM-29). An Active notification of the address is up to [`Self::announce`].
    fn report_changed(&mut self, now: BootTime) {
        let (root, after) = (self.model.root(), self.model.report());
        let before = std::mem::replace(&mut self.known, after);
        let mut is_changed = false;
        if before.nat_detected != after.nat_detected {
            let text = |detected| model::Value::Boolean(detected).to_string();
            let (name, before, after) =
                (model::nat_detected(root), text(before.nat_detected), text(after.nat_detected));
            is_changed |= self.notifier.changed(now, &name, &before, &after, Cause::Other);
        }
        let name = model::udp_connection_request_address(root);
        if before.address != after.address && self.notifier.core().attribute(&name) == Notification::Passive {
            let text = |report: Report| report.udp_connection_request_address();
            is_changed |= self.notifier.changed(now, &name, &text(before), &text(after), Cause::Other);
        }
        self.notify(is_changed);
    }

    /// Puts what is written in place, with what follows from it.
    pub(super) fn put(&mut self, now: BootTime, written: Written) {
        let was_enabled = self.model.written().binding.stun_enable;
        self.model.put(written);
        if was_enabled && !self.model.written().binding.stun_enable {
            self.report_changed(now);
        }
        self.demand();
    }

    /// Passes on what is asked for now, where that is another.
    pub(super) fn demand(&self) {
        let address = self.notifier.core().attribute(&model::udp_connection_request_address(self.model.root()));
        let demands = Demands::new(self.model.written(), address);
        self.demands.send_if_modified(|known| {
            let is_news = *known != demands;
            *known = demands;
            is_news
        });
    }
}

#[cfg(test)]
mod tests;
