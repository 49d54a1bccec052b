//! Metrics and log. One registry has all metrics; counters of the kernel and of the core are read at each scrape.

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

/// Buckets in seconds for the time from the kernel's timestamp of a frame to the table.
const LATENCY_BUCKETS: [f64; 12] =
    [10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 10e-3, 50e-3, 250e-3, 1.0];

/// Kernel maps that the agent writes, as label values.
pub const WRITTEN_MAPS: [&str; 4] = ["exchanges", "sticky", "config", "neighbours"];

/// Results of a change with Active notification, as label values.
const NOTIFICATION_RESULTS: [&str; 3] = ["sent", "delayed", "coalesced"];

/// Facts about the table, as last reported by its owner.
#[derive(Clone, Debug, Default)]
pub struct TableFacts {
    /// Number of rows.
    pub rows: u64,
    /// Number of bindings of all rows.
    pub bindings: u64,
    /// The core's counters.
    pub counts: Counts,
}

/// Counters of a TCP listener.
#[derive(Clone, Debug)]
pub struct Connections {
    /// All connections.
    pub accepted: IntCounter,
    /// Connections that were closed in favour of another one.
    pub displaced: IntCounter,
    /// Connections whose client missed a deadline.
    pub timed_out: IntCounter,
}

/// The metrics of an agent.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    table: Arc<Mutex<TableFacts>>,
    ready: AtomicBool,
    relearned: OnceLock<String>,
    obstacle: OnceLock<String>,
    /// Time from the kernel's timestamp of a frame to the table, in seconds.
    pub event_latency: Histogram,
    /// Records of a ring that cannot be decoded.
    pub damaged_records: IntCounter,
    /// Failed writes to a kernel map.
    pub failed_writes: IntCounterVec,
    /// Connected clients of the control socket.
    pub control_clients: IntGauge,
    /// Connections of the TCP listeners, by result.
    tcp_connections: IntCounterVec,
    /// Groups of changes that the store could not write.
    pub store_errors: IntCounter,
    /// Changes of parameters with Active notification, by result.
    pub notifications: IntCounterVec,
    /// Probes that were sent.
    pub probes_sent: IntCounter,
    /// Known NAT bindings of LAN devices.
    pub nat_bindings: IntGauge,
    /// NAT bindings whose timeout was extended.
    pub nat_bindings_extended: IntCounter,
    /// 1 for each active alarm of a gateway, by alarm and interface.
    pub gateway_alarms: IntGaugeVec,
}

impl Telemetry {
    /// Creates the metrics of a role with kernel programs and a table. `kernel` reads the programs' counters.
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

    /// Creates the metrics that are common to all roles.
    pub fn plain(role: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let table = Arc::new(Mutex::new(TableFacts::default()));
        let build = Opts::new("tr111_build_info", "Version and role of the agent; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("role", role);
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        let latency = "Time from the kernel's timestamp of a frame until the table processed it.";
        let latency = HistogramOpts::new("tr111_event_latency_seconds", latency).buckets(LATENCY_BUCKETS.to_vec());
        let writes = Opts::new("tr111_kernel_write_failures_total", "Writes to a kernel map that failed.");
        let telemetry = Self {
            event_latency: Histogram::with_opts(latency)?,
            damaged_records: IntCounter::new(
                "tr111_damaged_records_total",
                "Records of a ring that cannot be decoded.",
            )?,
            failed_writes: IntCounterVec::new(writes, &["map"])?,
            control_clients: IntGauge::new("tr111_control_clients", "Clients of the control socket.")?,
            tcp_connections: IntCounterVec::new(
                Opts::new("tr111_tcp_connections_total", "TCP connections, by listener and result."),
                &["listener", "result"],
            )?,
            store_errors: IntCounter::new(
                "tr111_store_errors_total",
                "Groups of changes that the store could not write.",
            )?,
            notifications: IntCounterVec::new(
                Opts::new("tr111_notifications_total", "Changes with Active notification, by result."),
                &["parameter", "result"],
            )?,
            nat_bindings: IntGauge::new("tr111_nat_bindings", "NAT bindings of LAN devices for Connection Requests.")?,
            nat_bindings_extended: IntCounter::new(
                "tr111_nat_bindings_extended_total",
                "NAT bindings whose timeout was extended.",
            )?,
            gateway_alarms: IntGaugeVec::new(
                Opts::new("tr111_gateway_alarms", "Alarms of a gateway by LAN interface: 1 while active."),
                &["alarm", "interface"],
            )?,
            probes_sent: IntCounter::new("unregistered", "Probes that were sent.")?,
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

    /// Registers further metrics of a role.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    /// The counters of the TCP listener with this label.
    pub fn connections(&self, listener: &str) -> Connections {
        let counter = |result| self.tcp_connections.with_label_values(&[listener, result]);
        Connections { accepted: counter("accepted"), displaced: counter("displaced"), timed_out: counter("timed_out") }
    }

    /// Updates the facts about the table.
    pub fn set_table(&self, update: impl FnOnce(&mut TableFacts)) {
        update(&mut lock(&self.table));
    }

    /// Marks the agent as ready: the programs are attached and the ring is read.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Records that the store started empty for this `reason`.
    pub fn set_relearned(&self, reason: &str) {
        // This is called at most once, at the start.
        let _ = self.relearned.set(reason.to_owned());
    }

    /// Why the store started empty; `None` if it did not start empty.
    pub fn relearned(&self) -> Option<&str> {
        self.relearned.get().map(String::as_str)
    }

    /// Records why the agent cannot do its work until it is restarted.
    pub fn set_obstacle(&self, reason: String) {
        // Only the first reason is kept.
        let _ = self.obstacle.set(reason);
    }

    /// The text of `/readyz`: the state of an agent that is ready, or why it is not.
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

    /// All counters with their values.
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

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// The value of a counter that is incremented in whole numbers.
#[expect(clippy::cast_sign_loss, reason = "a counter is never below 0")]
fn whole(count: f64) -> u64 {
    count as u64
}

/// A panic cannot leave half-made changes of plain numbers.
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
