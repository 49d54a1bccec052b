//! The ACS: STUN server, registry of bindings, sender of Connection Requests.

use std::sync::Arc;

use super::start::{self, Endpoints, Error, seed};
use crate::{
    config::{self, Acs, Values},
    control::message::{AcsStatus, Status, Table},
    service::{
        Clock, Knobs,
        acs::{self, Owner, Parts},
    },
    telemetry::{Telemetry, log::Log},
};

const ROLE: &str = "acs";

/// Runs the ACS until a signal ends it. `reload` reads the configuration again, for SIGHUP.
pub fn run(
    acs: &Acs,
    values: Values,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    start::run(&acs.agent.log, async |log| serve(acs, values, log, reload).await)
}

async fn serve(
    config: &Acs,
    values: Values,
    log: Log,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    let started = Clock::now();
    let endpoints = Endpoints::take(ROLE, &config.agent).await?;
    let telemetry = Arc::new(Telemetry::plain(ROLE)?);
    let knobs = Knobs::new(values);
    let acs = acs::Acs::new(seed(), knobs.acs().approach, endpoints.events.clone());
    let status = status(config, endpoints.metrics());
    let owner = Owner::new(Parts { acs: acs.clone(), status, started, knobs, log });

    let (served, asked) = endpoints.serve_with(Arc::clone(&telemetry), reload, Some(acs));
    telemetry.set_ready();
    tracing::info!(control = %config.agent.control.display(), "ACS runs");

    owner.run(asked).await;
    tracing::info!("ACS ends");
    served.close().await;
    Ok(())
}

/// What does not change while it runs.
fn status(config: &Acs, metrics: Option<String>) -> Status {
    Status {
        role: ROLE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: String::new(),
        uptime_s: 0,
        interfaces: Vec::new(),
        table: Table { rows: 0, bindings: 0, max_rows: 0 },
        rings: Vec::new(),
        last_notification: None,
        pin_dir: config.agent.pin_dir.clone(),
        metrics,
        tcp_connection_requests: String::new(),
        acs: Some(AcsStatus { listen: config.listen.clone(), cpes: 0, authenticated: 0 }),
    }
}
