//! The task that owns the device: it hands the core what happens on its interface, and carries out what follows.

use std::{io, sync::Arc};

use tokio::sync::{broadcast, mpsc};
use tr111_common::dhcp4::MessageType;
use tr111_core::{
    device::{Device, GatewayInfo, Input, Output, Settings, attributes},
    dhcp::Message,
    identity::{DeviceIdentity, GatewayIdentity},
    model::{self, Notification, Root, Setting, Side, Source},
    notification::{self, Notifications},
    time::BootTime,
};

use super::{
    Ask, Clock, Fault, InterfaceState, Knobs,
    link::{Link, LinkState},
    timer::Timer,
};
use crate::{
    control::message::{self, ChangedParameter, Happening, Parameter, Status},
    sim::socket::PacketSocket,
    telemetry::{DeviceMetrics, Telemetry, log::Log},
};

/// Largest frame that carries a DHCP message, with room for jumbo frames.
const FRAME: usize = 9_216;
/// Notifications in one answer.
const PAGE: usize = 256;

/// What the owner works with.
#[derive(Debug)]
pub struct Parts {
    /// What clients are told of the agent.
    pub status: Status,
    /// When it started.
    pub started: BootTime,
    /// Name of the interface.
    pub interface: String,
    /// The interface.
    pub link: Link,
    /// The device; `None`: no DHCP.
    pub device: Option<Settings>,
    /// `DeviceInfo`.
    pub identity: DeviceIdentity,
    /// Root of the data model.
    pub root: Root,
    /// `ManagementServer.URL`.
    pub url: String,
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
    core: Option<Device>,
    socket: Option<PacketSocket>,
    state: Option<LinkState>,
    device_info: GatewayIdentity,
    notifications: Notifications,
    clock: Clock,
}

impl Owner {
    /// Of an interface that nothing was sent on yet.
    pub fn new(parts: Parts) -> Self {
        let DeviceIdentity { manufacturer_oui, serial_number, product_class } = parts.identity.clone();
        let settings = notification::Settings::default();
        Self {
            core: parts.device.as_ref().map(Device::new),
            socket: None,
            state: None,
            device_info: GatewayIdentity { manufacturer_oui, serial_number, product_class },
            notifications: Notifications::new(parts.root, settings, attributes::first_state(parts.root)),
            clock: Clock::new(),
            parts,
        }
    }

    /// Works until a signal ends it, and gives its lease back.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>) -> io::Result<()> {
        let mut timer = Timer::new()?;
        let mut frame = vec![0; FRAME];
        let first = self.parts.link.first;
        self.link(Some(first)).await;
        self.parts.telemetry.set_ready();
        loop {
            timer.set(self.core.as_ref().and_then(Device::next_deadline))?;
            tokio::select! {
                received = receive(self.socket.as_ref(), &mut frame) => match received {
                    Ok(length) => self.handle(Input::Frame(&frame[..length])).await,
                    // The link went down, or the interface is gone: netlink tells.
                    Err(error) => {
                        tracing::debug!(%error, "the packet socket is closed until the link is back");
                        self.socket = None;
                    }
                },
                rung = timer.ring() => {
                    rung?;
                    self.handle(Input::Tick).await;
                }
                Some(state) = self.parts.link.changes.recv() => self.link(state).await,
                ask = asks.recv() => match ask {
                    Some(Ask::Stop) | None => break,
                    Some(ask) => self.answer(ask),
                },
            }
        }
        self.handle(Input::Release).await;
        Ok(())
    }

    /// The interface changed.
    async fn link(&mut self, state: Option<LinkState>) {
        let up = state.is_some_and(|state| state.up);
        let renewed = state.map(|state| state.ifindex) != self.state.map(|state| state.ifindex);
        self.state = state;
        if !up || renewed {
            self.socket = None;
        }
        if up && self.socket.is_none() && self.core.is_some() {
            match PacketSocket::open_for_dhcp_replies(&self.parts.interface) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => tracing::warn!(%error, "DHCP waits for the next change of the link"),
            }
        }
        if renewed {
            self.handle(Input::Link(false)).await;
        }
        self.handle(Input::Link(self.socket.is_some())).await;
        self.handle(Input::Address(state.and_then(|state| state.address))).await;
    }

    async fn handle(&mut self, input: Input<'_>) {
        let now = Clock::now();
        let Some(core) = &mut self.core else { return };
        core.handle(now, input);
        let outputs: Vec<_> = std::iter::from_fn(|| core.poll_output()).collect();
        for output in outputs {
            self.carry_out(now, output).await;
        }
    }

    async fn carry_out(&mut self, now: BootTime, output: Output) {
        let ifindex = self.state.map_or(0, |state| state.ifindex);
        match output {
            Output::Transmit(frame) => self.transmit(&frame).await,
            Output::Configure(address) => {
                tracing::info!(address = %address.address, prefix = address.prefix_length, "the lease brings an address");
                if let Err(error) = self.parts.link.configure(ifindex, address).await {
                    tracing::error!(%error, address = %address.address, "the address could not be set");
                }
            }
            Output::Deconfigure(address) => {
                tracing::info!(address = %address.address, "the lease is over");
                if let Err(error) = self.parts.link.deconfigure(ifindex, address).await {
                    tracing::warn!(%error, address = %address.address, "the address could not be removed");
                }
            }
            Output::GatewayInfoChanged { old, new } => {
                tracing::info!(?old, ?new, "GatewayInfo changed");
                self.parts.metrics.changes.inc();
                self.parts.metrics.gateway.set(i64::from(new != GatewayInfo::default()));
                attributes::changed(&mut self.notifications, now, self.parts.root, &old, &new);
                self.notify();
            }
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

    /// Tells watchers of notifications.
    fn notify(&mut self) {
        self.clock.follow();
        let prefix = self.parts.root.prefix();
        while let Some(output) = self.notifications.poll_output() {
            let notification::Output::Notify { parameters, .. } = &output;
            for (name, _) in parameters {
                let parameter = name.strip_prefix(prefix).unwrap_or(name);
                self.parts.metrics.notifications.with_label_values(&[parameter, "sent"]).inc();
            }
            let event = event(&self.clock, output);
            self.parts.status.last_notification = Some(event.time.clone());
            // Without watchers nobody misses it.
            let _ = self.parts.events.send(Arc::new(event));
        }
    }

    /// A client that left before its answer misses nothing.
    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Status(reply) => {
                self.clock.follow();
                let uptime_s = Clock::now().since(self.parts.started).unwrap_or_default().as_secs();
                let started = self.clock.rfc3339(self.parts.started);
                let state = match self.state {
                    None => InterfaceState::Gone,
                    Some(state) if state.up => InterfaceState::Up,
                    Some(_) => InterfaceState::Down,
                };
                let mut status = Status { started, uptime_s, ..self.parts.status.clone() };
                status.interfaces.iter_mut().for_each(|interface| state.label().clone_into(&mut interface.state));
                let _ = reply.send(status);
            }
            Ask::Devices { reply, .. } => {
                let _ = reply.send(Vec::new());
            }
            Ask::Get { paths, reply } => {
                let _ = reply.send(self.get(&paths));
            }
            Ask::Set { parameters, reply, .. } => {
                let _ = reply.send(self.set(&parameters));
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
                self.parts.log.set(self.parts.knobs.log());
                tracing::info!("configuration reloaded");
            }
            Ask::Detach { reply, .. } => {
                let _ = reply.send(Err("a device has no kernel programs; stop it by SIGTERM".to_owned()));
            }
            Ask::Notify { path, attribute, reply } => {
                let mut notifications = self.notifications.clone();
                let set = notifications.set(&self.view(), &path, attribute).map_err(|error| fault(error, &path));
                self.notifications = notifications;
                let _ = reply.send(set);
            }
            Ask::Notifications { after, reply } => {
                self.clock.follow();
                let pending = self.notifications.pending(after).take(PAGE);
                let events = pending.cloned().map(|notification::Pending { sequence, time, parameters, kind }| {
                    event(&self.clock, notification::Output::Notify { sequence, time, parameters, kind })
                });
                let _ = reply.send(events.collect());
            }
            Ask::Acknowledge { sequence, reply } => {
                let known = self.notifications.acknowledge(sequence);
                let _ =
                    reply.send(if known { Ok(()) } else { Err(format!("there was no notification {sequence} yet")) });
                // Changes may have waited for room.
                self.notifications.handle(Clock::now(), notification::Input::Tick);
                self.notify();
            }
            // It ends the task, in `run`.
            Ask::Stop => {}
        }
    }

    fn view(&self) -> View<'_> {
        View { owner: self, gateway_info: self.core.as_ref().map(Device::gateway_info) }
    }

    fn get(&self, paths: &[String]) -> Result<Vec<Parameter>, Fault> {
        let mut parameters = Vec::new();
        for path in paths {
            let found = model::get(&self.view(), path).map_err(|error| fault(error, path))?;
            parameters.extend(found.into_iter().map(|parameter| Parameter {
                kind: parameter.value.kind().name().to_owned(),
                value: parameter.value.to_string(),
                writable: parameter.writable,
                notification: parameter.notification.label().to_owned(),
                name: parameter.name,
            }));
        }
        Ok(parameters)
    }

    fn set(&mut self, writes: &[(String, String)]) -> Result<(), Fault> {
        let pairs = writes.iter().map(|(path, value)| (path.as_str(), value.as_str()));
        let settings = model::check_all(&self.view(), pairs).map_err(|faults| match faults.first() {
            Some((path, error)) => fault(*error, path),
            None => fault(model::Fault::InternalError, ""),
        })?;
        for setting in settings {
            if let Setting::Url(url) = setting {
                self.parts.url = url;
                let mut notifications = self.notifications.clone();
                attributes::url_written(&mut notifications, &self.view()).map_err(|error| fault(error, ""))?;
                self.notifications = notifications;
            }
        }
        Ok(())
    }

    fn tune(&mut self, settings: &[(String, String)]) -> Result<(), String> {
        if let Some((other, _)) = settings.iter().find(|(key, _)| !is_ours(key)) {
            return Err(format!("{other} is no knob of a device; `tr111 tune` lists them"));
        }
        self.parts.knobs.tune(settings).map_err(|error| error.to_string())?;
        self.parts.log.set(self.parts.knobs.log());
        Ok(())
    }
}

/// Whether a knob is one of this role.
fn is_ours(key: &str) -> bool {
    key.starts_with("agent.") || key.starts_with("device.")
}

fn fault(fault: model::Fault, path: &str) -> Fault {
    Fault { code: fault.code(), name: fault.name(), path: path.to_owned() }
}

/// A notification as watchers and subscribers see it.
fn event(clock: &Clock, output: notification::Output) -> message::Event {
    let notification::Output::Notify { sequence, time, parameters, kind: notification::Kind::ActiveValueChange } =
        output;
    let parameters = parameters.into_iter().map(|(name, value)| ChangedParameter { name, value }).collect();
    let kind = "4 VALUE CHANGE".to_owned();
    let what = Happening::Notification(message::Notification { sequence, kind, parameters });
    message::Event { time: clock.rfc3339(time), what }
}

async fn receive(socket: Option<&PacketSocket>, frame: &mut [u8]) -> io::Result<usize> {
    match socket {
        Some(socket) => socket.receive(frame).await,
        None => std::future::pending().await,
    }
}

/// The device as parameters.
struct View<'a> {
    owner: &'a Owner,
    gateway_info: Option<&'a GatewayInfo>,
}

impl Source for View<'_> {
    fn root(&self) -> Root {
        self.owner.parts.root
    }

    fn side(&self) -> Side {
        Side::Device
    }

    fn device_info(&self) -> &GatewayIdentity {
        &self.owner.device_info
    }

    fn number_of_entries(&self) -> u32 {
        0
    }

    fn notification_limit(&self) -> u32 {
        0
    }

    fn instances(&self) -> Vec<u32> {
        Vec::new()
    }

    fn device(&self, _: u32) -> Option<&DeviceIdentity> {
        None
    }

    fn gateway_info(&self) -> Option<&GatewayInfo> {
        self.gateway_info
    }

    fn url(&self) -> &str {
        &self.owner.parts.url
    }

    fn notification(&self, name: &str) -> Notification {
        self.owner.notifications.attribute(name)
    }
}
