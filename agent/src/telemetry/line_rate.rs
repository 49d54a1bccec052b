//! Metrics of an ACS's line-rate path.

use prometheus::{
    IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tr111_common::counter::{Class, Counter, Hook};

use super::KernelCounters;

/// Frames at the hook `acs_stun`, read from the kernel at each scrape.
pub struct LineRateMetrics<K> {
    kernel: K,
    descriptions: Vec<Desc>,
}

impl<K: KernelCounters> LineRateMetrics<K> {
    /// `kernel` reads the program's counters.
    pub fn new(kernel: K) -> Result<Self, prometheus::Error> {
        let descriptions = packets()?.desc().into_iter().cloned().collect();
        Ok(Self { kernel, descriptions })
    }
}

impl<K: KernelCounters> Collector for LineRateMetrics<K> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // `new` accepted the same name and labels.
        let Ok(packets) = packets() else { return Vec::new() };
        let hook = Hook::AcsStun;
        for &class in Class::ALL {
            let count = self.kernel.read(Counter::Packet(hook, class));
            packets.with_label_values(&[hook.label(), class.label()]).inc_by(count);
        }
        packets.collect()
    }
}

fn packets() -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new("tr111_packets_total", "Frames at a hook, each counted once."), &["hook", "class"])
}
