//! Connects the data model with the service that receives Connection Requests: passes parameters to the service, and
//! takes the binding and the requests that it reports.

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

/// Parameters of the data model that the service depends on.
#[derive(Clone, PartialEq, Eq)]
pub struct Demands {
    /// `URL` and the parameters of TR-111 Table 6.
    pub binding: binding::Parameters,
    /// Whether `UDPConnectionRequestAddress` has the attribute Active (CPE-39).
    pub is_address_asked: bool,
    /// `ConnectionRequestUsername`
    pub connection_request_username: String,
    /// `ConnectionRequestPassword`
    pub connection_request_password: String,
}

impl Demands {
    /// `address` is the attribute of `UDPConnectionRequestAddress`.
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

/// Omits the password.
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
    /// Subscribes to the parameters that the service depends on.
    pub(super) fn demands(&self) -> watch::Receiver<Demands> {
        self.demands.subscribe()
    }

    /// Starts the service that keeps the binding and receives Connection Requests.
    pub(in super::super) fn hear(&mut self, parts: cpe::Parts) -> io::Result<()> {
        let (handle, state) = cpe::Handle::start(parts, self.demands())?;
        self.cpe = Some(handle);
        self.know(state);
        Ok(())
    }

    /// Takes the stored state, so that an unchanged binding is not notified again.
    fn know(&mut self, state: cpe::State) {
        self.cpe_state = state;
        self.known = state.memory.told.unwrap_or_default();
    }

    pub(in super::super) fn set_knobs(&self, knobs: config::Cpe) {
        if let Some(cpe) = &self.cpe {
            cpe.set_knobs(knobs);
        }
    }

    /// Takes news from the service. Its state is stored before anybody is told (UCR-7).
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
            // NATDetected is not subject to the notification limit, so it may have been notified since.
            told.nat_detected = self.known.nat_detected;
        }
        self.changed();
        if let Some(what) = event {
            let time = self.clock().rfc3339(time);
            self.tell(message::Event { time, what });
        }
    }

    /// Takes an accepted TCP Connection Request (UCR-2).
    pub(super) fn woken(&mut self, from: SocketAddr, omitted: u64) {
        let now = Clock::now();
        let what = self.requested(now, Transport::Tcp, from, omitted);
        let time = self.clock().rfc3339(now);
        self.tell(message::Event { time, what });
    }

    /// Requests a session with the ACS, with the event `6 CONNECTION REQUEST`.
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

    /// Notifies the ACS of the address if the address has the attribute Active (CPE-39 to CPE-41). Called when
    /// `UDPConnectionRequestAddressNotificationLimit` and the damping interval have passed.
    pub(super) fn announce(&mut self, now: BootTime) {
        self.report_changed(now);
        let name = model::udp_connection_request_address(self.model.root());
        let value = self.model.report().udp_connection_request_address();
        let is_active = self.notifier.core().attribute(&name) == Notification::Active;
        // The notifier needs the former value only for a change that has to wait. This change does not wait.
        let is_changed = is_active && self.notifier.changed(now, &name, "", &value, Cause::Other);
        self.notify(is_changed);
    }

    /// Notifies of changes of `NATDetected` and `UDPConnectionRequestAddress` since the last call (DM-20, DM-29). An
    /// Active notification of the address is left to [`Self::announce`].
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

    /// Puts written values into force.
    pub(super) fn put(&mut self, now: BootTime, written: Written) {
        let was_enabled = self.model.written().binding.stun_enable;
        self.model.put(written);
        if was_enabled && !self.model.written().binding.stun_enable {
            self.report_changed(now);
        }
        self.demand();
    }

    /// Passes the parameters to the service if they have changed.
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
