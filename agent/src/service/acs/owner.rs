//! The task that answers requests to the agent as a whole: status, knobs, reload and stop.

use tokio::sync::{mpsc, watch};
use tr111_core::time::BootTime;

use super::Acs;
use crate::{
    control::message::{AcsStatus, Interface, Status, Table},
    registry::Health,
    service::{Ask, Clock, Knobs},
    telemetry::log::Log,
};

/// What the task needs.
#[derive(Debug)]
pub struct Parts {
    /// The ACS that is asked for its sizes and takes the knobs.
    pub acs: Acs,
    /// The fields of the status that do not change while the agent runs.
    pub status: Status,
    /// Interfaces with the line-rate path; `None` without one.
    pub interfaces: Option<watch::Receiver<Vec<Interface>>>,
    /// When the agent started.
    pub started: BootTime,
    /// The knobs in force.
    pub knobs: Knobs,
    /// The log, whose filter is a knob.
    pub log: Log,
}

/// Answers requests until the agent stops.
#[derive(Debug)]
pub struct Owner {
    parts: Parts,
    clock: Clock,
}

impl Owner {
    /// Creates the task and applies the knobs.
    pub fn new(parts: Parts) -> Self {
        let owner = Self { parts, clock: Clock::new() };
        owner.apply();
        owner
    }

    /// Answers requests until [`Ask::Stop`] arrives.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        while let Some(ask) = asks.recv().await {
            if matches!(ask, Ask::Stop) {
                return;
            }
            self.answer(ask);
        }
    }

    /// Answers a request. A failed reply is ignored: the client has gone. Requests that an ACS does not know are
    /// dropped without a reply, which the client's end reports.
    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Ask::Devices { reply, .. } => {
                let _ = reply.send(Vec::new());
            }
            Ask::Knobs(reply) => {
                let _ = reply.send(self.parts.knobs.list().into_iter().filter(|knob| is_ours(&knob.key)).collect());
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
                let _ = reply.send(Err("an ACS cannot be detached; stop it with SIGTERM".to_owned()));
            }
            _ => {}
        }
    }

    fn status(&mut self) -> Status {
        self.clock.follow();
        let size = self.parts.acs.size();
        let status = self.parts.status.clone();
        let bindings = size.authenticated;
        Status {
            started: self.clock.rfc3339(self.parts.started),
            uptime_s: Clock::now().since(self.parts.started).unwrap_or_default().as_secs(),
            interfaces: self.parts.interfaces.as_ref().map(|told| told.borrow().clone()).unwrap_or_default(),
            table: Table { rows: size.cpes, bindings, ..status.table },
            acs: status.acs.map(|acs| AcsStatus {
                cpes: size.cpes,
                authenticated: size.authenticated,
                unreadable_records: size.unreadable,
                registry_failure: match self.parts.acs.health() {
                    Health::Working => None,
                    Health::Failing { reason } => Some(reason),
                },
                clock_ahead_s: self.parts.acs.clock_ahead().map(|ahead| ahead.as_secs()),
                registry_unreadable: self.parts.acs.readable().err().map(|error| error.to_string()),
                ..acs
            }),
            ..status
        }
    }

    fn tune(&mut self, settings: &[(String, String)]) -> Result<(), String> {
        if let Some((other, _)) = settings.iter().find(|(key, _)| !is_ours(key)) {
            return Err(format!("{other} is not a knob of an ACS; `tr111 tune` lists the knobs"));
        }
        self.parts.knobs.tune(settings).map_err(|error| error.to_string())?;
        self.apply();
        Ok(())
    }

    /// Applies the knobs.
    fn apply(&self) {
        self.parts.log.set(self.parts.knobs.log());
        self.parts.acs.set_knobs(&self.parts.knobs.acs());
    }
}

fn is_ours(key: &str) -> bool {
    ["agent.", "acs."].iter().any(|section| key.starts_with(section))
}
