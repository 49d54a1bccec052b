//! The gateway: connects the LAN ring with the table, and the table with clients, metrics and log.

use std::{collections::HashMap, io, sync::Arc};

use nix::net::if_::if_nametoindex;
use tokio::{sync::mpsc, time::timeout};

use super::{
    privileges,
    start::{self, Endpoints, Error, FAREWELL, seed, system, written},
};
use crate::{
    config::{self, Gateway, Values},
    control::message,
    dataplane::{self, Bridges, Dataplane, Pins},
    nat::{self, Nat, TableError},
    os::netlink::Netlink,
    service::{
        Clock, InterfaceState, Knobs, Lan, Model, Prober, Search,
        association::{Ended, Facts, Owner, Parts},
        watch_network,
    },
    telemetry::{Telemetry, log::Log},
};

const ROLE: &str = "gateway";
/// First placeholder for the kernel indices of interfaces that do not exist yet; the kernel assigns no such index. Rows
/// behind such an interface use the placeholder until the interface appears.
const STAND_IN: u32 = 1 << 31;
/// Interface changes that may wait for the owner of the table.
const CHANGES: usize = 16;

/// Runs the gateway until a signal or `tr111 detach` stops it. `reload` reads the configuration again, for SIGHUP.
pub fn run(
    gateway: &Gateway,
    values: Values,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    start::run(&gateway.agent.log, async |log| serve(gateway, values, log, reload).await)
}

async fn serve(
    gateway: &Gateway,
    values: Values,
    log: Log,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    let started = Clock::now();
    let agent = &gateway.agent;

    if let Some(missing) = privileges::missing().filter(|missing| !missing.is_empty()) {
        return Err(Error::Privileges { missing });
    }
    // All resources are acquired before anything is attached.
    let pins = Pins::open(&agent.pin_dir)?;
    dataplane::refuse_second_agent(&gateway.lan, pins.as_ref())?;
    let bridges = bridges().await.map_err(system("read the interfaces by netlink"))?;
    bridges.refuse_ports(gateway.lan.iter().chain(&gateway.wan).map(String::as_str))?;
    let endpoints = Endpoints::take(ROLE, agent).await?;
    let names = gateway.lan.iter().chain(&gateway.wan).cloned();
    let indices: HashMap<String, u32> = (STAND_IN..)
        .zip(names)
        .map(|(stand_in, name)| (name.clone(), if_nametoindex(name.as_str()).unwrap_or(stand_in)))
        .collect();
    let known = indices.clone();
    let (store, kept) = start::open_store(agent, move |name| known.get(name).copied()).await?;
    let written = written(&gateway.management_server)?;
    let sockets = start::sockets(&gateway.management_server, gateway.connection_request_listen).await?;
    let network = watch_network().map_err(system("watch addresses by netlink"))?;

    let options = dataplane::Options {
        lan: gateway.lan.clone(),
        wan: gateway.wan.clone(),
        ports: gateway.bridge_ports.then(|| bridges.ports(gateway.lan.iter().map(String::as_str))),
        xdp_mode: agent.xdp_mode,
        tc_order: agent.tc_order,
        config: gateway.traffic.complete(gateway.association.kernel(kept.seed.unwrap_or_else(seed))),
        gateway: gateway.identity.encode(),
        log_programs: agent.log_programs,
    };
    let mut dataplane = Dataplane::start(&options, pins)?;
    let mut interfaces: Vec<(u32, message::Interface)> =
        dataplane.attachments().iter().cloned().map(|one| (one.ifindex, one.into())).collect();
    for (name, side) in dataplane.missing() {
        tracing::warn!(
            interface = name,
            "the interface does not exist; the programs are attached when it appears (`ip link` lists those that exist)"
        );
        let (state, side) = (InterfaceState::Missing.label().to_owned(), side.label().to_owned());
        let missing = message::Interface { name: name.clone(), side, state, hooks: Vec::new() };
        interfaces.push((indices.get(name).copied().unwrap_or(STAND_IN), missing));
    }
    let (told, changes) = mpsc::channel(CHANGES);
    let seed = dataplane.marks().seed();
    let Some(ring) = dataplane.take_lan_ring() else {
        return Err(dataplane::Error::Missing("LAN ring").into());
    };

    let telemetry = Arc::new(Telemetry::new(ROLE, dataplane.counters())?);
    store.relearned().into_iter().for_each(|reason| telemetry.set_relearned(reason));
    let metrics = endpoints.metrics();
    let knobs = Knobs::new(values);
    let cpe = start::cpe(sockets, &kept, &knobs, &endpoints, &telemetry)?;
    let (prober, nat) = (Prober::start(telemetry.probes_sent.clone()), Nat::start(&gateway.traffic));
    let mut owner = Owner::new(
        Parts {
            facts: Facts {
                role: ROLE,
                started,
                interfaces,
                pin_dir: agent.pin_dir.clone(),
                metrics: metrics.clone(),
                tcp_connection_requests: start::tcp_connection_requests(
                    &gateway.management_server,
                    gateway.connection_request_listen,
                ),
            },
            programs: dataplane.marks(),
            counters: dataplane.counters(),
            telemetry: Arc::clone(&telemetry),
            events: endpoints.events.clone(),
            knobs,
            model: Model::new(gateway.data_model, gateway.identity.clone(), written),
            log,
            search: Search::start(prober.clone(), endpoints.asks.clone(), nat.conntrack()),
            prober,
            nat: Some(nat),
        },
        kept,
        seed,
        store,
    );
    owner.hear(cpe).map_err(system("receive Connection Requests"))?;

    let (served, asked) = endpoints.serve(telemetry, reload);
    tracing::info!(
        interfaces = gateway.lan.join(","),
        control = %agent.control.display(),
        metrics = metrics.map(tracing::field::display),
        "gateway started"
    );

    let keep = Lan::new(dataplane, bridges).keep(network, told);
    let (ended, dataplane) = tokio::join!(owner.run(ring, asked, changes), keep);
    let ended = ended.map_err(system("wait for events"))?;
    if dataplane.is_pinned() && !agent.detach_on_exit && matches!(ended, Ended::Stopped) {
        drop(dataplane);
        tracing::info!("gateway stopped; its programs stay attached, `tr111 detach` removes them");
    } else {
        dataplane.detach();
        match nat::remove() {
            Ok(_) | Err(TableError::NoNft | TableError::Owned(_)) => {}
            Err(error) => tracing::warn!(%error, "cannot remove the nft table"),
        }
        tracing::info!("programs detached, gateway stopped");
    }
    if let Ended::Detached { reply, answered } = ended {
        let _ = reply.send(Ok(()));
        let _ = timeout(FAREWELL, answered).await;
    }
    served.close().await;
    Ok(())
}

/// Reads the current bridges.
async fn bridges() -> io::Result<Bridges> {
    Ok(Bridges::new(Netlink::route()?.links().await?))
}
