//! The task that owns the device: it hands the core what happens on its interface, and carries out what follows.

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

/// Largest frame that carries a DHCP message, with room for jumbo frames.
const FRAME: usize = 9_216;

/// What the owner works with.
#[derive(Debug)]
pub struct Parts {
    /// What clients are told of the agent.
    pub status: Status,
    /// When it started.
    pub started: BootTime,
    /// The interface.
    pub link: Link,
    /// The device; `None`: no DHCP.
    pub device: Option<Settings>,
    /// Values of the data model.
    pub model: Model,
    /// The knobs.
    pub knobs: Knobs,
    /// The log.
    pub log: Log,
    /// The metrics.
    pub telemetry: Arc<Telemetry>,
    /// Those of the role.
    pub metrics: DeviceMetrics,
    /// Where happenings go.
    pub events: broadcast::Sender<Arc<message::Event>>,
}

/// Owns the device.
#[derive(Debug)]
pub struct Owner {
    parts: Parts,
    knowledge: Knowledge,
    management: Management,
    socket: Option<PacketSocket>,
    /// For ARP, while an address is checked.
    arp: Option<PacketSocket>,
    state: Option<LinkState>,
    /// What the store has, or has next; of a lease that was renewed since, an earlier end.
    stored: State,
}

/// The device, as the data model and the store see it.
#[derive(Debug)]
struct Knowledge {
    core: Option<Device>,
    /// What an earlier start knew, for one that speaks no DHCP.
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
    /// With what an earlier start left in the store.
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

    /// Hears Connection Requests from now on.
    pub fn hear(&mut self, parts: cpe::Parts) -> io::Result<()> {
        self.management.hear(parts)
    }

    /// Works until a signal ends it, and gives its lease back.
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
                    // The link went down, or the interface is gone: netlink tells.
                    Err(error) => {
                        tracing::debug!(%error, "the packet socket is closed until the link is back");
                        self.socket = None;
                    }
                },
                received = receive(self.arp.as_ref(), &mut arp) => match received {
                    Ok(length) => self.handle(Input::Frame(&arp[..length])).await,
                    Err(error) => {
                        tracing::debug!(%error, "nobody is heard who has the address already");
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
                Err(error) => tracing::warn!(%error, "DHCP waits for the next change of the link"),
            }
        }
        if renewed {
            self.handle(Input::Link(false)).await;
            self.move_to_interface();
        }
        self.handle(Input::Link(self.socket.is_some())).await;
        self.handle(Input::Address(address)).await;
    }

    /// The device goes on at another interface with what it knows.
    fn move_to_interface(&mut self) {
        let (Some(state), Some(settings), Some(core)) = (&self.state, &mut self.parts.device, &mut self.knowledge.core)
        else {
            return;
        };
        if settings.mac != state.mac {
            tracing::info!(interface = state.name, "the device speaks from this interface");
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
                    tracing::warn!(%error, "the address could not be checked for another user");
                }
            }
            Output::Declined(address) => {
                tracing::warn!(%address, "another station has this address: declined");
            }
            Output::Keep(state) => self.keep(now, state),
            Output::Configure(address) => {
                tracing::info!(address = %address.address, prefix = address.prefix_length, "the lease brings an address");
                if let Err(error) = self.parts.link.configure(ifindex, address).await {
                    tracing::error!(%error, address = %address.address, "the address could not be set");
                }
            }
            Output::Deconfigure(address) => {
                tracing::info!(address = %address.address, "the lease is over");
                if let Err(error) = self.parts.link.deconfigure(ifindex, address).await {
                    // After a reboot it is not there; and a link that is gone took it along.
                    tracing::debug!(%error, address = %address.address, "the address was not removed");
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

    /// Keeps what the device knows. A renewal may wait, if the lease as it is stored lasts until then.
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
                tracing::debug!(message = label, "sent");
            }
            Err(error) => tracing::debug!(%error, "a frame was not sent"),
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
            tracing::debug!(%error, "an ARP message was not sent");
        }
        Ok(())
    }

    /// A client that left before its answer misses nothing.
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
                let _ = reply.send(Err("a device has no kernel programs; stop it by SIGTERM".to_owned()));
            }
            // It ends the task, in `run`, or is answered already.
            _ => {}
        }
    }

    fn tune(&mut self, settings: &[(String, String)]) -> Result<(), String> {
        if let Some((other, _)) = settings.iter().find(|(key, _)| !is_ours(key)) {
            return Err(format!("{other} is no knob of a device; `tr111 tune` lists them"));
        }
        self.parts.knobs.tune(settings).map_err(|error| error.to_string())?;
        self.apply();
        Ok(())
    }

    /// Puts the knobs into force.
    fn apply(&mut self) {
        self.parts.log.set(self.parts.knobs.log());
        self.management.set_knobs(self.parts.knobs.cpe());
        self.management.set_store_interval(self.parts.knobs.store_interval());
    }
}

/// Whether only the times of a lease differ.
fn is_renewal(before: &State, after: &State) -> bool {
    let (Some(old), Some(new)) = (&before.lease, &after.lease) else { return false };
    let lease = Lease { renew: new.renew, rebind: new.rebind, end: new.end, ..old.clone() };
    State { lease: Some(lease), ..before.clone() } == *after
}

/// Whether a knob is one of this role.
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
