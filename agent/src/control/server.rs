//! The agent side of the control socket.

#[cfg(feature = "acs")]
mod acs;

use std::{io, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{Semaphore, broadcast, mpsc, oneshot},
    time::timeout,
};
use tr111_core::model::Notification;

use super::{
    Listener,
    frame::{self, FrameError},
    message::{self, Attribute, Binding, Device, Event, Happening, Refusal, Reply, Request},
    peer::{self, Permission},
};
#[cfg(feature = "acs")]
use crate::service::acs::{Acs, Import};
use crate::{
    service::{Answer, Ask, Fault},
    telemetry::Telemetry,
};

/// Limits for clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum clients at a time.
    pub clients: usize,
    /// Time limit for [`Request::Hello`].
    pub hello: Duration,
    /// Longest time between two requests.
    pub idle: Duration,
    /// Time limit for the owner task to answer a request.
    pub answer: Duration,
    /// Time limit for a client to read a message.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 64,
            hello: Duration::from_secs(5),
            idle: Duration::from_mins(1),
            answer: Duration::from_secs(10),
            write: Duration::from_secs(10),
        }
    }
}

/// What the server needs to answer clients.
#[derive(Clone, Debug)]
pub struct Service {
    /// Role of the agent.
    pub role: &'static str,
    /// Requests to the owner task of the role.
    pub asks: mpsc::Sender<Ask>,
    /// Handle to the ACS, for requests that only an ACS answers. `None` in other roles.
    #[cfg(feature = "acs")]
    pub acs: Option<Acs>,
    /// Source of events.
    pub events: broadcast::Sender<Arc<Event>>,
    /// Counters, including that of connected clients.
    pub telemetry: Arc<Telemetry>,
    /// Limits for clients.
    pub limits: Limits,
}

/// Why a connection ended early. Logged at debug level.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the client is too slow")]
    Slow,
    #[error("the agent is stopping")]
    Stopping,
}

/// Serves clients until the agent stops.
pub async fn serve(listener: Listener, service: Service) {
    let places = Arc::new(Semaphore::new(service.limits.clients));
    loop {
        let stream = match listener.socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control client");
                // Most likely the process has no free file descriptor. Wait for one.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let service = service.clone();
        tokio::spawn(async move {
            let mut connection = Connection {
                stream,
                service: &service,
                #[cfg(feature = "acs")]
                import: None,
            };
            let ended = match place {
                Ok(_place) => {
                    service.telemetry.control_clients.inc();
                    let ended = connection.converse().await;
                    service.telemetry.control_clients.dec();
                    ended
                }
                Err(_) => connection.refuse(Refusal::Busy, "the agent has too many clients; try again later").await,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "the connection to a control client ended");
            }
        });
    }
}

struct Connection<'a> {
    stream: UnixStream,
    service: &'a Service,
    /// CPEs of a [`Request::AddCpes`] whose last message has not arrived.
    #[cfg(feature = "acs")]
    import: Option<Import>,
}

impl Connection<'_> {
    async fn converse(&mut self) -> Result<(), Ended> {
        let credentials = self.stream.peer_cred()?;
        let permission = peer::permission(credentials.uid(), credentials.gid());
        if permission == Permission::None {
            return self
                .refuse(Refusal::NotPermitted, "only root and members of the group tr111 may use the agent")
                .await;
        }
        match self.read(self.service.limits.hello).await? {
            Some(Request::Hello { version: message::VERSION }) => {}
            Some(Request::Hello { version }) => {
                let agent = message::VERSION;
                let reason =
                    format!("the agent speaks protocol {agent}, this tr111 speaks {version}; use the same version");
                return self.refuse(Refusal::Version, &reason).await;
            }
            Some(_) => return self.refuse(Refusal::BadRequest, "the first request must be hello").await,
            None => return Ok(()),
        }
        self.write(&Reply::Hello { version: message::VERSION, role: self.service.role.to_owned() }).await?;
        while let Some(request) = self.read(self.service.limits.idle).await? {
            #[cfg(feature = "acs")]
            if let Some(acs) = self.service.acs.clone()
                && acs::is_for(&request)
            {
                self.answer_for(acs, request, permission).await?;
                continue;
            }
            match request {
                Request::Hello { .. } => {
                    return self.refuse(Refusal::BadRequest, "hello must be the first request").await;
                }
                Request::Devices => self.devices().await?,
                Request::Watch { devices } => return self.watch(devices).await,
                Request::Get { paths } => match self.ask(|reply| Ask::Get { paths, reply }).await? {
                    Answer::Done(Ok(parameters)) => {
                        self.write_list(parameters, false, |parameters, more| Reply::Parameters { parameters, more })
                            .await?;
                    }
                    Answer::Done(Err(fault)) => self.write(&fault.into()).await?,
                    Answer::Late => self.refuse_late().await?,
                },
                Request::Set { parameters, by_acs } => {
                    let set = self.ask(|reply| Ask::Set { parameters, by_acs, reply }).await?;
                    self.conclude_set(set).await?;
                }
                Request::Notify { path, attribute } => {
                    let attribute = attribute.into();
                    let set = self.ask(|reply| Ask::Notify { path, attribute, reply }).await?;
                    self.conclude_set(set).await?;
                }
                Request::Subscribe { from_sequence } => return self.subscribe(from_sequence).await,
                Request::Acknowledge { sequence } => {
                    let done = self.ask(|reply| Ask::Acknowledge { sequence, reply }).await?;
                    self.conclude(done).await?;
                }
                Request::Bindings => match self.ask(Ask::Bindings).await? {
                    Answer::Done(bindings) => {
                        self.write_list(bindings, false, |bindings, more| Reply::Bindings { bindings, more }).await?;
                    }
                    Answer::Late => self.refuse_late().await?,
                },
                Request::Status => match self.ask(Ask::Status).await? {
                    Answer::Done(status) => self.write(&Reply::Status(Box::new(status))).await?,
                    Answer::Late => self.refuse_late().await?,
                },
                Request::Counters => {
                    let counters = self.service.telemetry.counters();
                    self.write(&Reply::Counters { counters }).await?;
                }
                Request::Knobs => match self.ask(Ask::Knobs).await? {
                    Answer::Done(knobs) => self.write(&Reply::Knobs { knobs }).await?,
                    Answer::Late => self.refuse_late().await?,
                },
                Request::Tune { settings } => {
                    let done = self.ask(|reply| Ask::Tune { settings, reply }).await?;
                    self.conclude(done).await?;
                }
                // Other roles than the ACS have no associations.
                Request::Associations => {
                    self.write(&Reply::Associations { associations: Vec::new(), more: false }).await?;
                }
                Request::Send { .. }
                | Request::SendTo { .. }
                | Request::SendMany { .. }
                | Request::AddCpes { .. }
                | Request::RemoveCpe { .. }
                | Request::VerifyCpe { .. }
                | Request::ResetTimestamp { .. }
                | Request::Cpes
                | Request::CpeCredentials
                | Request::LintCpes => {
                    let reason = format!("this agent runs as {}; only an ACS can do this", self.service.role);
                    self.refuse(Refusal::BadRequest, &reason).await?;
                }
                Request::Detach { .. } if permission < Permission::Own => {
                    self.refuse(Refusal::NotPermitted, "only root and the agent's own user may stop it").await?;
                }
                Request::Detach { pin_dir } => {
                    let (written, answered) = oneshot::channel();
                    let done = self.ask(|reply| Ask::Detach { pin_dir, reply, answered }).await?;
                    self.conclude(done).await?;
                    // The agent waits for this before it stops. If it has stopped already, the send fails, which is
                    // harmless.
                    let _ = written.send(());
                }
            }
        }
        Ok(())
    }

    async fn conclude(&mut self, done: Answer<Result<(), String>>) -> Result<(), Ended> {
        match done {
            Answer::Done(Ok(())) => self.write(&Reply::Done).await,
            Answer::Done(Err(reason)) => self.refuse(Refusal::Failed, &reason).await,
            Answer::Late => self.refuse_late().await,
        }
    }

    async fn conclude_set(&mut self, set: Answer<Result<(), Fault>>) -> Result<(), Ended> {
        match set {
            Answer::Done(Ok(())) => self.write(&Reply::Done).await,
            Answer::Done(Err(fault)) => self.write(&fault.into()).await,
            Answer::Late => self.refuse_late().await,
        }
    }

    /// Sends notifications in order until the client disconnects: unacknowledged ones from `from_sequence` on, then new
    /// ones. Notifications stay in the queue of the core until they are acknowledged, so a slow client misses none.
    async fn subscribe(&mut self, from_sequence: u64) -> Result<(), Ended> {
        let mut events = self.service.events.subscribe();
        self.write(&Reply::Done).await?;
        let mut after = from_sequence.saturating_sub(1);
        let mut byte = [0];
        loop {
            loop {
                let page = match self.ask(|reply| Ask::Notifications { after, reply }).await? {
                    Answer::Done(page) => page,
                    Answer::Late => return self.refuse_late().await,
                };
                if page.is_empty() {
                    break;
                }
                for event in page {
                    if let Happening::Notification(notification) = &event.what {
                        after = notification.sequence;
                    }
                    self.write(&Reply::Event(event)).await?;
                }
            }
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Ok(event) if matches!(event.what, Happening::Notification(_)) => break,
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Lagged(_)) => break,
                        Err(broadcast::error::RecvError::Closed) => return Err(Ended::Stopping),
                    },
                    // A subscriber acknowledges on another connection. Any input here, or its end, ends the
                    // subscription.
                    _ = self.stream.read(&mut byte) => return Ok(()),
                }
            }
        }
    }

    /// Sends all rows. They are read in pages, so that a large table does not block the owner task.
    async fn devices(&mut self) -> Result<(), Ended> {
        let mut after = 0;
        loop {
            let page = match self.ask(|reply| Ask::Devices { after, reply }).await? {
                Answer::Done(page) => page,
                Answer::Late => return self.refuse_late().await,
            };
            after = page.last().map_or(after, |device| device.instance);
            let ends = page.is_empty();
            for devices in cut(page) {
                self.write(&Reply::Devices { devices, more: true }).await?;
            }
            if ends {
                return self.write(&Reply::Devices { devices: Vec::new(), more: false }).await;
            }
        }
    }

    /// Sends a list in as many messages as it needs. `more`: another list follows.
    async fn write_list<T: Serialize>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        more: bool,
        reply: impl Fn(Vec<T>, bool) -> Reply,
    ) -> Result<(), Ended> {
        for (items, others) in frame::parts(items) {
            self.write(&reply(items, others || more)).await?;
        }
        Ok(())
    }

    /// Sends events until the client disconnects. A slow client loses events and is told how many. A client that does
    /// not read at all is disconnected.
    async fn watch(&mut self, devices: bool) -> Result<(), Ended> {
        // Subscribe before the rows are read, so that no event in between is missed.
        let mut events = self.service.events.subscribe();
        if devices {
            self.devices().await?;
        } else {
            self.write(&Reply::Done).await?;
        }
        let mut byte = [0];
        loop {
            let reply = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => Reply::Event((*event).clone()),
                    Err(broadcast::error::RecvError::Lagged(missed)) => Reply::Lagged { missed },
                    Err(broadcast::error::RecvError::Closed) => return Err(Ended::Stopping),
                },
                // A watcher sends no further requests. Any input here, or its end, ends the subscription.
                _ = self.stream.read(&mut byte) => return Ok(()),
            };
            self.write(&reply).await?;
        }
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<Answer<T>, Ended> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.service.asks.send(ask(reply)).await.map_err(|_| Ended::Stopping)?;
            answer.await.map_err(|_| Ended::Stopping)
        };
        match timeout(self.service.limits.answer, asked).await {
            Ok(answer) => Ok(Answer::Done(answer?)),
            Err(_) => Ok(Answer::Late),
        }
    }

    async fn refuse_late(&mut self) -> Result<(), Ended> {
        self.refuse(Refusal::Deadline, "the agent is too busy to answer in time").await
    }

    async fn refuse(&mut self, refusal: Refusal, reason: &str) -> Result<(), Ended> {
        self.write(&Reply::Refused { refusal, reason: reason.to_owned() }).await
    }

    /// The next request. `None` when the client has closed the connection.
    async fn read(&mut self, deadline: Duration) -> Result<Option<Request>, Ended> {
        let stream = &mut self.stream;
        let read = async {
            let mut header = [0; frame::LENGTH_BYTES];
            match stream.read_exact(&mut header).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                other => other?,
            };
            let mut body = vec![0; frame::length(header)?];
            stream.read_exact(&mut body).await?;
            Ok(Some(frame::decode(&body)?))
        };
        match timeout(deadline, read).await.map_err(|_| Ended::Slow)? {
            Err(Ended::Frame(error)) => {
                self.refuse(Refusal::BadRequest, &error.to_string()).await?;
                Err(error.into())
            }
            other => other,
        }
    }

    async fn write(&mut self, reply: &Reply) -> Result<(), Ended> {
        let frame = match frame::encode(reply) {
            Err(error @ FrameError::Length { .. }) => {
                // Tell the client why the connection is closed.
                let reason = format!("the reply is too long: {error}");
                let refused = frame::encode(&Reply::Refused { refusal: Refusal::Failed, reason })?;
                let _ = timeout(self.service.limits.write, self.stream.write_all(&refused)).await;
                return Err(error.into());
            }
            other => other?,
        };
        Ok(timeout(self.service.limits.write, self.stream.write_all(&frame)).await.map_err(|_| Ended::Slow)??)
    }
}

impl From<Attribute> for Notification {
    fn from(attribute: Attribute) -> Self {
        match attribute {
            Attribute::Off => Self::Off,
            Attribute::Passive => Self::Passive,
            Attribute::Active => Self::Active,
        }
    }
}

impl From<Fault> for Reply {
    fn from(Fault { code, name, path }: Fault) -> Self {
        Self::Fault { code, name: name.to_owned(), path }
    }
}

/// Splits rows into messages. A row that does not fit is continued in the next message.
fn cut(devices: Vec<Device>) -> Vec<Vec<Device>> {
    let mut messages = Vec::new();
    let mut message = Vec::new();
    let mut room = frame::ITEMS;
    for mut device in devices {
        let mut bindings = std::mem::take(&mut device.bindings);
        let head = frame::size(&device);
        loop {
            let (count, bytes) = fitting(&bindings, room.saturating_sub(head));
            let fits = head <= room && (count > 0 || bindings.is_empty());
            if !fits && !message.is_empty() {
                messages.push(std::mem::take(&mut message));
                room = frame::ITEMS;
                continue;
            }
            let rest = bindings.split_off(count.max(1).min(bindings.len()));
            room = room.saturating_sub(head + bytes);
            message.push(Device { bindings, ..device.clone() });
            if rest.is_empty() {
                break;
            }
            bindings = rest;
        }
    }
    if !message.is_empty() {
        messages.push(message);
    }
    messages
}

/// Number of leading bindings that fit into `room` bytes, and their size in bytes.
fn fitting(bindings: &[Binding], room: usize) -> (usize, usize) {
    let mut bytes = 0;
    for (count, binding) in bindings.iter().enumerate() {
        let size = frame::size(binding);
        if bytes + size > room {
            return (count, bytes);
        }
        bytes += size;
    }
    (bindings.len(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row whose bindings have client identifiers of `client_id` bytes.
    fn row(instance: u32, bindings: usize, client_id: usize) -> Device {
        let binding = Binding {
            mac: "ff:".repeat(16),
            answered_by: Some("ff:".repeat(6)),
            client_id: Some("ff".repeat(client_id)),
            ip: "255.255.255.255".to_owned(),
            interface: "\"".repeat(15),
            vlan: vec![4095, 4095],
            source: "request".to_owned(),
            lease_expires: Some("2026-01-01T00:00:00Z".to_owned()),
        };
        Device {
            instance,
            manufacturer_oui: "00256D".to_owned(),
            serial_number: "\\".repeat(64),
            product_class: "\"".repeat(64),
            first_seen: "2026-01-01T00:00:00Z".to_owned(),
            last_seen: "2026-01-01T00:00:00Z".to_owned(),
            bindings: vec![binding; bindings],
        }
    }

    #[test]
    fn rows_of_any_size_are_cut_into_frames_below_the_cap_and_nothing_is_lost() {
        // The longest rows of this version, and rows of earlier versions with longer client identifiers.
        let devices = [
            vec![row(1, 1, 255), row(2, 5_000, 255), row(3, 1, 0), row(4, 997, 255), row(5, 2, 1_000)],
            (6..600).map(|instance| row(instance, 1, 1_100)).collect(),
        ]
        .concat();
        let messages = cut(devices.clone());
        assert!(messages.len() > 5);
        let mut joined: Vec<Device> = Vec::new();
        for message in messages {
            let reply = Reply::Devices { devices: message.clone(), more: true };
            assert!(frame::encode(&reply).expect("below the cap").len() <= frame::MAXIMUM);
            for device in message {
                match joined.last_mut() {
                    Some(last) if last.instance == device.instance => last.bindings.extend(device.bindings),
                    _ => joined.push(device),
                }
            }
        }
        assert_eq!(joined, devices);
    }
}
