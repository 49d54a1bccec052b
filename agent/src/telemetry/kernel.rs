//! Access to the counters of the kernel programs.

use tr111_common::counter::Counter;

use crate::dataplane::Counters;

/// Reads the counters of the kernel programs.
pub trait KernelCounters: Send + Sync {
    /// The sum of a counter over all CPUs.
    fn read(&self, counter: Counter) -> u64;
}

impl<K: KernelCounters + ?Sized> KernelCounters for std::sync::Arc<K> {
    fn read(&self, counter: Counter) -> u64 {
        (**self).read(counter)
    }
}

impl KernelCounters for Counters {
    fn read(&self, counter: Counter) -> u64 {
        Self::read(self, counter).unwrap_or_else(|error| {
            tracing::debug!(%error, ?counter, "cannot read a counter of the kernel programs");
            0
        })
    }
}
