//! Metrics and log. One registry holds every metric; what the kernel and the core count is read when somebody scrapes.

#[cfg(feature = "acs")]
mod acs;
#[cfg(feature = "acs")]
mod association;
mod cpe;
#[cfg(feature = "device")]
mod device;
pub mod http;
mod kernel;
#[cfg(feature = "acs")]
mod line_rate;
pub mod log;
mod mirror;

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
    proto::{Metric, MetricFamily, MetricType},
};
use tr111_core::association::Counts;

use crate::control::message::Counter;

#[cfg(feature = "acs")]
pub use acs::{AcsMetrics, StunCounts};
#[cfg(feature = "acs")]
pub use association::AssociationMetrics;
pub use cpe::CpeMetrics;
#[cfg(feature = "device")]
pub use device::DeviceMetrics;
pub use kernel::KernelCounters;
#[cfg(feature = "acs")]
pub use line_rate::LineRateMetrics;

/// From the kernel's time of a frame to the table, in seconds.
const LATENCY_BUCKETS: [f64; 12] =
    [10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 10e-3, 50e-3, 250e-3, 1.0];

/// Kernel maps that the agent writes, as values of a label.
pub const WRITTEN_MAPS: [&str; 4] = ["exchanges", "sticky", "config", "neighbours"];

/// What becomes of a change that is to be notified.
const NOTIFICATION_RESULTS: [&str; 3] = ["sent", "delayed", "coalesced"];

/// What the owner of the table last said about it.
#[derive(Clone, Debug, Default)]
pub struct TableFacts {
    /// Rows.
    pub rows: u64,
    /// Bindings of all rows.
    pub bindings: u64,
    /// What the core counted.
    pub counts: Counts,
}

/// What a TCP listener counts.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Every connection.
    pub accepted: IntCounter,
    /// Those that gave way to another one.
    pub displaced: IntCounter,
    /// Those whose client let a deadline pass.
    pub timed_out: IntCounter,
}

/// Every metric of an agent.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    table: Arc<Mutex<TableFacts>>,
    ready: AtomicBool,
    relearned: OnceLock<String>,
    obstacle: OnceLock<String>,
    /// From the kernel's time of a frame to the table.
    pub event_latency: Histogram,
    /// Records of a ring that are no event.
    pub damaged_records: IntCounter,
    /// Writes to a kernel map that failed.
    pub failed_writes: IntCounterVec,
    /// Clients of the control socket.
    pub control_clients: IntGauge,
    /// Connections of the TCP listeners, by what became of them.
    tcp_connections: IntCounterVec,
    /// Groups that the store did not write.
    pub store_errors: IntCounter,
    /// Changes of parameters with Active notification, by what became of them.
    pub notifications: IntCounterVec,
    /// Probes that left.
    pub probes_sent: IntCounter,
    /// NAT bindings of LAN devices that were seen.
    pub nat_bindings: IntGauge,
    /// Those whose NAT timeout was made longer.
    pub nat_bindings_extended: IntCounter,
    /// Alarms of a gateway that stand: 1, by alarm and interface.
    pub gateway_alarms: IntGaugeVec,
}

impl Telemetry {
    /// The metrics of a role with kernel programs and a table. `kernel` reads the programs' counters.
    pub fn new(role: &str, kernel: impl KernelCounters + 'static) -> Result<Self, prometheus::Error> {
        let telemetry = Self::plain(role)?;
        for map in WRITTEN_MAPS {
            telemetry.failed_writes.with_label_values(&[map]);
        }
        for result in NOTIFICATION_RESULTS {
            telemetry.notifications.with_label_values(&["ManageableDeviceNumberOfEntries", result]);
        }
        let register = |collector| telemetry.registry.register(collector);
        register(Box::new(telemetry.event_latency.clone()))?;
        register(Box::new(telemetry.damaged_records.clone()))?;
        register(Box::new(telemetry.failed_writes.clone()))?;
        register(Box::new(telemetry.nat_bindings.clone()))?;
        register(Box::new(telemetry.nat_bindings_extended.clone()))?;
        register(Box::new(telemetry.gateway_alarms.clone()))?;
        register(Box::new(mirror::Mirror::new(kernel, Arc::clone(&telemetry.table), telemetry.probes_sent.clone())?))?;
        Ok(telemetry)
    }

    /// The metrics that every role has.
    pub fn plain(role: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let table = Arc::new(Mutex::new(TableFacts::default()));
        let build = Opts::new("tr111_build_info", "Version and role of the agent; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("role", role);
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        let latency = "Time from the kernel's stamp on a frame until the table took it.";
        let latency = HistogramOpts::new("tr111_event_latency_seconds", latency).buckets(LATENCY_BUCKETS.to_vec());
        let writes = Opts::new("tr111_kernel_write_failures_total", "Writes to a kernel map that failed.");
        let telemetry = Self {
            event_latency: Histogram::with_opts(latency)?,
            damaged_records: IntCounter::new(
                "tr111_damaged_records_total",
                "Records of a ring that are no event of this version.",
            )?,
            failed_writes: IntCounterVec::new(writes, &["map"])?,
            control_clients: IntGauge::new("tr111_control_clients", "Clients of the control socket.")?,
            tcp_connections: IntCounterVec::new(
                Opts::new("tr111_tcp_connections_total", "TCP connections by listener, and by what became of them."),
                &["listener", "result"],
            )?,
            store_errors: IntCounter::new(
                "tr111_store_errors_total",
                "Groups of changes that the store did not write.",
            )?,
            notifications: IntCounterVec::new(
                Opts::new("tr111_notifications_total", "Changes that the ACS is to be told, by what became of them."),
                &["parameter", "result"],
            )?,
            nat_bindings: IntGauge::new(
                "tr111_nat_bindings",
                "NAT bindings by which LAN devices wait for Connection Requests.",
            )?,
            nat_bindings_extended: IntCounter::new(
                "tr111_nat_bindings_extended_total",
                "NAT bindings that got a longer timeout.",
            )?,
            gateway_alarms: IntGaugeVec::new(
                Opts::new("tr111_gateway_alarms", "What makes the gateway blind on a LAN interface: 1 while it does."),
                &["alarm", "interface"],
            )?,
            probes_sent: IntCounter::new("unregistered", "Probes that left.")?,
            ready: AtomicBool::new(false),
            relearned: OnceLock::new(),
            obstacle: OnceLock::new(),
            table,
            registry,
        };
        telemetry.register(Box::new(build))?;
        telemetry.register(Box::new(telemetry.control_clients.clone()))?;
        telemetry.register(Box::new(telemetry.tcp_connections.clone()))?;
        telemetry.register(Box::new(telemetry.store_errors.clone()))?;
        telemetry.register(Box::new(telemetry.notifications.clone()))?;
        Ok(telemetry)
    }

    /// Adds metrics of a role's own.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    /// The counters of a TCP listener.
    pub fn connections(&self, listener: &str) -> Connections {
        let counter = |result| self.tcp_connections.with_label_values(&[listener, result]);
        Connections { accepted: counter("accepted"), displaced: counter("displaced"), timed_out: counter("timed_out") }
    }

    /// Takes what the owner of the table says about it.
    pub fn set_table(&self, update: impl FnOnce(&mut TableFacts)) {
        update(&mut lock(&self.table));
    }

    /// Programs are attached and their ring is read.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// The store started empty, for this `reason`, and everything is learned anew.
    pub fn set_relearned(&self, reason: &str) {
        // That happens at the start only.
        let _ = self.relearned.set(reason.to_owned());
    }

    /// Why the store started empty; `None` where it did not.
    pub fn relearned(&self) -> Option<&str> {
        self.relearned.get().map(String::as_str)
    }

    /// The agent runs and cannot do its work before somebody restarts it, for this `reason`.
    pub fn set_obstacle(&self, reason: String) {
        // The first one says enough.
        let _ = self.obstacle.set(reason);
    }

    /// What there is to say of an agent that works, or why it does not.
    pub fn readiness(&self) -> Result<String, String> {
        if let Some(obstacle) = self.obstacle.get() {
            return Err(obstacle.clone());
        }
        if !self.ready.load(Ordering::Relaxed) {
            return Err("programs are not attached yet".to_owned());
        }
        let relearned = self.relearned().map(|reason| format!("; everything is learned anew: {reason}"));
        Ok(format!("ready{}", relearned.unwrap_or_default()))
    }

    /// Every counter among the metrics.
    pub fn counters(&self) -> Vec<Counter> {
        let counters = |family: &MetricFamily| {
            let name = family.name().to_owned();
            let counter = |metric: &Metric| Counter {
                name: name.clone(),
                labels: metric.get_label().iter().map(|pair| (pair.name().into(), pair.value().into())).collect(),
                value: whole(metric.get_counter().get_value()),
            };
            family.get_metric().iter().map(counter).collect::<Vec<_>>()
        };
        let families = self.registry.gather();
        let families = families.iter().filter(|family| family.get_field_type() == MetricType::COUNTER);
        families.flat_map(counters).collect()
    }

    /// Every metric, in Prometheus' text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// The value of a counter that counts by one.
#[expect(clippy::cast_sign_loss, reason = "a counter is never below 0")]
fn whole(count: f64) -> u64 {
    count as u64
}

/// Plain numbers stay right even if somebody panicked beside them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tr111_common::counter::{Class, Counter, Hook, Ring};

    use super::*;

    struct Fixed;

    impl KernelCounters for Fixed {
        fn read(&self, counter: Counter) -> u64 {
            match counter {
                Counter::Packet(Hook::LanIngress, Class::Discover) => 3,
                Counter::RingEvents(Ring::Lan) => 7,
                _ => 0,
            }
        }
    }

    #[test]
    fn every_class_and_reason_is_there_from_the_start_with_its_value_or_zero() {
        let telemetry = Telemetry::new("gateway", Fixed).expect("consistent names");
        telemetry.set_table(|table| table.rows = 2);
        let text = telemetry.render().expect("encodes");
        for line in [
            "tr111_packets_total{class=\"discover\",hook=\"lan_ingress\"} 3",
            "tr111_packets_total{class=\"nak\",hook=\"lan_egress\"} 0",
            "tr111_ring_events_total{ring=\"lan\"} 7",
            "tr111_ring_lost_total{ring=\"lan\"} 0",
            "tr111_manageable_devices 2",
            "tr111_table_changes_total{change=\"added\",reason=\"request\"} 0",
            "tr111_table_changes_total{change=\"removed\",reason=\"identity_changed\"} 0",
            "tr111_device_identities_total{message=\"inform\",result=\"bad_oui\"} 0",
            "tr111_device_identities_total{message=\"discover\",result=\"accepted\"} 0",
            "tr111_newcomers_lost_total 0",
            "tr111_event_latency_seconds_count 0",
            "tr111_kernel_write_failures_total{map=\"sticky\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("tr111_build_info{role=\"gateway\",version="), "{text}");
    }

    #[test]
    fn every_metric_follows_the_naming_rules() {
        let telemetry = Telemetry::new("gateway", Fixed).expect("consistent names");
        for family in telemetry.registry.gather() {
            let name = family.name();
            assert!(name.starts_with("tr111_") && !name.contains(':'), "{name}");
            assert!(!family.help().is_empty(), "{name}");
            let is_counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        }
    }
}
