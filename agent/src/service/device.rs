//! The task that owns the device: passes the events of its interface to the core and carries out the core's outputs.

use std::{io, sync::Arc};

use tokio::sync::{broadcast, mpsc};
use tr111_common::dhcp4::MessageType;
use tr111_core::{
    device::{Device, GatewayInfo, Input, Lease, Output, Settings, State, attributes},
    dhcp::Message,
    model::Side,
    time::BootTime,
};

use super::{
    Ask, Clock, InterfaceState, Kept, Knobs, Model, cpe,
    kept::StoredDevice,
    link::{Link, LinkState},
    management::{Management, Subject},
    timer::Timer,
};
use crate::{
    control::message::{self, Status},
    os::packet_socket::{PacketSocket, SocketError},
    store::{Store, encode, meta},
    telemetry::{DeviceMetrics, Telemetry, log::Log},
};

/// Size of a receive buffer in bytes: a DHCP message in a jumbo frame.
const FRAME: usize = 9_216;

/// What the owner needs.
#[derive(Debug)]
pub struct Parts {
    /// The fields of the status that do not change while the agent runs.
    pub status: Status,
    /// When the agent started.
    pub started: BootTime,
    /// The interface.
    pub link: Link,
    /// Settings of the DHCP client; `None` without DHCP.
    pub device: Option<Settings>,
    /// Values of the data model.
    pub model: Model,
    /// The knobs.
    pub knobs: Knobs,
    /// The log, whose filter is a knob.
    pub log: Log,
    /// The metrics of the agent.
    pub telemetry: Arc<Telemetry>,
    /// The metrics of the device role.
    pub metrics: DeviceMetrics,
    /// The event stream to watchers.
    pub events: broadcast::Sender<Arc<message::Event>>,
}

/// Owns the device.
#[derive(Debug)]
pub struct Owner {
    parts: Parts,
    knowledge: Knowledge,
    management: Management,
    socket: Option<PacketSocket>,
    /// Socket for ARP, open while an address is checked.
    arp: Option<PacketSocket>,
    state: Option<LinkState>,
    /// The state in the store, or the state that is written next. It lacks renewals that are still delayed.
    stored: State,
}

/// The device, for the data model and the store.
#[derive(Debug)]
struct Knowledge {
    core: Option<Device>,
    /// The stored state of an earlier start, for a device without DHCP.
    kept: State,
}

impl Subject for Knowledge {
    fn side(&self) -> Side {
        Side::Device
    }

    fn gateway_info(&self) -> Option<&GatewayInfo> {
        self.core.as_ref().map(Device::gateway_info)
    }

    fn stored_values(&self, boot: u32) -> Vec<(&'static str, Vec<u8>)> {
        let state = self.core.as_ref().map_or_else(|| self.kept.clone(), Device::state);
        vec![(meta::DEVICE, encode(&StoredDevice::new(boot, &state)))]
    }
}

impl Owner {
    /// Starts with the stored state.
    pub fn new(parts: Parts, mut kept: Kept, store: Store) -> Self {
        let known = kept.device.take();
        if known.is_none() {
            kept.notifications = attributes::first_state(parts.model.root());
        }
        let known = known.unwrap_or_default();
        let core = parts.device.as_ref().map(|settings| Device::new(settings, known.clone()));
        let (telemetry, model) = (&parts.telemetry, parts.model.clone());
        let mut management = Management::new(model, &mut kept, store, 0, telemetry, parts.events.clone());
        management.set_store_interval(parts.knobs.store_interval());
        let stored = known.clone();
        let knowledge = Knowledge { core, kept: known };
        Self { parts, knowledge, management, socket: None, arp: None, state: None, stored }
    }

    /// Starts the service that receives Connection Requests.
    pub fn hear(&mut self, parts: cpe::Parts) -> io::Result<()> {
        self.management.hear(parts)
    }

    /// Runs until the agent is stopped, and releases the lease.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>) -> io::Result<()> {
        let mut timer = Timer::new()?;
        let (mut frame, mut arp) = (vec![0; FRAME], vec![0; FRAME]);
        let first = self.parts.link.first.clone();
        self.link(first).await;
        self.parts.telemetry.set_ready();
        loop {
            let deadline = self.knowledge.core.as_ref().and_then(Device::next_deadline);
            timer.set([deadline, self.management.next_deadline()].into_iter().flatten().min())?;
            let step = self.management.next();
            tokio::select! {
                step = step => self.management.keep(&self.knowledge, step),
                received = receive(self.socket.as_ref(), &mut frame) => match received {
                    Ok(length) => self.handle(Input::Frame(&frame[..length])).await,
                    // The link went down or the interface was removed. Netlink reports which.
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive DHCP before the next link change");
                        self.socket = None;
                    }
                },
                received = receive(self.arp.as_ref(), &mut arp) => match received {
                    Ok(length) => self.handle(Input::Frame(&arp[..length])).await,
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive ARP; address conflicts are not detected");
                        self.arp = None;
                    }
                },
                rung = timer.ring() => {
                    rung?;
                    self.handle(Input::Tick).await;
                    self.management.tick();
                }
                Some(state) = self.parts.link.changes.recv() => self.link(state).await,
                ask = asks.recv() => match ask {
                    Some(Ask::Stop) | None => break,
                    Some(ask) => self.answer(ask),
                },
            }
        }
        self.handle(Input::Release).await;
        self.management.finish(&self.knowledge).await;
        Ok(())
    }

    /// The interface changed.
    async fn link(&mut self, state: Option<LinkState>) {
        let up = state.as_ref().is_some_and(|state| state.up);
        let ifindex = |state: &Option<LinkState>| state.as_ref().map(|state| state.ifindex);
        let renewed = ifindex(&state) != ifindex(&self.state);
        let address = state.as_ref().and_then(|state| state.address);
        self.state = state;
        if !up || renewed {
            self.socket = None;
            self.arp = None;
        }
        if let Some(state) =
            self.state.as_ref().filter(|_| up && self.socket.is_none() && self.knowledge.core.is_some())
        {
            match PacketSocket::open_for_dhcp_replies(&state.name) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => tracing::warn!(%error, "cannot open a packet socket for DHCP; waiting for a link change"),
            }
        }
        if renewed {
            self.handle(Input::Link(false)).await;
            self.move_to_interface();
        }
        self.handle(Input::Link(self.socket.is_some())).await;
        self.handle(Input::Address(address)).await;
    }

    /// Continues on another interface with the known state.
    fn move_to_interface(&mut self) {
        let (Some(state), Some(settings), Some(core)) = (&self.state, &mut self.parts.device, &mut self.knowledge.core)
        else {
            return;
        };
        if settings.mac != state.mac {
            tracing::info!(interface = state.name, "the device uses this interface from now on");
            settings.mac = state.mac;
            *core = Device::new(settings, core.state());
        }
    }

    async fn handle(&mut self, input: Input<'_>) {
        let now = Clock::now();
        let Some(core) = &mut self.knowledge.core else { return };
        core.handle(now, input);
        let outputs: Vec<_> = std::iter::from_fn(|| core.poll_output()).collect();
        if !core.is_checking() {
            self.arp = None;
        }
        for output in outputs {
            self.carry_out(now, output).await;
        }
    }

    async fn carry_out(&mut self, now: BootTime, output: Output) {
        let ifindex = self.state.as_ref().map_or(0, |state| state.ifindex);
        match output {
            Output::Transmit(frame) => self.transmit(&frame).await,
            Output::Arp(frame) => {
                if let Err(error) = self.transmit_arp(&frame).await {
                    tracing::warn!(%error, "cannot check the offered address for a conflict");
                }
            }
            Output::Declined(address) => {
                tracing::warn!(%address, "address declined: another station uses it");
            }
            Output::Keep(state) => self.keep(now, state),
            Output::Configure(address) => {
                tracing::info!(address = %address.address, prefix = address.prefix_length, "lease bound");
                if let Err(error) = self.parts.link.configure(ifindex, address).await {
                    tracing::error!(%error, address = %address.address, "cannot configure the leased address");
                }
            }
            Output::Deconfigure(address) => {
                tracing::info!(address = %address.address, "lease ended");
                if let Err(error) = self.parts.link.deconfigure(ifindex, address).await {
                    // The address does not exist after a reboot, or after its link was removed.
                    tracing::debug!(%error, address = %address.address, "cannot remove the leased address");
                }
            }
            Output::GatewayInfoChanged { old, new } => {
                tracing::info!(?old, ?new, "GatewayInfo changed");
                self.parts.metrics.changes.inc();
                self.parts.metrics.gateway.set(i64::from(new != GatewayInfo::default()));
                self.management.gateway_info_changed(now, &old, &new);
            }
        }
    }

    /// Stores the device's state. A renewal may wait if the stored lease lasts longer than the delay.
    fn keep(&mut self, now: BootTime, state: State) {
        let latest = now + self.parts.knobs.store_interval();
        if is_renewal(&self.stored, &state) && self.stored.lease.as_ref().is_some_and(|lease| lease.end > latest) {
            self.management.renewed();
        } else {
            self.management.changed();
            self.stored = state;
        }
    }

    async fn transmit(&self, frame: &[u8]) {
        let Some(socket) = &self.socket else { return };
        match socket.send(frame).await {
            Ok(()) => {
                let sent = Message::parse_request(frame, None).map(|message| message.message_type);
                let label = sent.map_or("other", MessageType::label);
                self.parts.metrics.sent.with_label_values(&[label]).inc();
                tracing::debug!(message_type = label, "DHCP message sent");
            }
            Err(error) => tracing::debug!(%error, "cannot send a DHCP message"),
        }
    }

    async fn transmit_arp(&mut self, frame: &[u8]) -> Result<(), SocketError> {
        let socket = match &mut self.arp {
            Some(socket) => socket,
            none => {
                let Some(state) = &self.state else { return Ok(()) };
                none.insert(PacketSocket::open_for_arp(&state.name)?)
            }
        };
        if let Err(error) = socket.send(frame).await {
            tracing::debug!(%error, "cannot send an ARP message");
        }
        Ok(())
    }

    /// Answers a request. A failed reply is ignored: the client has gone.
    fn answer(&mut self, ask: Ask) {
        let Some(ask) = self.management.answer(&self.knowledge, ask) else { return };
        match ask {
            Ask::Status(reply) => {
                let uptime_s = Clock::now().since(self.parts.started).unwrap_or_default().as_secs();
                let started = self.management.clock().rfc3339(self.parts.started);
                let last_notification = self.management.last_notification();
                let state = match &self.state {
                    None => InterfaceState::Gone,
                    Some(state) if state.up => InterfaceState::Up,
                    Some(_) => InterfaceState::Down,
                };
                let status = self.parts.status.clone();
                let store_relearned = self.parts.telemetry.relearned().map(str::to_owned);
                let mut status = Status { started, uptime_s, last_notification, store_relearned, ..status };
                for interface in &mut status.interfaces {
                    state.label().clone_into(&mut interface.state);
                    if let Some(state) = &self.state {
                        interface.name.clone_from(&state.name);
                    }
                }
                let _ = reply.send(status);
            }
            Ask::Devices { reply, .. } => {
                let _ = reply.send(Vec::new());
            }
            Ask::Knobs(reply) => {
                let knobs = self.parts.knobs.list().into_iter().filter(|knob| is_ours(&knob.key));
                let _ = reply.send(knobs.collect());
            }
            Ask::Tune { settings, reply } => {
                let _ = reply.send(self.tune(&settings));
            }
            Ask::Reload(values) => {
                for kept in self.parts.knobs.reload(*values) {
                    tracing::warn!(key = kept, "the new value takes effect at the next start");
                }
                self.apply();
                tracing::info!("configuration reloaded");
            }
            Ask::Detach { reply, .. } => {
                let _ = reply.send(Err("a device has no kernel programs to detach; stop it with SIGTERM".to_owned()));
            }
            // The other requests were answered before, or stop the task in `run`.
            _ => {}
        }
    }

    fn tune(&mut self, settings: &[(String, String)]) -> Result<(), String> {
        if let Some((other, _)) = settings.iter().find(|(key, _)| !is_ours(key)) {
            return Err(format!("{other} is not a knob of a device; `tr111 tune` lists the knobs"));
        }
        self.parts.knobs.tune(settings).map_err(|error| error.to_string())?;
        self.apply();
        Ok(())
    }

    /// Applies the knobs.
    fn apply(&mut self) {
        self.parts.log.set(self.parts.knobs.log());
        self.management.set_knobs(self.parts.knobs.cpe());
        self.management.set_store_interval(self.parts.knobs.store_interval());
    }
}

/// Whether the states differ only in the times of the lease.
fn is_renewal(before: &State, after: &State) -> bool {
    let (Some(old), Some(new)) = (&before.lease, &after.lease) else { return false };
    let lease = Lease { renew: new.renew, rebind: new.rebind, end: new.end, ..old.clone() };
    State { lease: Some(lease), ..before.clone() } == *after
}

fn is_ours(key: &str) -> bool {
    ["agent.", "device.", "connreq.", "stun."].iter().any(|section| key.starts_with(section))
}

async fn receive(socket: Option<&PacketSocket>, frame: &mut [u8]) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.receive(frame).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tr111_core::device::Address;

    use super::*;

    #[test]
    fn a_renewal_changes_nothing_but_the_times_of_a_lease() {
        let lease = |end: u64, last: u8| Lease {
            address: Address { address: Ipv4Addr::new(10, 0, 0, last), prefix_length: 24, router: None },
            server: Ipv4Addr::new(10, 0, 0, 1),
            station: [2, 0, 0, 0, 0, 1],
            renew: BootTime(end / 2),
            rebind: BootTime(end / 8 * 7),
            end: BootTime(end),
        };
        let state = |lease| State { lease, ..State::default() };
        let before = state(Some(lease(800, 5)));
        assert!(is_renewal(&before, &state(Some(lease(1_600, 5)))));
        assert!(!is_renewal(&before, &state(Some(lease(1_600, 6)))), "another address");
        assert!(!is_renewal(&before, &State { mac: [2; 6], ..state(Some(lease(1_600, 5))) }), "another interface");
        assert!(!is_renewal(&before, &state(None)) && !is_renewal(&state(None), &before));
    }
}
