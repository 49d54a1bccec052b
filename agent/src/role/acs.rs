//! The ACS: STUN server, registry of bindings, and sender of Connection Requests.

use std::{io, sync::Arc, time::Duration};

use tokio::{task, time::timeout};

use super::start::{self, Endpoints, Error, seed, system};
use crate::{
    api,
    config::{self, Acs, Values},
    control::message::{AcsStatus, Status, Table},
    dataplane::LineRate,
    essential,
    registry::{Encryption, Journal, Opened},
    service::{
        Clock, Knobs,
        acs::{self, BindError, Owner, Parts, Places, StunSocket},
        watch_network,
    },
    telemetry::{AcsMetrics, AssociationMetrics, LineRateMetrics, Telemetry, log::Log},
};

const ROLE: &str = "acs";
/// Advice for a registry that cannot be read.
const REMEDY: &str = "replace it by a good copy, or start once with --start-empty, which renames it";
/// How long the last changes may take when the agent ends.
const LAST_GROUP: Duration = Duration::from_secs(5);

/// Runs the ACS until a signal stops it. `reload` reads the configuration again, for SIGHUP.
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
    let api = match &config.api {
        Some(settings) => Some(api::Listening::bind(settings).await?),
        None => None,
    };
    let sockets = sockets(config)?;
    let telemetry = Arc::new(Telemetry::plain(ROLE)?);
    let knobs = Knobs::new(values);
    let metrics = AcsMetrics::register(&telemetry, ROLE)?;
    let acs = acs::Acs::new(seed(), &knobs.acs(), sockets, endpoints.events.clone(), metrics);
    match open_registry(config).await {
        Ok(opened) => acs.open(opened),
        Err(Error::Registry(error)) if error.is_unreadable() => {
            let reason = format!("{error}; {REMEDY}");
            tracing::error!(reason, "the registry cannot be read: no CPE is known, and none can be added");
            telemetry.set_obstacle(format!("the registry cannot be read: {reason}"));
            acs.refuse(reason);
        }
        Err(error) => return Err(error),
    }
    acs.count_associations(AssociationMetrics::register(&telemetry)?);
    let status = status(config, endpoints.metrics());
    let places = line_rate(config, &telemetry)?;
    let interfaces = places.as_ref().map(Places::interfaces);
    let owner = Owner::new(Parts { acs: acs.clone(), status, interfaces, started, knobs, log });

    acs.serve_stun(seed()).map_err(system("start threads"))?;
    // The line-rate path starts last, so that it never answers for a server that is not running. It ends with this
    // process.
    if let Some(places) = places {
        let network = watch_network().map_err(system("watch addresses by netlink"))?;
        let is_allowed = acs.answer_at_line_rate(places.bindings());
        essential::task("line rate", places.keep(network, is_allowed));
    }
    let renewal = api.as_ref().map(api::Listening::renewal);
    let reload = move || {
        // The token is renewed even if the configuration has errors: a token that others know must not stay in force.
        renewal.iter().for_each(api::Renewal::renew);
        reload()
    };
    let (served, asked) = endpoints.serve_for(acs.clone(), Arc::clone(&telemetry), reload);
    essential::task("associations", acs.clone().watch_associations());
    essential::task("clock", acs.clone().watch_clock());
    let url = api.as_ref().and_then(api::Listening::url);
    if let Some(api) = api {
        essential::task("api", api.serve(acs.clone(), telemetry.connections("api")));
    }
    telemetry.set_ready();
    tracing::info!(control = %config.agent.control.display(), api = url.as_deref().unwrap_or("off"), "ACS started");

    owner.run(asked).await;
    acs.stop();
    if timeout(LAST_GROUP, acs.flush()).await.is_err() {
        tracing::error!("the registry did not store the latest changes in time; they are lost");
    }
    tracing::info!("ACS stopped");
    served.close().await;
    Ok(())
}

/// Attaches the line-rate path if it is configured.
fn line_rate(config: &Acs, telemetry: &Telemetry) -> Result<Option<Places>, Error> {
    if config.xdp.is_empty() {
        return Ok(None);
    }
    let program = LineRate::load(config.agent.xdp_mode, seed())?;
    let places = Places::start(program, &config.xdp, config.listen.clone())?;
    telemetry.register(Box::new(LineRateMetrics::new(places.counters())?))?;
    Ok(Some(places))
}

/// Opens and reads the registry.
async fn open_registry(config: &Acs) -> Result<Opened, Error> {
    let location = match &config.registry_password_file {
        Some(file) => {
            let password = start::secret(file).map_err(system("read acs.registry_password_file"))?;
            config.registry.clone().with_password(password)
        }
        None => config.registry.clone(),
    };
    let location = location.with_tls_files(config.registry_tls.clone())?;
    let encryption = match &config.registry_encryption_key_file {
        Some(file) => Encryption::read(file).map_err(|error| Error::Key { file: file.clone(), error })?,
        None => Encryption::default(),
    };
    let start_empty = config.start_empty;
    let open = move || match Journal::open(&location, encryption.clone(), seed()) {
        Err(error) if start_empty && error.is_unreadable() => {
            tracing::warn!(%error, "the registry cannot be read; starting without CPEs because of --start-empty");
            location.move_aside()?;
            Journal::open(&location, encryption, seed())
        }
        opened => opened,
    };
    let opened = task::spawn_blocking(open).await;
    Ok(opened.map_err(|error| system("read the registry")(io::Error::other(error)))??)
}

/// Binds the addresses of the STUN server, one socket per address and thread.
fn sockets(config: &Acs) -> Result<Vec<StunSocket>, BindError> {
    let bound = config.listen.iter().map(|&address| StunSocket::bind(address, config.threads.get()));
    Ok(bound.collect::<Result<Vec<_>, _>>()?.concat())
}

/// The fields of the status that do not change while the agent runs.
fn status(config: &Acs, metrics: Option<String>) -> Status {
    Status {
        role: ROLE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: String::new(),
        uptime_s: 0,
        interfaces: Vec::new(),
        table: Table { rows: 0, bindings: 0, max_rows: 0, waiting: 0 },
        rings: Vec::new(),
        last_notification: None,
        store_relearned: None,
        pin_dir: config.agent.pin_dir.clone(),
        metrics,
        tcp_connection_requests: String::new(),
        nat_timeouts: None,
        alarms: Vec::new(),
        acs: Some(AcsStatus {
            listen: config.listen.clone(),
            cpes: 0,
            authenticated: 0,
            unreadable_records: 0,
            registry: config.registry.to_string(),
            registry_failure: None,
            clock_ahead_s: None,
            registry_unreadable: None,
        }),
    }
}
