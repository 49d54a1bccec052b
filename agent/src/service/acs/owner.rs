//! The task that answers for the agent as a whole: its state, its knobs, its end.

use tokio::sync::{mpsc, watch};
use tr111_core::time::BootTime;

use super::Acs;
use crate::{
    control::message::{AcsStatus, Interface, Status, Table},
    registry::Health,
    service::{Ask, Clock, Knobs},
    telemetry::log::Log,
};

/// What the task works with.
#[derive(Debug)]
pub struct Parts {
    /// The ACS.
    pub acs: Acs,
    /// What does not change.
    pub status: Status,
    /// Interfaces with the line-rate path, where there is one.
    pub interfaces: Option<watch::Receiver<Vec<Interface>>>,
    /// When it started.
    pub started: BootTime,
    /// The configuration in force.
    pub knobs: Knobs,
    /// The log.
    pub log: Log,
}

/// Answers until a signal ends it.
#[derive(Debug)]
pub struct Owner {
    parts: Parts,
    clock: Clock,
}

impl Owner {
    /// Puts the knobs into force.
    pub fn new(parts: Parts) -> Self {
        let owner = Self { parts, clock: Clock::new() };
        owner.apply();
        owner
    }

    /// Works until a signal ends it.
    pub async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        while let Some(ask) = asks.recv().await {
            if matches!(ask, Ask::Stop) {
                return;
            }
            self.answer(ask);
        }
    }

    /// A client that left before its answer misses nothing. What an ACS has no answer to goes unanswered, which the
    /// client's end says.
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
                let _ = reply.send(Err("an ACS is stopped by SIGTERM".to_owned()));
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
            return Err(format!("{other} is no knob of an ACS; `tr111 tune` lists them"));
        }
        self.parts.knobs.tune(settings).map_err(|error| error.to_string())?;
        self.apply();
        Ok(())
    }

    /// Puts the knobs into force.
    fn apply(&self) {
        self.parts.log.set(self.parts.knobs.log());
        self.parts.acs.set_knobs(&self.parts.knobs.acs());
    }
}

/// Whether a knob is one of this role.
fn is_ours(key: &str) -> bool {
    ["agent.", "acs."].iter().any(|section| key.starts_with(section))
}
