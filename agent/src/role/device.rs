//! The device: learns `GatewayInfo` by DHCP on one interface and offers it to clients, metrics and log.

use std::sync::Arc;

use tr111_core::{
    device::{Mode, Settings},
    identity::{DeviceIdentity, GatewayIdentity},
};

use super::start::{self, Endpoints, Error, seed, system, written};
use crate::{
    config::{self, Device, DeviceMode, Values},
    control::message,
    os::packet_socket::{PacketSocket, SocketError},
    service::{
        Clock, Knobs, Model,
        device::{Owner, Parts},
        link::Link,
    },
    telemetry::{DeviceMetrics, Telemetry, log::Log},
};

const ROLE: &str = "device";

/// Runs the device until a signal stops it. `reload` reads the configuration again, for SIGHUP.
pub fn run(
    device: &Device,
    values: Values,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    start::run(&device.agent.log, async |log| serve(device, values, log, reload).await)
}

async fn serve(
    device: &Device,
    values: Values,
    log: Log,
    reload: impl Fn() -> Result<Values, config::Error> + Send + 'static,
) -> Result<(), Error> {
    let agent = &device.agent;
    let link = Link::watch(device.interface.as_deref()).await?;
    if let Some(name) = device.interface.as_ref().filter(|_| device.mode != DeviceMode::Off) {
        // Reports missing privileges at the start. An interface that is down may come up later.
        match PacketSocket::open_for_dhcp_replies(name) {
            Ok(_) | Err(SocketError::Down(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let endpoints = Endpoints::take(ROLE, agent).await?;
    let (store, kept) = start::open_store(agent, |_| None).await?;
    let written = written(&device.management_server)?;
    let sockets = start::sockets(&device.management_server, device.connection_request_listen).await?;
    let telemetry = Arc::new(Telemetry::plain(ROLE)?);
    store.relearned().into_iter().for_each(|reason| telemetry.set_relearned(reason));
    let metrics = DeviceMetrics::register(&telemetry)?;
    let mode = match device.mode {
        DeviceMode::Inform => Some(Mode::Inform { interval: device.inform_interval }),
        DeviceMode::Dhcp => Some(Mode::Dhcp),
        DeviceMode::Off => None,
    };
    let mac = link.first.as_ref().map_or([0; 6], |first| first.mac);
    let DeviceIdentity { manufacturer_oui, serial_number, product_class } = device.identity.clone();
    let device_info = GatewayIdentity { manufacturer_oui, serial_number, product_class };
    let knobs = Knobs::new(values);
    let cpe = start::cpe(sockets, &kept, &knobs, &endpoints, &telemetry)?;
    let parts = Parts {
        status: status(device, endpoints.metrics()),
        started: Clock::now(),
        link,
        device: mode.map(|mode| Settings { mac, identity: device.identity.clone(), mode, seed: seed() }),
        model: Model::new(device.data_model, device_info, written),
        knobs,
        log,
        telemetry: Arc::clone(&telemetry),
        metrics,
        events: endpoints.events.clone(),
    };
    let mut owner = Owner::new(parts, kept, store);
    owner.hear(cpe).map_err(system("receive Connection Requests"))?;

    let (served, asked) = endpoints.serve(telemetry, reload);
    tracing::info!(
        interface = device.interface.as_deref().unwrap_or("auto"),
        mode = ?device.mode,
        control = %agent.control.display(),
        "device started"
    );

    owner.run(asked).await.map_err(system("wait for events"))?;
    tracing::info!("device stopped");
    served.close().await;
    Ok(())
}

/// The fields of the status that do not change. A device has neither a table nor rings.
fn status(device: &Device, metrics: Option<String>) -> message::Status {
    let interface = message::Interface {
        name: device.interface.clone().unwrap_or_default(),
        side: "wan".to_owned(),
        state: String::new(),
        hooks: Vec::new(),
    };
    message::Status {
        role: ROLE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started: String::new(),
        uptime_s: 0,
        interfaces: vec![interface],
        table: message::Table { rows: 0, bindings: 0, max_rows: 0, waiting: 0 },
        rings: Vec::new(),
        last_notification: None,
        store_relearned: None,
        pin_dir: device.agent.pin_dir.clone(),
        metrics,
        tcp_connection_requests: start::tcp_connection_requests(
            &device.management_server,
            device.connection_request_listen,
        ),
        nat_timeouts: None,
        alarms: Vec::new(),
        acs: None,
    }
}
