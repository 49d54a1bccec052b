//! Metrics that the kernel programs and the core count. They are read at each scrape.

use std::sync::{Arc, Mutex};

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tr111_common::{
    counter::{Class, Counter, Hook, Ring},
    dhcp4::MessageType,
    identity::Refusal,
    insert::Insertion,
};
use tr111_core::association::{IdentityResult, LifeSign, ProbeResult, Remark, RemovalReason, Source};

use super::{KernelCounters, TableFacts, lock};

pub(super) struct Mirror<K> {
    kernel: K,
    table: Arc<Mutex<TableFacts>>,
    probes_sent: IntCounter,
    descriptions: Vec<Desc>,
}

impl<K: KernelCounters> Mirror<K> {
    pub(super) fn new(
        kernel: K,
        table: Arc<Mutex<TableFacts>>,
        probes_sent: IntCounter,
    ) -> Result<Self, prometheus::Error> {
        let nothing = TableFacts::default();
        let families = Families::new(&Zero, &nothing, 0)?;
        let descriptions = families.each().flat_map(Collector::desc).cloned().collect();
        Ok(Self { kernel, table, probes_sent, descriptions })
    }
}

impl<K: KernelCounters> Collector for Mirror<K> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let table = lock(&self.table).clone();
        match Families::new(&self.kernel, &table, self.probes_sent.get()) {
            Ok(families) => families.each().flat_map(Collector::collect).collect(),
            // `new` accepted the same names and labels.
            Err(error) => {
                tracing::error!(%error, "cannot collect the metrics of the kernel and the core");
                Vec::new()
            }
        }
    }
}

struct Zero;

impl KernelCounters for Zero {
    fn read(&self, _: Counter) -> u64 {
        0
    }
}

/// The metrics of one scrape.
struct Families {
    gauges: Vec<IntGauge>,
    counters: Vec<IntCounterVec>,
}

impl Families {
    fn each(&self) -> impl Iterator<Item = &dyn Collector> {
        let gauges = self.gauges.iter().map(|gauge| gauge as &dyn Collector);
        gauges.chain(self.counters.iter().map(|counter| counter as &dyn Collector))
    }

    fn new(kernel: &impl KernelCounters, table: &TableFacts, probes_sent: u64) -> Result<Self, prometheus::Error> {
        let mut families = Self { gauges: Vec::new(), counters: Vec::new() };
        families.gauge("tr111_manageable_devices", "Rows of the ManageableDevice table.", table.rows)?;
        families.gauge("tr111_device_bindings", "Bindings (DHCP clients) of all rows.", table.bindings)?;

        let changes = "Rows added, by the message that was acknowledged, and rows removed, by reason.";
        let changes = families.counter("tr111_table_changes_total", changes, &["change", "reason"])?;
        for source in Source::ALL {
            changes.with_label_values(&["added", source.label()]).inc_by(table.counts.additions(source));
        }
        for reason in RemovalReason::ALL {
            changes.with_label_values(&["removed", reason.label()]).inc_by(table.counts.removals(reason));
        }

        let packets = "Frames at a hook, each counted once.";
        let packets = families.counter("tr111_packets_total", packets, &["hook", "class"])?;
        for hook in Hook::GATEWAY {
            for &class in Class::ALL {
                let count = kernel.read(Counter::Packet(hook, class));
                packets.with_label_values(&[hook.label(), class.label()]).inc_by(count);
            }
        }

        let policed = "Frames dropped because they exceeded the configured rate.";
        let policed = families.counter("tr111_policed_packets_total", policed, &["hook", "class"])?;
        let hooks =
            [(Hook::LanIngress, "dhcp"), (Hook::LanPort, "dhcp"), (Hook::WanIngress, Class::ConnectionRequest.label())];
        for (hook, class) in hooks {
            let count = kernel.read(Counter::Packet(hook, Class::Policed));
            policed.with_label_values(&[hook.label(), class]).inc_by(count);
        }

        let events = families.counter("tr111_ring_events_total", "Events written to a ring.", &["ring"])?;
        for ring in Ring::ALL {
            events.with_label_values(&[ring.label()]).inc_by(kernel.read(Counter::RingEvents(ring)));
        }
        let lost = families.counter("tr111_ring_lost_total", "Events lost because a ring was full.", &["ring"])?;
        for ring in Ring::ALL {
            lost.with_label_values(&[ring.label()]).inc_by(kernel.read(Counter::RingLost(ring)));
        }

        let identities = "Device Identities in DHCP messages, by result.";
        let identities = families.counter("tr111_device_identities_total", identities, &["message", "result"])?;
        for (message, result, mut count) in table.counts.identities() {
            // The kernel programs count most refusals. A message without an identity is counted as a class of frames.
            match result {
                IdentityResult::Refused(Refusal::Absent) => continue,
                IdentityResult::Refused(refusal) => count += kernel.read(Counter::Refused(message, refusal)),
                _ => {}
            }
            identities.with_label_values(&[message.label(), result.label()]).inc_by(count);
        }

        let insertions =
            "OFFERs and ACKs to devices with an identity, by the result of inserting the Gateway Identity.";
        let insertions = families.counter("tr111_identity_insertions_total", insertions, &["message", "result"])?;
        for message in [MessageType::Offer, MessageType::Ack] {
            for result in Insertion::ALL {
                let count = kernel.read(Counter::Insertion(message, result));
                insertions.with_label_values(&[message.label(), result.label()]).inc_by(count);
            }
        }

        let remarks = "Protocol deviations that were tolerated and other observations, by kind.";
        let remarks = families.counter("tr111_identity_remarks_total", remarks, &["remark"])?;
        for &remark in Remark::ALL {
            remarks.with_label_values(&[remark.label()]).inc_by(table.counts.remark(remark));
        }

        let probes = "ARP requests to silent devices, by result.";
        let probes = families.counter("tr111_liveness_probes_total", probes, &["result"])?;
        probes.with_label_values(&["sent"]).inc_by(probes_sent);
        probes.with_label_values(&["answered"]).inc_by(table.counts.probes(ProbeResult::Answered));
        probes.with_label_values(&["silent"]).inc_by(table.counts.probes(ProbeResult::Unanswered));

        let signs = "Devices that answered no ARP request but are present, by sign of life.";
        let signs = families.counter("tr111_liveness_signs_total", signs, &["sign"])?;
        for sign in LifeSign::ALL {
            signs.with_label_values(&[sign.label()]).inc_by(table.counts.signs(sign));
        }

        let newcomers = "Clients with an identity that were lost because the kernel's map of newcomers was full.";
        let newcomers = families.counter("tr111_newcomers_lost_total", newcomers, &[])?;
        newcomers.with_label_values(&[] as &[&str]).inc_by(kernel.read(Counter::NewcomersLost));
        Ok(families)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.gauges.push(gauge);
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.counters.push(counter.clone());
        Ok(counter)
    }
}
